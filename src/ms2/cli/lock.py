"""The lock of a run's folder, so that two processes never write the same run."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError

LOCK_NAME = "lock"
"""Name of the lock's file in the folder."""
SECONDS_TO_WRITE = 2.0
"""Age above which a lock that can't be read is that of a process which ended while it wrote it."""
MAX_TRIES = 200
"""Tries to take a lock that is just being written or given back."""


class LockedError(UserError):
    """Another process is using the folder."""


class Lock:
    """A file that names the process that writes a folder: its number, its host, and when it started.

    A lock whose process is gone is taken over. That of another host can't be checked, so it is respected.

    Args:
        folder: The folder, which exists.

    Raises:
        LockedError: If another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self.holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "process_started": process_start(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        for _ in range(MAX_TRIES):
            if self._create():
                return
            other = _read(self.path)
            if other is None:
                time.sleep(SECONDS_TO_WRITE / MAX_TRIES)
            elif _may_be_alive(other):
                raise LockedError(_refusal(self.path, other))
            else:
                self._remove(other)
        raise LockedError(f"{self.path} can't be taken: delete it if no run is under way, and give the command again")

    def release(self) -> None:
        """Give the folder back."""
        if _read(self.path) == self.holder:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Create the file, unless there is one."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(self.holder))
        except OSError:  # such as a full disk
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _remove(self, stale: dict[str, Any]) -> None:
        """Remove the lock of a process that is gone, unless another process has taken it over in this moment."""
        aside = self.path.with_name(f"{LOCK_NAME}.{os.getpid()}.tmp")
        try:
            self.path.rename(aside)
            if _read(aside) not in (None, stale):
                os.link(aside, self.path)
            aside.unlink()
        except (FileNotFoundError, FileExistsError):
            aside.unlink(missing_ok=True)


def process_start(pid: int) -> str | None:
    """Return when a process of this host started, in a unit of the system's; None if the system doesn't tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Read who holds a lock; None if nobody does, or that is just being written."""
    try:
        age = time.time() - path.stat().st_mtime
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
        return {**found, "pid": int(found["pid"]), "host": str(found["host"])}
    except (KeyError, TypeError, ValueError):
        return {"pid": 0, "host": socket.gethostname()} if age > SECONDS_TO_WRITE else None


def _may_be_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock names may still be running."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        if holder["pid"] < 1:
            return False
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    started, now = holder.get("process_started"), process_start(holder["pid"])
    return started is None or now is None or started == now  # numbers are used again


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    process = f"process {holder['pid']} on {holder['host']}, since {holder.get('since', 'an unknown time')}"
    do = "Give this run another --name, or wait until that one has ended."
    if holder["host"] != socket.gethostname():
        do += f" If that process is gone, delete {path} and give the same command again."
    return f"the run in {path.parent} is under way: {process}. {do}"
