"""Conversion of results to plain data, and their comparison with recorded ones, float by float within tolerances."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ms2.metrics.intervals import Interval
from ms2.scene.batch import SceneBatch


@dataclass(frozen=True)
class Tolerance:
    """Largest difference of a float to the recorded value: the absolute one plus the relative one."""

    relative: float = 1e-4
    absolute: float = 1e-6

    def allows(self, found: float, recorded: float) -> bool:
        return abs(found - recorded) <= self.absolute + self.relative * abs(recorded)


@dataclass(frozen=True)
class Section:
    """What one recorded file holds.

    Attributes:
        make: Computes its content, given an empty folder.
        tolerance: Tolerance of its floats.
        others: Tolerance of floats below certain keys; the last such key of a path counts.
    """

    make: Callable[[Path], Any]
    tolerance: Tolerance = Tolerance()
    others: Mapping[str, Tolerance] = field(default_factory=dict)


PIXELS = {
    "boxes": Tolerance(0, 1.01),
    "visible boxes": Tolerance(0, 1.01),
    "shares": Tolerance(0, 0.03),
    "areas": Tolerance(0.05, 3),
    "visibility": Tolerance(0, 0.05),
    "truncation": Tolerance(0, 0.05),
    "mean pixel": Tolerance(0.02, 0.005),
    "mean depth": Tolerance(0.02),
    "share of the sky": Tolerance(0, 0.01),
}
"""Tolerances of rendered images: other processors may draw a pixel more or less."""


def plain(value: Any) -> Any:
    """Convert tensors and intervals, and containers of them, to JSON types; floats get six significant digits."""
    if isinstance(value, Tensor):
        return plain(value.detach().tolist())
    if isinstance(value, Interval):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        # JSON has no infinity and no NaN
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def differences(found: Any, recorded: Any, section: Section, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Describe every float outside its tolerance, and every other value that is not equal."""
    place = "/".join(path) or "(the whole)"
    if isinstance(recorded, dict) and isinstance(found, dict):
        yield from (f"{place}: {key!r} is missing" for key in recorded if key not in found)
        yield from (f"{place}: {key!r} is new" for key in found if key not in recorded)
        for key in (key for key in recorded if key in found):
            yield from differences(found[key], recorded[key], section, (*path, key))
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(found) != len(recorded):
            yield f"{place}: {len(found)} items, recorded were {len(recorded)}"
        for number, (one, other) in enumerate(zip(found, recorded, strict=False)):
            yield from differences(one, other, section, (*path, str(number)))
    elif isinstance(recorded, float) and isinstance(found, float):
        known = [section.others[key] for key in path if key in section.others]
        tolerance = known[-1] if known else section.tolerance
        if not tolerance.allows(found, recorded):
            yield f"{place}: {found!r}, recorded was {recorded!r}"
    elif type(found) is not type(recorded) or found != recorded:
        yield f"{place}: {found!r}, recorded was {recorded!r}"


def rows_of(rules: Tensor, padding: int) -> list[list[int]]:
    """List derivations without their padding."""
    return [[rule for rule in row if rule != padding] for row in rules.tolist()]


def scenes_as_rows(scenes: SceneBatch, classes: Sequence[str]) -> list[dict[str, Any]]:
    """List objects, parents and all attributes of scenes."""
    found = []
    for i in range(len(scenes)):
        exists = scenes.mask[i]
        found.append(
            {
                "objects": [classes[number] for number in scenes.classes[i][exists].tolist()],
                "parents": scenes.parents[i][exists].tolist(),
                "attributes": {name: values[i][exists].tolist() for name, values in scenes.attributes.items()},
                "environment": {name: float(values[i]) for name, values in scenes.environment.items()},
            }
        )
    return found


def make_section(section: Section) -> Any:
    """Compute a section in a temporary folder, as it would be read from its file."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(json.dumps(plain(section.make(Path(folder)))))
