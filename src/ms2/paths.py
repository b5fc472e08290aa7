"""Paths as a person types them."""

import os
import re
from pathlib import Path

from ms2.registry import UserError


def typed_path(path: str | Path) -> Path:
    """A path with ``~`` and environment variables such as ``$MS2_DATA`` filled in.

    Raises:
        UserError: If a variable is not set.
    """
    found = os.path.expandvars(os.path.expanduser(path))
    missing = re.search(r"\$\{?(\w+)\}?", found)
    if missing:
        raise UserError(
            f"{path} needs the environment variable {missing[1]}, which is not set. Try: export {missing[1]}=FOLDER"
        )
    return Path(found)
