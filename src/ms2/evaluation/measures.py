"""What a structure model has learned: tables, distances, and the picture that shows them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.evaluation.image_distances import ImageDistances
from ms2.evaluation.plots import Histogram, summary
from ms2.learning.data import TargetImages
from ms2.learning.measured import MeasuredMetaSim2 as MetaSim2
from ms2.metrics.attribute_distances import AttributeSample, attribute_noise_floor, compare_attributes
from ms2.metrics.histograms import compare_histograms, distribution, histogram_noise_floor
from ms2.metrics.statistics import StructureVector
from ms2.metrics.vectors import compare_vectors, vector_noise_floor
from ms2.models.scene_model import Row
from ms2.priors.structure import fit_pcfg
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.targets.embedding import embed
from ms2.targets.synthetic import Synthetic
from ms2.world import World

Tables = Mapping[str, Tensor]
MEASURED, BINS = 4000, 30
"""Scenes whose attributes are measured, at most; and bins of their histograms."""
MIN_VISIBLE = 0.002
"""Share of a bin below which its bar can't be seen."""


@torch.no_grad()
def sample_structures(model: MetaSim2, target: Target | None = None) -> dict[str, Int[Tensor, "n t"]]:
    """Derivations of the prior and of the model.

    Where the target's true derivations are known, also of the PCFG that fits them best: ``pcfg_oracle``, which sees
    what learning does not, and yet can't say that one road is busier than another.
    """
    grammar, n, seed, device = model.world.grammar, model.eval_scenes, model.seed, model.device
    sets = {
        "prior": model.world.structure_prior.sample(grammar, n, generator(seed, "prior", device=device)),
        "learned": model.structure.sample(n, generator(seed, "learned", device=device)).rules,
    }
    if target is not None and target.derivations is not None:
        oracle = fit_pcfg(grammar, target.derivations)
        sets["pcfg_oracle"] = oracle.sample(grammar, n, generator(seed, "oracle", device=device))
    return sets


def structure_tables(
    model: MetaSim2, structures: Mapping[str, Int[Tensor, "_ _"]], target: Target | None = None
) -> dict[str, Tables]:
    """Statistics of derivations by their name, and of the target's scenes where they are known.

    Where the target's were annotated in images, so are those of the derivations: hidden objects don't count.
    """
    annotated = target is not None and target.annotated and target.truth is not None
    scenes = {name: model.scenes(rules, annotated) for name, rules in structures.items()}
    if target is not None and target.truth is not None:
        scenes["target"] = target.truth
    return {who: {key: table.cpu() for key, table in model.tables(some).items()} for who, some in scenes.items()}


BETWEEN = ("learned_structure", "learned_parameters")
"""Rows of which only one part is learned."""


def attribute_values(model: MetaSim2, target: Target) -> dict[str, dict[str, AttributeSample]]:
    """Values of the model's ``measures``, by row and name, and those of the target; empty where these are not known."""
    if not model.attribute_statistics or not isinstance(target, Synthetic):
        return {}
    scenes = {"target": target.scenes}
    for who, row in model.scene_model.rows.items():
        draw = generator(model.seed, "attributes", who, device=model.device)
        scenes[who] = model.scene_model.sample(min(model.eval_scenes, MEASURED), draw, row)
    classes = model.world.classes
    return {
        who: {m.name: m.measure(some.to(torch.device("cpu")), classes) for m in model.attribute_statistics}
        for who, some in scenes.items()
    }


def attribute_metrics(
    model: MetaSim2, target: Target, values: Mapping[str, Mapping[str, AttributeSample]]
) -> dict[str, Any]:
    """Wasserstein distances of attributes to the target's, in their unit: ``x_w1``, ``x_w1_prior`` and so on."""
    found, draw = dict[str, Any](), generator(model.seed, "attributes", "bootstrap")
    for measure in model.attribute_statistics if values else ():
        name, true = measure.name, values["target"][measure.name]
        n = min(model.eval_scenes, MEASURED)
        for who in model.scene_model.rows:
            key = f"{name}_w1" + ("" if who == "learned" else f"_{who}")
            interval = compare_attributes(values[who][name], true, measure.period, generator=draw)
            found |= {key: interval.value, f"{key}_interval": [interval.low, interval.high]}
        floor = attribute_noise_floor(true, n, measure.period, generator=draw)
        found |= {f"{name}_w1_noise_floor": floor, f"{name}_w1_unit": measure.unit}
    return found


def attribute_histograms(
    model: MetaSim2, values: Mapping[str, Mapping[str, AttributeSample]], metrics: Mapping[str, Any]
) -> list[Histogram]:
    """Prior, learned and target for each of the model's ``measures``."""
    drawn = []
    for measure in model.attribute_statistics if values else ():
        name, some = measure.name, {who: values[who][measure.name].values for who in ("prior", "learned", "target")}
        whole = torch.cat(list(some.values()))
        if not len(whole):
            continue
        low, high = whole.quantile(0.002), whole.quantile(0.998)
        edges = torch.linspace(float(low), max(float(high), float(low) + 1e-6), BINS + 1, dtype=torch.double)
        shares = {
            who: distribution(torch.histogram(v.cpu().double().clamp(low, high), edges).hist[None])
            for who, v in some.items()
        }
        unit = f" {measure.unit}".rstrip()
        middles = [f"{m:.3g}" for m in ((edges[1:] + edges[:-1]) / 2).tolist()]
        caption = (
            f"Wasserstein distance: prior {metrics[f'{name}_w1_prior']:.3g}{unit}, "
            f"learned {metrics[f'{name}_w1']:.3g}{unit}, noise floor {metrics[f'{name}_w1_noise_floor']:.2g}{unit}"
        )
        drawn.append(
            Histogram(
                measure.title + (f" ({measure.unit})" if measure.unit else ""), middles, shares, caption, measure.name
            )
        )
    return drawn


def structure_metrics(model: MetaSim2, tables: Mapping[str, Tables]) -> dict[str, Any]:
    """Distances of the learned structure, and of what it is compared with, to the target's.

    Keys such as ``count_tv``, ``count_tv_interval`` (95 %), ``count_tv_prior``, ``count_tv_pcfg_oracle``,
    ``count_tv_noise_floor`` and ``count_mean``. Empty where the target's structure is not known.
    """
    if "target" not in tables:
        return {}
    draw, found = generator(model.seed, "bootstrap"), dict[str, Any]()
    endings = {who: "" if who == "learned" else f"_{who}" for who in ("learned", "prior", "pcfg_oracle")}
    for statistic in model.statistics:
        name, true = statistic.name, tables["target"][statistic.name]
        n = len(tables["learned"][name])
        for who, ending in endings.items():
            if who not in tables:
                continue
            if not isinstance(statistic, StructureVector):
                distances = compare_histograms(tables[who][name], true, generator=draw)
            else:
                distances = {"distance": compare_vectors(tables[who][name], true, generator=draw)}
            for distance, interval in distances.items():
                found[f"{name}_{distance}{ending}"] = interval.value
                found[f"{name}_{distance}{ending}_interval"] = [interval.low, interval.high]
        if not isinstance(statistic, StructureVector):
            floors = histogram_noise_floor(true, n, generator=draw)
        else:
            floors = {"distance": vector_noise_floor(true, n, generator=draw)}
        found |= {f"{name}_{distance}_noise_floor": floor for distance, floor in floors.items()}
        if statistic.ordered:
            means = endings | {"target": "_target"}
            found |= {f"{name}_mean{end}": _mean(tables[who][name]) for who, end in means.items() if who in tables}
    return found


def _visible(shares: Mapping[str, Tensor]) -> int:
    """Bins up to the last in which anybody has a share that can be seen."""
    seen = torch.stack(list(shares.values())).amax(0) > MIN_VISIBLE
    return int(seen.nonzero().max()) + 1 if bool(seen.any()) else 1


def _mean(table: Tensor) -> float:
    """Mean of a statistic whose bin i stands for the number i."""
    share = distribution(table)
    return float(share @ torch.arange(share.shape[0], dtype=share.dtype))


def histograms(model: MetaSim2, tables: Mapping[str, Tables], metrics: Mapping[str, Any]) -> list[Histogram]:
    """Prior, learned and target for each statistic of the model that has a histogram."""
    drawn = []
    shown = [who for who in ("prior", "learned", "target") if who in tables]
    for statistic in (s for s in model.statistics if not isinstance(s, StructureVector)):
        name = statistic.name
        width = max(tables[who][name].shape[1] for who in shown)
        shares = {
            who: torch.nn.functional.pad(distribution(tables[who][name]), (0, width - tables[who][name].shape[1]))
            for who in shown
        }
        caption = ""
        if f"{name}_tv" in metrics:
            caption = (
                f"total variation: prior {metrics[f'{name}_tv_prior']:.3f}, "
                f"learned {metrics[f'{name}_tv']:.3f}, noise floor {metrics[f'{name}_tv_noise_floor']:.3f}"
            )
        if statistic.ordered:
            width = _visible(shares)
            shares = {who: share[:width] for who, share in shares.items()}
        bins = statistic.bin_names(model.world.grammar.classes, width)
        drawn.append(Histogram(statistic.title, bins, shares, caption, name))
    return drawn


def histogram_table(drawn: Sequence[Histogram]) -> list[dict[str, Any]]:
    """What `histograms` and `attribute_histograms` gave as plain values: for ``histograms.json``."""
    return [
        {
            "name": histogram.name,
            "title": histogram.title,
            "bins": list(histogram.bins),
            "shares": {who: [round(share, 6) for share in shares.tolist()] for who, shares in histogram.shares.items()},
        }
        for histogram in drawn
    ]


def realism(model: MetaSim2, data: TargetImages) -> dict[str, Any]:
    """FID and KID of prior and learned images, see `ImageDistances.compare`; empty where they aren't asked for.

    To be called by all processes, which share the images; the first one alone does the rest, and has a result.
    """
    measure = model.image_distances
    if measure is None:
        return {}
    measure.check(model.world.renderer, measure.num_images)
    real = measure.pick(data.embedded(measure.features, model.device, measure.max_real))
    found = {
        who: measure.pick(
            embed(
                measure.features,
                _generated(model, measure, row),
                f"embedding images: {who}",
                model.device,
                Processes.current(),
            )
        )
        for who, row in model.scene_model.rows.items()
    }
    if model.global_rank > 0:
        return {}
    draw = generator(model.seed, "realism", "bootstrap")
    result = measure.compare(found["prior"], found["learned"], real, draw)
    for who in (who for who in BETWEEN if who in found):  # in this order: their intervals are drawn one after another
        part = measure.compare(found["prior"], found[who], real, draw)
        ours = {key: value for key, value in part.items() if key.startswith(("kid", "fid")) and "prior" not in key}
        result |= {f"{key[:3]}_{who}{key[3:]}": value for key, value in ours.items()}
    return result


@torch.no_grad()
def _generated(model: MetaSim2, measure: ImageDistances, row: Row) -> Iterator[tuple[Int[Tensor, " b"], Tensor]]:
    """This process's share of the images of a row, rounded to 8 bits as files are."""
    processes = Processes.current()
    rank, world_size = processes.rank, processes.world_size
    # rows with the same structure have the same scenes, and those with the prior's parameters the same places
    who = "learned" if row.structure else "prior"
    for first in range(rank * measure.batch_size, measure.num_images, world_size * measure.batch_size):
        places = torch.arange(first, min(first + measure.batch_size, measure.num_images), device=model.device)
        draw = generator(model.seed, "realism", who, first, device=model.device)
        scenes = model.scene_model.sample(len(places), draw, row)
        yield places, (model.world.renderer.render(scenes) * 255).round() / 255


@torch.no_grad()
def sample_images(model: MetaSim2, target: Target, n: int = 16) -> dict[str, Tensor]:
    """n images of the prior, of the model, and of the target."""
    images = {who: model.world.renderer.render(scenes) for who, scenes in _sample_scenes(model, n).items()}
    return images | {"target": target.preview(n).float() / 255}


def _sample_scenes(model: MetaSim2, n: int) -> dict[str, SceneBatch]:
    """The scenes of sample images, which are the same whenever they are asked for."""
    draw = generator(model.seed, "pictures", device=model.device)
    shown = {who: row for who, row in model.scene_model.rows.items() if who != "learned_parameters"}
    return {who.replace("_", " "): model.scene_model.sample(n, draw, row) for who, row in shown.items()}


class Example(NamedTuple):
    """An image, and what there is to be seen in it.

    Attributes:
        image: Pixels in [0, 1].
        labels: For each object of which something is visible its ``category``, its ``bbox`` (x, y, width and height in
            pixels of what is visible) and its ``visibility``, 0..1; None where nobody knows.
    """

    image: Float[Tensor, "c h w"]
    labels: list[dict[str, Any]] | None


@torch.no_grad()
def examples(model: MetaSim2, target: Target, n: int = 16) -> dict[str, list[Example]]:
    """The images of `sample_images`, with boxes: those of the target too where it was rendered."""
    found = {who: _labelled(model.world, some) for who, some in _sample_scenes(model, n).items()}
    if isinstance(target, Synthetic):
        found["target"] = _labelled(target.hidden, target.scenes[:n])
    else:
        found["target"] = [Example(image.float() / 255, None) for image in target.preview(n)]
    return found


def _labelled(world: World, scenes: SceneBatch) -> list[Example]:
    """Scenes as images with what is to be seen in them."""
    drawn = world.renderer.render_labelled(scenes)
    corners, visibility = drawn.visible_boxes.tolist(), drawn.visibility.tolist()
    labels = [
        [
            {
                "category": world.classes[number],
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "visibility": round(seen, 3),
            }
            for number, (x0, y0, x1, y1), seen in zip(*row, strict=True)
            if number >= 0 and seen > 0 and x1 > x0 and y1 > y0
        ]
        for row in zip(drawn.classes.tolist(), corners, visibility, strict=True)
    ]
    return [Example(image, known) for image, known in zip(drawn.image, labels, strict=True)]


def summary_picture(
    title: str, model: MetaSim2, target: Target, drawn: Sequence[Histogram]
) -> UInt8[np.ndarray, "height width 3"]:
    """Prior, learned and target side by side: histograms above, images below."""
    return summary(title, drawn, sample_images(model, target))
