"""Paths of settings and options: ``~`` and variables are filled in everywhere, and an unset variable is an error."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import ms2
from ms2.cli import compare, generate, plugins
from ms2.cli.commands import COMMANDS, main
from ms2.cli.run_folder import RunFolder
from ms2.core.configurations import find
from ms2.core.errors import UserError
from ms2.core.parsing import CommandParser
from ms2.core.paths import expand_path, path_mark
from ms2.core.registry import KINDS, available
from ms2.core.settings import Configured
from ms2.datasets.formats.coco import CocoSet
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.native import GeneratedSet
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.detector import Detector, load_detector
from ms2.features.backbone import Backbone, InceptionPool3
from ms2.features.detection.onnx_detector import OnnxDetector
from ms2.features.detection.torchvision_detector import TorchvisionDetector
from ms2.features.pretrained import PretrainedCounts
from ms2.models.opening import open_model
from ms2.targets.folder import Folder
from ms2.targets.kitti import Kitti
from ms2.targets.shards import Shards
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.multimnist.renderer import DigitCanvas

plugins.load()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # where Warp keeps its kernels
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("QUOTED", "~/$DEEPER")
    monkeypatch.setenv("DEEPER", "${HERE}/deep")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LOOP", "$LOOP/x")
    monkeypatch.delenv("MS2_UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "{here}/home"),
        ("~/a", "{here}/home/a"),
        ("$HERE/a", "{here}/a"),
        ("${HERE}/a", "{here}/a"),
        ("${HERE}a/$HERE", "{here}a/{here}"),
        ("$DEEPER", "{here}/deep"),
        ("$QUOTED", "{here}/home/{here}/deep"),
        ("a/~/b", "a/~/b"),
        ("./~a", "{here}/~a"),
        ("cost$", "cost$"),
        ("a $ b", "a $ b"),
        ("$5", "$5"),
        ("ä/ö", "ä/ö"),
        ("~root/x", "{root}/x"),
    ],
)
def test_a_path_is_filled_in(given: str, expected: str, home: Path) -> None:
    wanted = Path(expected.format(here=home.parent, root=Path("~root").expanduser()))
    assert expand_path(given) == expand_path(expand_path(given)) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("$MS2_UNSET/a", "$MS2_UNSET/a needs the environment variable MS2_UNSET, which is not set. Try: export MS2"),
        ("a/${MS2_UNSET}", "environment variable MS2_UNSET"),
        ("$MS2_UNSET$HERE", "environment variable MS2_UNSET"),
        ("${}/a", "${} names no environment variable; write ${NAME}"),
        ("${HERE:-x}", "${HERE:-x} names no environment variable"),
        ("$LOOP", "name each other without end"),
        ("~nobody_at_all/x", "there is no user 'nobody_at_all'. If a name begins with '~', write ./~nobody_at_all/x"),
        ("", "the path '' is empty"),
        (" ", "the path ' ' is empty"),
        ("$EMPTY", "the path '$EMPTY' is empty"),
        ("a\0b", "null byte"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_in_is_named(given: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        expand_path(given)


# --- settings ---

WORLD = ms2.load("multimnist").world
OTHERS: dict[type, dict[str, Any]] = {
    AerialView: {},
    Backbone: {"architecture": "squeezenet1_1", "layer": "features.2"},
    CocoSet: {"images": "x", "annotations": "x"},
    Detector: {"categories": ["a"]},
    DigitCanvas: {"source": "mnist"},
    Folder: {"world": WORLD},
    GeneratedSet: {},
    InceptionPool3: {},
    Kitti: {"world": WORLD},
    KittiSet: {},
    OnnxDetector: {},
    PretrainedCounts: {"channels": 3, "classes": ["a"]},
    Shards: {"world": WORLD},
    StreetLayout: {},
    StreetView: {},
    TorchvisionDetector: {},
}
"""Classes with settings that are paths, with their other arguments."""


def configured(base: type = Configured) -> Iterator[type]:
    """All classes of ms2 with settings, and others that people use."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("ms2."):
            yield cls
        yield from configured(cls)


def hints(cls: Any) -> dict[str, Any]:
    """Types of a class's arguments; those that are imported for type checkers alone are left out."""
    function = cls.__init__ if inspect.isclass(cls) else cls
    try:
        found = get_type_hints(function, include_extras=True)
    except NameError:
        found = {key: hint for key, hint in function.__annotations__.items() if not isinstance(hint, str)}
    return {key: hint for key, hint in found.items() if key != "return"}


ALL = sorted({*configured(), *OTHERS}, key=lambda cls: cls.__qualname__)
PATHS = [(cls, name) for cls in ALL for name, hint in hints(cls).items() if path_mark(hint)]


def test_every_class_with_a_path_is_tried() -> None:
    assert {cls for cls, _ in PATHS} >= set(OTHERS)
    assert {cls for cls, _ in PATHS if cls not in OTHERS} == set()
    assert {cls for kind in KINDS for cls in available(kind).values()} >= {Backbone, Shards, StreetLayout}


LIKE_A_PATH = re.compile(r"(^|_)(root|folder|file|path|dir|assets|weights|calibration|output|annotations|urls?|from)$")


def is_text(hint: Any) -> bool:
    return hint in (str, Path) or any(is_text(part) for part in get_args(hint) if part in (str, Path, list[str]))


def test_what_is_called_like_a_path_is_one() -> None:
    unmarked = [
        f"{cls.__qualname__}.{name}"
        for cls in [*ALL, DetectorBudget, ms2.fit, ms2.generate, ms2.load, load_detector]
        for name, hint in hints(cls).items()
        if LIKE_A_PATH.search(name) and is_text(hint) and not path_mark(hint)
    ]
    internal = {"ImageWriter.folder", "WriteResults.folder"}  # of callbacks, which the program makes
    assert set(unmarked) <= internal


@pytest.mark.parametrize(("cls", "name"), PATHS, ids=lambda value: getattr(value, "__name__", value))
def test_a_setting_is_filled_in(cls: Any, name: str, home: Path) -> None:
    def error(path: Any) -> str:
        try:
            cls(**OTHERS[cls] | {name: path})
        except UserError as found:
            return str(found)
        return ""

    assert "MS2_UNSET" in error(Path("${MS2_UNSET}/nothing"))
    messages = [error(path) for path in ("~/nothing", home / "nothing")]
    assert messages[0] == messages[1]
    assert not any("~" in message or "$" in message for message in messages)
    assert not messages[0] or str(home / "nothing") in messages[0] or name == "images"  # of COCO, which come later
    assert not any(sign in path.name for path in home.parent.rglob("*") for sign in "~$")


def test_several_urls_are_filled_in() -> None:
    with pytest.raises(UserError, match="MS2_UNSET"):
        Shards(WORLD, ["$HERE/a.tar", "$MS2_UNSET/b-{0..3}.tar"])


# --- options and functions ---


def own_parsers() -> dict[str, CommandParser]:
    found = {name: COMMANDS[name].parser() for name in ("generate", "compare")}
    generate.options(found["generate"])
    compare.options(found["compare"])
    return found


@pytest.mark.parametrize(
    "words",
    [
        "generate multimnist --num_scenes 1 --output {}",
        "generate multimnist --num_scenes 1 --output={}",
        "generate {}",
        "generate multimnist --checkpoint {}",
        "generate multimnist --checkpoint={}",
        "generate multimnist --world.renderer.mnist_root {} --world.renderer.source mnist",
        "generate multimnist --world.renderer.mnist_root={} --world.renderer.source=mnist",
        "render --provenance {}",
        "render --provenance=x --output {}",
        "compare {}",
        "compare x --backbone_weights {}",
        "report {}",
        "report . --output={}",
        "configs {}",
        "lint {}",
    ],
)
def test_an_option_is_filled_in_however_it_is_spelt(words: str, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main([word.format("$MS2_UNSET/x") for word in words.split()])
    assert end.value.code == 2 and "environment variable MS2_UNSET, which is not set" in capsys.readouterr().err
    assert list(home.parent.iterdir()) == []


@pytest.mark.parametrize("spelling", ["--output {}", "--output={}"])
@pytest.mark.parametrize("path", ["~/x", "$HERE/home/x", "${HERE}/home/x"])
def test_an_option_is_the_path_that_was_meant(spelling: str, path: str, home: Path) -> None:
    parsed = own_parsers()["generate"].parse_args(["multimnist", *spelling.format(path).split()])
    assert parsed.output == home / "x"


def test_weights_may_be_a_word() -> None:
    parser = own_parsers()["compare"]
    assert parser.parse_args(["~/a", "b", "--backbone_weights", "imagenet"]).backbone_weights == "imagenet"
    assert parser.parse_args(["~/a", "b"]).backbone_weights is None
    assert parser.parse_args(["~/a", "b"]).runs == [expand_path("~/a"), Path("b")]


def test_options_that_are_paths_are_declared() -> None:
    for parser in own_parsers().values():
        for action in parser._actions:
            hint = getattr(action, "_typehint", None)
            if hint is not None and LIKE_A_PATH.search(action.dest):
                assert path_mark(hint), action.dest


@pytest.mark.parametrize("path", ["$MS2_UNSET/x", "${MS2_UNSET}"])
def test_functions_fill_in_paths_too(path: str) -> None:
    calls: list[Any] = [ms2.load, open_model, find, load_detector, lambda p: RunFolder(p, "run")]
    calls.append(lambda p: ms2.generate("multimnist", p, 1))
    calls.append(lambda p: ms2.fit(ms2.load("multimnist").world, p))
    for call in calls:
        with pytest.raises(UserError, match="MS2_UNSET"):
            call(path)


def test_a_run_is_found_in_the_home_folder(home: Path) -> None:
    assert RunFolder("~/runs", "first").path == RunFolder("$HERE/home/runs", "first").path == home / "runs" / "first"
    (home / "a").mkdir(parents=True)
    (home / "a" / "mine.yaml").write_text("name: x\n", encoding="utf-8")
    assert find("~/a/mine.yaml") == find("$HERE/home/a/mine.yaml") == home / "a" / "mine.yaml"
