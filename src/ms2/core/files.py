"""Files that the program writes: atomic writes, and readers whose errors name the file and what to do.

All files that the program wrote are read by `read_text`, `read_json`, `read_tensors` or `read_cached`, or within
`reading`: a file that is missing, empty, cut off or of another version is one readable error.
"""

import contextlib
import errno
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ms2.core.errors import UserError

T = TypeVar("T")
RUN_AGAIN = "run the command that wrote it again"
"""Advice in errors about damaged files."""


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
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # which writing to an open file does not name
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
    buffer = io.BytesIO()  # torch.save to a file does not say that the disk is full
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


@contextlib.contextmanager
def reading(
    path: Path, what: str = "a file of ms2", repair: str = RUN_AGAIN, error: type[UserError] = UserError
) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one error, which names the file and what to do.

    Args:
        path: The file.
        what: What the file should hold, with an article: ``a detector``.
        repair: What to do about a damaged file, the end of the message.
        error: Class of the error.

    Raises:
        UserError: If anything but a `UserError` is raised within.
    """
    try:
        yield
    except UserError:  # names the file already
        raise
    except FileNotFoundError as cause:
        raise error(f"{path}: there is no such file; {repair}") from cause
    except Exception as cause:  # damaged content may raise anything, and what libraries advise may be unsafe
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):  # of seeking beyond the end
            raise error(f"{path}: can't be read ({cause.strerror or cause}); {repair}") from cause
        raise error(f"{path} can't be read as {what} ({type(cause).__name__}): {repair}") from cause


def read_text(path: Path, repair: str = RUN_AGAIN) -> str:
    """Read a text file as UTF-8.

    Raises:
        UserError: If it can't be read, or isn't text.
    """
    with reading(path, "text", repair):
        return path.read_text(encoding="utf-8")


def read_json(path: Path, repair: str = RUN_AGAIN, kind: type = dict, error: type[UserError] = UserError) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        repair: What to do about a damaged file, for errors.
        kind: Type that it must hold: ``dict`` or ``list``.
        error: Class of the error.

    Raises:
        UserError: If it can't be read, isn't JSON, or holds another type.
    """
    with reading(path, "JSON", repair, error):
        content = path.read_bytes()
        try:
            found = json.loads(content)
        except (RecursionError, ValueError) as cause:
            raise error(f"{path}: this is not JSON ({cause}). It was cut off or edited; {repair}") from cause
        if not isinstance(found, kind):
            wanted = "an object" if kind is dict else f"a {kind.__name__}"
            raise error(f"{path}: holds a {type(found).__name__}, where {wanted} was expected; {repair}")
        return found


def read_tensors(path: Path, device: Any = "cpu") -> Any:
    """Read what `write_tensors` wrote, tensors and plain values but never code; used within `reading`.

    Args:
        path: The file.
        device: Where tensors are loaded.
    """
    import torch  # takes seconds to import

    return torch.load(path, weights_only=True, map_location=device)


def read_cached(path: Path, parse: Callable[[Any], T], device: Any = "cpu") -> T | None:
    """Read a cached file of tensors; None if there is none, or a damaged one, which is named in a warning.

    Args:
        path: The file.
        parse: Takes what it needs from the content; may raise anything where that is not what it expects.
        device: Where tensors are loaded.
    """
    try:
        if not path.exists():
            return None
        with reading(path, "a cached result"):
            return parse(read_tensors(path, device))
    except (OSError, UserError) as error:
        warnings.warn(f"{str(error).removesuffix(RUN_AGAIN).rstrip(' ;:')}; it is made anew", stacklevel=2)
        return None
