"""`ms2 check`: one line a contract, the exit code, and the picture of labelled samples."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import ms2
from PIL import Image

from ms2.contracts import CONTRACTS
from ms2.evaluation.examples import Example
from ms2.evaluation.label_sheet import GAP, label_sheet
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.worlds.multimnist.renderer import DigitCanvas

TINY = ("--world.renderer.canvas_size", "24", "--world.renderer.digit_size=8")


def test_a_sound_world_passes_and_leaves_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "samples.png"
    ms2(["check", "multimnist", *TINY, "--output", str(picture)])
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["passed", name] for name in CONTRACTS]
    assert last == f"all contracts are kept; 16 labelled samples: {picture}"
    with Image.open(picture) as image:
        side = 15 * 24  # enlarged to at least 360 pixels
        assert image.size == (4 * (side + GAP) + GAP,) * 2
        assert len({pixel for _, pixel in image.getcolors(10**6) or ()} - {(v, v, v) for v in range(256)}) > 5


class WrongBoxes(DigitCanvas, selectable=False):
    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        rendering = super().render_labelled(scenes)
        return replace(rendering, boxes=rendering.boxes[..., [1, 0, 3, 2]])


class NoImage(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        raise RuntimeError("no image")

    render_labelled = render


@pytest.fixture
def broken() -> Iterator[ModuleType]:
    """An importable module with broken renderers."""
    module = ModuleType("broken_canvases")
    module.WrongBoxes, module.NoImage = WrongBoxes, NoImage  # type: ignore[attr-defined]
    sys.modules["broken_canvases"] = module
    yield module
    del sys.modules["broken_canvases"]


def configuration(folder: Path, renderer: str, **more: object) -> Path:
    path = folder / "mine.yaml"
    size = {"canvas_size": 24, "digit_size": 8}
    world = {"renderer": {"class_path": f"broken_canvases.{renderer}", "init_args": size}}
    path.write_text(yaml.safe_dump({"base": "worlds/multimnist", "world": world, **more}))
    return path


def test_a_broken_world_fails_and_is_drawn_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        ms2(["check", str(configuration(tmp_path, "WrongBoxes")), "--num_scenes", "3", "--seed", "5"])
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ["failed", "boxes"])
    assert lines[at + 1].strip().startswith("WrongBoxes.render_labelled: expected boxes that hold the visible pixels")
    assert lines[-1] == "1 contract is broken; 3 labelled samples: mine_check.png"
    assert (tmp_path / "mine_check.png").stat().st_size > 0


def test_a_world_that_cannot_be_drawn_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: ModuleType
) -> None:
    with pytest.raises(SystemExit):
        ms2(["check", str(configuration(tmp_path, "NoImage")), "--output", str(tmp_path / "a.png")])
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last.endswith("no samples are drawn: RuntimeError: no image") and "contracts are broken or not checked" in last
    )
    assert not (tmp_path / "a.png").exists()


def test_an_extractor_that_counts_too_little_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: ModuleType
) -> None:
    """By the configuration's extractor and the prior of its training images."""
    features = {"class_path": "DenseCounts", "init_args": {"max_count": 11}}
    wide = {"class_path": "UniformDigits", "init_args": {"max_digits": 12}}
    path = configuration(tmp_path, "WrongBoxes", model={"features": features}, extractor={"structure_prior": wide})
    with pytest.raises(SystemExit):
        ms2(["check", str(path), "--output", str(tmp_path / "a.png")])
    said = capsys.readouterr().out
    assert "DenseCounts.max_count: expected room for the objects of every scene; found an image of the prior ho" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["multimnst"], "Did you mean 'multimnist'"),
        (["multimnist", "--output", "samples.docx"], "give another file with --output, such as samples.png"),
        (["multimnist", "--output", "."], ". is a folder: give another file with --output, such as samples.png"),
    ],
)
def test_bad_input_is_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        ms2(["check", *words, *(TINY if len(words) > 1 else ())])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_sheet_shows_boxes_and_names_in_the_colour_of_the_class() -> None:
    labels = [{"category": "car", "bbox": [10, 40, 30, 20], "visibility": 1}]
    sheet = label_sheet([Example(torch.zeros(3, 90, 180), labels), Example(torch.full((3, 90, 180), torch.nan), None)])
    assert sheet.shape == (180 + 2 * GAP, 2 * 360 + 3 * GAP, 3)
    red = np.array([0xE6, 0x19, 0x4B])
    box = sheet[GAP + 80 : GAP + 120, GAP + 20 : GAP + 80]
    assert (box[[0, -1]] == red).all() and (box[:, [0, -1]] == red).all() and not box[3:-3, 3:-3].any()
    assert (sheet[GAP + 60 : GAP + 78, GAP + 20 : GAP + 40] == red).all(2).mean() > 0.4, "the name stands above"
    assert not sheet[GAP:-GAP, 2 * GAP + 360 : -GAP].any()
