"""JSON files whose contents are dataclasses: written by `encode`, checked against their type hints by `decode`."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ms2.core.errors import UserError
from ms2.core.files import read_json


def encode(value: Any) -> Any:
    """Convert dataclasses, mappings and sequences to plain values for JSON; numbers that are not finite become null."""
    if dataclasses.is_dataclass(value):
        return {one.name: encode(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(hint: Any, value: Any, path: Path, where: str = "") -> Any:
    """Convert plain values to what a type hint describes; null becomes NaN where a float is expected.

    Args:
        hint: A dataclass, a plain type, a mapping, a sequence, ``X | None`` or ``Any``.
        value: The plain value.
        path: The file, for errors.
        where: Name of the field, for errors.

    Raises:
        UserError: If a field is missing or has another type.
    """
    options = [one for one in get_args(hint) if one is not type(None)]
    origin = get_origin(hint)
    if hint is Any:
        return value
    if hint is float and value is None:
        return math.nan
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else decode(options[0], value, path, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _decode_fields(hint, value, path, where)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        keys = [_key(options[0], name, path, where) for name in value]
        found = [decode(options[1], one, path, _join(where, name)) for name, one in value.items()]
        return dict(zip(keys, found, strict=True))
    if origin is not None and issubclass(origin, Sequence) and isinstance(value, list):
        return [decode(options[0], one, path, f"{where}[{i}]") for i, one in enumerate(value)]
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    raise UserError(f"{path}: {where} is {value!r}, which is not what this version writes there; it was edited")


def read_versioned(path: Path, version: int, how_to_recreate: str) -> dict[str, Any]:
    """Read the object in a JSON file; raise an error if its ``schema_version`` is not ``version``.

    Args:
        path: The file.
        version: The version that the caller reads.
        how_to_recreate: How to write the file again, for errors.

    Raises:
        UserError: If the file can't be read, is cut off, or has another version.
    """
    content: dict[str, Any] = read_json(path, how_to_recreate)
    given = content.get("schema_version")
    if given != version:
        written = "no schema_version" if given is None else f"schema_version {given}"
        raise UserError(f"{path}: has {written}, but this version reads {version}; {how_to_recreate}")
    return content


def _decode_fields(cls: type, value: dict[str, Any], path: Path, where: str) -> Any:
    """Build a dataclass from plain values; keys that are none of its fields are ignored."""
    hints = get_type_hints(cls)
    for one in dataclasses.fields(cls):
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in value:
            raise UserError(f"{path}: lacks the field {_join(where, one.name)}; it was edited, or cut off")
    given = {name: value[name] for name in hints if name in value}
    return cls(**{name: decode(hints[name], one, path, _join(where, name)) for name, one in given.items()})


def _key(hint: Any, key: str, path: Path, where: str) -> Any:
    """Convert a key, which is always text in JSON, to the type of a mapping's keys."""
    try:
        return int(key) if hint is int else key
    except ValueError as error:
        problem = f"{where} has the key {key!r}, where a whole number was expected"
        raise UserError(f"{path}: {problem}; it was edited") from error


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else str(name)
