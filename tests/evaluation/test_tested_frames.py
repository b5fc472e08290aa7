"""What detectors are tested on, and the row that is trained on real labels: never what was learned from, in silence."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import EXPECTED
from PIL import Image
from test_comparison import SMALL, run  # noqa: F401 (a fixture)

from ms2.cli.commands import COMMANDS
from ms2.core.errors import UserError
from ms2.datasets.labelled_set import DataSetError
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.comparison import compare_runs
from ms2.evaluation.detectors.real_images import REAL, DetectorTest, bound_images, images_to_test_on
from ms2.grammar.grammar import Grammar
from ms2.metrics.comparison import comparison_files, load_comparison
from ms2.report.detectors import comparison_tables
from ms2.targets.base import Target
from ms2.targets.folder import Folder
from ms2.targets.kitti import Kitti
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED
CANVAS = DigitCanvas(canvas_size=40, digit_size=12)
STREET = Grammar("Scene -> Things\nThings -> Thing Things | ε\nThing -> car | truck | pedestrian | tree")
WORLD = World(STREET, UniformDigits(), UniformPlacement(), CANVAS)
DIGITS = World(MultiMNIST(), UniformDigits(), UniformPlacement(), CANVAS)


def kitti(folder: Path, lists: dict[str, list[int]], labels: bool = True, first: int = 0) -> Path:
    """Frames of one colour each, with a car and a pedestrian; all frames that are listed, beginning with a number."""
    frames = sorted({frame for some in lists.values() for frame in some} | {first})
    for part in ("training/image_2", "ImageSets", *(["training/label_2"] if labels else [])):
        (folder / part).mkdir(parents=True)
    for frame in frames:
        Image.new("RGB", (80, 80), (frame, 0, 0)).save(folder / f"training/image_2/{frame:06d}.png")
        lines = [f"{kind} 0 0 -10 {x} 10 {x + 30} 70 1 1 1 0 0 9 0" for kind, x in (("Car", 5), ("Pedestrian", 45))]
        if labels:
            (folder / f"training/label_2/{frame:06d}.txt").write_text("\n".join(lines))
    for name, some in lists.items():
        (folder / f"ImageSets/{name}.txt").write_text("".join(f"{frame:06d}\n" for frame in some))
    return folder


def opened(target: Target, world: World = WORLD, **settings: Any) -> DetectorTest:
    return images_to_test_on(target, world, DetectorBudget(**settings))


def frames(found: DetectorTest) -> list[int]:
    return [int(path.stem) for path in found.images.frames]  # type: ignore[attr-defined]


def test_frames_are_those_of_the_list_val_or_of_the_one_that_is_named(tmp_path: Path) -> None:
    """In the target's folder, as in KITTI's, or in one of their own; the note says which."""
    root = kitti(tmp_path / "a", {"train": [0, 1], "val": [2, 3], "few": [3]})
    found = opened(Kitti(WORLD, root))
    assert frames(found) == [2, 3] and found.notes == (f"Tested on 2 frames of {root} (list val).",)
    assert frames(opened(Kitti(WORLD, root), test_split="few")) == [3]
    other = kitti(tmp_path / "b", {"val": [7]}, first=9)
    assert frames(opened(Kitti(WORLD, root), test_root=other)) == [7]
    without_lists = kitti(tmp_path / "c", {}, first=5)
    found = opened(Kitti(WORLD, root), test_root=without_lists)
    assert frames(found) == [5] and found.notes == (f"Tested on 1 frames of {without_lists} (all).",)
    (root / "ImageSets/val.txt").unlink()
    found = opened(Kitti(WORLD, root))
    assert frames(found) == [2, 3] and found.notes[0].endswith("(those not in list train).")


def test_classes_are_those_of_kittis_benchmark_that_the_world_has(tmp_path: Path) -> None:
    """As the target maps them: trucks are none, and trees have no labels."""
    root = kitti(tmp_path, {"train": [0], "val": [1]})
    assert opened(Kitti(WORLD, root)).images.categories == ("car", "pedestrian")
    assert opened(Kitti(DIGITS, root, types={"Car": "3", "Pedestrian": "8"}), DIGITS).images.categories == ("3", "8")
    other = {"Van": "car", "Car": "truck", "Pedestrian": "pedestrian"}
    assert opened(Kitti(WORLD, root, types=other)).images.categories == ("truck", "pedestrian")
    assert opened(Kitti(WORLD, root), classes=("truck", "car")).images.categories == ("truck", "car")
    rendered = Synthetic(DIGITS, UniformDigits(), num_images=2)
    assert opened(rendered, DIGITS, num_test_images=3).images.categories == tuple("0123456789")


def test_images_without_labels_are_tested_on_labelled_frames_of_another_folder(tmp_path: Path) -> None:
    root = kitti(tmp_path / "a", {"train": [0, 1]}, labels=False)
    other = kitti(tmp_path / "b", {"val": [2]})
    for target in (Folder(WORLD, root / "training/image_2"), Kitti(WORLD, root)):
        with pytest.raises(UserError, match=r"have no labels \(\w+\), .*--test_root DIR"):
            opened(target)
        found = opened(target, test_root=other)
        assert frames(found) == [2] and found.images.categories == ("car", "pedestrian")
    with pytest.raises(UserError, match=r"test_split is 'val', a list of frames, but the target \(Folder\)"):
        opened(Folder(WORLD, root / "training/image_2"), test_split="val")


def test_a_missing_or_broken_test_set_is_an_error(tmp_path: Path) -> None:
    """And not replaced by the frames that were learned from."""
    root = kitti(tmp_path / "a", {"train": [0, 1]})
    with pytest.raises(UserError, match=r"has no frames to test on: .*--test_root DIR, or test on .*--test_on_learned"):
        opened(Kitti(WORLD, root))
    with pytest.raises(UserError, match=r"ImageSets has no list vall\.txt .*Available: train\. .*--test_split NAME"):
        opened(Kitti(WORLD, root), test_split="vall")
    other = kitti(tmp_path / "b", {"test": [2, 3]})
    with pytest.raises(UserError, match=r"has no list val\.txt of frames to test on.*Available: test"):
        opened(Kitti(WORLD, root), test_root=other)
    (other / "training/label_2/000003.txt").unlink()
    with pytest.raises(UserError, match="1 of 2 frames have no usable labels"):
        opened(Kitti(WORLD, root), test_root=other, test_split="test")
    with pytest.raises((UserError, DataSetError), match="is not KITTI's object detection set"):
        opened(Kitti(WORLD, root), test_root=tmp_path)


def test_frames_that_were_learned_from_are_tested_on_only_if_that_is_asked_for(tmp_path: Path) -> None:
    """They are known by name and content, also in a copy of the folder."""
    root = kitti(tmp_path / "a", {"train": [0, 1], "val": [1, 2]})
    copy = kitti(tmp_path / "b", {"val": [0, 1, 2]})
    with pytest.raises(UserError, match=r"1 of the 2 frames to test on are among those that were learned from"):
        opened(Kitti(WORLD, root))
    with pytest.raises(UserError, match=r"2 of the 3 frames .*--test_on_learned true"):
        opened(Kitti(WORLD, root), test_root=copy)
    found = opened(Kitti(WORLD, root), test_root=copy, test_on_learned=True)
    assert frames(found) == [0, 1, 2]
    assert found.notes[1] == "TESTED ON WHAT WAS LEARNED FROM: 2 of these frames, though not their labels."
    own = opened(Kitti(WORLD, root), test_on_learned=True)
    assert frames(own) == [0, 1] and own.notes[1].startswith("TESTED ON WHAT WAS LEARNED FROM: 2 ")
    rendered = opened(Synthetic(DIGITS, UniformDigits(), num_images=2), DIGITS, test_on_learned=True)
    assert len(rendered.images) == 2 and rendered.notes == ("Tested on images that were learned from.",)


def test_the_bound_is_trained_on_as_many_of_the_targets_images(tmp_path: Path) -> None:
    root = kitti(tmp_path, {"train": list(range(1, 9)), "val": [9]})
    target, budget = Kitti(WORLD, root), DetectorBudget(num_train_images=5)
    drawn = [[int(image[0, 0, 0]) for image, _ in map(bound_images(target, ["car"], budget, i).__getitem__, range(5))]
             for i in (0, 1)]  # fmt: skip
    assert all(len({*some}) == 5 and {*some} <= {*range(1, 9)} for some in drawn) and drawn[0] != drawn[1]
    assert len(bound_images(target, ["car"], DetectorBudget(), 0)) == 8
    with pytest.raises(UserError, match="real_bound trains on labelled images of the target, and test_on_learned"):
        DetectorBudget(real_bound=True, test_on_learned=True)
    with pytest.raises(UserError, match=r"those of Folder have none"):
        bound_images(Folder(WORLD, root / "training/image_2"), ["car"], budget, 0)


def test_a_comparison_on_kittis_frames_in_small(run: Path, tmp_path: Path) -> None:  # noqa: F811
    """From the run's own configuration: classes, test frames, and distances to labels only where they are asked for."""
    root = kitti(tmp_path / "kitti", {"train": [1, 2, 3], "val": [4, 5]})
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    types = {"Car": "3", "Pedestrian": "8"}
    configuration["data"]["target"] = {"class_path": "Kitti", "init_args": {"root": str(root), "types": types}}
    (run / "config.yaml").write_text(yaml.safe_dump(configuration))
    budget = replace(SMALL, num_train_images=2, train_steps=1, classes=None)
    summary, table = compare_runs([str(run)], [0], replace(budget, real_bound=True), [])
    assert list(summary) == ["prior", "learned structure", REAL, "learned structure - prior", f"{REAL} - prior"]
    assert (
        set(summary["prior"])
        == set(summary[REAL])
        <= {f"AP {name}/{level}" for name in "38" for level in ("easy", "moderate", "hard")}
    )
    assert f"Tested on 2 frames of {root} (list val)." in table and f"{REAL}: trained on 2 of the target's" in table
    assert "Distances of structure to the target's labels are shown with --evaluate_labels true." in table
    (report,) = comparison_tables(run)
    assert len(report.notes) >= 3 and set(report.notes[-3:]) <= set(table.splitlines())
    summary, table = compare_runs([str(run)], [0], budget, ["--evaluate_labels=true"])
    assert {"count TV", "class TV"} < set(summary["prior"]) and "evaluate_labels" not in table
    folders = comparison_files(run)
    assert len(folders) == 2, "other rows and measures are no results of the same comparison"
    assert {len(load_comparison(file).rows) for files in folders.values() for file in files} == {2, 3}


def test_options_of_the_command_reach_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    (tmp_path / "compare").mkdir()

    def compared(*arguments: Any) -> tuple[dict[str, Any], str]:
        given.extend(arguments)
        return {}, "| table |"

    monkeypatch.setattr("ms2.cli.compare.compare_runs", compared)
    options = ["--test_root", str(tmp_path), "--test_split", "few", "--real_bound", "true", "--evaluate_labels", "true"]
    COMMANDS["compare"].run([str(tmp_path), *options, "--device", "cpu"])
    assert given[2] == DetectorBudget(test_root=tmp_path, test_split="few", real_bound=True)
    assert given[3] == ["--evaluate_labels=true"]
    assert (tmp_path / "compare" / "table.md").read_text() == "| table |\n"


VALIDATION = Path(os.environ.get("MS2_DATA", "."), "kitti_val")


@pytest.mark.skipif(not VALIDATION.is_dir(), reason="MS2_DATA, with the folder kitti_val, is not set")
def test_real_frames_of_a_folder_of_their_own() -> None:
    """None of which is among those to learn from; these alone hold none to test on."""
    target = Kitti(WORLD, VALIDATION.with_name("kitti"))
    found = opened(target, test_root=VALIDATION)
    assert len(found.images) == 363 and found.images.categories == ("car", "pedestrian") and len(found.notes) == 1
    with pytest.raises(UserError, match="has no frames to test on"):
        opened(target)
