"""The folder of a data set, with atomic writes."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from ms2.core.errors import UserError
from ms2.core.files import atomic_path

TEMPORARY_FOLDER = ".partial"
"""Folder of files while they are written."""


class FolderError(UserError):
    """A data set's folder cannot be written, or holds other data."""


class DataSetFolder:
    """Reads and writes a data set's files, each atomically: a reader sees no file, the old one or the new one.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[Path] = set()  # folders

    def write(self, name: str, content: bytes | str | Iterable[str | bytes]) -> None:
        """Write a file atomically.

        Args:
            name: Path in the folder.
            content: The content, or its parts, such as lines, if it is too long for memory.

        Raises:
            FolderError: If there is no space or no permission.
        """
        path, half = self.root / name, self._temporary()
        try:
            self._make_folders(path, half)
            with atomic_path(path, half), half.open("wb") as file:
                for part in [content] if isinstance(content, bytes | str) else content:
                    file.write(part.encode() if isinstance(part, str) else part)
        except OSError as error:
            self._made.clear()  # a folder may be gone
            if isinstance(error, FileNotFoundError) and path.exists():
                return  # another machine wrote the same file, completed the data set and removed temporary files
            raise self.explain(error) from error

    def _temporary(self) -> Path:
        """Return a random path: on machines that share a folder, process numbers may be equal."""
        return self.root / TEMPORARY_FOLDER / secrets.token_hex(8)

    def _make_folders(self, *paths: Path) -> None:
        for folder in {path.parent for path in paths} - self._made:
            folder.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)

    def write_if_changed(self, name: str, content: str) -> None:
        """Write a file atomically unless it already has this content."""
        path = self.root / name
        if not path.is_file() or path.read_bytes() != content.encode():
            self.write(name, content)

    def write_json(self, name: str, content: Any, indent: bool = False) -> None:
        """Write a JSON file atomically."""
        self.write(
            name, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0))
        )

    def link(self, name: str, to: str) -> None:
        """Hard-link a file under another name, or copy it if the file system has no links."""
        path, source, half = self.root / name, self.root / to, self._temporary()
        # the name may be of an earlier, damaged file that has been generated again
        if path.exists() and (path.samefile(source) or path.read_bytes() == source.read_bytes()):
            return
        try:
            self._make_folders(path, half)
            with atomic_path(path, half):
                os.link(source, half)
        except OSError:
            self.write(name, source.read_bytes())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object; None if the file is missing or invalid."""
        try:
            found = orjson.loads((self.root / name).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def names(self, folder: str) -> set[str]:
        """List the names of the files in a subfolder; none if it does not exist.

        Raises:
            FolderError: If it cannot be listed.
        """
        try:
            return {entry.name for entry in os.scandir(self.root / folder)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise self.explain(error) from error

    def clean(self) -> None:
        """Remove temporary files."""
        shutil.rmtree(self.root / TEMPORARY_FOLDER, ignore_errors=True)
        self._made.clear()

    def explain(self, error: OSError) -> FolderError:
        """Return an error that says what to do about an OS error."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            do = "There is no space left. Free some, and run the same command again: it goes on where it stopped."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            do = "You may not write there. Give another folder with --output, or permission."
        else:
            do = "Run the same command again when that is repaired: it goes on where it stopped."
        return FolderError(f"can't write to {self.root.absolute()}: {error.strerror or error}. {do}")
