"""Read files of a run or data set; errors tell the user what is missing or damaged."""

import json
from pathlib import Path
from typing import Any

import yaml

from ms2.core.errors import UserError


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        UserError: If it can't be read, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error})") from error


def read_json(path: Path, schema: type, default: Any = None) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        schema: Type that it must hold: ``dict`` or ``list``.
        default: Returned if there is no such file; None makes that an error.

    Raises:
        UserError: If it can't be read, isn't JSON, or holds another type.
    """
    if default is not None and not path.exists():
        return default
    text = read_text(path)
    try:
        content = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise UserError(
            f"{path}: this is not JSON ({error}). It was cut off or edited; run the command that wrote it again"
        ) from error
    if not isinstance(content, schema):
        raise UserError(f"{path}: holds a {type(content).__name__}, where a {schema.__name__} was expected")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML configuration; empty if there is none.

    Raises:
        UserError: If it isn't YAML.
    """
    if not path.exists():
        return {}
    text = read_text(path)
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is not YAML ({error})") from error
    return content if isinstance(content, dict) else {}
