"""The folder of a data set: every file appears whole or not at all."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from ms2.core.errors import UserError

PARTIAL = ".partial"
"""Folder of files that are not finished yet."""


class FolderError(UserError):
    """A data set's folder can't be written, or holds something else."""


class SetFolder:
    """Reads and writes a data set's files.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[Path] = set()  # folders

    def write(self, name: str, content: bytes | str | Iterable[str]) -> None:
        """Write a file so that a crash leaves the old one, or the new one, or none; never half of one.

        Args:
            name: Where in the folder.
            content: All of it, or lines of what is too long for memory.

        Raises:
            FolderError: If there is no room or no permission.
        """
        path, half = self.root / name, self._unfinished()
        try:
            self._make_folders(path, half)
            with half.open("wb") as file:
                for part in [content] if isinstance(content, bytes | str) else content:
                    file.write(part.encode() if isinstance(part, str) else part)
            os.replace(half, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                half.unlink()
            self._made.clear()  # a folder may be gone
            if isinstance(error, FileNotFoundError) and path.exists():
                return  # another machine, which wrote the same, has finished the data set and cleaned up
            raise self.explain(error) from error

    def _unfinished(self) -> Path:
        """A file that is nobody else's: machines that share a folder may give their processes the same numbers."""
        return self.root / PARTIAL / secrets.token_hex(8)

    def _make_folders(self, *paths: Path) -> None:
        for folder in {path.parent for path in paths} - self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)

    def write_if_changed(self, name: str, content: str) -> None:
        """The same, where the file isn't as it should be yet."""
        path = self.root / name
        if not path.is_file() or path.read_bytes() != content.encode():
            self.write(name, content)

    def write_json(self, name: str, content: Any, indent: bool = False) -> None:
        """Write plain data."""
        self.write(
            name, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0))
        )

    def link(self, name: str, to: str) -> None:
        """The same file under another name: a hard link, or a copy where the file system has none."""
        path, source, half = self.root / name, self.root / to, self._unfinished()
        # a name may be left of a file that was broken, and has been made again
        if path.exists() and (path.samefile(source) or path.read_bytes() == source.read_bytes()):
            return
        try:
            self._make_folders(path, half)
            os.link(source, half)
            os.replace(half, path)
        except OSError:
            self.write(name, source.read_bytes())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Plain data by name; None where there is no such file, or no such thing in it."""
        try:
            found = orjson.loads((self.root / name).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder.

        Raises:
            FolderError: If it can't be looked into.
        """
        try:
            return {entry.name for entry in os.scandir(self.root / folder)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise self.explain(error) from error

    def clean(self) -> None:
        """Remove what was not finished."""
        shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
        self._made.clear()

    def explain(self, error: OSError) -> FolderError:
        """What a person can do about it."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            do = "There is no room left. Make room, and run the same command again: it goes on where it stopped."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            do = "You may not write there. Give another folder with --output, or permission."
        else:
            do = "Run the same command again when that is mended: it goes on where it stopped."
        return FolderError(f"can't write to {self.root.absolute()}: {error.strerror or error}. {do}")
