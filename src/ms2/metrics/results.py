"""Typed results of a run: the contents of ``metrics.json`` and ``histograms.json``.

``metrics.json`` is an object with the fields of `Results`, a ``schema_version`` and a ``summary``. Every number has a
place of its own, so no reader has to take a name apart::

    {"schema_version": 1,
     "summary": {"count_tv": 0.04, "count_tv_prior": 0.61, "kid": 0.002, "seconds_total": 93.1, ...},
     "structure": {"count": {"title": "objects per scene",
                             "distances": {"tv": {"learned": {"value": 0.04, "low": 0.02, "high": 0.06}, ...}, ...},
                             "means": {"learned": 4.1, "target": 4.2, ...}, "unit": ""}, ...},
     "visible": {...}, "attributes": {...}, "images": {...}, "readings": {...}, "stages": {...}, "seconds": {...},
     "measured_with": {...}}

Values that are not finite are written as null and read as NaN.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ms2.core.files import write_json
from ms2.core.typed_json import decode, encode, read_versioned
from ms2.metrics.intervals import Interval

SCHEMA_VERSION = 1
"""Version of the fields of ``metrics.json`` and ``histograms.json``; raise it with every change of their meaning."""
HOW_TO_RECREATE = "'ms2 test' measures a finished run again"
"""Advice in errors about broken files."""
LEARNED, PRIOR, TARGET = "learned", "prior", "target"
BEST_PCFG, NOISE_FLOOR = "best_pcfg", "noise_floor"
ROW_TITLES = {
    PRIOR: "prior",
    "learned_structure": "learned structure",
    "learned_parameters": "learned parameters",
    LEARNED: "learned",
    BEST_PCFG: "best PCFG",
    NOISE_FLOOR: "noise floor",
    TARGET: "target",
}
"""Titles of rows by name.

``best_pcfg`` is the PCFG fitted to the target's true derivations, ``noise_floor`` the mean distance that a perfect
model shows: that of two samples of the target's distribution, as large as those that were compared.
"""
VISIBLE = "visible_"
"""Begin of the names of statistics that count only objects that can be seen in an image."""
DISTANCE_TITLES = {
    "tv": "total variation",
    "kl": "KL divergence",
    "wasserstein": "Wasserstein distance",
    "energy": "energy distance",
    "w1": "Wasserstein distance",
    "kid": "KID",
    "fid": "FID",
}
"""Titles of distances by name."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval; None where no interval was computed."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_interval(cls, interval: Interval) -> "Estimate":
        """Convert an `Interval`."""
        return cls(interval.value, interval.low, interval.high)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None if one is missing or not finite."""
        if self.low is None or self.high is None or not (math.isfinite(self.low) and math.isfinite(self.high)):
            return None
        return self.low, self.high


@dataclass(frozen=True)
class StatisticResult:
    """Distances of one statistic to the target.

    Attributes:
        title: Title for people.
        distances: By the distance's name, the most important first, the distance of each row; see `ROW_TITLES`.
        means: Mean of the statistic by row, for statistics whose mean has a meaning.
        unit: Unit of values, means and Wasserstein distances; empty where there is none.
        counted_class: The one class whose objects the statistic counts; empty if it measures something else.
    """

    title: str
    distances: Mapping[str, Mapping[str, Estimate]]
    means: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    counted_class: str = ""

    @property
    def main(self) -> str:
        """Name of the distance that is shown first."""
        return next(iter(self.distances))


@dataclass(frozen=True)
class ImageResult:
    """FID and KID of generated images to the target's.

    Attributes:
        features: The extractor with its settings and a hash of its weights; only equal ones compare.
        num_generated: Generated images of each row.
        num_real: Target images.
        distances: By the distance's name (``kid``, ``fid``) that of each row.
        changes: By the distance's name the relative change of a row to the prior, -0.5 for half of it; without the rows
            of which the prior's distance might be 0.
    """

    features: str
    num_generated: int
    num_real: int
    distances: Mapping[str, Mapping[str, Estimate]]
    changes: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadingAccuracy:
    """How accurately an extractor reads one number of objects, over rendered images of a wide structure prior.

    Attributes:
        bias: Mean of the reading minus the number visible.
        deviation: Standard deviation of that difference.
        correlation: Correlation of reading and number visible.
        information: Information of the reading about the number visible, in nats.
        entropy: Entropy of the number visible, in nats: the most that a reading can hold.
        structure_information: Information of the reading about the number of objects that there are, in nats.
        structure_entropy: Entropy of that number, in nats.
        quality: ``read``, ``occluded``, ``blurred`` or ``not read``, see `ms2.features.channel.reading_quality`.
    """

    bias: float
    deviation: float
    correlation: float
    information: float
    entropy: float
    structure_information: float
    structure_entropy: float
    quality: str


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of an extractor on rendered images of known content, drawn from one parameter prior.

    Attributes:
        scores: ``presence_accuracy``, ``count_accuracy`` and ``class_error`` (mean absolute error per class).
        count_error: Mean error of the number of objects by the true number.
        slot_errors: Mean error of each counted class or place by its true number.
        readings: Accuracy of each number that the extractor's channel describes; measured for the world's own
            parameter prior alone.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    count_error: Mapping[int, float] = field(default_factory=dict)
    slot_errors: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    readings: Mapping[str, ReadingAccuracy] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRecord:
    """Duration and results of a stage before learning.

    Attributes:
        seconds: Wall-clock time of its training, when it was done.
        reused: Whether its module was loaded from the cache.
        metrics: Numbers that it logged last, such as ``pretraining/nll``.
        probes: Accuracy of the extractor by parameter prior.
    """

    seconds: float
    reused: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    probes: Mapping[str, ProbeResult] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadingResult:
    """What the extractor reads in images of a target without known truth, and in generated ones: estimates.

    Attributes:
        num_images: Images of each row that were read.
        num_target_images: All images of the target; None where it is a stream.
        objects: Mean number of objects read in an image, by row.
        classes: Mean number of objects of each class by row; without classes that the extractor does not count.
    """

    num_images: int
    num_target_images: int | None
    objects: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RunProvenance:
    """How a run's results were obtained: scenes and images, target, settings, command and versions.

    Attributes:
        num_scenes: Generated scenes of each row.
        seed: Seed of everything drawn.
        target: Name of the target's class.
        steps: Steps of learning.
        num_images: Generated images in which structure was counted, where the target's labels were evaluated; else
            None.
        num_visible: Images of each row, at most, in which visible objects were to be counted; 0 for none.
        fingerprint: Hash of the settings of evaluation, target and scene model; empty if unknown.
        command: Command line; empty if unknown.
        versions: Versions of ms2, torch and Python.
    """

    num_scenes: int
    seed: int
    target: str
    steps: int = 0
    num_images: int | None = None
    fingerprint: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    num_visible: int = 0


@dataclass(frozen=True)
class Results:
    """All measurements of a finished run.

    Attributes:
        measured_with: Numbers of scenes, target, settings and versions.
        structure: Distances of structure by the statistic's name; empty where the target's structure is unknown, or
            stands in labels that were not evaluated.
        attributes: Distances of attributes by the statistic's name; empty where the target's are unknown.
        images: FID and KID, where they were asked for.
        readings: What the extractor reads in the target's images, where there are no distances of structure.
        stages: Stages before learning by name.
        seconds: Wall-clock seconds of ``training`` and ``total``.
        visible: Distances of structure as it can be seen in images, by the statistic's name, which begins with
            `VISIBLE`; empty if they were not measured.
        not_read: Numbers of objects that keep the prior's distribution, as the extractor reads nothing of them; for
            those that are learned by likelihood.
    """

    measured_with: RunProvenance
    structure: Mapping[str, StatisticResult] = field(default_factory=dict)
    attributes: Mapping[str, StatisticResult] = field(default_factory=dict)
    images: ImageResult | None = None
    readings: ReadingResult | None = None
    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    visible: Mapping[str, StatisticResult] = field(default_factory=dict)
    not_read: Sequence[str] = field(default_factory=list)

    @property
    def statistics(self) -> Mapping[str, StatisticResult]:
        """Structure, each statistic followed by that of what can be seen of it, then attributes."""
        found = {**self.structure, **self.visible, **self.attributes}
        return {name: found[name] for name in in_pairs(found)}

    @property
    def summary(self) -> dict[str, float]:
        """Flat keys for scripts: `summary_key` of every distance and mean, and ``seconds_STAGE``.

        ``structure_mean_tv`` and ``visible_mean_tv`` are means over the statistics that count one class each.
        """
        found: dict[str, float] = {}
        for name, statistic in self.statistics.items():
            for distance, rows in statistic.distances.items():
                found |= {summary_key(f"{name}_{distance}", row): estimate.value for row, estimate in rows.items()}
            found |= {summary_key(f"{name}_mean", row): mean for row, mean in statistic.means.items()}
        for space, statistics in (("structure", self.structure), ("visible", self.visible)):
            found |= {summary_key(f"{space}_mean_tv", row): tv for row, tv in mean_tv(statistics).items()}
        if self.images is not None:
            for distance, rows in self.images.distances.items():
                found |= {summary_key(distance, row): estimate.value for row, estimate in rows.items()}
        if self.readings is not None:
            found |= {summary_key("read_objects_mean", row): mean for row, mean in self.readings.objects.items()}
        found |= {f"seconds_{name}": stage.seconds for name, stage in self.stages.items()}
        return found | {f"seconds_{name}": seconds for name, seconds in self.seconds.items()}


@dataclass(frozen=True)
class HistogramResult:
    """Distributions of one statistic over the same bins.

    Attributes:
        name: Name of the statistic.
        title: Title for people.
        bins: Names of the bins.
        shares: Share of each bin, 0..1, by row.
    """

    name: str
    title: str
    bins: Sequence[str]
    shares: Mapping[str, Sequence[float]]


def mean_tv(statistics: Mapping[str, StatisticResult]) -> dict[str, float]:
    """Compute the mean total variation over the statistics that count one class each, by row.

    Empty where there are fewer than two.
    """
    found = [one.distances["tv"] for one in statistics.values() if one.counted_class and "tv" in one.distances]
    if len(found) < 2:
        return {}
    rows = [row for row in found[0] if all(row in one for one in found)]
    return {row: math.fsum(one[row].value for one in found) / len(found) for row in rows}


def in_pairs(names: Iterable[str]) -> list[str]:
    """Order names of statistics: first pairs of structure and what can be seen of it, then the others."""
    every = list(names)
    pairs = [name for one in every if VISIBLE + one in every for name in (one, VISIBLE + one)]
    return [*pairs, *(name for name in every if name not in pairs)]


def summary_key(name: str, row: str = LEARNED) -> str:
    """Build a key of the summary: the name alone for the learned row, else ``NAME_ROW`` as in ``count_tv_prior``."""
    return name if row == LEARNED else f"{name}_{row}"


def save_results(path: Path, results: Results) -> None:
    """Write ``metrics.json`` atomically."""
    fields = encode(results)
    write_json(path, {"schema_version": SCHEMA_VERSION, "summary": encode(results.summary)} | fields)


def load_results(path: Path) -> Results:
    """Read ``metrics.json``.

    Raises:
        UserError: If the file can't be read, is cut off, or has another schema.
    """
    found: Results = decode(Results, read_versioned(path, SCHEMA_VERSION, HOW_TO_RECREATE), path)
    return found


def save_histograms(path: Path, histograms: Sequence[HistogramResult]) -> None:
    """Write ``histograms.json`` atomically."""
    write_json(path, {"schema_version": SCHEMA_VERSION, "histograms": [encode(one) for one in histograms]})


def load_histograms(path: Path) -> list[HistogramResult]:
    """Read ``histograms.json``.

    Raises:
        UserError: If the file can't be read, is cut off, or has another schema.
    """
    content = read_versioned(path, SCHEMA_VERSION, HOW_TO_RECREATE)
    found: list[HistogramResult] = decode(list[HistogramResult], content.get("histograms"), path, "histograms")
    return found
