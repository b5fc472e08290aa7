"""Killed, out of room, without permission, badly asked for: a data set ends up whole, and nothing else is hurt."""

import errno
import importlib
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from helpers import EXPECTED, ms2, start
from test_datasets import FORMATS, SMALL, changed_files, run_folder, small, tree
from tqdm import tqdm

from ms2.core.errors import UserError
from ms2.datasets.folder import TEMPORARY_FOLDER, DataSetFolder, FolderError
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.models.conditional.sampling import sample_prior_conditional
from ms2.models.opening import OpenedModel, open_model
from ms2.worlds.aerial2d.grammar import Aerial2D

pytestmark = EXPECTED

# --- killed ---

KILLS = 20
TINY = ["--world.renderer.canvas_size", "24", "--world.renderer.digit_size", "8"]


def forked(task: Callable[..., Any], *args: Any) -> int:
    """Run a task in a copy of this process; the number of the copy."""
    child = os.fork()
    if not child:
        try:
            task(*args)
            os._exit(0)
        finally:  # never back into what the parent does
            os._exit(1)
    return child


def ended(child: int) -> int:
    """How a copy ended: 0 if well, minus the signal if killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def written(root: Path) -> dict[str, bytes]:
    """The files of a data set, without temporary ones."""
    return {name: content for name, content in tree(root).items() if not name.startswith(TEMPORARY_FOLDER)}


def kill_at_random(folder: Path) -> dict[str, Any]:
    """Make a data set in peace, and others that are killed at any moment, once more as they go on, and end then.

    Returns:
        How many were made, and of each kill how many files there were, and whether all were as they should be.
    """
    tqdm.set_lock(threading.RLock())  # its own is shared with copies, one of which may be killed while holding it
    source = open_model("multimnist", arguments=TINY)

    def make(name: str) -> None:
        generate(Job(source, Plan(40, formats=FORMATS), folder / name), progress=False)

    make("warm")  # what is loaded on first use is loaded
    began = time.monotonic()
    assert ended(forked(make, "whole")) == 0
    duration, whole = time.monotonic() - began, tree(folder / "whole")
    chance, seen, made = random.Random(0), [], 0
    while len(seen) < KILLS and made < 3 * KILLS:
        name, left = f"killed{made}", duration
        for _ in range(2):
            child, delay = forked(make, name), chance.uniform(0, left)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            if ended(child) == -signal.SIGKILL:  # or else it was done
                found = {
                    file: content
                    for file, content in tree(folder / name).items()
                    if not file.startswith(TEMPORARY_FOLDER)
                }
                seen.append((len(found), found.items() <= whole.items()))
            left -= delay
        assert ended(forked(make, name)) == 0
        made += 1
    return {"made": made, "seen": seen}


def test_killed_at_random_moments_it_becomes_the_same_set(tmp_path: Path) -> None:
    process = start(kill_at_random, tmp_path, out=tmp_path / "found.pt")
    process.join(300)
    assert process.exitcode == 0
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert len(found["seen"]) >= KILLS
    assert all(right for _, right in found["seen"]), "what can be seen is never half a file"
    assert len({number for number, _ in found["seen"]}) >= KILLS / 3, "kills hit various moments"
    whole = tree(tmp_path / "whole")
    assert len(whole) == 40 * 5 + 7
    for i in range(found["made"]):
        assert changed_files(tree(tmp_path / f"killed{i}"), whole) == []
        assert not (tmp_path / f"killed{i}" / TEMPORARY_FOLDER).exists()


# --- at every single file ---


class Killed(BaseException):
    """Like a signal: nothing in the program catches it."""


FULL, FORBIDDEN = OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "Permission denied")
FAULTS: list[tuple[str, BaseException]] = [
    ("open", FULL),
    ("write", FULL),
    ("replace", FULL),
    ("write", Killed()),
    ("open", FORBIDDEN),
    ("replace", Killed()),
]


class Disk:
    """Counts files as they are written, and fails at one of them.

    Args:
        patch: Puts this in the place of what writes files.
        at: Number of the file.
        step: When: as the file is opened, half way through it, or before it gets its name.
        error: What is raised.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, step: str, error: BaseException) -> None:
        self.at, self.step, self.error = at, step, error
        self.files = 0
        self._open, self._replace = Path.open, os.replace
        patch.setattr(Path, "open", lambda *args, **more: self.open(*args, **more))  # noqa: PLW0108 - gets the path
        patch.setattr(os, "replace", self.replace)

    def fail(self, step: str) -> None:
        if self.files == self.at and step == self.step:
            raise self.error

    def open(self, path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if "w" in mode:
            self.files += 1
            self.fail("open")
        file = self._open(path, mode, *args, **more)
        return Half(file, self) if "w" in mode else file

    def replace(self, source: Path, to: Path) -> None:
        self.fail("replace")
        self._replace(source, to)


class Half:
    """A file that may end half way."""

    def __init__(self, file: IO[bytes], disk: Disk) -> None:
        self.file, self.disk = file, disk

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.disk.fail("write")
        self.file.write(content[len(content) // 2 :])

    def __enter__(self) -> "Half":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def job(root: Path, number: int = 6, source: OpenedModel | None = None, **settings: Any) -> Job:
    return Job(source or small("multimnist"), Plan(number, **({"formats": FORMATS} | settings)), root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Six images in all formats, made in peace."""
    root = tmp_path_factory.mktemp("whole") / "set"
    assert generate(job(root), progress=False)
    return tree(root)


def test_a_fault_at_any_file_is_survived(whole: dict[str, bytes], tmp_path: Path) -> None:
    """No room, no permission or an end at each file in turn; then the same command completes the set."""
    links = 6  # which are not written
    for at in range(1, len(whole) - links + 1):
        root = tmp_path / str(at)
        step, error = FAULTS[at % len(FAULTS)]
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, at, step, error)
            with pytest.raises(Killed if isinstance(error, Killed) else FolderError) as caught:
                generate(job(root), progress=False)
        assert disk.files == at
        if error is FULL:
            assert re.search(
                "can't write to .*: No space left on device. There is no space left. Free", str(caught.value)
            )
        if error is FORBIDDEN:
            assert re.search("Permission denied. You may not write there. Give another folder with", str(caught.value))
        left = written(root)
        assert left.items() <= whole.items(), "what can be seen is as it should be"
        unfinished = list((root / TEMPORARY_FOLDER).iterdir()) if (root / TEMPORARY_FOLDER).exists() else []
        assert len(unfinished) == isinstance(error, Killed)
        assert generate(job(root), progress=False)
        assert changed_files(tree(root), whole) == [], (at, step, error)
        shutil.rmtree(root)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, -1, "open", FULL)
        generate(job(tmp_path / "last"), progress=False)
        assert disk.files == len(whole) - links, "each file was tried"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in vain shows only as the file is closed."""
    opened = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        return opened(Path("/dev/full") if mode == "wb" else path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FolderError, match="There is no space left"):
        generate(job(tmp_path / "set"), progress=False)
    assert tree(tmp_path / "set") == {}


def test_without_hard_links_images_are_copied(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        assert generate(job(tmp_path / "set"), progress=False)
    assert changed_files(tree(tmp_path / "set"), whole) == []
    assert (tmp_path / "set" / "training" / "image_2" / "000000.png").stat().st_nlink == 1


def test_another_machine_may_clean_up_first(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that are last at once write the same files, and either removes what seems unfinished."""
    root = tmp_path / "set"
    assert generate(job(root), progress=False)
    replace_file, cleaned = os.replace, []

    def late(source: Path, to: Path) -> None:
        if to.name in ("instances.json", "README.md", "data.yaml"):
            DataSetFolder(root).clean()
            cleaned.append(to.name)
        replace_file(source, to)

    monkeypatch.setattr(os, "replace", late)
    assert generate(job(root), progress=False)
    assert cleaned == ["instances.json", "data.yaml", "README.md"]
    assert changed_files(tree(root), whole) == []


def test_two_machines_may_begin_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One describes the data set while the other looks whether that has been done."""
    first, second, began = job(tmp_path / "set"), job(tmp_path / "set"), []

    def interrupted(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*args: Any) -> Any:
            found = look(*args)
            if not began:
                began.append(True)
                first.claim_folder()
            return found

        return looked

    for name in ("names", "read_json"):
        monkeypatch.setattr(second.files, name, interrupted(getattr(second.files, name)))
    second.claim_folder()
    assert began and list(tree(tmp_path / "set")) == ["dataset.json"]


def test_no_two_machines_write_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers, each may be process number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    first, second = DataSetFolder(tmp_path), DataSetFolder(tmp_path)

    def slowly() -> Iterator[str]:
        yield "first "
        second.write("file.txt", "second")
        assert (tmp_path / "file.txt").read_text() == "second"
        yield "comes last"

    first.write("file.txt", slowly())
    assert (tmp_path / "file.txt").read_text() == "first comes last"


def test_a_worker_that_is_killed_is_not_the_end(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool:
        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None: ...

        def shutdown(self, **_: object) -> None: ...

        def submit(self, *_: object) -> "Future[int]":
            lost: Future[int] = Future()
            lost.set_exception(BrokenProcessPool())
            return lost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("ms2.datasets.generate"), "ProcessPoolExecutor", Pool)
        with pytest.raises(UserError, match=r"a worker was killed, .* goes on where it stopped, with fewer --workers"):
            generate(job(tmp_path / "set", 40), workers=2, progress=False)
    assert generate(job(tmp_path / "set", 40), progress=False)
    assert generate(job(tmp_path / "in peace", 40), progress=False)
    assert changed_files(tree(tmp_path / "set"), tree(tmp_path / "in peace")) == []


def test_a_renderer_that_contradicts_itself_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = small("multimnist").model.world.renderer
    draw = type(renderer).render_labelled

    def wrong(self: Any, scenes: Any) -> Any:
        rendering = draw(self, scenes)
        boxes = rendering.visible_boxes.clone()
        boxes[4] += 1
        return replace(rendering, visible_boxes=boxes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(renderer), "render_labelled", wrong)
        patch.setattr(Job, "dry_run", lambda self: None)
        with pytest.raises(
            UserError, match=r"scene 4 has inconsistent labels, and was not written. object \d+ of image 4"
        ):
            generate(job(tmp_path / "set"), progress=False)
    assert not (tmp_path / "set" / "scenes" / "000004.json").exists()


# --- no permission ---


def as_nobody(folder: Path) -> None:
    """Note what somebody is told who may do little here: in a locked folder, below it, and where one may only look."""
    source = open_model("multimnist", arguments=TINY)
    generate(Job(source, Plan(3), folder / "warm"), progress=False)  # loads what nobody may read
    with (folder / "said.txt").open("w") as said:
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        for name in ("locked", "locked/set", "read", "read/set"):
            try:
                generate(Job(source, Plan(3), folder / name), progress=False)
            except FolderError as error:
                print(name, error, file=said)


def test_no_permission_is_said_so() -> None:
    """By the system itself; tests that run as root become somebody else for it."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are locked to others
    try:
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0o700 if os.getuid() == 0 else 0)
        (folder / "read").mkdir(mode=0o555)
        process = start(as_nobody, folder)
        process.join(120)
        assert process.exitcode == 0
        said = (folder / "said.txt").read_text().splitlines()
        assert [line.split()[0] for line in said] == ["locked", "locked/set", "read", "read/set"]
        for line in said:
            name = line.split()[0]
            assert f"can't write to {folder / name}: Permission denied. You may not write there." in line
    finally:
        (folder / "locked").chmod(0o700)
        shutil.rmtree(folder)


# --- bad input, as it is typed ---


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Types a command that makes nothing, and gives what is said of it."""

    def type_in(*words: object, command: str = "generate") -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            ms2([command, *map(str, words)])
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err
        assert changed_files(tree(tmp_path), before) == []
        return said.err

    return type_in


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Priors are not asked a hundred thousand times."""
    monkeypatch.setattr(
        "ms2.models.scene_model.sample_prior_conditional", partial(sample_prior_conditional, max_tries=500)
    )


Refused = Callable[..., str]
DIGITS = ("multimnist", "--workers", "1", *SMALL["multimnist"])
ROADS = ("aerial2d", "--workers", "1", *SMALL["aerial2d"])
TYPED: dict[str, tuple[tuple[object, ...], str]] = {
    "a misspelt world": (
        ("multimnst",),
        "multimnst is neither a run's folder, nor a checkpoint, nor a configuration, nor a world. "
        "Did you mean 'multimnist'? Available: aerial",
    ),
    "a misspelt format": (
        (*DIGITS, "--format", "yol"),
        "there is no format 'yol'. Did you mean 'yolo'? Available: cityscapes, coco,",
    ),
    "an unknown format": (
        (*DIGITS, "--format", "coco", "voc"),
        "there is no format 'voc'. Available: cityscapes, coco, glb, kitti,",
    ),
    "an unknown class": ((*DIGITS, "--classes", "3", "11"), "this world has no class '11'. Did you mean '1'?"),
    "a condition on no class": ((*DIGITS, "--where", "car == 5"), "'car == 5' names 'car', which is no class"),
    "no condition": ((*DIGITS, "--where", "3 = 5"), "'3 = 5' is no condition. Write a class, an operator and a whole"),
    "a condition that a prior never meets": (
        (*DIGITS, "--where", "3 == 11"),
        "'3 == 11' is too rare for the prior UniformDigits: none of",
    ),
    "no scenes": ((*DIGITS, "--num_scenes", "0"), "num_scenes must be at least 1, not 0"),
    "fewer than no scenes": ((*DIGITS, "--num_scenes", "-3"), "num_scenes must be at least 1, not -3"),
    "scenes in words": (
        (*DIGITS, "--num_scenes", "ten"),
        "num_scenes must be a whole number, not ten",
    ),
    "more than all visible": (
        (*DIGITS, "--min_visibility", "20"),
        "min_visibility must be at most 1, not 20",
    ),
    "no share": ((*DIGITS, "--min_visibility", "nan"), "min_visibility must be a number, not nan"),
    "no pixels": (
        (*DIGITS, "--min_pixels", "0"),
        "min_pixels must be at least 1, not 0",
    ),
    "depth of a flat world": ((*ROADS, "--depth"), "images of AerialView have no depth: leave --depth out"),
    "KITTI with JPEG": ((*DIGITS, "--format", "kitti", "--image", "jpeg"), "the format kitti has PNG images"),
    "an unknown image": ((*DIGITS, "--image", "gif"), "argument --image: invalid choice: 'gif'"),
    "an unknown option": ((*DIGITS, "--sede", "3"), "unrecognized arguments: --sede 3"),
    "no source": ((), "the following arguments are required: source"),
    "an unknown setting": ((*DIGITS, "--world.renderer.canvass", "40"), "canvass"),
    "a setting that is no number": ((*DIGITS, "--world.renderer.canvas_size", "wide"), "canvas"),
    "an impossible setting": ((*DIGITS, "--world.renderer.digit_size", "400"), "400"),
    "an unknown renderer": (
        ("multimnist", "--world.renderer", "DigitCanvass"),
        "No plug-in among the renderers is called 'DigitCanvass'. Did you mean 'DigitCanvas'?",
    ),
    "an unknown device": ((*DIGITS, "--device", "gpu"), "there is no device 'gpu'"),
    "a device that is not there": ((*DIGITS, "--device", "cuda:99"), "there is no device 'cuda:99'"),
    "learned, from a world": (
        (*DIGITS, "--structure", "learned"),
        "multimnist has no trained structure model: take multimnist_learned, name the folder of a run, add --",
    ),
    "a missing checkpoint": ((*DIGITS, "--checkpoint", "none.ckpt"), "there is no checkpoint none.ckpt: run 'ms2 fit'"),
    "a checkpoint without a run": (
        ("some/where/last.ckpt",),
        "there is no config.yaml beside some/where/last.ckpt with the settings of its world: name that configuration, "
        "and the weights with --checkpoint some/where/last.ckpt",
    ),
}


@pytest.mark.usefixtures("few_tries")
@pytest.mark.parametrize(("words", "expected"), TYPED.values(), ids=TYPED)
def test_what_can_t_be_done_is_refused_in_words(
    refused: Refused, tmp_path: Path, words: tuple[object, ...], expected: str
) -> None:
    said = refused(*words, "--output", tmp_path / "set")
    assert expected in said and said.startswith(("ms2: ", "usage: ms2 generate"))
    assert len(said) < 2000


CONFIGURATIONS: dict[str, tuple[str | bytes, str]] = {
    "an empty one": ("", "describes no world: it has no section 'world'"),
    "no YAML": ("{ world: [", "can't be read as a configuration"),
    "bytes": (bytes(range(256)), "can't be read as a configuration"),
    "a list": ("- world\n- model\n", "is no configuration: it must hold settings by name"),
    "a word": ("world\n", "is no configuration: it must hold settings by name"),
    "no world": ("model: {lr: 1}\n", "describes no world"),
    "a world that is a word": ("world: multimnist\n", "world"),
    "a world of another kind": ("world: {grammar: Aerial2D}\n", "world"),
    "a model that is a word": ("world: {grammar: MultiMNIST}\nmodel: best\n", "world"),
    "an unknown prior": (
        "world: {grammar: MultiMNIST, structure_prior: UniformDigit, parameter_prior: UniformPlacement, "
        "renderer: DigitCanvas}\n",
        "No plug-in among the structure_priors is called 'UniformDigit'. Did you mean 'UniformDigits'?",
    ),
}


@pytest.mark.parametrize(("content", "expected"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_what_is_no_configuration_is_refused(
    refused: Refused, tmp_path: Path, content: str | bytes, expected: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert expected in refused(path, "--output", tmp_path / "set")


def test_a_folder_that_is_no_run_is_refused(refused: Refused, tmp_path: Path) -> None:
    said = refused(tmp_path, "--output", tmp_path / "set")
    assert f"{tmp_path} is not the folder of a run: it has no config.yaml. 'ms2 fit' makes such folders" in said


def test_checkpoints_that_do_not_fit_are_refused(refused: Refused, tmp_path: Path) -> None:
    """Of another grammar, of another shape, or none at all."""
    run = run_folder(tmp_path / "run")
    output = ("--output", tmp_path / "set", "--workers", "1")
    other = run_folder(tmp_path / "roads", Aerial2D()) / "checkpoints" / "last.ckpt"
    said = refused(run, "--checkpoint", other, *output)
    assert "the checkpoint was trained with another grammar. Its rules:" in said and "Cars -> car Cars" in said
    said = refused("aerial2d", *SMALL["aerial2d"], "--checkpoint", run / "checkpoints" / "last.ckpt", *output)
    assert "the checkpoint was trained with another grammar. Its rules:" in said and "Digits -> Digit Digits" in said
    said = refused(run, "--model.structure.init_args.network", "GRU", *output)
    assert "holds a StructureModel of another shape" in said
    assert "can't be read as a checkpoint of 'ms2 fit'" in refused(run, "--checkpoint", run / "config.yaml", *output)


def test_conditions_that_a_model_can_t_meet_are_refused(refused: Refused, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", max_length={"Digits": 4})
    output = ("--output", tmp_path / "set", "--workers", "1")
    said = refused(run, "--where", "3 == 5", *output)
    assert "'3 == 5' can't be met: 3 can be 0 to 4 here" in said
    said = refused(run, "--where", "3 == 3", "4 >= 2", *output)
    assert "'3 == 3' and '4 >= 2' can't be met together" in said


# --- a folder that is somebody else's ---


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three images."""
    assert generate(job(tmp_path / "set", 3, formats=("coco",)), progress=False)
    return tmp_path / "set"


OTHER: dict[str, tuple[tuple[str, ...], str]] = {
    "another seed": (("--seed", "1"), "seed: 0 there, 1 now"),
    "more images": (("--num_scenes", "4"), "num_scenes: 3 there, 4 now"),
    "another format": (("--format", "coco", "yolo"), 'formats: ["coco"] there, ["coco","yolo"] now'),
    "another kind of image": (("--image", "jpeg"), 'image: "png" there, "jpeg" now'),
    "a condition": (("--where", "3 == 0"), 'conditions: [] there, ["3 == 0"] now'),
    "another rule": (("--min_pixels", "9"), "min_pixels: 8 there, 9 now"),
    "other classes": (("--classes", "1"), 'classes: null there, ["1"] now'),
    "another size": (("--world.renderer.canvas_size", "48"), "size: [40,40] there, [48,48] now"),
    "another prior": (("--world.structure_prior.max_digits", "3"), "structure_prior: "),
}


@pytest.mark.parametrize(("words", "expected"), OTHER.values(), ids=OTHER)
def test_a_set_of_other_settings_is_left_alone(
    refused: Refused, made: Path, words: tuple[str, ...], expected: str
) -> None:
    """And what differs is listed."""
    said = refused(*DIGITS, "--num_scenes", "3", "--output", made, *words)
    assert f"{made} holds a data set of other settings:\n" in said
    assert expected.replace(" ", "") in said.replace(" ", "")
    assert "Nothing was changed. Give another folder with --output, or the settings that are there." in said
    differing = set(re.findall(r"^  (\w+): ", said, re.M))
    assert differing <= {expected.partition(":")[0], "categories", "world", "renderer"}


def test_a_model_s_own_settings_are_part_of_it(refused: Refused, tmp_path: Path) -> None:
    """The same weights sample otherwise with lists that end early."""
    run = run_folder(tmp_path / "run")
    words = (run, "--num_scenes", "3", "--output", tmp_path / "set", "--workers", "1")
    ms2(["generate", *map(str, words)])
    said = refused(*words, "--model.structure.init_args.max_length", '{"Digits": 1}')
    assert "holds a data set of other settings:\n  model: " in said


@pytest.mark.usefixtures("few_tries")
def test_a_set_that_was_refused_leaves_its_folder_free(refused: Refused, tmp_path: Path) -> None:
    """What can't be done is known before the folder is taken."""
    words = (*ROADS, "--num_scenes", "3", "--output", tmp_path / "set")
    assert "have no depth" in refused(*words, "--depth")
    assert "too rare" in refused(*words, "--where", "Road == 10")
    ms2(["generate", *map(str, words)])
    assert (tmp_path / "set" / "README.md").exists()


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "a file": lambda folder: (folder / "thesis.tex").write_text("a year's work"),
    "a folder": lambda folder: (folder / "images").mkdir(),
    "another program's dataset.json": lambda folder: (folder / "dataset.json").write_text('{"name": "theirs"}'),
    "a list for a dataset.json": lambda folder: (folder / "dataset.json").write_text("[1, 2]"),
    "a broken dataset.json": lambda folder: (folder / "dataset.json").write_text('{"seed": 0,'),
}


@pytest.mark.parametrize("fill", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_with_other_files_is_left_alone(refused: Refused, tmp_path: Path, fill: Callable[[Path], Any]) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    fill(folder)
    said = refused(*DIGITS, "--num_scenes", "3", "--output", folder)
    assert f"{folder} holds other files already: give a new folder" in said or "holds a data set of other" in said


def test_an_output_that_is_a_file_is_left_alone(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "set").write_text("a year's work")
    for output in (tmp_path / "set", tmp_path / "set" / "below"):
        assert f"can't write to {output}: Not a directory" in refused(*DIGITS, "--num_scenes", "3", "--output", output)


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "set" / TEMPORARY_FOLDER).mkdir(parents=True)  # as a run leaves it that was killed at once
    assert generate(job(tmp_path / "set", 3), progress=False)


# --- an image again ---


def test_what_is_no_record_is_refused(refused: Refused, made: Path) -> None:
    for name in ("README.md", "images/000000.png", "images", "dataset.json"):
        assert f"{made / name} is no record of an image" in refused("--provenance", made / name, command="render")
    assert f"there is no file {made / 'nothing.json'}" in refused(
        "--provenance", made / "nothing.json", command="render"
    )


def test_a_record_outside_of_a_set_is_refused(refused: Refused, made: Path, tmp_path: Path) -> None:
    path = shutil.copy(made / "scenes" / "000000.json", tmp_path)
    said = refused("--provenance", path, command="render")
    assert f"{path} lies outside of a data set: {tmp_path.parent / 'dataset.json'}, which describes its world" in said


def test_no_other_file_is_overwritten(refused: Refused, made: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.png"
    output.write_text("a year's work")
    said = refused("--provenance", made / "scenes" / "000000.json", "--output", output, command="render")
    assert f"{output} is there already, and is another image: give another file with --output" in said


@pytest.mark.parametrize("output", [".", "none/such/again.png"])
def test_an_image_that_can_t_be_written_is_said_so(
    refused: Refused, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused("--provenance", made / "scenes" / "000000.json", "--output", output, command="render")
    assert f"can't write {output}: " in said and "give another file with --output" in said
