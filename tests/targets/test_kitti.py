"""KITTI's layout: labels, calibration, lists of frames, and what is said where something is missing."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import EXPECTED, fit, last, learner, metrics_of, ms2, trainer
from PIL import Image
from pytorch_lightning import Callback

from ms2.core.errors import UserError
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.kitti_files import KittiObject, label_file, read_labels
from ms2.datasets.labelled_set import DataSetError
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
        ("P0: 1\nP2: " + "nan " * 12, r"line 2, P2: no projection of a rectified camera"),
        (f"P2: {MATRIX}".replace(" 0 0 1 ", " 0 0 0 "), "line 1, P2: no projection of a rectified camera"),
        (f"P2: -{MATRIX}", "no projection of a rectified camera"),
        (f"P2: {MATRIX}\nP2: {MATRIX}", "line 2: P2 is there already, in line 1"),
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
    with pytest.warns(UserWarning, match=r"types maps them to no class: Car \(1\), Pedestrian \(1\)"):
        only_vans = Kitti(WORLD, root, split=None, types={"Van": "car"}).truth
    assert only_vans is not None and only_vans.classes.tolist() == [[0], [-1], [-1]]


@pytest.mark.parametrize(("least", "counted"), [(25, [[0, 0], [-1, -1], [1, -1]]), (26, [[-1], [-1], [-1]])])
def test_labels_that_are_too_low_in_the_resized_frame_do_not_count(
    root: Path, monkeypatch: pytest.MonkeyPatch, least: float, counted: list[list[int]]
) -> None:
    """The boxes are 50.15 pixels high in frames of 160 x 48 pixels, which are resized to 80 x 24."""
    monkeypatch.setattr(Nothing, "min_height", least)
    truth = Kitti(WORLD, root, split=None).truth
    assert truth is not None and truth.classes.tolist() == counted


def test_without_labels_it_is_a_target_without_truth(root: Path) -> None:
    for path in (root / "training/label_2").iterdir():
        path.unlink()
    (root / "training/label_2").rmdir()
    target = Kitti(WORLD, root)
    target.verify()
    assert target.truth is None and len(target) == 2


def test_frames_without_usable_labels_stop_the_evaluation_or_are_left_out_of_it(root: Path) -> None:
    """And are learned from all the same: labels don't choose frames."""
    label(root, 2).unlink()
    target = Kitti(WORLD, root)
    target.verify()
    with pytest.raises(
        KittiError, match=r"1 frames have no usable labels:\n.*000002\.txt: there is no such label file"
    ):
        print(target.truth)
    target = Kitti(WORLD, root, on_error="skip")
    target.verify()
    with pytest.warns(UserWarning, match=r"000002\.txt"):
        assert target.truth is not None and target.truth.classes.tolist() == [[0, 0]]
    assert len(target) == 2


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


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.swapcase])
def test_types_are_the_same_whatever_their_case(root: Path, spelling: Callable[[str], str]) -> None:
    """In the labels, in what maps them, and in the classes that they are mapped to."""
    for frame in range(3):
        words = [line.split(" ", 1) for line in label(root, frame).read_text().splitlines() if line]
        label(root, frame).write_text("\n".join(f"{spelling(kind)} {rest}" for kind, rest in words))
    given = {
        spelling(kind): spelling(name) for kind, name in (("CaR", "car"), ("vAn", "car"), ("Pedestrian", "pedestrian"))
    }
    for types in (None, given):
        target = Kitti(WORLD, root, split=None, types=types)
        target.verify()
        assert target.truth is not None and target.truth.classes.tolist() == [[0, 0], [-1, -1], [1, -1]]
        labelled = target.labelled_set(["CAR", "pedestrian"])
        assert labelled is not None and labelled.categories == ("car", "pedestrian")


def test_types_without_a_class_are_named_or_stop_the_run(root: Path) -> None:
    label(root, 1).write_text(f"{LINE.replace('Car', 'Bus')}\n{LINE.replace('Car', 'Misc')}\n")
    target = Kitti(WORLD, root, split=None)
    target.verify()  # reads no labels
    with pytest.warns(UserWarning, match=r"of these types are not counted, as types maps them to no class: Bus \(1\)$"):
        assert target.truth is not None
    assert target.truth is not None  # said once
    with pytest.warns(UserWarning, match=r"Car \(1\), Bus \(1\), Misc \(1\)"):
        print(Kitti(WORLD, root, split=None, types={"Van": "car", "Pedestrian": "pedestrian", "Tram": "car"}).truth)
    for frame in (0, 2):
        label(root, frame).write_text(LINE.replace("Car", "Pedestrain"))
    for make in (lambda: Kitti(WORLD, root).truth, lambda: KittiSet(root, split="train")):
        with pytest.raises(KittiError, match=r"they are Pedestrain \(2\)\. Did you mean 'Pedestrian'\?"):
            make()


def test_types_are_mapped_to_classes_of_the_world(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"types maps Van to 'cars', but the world has no such class\. Did you mean 'car'"
    ):
        Kitti(WORLD, root, types={"Car": "car", "Van": "cars"})
    digits = World(MultiMNIST(), UniformDigits(2), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))
    with pytest.raises(UserError, match="the world has none of the classes car, truck, pedestrian, cyclist"):
        Kitti(digits, root)
    with pytest.raises(UserError, match="types is empty"):
        Kitti(WORLD, root, types={})
    with pytest.raises(UserError, match="types has 'car' 2 times"):
        Kitti(WORLD, root, types={"Car": "car", "car": "pedestrian"})
    label(root).unlink()
    label(root, 1).unlink()
    label(root, 2).unlink()
    (root / "training/label_2").rmdir()
    assert len(Kitti(digits, root)) == 2, "without labels nothing is counted"


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPEG", ".Png"])
def test_both_readers_list_the_same_frames_in_the_same_order(root: Path, suffix: str) -> None:
    images = root / "training/image_2"
    (images / "000001.png").rename(images / f"000001{suffix}")
    (images / ".hidden.png").write_bytes(b"")
    (images / "notes.txt").write_text("")
    for split, frames in ((None, [0, 1, 2]), ("train", [2, 0])):
        target, data = Kitti(WORLD, root, split=split), KittiSet(root, split=split)
        assert target.images.paths == data.frames and [int(path.stem) for path in data.frames] == frames
    Image.new("RGB", (160, 48)).save(images / "000001.bmp")
    for make in (lambda: Kitti(WORLD, root), lambda: KittiSet(root)):
        with pytest.raises(KittiError, match=r"two images of frame 000001, 000001\.\w+ and 000001\.\w+: remove one"):
            make()


def test_a_frame_listed_twice_is_named_with_its_lines(root: Path) -> None:
    (root / "ImageSets/train.txt").write_text("000002\n\n000000\n000002\n000000\n")
    for make in (lambda: Kitti(WORLD, root), lambda: KittiSet(root, split="train")):
        with pytest.raises(KittiError, match=r"again:\n  line 4: 000002, as in line 1\n  line 5: 000000, as in line 3"):
            make()
    with pytest.warns(UserWarning, match="They are counted once"):
        assert len(Kitti(WORLD, root, on_error="skip")) == 2
    (root / "ImageSets/train.txt").write_text("000002\n000007\n000000\n")
    with pytest.warns(UserWarning, match=r"1 of 3 frames that have no image, the first 000007 \(line 2\)"):
        assert len(Kitti(WORLD, root, on_error="skip")) == 2


FAULTS = {
    "not a number": (LINE.replace("564.62", "nan"), "left is nan, which is no number of a label"),
    "infinite": (LINE.replace("25.01", "-inf"), "z is -inf"),
    "huge": (LINE.replace("25.01", "1e300"), "z is 1e300"),
    "a score that is none": (f"{LINE} nan", "score is nan"),
    "left and right reversed": (
        LINE.replace("616.43", "16.43"),
        "left is 564.62, and right 16.43: the corners are rev",
    ),
    "top and bottom reversed": (LINE.replace("224.74", "24.74"), "top is 174.59, and bottom 24.74: the corners are"),
    "truncation in percent": (LINE.replace("0.50", "50"), "truncation is 50, where it is a fraction from 0 to 1"),
    "occlusion of a half": (LINE.replace(" 1 ", " 0.5 ", 1), r"occlusion is 0.5, where it is 0, 1, 2, 3 or -1"),
    "a negative height": (LINE.replace("1.61", "-1.61"), "height is -1.61, where it is a length in metres, or -1 if"),
    "digits in groups": (LINE.replace("564.62", "5_64.62"), "left is 5_64.62, which is no number of a label"),
    "17 columns": (f"{LINE} 0.9 7", "17 fields, where .* are 15"),
    "one column": ("Car", "1 fields, where"),
    "commas": (LINE.replace(" ", ","), "1 fields, where"),
}


@pytest.mark.parametrize(("line", "said"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_label_is_named_with_its_line_or_its_frame_left_out(root: Path, line: str, said: str) -> None:
    label(root).write_text(f"{LINE}\n\n{line}\n")
    with pytest.raises(KittiError, match=rf"000000\.txt, line 3: {said}"):
        read_labels(label(root))
    for make in (lambda: Kitti(WORLD, root).truth, lambda: KittiSet(root)):
        with pytest.raises(KittiError, match=rf"1 .*frames have no usable labels:\n.*line 3: {said}"):
            make()
    target = Kitti(WORLD, root, on_error="skip")
    with pytest.warns(UserWarning, match=r"1 frames have no usable labels:\n.*line 3"):
        assert target.truth is not None and len(target.truth) == 1
    with pytest.warns(UserWarning, match=r"1 of 3 labelled images are left out:\n.*line 3"):
        data = KittiSet(root, on_error="skip")
    assert len(target) == 2 and [int(path.stem) for path in data.frames] == [1, 2]


def test_byte_order_marks_and_other_ends_of_lines_are_read(root: Path) -> None:
    for text in (f"\ufeff{LINE}\n", f"{LINE}\r\n", f"\ufeff{LINE}\r\n\r\n", LINE):
        label(root).write_bytes(text.encode())
        assert read_labels(label(root)) == [CAR]
    label(root).write_bytes(LINE.encode("utf-16"))
    with pytest.raises(KittiError, match=r"000000\.txt: this label file is no text in UTF-8"):
        read_labels(label(root))
    label(root).write_text(LINE)
    (root / "ImageSets/train.txt").write_bytes("\ufeff000002\r\n000000\r\n".encode())
    assert [int(path.stem) for path in KittiSet(root, split="train").frames] == [2, 0]
    label(root).unlink()
    label(root).mkdir()
    with pytest.raises(KittiError, match="there is no such label file"):
        read_labels(label(root))


def test_frames_that_can_t_be_read_are_left_out_by_both_readers(root: Path) -> None:
    """A picture that is cut, one that EXIF data turn, and labels that are missing."""
    images = root / "training/image_2"
    os.truncate(images / "000000.png", 40)
    turned = Image.Exif()
    turned[0x0112] = 6
    (images / "000001.png").unlink()
    Image.new("RGB", (160, 48)).save(images / "000001.jpg", exif=turned)
    with pytest.raises(UserError, match=r"000001\.jpg: its EXIF data turn it, so .* save it upright"):
        KittiSet(root)[1]
    with pytest.warns(UserWarning, match="2 of 3 labelled images are left out"):
        data = KittiSet(root, on_error="skip")
    assert [int(path.stem) for path in data.frames] == [2]
    label(root, 2).unlink()
    with pytest.raises(DataSetError, match=r"3 of 3 labelled images are left out:(.|\n)*No image is left"):
        KittiSet(root, on_error="skip")


def test_learning_does_not_read_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and their key come without a label being opened."""
    monkeypatch.setattr("ms2.targets.kitti.read_labels", lambda path: pytest.fail("a label was read"))
    target = Kitti(WORLD, root)
    assert target[0].shape == (3, 24, 80) and target.fingerprint()


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, with the folder kitti, is not set")
def test_real_frames() -> None:
    target = Kitti(WORLD, Path(os.environ["MS2_DATA"], "kitti"))
    with pytest.warns(UserWarning, match=r"no class: Cyclist \(597\), Tram \(11\), Truck \(6\)$"):
        truth = target.truth
    assert len(target) == 414 and truth is not None
    assert target[0].shape == (3, 24, 80)
    boxes = [thing for path in target.images.paths[:50] for thing in read_labels(label_file(path))]
    assert all(thing.box[0] < thing.box[2] and thing.box[1] < thing.box[3] for thing in boxes)
    projection = read_projection(target.folder / "calib" / f"{target.images.paths[0].stem}.txt")
    for thing in read_labels(label_file(target.images.paths[0])):  # its middle is seen within its box
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


def learned(folder: Path, labels: str | None, evaluated: bool) -> dict[str, torch.Tensor]:
    """Weights at the end of a tiny run of the program on these frames."""
    root = frames(folder / "kitti", labels)
    dropped = ["data.target.init_args.num_images", "data.target.init_args.structure_prior.init_args.max_digits"]
    settings = {"data__target": "Kitti", "data__target__root": root, "evaluate_labels": str(evaluated).lower()}
    run = fit(folder, "run", without=dropped, **settings, data__target__types='{"Car": "1"}')
    assert ("count_tv" in metrics_of(run)) == evaluated
    assert ("read_objects_mean" in metrics_of(run)) != evaluated, "what the extractor reads is shown in their place"
    return {name: value for name, value in last(run)["state_dict"].items() if isinstance(value, torch.Tensor)}


def test_labels_are_evaluated_if_asked_for_and_weights_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last bit: with other labels, without any, and whether or not distances to them are measured."""
    true, none = learned(tmp_path / "true", "true", False), learned(tmp_path / "none", None, False)
    said = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("distances to the target's labels")
    ]
    shuffled = learned(tmp_path / "shuffled", "shuffled", True)
    assert true.keys() == shuffled.keys() == none.keys() and any(".structure" in f".{name}" for name in true)
    for name, value in true.items():
        assert value.equal(shuffled[name]) and value.equal(none[name]), name
    assert len(said) == 1, "nothing is said where there are no labels"
    ms2(said[0].partition(": ms2 ")[2].split())
    (again,) = (tmp_path / "true" / "run").glob("test_*")
    assert metrics_of(again)["count_tv"] >= 0 and "val/count_tv" not in capsys.readouterr().err


def test_no_label_file_is_opened_while_a_run_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only to compare with, which is done afterwards here."""
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
    assert not opened and len(model.target_features["look"]) == 20
    assert target.truth is not None and len(opened) == 20
