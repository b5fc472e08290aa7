"""Find the objects that can be seen in rendered scenes, by the rule of `Renderer.seen`."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from ms2.core.distributed import Processes
from ms2.core.seeding import generator
from ms2.metrics.results import LEARNED, PRIOR, TARGET
from ms2.models.scene_model import ROWS, SceneModel
from ms2.render.base import Renderer
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target

RENDER_BATCH_SIZE = 50
"""Scenes that are rendered together to find the objects that are seen."""


@torch.no_grad()
def seen_classes(
    renderer: Renderer,
    batches: Iterable[SceneBatch],
    num_classes: int,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
) -> list[Int[Tensor, "_ _"]]:
    """Return the classes of the objects that are seen, -1 for others and for scenery, on the CPU.

    Args:
        renderer: Renders the scenes.
        batches: The scenes of all processes.
        num_classes: Number of classes of the grammar; those beyond are scenery, which is no part of the structure.
        processes: Processes that share the scenes: each renders every world_size-th batch, and returns those alone.
    """
    found = []
    for number, scenes in enumerate(batches):
        if number % processes.world_size == processes.rank:
            seen = renderer.seen(renderer.render_labelled(scenes)) & (scenes.classes < num_classes)
            found.append(torch.where(seen, scenes.classes, -1).cpu())
    return found


def without_unseen(classes: Sequence[Int[Tensor, "_ _"]]) -> SceneBatch:
    """Convert batches of `seen_classes` to scenes of the seen objects, without parents and parameters."""
    width = max((part.shape[1] for part in classes), default=1)
    padded = [F.pad(part, (0, width - part.shape[1]), value=-1) for part in classes]
    seen = torch.cat(padded) if padded else torch.zeros(0, width, dtype=torch.long)
    return SceneBatch(seen, torch.full_like(seen, -1))


@torch.no_grad()
def visible_scenes(
    model: SceneModel,
    target: Target,
    num_scenes: int,
    seed: int,
    device: torch.device,
    processes: Processes = Processes(),  # noqa: B008 (immutable)
) -> dict[str, SceneBatch]:
    """Render scenes of prior, learned model and target, and keep the objects that are seen; by row.

    Empty where the target's images are not rendered, or its truth is what annotators saw already. All processes have to
    call this: they share the images, and the scenes do not depend on the number of processes.

    Args:
        model: The scene model; each row has its own parameters.
        target: The target, of which the first scenes are rendered again, with labels.
        num_scenes: Number of scenes of each row, or as many as the target has; 0 for none.
        seed: Seed of the scenes. Those of the rows have the structure of as many scenes of `sample_derivations`.
        device: Device for sampling and rendering, where the learned models are.
        processes: Processes that share the scenes.
    """
    if not num_scenes or target.scenes is None or target.hidden is None or target.annotated:
        return {}
    scenes = {
        row: (model.world.renderer, model.sample(num_scenes, generator(seed, row, device=device), ROWS[row]))
        for row in (PRIOR, LEARNED)
    }
    scenes[TARGET] = target.hidden.renderer, target.scenes[:num_scenes].to(device)
    total = sum(len(some) for _, some in scenes.values())
    found = {}
    quiet = True if processes.rank else None  # None shows no bar where it would fill a log file
    with tqdm(total=total, desc="finding visible objects", unit="image", leave=False, disable=quiet) as bar:
        for row, (renderer, some) in scenes.items():
            own = seen_classes(renderer, _batches(some, bar), len(model.world.grammar.classes), processes)
            found[row] = without_unseen(_gathered(own, processes))
    return found


def _batches(scenes: SceneBatch, bar: "tqdm[None]") -> Iterable[SceneBatch]:
    """Yield the scenes in batches, and count those that the caller is done with."""
    for start in range(0, len(scenes), RENDER_BATCH_SIZE):
        batch = scenes[start : start + RENDER_BATCH_SIZE]
        yield batch
        bar.update(len(batch))


def _gathered(classes: list[Int[Tensor, "_ _"]], processes: Processes) -> list[Int[Tensor, "_ _"]]:
    """Return the batches of all processes in their order."""
    parts = processes.gather_objects(classes)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]
