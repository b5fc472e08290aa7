"""Labelled sets of targets: the rendered ones equal data sets on disk, KITTI's hold the frames that were held out."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from test_kitti import LINE, WORLD

from ms2.core.errors import UserError
from ms2.datasets.blocks import BLOCK_SIZE
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.rendered_set import RenderedSet
from ms2.models.opening import open_model
from ms2.render.scene3d.calibration import KittiError
from ms2.targets.folder import Folder
from ms2.targets.kitti import Kitti
from ms2.targets.synthetic import HELD_OUT_SEED, Synthetic
from ms2.worlds.aerial2d.renderer import AerialView

AERIAL = ["--world.renderer.canvas_size", "64"]


@pytest.fixture(scope="module")
def target() -> Synthetic:
    world = open_model("aerial2d", arguments=AERIAL).model.world
    assert isinstance(world.renderer, AerialView)
    return Synthetic(world, world.structure_prior, num_images=BLOCK_SIZE + 3)


@pytest.mark.parametrize("masks", [False, True])
def test_held_out_images_equal_a_data_set_on_disk(target: Synthetic, tmp_path: Path, masks: bool) -> None:
    """Of the same prior and seed: pixels, boxes and everything else, to the bit."""
    number = BLOCK_SIZE + 5
    plan = Plan(number, seed=HELD_OUT_SEED, classes=("car", "tree"), formats=())
    assert generate(Job(open_model("aerial2d", arguments=AERIAL), plan, tmp_path / "set"), progress=False)
    theirs = GeneratedSet(tmp_path / "set", ["tree", "car"], masks=masks)
    ours = target.labelled_set(["tree", "car"], num_held_out=number)
    ours.masks = masks
    assert len(ours) == len(theirs) == number and ours.categories == theirs.categories
    assert not ours.amodal and ours.protocol == "plain"
    for i in range(number):
        (image, annotations), (expected, others) = ours[i], theirs[i]
        assert torch.equal(image, expected) and annotations.keys() == others.keys()
        assert all(torch.equal(value, others[name]) for name, value in annotations.items())
    assert sum(len(ours[i][1]["labels"]) for i in range(number)) > number


def test_by_default_the_images_are_the_target_s(target: Synthetic) -> None:
    found = target.labelled_set()
    assert isinstance(found, RenderedSet) and len(found) == len(target) == BLOCK_SIZE + 3
    for i in (0, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 2):
        assert torch.equal(found[i][0], target[i])
    with pytest.raises(IndexError):
        found[len(target)]


def test_counts_are_those_of_the_scenes(target: Synthetic) -> None:
    """Also of objects that are hidden; labels have no more than these."""
    found = target.labelled_set(["car"])
    number = target.hidden.grammar.classes.index("car")
    assert found.counts()[:, 0].tolist() == (target.truth.classes == number).sum(1).tolist()
    assert all(len(found[i][1]["labels"]) <= found.counts()[i, 0] for i in range(5))


def test_an_unknown_category_is_refused(target: Synthetic) -> None:
    with pytest.raises(UserError, match=r"this world has no category 'caar'\. Did you mean 'car'"):
        target.labelled_set(["caar"])
    with pytest.raises(UserError, match=r"categories are \[\]: name one or more"):
        target.labelled_set([])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four frames, the first of which has two cars; two of them are listed for training."""
    for folder in ("training/image_2", "training/label_2", "ImageSets"):
        (tmp_path / folder).mkdir(parents=True)
    for frame in range(4):
        Image.new("RGB", (160, 48), (frame, 0, 0)).save(tmp_path / f"training/image_2/{frame:06d}.png")
        line = LINE.replace("564.62 174.59 616.43 224.74", "40 10 80 30")
        text = f"{line}\n{line}\n" if frame == 0 else ""
        (tmp_path / f"training/label_2/{frame:06d}.txt").write_text(text)
    (tmp_path / "ImageSets/train.txt").write_text("000002\n000000\n")
    return tmp_path


def frames(found: KittiSet | None) -> list[int]:
    assert found is not None
    return [int(path.stem) for path in found.frames]


def test_frames_that_were_held_out(root: Path) -> None:
    target = Kitti(WORLD, root)
    assert frames(target.labelled_set()) == [2, 0]
    assert frames(target.labelled_set(num_held_out=1)) == [1, 3], "all others, as they are given"
    assert frames(Kitti(WORLD, root, limit=1).labelled_set()) == [2]
    (root / "ImageSets/val.txt").write_text("000003\n")
    assert frames(target.labelled_set(num_held_out=1)) == [3], "those of the list val, where there is one"


def test_without_other_frames_there_are_none_to_test_on(root: Path) -> None:
    (root / "ImageSets/train.txt").write_text("000003\n000000\n000001\n000002\n")
    for target in (Kitti(WORLD, root), Kitti(WORLD, root, split=None)):
        assert len(target.labelled_set()) == 4
        with pytest.raises(KittiError, match=r"no frames to test on: no list ImageSets/val\.txt, .*--test_root DIR"):
            target.labelled_set(num_held_out=9)


def test_kitti_s_set(root: Path) -> None:
    """Of the renderer's size, with the classes of the grammar."""
    found = Kitti(WORLD, root).labelled_set()
    assert found is not None and found.categories == ("car", "pedestrian") and found.amodal
    assert found.protocol == "kitti" and found[1][0].shape == (3, *WORLD.renderer.size)
    assert found.counts().tolist() == [[0, 0], [2, 0]]
    with pytest.raises(KittiError, match=r"no object has a type that is mapped to a class; they are Car \(2\)"):
        Kitti(WORLD, root, types={"Van": "car"}).labelled_set()


def test_targets_without_labels_have_no_set(root: Path) -> None:
    assert Folder(WORLD, root / "training/image_2").labelled_set() is None
    for path in (root / "training/label_2").iterdir():
        path.unlink()
    (root / "training/label_2").rmdir()
    assert Kitti(WORLD, root).labelled_set(num_held_out=1) is None
