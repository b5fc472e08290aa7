"""Detectors trained on samples that are made meanwhile, beside those trained on a written set of the same samples."""

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ms2.core.errors import UserError
from ms2.datasets.formats.native import GeneratedSet
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.stream import LabelledStream
from ms2.evaluation.detectors.detector import Detector
from ms2.evaluation.detectors.loading import GPU_WORKERS, default_workers
from ms2.evaluation.detectors.training import evaluate_detector, train_detector
from ms2.models.opened_mixture import Opened, open_models

EXAMPLE = Path(__file__).parents[2] / "examples" / "shapes"
pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")
QUIET: dict[str, Any] = {"accelerator": "cpu", "progress": False}
STEPS, BATCH = 30, 4


@pytest.fixture(scope="module", autouse=True)
def acme() -> Iterator[None]:
    """The module of squares and discs, forgotten afterwards: its classes are plug-ins as long as they exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE / "src"))
        patch.setattr(sys, "dont_write_bytecode", True)
        importlib.import_module("acme_shapes")
        yield
    del sys.modules["acme_shapes"]
    gc.collect()


def shapes() -> Opened:
    return open_models([str(EXAMPLE / "shapes.yaml")], arguments=["--world.renderer.canvas=40"])


def written(source: Opened, folder: Path, number: int, seed: int) -> GeneratedSet:
    assert generate(Job(source, Plan(number, seed, formats=()), folder), progress=False)
    return GeneratedSet(folder)


def test_a_detector_learns_from_a_stream_as_from_a_set(tmp_path: Path) -> None:
    """Each sample is seen once in both, in another order."""
    source = shapes()
    data = written(source, tmp_path / "set", STEPS * BATCH, 0)
    test = written(source, tmp_path / "test", 48, 1)
    found = []
    for samples in (data, LabelledStream(source, seed=0)):
        detector = Detector(data.categories, max_steps=STEPS, batch_size=BATCH, lr=2e-3)
        train_detector(detector, samples, **QUIET)
        found.append(evaluate_detector(detector, test, resamples=100, **QUIET)["mean"])
    of_set, of_stream = found
    assert of_set.value > 0.2 < of_stream.value, "an untrained detector has 0"
    assert of_stream.low <= of_set.high and of_set.low <= of_stream.high


def test_what_a_stream_lacks_is_named_and_where_it_is_made() -> None:
    source = shapes()
    stream = LabelledStream(source)
    with pytest.raises(UserError, match="maskrcnn_resnet18_fpn learns masks, which the set lacks"):
        train_detector(Detector(stream.categories, "maskrcnn_resnet18_fpn"), stream, **QUIET)
    with pytest.raises(UserError, match="the detector's categories are disc, but the set's are square, disc"):
        train_detector(Detector(["disc"]), stream, **QUIET)
    on_gpu = LabelledStream(source, device="meta")
    assert [default_workers(each, torch.device("cuda")) for each in (stream, on_gpu)] == [GPU_WORKERS, 0]
