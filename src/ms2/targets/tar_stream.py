"""The images of a tar archive that is read once from beginning to end: a file, an address, or a command's output."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import selectors
import signal
import tarfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from ms2.core.errors import UserError
from ms2.core.images import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES, unread_reason

CHUNK = 1 << 16
DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""Openers of compressed archives by their first bytes; unlike tarfile's, they read concatenated ones to the end."""
SIGPIPE_STATUS = 141
"""Exit status of a shell whose command was stopped before its output was read."""


class ShardError(UserError):
    """A shard is missing, truncated, or takes too long."""


@dataclass(frozen=True)
class Unusable:
    """A member that is an image by its name, but has no content that can be decoded.

    Attributes:
        reason: Why.
    """

    reason: str


def read_members(url: str, timeout: float) -> Generator[tuple[str, bytes | Unusable], None, None]:
    """Iterate over names and contents of the images in a shard; the names are untrusted, and not used as paths.

    Args:
        url: Path or address of the shard, or ``pipe:`` and a command.
        timeout: Seconds to wait for the next bytes of an address or a command.

    Raises:
        ShardError: If the shard cannot be read to its end-of-archive mark.
    """
    last, opened = "before its first image", None
    try:
        opened = _open(url, timeout)
        content = _decompressed(opened if _process(opened) is None else io.BufferedReader(_Pipe(opened), CHUNK))
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Header, ignore_zeros=True) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined] # otherwise it keeps all of them
                if not member.isdir() and _is_image(member.name):
                    yield member.name, _content(tar, member)
                    last = f"after {member.name!r}"
        opened.close()  # raises if a command failed
    except Exception as error:  # decompressors raise all kinds of exceptions on damaged bytes
        raise ShardError(
            f"{url}: the shard can't be read, or is truncated, {last}: {_reason(error, opened)}. Fetch or pack it "
            "again, or remove it from urls."
        ) from error
    finally:
        _stop(opened)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Unusable:
    if PurePosixPath(member.name).suffix.lower() in UNREAD_IMAGE_SUFFIXES:
        return Unusable(unread_reason(member.name))
    if not member.isreg():
        kind = f"a link to {member.linkname!r}" if member.islnk() or member.issym() else "a special file"
        return Unusable(f"is {kind} and has no content; pack it with tar --dereference --hard-dereference")
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


class _Header(tarfile.TarInfo):
    """A member's header; raises where tarfile takes a damaged or missing one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Header":
        """Return the next member.

        Raises:
            tarfile.ReadError: If the header is damaged, or the archive ends without its mark, two blocks of zeros.
        """
        try:
            found = super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # zeros; another archive may follow
            tar.is_ended = True  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined] # no bytes are left
            if tar.offset and not getattr(tar, "is_ended", False):
                raise tarfile.ReadError("it ends without an end-of-archive mark") from None
            raise
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error
        tar.is_ended = False  # type: ignore[attr-defined]
        return found


class _Pipe(io.RawIOBase):
    """The output of a process, which must not be silent for long."""

    def __init__(self, pipe: Any) -> None:
        self.descriptor, self.timeout = pipe.stream.fileno(), pipe.timeout

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, enough to tell a compression.

        Raises:
            TimeoutError: If no bytes come in time.
        """
        filled = 0
        with selectors.DefaultSelector() as selector:
            selector.register(self.descriptor, selectors.EVENT_READ)
            while filled < min(len(buffer), tarfile.BLOCKSIZE):
                if not selector.select(self.timeout):
                    raise TimeoutError(f"nothing came for {self.timeout:g} seconds (see the setting timeout)")
                data = os.read(self.descriptor, len(buffer) - filled)
                if not data:
                    break
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        return filled


def _decompressed(stream: Any) -> Any:
    """Return a stream's content, decompressed if it is compressed."""
    head = stream.peek(max(map(len, DECOMPRESSORS)))
    return next((opener(stream) for magic, opener in DECOMPRESSORS.items() if head.startswith(magic)), stream)


def scheme(url: str) -> str:
    """Return the scheme of an address in lower case, such as "https"; empty for a path."""
    try:
        return urlparse(url).scheme
    except ValueError:  # it is no valid address
        return url.partition(":")[0].lower()


def _open(url: str, timeout: float) -> Any:
    """Open a shard; a command gets a process group of its own, so that all of it can be stopped."""
    from webdataset.gopen import Pipe, gopen

    if scheme(url) == "pipe":
        command = url.strip()[len("pipe:") :]
        opened = Pipe(command, mode="rb", shell=True, ignore_status=[SIGPIPE_STATUS], start_new_session=True)
    else:
        opened = gopen(url)
    if _process(opened) is not None:
        opened.timeout = timeout  # also for its end once all is read
    return opened


def _process(stream: Any) -> Any:
    """Return the process whose output a stream is; None for a file."""
    return getattr(stream, "proc", None)


def _stop(stream: Any) -> None:
    """Close a stream; end the process behind it, which might never do so itself."""
    process = _process(stream)
    if process is not None and process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
    if stream is not None:
        with contextlib.suppress(Exception):  # raised if a command is stopped early
            stream.close()


def _reason(error: Exception, stream: Any) -> str:
    """Return why a shard cannot be read: the exit status of the command that fetches it, or else the error."""
    process = _process(stream)
    if process is not None and not isinstance(error, TimeoutError):
        with contextlib.suppress(Exception):
            stream.close()  # a command that could not write its output ends
        if process.poll() not in (None, 0, SIGPIPE_STATUS, -signal.SIGPIPE):
            return f"the command that fetches it ended with exit status {process.poll()}"
    return str(error) or type(error).__name__


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES)
