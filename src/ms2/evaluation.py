"""What a run has achieved: distances of structure with intervals and noise floor, and the picture of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ms2.metrics import compare_all, distribution, noise_floor
from ms2.pictures import Histogram, summary
from ms2.scene import scenes_of
from ms2.seeding import generator
from ms2.tasks import MetaSim2

Tables = Mapping[str, Tensor]


def structure_tables(model: MetaSim2, truth_scenes: Any = None) -> dict[str, Tables]:
    """Statistics of scenes of the prior, of the model, and of the target where its scenes are known."""
    grammar, n = model.world.grammar, model.eval_scenes
    prior = scenes_of(
        grammar, model.world.prior.sample(grammar, n, generator(model.seed, "prior", device=model.device))
    )
    learned = model.sample_scenes(n, generator(model.seed, "learned", device=model.device))
    sets = {"prior": prior, "learned": learned} | ({} if truth_scenes is None else {"target": truth_scenes})
    return {name: {key: table.cpu() for key, table in model.tables(scenes).items()} for name, scenes in sets.items()}


def structure_metrics(tables: Mapping[str, Tables], seed: int) -> dict[str, Any]:
    """Distances of the learned structure and of the prior's to the target's, with intervals and noise floors.

    Keys such as ``count_tv``, ``count_tv_interval`` (95 %), ``count_tv_prior``, ``count_tv_noise_floor``.
    Empty where the target's structure is not known.
    """
    if "target" not in tables:
        return {}
    draw = generator(seed, "bootstrap")
    found: dict[str, Any] = {}
    for name, ending in (("learned", ""), ("prior", "_prior")):
        for key, interval in compare_all(tables[name], tables["target"], generator=draw).items():
            found[f"{key}{ending}"] = interval.value
            found[f"{key}{ending}_interval"] = [interval.low, interval.high]
    for key, table in tables["target"].items():
        floors = noise_floor(table, len(tables["learned"][key]), generator=draw)
        found |= {f"{key}_{distance}_noise_floor": floor for distance, floor in floors.items()}
    return found


def histograms(model: MetaSim2, tables: Mapping[str, Tables], metrics: Mapping[str, Any]) -> list[Histogram]:
    """One histogram for each statistic of the model."""
    drawn = []
    for statistic in model.statistics:
        name = statistic.name
        width = max(t[name].shape[1] for t in tables.values())
        shares = {
            who: torch.nn.functional.pad(distribution(t[name]), (0, width - t[name].shape[1]))
            for who, t in tables.items()
        }
        caption = ""
        if f"{name}_tv" in metrics:
            caption = (
                f"total variation to the target: prior {metrics[f'{name}_tv_prior']:.3f}, "
                f"learned {metrics[f'{name}_tv']:.3f}, noise floor {metrics[f'{name}_tv_noise_floor']:.3f}"
            )
        drawn.append(Histogram(statistic.title, statistic.bins(model.world.grammar.classes, width), shares, caption))
    return drawn


@torch.no_grad()
def sample_images(model: MetaSim2, target: Any, n: int = 16) -> dict[str, Tensor]:
    """n images of the prior, of the model, and of the target."""
    draw = generator(model.seed, "pictures", device=model.device)
    world = model.world
    return {
        "prior": world.images(world.prior.sample(world.grammar, n, draw), draw),
        "learned": world.images(model.structure.sample(n, draw).rules, draw),
        "target": torch.stack([target[i] for i in range(min(n, len(target)))]).float() / 255,
    }


def summary_picture(
    title: str, model: MetaSim2, target: Any, tables: Mapping[str, Tables], metrics: Mapping[str, Any]
) -> UInt8[np.ndarray, "height width 3"]:
    """Prior, learned and target side by side: histograms above, images below."""
    return summary(title, histograms(model, tables, metrics), sample_images(model, target))
