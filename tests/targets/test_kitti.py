"""KITTI's layout: labels, calibration, lists of frames, and what is said where something is missing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import EXPECTED, fit, last, learner, metrics_of, trainer
from PIL import Image
from pytorch_lightning import Callback

from ms2.datasets.formats.kitti import KittiObject, read_labels
from ms2.features.base import Blocks, FeatureExtractor
from ms2.grammar.grammar import Grammar
from ms2.learning.data import TargetImages
from ms2.metrics.statistics import ObjectCount
from ms2.render.base import Renderer
from ms2.render.scene3d.calibration import KittiError, read_projection
from ms2.targets.kitti import Kitti
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED
LINE = "Car 0.50 1 -1.56 564.62 174.59 616.43 224.74 1.61 1.66 3.20 -0.69 1.69 25.01 -1.59"
CAR = KittiObject(
    "Car", 0.5, 1, -1.56, (564.62, 174.59, 616.43, 224.74), (1.61, 1.66, 3.2), (-0.69, 1.69, 25.01), -1.59
)
MATRIX = "7.2e+02 0 6.1e+02 4.5e+01 0 7.2e+02 1.7e+02 2.1e-01 0 0 1 2.7e-03"
STREET = Grammar("Scene -> Things\nThings -> Thing Things | ε\nThing -> car | pedestrian")


class Nothing(Renderer):
    """Only its size is asked for."""

    channels, size, attributes = 3, (24, 80), ()

    def render(self, scenes: object) -> torch.Tensor:  # type: ignore[override]
        raise NotImplementedError

    def render_labelled(self, scenes: object) -> object:  # type: ignore[override]
        raise NotImplementedError


WORLD = World(STREET, UniformDigits(), UniformPlacement(), Nothing())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three frames with 2, 0 and 1 objects that count, two of them listed."""
    for folder in ("image_2", "label_2", "calib"):
        (tmp_path / "training" / folder).mkdir(parents=True)
    (tmp_path / "ImageSets").mkdir()
    labels = [
        [LINE, LINE.replace("Car", "Van"), LINE.replace("Car", "DontCare")],
        [],
        [LINE.replace("Car", "Pedestrian")],
    ]
    for frame, lines in enumerate(labels):
        Image.new("RGB", (160, 48), (frame, 0, 0)).save(tmp_path / f"training/image_2/{frame:06d}.png")
        (tmp_path / f"training/label_2/{frame:06d}.txt").write_text("\n".join(lines) + "\n")
        (tmp_path / f"training/calib/{frame:06d}.txt").write_text(f"P0: 1\nP2: {MATRIX}\n\n")
    (tmp_path / "ImageSets" / "train.txt").write_text("000002\n000000\n")
    return tmp_path


def label(root: Path, frame: int = 0) -> Path:
    return root / f"training/label_2/{frame:06d}.txt"


def test_labels_are_read_field_by_field(root: Path) -> None:
    assert read_labels(label(root)) == [CAR, CAR._replace(type="Van"), CAR._replace(type="DontCare")]
    assert read_labels(label(root, 1)) == []
    label(root).write_text(f"{LINE} 0.97\n")  # with a score
    assert read_labels(label(root)) == [CAR]


def test_the_projection_is_the_cameras_matrix(root: Path) -> None:
    found = read_projection(root / "training/calib/000000.txt")
    assert found[0].tolist() == [720, 0, 610, 45] and found[2, 3] == pytest.approx(2.7e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Car 1 2 3", "line 1: 4 fields, where .* are 15"),
        (f"{LINE}\n{LINE.replace('25.01', 'far')}", "line 2: could not convert string to float: 'far'"),
    ],
)
def test_short_labels_are_named_with_their_line(root: Path, content: str, said: str) -> None:
    label(root).write_text(content)
    with pytest.raises(KittiError, match=said):
        read_labels(label(root))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("P0: 1 2", r"no line 'P2: \.\.\.', only P0"),
        ("P2: 1 2 3", "3 numbers, where"),
        ("P2: 1 x", "could not convert"),
    ],
)
def test_broken_calibration_is_named(root: Path, content: str, said: str) -> None:
    path = root / "training/calib/000000.txt"
    path.write_text(content)
    with pytest.raises(KittiError, match=said):
        read_projection(path)
    path.unlink()
    with pytest.raises(KittiError, match="no such calibration file"):
        read_projection(path)


def test_a_split_lists_its_frames_in_order(root: Path) -> None:
    target = Kitti(WORLD, root)
    target.verify()
    assert len(target) == 2
    assert [int(image[0].float().mean().round()) for image in target.__getitems__([0, 1])] == [2, 0]
    assert target[0].shape == (3, 24, 80)
    assert len(Kitti(WORLD, root, split=None)) == 3 and len(Kitti(WORLD, root, limit=1)) == 1


def test_the_truth_counts_what_the_grammar_knows(root: Path) -> None:
    """Vans count as cars, and DontCare as nothing."""
    truth = Kitti(WORLD, root, split=None).truth
    assert truth is not None and truth.classes.tolist() == [[0, 0], [-1, -1], [1, -1]]
    assert ObjectCount("car").measure(truth, STREET.classes).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    only_vans = Kitti(WORLD, root, split=None, types={"Van": "car"}).truth
    assert only_vans is not None and only_vans.classes.tolist() == [[0], [-1], [-1]]


def test_without_labels_it_is_a_target_without_truth(root: Path) -> None:
    for path in (root / "training/label_2").iterdir():
        path.unlink()
    (root / "training/label_2").rmdir()
    target = Kitti(WORLD, root)
    target.verify()
    assert target.truth is None and len(target) == 2


def test_frames_without_usable_labels_stop_the_run_or_are_left_out(root: Path) -> None:
    label(root, 2).unlink()
    with pytest.raises(
        KittiError, match=r"1 frames have no usable labels:\n.*000002\.txt: there is no such label file"
    ):
        Kitti(WORLD, root).verify()
    target = Kitti(WORLD, root, on_error="skip")
    with pytest.warns(UserWarning, match=r"000002\.txt"):
        target.verify()
    assert len(target) == 1 and target.truth is not None and target.truth.classes.tolist() == [[0, 0]]


def test_the_layout_is_checked(root: Path, tmp_path: Path) -> None:
    with pytest.raises(KittiError, match=r"no training/image_2\. Give the folder"):
        Kitti(WORLD, root / "ImageSets")
    with pytest.raises(KittiError, match=r"val\.txt: there is no such list of frames\. Available: train"):
        Kitti(WORLD, root, split="val")
    (root / "ImageSets" / "train.txt").write_text("000000\n000009\n")
    with pytest.raises(KittiError, match="lists 1 of 2 frames that have no image, the first 000009"):
        Kitti(WORLD, root)
    (root / "ImageSets" / "train.txt").write_text("")
    with pytest.raises(KittiError, match="lists no frames"):
        Kitti(WORLD, root)


def test_learning_does_not_read_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and their key come without a label being opened."""
    monkeypatch.setattr("ms2.targets.kitti.read_labels", lambda path: pytest.fail("a label was read"))
    target = Kitti(WORLD, root)
    assert target[0].shape == (3, 24, 80) and target.fingerprint()


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, with the folder kitti, is not set")
def test_real_frames() -> None:
    target = Kitti(WORLD, Path(os.environ["MS2_DATA"], "kitti"))
    truth = target.truth
    assert len(target) == 414 and truth is not None
    assert target[0].shape == (3, 24, 80)
    boxes = [thing for path in target.images.paths[:50] for thing in read_labels(target._label_file(path))]
    assert all(thing.box[0] < thing.box[2] and thing.box[1] < thing.box[3] for thing in boxes)
    projection = read_projection(target.folder / "calib" / f"{target.images.paths[0].stem}.txt")
    for thing in read_labels(target._label_file(target.images.paths[0])):  # its middle is seen within its box
        middle = torch.tensor([thing.position[0], thing.position[1] - thing.size[0] / 2, thing.position[2], 1.0])
        u, v, w = (projection @ middle).tolist()
        assert thing.box[0] - 5 <= u / w <= thing.box[2] + 5 and thing.box[1] - 5 <= v / w <= thing.box[3] + 5


# --- training doesn't read labels ---


def frames(folder: Path, labels: str | None) -> Path:
    """Twenty frames of noise, with labels in order, shuffled, or none."""
    draw = np.random.default_rng(0)
    for part in ("image_2", "label_2"):
        (folder / "training" / part).mkdir(parents=True)
    numbers = {"true": list(range(20)), "shuffled": draw.permutation(20).tolist(), None: []}[labels]
    pixels = np.random.default_rng(1).integers(0, 255, (20, 24, 24, 3), np.uint8)
    for frame in range(20):
        Image.fromarray(pixels[frame]).save(folder / f"training/image_2/{frame:06d}.png")
    for frame, number in enumerate(numbers):
        text = "\n".join([LINE] * (number % 4))
        (folder / f"training/label_2/{frame:06d}.txt").write_text(text)
    if labels is None:
        (folder / "training/label_2").rmdir()
    (folder / "ImageSets").mkdir()
    (folder / "ImageSets/train.txt").write_text("\n".join(f"{frame:06d}" for frame in range(20)))
    return folder


class Look(FeatureExtractor):
    """Mean and deviation of an image."""

    def forward(self, images: torch.Tensor) -> Blocks:
        return {"look": torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1)}


def learned(folder: Path, labels: str | None) -> dict[str, torch.Tensor]:
    """Weights at the end of a tiny run of the program on these frames."""
    root = frames(folder / "kitti", labels)
    dropped = ["data.target.init_args.num_images", "data.target.init_args.structure_prior.init_args.max_digits"]
    settings = {"data__target": "Kitti", "data__target__root": root}
    run = fit(folder, "run", without=dropped, **settings, data__target__types='{"Car": "1"}')
    assert ("count_tv" in metrics_of(run)) == (labels is not None), "labels are there to compare with, if at all"
    return {name: value for name, value in last(run)["state_dict"].items() if isinstance(value, torch.Tensor)}


def test_weights_are_the_same_with_other_labels_and_without(tmp_path: Path) -> None:
    """To the last bit."""
    true, shuffled, none = (learned(tmp_path / str(labels), labels) for labels in ("true", "shuffled", None))
    assert true.keys() == shuffled.keys() == none.keys() and any(".structure" in f".{name}" for name in true)
    for name, value in true.items():
        assert value.equal(shuffled[name]) and value.equal(none[name]), name


def test_no_label_file_is_opened_while_a_run_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only before, to see that they can be read, and to compare with, which is done afterwards here."""
    learning, opened = [False], list[Path]()

    def read(path: Path) -> list[KittiObject]:
        assert not learning[0], "a label was read during training"
        opened.append(path)
        return read_labels(path)

    class Watch(Callback):
        def on_fit_start(self, *_: object) -> None:
            learning[0] = True

        def on_train_end(self, *_: object) -> None:
            learning[0] = False

    monkeypatch.setattr("ms2.targets.kitti.read_labels", read)
    world = World(MultiMNIST(), UniformDigits(2), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))
    target = Kitti(world, frames(tmp_path, "true"), types={"Car": "1"})
    data = TargetImages(target, batch_size=8)
    model = learner(world, features=Look())
    trainer(tmp_path, 3, callbacks=[Watch()]).fit(model, datamodule=data)
    checked = len(opened)
    assert checked == 20 and len(model.target_features["look"]) == 20
    assert target.truth is not None and len(opened) == 40
