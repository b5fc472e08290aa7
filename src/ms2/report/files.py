"""Read the configuration of a run."""

from pathlib import Path
from typing import Any

import yaml

from ms2.core.errors import UserError
from ms2.core.files import read_text, reading


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML configuration; empty if there is none.

    Raises:
        UserError: If it isn't YAML.
    """
    if not path.exists():
        return {}
    with reading(path, "YAML"):
        try:
            content = yaml.safe_load(read_text(path))
        except yaml.YAMLError as error:
            raise UserError(f"{path}: this is not YAML ({error})") from error
    return content if isinstance(content, dict) else {}
