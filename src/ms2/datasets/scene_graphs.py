"""Convert scenes of a batch to records of scenes, and back."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import suggest
from ms2.datasets.records import RecordError, SceneObject, SceneRecord
from ms2.render.base import Renderer
from ms2.scene.batch import SceneBatch


def to_record(scenes: SceneBatch, index: int, classes: tuple[str, ...]) -> SceneRecord:
    """Convert one scene of a packed batch to a record.

    Numbers get as few digits as give the same 32-bit number when they are read.

    Args:
        scenes: The batch.
        index: Index of the scene.
        classes: Names of the classes.
    """
    number = int(scenes.mask[index].sum())
    names, values = list(scenes.attributes), list(scenes.attributes.values())
    rows = _short_floats(torch.stack([v[index, :number] for v in values], 1)) if names else [[]] * number
    whole = list(scenes.environment.values())
    environment = _short_floats(torch.stack([v[index] for v in whole])) if whole else []
    return SceneRecord(
        dict(zip(scenes.environment, environment, strict=True)),
        [
            SceneObject(classes[class_index], parent, dict(zip(names, row, strict=True)))
            for class_index, parent, row in zip(
                scenes.classes[index, :number].tolist(), scenes.parents[index, :number].tolist(), rows, strict=True
            )
        ],
    )


def from_record(record: SceneRecord, classes: tuple[str, ...]) -> SceneBatch:
    """Convert a record to a batch of one scene.

    Raises:
        RecordError: If the classes lack one of its objects'.
    """
    objects = record.objects
    for one in objects:
        if one.class_name not in classes:
            raise RecordError(f"the world has no class {one.class_name!r}. {suggest(one.class_name, classes)}")
    names = dict.fromkeys(name for one in objects for name in one.attributes)
    for name in names:
        if not all(name in one.attributes for one in objects):
            raise RecordError(f"some objects of the scene have no attribute {name!r}, which others have")
    empty = [] if objects else [0.0]  # a batch has room for at least one object
    return SceneBatch(
        torch.tensor([[classes.index(one.class_name) for one in objects] or [-1]]),
        torch.tensor([[one.parent for one in objects] or [-1]]),
        {name: torch.tensor([[one.attributes[name] for one in objects] or empty]) for name in names},
        {name: torch.tensor([value]) for name, value in record.environment.items()},
    )


def check_renderable(scenes: SceneBatch, renderer: Renderer) -> SceneBatch:
    """Check that scenes have the renderer's attributes; add empty tensors for them to batches without objects.

    Raises:
        RecordError: If an attribute is missing, or out of the renderer's bounds.
    """
    if not bool(scenes.mask.any()):
        none = torch.zeros(scenes.classes.shape)
        scenes = scenes.with_attributes(**{attribute.name: none for attribute in renderer.attributes})
    used = {name: values[scenes.mask] for name, values in scenes.attributes.items()}
    for wanted, found in ((renderer.attributes, used), (renderer.environment, scenes.environment)):
        for name, low, high, *_ in wanted:
            if name not in found:
                raise RecordError(f"the scene lacks {name!r}, which {type(renderer).__name__} reads")
            if not bool(((found[name] >= low) & (found[name] <= high)).all()):
                raise RecordError(f"{name} has to be from {low:g} to {high:g}, not {found[name].tolist()}")
    return scenes


def _short_floats(values: Float[Tensor, "*n"]) -> list[Any]:
    numbers = values.detach().cpu().to(torch.float32).numpy()
    short: list[Any] = numbers.astype(np.str_).astype(np.float64).tolist()
    return short
