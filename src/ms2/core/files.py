"""Atomic file writes, and expansion of paths that users type."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError


@contextlib.contextmanager
def atomic_path(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` if no exception was raised.

    A crash, or a full disk, leaves the old file or the new one, never half of one.

    Args:
        path: The file.
        temporary: The temporary path, in the same file system; by default beside the file.
    """
    temporary = temporary or path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except (Exception, KeyboardInterrupt):
        with contextlib.suppress(OSError):  # where the folder is no folder, there is nothing to remove either
            temporary.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str, errors: str = "strict") -> None:
    """Write text as UTF-8, atomically.

    Args:
        path: The file.
        content: The text.
        errors: How to treat characters that UTF-8 cannot encode, such as lone surrogates in JSON: see `str.encode`.
    """
    write_bytes(path, content.encode(errors=errors))


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_tensors(path: Path, content: Any) -> None:
    """Write tensors and plain values for ``torch.load``, atomically; create missing folders."""
    import torch  # takes seconds to import

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def expand_path(path: str | Path) -> Path:
    """Return a path with ``~`` and environment variables such as ``$MS2_DATA`` filled in.

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
