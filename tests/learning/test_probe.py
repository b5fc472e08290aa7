"""The probe of extractors whose errors are known."""

from dataclasses import replace

import pytest
import torch
from helpers import EXPECTED, Abacus, Beads, abacus
from torch import Tensor

from ms2.features.base import Blocks
from ms2.learning.probe import describe_readings, probe
from ms2.metrics.results import ProbeResult, ReadingAccuracy
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement

pytestmark = EXPECTED


class FirstAlone(Abacus):
    """An abacus on which nobody sees more than the first bead."""

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        visibility = torch.zeros(scenes.classes.shape)
        visibility[:, :1] = 0.5
        return replace(super().render_labelled(scenes), visibility=visibility)


def probed(features: Beads) -> ProbeResult:
    return probe(features, abacus(), {"prior": UniformPlacement()}, num_images=300)["prior"]


def test_probing_a_perfect_extractor() -> None:
    found = probed(Beads())
    assert found.scores == pytest.approx({"presence_accuracy": 1, "class_error": 0, "count_accuracy": 1}, abs=1e-5)
    assert found.count_error == pytest.approx(dict.fromkeys(range(4), 0), abs=1e-5)
    assert found.slot_errors == {}


def test_probing_one_that_counts_one_too_many() -> None:
    said = r"parameter prior 'prior': objects by \+1\.00 where there are \d and 3 more"
    with pytest.warns(UserWarning, match=said):
        found = probed(Beads(too_many=1))
    assert found.scores["count_accuracy"] == 0 and found.scores["class_error"] == pytest.approx(0, abs=1e-5)
    assert found.count_error == pytest.approx(dict.fromkeys(range(4), 1))


def test_probing_one_that_sees_half_of_each_object() -> None:
    """Half an object is not present; of two, the half is one too few, and of three, 1.5 too few."""
    with pytest.warns(UserWarning, match=r"objects by -1\.80 where there are 3 and 2 more"):
        found = probed(Beads(scale=6.0))
    counts = abacus().sample_prior(384, probe_generator())[:300].counts(10)
    assert found.scores["class_error"] == pytest.approx(0.6 * counts.float().mean().item())
    assert found.scores["presence_accuracy"] == pytest.approx(((counts > 1) == (counts > 0)).float().mean().item())
    assert found.scores["count_accuracy"] == pytest.approx((counts.sum(1) == 0).float().mean().item())


class Seen(Beads):
    """Reads the first bead alone, as it was not told of any that is hidden."""

    min_visibility = 0.1

    def forward(self, images: Tensor) -> Blocks:
        counts = super().forward(images)["classes"]
        some = counts.sum(1, keepdim=True)
        return {"classes": counts / some.clamp(min=1), "count": some.clamp(max=1)}


def test_what_an_extractor_is_not_told_of_is_no_mistake() -> None:
    world = World(MultiMNIST(), UniformDigits(3), UniformPlacement(), FirstAlone())
    found = probe(Seen(), world, {"prior": UniformPlacement()}, num_images=300)["prior"]
    assert found.count_error == pytest.approx({0: 0, 1: 0}, abs=1e-5)
    assert found.scores["count_accuracy"] == 1


def probe_generator() -> torch.Generator:
    from ms2.core.seeding import generator

    return generator(0, "probe", "prior", "block", 0)


def test_the_table_says_what_is_read() -> None:
    """Names without the block's prefix; what no image shows is left out."""
    cars = ReadingAccuracy(-0.1, 0.5, 0.912, 1.2, 1.8, 0.9, 2.0, "read")
    unseen = ReadingAccuracy(0, 0, 0, 0, 0, 0, 1.1, "not read")
    lines = describe_readings({"count_car": cars, "count_Rural": unseen}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["car", "-0.10", "0.50", "0.91", "1.20", "of", "1.80", "0.90", "of", "2.00", "read"]
    ]
    assert lines[0].index("deviation") == lines[1].index("0.50")
