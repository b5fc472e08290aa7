"""Detectors that were trained on photographs: ONNX files and torchvision's."""

import copy
import io
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ms2.core.errors import UserError
from ms2.core.images import read_image
from ms2.features.backbone import WeightsError
from ms2.features.detection.object_detector import coco_categories
from ms2.features.detection.onnx_detector import OnnxDetector, decode_yolov8, decode_yolox
from ms2.features.detection.torchvision_detector import TorchvisionDetector

pytest.importorskip("onnx")
from onnx_files import write_reshaping

THREE = ["a", "b", "c"]


def reshaping(folder: Path, numbers: int = 8, **more: object) -> OnnxDetector:
    """A detector of three categories, to which 3 x 32 x 32 pixels are 384 rows of 8 numbers."""
    settings = {"categories": THREE, "max_pixel": 1.0, "padding": 0.5} | more
    return OnnxDetector(write_reshaping(folder / "rows.onnx", [0, -1, numbers]), **settings)


def rows_of(seed: int = 0, batch: int = 5) -> Tensor:
    """Rows of YOLOX's layout, each with a probability of its own."""
    return torch.rand(batch, 384, 8, generator=torch.Generator().manual_seed(seed))


def test_cocos_categories_are_the_eighty_in_order() -> None:
    names = coco_categories()
    assert len(names) == len(set(names)) == 80
    assert [names.index(name) for name in ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck")] == [
        0, 1, 2, 3, 5, 6, 7,
    ]  # fmt: skip


def test_yoloxs_rows_are_decoded() -> None:
    found = decode_yolox(torch.tensor([[[50.0, 40, 20, 10, 0.5, 0.1, 0.8, 0.3]]]))
    assert found.boxes.tolist() == [[[40, 35, 60, 45]]] and found.categories.tolist() == [[1]]
    assert found.scores.item() == pytest.approx(0.4)


def test_yolov8s_columns_are_decoded() -> None:
    columns = torch.tensor([[50.0, 40, 20, 10, 0.1, 0.8, 0.3], [5.0, 5, 2, 2, 0.6, 0.2, 0.3]]).T[None]
    found = decode_yolov8(columns)
    assert found.boxes.tolist() == [[[40, 35, 60, 45], [4, 4, 6, 6]]] and found.categories.tolist() == [[1, 0]]
    assert found.scores.tolist() == [[pytest.approx(0.8), pytest.approx(0.6)]]


def test_an_onnx_file_is_run_and_its_best_rows_are_found(tmp_path: Path) -> None:
    """Five images, two at a time: in the order of the images, whatever the parts."""
    rows = rows_of()
    found = reshaping(tmp_path, batch_size=2)(rows.view(5, 3, 32, 32))
    wanted = decode_yolox(rows).best(300)
    assert found.boxes.shape == (5, 300, 4)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_images_are_padded_below_and_on_the_right_and_scaled_to_bytes(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 20, 40, generator=torch.Generator().manual_seed(0))
    detector = reshaping(tmp_path, max_pixel=255.0, padding=114.0)
    given = torch.from_numpy(detector._run(images)).view(2, 3, 32, 64)
    assert torch.allclose(given[:, :, :20, :40], 255 * images)
    assert (given[:, :, 20:] == 114).all() and (given[:, :, :, 40:] == 114).all()


def test_a_detector_can_be_copied_pickled_and_is_known_by_its_file(tmp_path: Path) -> None:
    detector, images = reshaping(tmp_path), rows_of().view(5, 3, 32, 32)
    before = detector(images)
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert all(torch.equal(a, b) for a, b in zip(other(images), before, strict=True))
    (tmp_path / "other").mkdir()
    another = OnnxDetector(write_reshaping(tmp_path / "other" / "rows.onnx", [0, -1, 6]), categories=["a"])
    assert not torch.equal(another.fingerprint, detector.fingerprint)
    assert torch.equal(reshaping(tmp_path).fingerprint, detector.fingerprint)
    assert another.pretrained.fingerprint != detector.pretrained.fingerprint


def test_what_is_no_detector_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no detector .*none\.onnx: give an ONNX file"):
        OnnxDetector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.onnx can't be read as an ONNX network"):
        OnnxDetector(tmp_path / "text.onnx")
    with pytest.raises(UserError, match=r"'yolox' with 80 categories has 85 numbers of an object in dimension 2"):
        reshaping(tmp_path, categories=None)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"'yolov8' with 3 categories has 7 numbers .* 1: set detector.layout"):
        reshaping(tmp_path, layout="yolov8")(torch.zeros(1, 3, 32, 32))
    fixed = OnnxDetector(write_reshaping(tmp_path / "fixed.onnx", [0, -1, 8], (64, 64)), categories=THREE)
    with pytest.raises(UserError, match=r"fixed\.onnx can't take images \[1, 3, 32, 32\]: its input is"):
        fixed(torch.zeros(1, 3, 32, 32))


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, .* Try: pip install 'ms2\[onnx\]'"):
        reshaping(tmp_path)


# --- torchvision ---

TINY = "ssdlite320_mobilenet_v3_large"


def test_torchvisions_detectors_find_boxes_within_the_images() -> None:
    detector = TorchvisionDetector(TINY, weights=None)
    images = torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    found = detector.train()(images)
    assert not detector.training and not any(p.requires_grad for p in detector.requires_grad_().parameters())
    assert (found.boxes >= 0).all() and (found.boxes[..., [0, 2]] <= 64).all() and (found.boxes[..., 1::2] <= 40).all()
    assert found.categories.shape[1] > 0 and (found.categories[found.scores > 0] >= 0).all()
    alone = detector(images[1:])
    number = int((alone.scores > 0).sum())
    assert torch.allclose(alone.scores[0, :number], found.scores[1, :number], atol=1e-5)


def test_images_keep_their_size() -> None:
    """Torchvision would enlarge them to 800 pixels."""
    detector = TorchvisionDetector("fasterrcnn_mobilenet_v3_large_320_fpn", weights=None)
    seen: list[torch.Size] = []
    detector.network.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
    detector(torch.rand(1, 3, 64, 96))
    assert seen == [(1, 3, 64, 96)]


def test_weights_are_read_from_a_file(tmp_path: Path) -> None:
    first = TorchvisionDetector(TINY, weights=None, seed=1)
    torch.save(first.network.state_dict(), tmp_path / "w.pt")
    second = TorchvisionDetector(TINY, weights=str(tmp_path / "w.pt"))
    assert first.pretrained is None and second.pretrained is not None
    assert second.pretrained.source == f"{TINY} from {tmp_path / 'w.pt'}"
    states = (first.network.state_dict(), second.network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_is_no_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torchvision has no detector 'fasterrcnn_resnet51_fpn'\. Did you mean"):
        TorchvisionDetector("fasterrcnn_resnet51_fpn", None)
    with pytest.raises(WeightsError, match=r"there are no weights .* or 'coco'"):
        TorchvisionDetector(TINY, str(tmp_path / "none.pt"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=f"are not those of {TINY}: Missing key"):
        TorchvisionDetector(TINY, str(tmp_path / "a.pt"))
    file = io.BytesIO()
    torch.save([print], file)
    (tmp_path / "code.pt").write_bytes(file.getvalue())
    with pytest.raises(WeightsError, match="can't be read as weights"):
        TorchvisionDetector(TINY, str(tmp_path / "code.pt"))


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA is not set")
def test_yolox_finds_large_cars_in_photographs() -> None:
    """Cars of 60 pixels and more, whole and not hidden, where they are labelled."""
    folder = Path(os.environ["MS2_DATA"])
    detector = OnnxDetector("$MS2_DATA/weights/yolox_nano_coco.onnx")
    number = 0
    for path in sorted((folder / "kitti" / "training" / "image_2").iterdir())[:12]:
        words = [line.split() for line in (folder / f"kitti/training/label_2/{path.stem}.txt").read_text().splitlines()]
        boxes = [
            [float(w) for w in row[4:8]] for row in words if row[0] == "Car" and float(row[1]) == 0 and row[2] == "0"
        ]
        large = torch.tensor([box for box in boxes if box[3] - box[1] >= 60]).view(-1, 4)
        if len(large):
            image = read_image(path)[None].float() / 255
            found = detector(image)
            found = found.only(found.scores > 0.3)
            cars = found.boxes[found.categories == coco_categories().index("car")]
            assert (box_iou(large, cars).amax(1) > 0.7).all(), path.stem
            number += len(large)
    assert number >= 3
