"""Sample images of each row and of the target, with the labels of what is visible in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ms2.core.files import write_json
from ms2.core.images import to_pixels
from ms2.core.seeding import generator
from ms2.metrics.results import TARGET
from ms2.models.scene_model import SceneModel
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.world import World

NUM_EXAMPLES = 16
"""Images of each row."""
EXAMPLE_ROWS = ("prior", "learned_structure", "learned")
"""Rows of which images are shown."""


class Example(NamedTuple):
    """An image with its labels.

    Attributes:
        image: Pixels in [0, 1].
        labels: For each visible object its ``category``, its ``bbox`` (x, y, width and height in pixels of the visible
            part) and its ``visibility``, 0..1; None where the labels are unknown.
    """

    image: Float[Tensor, "c h w"]
    labels: list[dict[str, Any]] | None


@torch.no_grad()
def sample_examples(
    model: SceneModel, target: Target, seed: int, device: torch.device, n: int = NUM_EXAMPLES
) -> dict[str, list[Example]]:
    """Render n labelled scenes of each row; the target's images have labels where its scenes are known."""
    draw = generator(seed, "pictures", device=device)
    rows = {name: row for name, row in model.rows.items() if name in EXAMPLE_ROWS}
    found = {name: render_examples(model.world, model.sample(n, draw, row)) for name, row in rows.items()}
    if target.scenes is not None and target.hidden is not None:  # whose scenery may differ from the model's world
        found[TARGET] = render_examples(target.hidden, target.scenes[:n])
    else:
        found[TARGET] = [Example(image.float() / 255, None) for image in target.preview(n)]
    return found


def render_examples(world: World, scenes: SceneBatch) -> list[Example]:
    """Render scenes with labels."""
    rendering = world.renderer.render_labelled(scenes)
    objects = zip(
        rendering.classes.tolist(), rendering.visible_boxes.tolist(), rendering.visibility.tolist(), strict=True
    )
    labels = [
        [
            {
                "category": world.classes[number],
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "visibility": round(visibility, 3),
            }
            for number, (x0, y0, x1, y1), visibility in zip(*scene, strict=True)
            if number >= 0 and visibility > 0 and x1 > x0 and y1 > y0
        ]
        for scene in objects
    ]
    return [Example(image, known) for image, known in zip(rendering.image, labels, strict=True)]


def images_by_row(examples: Mapping[str, Sequence[Example]]) -> dict[str, Float[Tensor, "n c h w"]]:
    """Stack the images of each row."""
    return {row: torch.stack([one.image.cpu() for one in some]) for row, some in examples.items() if some}


def save_examples(folder: Path, examples: Mapping[str, Sequence[Example]]) -> None:
    """Write images as PNG, and their labels as ``examples.json``."""
    folder.mkdir(exist_ok=True, parents=True)
    index: dict[str, list[dict[str, Any]]] = {}
    for row, some in examples.items():
        names = [f"{row}_{i:02d}.png" for i in range(len(some))]
        for name, example in zip(names, some, strict=True):
            Image.fromarray(to_pixels(example.image)).save(folder / name)
        index[row] = [{"file": name, "labels": example.labels} for name, example in zip(names, some, strict=True)]
    write_json(folder / "examples.json", index)
