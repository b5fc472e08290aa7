"""Runs what is missing through the command line, several runs at a time, and keeps what tables need of the results.

Of the runs of worlds' tables the files are kept, in a folder of their own. Studies have hundreds of runs: of each only
the numbers of a line are kept, in one file for the study.
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from kept import KEPT

from ms2.cli.commands import main
from ms2.core.configurations import merge
from ms2.core.errors import DivergenceError
from ms2.metrics.results import NOISE_FLOOR, PRIOR, load_results, summary_key

HERE = Path(__file__).parent
RUNS = Path("runs")
FILES = ("metrics.json", "histograms.json", "config.yaml")
"""Files of a finished run of a world's table that are kept."""
DIGITS = 5
"""Digits behind the point of what is kept of studies."""
Job = TypeVar("Job")
under_way: set[subprocess.Popen[bytes]] = set()
"""Processes of the commands that are running."""
stopping = threading.Event()
"""Whether this process was asked to stop, after which no command is started."""


class RunError(Exception):
    """A run failed; the message says where its output is."""


class DivergedError(RunError):
    """Learning diverged, or its scenes did not end any more."""


class Run(NamedTuple):
    """A run of a study.

    Attributes:
        part: Part of the study.
        row: Title of its row.
        seed: Seed of all that is drawn.
        base: The configuration that the settings are merged onto: a name, or an absolute path.
        settings: Settings of the run.
        common: Those of them that all seeds share.
        columns: Keys of the summary that are kept, with those of prior and noise floor.
        reach: When a validation counts as good: the mean of ``columns`` is ``below``; None if that is not measured.
        tested_on: Settings to measure the finished run with instead of its own; None for its own.
    """

    part: str
    row: str
    seed: int
    base: str
    settings: Mapping[str, Any]
    common: Mapping[str, Any]
    columns: Sequence[str]
    reach: Mapping[str, Any] | None = None
    tested_on: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Name of the run among those of its study."""
        return f"{self.part} / {self.row} / {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.key)


class Kept:
    """What is kept of a study: the settings of each row, and the numbers of each run.

    A row whose settings have changed has no results any more.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}, "runs": {}}
        self.rows: dict[str, Any] = content["rows"]
        self.runs: dict[str, dict[str, Any]] = content["runs"]
        self._lock = threading.Lock()  # as several runs end at a time

    def has(self, run: Run) -> bool:
        """Whether a run is finished, with the settings that it has now."""
        return run.key in self.runs and self.rows.get(f"{run.part} / {run.row}") == described(run)

    def of(self, part: str, row: str, seeds: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return the numbers of a row's runs, in the order of their seeds."""
        start = f"{part} / {row} / "
        found = {int(key.removeprefix(start)): one for key, one in self.runs.items() if key.startswith(start)}
        return [found[seed] for seed in sorted(found) if seeds is None or seed in seeds]

    def of_seed(self, part: str, seed: int) -> list[dict[str, Any]]:
        """Return the numbers of all runs of a part that have a seed."""
        return [one for key, one in self.runs.items() if key.startswith(f"{part} / ") and key.endswith(f" / {seed}")]

    def score(self, part: str, row: str, seeds: Sequence[int] | None = None) -> float | None:
        """Return the mean score of a row, low where learning worked; None without results."""
        scores = [one["score"] for one in self.of(part, row, seeds)]
        return sum(scores) / len(scores) if scores else None

    def add(self, run: Run, numbers: Mapping[str, Any]) -> None:
        """Keep the numbers of a run, and write the file."""
        row = f"{run.part} / {run.row}"
        with self._lock:
            if self.rows.get(row) != described(run):
                self.runs = {key: one for key, one in self.runs.items() if not key.startswith(f"{row} / ")}
                self.rows[row] = described(run)
            self.runs[run.key] = dict(numbers)
            self._save()

    def _save(self) -> None:
        """Write the file, a line for each row and run; a crash leaves the one before."""
        sections = [
            f'"{name}": {{\n' + ",\n".join(f"{json.dumps(key)}: {json.dumps(one)}" for key, one in some.items()) + "\n}"
            for name, some in (("rows", self.rows), ("runs", self.runs))
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text("{" + ",\n".join(sections) + "}\n", encoding="utf-8")
        new.replace(self.path)


def described(run: Run) -> dict[str, Any]:
    """Return the settings of a run's row as they are kept: by dotted name, without seeds."""
    base = Path(run.base)
    name = base.relative_to(HERE).as_posix() if base.is_absolute() else run.base
    found: dict[str, Any] = {"base": name} | flat(run.common)
    return found | ({} if run.tested_on is None else {f"tested_on.{key}": v for key, v in flat(run.tested_on).items()})


def flat(settings: Any, key: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name, without the words that every class has."""
    if not isinstance(settings, Mapping) or not settings:
        return {key: settings} if key else {}
    found = {}
    for name, value in settings.items():
        inner = key if name in ("init_args", "class_path") else f"{key}.{name}" if key else name
        found |= flat(value, inner)
    return found


# -- running -------------------------------------------------------------------------------------------


def run_all(jobs: Sequence[Job], run: Callable[[Job], None], num_jobs: int = 1) -> list[str]:
    """Run jobs, some at a time; return what failed, a line for each."""
    failed = []
    with ThreadPoolExecutor(num_jobs) as pool, ends_with_its_commands(pool):
        futures = [pool.submit(run, job) for job in jobs]
        for future in as_completed(futures):
            if isinstance(error := future.exception(), RunError):
                print(error, flush=True)
                failed.append(str(error))
            elif error is not None:
                pool.shutdown(cancel_futures=True)
                raise error
    return failed


@contextmanager
def ends_with_its_commands(pool: ThreadPoolExecutor) -> Iterator[None]:
    """End the commands that are running when this process is asked to stop (SIGTERM, Ctrl-C), and start no more."""

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()  # before those that run are ended: one that is just being started is ended by `command`
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(under_way):
            process.terminate()
        raise SystemExit(128 + number)

    stopping.clear()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(name: str, words: Sequence[str], runs: Path, label: str) -> float:
    """Run a command of ms2 in a process with one thread, its output in a file; return its CPU time per second.

    Raises:
        RunError: If it fails, or this process was asked to stop; DivergedError if learning did.
    """
    if stopping.is_set():
        raise RunError(f"{label} was not started")
    log = runs / "logs" / f"{label}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as file:
        words, start = [sys.executable, "-m", "ms2", name, *words], time.monotonic()
        with subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment) as process:
            under_way.add(process)
            if stopping.is_set():
                process.terminate()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            under_way.discard(process)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().replace("\r", "\n").rpartition("\n")[2]
        error = DivergedError if process.returncode == DivergenceError.exit_code else RunError
        raise error(f"{label} failed with exit code {process.returncode}: {last} (see {log})")
    return (usage.ru_utime + usage.ru_stime) / (time.monotonic() - start)


def configuration(run: Run, runs: Path, more: Mapping[str, Any] | None = None) -> Path:
    """Write the configuration of a run, and return its file."""
    own = {"base": run.base, "name": run.folder, "seed_everything": run.seed, "runs_dir": str(runs)}
    quiet = {"wandb": "disabled", "trainer": {"enable_progress_bar": False}}
    file = runs / "configurations" / f"{run.folder}{'_tested' if more else ''}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = merge(merge(quiet, run.settings), more or {})
    file.write_text(json.dumps({**own, **settings}, indent=1), encoding="utf-8")  # which is YAML
    return file


def check_run(run: Run, runs: Path = RUNS) -> None:
    """Check the settings of a run as ms2 does before it trains anything, in this process.

    Raises:
        RunError: If they are refused.
    """
    words, said = ["fit", "--config", str(configuration(run, runs)), "--dry_run", "true"], io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main(words)
    except (Exception, SystemExit) as error:
        last = said.getvalue().strip().replace("\r", "\n").rpartition("\n")[2]
        raise RunError(f"{run.part} / {run.row} is refused: {last or error!r}") from error
    shutil.rmtree(runs / run.folder, ignore_errors=True)


def run_study(runs: Sequence[Run], kept: Kept, num_jobs: int = 1, folder: Path = RUNS) -> list[str]:
    """Run those runs of a study that are not finished, and keep their numbers; return what failed.

    Runs of a row follow each other, with other seeds, so that those at a time seldom train the same extractor.
    """
    missing = [run for run in runs if not kept.has(run)]

    def one(run: Run) -> None:
        print(f"{run.key} ({missing.index(run) + 1} of {len(missing)})", flush=True)
        numbers = run_once(run, folder)
        kept.add(run, numbers)
        shutil.rmtree(folder / run.folder)

    return run_all(missing, one, num_jobs)


def run_once(run: Run, runs: Path = RUNS) -> dict[str, Any]:
    """Run a run of a study, and return the numbers that are kept of it.

    ``score`` is the mean of the columns, ``steps`` and ``seconds`` are those of learning, validations included, in CPU
    time: other processes on the machine do not count. ``reached`` is the step of the first validation that is good
    enough; null if there is none. A run that diverges has the score 1, the largest total variation, and nothing else.

    Raises:
        RunError: If it fails.
    """
    file, place = configuration(run, runs), runs / run.folder
    try:
        share = command("fit", ["--config", str(file)], runs, run.folder)
    except DivergedError:
        return {"score": 1.0, "diverged": True}
    measured = results = load_results(place / "metrics.json")
    if run.tested_on is not None:
        command("test", ["--config", str(configuration(run, runs, run.tested_on))], runs, run.folder)
        tested = max(place.glob("test_*/metrics.json"), key=lambda file: file.stat().st_mtime)
        measured = load_results(tested)
    summary = measured.summary
    names = [summary_key(column, row) for column in run.columns for row in ("learned", PRIOR, NOISE_FLOOR)]
    numbers: dict[str, Any] = {name: round(summary[name], DIGITS) for name in names if name in summary}
    numbers["score"] = round(sum(summary[column] for column in run.columns) / len(run.columns), DIGITS)
    numbers |= {"steps": results.measured_with.steps, "seconds": round(results.seconds["training"] * share, 3)}
    if run.reach is not None:
        logs = sorted(place.glob("csv/version_*/metrics.csv"), key=lambda log: log.stat().st_mtime)
        numbers["reached"] = first_below(logs, run.reach)
    return numbers


def first_below(logs: Sequence[Path], reach: Mapping[str, Any]) -> int | None:
    """Return the number of steps before the first validation whose mean of columns is low enough.

    Args:
        logs: Logs of a run, in order: several if it was interrupted.
        reach: See `Run`.
    """
    for log in logs:
        with log.open(encoding="utf-8", newline="") as lines:
            for line in csv.DictReader(lines):
                values = [line.get(f"val/{column}") for column in reach["columns"]]
                numbers = [float(value) for value in values if value]
                if len(numbers) == len(values) and sum(numbers) / len(numbers) < reach["below"]:
                    return int(line["step"]) + 1  # steps are counted from 0
    return None


# -- runs of worlds' tables ----------------------------------------------------------------------------


class WorldRun(NamedTuple):
    """A run of a world's table.

    Attributes:
        name: Name of the run, and of the folder that its results are kept in.
        configs: Configurations, merged in order.
        seed: Seed of all that is drawn.
        settings: Settings on top.
    """

    name: str
    configs: Sequence[str]
    seed: int
    settings: Mapping[str, Any]


def run_world(run: WorldRun, folder: Path = RUNS, kept: Path = KEPT) -> None:
    """Train a configuration with a seed, and keep its results, unless they are kept.

    Raises:
        RunError: If it fails.
    """
    if (kept / run.name / FILES[0]).exists():
        return
    print(run.name, flush=True)
    words = [word for config in run.configs for word in ("--config", config)]
    words += ["--name", run.name, "--seed_everything", str(run.seed), "--runs_dir", str(folder)]
    command("fit", [*words, *option_words(run.settings)], folder, run.name)
    (kept / run.name).mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copy(folder / run.name / file, kept / run.name / file)


def option_words(settings: Mapping[str, Any], key: str = "-") -> list[str]:
    """Return nested settings as words of a command line."""
    found: list[str] = []
    for name, value in settings.items():
        option = f"{key}{'.' if key != '-' else '-'}{name}"
        found += option_words(value, option) if isinstance(value, Mapping) else [option, str(value)]
    return found
