"""A program that answers requests: a line of JSON on its standard input, a line of JSON on its standard output."""

import contextlib
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

import orjson

MAX_ERROR_LINES = 5
"""Last lines of the program's standard error that a message quotes."""
CHUNK = 1 << 16
"""Bytes that are written or read at once: what a pipe holds on Linux."""


class ProgramError(Exception):
    """A program can't be started, ended, did not answer in time, or reported an error."""


class Program:
    """A running program, which is started when it is first asked, and again after it was stopped.

    Lines of its output that are no JSON object are ignored: programs such as Blender print their progress there. It
    should end when its input ends.

    Args:
        command: The program and its arguments.
        timeout: Seconds within which each request has to be answered, the program's start included.

    Example:
        >>> program = Program(["sed", "-u", "s/question/answer/"], timeout=10)
        >>> program.ask({"question": 42})
        {'answer': 42}
        >>> program.stop()
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self.command, self.timeout = list(command), timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._unread = b""

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            ProgramError: If there is no answer, or one with the key ``error``. The program has to be stopped then.
        """
        if self._process is None:
            self._start()
        answer = self._exchange(orjson.dumps(request) + b"\n", time.monotonic() + self.timeout)
        if "error" in answer:
            raise ProgramError(f"it reported: {answer['error']}")
        return answer

    def stop(self) -> None:
        """Kill the program and what it started."""
        process, self._process, self._unread = self._process, None, b""
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            process.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> None:
        # a pipe that nobody reads would fill up, and stop the program
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the program is stopped
        try:
            # in a session of its own, so that it can be killed along with what it starts
            self._process = subprocess.Popen(
                self.command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ProgramError(f"it can't be started: {error}") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def _exchange(self, line: bytes, until: float) -> dict[str, Any]:
        """Write a line, and read lines until one is an answer; neither blocks beyond the deadline."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.fileobj is process.stdout:
                        answer = self._read(process.stdout.fileno())
                        if answer is not None:
                            return answer
                        continue
                    line = line[self._write(process.stdin.fileno(), line) :]
                    if not line:
                        selector.unregister(process.stdin)
        raise ProgramError(f"it did not answer within {self.timeout:g} s{self._last_errors()}")

    def _write(self, pipe: int, line: bytes) -> int:
        try:
            return os.write(pipe, line[:CHUNK])
        except BrokenPipeError as error:
            raise self._ended() from error

    def _read(self, pipe: int) -> dict[str, Any] | None:
        """Read what there is; return the answer if it is complete."""
        content = os.read(pipe, CHUNK)
        if not content:
            raise self._ended()
        *lines, self._unread = (self._unread + content).split(b"\n")
        for number, line in enumerate(lines):
            with contextlib.suppress(ValueError):
                answer = orjson.loads(line)
                if isinstance(answer, dict):
                    self._unread = b"\n".join([*lines[number + 1 :], self._unread])
                    return answer
        return None

    def _ended(self) -> ProgramError:
        assert self._process is not None
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ProgramError(f"it closed its input or output{self._last_errors()}")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ProgramError(f"it {how}{self._last_errors()}")

    def _last_errors(self) -> str:
        """Return the last lines that the program wrote to its standard error."""
        assert self._errors is not None
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - CHUNK))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()[-MAX_ERROR_LINES:]
        return ": " + " | ".join(lines) if lines else ""
