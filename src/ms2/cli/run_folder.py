"""The folder of a run: its files, whose it is, and whether the run is finished."""

import atexit
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.utilities import rank_zero_only

from ms2.cli.lock import LOCK_NAME, Lock
from ms2.core.errors import UserError
from ms2.core.files import read_json, write_json, write_text
from ms2.core.hashing import digest
from ms2.core.paths import UserPath, expand_path

CACHE_NAME = "cache"
"""Name of the folder, beside those of the runs, of what runs with the same settings share."""
SHEET_NAME = "dry_run.png"
"""Name of the images that ``ms2 fit --dry_run true`` leaves."""


class Identity(NamedTuple):
    """Fingerprints of what determines what a run learns.

    Attributes:
        settings: Of the settings.
        code: Of the source code of the classes that they name, and of all that it imports.
    """

    settings: str
    code: str = ""

    def difference(self, other: "Identity") -> str:
        """Say how another run differs; empty if it does not."""
        if self.settings != other.settings:
            return "it had other settings"
        return "its code has been changed since" if self.code != other.code else ""


class RunFolder:
    """Paths of a run's files, and a status file with its identity.

    The status file ``run.json`` holds the `Identity` of the run, a fingerprint of what its results are measured with,
    whether the run is finished, and its ID in Weights & Biases.

    Args:
        runs_dir: Folder of all runs, which share a cache there.
        name: Name of the run.

    Raises:
        UserError: If the name is none of a folder in ``runs_dir``.
    """

    def __init__(self, runs_dir: UserPath, name: str) -> None:
        check_name(name)
        runs = expand_path(runs_dir)
        self.path = runs / name
        self.cache = runs / CACHE_NAME
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.samples = self.path / "samples"
        self._status = self.path / "run.json"
        self._lock: Lock | None = None

    @property
    def identity(self) -> Identity | None:
        """Identity of the run that is in the folder; None if there is none."""
        found = self._read()
        return Identity(str(found.get("settings")), str(found.get("code"))) if found else None

    @property
    def measured_with(self) -> str | None:
        """Fingerprint of what the run's results are measured with; None if that is unknown."""
        found: str | None = self._read().get("measured_with")
        return found

    @property
    def finished(self) -> bool:
        """Whether the run that is in the folder was trained to its end."""
        return self._read().get("finished") is True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Have the folder for the processes of one run until the end of the context.

        A folder that is missing is made, and removed again if nothing was written to it.

        Raises:
            UserError: If another process has it, or it can't be written.
        """
        if not is_first_process():  # the first process has it for all
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path)
        except OSError as error:
            raise self.write_error(error) from error
        try:
            yield
        finally:
            self._lock.release()
            self._lock = None
            with contextlib.suppress(OSError):  # it is not empty
                self.path.rmdir()

    def claim(
        self,
        identity: Identity,
        configuration: str,
        checkpoint: str | Path | None = None,
        fresh: bool = False,
        measured_with: str | None = None,
    ) -> str:
        """Prepare the folder for a run, within `locked`; rename an earlier run that is another one.

        Args:
            identity: Fingerprints of what determines what is learned.
            configuration: All settings, for ``config.yaml``.
            checkpoint: File to resume from. If it lies in this folder, the run continues there, whatever has changed.
            fresh: Whether to rename an earlier run of the same identity too.
            measured_with: Fingerprint of what the results are measured with.

        Returns:
            A message, if an earlier run was renamed; else empty.

        Raises:
            UserError: If the folder can't be written, or holds something else than a run.
        """
        if not is_first_process():  # the first process does it for all
            return ""
        message, earlier, finished = "", self.identity, self.finished
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if earlier is None:
                self.check_free()
            elif checkpoint is not None and self.path.resolve() in Path(checkpoint).resolve().parents:
                finished = False
            elif fresh or earlier != identity:
                finished, reason = False, identity.difference(earlier)
                message = f"an earlier run called {self.path.name} is kept as {self._keep_aside()}"
                message += f": {reason}" if reason else ""
            write_text(self.path / "config.yaml", configuration)
            self._write(**identity._asdict(), measured_with=measured_with, finished=finished)
        except OSError as error:
            raise self.write_error(error) from error
        return message

    def wandb_id(self, given: str | None = None) -> str:
        """Return the run's ID in Weights & Biases, which is made when it is asked for first.

        Args:
            given: The ID that an agent of a sweep has chosen.
        """
        found: str = given or self._read().get("wandb_id") or secrets.token_hex(4)
        self._write(wandb_id=found)
        return found

    def finish(self) -> None:
        """Record that the run was trained to its end."""
        self._write(finished=True)

    def results_folder(self, measured_with: str, checkpoint: Path) -> Path:
        """Return where to write the results of a checkpoint, so that they replace only those of the same settings.

        Args:
            measured_with: Fingerprint of what they are measured with.
            checkpoint: The checkpoint.
        """
        own = checkpoint.resolve() == self.last_checkpoint.resolve()
        if own and self.measured_with in (None, measured_with):
            return self.path
        if self.identity is None and not (self.path / "metrics.json").exists():  # there is nothing to replace
            return self.path
        key = digest(measured_with if own else f"{measured_with} {checkpoint.resolve()}")[:8]
        return self.path / f"test_{key}"

    def check_free(self) -> None:
        """Check that the folder, which is no run's, holds nothing else that a run would be mixed with.

        Raises:
            UserError: If it does.
        """
        others = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        others = sorted(n for n in others if n not in (LOCK_NAME, SHEET_NAME) and not n.endswith(".tmp"))
        if others and "config.yaml" not in others:
            raise UserError(
                f"{self.path.absolute()} is not the folder of a run, and holds {', '.join(others[:3])}: give another "
                "--name or --runs_dir"
            )

    def _keep_aside(self) -> Path:
        """Rename the folder, and lock a new one in its place; return the new path."""
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(kept)
        self.path.mkdir(exist_ok=True)
        if self._lock is not None:
            self._lock = Lock(self.path)
            (kept / LOCK_NAME).unlink(missing_ok=True)
        return kept

    def write_error(self, error: OSError) -> UserError:
        """Return the error for a folder that cannot be written."""
        return UserError(
            f"can't write to the folder of the run, {self.path.absolute()}: {error.strerror or error}. "
            "Give another one with --runs_dir, or make room or permission there."
        )

    def checkpoint(self, given: str | Path | None = None) -> Path:
        """Return a given checkpoint, or the run's last.

        Raises:
            UserError: If there is none.
        """
        if given is not None:
            if not Path(given).is_file():
                raise UserError(f"there is no checkpoint {given}: give the file of one, or leave out --ckpt_path")
            return Path(given)
        if not self.last_checkpoint.exists():
            raise UserError(
                f"there is no checkpoint {self.last_checkpoint}: run 'ms2 fit' with this configuration, or give "
                "--ckpt_path"
            )
        return self.last_checkpoint

    def _read(self) -> dict[str, Any]:
        try:
            if not self._status.exists():
                return {}
        except OSError as error:  # such as a name that is too long
            raise self.write_error(error) from error
        found: dict[str, Any] = read_json(self._status, f"give another --name, or move {self.path} away")
        return found

    def _write(self, **changes: Any) -> None:
        write_json(self._status, self._read() | changes)


def throwaway_folder(name: str) -> RunFolder:
    """Return a run's folder that is removed when the program ends, with all that is written there."""
    folder = tempfile.mkdtemp(prefix="ms2-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return RunFolder(folder, name)


def is_first_process() -> bool:
    """Whether this is the first process of a run, which writes its folder."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def check_name(name: str) -> None:
    """Check that the name of a run is that of a folder in the folder of all runs.

    Raises:
        UserError: If it is empty, a path, or the name of the cache.
    """
    if name == CACHE_NAME:
        raise UserError(f"a run can't be called {CACHE_NAME!r}: that folder holds what runs share. Give another --name")
    path_like = name in (".", "..") or Path(name).name != name or "\\" in name or name.startswith("~") or "$" in name
    if path_like or not name.strip() or not name.isprintable():
        raise UserError(
            f"--name {name!r} is not the name of a folder: it may have letters, digits, '_', '-' and '.', as in "
            "'first'. Give the folder of all runs with --runs_dir"
        )
