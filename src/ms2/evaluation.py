"""What a structure model has learned: tables, distances, and the picture that shows them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.data import Synthetic, Target, TargetImages
from ms2.metrics import compare, compare_vectors, distribution, noise_floor, vector_noise_floor
from ms2.pictures import Histogram, summary
from ms2.priors import fit_pcfg
from ms2.realism import Realism
from ms2.scene import SceneBatch
from ms2.seeding import generator
from ms2.tasks import MetaSim2
from ms2.tasks.embedding import embed, processes
from ms2.world import World

Tables = Mapping[str, Tensor]
LEAST_VISIBLE = 0.002
"""Share of a bin below which its bar can't be seen."""


@torch.no_grad()
def sample_structures(model: MetaSim2, target: Target | None = None) -> dict[str, Int[Tensor, "n t"]]:
    """Derivations of the prior and of the model.

    Where the target's true derivations are known, also of the PCFG that fits them best: ``pcfg_oracle``, which sees
    what learning does not, and yet can't say that one road is busier than another.
    """
    grammar, n, seed, device = model.world.grammar, model.eval_scenes, model.seed, model.device
    sets = {
        "prior": model.world.prior.sample(grammar, n, generator(seed, "prior", device=device)),
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
            if statistic.histogram:
                distances = compare(tables[who][name], true, generator=draw)
            else:
                distances = {"distance": compare_vectors(tables[who][name], true, generator=draw)}
            for distance, interval in distances.items():
                found[f"{name}_{distance}{ending}"] = interval.value
                found[f"{name}_{distance}{ending}_interval"] = [interval.low, interval.high]
        if statistic.histogram:
            floors = noise_floor(true, n, generator=draw)
        else:
            floors = {"distance": vector_noise_floor(true, n, generator=draw)}
        found |= {f"{name}_{distance}_noise_floor": floor for distance, floor in floors.items()}
        if statistic.ordered:
            means = endings | {"target": "_target"}
            found |= {f"{name}_mean{end}": _mean(tables[who][name]) for who, end in means.items() if who in tables}
    return found


def _visible(shares: Mapping[str, Tensor]) -> int:
    """Bins up to the last in which anybody has a share that can be seen."""
    seen = torch.stack(list(shares.values())).amax(0) > LEAST_VISIBLE
    return int(seen.nonzero().max()) + 1 if bool(seen.any()) else 1


def _mean(table: Tensor) -> float:
    """Mean of a statistic whose bin i stands for the number i."""
    share = distribution(table)
    return float(share @ torch.arange(share.shape[0], dtype=share.dtype))


def histograms(model: MetaSim2, tables: Mapping[str, Tables], metrics: Mapping[str, Any]) -> list[Histogram]:
    """Prior, learned and target for each statistic of the model that has a histogram."""
    drawn = []
    shown = [who for who in ("prior", "learned", "target") if who in tables]
    for statistic in (s for s in model.statistics if s.histogram):
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
        drawn.append(Histogram(statistic.title, statistic.bins(model.world.grammar.classes, width), shares, caption))
    return drawn


def histogram_table(model: MetaSim2, drawn: Sequence[Histogram]) -> list[dict[str, Any]]:
    """What `histograms` gave as plain values, by the statistics' names: for ``histograms.json``."""
    names = [statistic.name for statistic in model.statistics if statistic.histogram]
    return [
        {
            "name": name,
            "title": histogram.title,
            "bins": list(histogram.bins),
            "shares": {who: [round(share, 6) for share in shares.tolist()] for who, shares in histogram.shares.items()},
        }
        for name, histogram in zip(names, drawn, strict=True)
    ]


def realism(model: MetaSim2, data: TargetImages) -> dict[str, Any]:
    """FID and KID of prior and learned images, see `ms2.realism.Realism.compare`; empty where they aren't asked for.

    To be called by all processes, which share the images; the first one alone does the rest, and has a result.
    """
    measure = model.realism
    if measure is None:
        return {}
    measure.check(model.world.renderer, measure.num_images)
    real = measure.pick(model.embedded(data, measure.features, measure.max_real))
    found = [
        measure.pick(embed(model, measure.features, _generated(model, measure, who), f"embedding images: {who}"))
        for who in ("prior", "learned")
    ]
    if model.global_rank > 0:
        return {}
    return measure.compare(found[0], found[1], real, generator(model.seed, "realism", "bootstrap"))


@torch.no_grad()
def _generated(model: MetaSim2, measure: Realism, who: str) -> Iterator[tuple[Int[Tensor, " b"], Tensor]]:
    """This process's share of the images of the prior, or of the learned model, rounded to 8 bits as files are."""
    rank, world_size = processes(model)
    for first in range(rank * measure.batch_size, measure.num_images, world_size * measure.batch_size):
        places = torch.arange(first, min(first + measure.batch_size, measure.num_images), device=model.device)
        draw = generator(model.seed, "realism", who, first, device=model.device)
        if who == "prior":
            rules = model.world.prior.sample(model.world.grammar, len(places), draw)
        else:
            rules = model.structure.sample(len(places), draw).rules
        yield places, (model.world.images(rules, draw) * 255).round() / 255


@torch.no_grad()
def sample_images(model: MetaSim2, target: Target, n: int = 16) -> dict[str, Tensor]:
    """n images of the prior, of the model, and of the target."""
    images = {who: model.world.renderer.render(scenes) for who, scenes in _sample_scenes(model, n).items()}
    return images | {"target": target.first(n).float() / 255}


def _sample_scenes(model: MetaSim2, n: int) -> dict[str, SceneBatch]:
    """The scenes of sample images, which are the same whenever they are asked for."""
    draw, world = generator(model.seed, "pictures", device=model.device), model.world
    return {
        "prior": world.scenes(world.prior.sample(world.grammar, n, draw), draw),
        "learned": world.scenes(model.structure.sample(n, draw).rules, draw),
    }


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
        found["target"] = [Example(image.float() / 255, None) for image in target.first(n)]
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
