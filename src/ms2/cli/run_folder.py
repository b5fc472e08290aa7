"""The folder of a run: its files, the fingerprint of its settings, and whether the run is finished."""

import json
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError
from ms2.core.files import write_json, write_text


class RunFolder:
    """Paths of a run's files, and a status file with the fingerprint of its settings.

    The status file ``run.json`` holds the fingerprint of the settings that determine what is learned, and whether the
    run is finished.

    Args:
        runs_dir: Folder of all runs, which share a cache there.
        name: Name of the run.
    """

    def __init__(self, runs_dir: str | Path, name: str) -> None:
        self.path = Path(runs_dir) / name
        self.cache = Path(runs_dir) / "cache"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.samples = self.path / "samples"
        self._status = self.path / "run.json"

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the settings of the run that is in the folder; None if there is none."""
        found: str | None = self._read().get("fingerprint")
        return found

    @property
    def finished(self) -> bool:
        """Whether the run that is in the folder was trained to its end."""
        return bool(self._read().get("finished"))

    def write_status(self, fingerprint: str, finished: bool) -> None:
        """Record the fingerprint of the run's settings, and whether the run is finished."""
        write_json(self._status, {"fingerprint": fingerprint, "finished": finished})

    def claim(
        self, fingerprint: str, configuration: str, checkpoint: str | Path | None = None, fresh: bool = False
    ) -> str:
        """Create the folder for a run; rename an earlier run with other settings.

        Args:
            fingerprint: Fingerprint of the settings that determine what is learned.
            configuration: All settings, for ``config.yaml``.
            checkpoint: File to resume from. If it lies in this folder, the run continues there, whatever has changed.
            fresh: Whether to rename an earlier run with the same settings too.

        Returns:
            A message, if an earlier run was renamed; else empty.

        Raises:
            UserError: If the folder can't be written.
        """
        message = ""
        try:
            if self.path.exists():
                other = self._status.exists() and self.fingerprint != fingerprint
                if checkpoint and self.path.resolve() in Path(checkpoint).resolve().parents:
                    self.write_status(fingerprint, finished=False)
                elif other or fresh:
                    kept = _free_name(self.path)
                    self.path.rename(kept)
                    message = f"an earlier run called {self.path.name} is kept as {kept}"
                    message += ": it had other settings" if other else ""
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / "config.yaml", configuration)
            if self.fingerprint is None:
                self.write_status(fingerprint, finished=False)
        except OSError as error:
            raise self.write_error(error) from error
        return message

    def make(self) -> None:
        """Make the folder, for commands that do not train.

        Raises:
            UserError: If it can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.write_error(error) from error

    def write_error(self, error: OSError) -> UserError:
        """Return the error for a folder that cannot be written."""
        return UserError(
            f"can't write to the folder of the run, {self.path.absolute()}: {error.strerror or error}. "
            "Give another one with --runs_dir, or make room or permission there."
        )

    def checkpoint(self) -> Path:
        """The run's last checkpoint.

        Raises:
            UserError: If there is none.
        """
        if not self.last_checkpoint.exists():
            raise UserError(
                f"there is no checkpoint {self.last_checkpoint}: run 'ms2 fit' with this configuration, or give "
                "--ckpt_path"
            )
        return self.last_checkpoint

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._status.read_text()) if self._status.exists() else {}
        return found


def _free_name(folder: Path) -> Path:
    number = 1
    while (free := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return free
