"""Detectors learn, are repeatable, go on from one another, and say what is wrong."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import models

from ms2.core.errors import UserError
from ms2.datasets.labelled_set import Example, LabelledSet, collate
from ms2.evaluation.detectors.architectures import ARCHITECTURES
from ms2.evaluation.detectors.detector import Detector, load_detector
from ms2.evaluation.detectors.training import ShuffledBatches, evaluate_detector, train_detector
from ms2.features.backbone import WeightsError
from ms2.models.checkpoints import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # what is frozen
SIZE = 40
QUIET: dict[str, Any] = {"accelerator": "cpu", "progress": False}


class Squares(LabelledSet):
    """Red and green squares of 10 to 14 pixels on grey; the first image is empty."""

    categories = ("red", "green")

    def __init__(self, n: int = 4, masks: bool = False, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.examples = [self._draw(i, masks, generator) for i in range(n)]

    def _draw(self, index: int, masks: bool, generator: torch.Generator) -> Example:
        image = torch.full((3, SIZE, SIZE), 128, dtype=torch.uint8)
        boxes, labels, shapes = [], [], []
        for row in range(2 if index else 0):
            kind, side, left = (int(torch.randint(n, (), generator=generator)) for n in (2, 5, 26))
            x, y, side = left, 3 + 19 * row, 10 + side
            image[:, y : y + side, x : x + side] = torch.eye(3, dtype=torch.uint8)[kind][:, None, None] * 255
            boxes.append([x, y, x + side, y + side])
            labels.append(kind + 1)
            shapes.append(torch.zeros(SIZE, SIZE, dtype=torch.uint8))
            shapes[-1][y : y + side, x : x + side] = 1
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        target = {
            "boxes": found,
            "labels": torch.tensor(labels, dtype=torch.long),
            "height": 3 * (found[:, 3] - found[:, 1]),
            "occlusion": torch.zeros(len(found), dtype=torch.long),
            "truncation": torch.zeros(len(found)),
            "scale": torch.tensor(1 / 3),
        }
        if masks:
            target["masks"] = torch.stack(shapes) if shapes else torch.zeros(0, SIZE, SIZE, dtype=torch.uint8)
        return image, target

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def make(**settings: Any) -> Detector:
    return Detector(Squares.categories, **({"max_steps": 2, "batch_size": 2} | settings))


def images(n: int = 4) -> list[Tensor]:
    return [image for image, _ in Squares(n).examples]


@torch.no_grad()
def seen(detector: Detector) -> list[dict[str, Tensor]]:
    return detector.eval()(images())


def same(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> bool:
    return all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a)


def loss(detector: Detector) -> float:
    torch.manual_seed(0)  # of the proposals to learn from
    with torch.no_grad():
        return float(detector.train().loss(*collate(Squares(masks=True).examples)))


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that has seen four images many times, saved."""
    path = tmp_path_factory.mktemp("detector") / "deep" / "detector.pt"
    found = train_detector(make(max_steps=50, batch_size=4, lr=2e-3), Squares(), path, **QUIET)
    assert found.keys() == {"seconds", "loss"} and found["seconds"] > 0
    return path


# --- learning ---


def test_it_learns_four_images_by_heart(overfitted: Path) -> None:
    result = evaluate_detector(load_detector(overfitted), Squares(), resamples=20, **QUIET)
    assert list(result) == ["mean", "red", "green"]
    assert result["mean"].value > 0.95 and result["mean"].low <= result["mean"].value
    unseen = evaluate_detector(load_detector(overfitted), Squares(12, seed=9), resamples=1, **QUIET)["mean"].value
    untrained = evaluate_detector(make(), Squares(), resamples=1, **QUIET)["mean"].value
    assert untrained < 0.2 < unseen


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if "50" not in name and "mask" not in name])
def test_a_few_steps_lower_the_loss(architecture: str) -> None:
    detector = make(architecture=architecture, max_steps=6, batch_size=4, lr=3e-4)
    before = loss(detector)
    train_detector(detector, Squares(masks=True), **QUIET)
    assert not detector.training and loss(detector) < 0.97 * before


def test_the_papers_detector() -> None:
    detector = make(architecture="maskrcnn_resnet50_fpn").train()
    pairs = Squares(2, masks=True).examples
    value = detector.loss(*collate(pairs))
    value.backward()
    assert value.isfinite() and detector.model.backbone.body.conv1.weight.grad.abs().sum() > 0
    found = seen(detector)[1]
    assert found.keys() == {"boxes", "scores", "labels"}  # drawing masks would take most of the time
    assert set(found["labels"].tolist()) <= {1, 2}
    assert bool((found["boxes"] >= 0).all() and (found["boxes"] <= SIZE).all())


def test_images_keep_their_size_unless_enlarged() -> None:
    image, target = Squares().examples[1]
    for factor in (1.0, 2.0):
        transform = make(upscale=factor).model.transform.train()
        batch, targets = transform([image / 255], [target])
        assert batch.image_sizes == [(factor * SIZE, factor * SIZE)]
        assert torch.equal(targets[0]["boxes"], factor * target["boxes"])
    wide = torch.zeros(3, 40, 100)
    sizes = make(upscale=1.5).model.transform.eval()([wide, wide[:, :20]])[0].image_sizes
    assert sizes == [(60, 150), (30, 150)]


def test_detections_are_in_pixels_of_the_image_that_was_given(overfitted: Path) -> None:
    """Images twice as large that are made half as large are what the detector knows."""
    halving = make(upscale=0.5, fine_tune_from=overfitted).eval()
    large = [image.repeat_interleave(2, 1).repeat_interleave(2, 2) for image in images()]
    with torch.no_grad():
        found = halving(large)
    known = seen(load_detector(overfitted))
    assert any(len(one["boxes"]) for one in known)
    for one, other in zip(found, known, strict=True):
        assert torch.allclose(one["boxes"], 2 * other["boxes"], atol=1e-2)


def test_kittis_protocol(overfitted: Path) -> None:
    result = evaluate_detector(load_detector(overfitted), Squares(), "kitti", resamples=5, **QUIET)
    levels = ["easy", "moderate", "hard"]
    assert list(result) == [f"{name}/{level}" for name in ("red", "green") for level in levels]
    assert result["red/hard"].value > 0.9


# --- the same again ---


def test_saved_and_loaded_it_sees_the_same(overfitted: Path, tmp_path: Path) -> None:
    detector = load_detector(overfitted)
    detector.save(tmp_path / "again.pt")
    found = seen(detector)
    assert sum(len(one["scores"]) for one in found) > 0
    assert same(found, seen(load_detector(tmp_path / "again.pt")))
    saved = torch.load(overfitted, weights_only=True)
    assert json.loads(json.dumps(saved["detector"]))["max_steps"] == 50 and saved["loss"] < 1.5


@pytest.mark.parametrize("architecture", ["fcos_resnet18_fpn", "fasterrcnn_resnet18_fpn"])
def test_the_seed_alone_decides(architecture: str) -> None:
    weights = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        detector = make(architecture=architecture, seed=seed)
        train_detector(detector, Squares(), **QUIET)
        weights.append(torch.cat([p.detach().flatten() for p in detector.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_making_a_detector_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    make()
    assert torch.equal(before, torch.random.get_rng_state())


def test_batches_hold_every_image_once_before_any_twice() -> None:
    batches = list(ShuffledBatches(5, 2, 5, seed=3))
    assert list(map(len, batches)) == [2] * 5 == [2] * len(ShuffledBatches(5, 2, 5))
    flat = list(chain(*batches))
    assert sorted(flat[:5]) == sorted(flat[5:]) == list(range(5)) and flat[:5] != flat[5:]
    assert batches == list(ShuffledBatches(5, 2, 5, seed=3)) != list(ShuffledBatches(5, 2, 5, seed=4))
    assert list(ShuffledBatches(5, 2, 3, seed=3)) == batches[:3]
    assert list(ShuffledBatches(1, 8, 1)) == [[0] * 8]


# --- beginning with weights ---


def test_it_goes_on_from_another(overfitted: Path) -> None:
    second = make(fine_tune_from=overfitted, seed=1)
    assert same(seen(second), seen(load_detector(overfitted)))
    before = loss(second)
    train_detector(second, Squares(seed=5), **QUIET)
    assert loss(second) != before


@pytest.mark.parametrize("body", ["resnet18", "mobilenet_v3_large"])
def test_trained_backbones_keep_their_first_layers_and_norms(body: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = models.get_model(body, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    detector = make(architecture=f"fcos_{body}_fpn", backbone_weights=str(tmp_path / "weights.pt"))
    given = {name.removeprefix("features."): value for name, value in network.state_dict().items()}
    before = detector.model.backbone.body.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in before.items())
    train_detector(detector, Squares(), tmp_path / "detector.pt", **QUIET)
    after = detector.model.backbone.body.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, given[name])}
    assert changed and all("weight" in name or "bias" in name for name in changed)
    norms = {name for name in after if "running" in name or "bn" in name}
    first = {name for name in after if name.startswith(("conv1", "layer1", "0.", "1."))}
    assert first and norms and not changed & (first | norms)
    # afterwards the file of weights is not needed
    (tmp_path / "weights.pt").unlink()
    again = load_detector(tmp_path / "detector.pt")
    assert same(seen(again), seen(detector))


# --- errors ---


def test_unknown_names() -> None:
    with pytest.raises(
        UserError, match=r"there is no detector 'fasterrcnn_resnet_fpn'. Did you mean 'fasterrcnn_resnet"
    ):
        make(architecture="fasterrcnn_resnet_fpn")
    with pytest.raises(UserError, match="categories is empty: name at least one class to detect"):
        Detector([])
    with pytest.raises(
        WeightsError, match=r"there are no weights .*none\.pt: give a file of a state dict, or 'imagenet'"
    ):
        make(backbone_weights="none.pt")


def test_sets_that_do_not_fit() -> None:
    data, detector = Squares(), make(architecture="maskrcnn_resnet18_fpn")
    with pytest.raises(
        UserError, match="learns masks, which the set lacks: read it with masks=True, or use fasterrcnn"
    ):
        train_detector(detector, data, **QUIET)
    data.categories = ("green", "red")
    for run in (train_detector, evaluate_detector):
        with pytest.raises(
            UserError, match="categories are red, green, but the set's are green, red: give both the same"
        ):
            run(detector, data, **QUIET)
    with pytest.raises(UserError, match="the set to train on holds no images"):
        train_detector(detector, Squares(0), **QUIET)


def test_what_is_no_detector(overfitted: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no detector .*none\.pt: give a file that `train_detector` has saved"
    ):
        make(fine_tune_from=tmp_path / "none.pt")
    (tmp_path / "broken.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"broken.pt can't be read as a detector \(\w+\): train it again"):
        load_detector(tmp_path / "broken.pt")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match=r"other\.pt holds no detector: give a file that `train_detector` has saved"
    ):
        load_detector(tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match="whose architecture is fcos_resnet18_fpn, but this one's is fcos_mobilenet"
    ):
        make(architecture="fcos_mobilenet_v3_large_fpn", fine_tune_from=overfitted)
    with pytest.raises(CheckpointError, match=r"whose categories is \['red', 'green'\], but this one's is \['red'\]"):
        Detector(["red"], fine_tune_from=overfitted)


@pytest.mark.parametrize("steps", [1, 2, 10, 15])
def test_any_number_of_steps_has_its_learning_rates(steps):
    """A warm-up of a single step divides by zero in torch's schedule."""
    detector = Detector(("red", "green"), max_steps=steps)
    found = detector.configure_optimizers()
    rates = []
    for _ in range(steps):
        rates.append(found["optimizer"].param_groups[0]["lr"])
        found["optimizer"].step()
        if len(rates) < steps:
            found["lr_scheduler"]["scheduler"].step()
    assert all(0 <= rate <= detector.lr for rate in rates)
    assert steps < 10 or rates[-1] < 0.01 * detector.lr


def test_a_detector_that_diverges_is_not_saved(tmp_path: Path) -> None:
    said = r"^the detector diverged: at step \d weights .*\. Nothing of it is kept; lower lr, now 1e\+30$"
    with pytest.raises(UserError, match=said):
        train_detector(make(lr=1e30), Squares(), tmp_path / "detector.pt", **QUIET)
    assert not list(tmp_path.iterdir())
