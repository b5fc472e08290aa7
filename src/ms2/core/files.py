"""Callbacks: what a run shows while it learns, and what it leaves behind."""

import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from ms2.core.errors import UserError


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a crash leaves the old file or the new one."""
    half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    half.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(half, path)


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


def save_atomically(path: Path, content: Any) -> None:
    """Save tensors and plain values so that a crash leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, half)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
