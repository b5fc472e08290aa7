"""Sample what is measured: derivations of each row, objects that an annotator sees, and attribute values."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.evaluation.visible import RENDER_BATCH_SIZE, seen_classes, without_unseen
from ms2.metrics.attribute_distances import AttributeSample
from ms2.metrics.attributes import AttributeStatistic
from ms2.metrics.results import BEST_PCFG, LEARNED, PRIOR, TARGET
from ms2.models.scene_model import ROWS, Row, SceneModel
from ms2.priors.structure import fit_pcfg
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import Target

MAX_ATTRIBUTE_SCENES = 4000
"""Scenes of each row whose attributes are measured, at most."""
CPU = torch.device("cpu")


def measured_rows(model: SceneModel) -> dict[str, Row]:
    """Return the rows that are measured: those that differ, and always ``prior`` and ``learned``."""
    return model.rows | {LEARNED: ROWS[LEARNED]}


@torch.no_grad()
def sample_derivations(
    model: SceneModel, num_scenes: int, seed: int, device: torch.device, target: Target | None = None
) -> dict[str, Int[Tensor, "n t"]]:
    """Sample derivations of the learned model and of the prior, by row.

    Where the target's true derivations are known, there is also ``best_pcfg``: the PCFG that fits them best. It is
    given the truth, which learning is not, but it cannot express that two symbols of the same name differ.
    """
    grammar = model.world.grammar
    sets = {
        row: model.derivations(num_scenes, generator(seed, row, device=device), ROWS[row]).rules
        for row in (LEARNED, PRIOR)
    }
    if target is not None and target.derivations is not None:
        best = fit_pcfg(grammar, target.derivations)
        sets[BEST_PCFG] = best.sample(grammar, num_scenes, generator(seed, "oracle", device=device))
    return sets


def structure_scenes(
    model: SceneModel,
    rules: Int[Tensor, "n t"],
    annotated: bool,
    num_images: int,
    seed: int,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
) -> SceneBatch:
    """Convert derivations to this process's share of the scenes, without parameters, on the CPU.

    Args:
        model: Draws the parameters of scenes that are rendered.
        rules: The derivations, the same in all processes.
        annotated: Leave out the objects that an annotator of images would not see (`Renderer.seen`), of the first
            `num_images` scenes.
        num_images: Number of scenes to render.
        seed: Seed of the parameters.
        processes: Processes that share the scenes. All of them draw all parameters, and render their own share, so the
            scenes do not depend on the number of processes.
    """
    if not annotated:
        return scenes_from_derivations(model.world.grammar, rules[processes.rank :: processes.world_size]).to(CPU)
    draw = generator(seed, "annotated", device=rules.device)
    batches = (model.scenes(some, draw) for some in rules[:num_images].split(RENDER_BATCH_SIZE))
    num_classes = len(model.world.grammar.classes)
    return without_unseen(seen_classes(model.world.renderer, batches, num_classes, processes))


def attribute_samples(
    model: SceneModel,
    target: Target | None,
    statistics: Sequence[AttributeStatistic],
    num_scenes: int,
    seed: int,
    device: torch.device,
) -> dict[str, dict[str, AttributeSample]]:
    """Measure attributes of each row and of the target, by statistic and row; empty where the target's are unknown."""
    if not statistics or target is None or target.scenes is None:
        return {}
    scenes: Mapping[str, SceneBatch] = {
        **{
            name: model.sample(num_scenes, generator(seed, "attributes", name, device=device), row).to(CPU)
            for name, row in measured_rows(model).items()
        },
        TARGET: target.scenes.to(CPU),
    }
    names = model.world.classes
    return {one.name: {row: one.measure(some, names) for row, some in scenes.items()} for one in statistics}
