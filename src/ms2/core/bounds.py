"""Bounds of numeric settings: types that declare them, and the check of values against them.

A setting is annotated with the type of its number: ``lr: PositiveFloat``, ``size: tuple[Dimension, Dimension] | None``.
`ms2.core.settings.Configured` checks the arguments of an object in Python, and `ms2.core.parsing.check_bounds` those of
a command line or a configuration, by the same types.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ms2.core.errors import UserError

MAX_INT = 2**31 - 1
MAX_DIMENSION = 2**16
MAX_BATCH = 2**20
MAX_SEED = 2**32 - 1
"""Largest seed that PyTorch Lightning and NumPy accept."""
MAX_FLOAT = 3.4e38
"""About the largest number of 32 bits: larger ones are infinite in tensors."""
MIN_FLOAT = 1.2e-38
"""About the smallest positive number of 32 bits with all its digits: smaller ones become zero in tensors."""


@dataclass(frozen=True)
class Bounds:
    """Interval of the numbers that a setting may take, as metadata of an ``Annotated`` type. None means no bound.

    Attributes:
        gt: What the number must exceed.
        ge: Its minimum.
        lt: What it must be less than.
        le: Its maximum.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def violated(self, value: float) -> str | None:
        """Return what a number must be and is not, such as ``at least 1``; None if it lies within the bounds."""
        if isinstance(value, float) and not math.isfinite(value):  # type: ignore[redundant-expr]  # or an int
            return "finite"
        if self.gt is not None and not value > self.gt:
            return f"greater than {self.gt:.6g}"
        if self.ge is not None and not value >= self.ge:
            return f"at least {self.ge:.6g}"
        if self.lt is not None and not value < self.lt:
            return f"less than {self.lt:.6g}"
        if self.le is not None and not value <= self.le:
            return f"at most {self.le if isinstance(self.le, int) else format(self.le, '.6g')}"
        return None

    def __repr__(self) -> str:
        """Show the bounds as ``--help`` does: ``>= 1``."""
        signs = (">", self.gt), (">=", self.ge), ("<", self.lt), ("<=", self.le)
        technical = (MAX_INT, MAX_DIMENSION, MAX_BATCH, MAX_SEED, MIN_FLOAT, MAX_FLOAT, -MAX_FLOAT)
        return " and ".join(f"{sign} {bound:g}" for sign, bound in signs if bound not in (None, *technical)) or "finite"


PositiveInt = Annotated[int, Bounds(ge=1, le=MAX_INT)]
"""Number of steps, scenes, tries: at least 1."""
NonNegativeInt = Annotated[int, Bounds(ge=0, le=MAX_INT)]
"""Number of anything that may be left out."""
Dimension = Annotated[int, Bounds(ge=1, le=MAX_DIMENSION)]
"""Dimension of a tensor: side of an image, width of a layer, length of a derivation."""
Count = Annotated[int, Bounds(ge=0, le=MAX_DIMENSION)]
"""Number of objects, or of anything else along a dimension, that may be none."""
BatchSize = Annotated[int, Bounds(ge=1, le=MAX_BATCH)]
"""Number of images or scenes at once."""
SampleSize = Annotated[int, Bounds(ge=2, le=MAX_INT)]
"""Number of scenes that are compared with each other: at least 2."""
Workers = Annotated[int, Bounds(ge=0, le=1024)]
"""Number of worker processes; 0 for none beside this one."""
PositiveWorkers = Annotated[int, Bounds(ge=1, le=1024)]
"""Number of processes, this one included."""
Seed = Annotated[int, Bounds(ge=0, le=MAX_SEED)]
"""Seed of random numbers."""
FiniteFloat = Annotated[float, Bounds(ge=-MAX_FLOAT, le=MAX_FLOAT)]
"""Any number, such as a coordinate."""
PositiveFloat = Annotated[float, Bounds(gt=0, ge=MIN_FLOAT, le=MAX_FLOAT)]
"""Learning rate, bandwidth, length."""
NonNegativeFloat = Annotated[float, Bounds(ge=0, le=MAX_FLOAT)]
"""Weight, or standard deviation."""
Fraction = Annotated[float, Bounds(ge=0, le=1)]
"""Fraction or probability, from none to all."""


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], owner: str) -> None:
    """Check the arguments of a function against the bounds that its annotations declare.

    Args:
        function: The function; of a class, its ``__init__`` or the class of its fields.
        arguments: Arguments by name.
        owner: Name of what the arguments configure.

    Raises:
        UserError: If a number lies out of bounds; the message names the argument.
    """
    for name, hint in bounded_hints(function).items():
        if name in arguments and (found := problem(hint, arguments[name], name)):
            raise UserError(f"{owner}: {found}")


@cache
def bounded_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations that declare bounds, of a function's arguments or a class's fields."""
    return {name: hint for name, hint in type_hints(function).items() if is_bounded(hint)}


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function's arguments or a class's fields, without those that can't be resolved."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # some are imported for type checkers alone
        return {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}


def is_bounded(hint: Any) -> bool:
    """Return whether a type hint declares bounds, itself or of what it contains."""
    return bounds_of(hint) is not None or any(map(is_bounded, get_args(hint)))


def bounds_of(hint: Any) -> Bounds | None:
    """Return the bounds of the numbers that a type hint describes; None if it describes anything else."""
    metadata = getattr(hint, "__metadata__", ()) if get_origin(hint) is Annotated else ()
    return next((one for one in metadata if isinstance(one, Bounds)), None)


def problem(hint: Any, value: Any, name: str) -> str | None:
    """Return what is wrong with a value as ``NAME must be WHAT, not VALUE``; None if it lies within the bounds.

    Args:
        hint: Type hint of the value. Numbers without bounds, and things that are no numbers, are not checked.
        value: The value.
        name: Its name.
    """
    if (bounds := bounds_of(hint)) is not None:
        return _number_problem(get_args(hint)[0], bounds, value, name)
    if not is_bounded(hint):
        return None
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        meant = next((one for one in args if _has_shape(one, value)), None) or next(filter(is_bounded, args))
        return problem(meant, value, name)
    kind = Mapping if _is_kind(origin, Mapping) else Collection
    if not isinstance(value, kind) or isinstance(value, str) or (kind is Collection and isinstance(value, Mapping)):
        return f"{name} must be {'a dictionary' if kind is Mapping else 'a list'}, not {value!r}"
    if isinstance(value, Mapping):
        items = [(args[-1], one, f"{name}.{key}") for key, one in value.items()]
    else:
        hints = args if origin is tuple and args[-1] is not Ellipsis else args[:1] * len(value)
        if len(hints) != len(value):
            return f"{name} must be {len(hints)} values, not {list(value)}"
        items = [(one, item, f"{name}[{i}]") for i, (one, item) in enumerate(zip(hints, value, strict=True))]
    return next(filter(None, (problem(*item) for item in items)), None)


def _number_problem(kind: type, bounds: Bounds, value: Any, name: str) -> str | None:
    is_number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    wanted = bounds.violated(value) if is_number else "a whole number" if kind is int else "a number"
    return f"{name} must be {wanted}, not {_shown(value)}" if wanted else None


def _shown(value: Any) -> str:
    """Return a value as a person would type it: -1 also where the parser made -1.0 of it."""
    if isinstance(value, int) and value.bit_length() > 100:
        return f"{'-' if value < 0 else ''}2**{value.bit_length()}"
    return repr(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else value)


def _has_shape(hint: Any, value: Any) -> bool:
    """Return whether a value is of the kind that a type hint describes, whatever its bounds."""
    if bounds_of(hint) is not None:
        return isinstance(value, Real) and not isinstance(value, bool)
    origin = get_origin(hint) or hint
    if _is_kind(origin, Mapping):
        return isinstance(value, Mapping)
    if _is_kind(origin, Collection) and origin is not str:
        items = value if isinstance(value, Collection) and not isinstance(value, (str, Mapping)) else None
        return items is not None and all(_has_shape(get_args(hint)[0], item) for item in items)
    return isinstance(value, origin) if isinstance(origin, type) else True


def _is_kind(origin: Any, base: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, base)
