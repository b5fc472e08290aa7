"""The record of an image: its scene graph, its labels, and all that it takes to draw it again."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.render.base import Renderer
from ms2.scene.batch import SceneBatch

Record = dict[str, Any]


class RecordError(UserError):
    """A record that is no record, or of another world."""


def scene_to_plain(scenes: SceneBatch, index: int, classes: tuple[str, ...]) -> dict[str, Any]:
    """One scene of a packed batch as a graph of plain data.

    Numbers are written with as few digits as give the same 32-bit number when they are read.
    """
    number = int(scenes.mask[index].sum())
    names, values = list(scenes.attributes), list(scenes.attributes.values())
    rows = _plain(torch.stack([v[index, :number] for v in values], 1)) if names else [[]] * number
    whole = list(scenes.environment.values())
    environment = _plain(torch.stack([v[index] for v in whole])) if whole else []
    return {
        "environment": dict(zip(scenes.environment, environment, strict=True)),
        "objects": [
            {"class": classes[kind], "parent": parent, "attributes": dict(zip(names, row, strict=True))}
            for kind, parent, row in zip(
                scenes.classes[index, :number].tolist(), scenes.parents[index, :number].tolist(), rows, strict=True
            )
        ],
    }


def scene_from_plain(scene: dict[str, Any], classes: tuple[str, ...]) -> SceneBatch:
    """A batch of the one scene.

    Raises:
        RecordError: If it holds classes that the world lacks, or is not a scene at all.
    """
    try:
        objects = scene["objects"]
        numbers = [classes.index(thing["class"]) if thing["class"] in classes else -1 for thing in objects]
        for thing, number in zip(objects, numbers, strict=True):
            if number < 0:
                raise RecordError(f"the world has no {thing['class']!r}. {suggest(str(thing['class']), classes)}")
        parents = [int(thing["parent"]) for thing in objects]
        names = dict.fromkeys(name for thing in objects for name in thing["attributes"])
        attributes = {name: [float(thing["attributes"][name]) for thing in objects] for name in names}
        environment = {name: [float(value)] for name, value in scene["environment"].items()}
        if not all(-1 <= parent < len(objects) for parent in parents):
            raise RecordError(f"the scene has {len(objects)} objects, but some belong to others: {parents}")
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"this is no record of a scene: {error!r} where objects and environment should be") from error
    # a batch has at least one place, if only an empty one
    empty = [] if objects else [0.0]
    return SceneBatch(
        torch.tensor([numbers or [-1]]),
        torch.tensor([parents or [-1]]),
        {name: torch.tensor([values or empty]) for name, values in attributes.items()},
        {name: torch.tensor(values) for name, values in environment.items()},
    )


def drawable(scenes: SceneBatch, renderer: Renderer) -> SceneBatch:
    """The scenes, with all that the renderer reads also where they are empty.

    Raises:
        RecordError: If something is missing, or out of the renderer's bounds.
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


def _plain(values: Float[Tensor, "*n"]) -> list[Any]:
    numbers = values.detach().cpu().to(torch.float32).numpy()
    plain: list[Any] = numbers.astype(np.str_).astype(np.float64).tolist()
    return plain
