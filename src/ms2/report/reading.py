"""Reading what lies in a folder, with errors for the person who named it."""

import json
from pathlib import Path
from typing import Any

import yaml

from ms2.core.errors import UserError


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        UserError: If it can't be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error})") from error


def read_json(path: Path, kind: type, otherwise: Any = None) -> Any:
    """A JSON file.

    Args:
        path: The file.
        kind: What it has to hold: ``dict`` or ``list``.
        otherwise: What to return where there is no such file; None makes that an error.

    Raises:
        UserError: If it can't be read, is no JSON, or holds something else.
    """
    if otherwise is not None and not path.exists():
        return otherwise
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: this is not JSON ({error}). It was cut off or edited; run the command that wrote it again"
        ) from error
    if not isinstance(content, kind):
        raise UserError(f"{path}: holds a {type(content).__name__}, where a {kind.__name__} was expected")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration; empty where there is none.

    Raises:
        UserError: If it is no YAML.
    """
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not YAML ({error})") from error
    return content if isinstance(content, dict) else {}


def inside(folder: Path, name: object) -> Path:
    """A file that data names, if it lies in the folder.

    Raises:
        UserError: If it does not.
    """
    path = folder / str(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: its records name the file {str(name)!r}, which lies outside of it")
    return path
