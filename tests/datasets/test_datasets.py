"""Data sets depend on their settings alone: not on processes, machines, what is there already, or who draws again."""

import json
import os
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import yaml
from helpers import EXPECTED, fit, ms2
from hypothesis import given
from hypothesis import strategies as st

from ms2.core.errors import UserError
from ms2.datasets.formats.base import Format
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import check_renderable, render_record
from ms2.grammar.grammar import Grammar
from ms2.models.checkpoints import grammar_metadata
from ms2.models.networks.recurrent import LSTM
from ms2.models.opening import OpenedModel, open_model
from ms2.models.structure import StructureModel
from ms2.scene.batch import SceneBatch
from ms2.scene.records import RecordError, SceneRecord, from_record, to_record
from ms2.worlds.multimnist.grammar import MultiMNIST

pytestmark = EXPECTED
SMALL = {
    "multimnist": ["--world.renderer.canvas_size", "40", "--world.renderer.digit_size", "12"],
    "aerial2d": ["--world.renderer.canvas_size", "64"],
    "driving3d": ["--world.renderer.size", "[64, 208]", "--world.renderer.engine.shadow_size", "256"],
}
"""Settings with which each world is quickly drawn."""
FORMATS = ("coco", "kitti", "yolo")


@cache
def small(name: str) -> OpenedModel:
    """One of the worlds that come along, with small images."""
    return open_model(name, arguments=SMALL[name])


def tree(root: Path) -> dict[str, bytes]:
    """All files of a folder by their path in it."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def changed_files(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Paths of files that are missing, too many, or others."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def run_folder(folder: Path, grammar: Grammar | None = None, seed: int = 0, **settings: Any) -> Path:
    """What `ms2 fit` leaves of a run on small MultiMNIST, with weights of chance."""
    grammar, settings = grammar or MultiMNIST(), {"t_max": 40} | settings
    torch.manual_seed(seed)
    model = StructureModel(grammar, network=LSTM(8), **settings)
    with torch.no_grad():
        model.head.weight.mul_(6)  # so that it differs from the prior
    world = small("multimnist").settings["world"]
    network = {"network": {"class_path": "LSTM", "init_args": {"hidden": 8}}}
    structure = {"class_path": "ms2.models.structure.StructureModel", "init_args": settings | network}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"world": world, "model": {"structure": structure}}))
    weights = {f"structure.{name}": value for name, value in model.state_dict().items()}
    other = {"features.weight": torch.zeros(2)}
    torch.save(
        {"state_dict": weights | other, "grammar": grammar_metadata(grammar)}, folder / "checkpoints" / "last.ckpt"
    )
    return folder


def records(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((root / "scenes").iterdir())]


def counts(record: dict[str, Any]) -> Counter[str]:
    """Objects of each class."""
    return Counter(thing["class"] for thing in record["scene"]["objects"])


# --- the same set, however it is made ---

NUMBER = 70
"""Images: two whole blocks, and a part of one."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made at one go, by one process."""
    root = tmp_path_factory.mktemp("whole") / "set"
    assert generate(job(root), progress=False)
    return root


def job(root: Path, number: int = NUMBER, **settings: Any) -> Job:
    return Job(small("multimnist"), Plan(number, **({"formats": FORMATS} | settings)), root)


def test_several_processes_make_the_same_set(whole: Path, tmp_path: Path) -> None:
    """With a format that is known in this process alone."""

    class Tally(Format):
        """Objects of each image."""

        def write(self, folder: Any, plan: Plan, categories: tuple[str, ...], records: Any) -> None:
            folder.write("tally.txt", (f"{len(record.labels)}\n" for record in records()))

        def usage(self) -> str:
            return "One number on a line, `tally.txt`."

    formats = (*FORMATS, "tally")
    for workers in (1, 2):
        assert generate(job(tmp_path / str(workers), formats=formats), workers=workers, progress=False)
    one, two = tree(tmp_path / "1"), tree(tmp_path / "2")
    assert changed_files(one, two) == []
    assert changed_files(one, tree(whole)) == ["README.md", "dataset.json", "tally.txt"]
    labels = [len(record["labels"]) for record in records(whole)]
    assert one["tally.txt"].decode().split() == list(map(str, labels))
    assert "One number on a line, `tally.txt`." in one["README.md"].decode()


def test_two_machines_make_the_same_set(whole: Path, tmp_path: Path) -> None:
    """The first has the first and third block, and leaves the labels to whoever is last."""
    root = tmp_path / "set"
    assert not generate(job(root), rank=0, world_size=2, progress=False)
    there = {path.name for path in (root / "images").iterdir()}
    assert there == {f"{i:06d}.png" for i in (*range(32), *range(64, NUMBER))}
    assert not (root / "annotations").exists() and not (root / "README.md").exists()
    assert generate(job(root), rank=1, world_size=2, progress=False)
    assert changed_files(tree(root), tree(whole)) == []


def test_the_machine_that_was_not_last_may_finish_too(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert not generate(job(root), rank=1, world_size=2, progress=False)
    assert generate(job(root), rank=0, world_size=2, progress=False)
    for rank in range(2):
        assert generate(job(root), rank=rank, world_size=2, progress=False)
    assert changed_files(tree(root), tree(whole)) == []


def test_a_larger_set_begins_with_a_smaller_one(whole: Path, tmp_path: Path) -> None:
    assert generate(job(tmp_path / "set", 40), progress=False)
    of_all = {"README.md", "croissant.json", "sample.png", "dataset.json", "data.yaml", "annotations/instances.json"}
    fewer = {name: content for name, content in tree(tmp_path / "set").items() if name not in of_all}
    more = tree(whole)
    assert len(fewer) == 40 * 5 + 1
    names = fewer.pop("ImageSets/train.txt").decode().split()
    assert names == more["ImageSets/train.txt"].decode().split()[:40]
    assert all(more[name] == content for name, content in fewer.items())


def test_other_seeds_make_other_images(whole: Path, tmp_path: Path) -> None:
    assert generate(job(tmp_path / "set", seed=1), progress=False)
    images = [tree(root / "images").values() for root in (whole, tmp_path / "set")]
    assert len({*images[0]} & {*images[1]}) <= 1, "but one image without any digit is like another"
    assert len({*images[0], *images[1]}) > 2 * NUMBER * 0.85


def test_what_is_there_is_not_drawn_again(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "set"))
    (root / "images" / "000033.png").unlink()
    drawn: list[int] = []
    renderer = small("multimnist").model.world.renderer
    draw = type(renderer).render_labelled
    monkeypatch.setattr(type(renderer), "render_labelled", lambda self, s: drawn.append(len(s)) or draw(self, s))
    again = job(root)
    assert generate(again, progress=False) and drawn == [1]
    assert generate(again, progress=False) and drawn == [1]
    assert changed_files(tree(root), tree(whole)) == []


def test_one_thread_draws_and_the_others_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums would depend on their number."""
    renderer, used = type(small("multimnist").model.world.renderer), []
    draw = renderer.render_labelled
    monkeypatch.setattr(renderer, "render_labelled", lambda *a: used.append(torch.get_num_threads()) or draw(*a))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        generate(job(tmp_path / "set", 40), progress=False)
        assert render_record(tmp_path / "set" / "scenes" / "000000.json")[2]
        assert used[-3:] == [1, 1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_jpeg(tmp_path: Path) -> None:
    """Of the same scenes."""
    for kind in ("png", "jpeg"):
        generate(job(tmp_path / kind, 8, image=kind, formats=("coco",)), progress=False)
    png, jpeg = records(tmp_path / "png"), records(tmp_path / "jpeg")
    assert [record["scene"] for record in png] == [record["scene"] for record in jpeg]
    assert [record["labels"] for record in png] == [record["labels"] for record in jpeg]
    for record in jpeg:
        assert (tmp_path / "jpeg" / record["image"]["file"]).read_bytes()[:3] == b"\xff\xd8\xff"
        assert record["image"]["file"].endswith(".jpg")
    for path in sorted((tmp_path / "jpeg" / "scenes").iterdir()):
        content, name, same = render_record(path)
        assert same and name == f"{path.stem}.jpg" and content == (tmp_path / "jpeg" / "images" / name).read_bytes()


def test_some_classes_alone(tmp_path: Path) -> None:
    """In the order of the world's; the scenes are the same, and nothing else is even hidden."""
    generate(job(tmp_path / "some", 40, classes=("7", "2")), progress=False)
    generate(job(tmp_path / "all", 40), progress=False)
    assert json.loads((tmp_path / "some" / "dataset.json").read_text())["categories"] == ["2", "7"]
    seen: set[str] = set()
    for some, every in zip(records(tmp_path / "some"), records(tmp_path / "all"), strict=True):
        assert some["scene"] == every["scene"] and some["image"] == every["image"]
        for key in ("labels", "hidden"):
            assert some[key] == [found for found in every[key] if found["category"] in ("2", "7")]
            seen |= {found["category"] for found in some[key]}
    assert seen == {"2", "7"}


def test_no_class_at_all(tmp_path: Path) -> None:
    """An empty list is not the default."""
    generate(job(tmp_path / "none", 3, classes=()), progress=False)
    assert json.loads((tmp_path / "none" / "dataset.json").read_text())["categories"] == []
    assert all(record["labels"] == record["hidden"] == [] for record in records(tmp_path / "none"))


# --- where scenes come from ---


def test_scenes_of_a_model_meet_conditions(tmp_path: Path) -> None:
    source = open_model(str(run_folder(tmp_path / "run")))
    assert source.model.structure is not None
    conditions = ("3 == 2", "7 + 8 >= 1", "0 < 1")
    generate(Job(source, Plan(40, conditions=conditions), tmp_path / "set"), progress=False)
    found = [counts(record) for record in records(tmp_path / "set")]
    assert all(count["3"] == 2 and count["7"] + count["8"] >= 1 and not count["0"] for count in found)
    assert len({tuple(sorted(count.items())) for count in found}) > 10
    assert "with `3 == 2` and `7 + 8 >= 1` and `0 < 1`." in (tmp_path / "set" / "README.md").read_text()


def test_scenes_of_a_prior_meet_conditions(tmp_path: Path) -> None:
    plan = Plan(40, conditions=("Road == 2", "car >= 3"))
    generate(Job(small("aerial2d"), plan, tmp_path / "set"), progress=False)
    found = [counts(record) for record in records(tmp_path / "set")]
    assert all(count["Road"] == 2 and count["car"] >= 3 for count in found)
    assert len({count["car"] for count in found}) > 2


def mean_digits(root: Path) -> float:
    return float(np.mean([counts(record).total() for record in records(root)]))


def test_a_model_is_not_the_prior(tmp_path: Path) -> None:
    """The number of digits is the model's; from the same run, the prior can be asked for."""
    run = run_folder(tmp_path / "run", fixed_rule_weights={"Digits": [9.0, 1.0]})
    learned = open_model(str(run))
    generate(Job(learned, Plan(64), tmp_path / "learned"), progress=False)
    generate(Job(open_model(str(run), "prior"), Plan(64), tmp_path / "prior"), progress=False)
    expected = sum(n * 0.9**n * 0.1 for n in range(20)) / sum(0.9**n * 0.1 for n in range(20))
    assert mean_digits(tmp_path / "learned") == pytest.approx(expected, abs=4 * 5.3 / 8)
    assert mean_digits(tmp_path / "prior") == pytest.approx(5, abs=4 * 3.2 / 8)
    about = [json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("learned", "prior")]
    assert [row["structure"] for row in about] == ["learned", "prior"]
    assert about[0]["checkpoint"] == learned.weight_hashes[0] and about[0]["structure_prior"] is None
    assert about[1]["checkpoint"] is None and about[1]["structure_prior"] is not None


def test_a_run_can_be_named_in_several_ways(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "mine")
    ways = [
        open_model(str(run)),
        open_model(str(run / "checkpoints" / "last.ckpt")),
        open_model(str(run / "config.yaml"), checkpoint=str(run / "checkpoints" / "last.ckpt")),
    ]
    for source in ways:
        assert source.model.structure is not None and source.name == "mine"
        assert source.fingerprints() == ways[0].fingerprints() == source.rebuild().fingerprints()
    assert open_model(str(run / "config.yaml")).model.structure is None


def test_a_run_of_ms2_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own configuration and checkpoint, in the words of the README."""
    run = fit(tmp_path, "mine")
    output = tmp_path / "set"
    ms2(["generate", str(run), "--num_scenes", "5", "--output", str(output), "--workers", "1", "--where", "1 <= 0"])
    assert f"5 images: {output}, described in {output / 'README.md'}\n" in capsys.readouterr().out
    assert len(records(output)) == 5 and not any(counts(record)["1"] for record in records(output))
    assert all(render_record(path)[2] for path in (output / "scenes").iterdir())
    assert "from a trained structure model of `mine`" in (output / "README.md").read_text()


# --- the command line ---


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes what a job of the same settings does, by default into a folder named as the world."""
    monkeypatch.chdir(tmp_path)
    words = ["--num_scenes", "5", "--format", "YOLO", "coco", "--seed", "3", "--min_pixels", "20", "--workers", "1"]
    ms2(["generate", "multimnist", *words, "--min_visibility", "0.3", *SMALL["multimnist"]])
    assert "5 images: data/multimnist, described in data/multimnist/README.md" in capsys.readouterr().out
    plan = Plan(5, seed=3, formats=("yolo", "coco"), min_pixels=20, min_visibility=0.3)
    generate(Job(small("multimnist"), plan, tmp_path / "expected"), progress=False)
    assert changed_files(tree(tmp_path / "data" / "multimnist"), tree(tmp_path / "expected")) == []


def test_machines_are_numbered_as_torchrun_does(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        words = ["--num_scenes", str(NUMBER), "--format", *FORMATS, "--workers", "1", "--output", str(tmp_path / "set")]
        ms2(["generate", "multimnist", *words, *SMALL["multimnist"]])
        said.append(capsys.readouterr().out)
    assert "this machine's part is done; whoever is last writes the labels" in said[0]
    assert f"{NUMBER} images: " in said[1]
    assert changed_files(tree(tmp_path / "set"), tree(whole)) == []


def test_settings_of_the_model_may_be_given(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    words = ["--num_scenes", "40", "--workers", "1", "--output", str(tmp_path / "set")]
    ms2(["generate", str(run), *words, "--model.structure.init_args.max_length", '{"Digits": 2}'])
    numbers = Counter(counts(record).total() for record in records(tmp_path / "set"))
    assert set(numbers) == {0, 1, 2}


# --- an image again ---


def test_a_record_is_enough_where_the_set_is_described(whole: Path, tmp_path: Path) -> None:
    """All else may be gone."""
    (tmp_path / "scenes").mkdir()
    shutil.copy(whole / "dataset.json", tmp_path)
    for index in (0, 31, 32, 69):
        path = Path(shutil.copy(whole / "scenes" / f"{index:06d}.json", tmp_path / "scenes"))
        assert render_record(path) == ((whole / "images" / f"{index:06d}.png").read_bytes(), f"{index:06d}.png", True)


def changed(whole: Path, folder: Path, change: Callable[[dict[str, Any]], Any], index: int = 0) -> Path:
    """A record with digits on it, changed."""
    (folder / "scenes").mkdir()
    shutil.copy(whole / "dataset.json", folder)
    record = [record for record in records(whole) if len(record["scene"]["objects"]) > 2][index]
    change(record)
    path = folder / "scenes" / "000000.json"
    path.write_text(json.dumps(record))
    return path


def test_a_changed_record_makes_another_image(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def move(record: dict[str, Any]) -> None:
        thing = record["scene"]["objects"][0]["attributes"]
        thing["x"] = 0.25 if thing["x"] > 0.5 else 0.75

    path = changed(whole, tmp_path, move)
    content, _, same = render_record(path)
    assert not same
    ms2(["render", "--provenance", str(path), "--output", str(tmp_path / "again.png")])
    assert "again.png: NOT the recorded bytes; another version made those" in capsys.readouterr().out
    assert (tmp_path / "again.png").read_bytes() == content


def test_the_command_draws_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default under the image's own name, here; twice is as good as once."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        ms2(["render", "--provenance", str(whole / "scenes" / "000040.json")])
        assert capsys.readouterr().out == "000040.png: the same bytes\n"
    assert tree(tmp_path) == {"000040.png": (whole / "images" / "000040.png").read_bytes()}


# --- records ---

CLASSES = ("car", "house")
numbers32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def batches(draw: st.DrawFn) -> SceneBatch:
    """Packed scenes with any numbers."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    most = max(1, *sizes)
    used = torch.tensor([[i < size for i in range(most)] for size in sizes])
    kinds = torch.tensor(draw(st.lists(st.integers(0, 1), min_size=used.numel(), max_size=used.numel())))
    parents = torch.tensor([[draw(st.integers(-1, max(size - 1, -1))) for _ in range(most)] for size in sizes])

    def values(*shape: int) -> torch.Tensor:
        number = int(np.prod(shape))
        drawn = draw(st.lists(numbers32, min_size=number, max_size=number))
        return torch.tensor(drawn, dtype=torch.float32).view(shape)

    return SceneBatch(
        torch.where(used, kinds.view(used.shape), -1),
        torch.where(used, parents, -1),
        {name: values(*used.shape) for name in draw(st.sets(st.sampled_from(["x", "y", "any name"])))},
        {name: values(len(sizes)) for name in draw(st.sets(st.sampled_from(["sun", "haze"])))},
    )


def bits(values: torch.Tensor) -> list[Any]:
    """Exact, -0 included."""
    found: list[Any] = values.view(torch.int32).tolist()
    return found


def read_scene(found: dict[str, Any]) -> SceneBatch:
    return from_record(SceneRecord.from_json(found), CLASSES)


@given(batches())
def test_scenes_survive_json_to_the_bit(scenes: SceneBatch) -> None:
    for index in range(len(scenes)):
        graph = to_record(scenes, index, CLASSES)
        text = orjson.dumps(graph.to_json())
        for read in (orjson.loads, json.loads):
            again, one, size = read_scene(read(text)), scenes[index : index + 1], len(graph.objects)
            assert size == scenes.mask[index].sum()
            assert torch.equal(again.classes[:, :size], one.classes[:, :size]) and again.mask.sum() == size
            assert torch.equal(again.parents[:, :size], one.parents[:, :size])
            assert set(again.attributes) == (set(one.attributes) if size else set())
            for name, values in again.attributes.items():
                assert bits(values) == bits(one.attributes[name][:, :size])
            assert {k: bits(v) for k, v in again.environment.items()} == {
                k: bits(v) for k, v in one.environment.items()
            }


def test_numbers_of_every_size_survive_json() -> None:
    """Some hundred thousand patterns of bits, from the smallest subnormal number to the largest of all."""
    patterns = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32)
    edges = [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x7F7FFFFF, 0x3F800000, 0x3F7FFFFF, 0x4B800001, 0x80000000]
    values = np.concatenate([patterns, np.array(edges, dtype=np.uint32)]).view(np.float32)
    values = values[np.isfinite(values)]
    one = SceneBatch(
        torch.zeros(1, len(values), dtype=torch.long),
        torch.full((1, len(values)), -1),
        {"x": torch.from_numpy(values)[None]},
    )
    graph = json.loads(orjson.dumps(to_record(one, 0, CLASSES).to_json()))
    assert bits(read_scene(graph).attributes["x"][0]) == values.view(np.int32).tolist()


def scene(**changes: Any) -> dict[str, Any]:
    """A car and a house; some of the car is changed."""
    car: dict[str, Any] = {"class": "car", "parent": -1, "attributes": {"x": 0.5}}
    house = {"class": "house", "parent": 0, "attributes": {"x": 1}}
    return {"environment": {"sun": 1}, "objects": [car | changes, house]}


def test_a_sound_scene_is_read() -> None:
    found = read_scene(scene())
    assert found.classes.tolist() == [[0, 1]] and found.parents.tolist() == [[-1, 0]]
    assert found.attributes["x"].tolist() == [[0.5, 1]] and found.environment["sun"].tolist() == [1]


FOREIGN = {
    "nothing": {},
    "no objects": {"environment": {}},
    "no environment": {"objects": []},
    "objects by name": {"objects": {"car": 1}, "environment": {}},
    "objects as a word": {"objects": "car", "environment": {}},
    "objects as a number": {"objects": 3, "environment": {}},
    "no object": {"objects": [None], "environment": {}},
    "an environment in a row": {"objects": [], "environment": [1]},
    "an environment that is none": {"objects": [], "environment": None},
    "an environment of words": {"objects": [], "environment": {"sun": "bright"}},
    "an object without a class": {"objects": [{"parent": -1, "attributes": {}}], "environment": {}},
    "an unknown class": scene(**{"class": "carr"}),
    "a class that is a list": scene(**{"class": ["car"]}),
    "a class that is none": scene(**{"class": None}),
    "a parent that is no number": scene(parent="car"),
    "a parent that is none": scene(parent=None),
    "an endless parent": scene(parent=float("inf")),
    "a huge parent": scene(parent=1e300),
    "a parent that is not there": scene(parent=2),
    "a parent before the first": scene(parent=-2),
    "attributes in a row": scene(attributes=[1]),
    "attributes that are none": scene(attributes=None),
    "an attribute in words": scene(attributes={"x": "left"}),
    "an attribute that is none": scene(attributes={"x": None}),
    "a huge attribute": scene(attributes={"x": 10**400}),
    "an attribute too few": scene(attributes={}),
    "an attribute too many": scene(attributes={"x": 1, "y": 2}),
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_scene_is_refused(foreign: dict[str, Any]) -> None:
    with pytest.raises(
        RecordError, match=r"^(this is no record of a scene: |the world has no |the scene has 2 objects|some objects)"
    ):
        read_scene(foreign)


def test_a_misspelt_class_is_guessed() -> None:
    with pytest.raises(RecordError, match=r"has no class 'carr'\. Did you mean 'car'\? Available: car, house"):
        read_scene(scene(**{"class": "carr"}))


def lines(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A file with its data changed."""

    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def attribute(value: Any) -> Callable[[Path], Any]:
    """The first digit's place from left to right."""
    return edited(lambda record: record["scene"]["objects"][0]["attributes"].update(x=value))


NO_RECORD = r"000000.json is no record of an image: those lie under scenes/ in a data set"
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (Path.unlink, "there is no file .*: give a record"),
    "an empty file": (lines(""), NO_RECORD),
    "half a file": (lambda path: os.truncate(path, 300), NO_RECORD),
    "a list": (lines("[]"), NO_RECORD),
    "a number": (lines("3"), NO_RECORD),
    "bytes": (lambda path: path.write_bytes(struct.pack("256B", *range(256))), NO_RECORD),
    "deep lists": (lines("[" * 100_000), NO_RECORD),
    "another's data": (lines('{"scene": 1, "image": 2, "provenance": 3}'), NO_RECORD),
    "no scene": (edited(lambda record: record.pop("scene")), NO_RECORD),
    "no image": (edited(lambda record: record.pop("image")), NO_RECORD),
    "a class of another world": (
        edited(lambda record: record["scene"]["objects"][0].update({"class": "car"})),
        "the world has no class 'car'. Available: 0, 1, 2",
    ),
    "an attribute out of bounds": (attribute(1e30), r"x has to be from 0 to 1, not \[1\.0"),
    "an attribute below its bounds": (attribute(-1e30), r"x has to be from 0 to 1, not \[-1\.0"),
    "NaN": (attribute(float("nan")), NO_RECORD),  # which is no JSON
    "infinity in digits": (attribute("inf"), r"x has to be from 0 to 1, not \[inf"),
    "an attribute missing everywhere": (
        edited(lambda record: [thing["attributes"].pop("x") for thing in record["scene"]["objects"]]),
        "the scene lacks 'x', which DigitCanvas reads",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_can_t_be_drawn_is_refused(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], Any], expected: str
) -> None:
    path = changed(whole, tmp_path, lambda record: None)
    spoil(path)
    with pytest.raises(RecordError, match=expected):
        render_record(path)


OUTSIDE = "lies outside of a data set"
UNDESCRIBED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (Path.unlink, OUTSIDE),
    "a list": (lines("[]"), OUTSIDE),
    "no world": (edited(lambda about: about.pop("world")), OUTSIDE),
    "a world that is none": (edited(lambda about: about.update(world=3)), OUTSIDE),
    "no kind of image": (edited(lambda about: about.pop("image")), OUTSIDE),
    "an unknown kind of image": (edited(lambda about: about.update(image="gif")), OUTSIDE),
    "a world without a renderer": (edited(lambda about: about["world"].pop("renderer")), "renderer"),
    "an unknown renderer": (edited(lambda about: about["world"].update(renderer="Unheard")), "Unheard"),
    "a function": (edited(lambda about: about["world"].update(renderer={"class_path": "os.getcwd"})), "os.getcwd"),
}


@pytest.mark.parametrize(("spoil", "expected"), UNDESCRIBED.values(), ids=UNDESCRIBED)
def test_a_record_of_a_set_that_is_not_described_is_refused(
    whole: Path, tmp_path: Path, spoil: Callable[[Path], Any], expected: str
) -> None:
    path = changed(whole, tmp_path, lambda record: None)
    spoil(tmp_path / "dataset.json")
    with pytest.raises(UserError, match=expected):
        render_record(path)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "..", "", "/", "a/b\0", 3, None])
def test_no_path_of_a_record_is_trusted(whole: Path, tmp_path: Path, name: object) -> None:
    path = changed(whole, tmp_path, lambda record: record["image"].update(file=name))
    _, file, same = render_record(path)
    assert file == "000000.png" and same


def test_scenes_without_objects_can_be_drawn() -> None:
    renderer = small("multimnist").model.world.renderer
    empty = check_renderable(read_scene({"objects": [], "environment": {}}), renderer)
    assert not renderer.render(empty).any()
