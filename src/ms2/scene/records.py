"""Records of scenes: conversion of the scenes of a batch to JSON, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.scene.batch import SceneBatch

Json = dict[str, Any]


class RecordError(UserError):
    """A record is invalid, or belongs to another world."""


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene graph.

    Attributes:
        class_name: Its class; ``class`` in JSON.
        parent: Index of its parent object, or -1.
        attributes: Its attributes by name.
    """

    class_name: str
    parent: int
    attributes: Mapping[str, float]


@dataclass(frozen=True)
class SceneRecord:
    """A scene: its objects and the attributes of the scene as a whole.

    Attributes:
        environment: Attributes of the scene as a whole by name.
        objects: The objects, parents before their children.
    """

    environment: Mapping[str, float]
    objects: Sequence[SceneObject]

    def to_json(self) -> Json:
        """Convert to JSON data."""
        return {
            "environment": self.environment,
            "objects": [
                {"class": one.class_name, "parent": one.parent, "attributes": one.attributes} for one in self.objects
            ],
        }

    @classmethod
    def from_json(cls, found: Any) -> "SceneRecord":
        """Build from JSON data.

        Raises:
            RecordError: If it is no scene graph.
        """
        try:
            environment = {name: float(value) for name, value in found["environment"].items()}
            objects = [
                SceneObject(
                    str(one["class"]),
                    int(one["parent"]),
                    {name: float(value) for name, value in one["attributes"].items()},
                )
                for one in found["objects"]
            ]
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise RecordError(
                f"this is no record of a scene: {error!r} where objects and environment should be"
            ) from error
        if not all(-1 <= one.parent < len(objects) for one in objects):
            raise RecordError(
                f"the scene has {len(objects)} objects, but their parents are {[one.parent for one in objects]}"
            )
        return cls(environment, objects)


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


def _short_floats(values: Float[Tensor, "*n"]) -> list[Any]:
    numbers = values.detach().cpu().to(torch.float32).numpy()
    short: list[Any] = numbers.astype(np.str_).astype(np.float64).tolist()
    return short
