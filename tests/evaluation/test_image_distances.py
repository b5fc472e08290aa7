"""FID and KID against torchmetrics and closed forms, their intervals, and what a run leaves of them."""

import csv
import hashlib
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import EXPECTED, Beads, abacus, fit, images, learner, ms2, on_two_ranks, results_of, trainer
from helpers import command as words
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision import models

from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.settings import settings_of
from ms2.evaluation.callbacks import Validation
from ms2.evaluation.evaluation import Evaluation
from ms2.evaluation.image_distances import ImageDistances
from ms2.features.backbone import Backbone
from ms2.features.base import Blocks, FeatureExtractor
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.metrics.fid import fid, fid_intervals
from ms2.metrics.kid import kid, kid_intervals
from ms2.metrics.results import ImageResult
from ms2.models.scene_model import SceneModel

pytestmark = EXPECTED


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, d: int, generator: torch.Generator, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    return mean + deviation * torch.randn(n, d, dtype=torch.float64, generator=generator)


class Gaze(FeatureExtractor):
    """A few numbers of an image that it takes no training to compute.

    Args:
        scale: What they are multiplied with.
        blocks: Their names.
    """

    seen = 0

    def __init__(self, scale: float = 1.0, blocks: list[str] | None = None) -> None:
        super().__init__()
        self.scale, self.blocks = scale, blocks or ["look"]

    def forward(self, images: Tensor) -> Blocks:
        Gaze.seen += len(images)
        rows = images.flatten(1)
        found = self.scale * torch.cat([rows[:, :4], rows.mean(1, keepdim=True), rows.std(1, keepdim=True)], 1)
        return {name: (i + 1) * found for i, name in enumerate(self.blocks)}


class AsModule(nn.Module):
    """The same for torchmetrics."""

    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return Gaze()(images.float() / 255)["look"]


# --- against torchmetrics ---


def pictures(n: int, brightness: int, seed: int) -> Tensor:
    return torch.randint(0, brightness, (n, 3, 9, 9), generator=rng(seed), dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all")
@torch.no_grad()
def test_both_are_those_of_torchmetrics() -> None:
    """On the same images."""
    real, generated = pictures(50, 256, 0), pictures(50, 200, 1)
    x, y = (Gaze()(some.float() / 255)["look"].double() for some in (generated, real))
    their_fid = FrechetInceptionDistance(feature=AsModule(), input_img_size=(3, 9, 9)).set_dtype(torch.float64)
    their_kid = KernelInceptionDistance(feature=AsModule(), subsets=1, subset_size=50)
    for metric in (their_fid, their_kid):
        metric.update(real, real=True)
        metric.update(generated, real=False)
    assert fid(x, y) == pytest.approx(their_fid.compute().item(), rel=1e-5)
    assert kid(x, y) == pytest.approx(their_kid.compute()[0].item(), rel=1e-3)  # theirs is in single precision


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 5), (30, 20, 50), (60, 10, 25)])
def test_fid_has_the_root_of_the_product_of_covariances(n: int, m: int, d: int) -> None:
    """Also with fewer images than features, where torchmetrics needs double precision."""
    from torchmetrics.image.fid import _compute_fid

    x, y = normal(n, d, rng(0)), normal(m, d, rng(1), 0.3, 2)
    theirs = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert fid(x, y) == pytest.approx(float(theirs), rel=1e-5)


def whitened(n: int, d: int) -> Tensor:
    """Rows with mean 0 and covariance 1 exactly."""
    x = normal(n, d, rng(3))
    x = x - x.mean(0)
    return torch.linalg.qr(x)[0] * math.sqrt(n - 1)


def test_fid_of_normal_laws_is_the_closed_form() -> None:
    """|shift|² + Σ (s - t)² for diagonal covariances s² and t²."""
    x, d = whitened(40, 6), 6
    s, t = torch.linspace(0.5, 2, d).double(), torch.linspace(3, 1, d).double()
    shift = torch.arange(d).double()
    assert fid(x * s, x * t + shift) == pytest.approx(float(shift.square().sum() + (s - t).square().sum()))
    assert fid(x, x) == pytest.approx(0, abs=1e-9)


def test_kid_by_definition() -> None:
    """Sums over different images, and sets of different size, which torchmetrics can't compare."""
    x, y = normal(4, 3, rng(0)), normal(6, 3, rng(1))

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 12
    within_y = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 30
    across = sum(k(a, b) for a in x for b in y) / 24
    assert kid(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_kid_of_equal_laws_is_zero_on_average() -> None:
    draw = rng()
    found = torch.tensor([kid(normal(20, 4, draw), normal(12, 4, draw)) for _ in range(400)])
    assert (found < 0).any()
    assert abs(found.mean()) < 3 * found.std() / 20


def test_kernels_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, z = normal(30, 4, rng(0)), normal(30, 4, rng(1), 1), normal(23, 4, rng(2), 3)
    whole = kid_intervals(x, y, z, 30, rng())
    monkeypatch.setattr(sys.modules["ms2.metrics.kid"], "MAX_KERNEL_VALUES_PER_CHUNK", 100)
    for a, b in zip(kid_intervals(x, y, z, 30, rng()), whole, strict=True):
        assert a is not None and b is not None
        assert [a.value, a.low, a.high] == pytest.approx([b.value, b.low, b.high])


# --- intervals ---


@pytest.mark.parametrize(("n", "m", "d"), [(150, 100, 3), (40, 30, 50)], ids=["many images", "many features"])
def test_intervals_hold_the_truth(n: int, m: int, d: int) -> None:
    """KID's that of the laws, FID's the mean of as many images; also those of the change."""
    draw, shifts = rng(), (1.8, 1.0, 0.0)

    def sets() -> list[Tensor]:
        return [normal(k, d, draw, shift) for k, shift in zip((n, n, m), shifts, strict=True)]

    many = torch.tensor([[kid(y, z), kid(x, z), fid(y, z), fid(x, z)] for x, y, z in (sets() for _ in range(300))])
    mean = many.mean(0)
    truth = [mean[0], mean[1], mean[0] / mean[1] - 1, mean[2], mean[3], (many[:, 2] / many[:, 3] - 1).mean()]
    hits, runs = torch.zeros(6), 60
    for _ in range(runs):
        x, y, z = sets()
        for i, interval in enumerate((*kid_intervals(x, y, z, 100, draw), *fid_intervals(x, y, z))):
            assert interval is not None and interval.low <= interval.value <= interval.high
            hits[i] += interval.low <= float(truth[i]) <= interval.high
    assert hits.min() >= 0.85 * runs  # of 95 %, with 60 runs
    assert hits.sum() < 6 * runs  # nor are they endless


def test_there_is_no_change_where_the_priors_distance_might_be_zero() -> None:
    same = [normal(40, 3, rng(seed)) for seed in range(3)]
    now, before, change = kid_intervals(*same, 50, rng())  # type: ignore[arg-type]
    assert before.low < 0 < before.high and now.low < now.high and change is None


def test_halving_a_shift_is_told_as_a_change() -> None:
    real = normal(400, 2, rng(0))
    found = ImageDistances(Gaze(), num_images=400).compare(
        normal(400, 2, rng(1), 2), normal(400, 2, rng(2), 1), real, rng()
    )
    (kid_now, kid_before, kid_change), (fid_now, fid_before, fid_change) = found["kid"], found["fid"]
    assert kid_change is not None and fid_change is not None
    assert fid_change.value == pytest.approx(-0.75, abs=0.05)
    assert -0.9 < fid_change.low < fid_change.value < fid_change.high < -0.6
    assert kid_change.high < -0.5
    assert kid_now.value < kid_before.value and fid_now.value < fid_before.value


# --- which features ---


def weights_file(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"squeeze{seed}.pt"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_the_name_says_which_features(tmp_path: Path) -> None:
    path = weights_file(tmp_path, 1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    features = Backbone("squeezenet1_1", "features.3", str(path))
    assert ImageDistances(features).features_name == f"Backbone squeezenet1_1 features.3, squeeze1.pt (sha256 {digest})"
    smaller = Backbone("squeezenet1_1", "features.3", str(path), size=(40, 40))
    assert ImageDistances(smaller).features_name == (
        f"Backbone squeezenet1_1 features.3, size [40, 40], squeeze1.pt (sha256 {digest})"
    )
    assert ImageDistances(Gaze(blocks=["a", "b"]), block="b").features_name.startswith(
        "Gaze, blocks ['a', 'b'], block b, weights ("
    )


def test_the_name_changes_with_the_weights(tmp_path: Path) -> None:
    paths = [weights_file(tmp_path, seed) for seed in (1, 2)]
    names = {ImageDistances(Backbone("squeezenet1_1", "features.3", str(path))).features_name for path in paths}
    paths[1].rename(paths[0])  # other weights under the same name
    names.add(ImageDistances(Backbone("squeezenet1_1", "features.3", str(paths[0]))).features_name)
    names |= {ImageDistances(Backbone("squeezenet1_1", "features.3", None, seed=seed)).features_name for seed in (0, 1)}
    assert len(names) == 5 and sum("random weights" in name for name in names) == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ImageDistances(Beads()), "Beads, which is made to be trained.*such as InceptionPool3"),
        (lambda: ImageDistances(Gaze(), num_images=5), "num_images must be at least 10, not 5"),
        (lambda: ImageDistances(Gaze(), max_target_images=1), "max_target_images must be at least 10, not 1"),
        (lambda: ImageDistances(Gaze(), batch_size=0), "batch_size must be at least 1, not 0"),
    ],
)
def test_settings_that_make_no_sense(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_settings_can_be_written_down() -> None:
    assert settings_of(ImageDistances(Gaze(), 50))["features"]["class"].endswith("Gaze")


# --- in a run ---


def started(folder: Path, distances: ImageDistances, num_images: int = 40) -> tuple[MetaSim2, TargetImages]:
    """A model at the end of a tiny run, and its data."""
    model = learner(abacus())
    data = images(model.world, num_images, batch_size=8)
    data.cache = folder / "cache"
    validation = Validation(Evaluation(image_distances=distances))
    trainer(folder, 1, callbacks=[validation]).fit(model, datamodule=data)
    return model, data


def measured(model: MetaSim2, data: TargetImages, distances: ImageDistances) -> ImageResult | None:
    evaluation = Evaluation(image_distances=distances)
    return evaluation.measure_images(model.scene_model, data.target, model.device, data.embedded, Processes.current())


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (
            ImageDistances(Gaze(blocks=["a", "b"])),
            r"several blocks: choose one with evaluation\.image_distances\.block\. Available: a, b",
        ),
        (ImageDistances(Gaze(), block="lok"), r"block is 'lok', which Gaze doesn't give\. Did you mean 'look'"),
    ],
)
def test_a_wrong_block_stops_the_run_before_it_learns(tmp_path: Path, measure: ImageDistances, said: str) -> None:
    with pytest.raises(UserError, match=said):
        started(tmp_path, measure)


def test_too_few_target_images_stop_the_run_before_it_learns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="9 images of the target: they need at least 10"):
        started(tmp_path, ImageDistances(Gaze()), num_images=9)


def test_features_that_are_not_finite_are_named() -> None:
    x = normal(20, 3, rng())
    with pytest.raises(UserError, match="images of the model is not finite"):
        ImageDistances(Gaze()).compare(x, x / 0, x, rng())


def test_its_extractor_is_no_part_of_the_model(tmp_path: Path) -> None:
    """Else checkpoints would hold it, and processes would look for its gradients."""
    features = Gaze()
    features.weight = nn.Parameter(torch.ones(3))
    model, _ = started(tmp_path, ImageDistances(features, 20))
    assert {name.partition(".")[0] for name in model.state_dict()} == {"structure", "features"}
    assert not any(value is features.weight for value in model.parameters())


def test_features_of_the_target_are_cached(tmp_path: Path) -> None:
    model, data = started(tmp_path, ImageDistances(Gaze(), 20))
    Gaze.seen = 0
    first = measured(model, data, ImageDistances(Gaze(), 20))
    assert first is not None and set(first.distances) == {"kid", "fid"}
    assert set(first.distances["kid"]) == {"prior", "learned"} and first.num_generated == 20 and first.num_real == 40
    assert Gaze.seen == 1 + 40 + 2 * 20  # to know the blocks; the target's, the prior's, the model's
    Gaze.seen = 0
    again = measured(model, data, ImageDistances(Gaze(), 20))
    assert Gaze.seen == 1 + 2 * 20 and again == first
    fewer = measured(model, data, ImageDistances(Gaze(), 20, max_target_images=15))
    assert fewer is not None and fewer.num_real == 15
    other = measured(model, data, ImageDistances(Gaze(scale=2.0), 20))
    assert other is not None and other.distances["fid"] != first.distances["fid"]
    assert len(list((tmp_path / "cache").glob("TargetFeatures-*.pt"))) == 4  # those of the objective too


def test_target_images_are_embedded_without_a_cache_too(tmp_path: Path) -> None:
    distances = ImageDistances(Gaze(), 20, batch_size=6)
    model, data = started(tmp_path, distances)
    found = Evaluation(image_distances=distances).measure_images(model.scene_model, data.target)
    assert found == measured(model, data, distances)


def test_the_prior_alone_can_be_measured() -> None:
    """Then the learned row is drawn from the prior too."""
    world = abacus()
    evaluation = Evaluation(image_distances=ImageDistances(Gaze(), 20))
    found = evaluation.measure_images(SceneModel(world), images(world, 12).target)
    assert found is not None and list(found.distances["kid"]) == ["prior", "learned"]


def test_batches_of_another_size_are_of_the_same_number(tmp_path: Path) -> None:
    distances = ImageDistances(Gaze(), 25, batch_size=7)
    found = measured(*started(tmp_path, distances), distances)
    assert found is not None and found.num_generated == 25


def fill(model: MetaSim2) -> None:
    with torch.no_grad():
        for value in model.structure.parameters():
            value.fill_(0.1)


def ranked(folder: Path) -> ImageResult | None:
    model = learner(abacus())
    data = images(model.world, 41, batch_size=8)
    trainer(folder, 1, devices=2, strategy="ddp", limit_val_batches=0).fit(model, datamodule=data)
    fill(model)
    return measured(model, data, ImageDistances(Gaze(), 25, batch_size=4))


def test_two_processes_share_the_images_and_agree_with_one(tmp_path: Path) -> None:
    distances = ImageDistances(Gaze(), 25, batch_size=4)
    model, data = started(tmp_path, distances, num_images=41)
    fill(model)
    expected = measured(model, data, distances)
    first, second = on_two_ranks(ranked, tmp_path, tmp_path)
    assert second is None and expected is not None
    assert (first.features, first.num_generated, first.num_real) == (expected.features, 25, 41)
    for found, known in ((first.distances, expected.distances), (first.changes, expected.changes)):
        assert found.keys() == known.keys()
        for name, rows in known.items():
            for row, estimate in rows.items():
                one = found[name][row]
                assert (one.value, one.low, one.high) == pytest.approx(
                    (estimate.value, estimate.low, estimate.high), rel=1e-6
                )


SETTINGS: dict[str, Any] = {
    "evaluation__image_distances__features": "Backbone",
    "evaluation__image_distances__features__architecture": "squeezenet1_1",
    "evaluation__image_distances__features__layer": "features.3",
    "evaluation__image_distances__num_images": 12,
}


def test_a_run_leaves_them_in_its_results_and_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS | {"evaluation__image_distances__features__weights": weights_file(tmp_path, 1)}
    run = fit(tmp_path, "run", **settings)
    found = results_of(run).images
    assert found is not None
    assert found.distances.keys() == found.changes.keys() == {"kid", "fid"}
    for rows in found.distances.values():
        for row in ("learned", "prior"):
            ends = rows[row].interval
            assert ends is not None and ends[0] <= rows[row].value <= ends[1]
    fid, prior = (found.distances["fid"][row].value for row in ("learned", "prior"))
    assert fid > 0
    assert found.features.startswith("Backbone squeezenet1_1 features.3, squeeze1.pt (sha256 ")
    assert (found.num_generated, found.num_real) == (12, 40)
    assert f"FID {fid:.4g} (prior {prior:.4g}) by Backbone" in capsys.readouterr().out
    [log] = run.glob("csv/version_*/metrics.csv")
    logged = [row for row in csv.DictReader(log.read_text().splitlines()) if row["final/fid"]]
    assert [float(row["final/fid"]) for row in logged] == pytest.approx([fid], rel=1e-4)

    (run / "metrics.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    ms2(["test", *words(tmp_path, name="run", **settings)[1:]])
    assert results_of(run).images == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == kept


def test_weights_that_are_missing_end_the_command_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As all bad input, though jsonargparse wraps what goes wrong in an optional part."""
    with pytest.raises(SystemExit, match="2"):
        fit(tmp_path, "run", **SETTINGS, evaluation__image_distances__features__weights="gone.pt")
    assert capsys.readouterr().err.startswith("ms2: there are no weights ")


def test_a_run_without_it_says_nothing_of_it(tmp_path: Path) -> None:
    assert results_of(fit(tmp_path, "run")).images is None


@pytest.mark.skipif("MS2_DATA" not in os.environ, reason="MS2_DATA, with the folder weights, is not set")
def test_inceptions_name_is_that_of_its_file() -> None:
    from ms2.features.backbone import InceptionPool3

    path = Path(os.environ["MS2_DATA"], "weights", "inception_v3_imagenet_to_mixed7a_fp16.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    name = ImageDistances(InceptionPool3("Mixed_7a", str(path))).features_name
    assert name == f"InceptionPool3 Mixed_7a, {path.name} (sha256 {digest})"


def test_weights_are_named_by_their_file_also_where_a_variable_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.pt")
    monkeypatch.setenv("MY_WEIGHTS", str(tmp_path))
    plain, typed = (
        ImageDistances(Backbone("squeezenet1_1", "features.3", p)) for p in (str(tmp_path / "w.pt"), "$MY_WEIGHTS/w.pt")
    )
    assert plain.features_name == typed.features_name and "w.pt (sha256 " in typed.features_name
