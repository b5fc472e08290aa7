"""Rendering by another program: the example against the same shapes drawn by ms2, failures, and what is reported."""

import gc
import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import ms2
from ms2.contracts import check_world
from ms2.core.errors import UserError
from ms2.core.settings import source_fingerprint
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import render_record
from ms2.models.networks.recurrent import LSTM
from ms2.models.opening import OpenedModel, open_model
from ms2.models.structure import StructureModel
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer
from ms2.render.external import ExternalRenderer, ExternalRendererError
from ms2.render.external.program import Program, ProgramError
from ms2.scene.batch import SceneBatch
from ms2.world import World

ROOT = Path(__file__).parents[2]
DRAW = ROOT / "examples" / "external" / "draw_shapes.py"
SHADES = (127 / 255, 230 / 255, 25 / 255)
POSITION: dict[str, tuple[float, float]] = {"x": (0, 1), "y": (0, 1)}
PROGRAM = """
import base64, json, os, subprocess, sys, time
mode, marker = sys.argv[1:]
again = os.path.exists(marker)
open(marker, "a").close()
if mode == "sleeps before it reads":
    time.sleep(60)
for line in sys.stdin:
    request = json.loads(line)
    width, height, number = request["width"], request["height"], len(request["scene"]["objects"])
    if mode == "dies once" and not again:
        sys.exit(3)
    if mode == "dies":
        sys.exit("out of memory")
    if mode == "sleeps":
        child = subprocess.Popen(["sleep", "60"])
        with open(marker, "w") as file:
            file.write(str(child.pid))
        time.sleep(60)
    if mode == "reports":
        print(json.dumps({"error": "no such mesh"}), flush=True)
        continue
    wide = width + 1 if mode == "wide" else width
    image = b"P5 %d %d 255\\n" % (wide, height) + bytes([10 * number]) * (wide * height)
    shown = number + 1 if mode == "other objects" else min(number, 1)
    instances = b"P5 %d %d 65535\\n" % (width, height) + shown.to_bytes(2, "big") * (width * height)
    print("Fra:1 Mem:8.00M", "[1, 2]", sep="\\n")
    answer = {"image": base64.b64encode(image).decode(), "instances": base64.b64encode(instances).decode()}
    if mode == "says boxes":
        answer["objects"] = [{"box": [-3, 1, 9, 4], "pixels": 48}] * number
    if mode == "odd boxes":
        answer["objects"] = [{"box": [0, 1, 2]}] * number
    print(json.dumps(answer), flush=True)
"""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def acme() -> Iterator[ModuleType]:
    """The module of examples/shapes, with the shades of the external program; forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "shapes" / "src"))
        patch.setattr(sys, "dont_write_bytecode", True)
        module = importlib.import_module("acme_shapes")
        patch.setattr(module, "SHADES", SHADES)
        yield module
    del sys.modules["acme_shapes"]
    gc.collect()


def example(canvas: int = 24, processes: int = 1) -> ExternalRenderer:
    command = [sys.executable, "-S", str(DRAW), "9"]
    return ExternalRenderer(
        command, ["square", "disc"], POSITION, size=(canvas, canvas), channels=1, processes=processes
    )


def world_of(acme: ModuleType, renderer: Renderer) -> World:
    return World(acme.Shapes(), ListLengthPrior({"Shapes": [1, 1, 1, 1, 1]}), acme.Scatter(), renderer)


def fake(folder: Path, mode: str = "", **settings: object) -> ExternalRenderer:
    """A program that fills images with ten times the number of objects, and behaves in one way or another."""
    script = folder / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-S", str(script), mode, str(folder / "marker")]
    given = {"size": (4, 6), "channels": 1, "timeout": 30.0} | settings
    return ExternalRenderer(command, ["a", "b"], **given)  # type: ignore[arg-type]


SCENES = SceneBatch(torch.tensor([[0, -1, 1], [-1, -1, -1], [1, -1, -1]]), torch.full((3, 3), -1))
"""Two objects with an unused entry between them, none, and one."""

# --- the example ---


def test_the_example_draws_what_ms2_draws(acme: ModuleType) -> None:
    """The same image, instances, boxes and visible fractions, whose borders no shape of these scenes lies on."""
    ours, theirs = acme.ShapeCanvas(canvas=24, side=9), example()
    scenes = world_of(acme, ours).sample_prior(12, rng())
    expected, found = ours.render_labelled(scenes), theirs.render_labelled(scenes)
    for name in ("image", "classes", "parents", "instances", "boxes", "visible_boxes", "visibility"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert expected.visibility[scenes.mask].min() < 1
    assert torch.equal(theirs.render(scenes), expected.image)
    theirs.close()


def test_the_example_keeps_every_contract(acme: ModuleType) -> None:
    world = world_of(acme, example())
    assert [outcome for outcome in check_world(world) if not outcome.passed] == []
    assert world.renderer.render(world.sample_prior(3, rng())[:0]).shape == (0, 1, 24, 24)


def test_the_example_s_configuration_generates_a_set_that_can_be_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    source = open_model("examples/external/shapes.yaml", arguments=["--world.renderer.size=[20, 20]"])
    assert isinstance(source, OpenedModel)
    assert generate(Job(source, Plan(num_scenes=3), tmp_path), progress=False)
    assert render_record(tmp_path / "scenes" / "000002.json")[2]


@pytest.mark.filterwarnings("ignore:.*")  # of a tiny run
def test_structure_is_learned_through_it_as_through_the_same_renderer(acme: ModuleType, tmp_path: Path) -> None:
    """Score-function gradients need images alone, so the learned weights are equal."""
    learned = []
    for name, renderer in (("ours", acme.ShapeCanvas(canvas=24, side=9)), ("theirs", example())):
        world = world_of(acme, renderer)
        target = ms2.Synthetic(world, ListLengthPrior({"Shapes": [0, 1, 0, 2]}), num_images=16)
        torch.manual_seed(0)
        features = ms2.DenseCounts(1, world.classes, widths=(4, 4, 4), max_count=4)
        result = ms2.fit(
            world,
            target,
            features=features,
            structure=StructureModel(world.grammar, 12, network=LSTM(8)),
            evaluation=ms2.Evaluation(num_scenes=20),
            max_steps=2,
            batch_size=8,
            folder=tmp_path / name / "run",
            stages={
                "extractor": {"max_steps": 2, "batch_size": 4, "num_probe_images": 8},
                "pretraining": {"max_steps": 2, "batch_size": 4, "num_validation": 8, "val_check_interval": 2},
            },
            trainer={"accelerator": "cpu", "enable_progress_bar": False},
        )
        assert result.model.structure is not None
        learned.append(result.model.structure.state_dict())
    ours, theirs = learned
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_several_programs_give_the_same_images_in_order(acme: ModuleType) -> None:
    scenes = world_of(acme, example()).sample_prior(9, rng(3))
    one, three = example(), example(processes=3)
    assert torch.equal(three.render(scenes), one.render(scenes))
    assert torch.equal(pickle.loads(pickle.dumps(three)).render(scenes), one.render(scenes))  # running ones stay here


# --- the protocol ---


def test_contents_may_be_in_the_answer_and_labels_are_completed(tmp_path: Path) -> None:
    labels = fake(tmp_path).render_labelled(SCENES)
    assert (labels.image[:, 0] * 255).round().unique().tolist() == [0, 10, 20]
    assert (labels.image[0] * 255).round().unique().tolist() == [20]
    assert [labels.instances[i].unique().tolist() for i in range(3)] == [[0], [-1], [0]]
    whole, none = [0, 0, 6, 4], [0, 0, 0, 0]
    assert labels.visible_boxes.tolist() == [[whole, none, none], [none] * 3, [whole, none, none]]
    assert torch.equal(labels.boxes, labels.visible_boxes)
    assert labels.visibility.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert labels.corners[0, 0].tolist() == [[0, 0], [6, 0], [6, 4], [0, 4]]


def test_what_the_program_says_of_objects_goes_first(tmp_path: Path) -> None:
    labels = fake(tmp_path, "says boxes").render_labelled(SCENES)
    assert labels.boxes[0].tolist() == [
        [0, 1, 6, 4],
        [0] * 4,
        [0, 1, 6, 4],
    ]  # clipped
    assert labels.visibility[0].tolist() == [0.5, 0, 0]  # 24 of 48 pixels
    assert labels.corners[0, 2].tolist() == [[-3, 1], [9, 1], [9, 4], [-3, 4]]


def test_the_request_is_the_scene_s_record(tmp_path: Path) -> None:
    script = tmp_path / "keep.py"
    script.write_text("import sys\nprint(sys.stdin.readline(), file=open(sys.argv[1], 'w'))\n")
    renderer = ExternalRenderer(
        [sys.executable, "-S", str(script), str(tmp_path / "request")], ["car"], {"x": (0, 1)}, {"sun": (0, 1)}, (4, 6)
    )
    renderer.retries = 0
    scenes = SceneBatch(torch.tensor([[0]]), torch.tensor([[-1]]), {"x": torch.tensor([[0.1]])})
    with pytest.raises(ExternalRendererError, match="exit code 0"):
        renderer.render(scenes.with_environment(sun=torch.tensor([0.25])))
    request = json.loads((tmp_path / "request").read_text())
    assert request["scene"] == {
        "environment": {"sun": 0.25},
        "objects": [{"class": "car", "parent": -1, "attributes": {"x": 0.1}}],
    }
    assert {key: request[key] for key in ("width", "height", "channels", "labels")} == {
        "width": 6, "height": 4, "channels": 3, "labels": False,
    }  # fmt: skip


# --- failures ---


def test_a_program_that_ends_is_started_again(tmp_path: Path) -> None:
    renderer = fake(tmp_path, "dies once")
    assert (renderer.render(SCENES)[0] * 255).round().unique().tolist() == [20]
    with pytest.raises(ExternalRendererError, match="failed: it ended with exit code 3"):
        (tmp_path / "marker").unlink()
        fake(tmp_path, "dies once", retries=0).render(SCENES)


def test_a_program_that_always_fails_is_reported_with_its_words_and_a_scene_to_try(tmp_path: Path) -> None:
    with pytest.raises(ExternalRendererError, match="after 2 tries: it ended with exit code 1: out of memory") as error:
        fake(tmp_path, "dies", retries=1).render(SCENES)
    command = str(error.value).partition("Try it by hand: ")[2]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "out of memory")


def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ExternalRendererError, match=re.escape("it did not answer within 0.5 s")):
        fake(tmp_path, "sleeps", timeout=0.5, retries=0).render(SCENES)
    assert time.monotonic() - start < 20
    child = int((tmp_path / "marker").read_text())
    until = time.monotonic() + 10
    while _is_running(child):
        assert time.monotonic() < until
        time.sleep(0.01)


def _is_running(process: int) -> bool:
    """Whether a process exists, and is no zombie that nobody has waited for."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_request_that_is_never_read_times_out(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "import time; time.sleep(60)"], 0.3)
    with pytest.raises(ProgramError, match="did not answer"):
        program.ask({"text": "x" * 1_000_000})  # more than a pipe holds
    program.stop()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("reports", "it reported: no such mesh"),
        ("wide", "its image of 7 x 4 pixels should have 6 x 4"),
        ("other objects", "go from 3 to 3, but the scene has 2 objects: 0 is the background, 1 the first object"),
        ("odd boxes", "box of an object has to be 4 numbers, not [0, 1, 2]"),
    ],
)
def test_a_wrong_answer_is_explained(tmp_path: Path, mode: str, message: str) -> None:
    with pytest.raises(ExternalRendererError, match=re.escape(message)):
        fake(tmp_path, mode).render_labelled(SCENES)


def test_a_program_that_is_not_there_and_files_that_it_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(ExternalRendererError, match=r"it can't be started: .*No such file.*blendr"):
        ExternalRenderer(["blendr", "--background"], ["a", "b"]).render(SCENES)
    lazy = ["sh", "-c", "while read line; do echo '{}'; done"]
    with pytest.raises(ExternalRendererError, match=r"its image can't be read: .*image\.png"):
        ExternalRenderer(lazy, ["a", "b"]).render(SCENES)


def test_settings_are_checked(acme: ModuleType) -> None:
    with pytest.raises(UserError, match="a list of the program and its arguments, not 'awk'"):
        ExternalRenderer("awk", ["a"])
    with pytest.raises(UserError, match="the bounds of x have to be a lower and a higher number, not 1 and 0"):
        ExternalRenderer(["awk"], ["a"], {"x": (1, 0)})
    with pytest.raises(UserError, match="classes are disc, square, but the world's are square, disc: name these"):
        world_of(acme, ExternalRenderer(["awk"], ["disc", "square"], POSITION))


def test_the_fingerprint_holds_the_files_that_the_command_names(tmp_path: Path) -> None:
    renderer = fake(tmp_path)
    before = source_fingerprint(renderer)
    assert source_fingerprint(fake(tmp_path)) == before
    (tmp_path / "program.py").write_text(PROGRAM + "# edited", encoding="utf-8")
    assert source_fingerprint(renderer) != before
