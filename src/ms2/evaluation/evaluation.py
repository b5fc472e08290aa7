"""Measure a scene model against a target: structure, what is seen of it, attributes, images and rule changes."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

import ms2
from ms2.core.bounds import NonNegativeInt, SampleSize, Seed
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.core.settings import Configured, fingerprint, settings_of
from ms2.evaluation.examples import Example, sample_examples
from ms2.evaluation.image_distances import ImageDistances
from ms2.evaluation.readings import read_images
from ms2.evaluation.rule_changes import RuleChange, rule_changes
from ms2.evaluation.sampling import (
    CPU,
    MAX_ATTRIBUTE_SCENES,
    attribute_samples,
    sample_derivations,
    structure_scenes,
)
from ms2.evaluation.visible import visible_scenes
from ms2.features.base import Blocks, FeatureExtractor
from ms2.metrics.attributes import AttributeStatistic
from ms2.metrics.base import Statistic
from ms2.metrics.results import (
    LEARNED,
    NOISE_FLOOR,
    PRIOR,
    ROW_TITLES,
    TARGET,
    Estimate,
    HistogramResult,
    ImageResult,
    Results,
    RunProvenance,
    StatisticResult,
    in_pairs,
)
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic
from ms2.models.scene_model import SceneModel
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import Target
from ms2.targets.embedding import embed_target
from ms2.world import World

NUM_VALIDATION_SCENES = 1000
"""Scenes whose attributes a validation measures."""
Embed = Callable[[FeatureExtractor, torch.device, int | None], Blocks]
"""Embeds target images, given the extractor, its device and the maximum number of images (None for all)."""


@dataclass(frozen=True)
class Measurements:
    """All measurements of a scene model, as input of the writers.

    Attributes:
        results: Distances to the target, with intervals.
        histograms: Histograms of prior, learned model and target, by statistic.
        rule_changes: Rules whose probability differs between prior and learned model, the largest change first.
        examples: Images by row with labels.
    """

    results: Results
    histograms: Sequence[HistogramResult]
    rule_changes: Sequence[RuleChange]
    examples: Mapping[str, Sequence[Example]]


class Evaluation(Configured):
    """Measures how close the scenes of a model are to those of a target, and compares with the prior.

    Args:
        statistics: Statistics of structure to compare with the target's; number and classes of objects by default.
            Those given replace these: list `ObjectCount` and `ClassFrequency` among them to keep them.
        attribute_statistics: Statistics of attributes to compare with the target's.
        num_scenes: Scenes of each row whose structure is measured.
        num_images: Scenes of each row that are measured instead where the target's truth comes from annotations of
            images: they are rendered, and objects that an annotator cannot see are left out. Also the number of images
            that the extractor reads where the target has no truth.
        num_visible: Scenes of each row that are rendered to count what can be seen in images (`Renderer.seen`), where
            the target is rendered from known scenes, of which the first are rendered again; 0 for none.
        image_distances: How FID and KID are measured at the end of a run; null for neither.
        seed: Seed of everything sampled.
        evaluate_labels: Whether to measure distances to the labels of real images. Without it nothing reads them, so
            that they can't influence any choice. The truth of rendered targets is always compared with. On the
            command line also ``--evaluate_labels true``.

    Example:
        >>> evaluation = Evaluation([ObjectCount()], num_scenes=1000)
        >>> evaluation.measure(SceneModel(world, structure), target).results.summary["count_tv"]
    """

    def __init__(
        self,
        statistics: Sequence[StructureStatistic] | None = None,
        attribute_statistics: Sequence[AttributeStatistic] | None = None,
        num_scenes: SampleSize = 4000,
        num_images: SampleSize = 500,
        num_visible: NonNegativeInt = 0,
        image_distances: ImageDistances | None = None,
        seed: Seed = 0,
        evaluate_labels: bool = False,
    ) -> None:
        self.statistics = list(statistics or default_statistics())
        self.attribute_statistics = list(attribute_statistics or ())
        self.visible_statistics = [seen for one in self.statistics if num_visible and (seen := one.of_visible())]
        every: list[Statistic[Any]] = [*self.statistics, *self.visible_statistics, *self.attribute_statistics]
        names = [one.name for one in every]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"several statistics are called {', '.join(twice)}: give each another 'name'")
        self.num_scenes, self.num_images, self.num_visible = num_scenes, num_images, num_visible
        self.image_distances, self.seed, self.evaluate_labels = image_distances, seed, evaluate_labels

    @property
    def replaced_statistics(self) -> list[str]:
        """Names of the default statistics that are not measured, since others were given."""
        measured = {one.name for one in self.statistics}
        return [type(one).__name__ for one in default_statistics() if one.name not in measured]

    def check(self, model: SceneModel, num_target_images: int) -> None:
        """Check before training that everything can be measured after it.

        Raises:
            UserError: If image distances don't fit the images, or there are too few of them.
        """
        if self.image_distances is not None:
            self.image_distances.check(model.world.renderer, num_target_images)

    def truth(self, target: Target) -> SceneBatch | None:
        """Return the structure of a target's scenes; None where it is unknown, or stands in labels that are not read.

        Raises:
            UserError: If labels are to be evaluated, and can't be read, or there are none.
        """
        return target.truth_if_read(self.evaluate_labels)

    def check_statistics(self, world: World) -> None:
        """Measure scenes of the prior, so that classes and attributes that the world lacks are named before training.

        Raises:
            UserError: If a statistic names one.
        """
        draw = generator(self.seed, "check")
        structure = scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 2, draw))
        for one in self.statistics:
            one.measure(structure, world.grammar.classes)
        scenes = world.parameter_prior.sample(structure, draw) if self.attribute_statistics else structure
        for statistic in self.attribute_statistics:
            statistic.measure(scenes, world.classes)

    def measure(
        self,
        model: SceneModel,
        target: Target,
        device: torch.device = CPU,
        images: ImageResult | None = None,
        features: FeatureExtractor | None = None,
        visible: Mapping[str, SceneBatch] | None = None,
    ) -> Measurements:
        """Measure everything once.

        Args:
            model: The scene model.
            target: The target.
            device: Device for sampling, where the learned models are.
            images: What `measure_images` returned; by default it is called here.
            features: The extractor that reads the images of a target whose structure is unknown; None to read none.
            visible: What `visible_scenes` returned; by default it is called here.
        """
        images, truth = images or self.measure_images(model, target, device), self.truth(target)
        known = None if truth is None else target
        derivations = sample_derivations(model, self.num_scenes, self.seed, device, known)
        structure = self._structure_samples(model, derivations, target)
        names = model.world.grammar.classes
        scenes = self.visible_scenes(model, target, device) if visible is None else visible
        seen = {one.name: {row: one.measure(scenes[row], names) for row in scenes} for one in self.visible_statistics}
        num_scenes = min(self.num_scenes, MAX_ATTRIBUTE_SCENES)
        attributes = attribute_samples(model, known, self.attribute_statistics, num_scenes, self.seed, device)
        unread = truth is None
        readings = read_images(features, model, target, self.num_images, self.seed) if unread else None
        results = Results(
            run_provenance(self, model, target),
            compare_all(self.statistics, structure, generator(self.seed, "bootstrap")),
            compare_all(self.attribute_statistics, attributes, generator(self.seed, "attributes", "bootstrap")),
            images,
            readings and readings.result,
            visible=compare_all(self.visible_statistics, seen, generator(self.seed, "bootstrap")),
        )
        samples: dict[str, Mapping[str, Any]] = {**structure, **seen, **attributes}
        return Measurements(
            results,
            [*self.histograms(model, samples), *(readings.histograms if readings else ())],
            rule_changes(model.world.grammar, derivations[PRIOR].to(CPU), derivations[LEARNED].to(CPU)),
            sample_examples(model, target, self.seed, device),
        )

    def measured_with(self, model: SceneModel, target: Target) -> str:
        """Return a hash of the settings that results depend on: those of evaluation, target and scene model."""
        things = (self, target, model.world, model.structure, model.parameters)
        return fingerprint([_with_floats(settings_of(thing)) for thing in things])

    def measure_images(
        self,
        model: SceneModel,
        target: Target,
        device: torch.device = CPU,
        embed: Embed | None = None,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> ImageResult | None:
        """Compute FID and KID; None where they are not asked for, and in all processes but the first.

        All processes have to call this: they share the images.

        Args:
            model: The scene model.
            target: The target.
            device: Device for sampling and embedding, where the learned models are.
            embed: Embeds the target's images, such as from a cache; by default they are embedded here.
            processes: The processes that share the images.
        """
        if self.image_distances is None:
            return None
        distances, limit = self.image_distances, self.image_distances.max_target_images
        if embed is None:
            shared = processes.rank, processes.world_size
            batches = target.batches(distances.batch_size, device, 0, *shared, limit)
            real = embed_target(target, distances.features, batches, device, processes, limit)
        else:
            real = embed(distances.features, device, limit)
        return distances.measure(model, real, self.seed, device, processes)

    def visible_scenes(
        self,
        model: SceneModel,
        target: Target,
        device: torch.device = CPU,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> dict[str, SceneBatch]:
        """Render ``num_visible`` scenes of each row and keep what can be seen; empty where that is not measured.

        All processes have to call this: they share the images.
        """
        return visible_scenes(model, target, self.num_visible, self.seed, device, processes)

    @torch.no_grad()
    def validate(
        self,
        model: SceneModel,
        target: Target,
        device: torch.device = CPU,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> dict[str, float]:
        """Compute the main distances to the target without intervals, such as ``count_tv``.

        All processes have to call this: they share the scenes, and their metrics are reduced together, so the values do
        not depend on the number of processes. Empty where the target's structure is unknown, or not to be read.
        """
        truth = self.truth(target)
        if truth is None:
            return {}
        draw = generator(self.seed, "validation", device=device)
        rules = model.derivations(self.num_images if target.annotated else self.num_scenes, draw).rules
        scenes = structure_scenes(model, rules, target.annotated, self.num_images, self.seed, processes)
        world = model.world
        compared: list[tuple[Statistic[Any], Any, Any]] = [
            (one, world.grammar.classes, (scenes, truth)) for one in self.statistics
        ]
        if self.attribute_statistics and target.scenes is not None:
            share = model.sample(NUM_VALIDATION_SCENES, draw)[processes.rank :: processes.world_size]
            compared += [(one, world.classes, (share, target.scenes)) for one in self.attribute_statistics]
        found = {}
        for statistic, class_names, pair in compared:
            ours, theirs = (statistic.measure(some.to(CPU), class_names) for some in pair)
            accumulated = statistic.validation_metric(theirs)
            if accumulated is not None:
                distance, metric = accumulated
                metric.to(device if processes.world_size > 1 else CPU)  # where processes communicate
                metric.update(ours)
                found[f"{statistic.name}_{distance}"] = float(metric.compute())
        return found

    def histograms(self, model: SceneModel, samples: Mapping[str, Mapping[str, Any]]) -> list[HistogramResult]:
        """Compute the histograms of all statistics that have one, `in_pairs`, from samples by statistic and row."""
        every: list[tuple[Statistic[Any], Sequence[str]]] = [
            *((one, model.world.grammar.classes) for one in self.statistics),  # structure has no scenery
            *((one, model.world.grammar.classes) for one in self.visible_statistics),
            *((one, model.world.classes) for one in self.attribute_statistics),
        ]
        drawn = [one.histogram(samples[one.name], names) for one, names in every if samples.get(one.name)]
        found = {one.name: one for one in drawn if one is not None}
        return [found[name] for name in in_pairs(found)]

    def preview(self, model: SceneModel, target: Target, device: torch.device = CPU) -> list[HistogramResult]:
        """Compute histograms of structure as they are during training, without distances."""
        derivations = sample_derivations(model, self.num_scenes, self.seed, device)
        return self.histograms(model, self._structure_samples(model, derivations, target))

    def _structure_samples(
        self, model: SceneModel, derivations: Mapping[str, Int[Tensor, "_ _"]], target: Target
    ) -> dict[str, dict[str, Int[Tensor, "_ _"]]]:
        """Measure structure by statistic and row; the target's where it is known and may be read.

        Where the target's was annotated in images, objects that are hidden in images of the rows are left out too.
        """
        truth = self.truth(target)
        annotated = target.annotated and truth is not None
        scenes = {
            row: structure_scenes(model, rules, annotated, self.num_images, self.seed)
            for row, rules in derivations.items()
        }
        if truth is not None:
            scenes[TARGET] = truth.to(CPU)
        names = model.world.grammar.classes
        return {one.name: {row: one.measure(some, names) for row, some in scenes.items()} for one in self.statistics}


def run_provenance(evaluation: Evaluation, model: SceneModel, target: Target) -> RunProvenance:
    """Return what results of an evaluation depend on."""
    return RunProvenance(
        num_scenes=evaluation.num_scenes,
        seed=evaluation.seed,
        target=type(target).__name__,
        num_images=evaluation.num_images if target.annotated and evaluation.evaluate_labels else None,
        num_visible=evaluation.num_visible,
        fingerprint=evaluation.measured_with(model, target),
        versions={"ms2": ms2.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def _with_floats(settings: Any) -> Any:
    """Replace whole numbers by floats, as configurations give 1.0 where Python gives 1."""
    if isinstance(settings, dict):
        return {name: _with_floats(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_with_floats(value) for value in settings]
    return float(settings) if type(settings) is int else settings


def default_statistics() -> list[StructureStatistic]:
    """Return the statistics that are measured unless others are given."""
    return [ObjectCount(), ClassFrequency()]


def compare_all(
    statistics: Iterable[Statistic[Any]], samples: Mapping[str, Mapping[str, Any]], draw: torch.Generator
) -> dict[str, StatisticResult]:
    """Compare the samples of each statistic, by its name; without those whose values in the target are unknown."""
    return {
        one.name: compare(one, samples[one.name], draw) for one in statistics if TARGET in samples.get(one.name, {})
    }


def compare(statistic: Statistic[Any], samples: Mapping[str, Any], draw: torch.Generator) -> StatisticResult:
    """Compare the sample of each row with the target's, and estimate the noise floor of as many scenes."""
    truth, rows = samples[TARGET], [row for row in samples if row != TARGET]
    found = {row: statistic.compare(samples[row], truth, generator=draw) for row in rows}
    floors = statistic.noise_floor(truth, _num_scenes(samples[LEARNED]), generator=draw)
    means = {row: statistic.mean(sample) for row, sample in samples.items()}
    distances = {
        name: _in_order(
            {row: Estimate.from_interval(found[row][name]) for row in rows} | {NOISE_FLOOR: Estimate(floors[name])}
        )
        for name in found[LEARNED]
    }
    known_means = _in_order({row: mean for row, mean in means.items() if mean is not None})
    return StatisticResult(statistic.title, distances, known_means, statistic.unit, statistic.counted_class)


def with_run(measurements: Measurements, *, steps: int, command: str = "", **fields: Any) -> Measurements:
    """Return the measurements with the run's steps and command, and with further fields of their `Results`."""
    results = measurements.results
    measured_with = replace(results.measured_with, steps=steps, command=command)
    return replace(measurements, results=replace(results, measured_with=measured_with, **fields))


def _num_scenes(sample: Any) -> int:
    """Number of scenes of a sample: rows of a table, or as an attribute sample says."""
    return len(sample) if isinstance(sample, Tensor) else int(sample.num_scenes)


def _in_order(rows: dict[str, Any]) -> dict[str, Any]:
    return {row: rows[row] for row in ROW_TITLES if row in rows}
