"""Counts of a detector beside those of an extractor that is trained."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import EXPECTED, Bars, bar_counts, bars, rng, stage_trainer
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.features.base import CountError
from ms2.features.dense import DenseCounts
from ms2.features.detection.height_recall import RecallByHeight
from ms2.features.mixed_counts import MixedCounts
from ms2.features.pretrained import PretrainedCounts
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.probe import probe
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World

pytestmark = EXPECTED
DIGITS = list("0123456789")


def trained(**more: object) -> DenseCounts:
    torch.manual_seed(0)
    return DenseCounts(1, DIGITS, widths=(4, 4, 4), strides=(1, 1, 1), **({"max_count": {"2": 3, "7": 2}} | more))


def mixed(**more: object) -> MixedCounts:
    return MixedCounts(1, DIGITS, bar_counts("012", min_height=3), trained(**more))


class LargeBars(Bars, selectable=False):
    """`Bars` of twice the size, which are never rendered with labels."""

    size = (8, 32)

    def render(self, scenes: SceneBatch) -> Tensor:
        return F.interpolate(Bars().render(scenes), self.size)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        raise AssertionError("rendered at the whole size")

    def resized(self, factor: float) -> Bars:
        assert factor == 0.5
        return Bars()


def large_bars() -> World:
    world = bars()
    return World(world.grammar, world.structure_prior, world.parameter_prior, LargeBars())


def half_size(**more: object) -> MixedCounts:
    """A detector that finds all bars of three classes, and a trained extractor that sees images of half the size."""
    every = {name: dict.fromkeys("012", n) for name, n in (("ceiling", 1.0), ("half_height", 1e-6), ("slope", 9.0))}
    recall = RecallByHeight(**every, false_boxes=dict.fromkeys("012", 0.0))
    detected = bar_counts("012", min_height=6, recall=recall, label_scale=0.5)
    return MixedCounts(1, DIGITS, detected, trained(**more))


def images(number: int = 5) -> Tensor:
    world = bars()
    return world.renderer.render(world.sample_prior(number, rng()))


def test_each_class_is_read_by_the_part_that_reads_it() -> None:
    features, some = mixed(), images()
    read, ours, theirs = (f.predict_counts(some).counts for f in (features, features.detected, features.trained))
    assert torch.equal(read[:, :3], ours[:, :3]) and torch.equal(read[:, 3:], theirs[:, 3:])
    assert read.isfinite().all() and not torch.equal(ours[:, :3], theirs[:, :3])
    assert torch.equal(features.predict_counts(some).slots, read)


def test_blocks_are_those_of_both_and_the_detectors_where_both_have_one() -> None:
    features, some = mixed(), images()
    blocks, ours, theirs = (f(some) for f in (features, features.detected, features.trained))
    assert set(blocks) == {"classes", "count_0", "count_1", "count_2", "count_7"}
    assert torch.equal(blocks["count_2"], ours["count_2"]) and torch.equal(blocks["count_7"], theirs["count_7"])
    assert torch.equal(blocks["classes"], features.predict_counts(some).counts)
    assert set(features.channel.names) == {f"count_{name}" for name in DIGITS}
    assert set(features.overflow_fraction(some)) == {"count_0", "count_1", "count_2", "count_7"}


def test_objects_are_labelled_by_the_least_height_of_the_part_that_reads_them() -> None:
    world = bars()
    labels = world.renderer.render_labelled(world.sample_prior(50, rng()))  # of a height of 4
    features = MixedCounts(1, DIGITS, bar_counts("012", min_height=3), trained(min_height=5))
    assert torch.equal(features.labelled(labels), (labels.classes >= 0) & (labels.classes < 3))
    features = MixedCounts(1, DIGITS, bar_counts("012", min_height=5), trained(min_height=3))
    assert torch.equal(features.labelled(labels), labels.classes >= 3)
    assert not features.labels_all
    assert MixedCounts(1, DIGITS, bar_counts("0", min_visibility=0.0), trained()).labels_all


def test_only_the_trained_part_is_trained() -> None:
    backbone = PretrainedCounts(1, DIGITS, layers=["features.4"], weights=None, width=4)
    features = MixedCounts(1, DIGITS, bar_counts("012"), backbone).requires_grad_(False)
    features.detected.detector.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
    features.train().requires_grad_(True)
    names = {name.split(".")[1] for name, p in features.named_parameters() if p.requires_grad}
    assert names == {"trunk", "head"}, "neither the detector nor the backbone"
    assert features.trained.trunk.training and not features.detected.training
    some = images()
    labels = bars().renderer.render_labelled(bars().sample_prior(5, rng()))
    assert torch.equal(features.eval().loss(some, labels), backbone.loss(some, labels))


def test_the_channel_of_both_is_measured(tmp_path: Path) -> None:
    features = mixed(max_count={"2": 3, "7": 3})
    stage = ExtractorTraining(bars(), features, max_steps=2, batch_size=8, num_probe_images=300)
    stage_trainer(tmp_path, stage).fit(stage)
    read = stage.findings["prior"].readings
    assert set(read) == set(features.channel.names)
    assert read["count_0"].correlation == pytest.approx(1) and read["count_7"].deviation > 0.1


def test_readings_of_the_detector_may_be_drawn_from_what_renders_show() -> None:
    none = {name: dict.fromkeys("012", n) for name, n in (("ceiling", 0.0), ("half_height", 1.0), ("slope", 1.0))}
    recall = RecallByHeight(**none, false_boxes=dict.fromkeys("012", 0.0))
    features = MixedCounts(1, DIGITS, bar_counts("012", recall=recall), trained())
    labels = bars().renderer.render_labelled(bars().sample_prior(50, rng()))
    read = features.predict_labelled(labels, rng()).slots
    assert (read[:, :3] == 0).all() and features.predict_counts(labels.image).slots[:, :3].any()
    assert torch.equal(read[:, 3:], features.trained.predict_counts(labels.image).slots[:, 3:])


def test_the_trained_extractor_sees_whole_images_at_the_size_of_its_training_images() -> None:
    world, features = large_bars(), half_size()
    whole = world.renderer.render(world.sample_prior(5, rng()))
    small = F.interpolate(whole, (4, 16), mode="bilinear", antialias=True)
    read, blocks = features.predict_counts(whole).counts, features(whole)
    assert torch.equal(read[:, 3:], features.trained.predict_counts(small).counts[:, 3:])
    assert torch.equal(read[:, :3], features.detected.predict_counts(whole).counts[:, :3])
    assert torch.equal(blocks["count_7"], features.trained(small)["count_7"])
    assert features.overflow_fraction(whole)["count_7"] == features.trained.overflow_fraction(small)["count_7"]


def test_it_is_trained_on_images_that_are_rendered_small_with_labels_of_their_size() -> None:
    world, features = large_bars(), half_size(min_height=3)
    scenes = world.sample_prior(50, rng())
    labels, small = features.render_labelled(world.renderer, scenes), Bars().render_labelled(scenes)
    assert torch.equal(labels.image, small.image) and torch.equal(labels.boxes, 2 * small.boxes)
    assert torch.equal(features.loss(labels.image, labels), features.trained.loss(small.image, small))
    assert torch.equal(features.labelled(labels), labels.classes >= 0), "8 pixels in whole images, 4 in small ones"
    assert not half_size(min_height=5).labelled(labels)[labels.classes > 2].any(), "higher than any in the small image"


def test_generated_scenes_are_read_in_the_small_image_and_its_labels() -> None:
    world, features = large_bars(), half_size()
    scenes = world.sample_prior(20, rng())
    blocks, small = features.embed_scenes(world.renderer, scenes, rng()), Bars().render(scenes)
    true = torch.stack([(scenes.classes == number).sum(1) for number in range(3)], 1).float()
    assert torch.equal(blocks["classes"][:, :3], true)
    assert torch.equal(blocks["classes"][:, 3:], features.trained(small)["classes"][:, 3:])
    assert torch.equal(blocks["count_7"], features.trained(small)["count_7"])


def test_nothing_is_rendered_at_the_whole_size_while_it_is_trained_and_measured(tmp_path: Path) -> None:
    features = half_size(max_count={"2": 3, "7": 3})
    stage = ExtractorTraining(large_bars(), features, max_steps=4, batch_size=8, num_probe_images=300, num_images=16)
    stage.check()
    stage_trainer(tmp_path, stage).fit(stage)
    read = stage.findings["prior"].readings
    assert read["count_0"].correlation == pytest.approx(1) and read["count_7"].deviation > 0.1
    assert probe(features, large_bars(), {"prior": large_bars().parameter_prior}, 40)["prior"].readings


def test_both_parts_have_to_count_far_enough() -> None:
    some = torch.tensor([[2, 2, 7, 7, 7]])
    nobody, seen = torch.full_like(some, -1), torch.ones(1, 5, dtype=torch.bool)
    with pytest.raises(CountError, match="3 7, but the extractor counts only to 2"):
        mixed().check_numbers(some, nobody, seen)
    with pytest.raises(CountError, match="2 2, but the extractor counts only to 1"):
        MixedCounts(1, DIGITS, bar_counts("2", max_count=1), trained(max_count=9)).check_numbers(some, nobody, seen)


def test_objects_of_several_parents_are_refused() -> None:
    with pytest.raises(UserError, match=r"leave out features\.trained\.parents_per_class"):
        mixed(parents_per_class={"7": 2})
