"""Counts of what a detector finds: which classes, from which score and height, at which scale, and in the blocks."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ms2.core.errors import UserError
from ms2.features.base import Blocks, CountError, FeatureExtractor, TrainedExtractor
from ms2.features.colours import ImageColours
from ms2.features.detection.box_layout import BoxLayout
from ms2.features.detection.detections import Detections
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.height_recall import RecallByHeight
from ms2.features.detection.object_detector import ObjectDetector
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch

CLASSES = ("Rural", "car", "truck", "cyclist", "pedestrian", "tree")
CATEGORIES = ("person", "bicycle", "car", "motorcycle", "bus", "train", "truck", "cat")
CAR, PERSON, BICYCLE = (CATEGORIES.index(name) for name in ("car", "person", "bicycle"))
IMAGES = torch.zeros(2, 3, 64, 96)
EXACT = {"ceiling": 1.0, "half_height": 1e-6, "slope": 20.0, "false_boxes": 0.0}
"""Numbers of `RecallByHeight` without errors."""
Found = Sequence[tuple[str, float, Sequence[float]]]


class Told(ObjectDetector, selectable=False):
    """Finds what it is told, in every image.

    Args:
        found: Category, score and box of each object.
    """

    categories = CATEGORIES

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found, self.given = found, list[Tensor]()

    def forward(self, images: Tensor) -> Detections:
        self.given.append(images)
        boxes = torch.tensor([box for *_, box in self.found]).float().view(1, -1, 4).expand(len(images), -1, -1)
        scores = torch.tensor([[score for _, score, _ in self.found]]).view(1, -1).expand(len(images), -1)
        categories = torch.tensor([[CATEGORIES.index(name) for name, *_ in self.found]]).long().view(1, -1)
        return Detections(boxes, scores, categories.expand(len(images), -1))


def make(found: Found = (), **settings: object) -> DetectorCounts:
    return DetectorCounts(3, CLASSES, Told(found), **settings)


def box(x: float, height: float = 20, y: float = 10) -> list[float]:
    return [x, y, x + 10, y + height]


STREET: Found = (
    ("car", 0.9, box(0)),
    ("car", 0.6, box(20)),
    ("bus", 0.9, box(40)),
    ("person", 0.8, box(60, 20, 10)),
    ("bicycle", 0.55, box(60, 20, 20)),
    ("person", 0.7, box(80)),
    ("cat", 0.9, box(100)),
)


def counts(found: Found = STREET, **settings: object) -> dict[str, float]:
    """Numbers by class, of those that are counted."""
    values = make(found, **settings).predict_counts(IMAGES).counts
    assert torch.equal(values[0].nan_to_num(-1), values[1].nan_to_num(-1))
    return {name: n for name, n in zip(CLASSES, values[0].tolist(), strict=True) if not math.isnan(n)}


def test_a_streets_vehicles_people_and_riders_are_counted() -> None:
    assert counts() == {"car": 2, "truck": 1, "cyclist": 1, "pedestrian": 1}
    assert counts(()) == {"car": 0, "truck": 0, "cyclist": 0, "pedestrian": 0}


def test_scores_may_differ_by_class() -> None:
    assert counts(min_score=0.7) == {"car": 1, "truck": 1, "cyclist": 0, "pedestrian": 2}
    # a bicycle needs the score of a cyclist, and who sits on it that of a pedestrian
    assert counts(min_score={"cyclist": 0.56})["cyclist"] == 0
    assert counts(min_score={"cyclist": 0.55, "pedestrian": 0.81}) == {"car": 2, "truck": 1, "cyclist": 0} | {
        "pedestrian": 0
    }
    assert counts(min_score={"car": 0.95}) == {"car": 0, "truck": 1, "cyclist": 1, "pedestrian": 1}


def test_who_rides_depends_on_the_overlap() -> None:
    """The boxes of the rider and the bicycle share a half."""
    assert counts(min_rider_overlap=0.5)["cyclist"] == 1
    assert counts(min_rider_overlap=0.51) == {"car": 2, "truck": 1, "cyclist": 0, "pedestrian": 2}


def test_what_is_low_is_not_counted_and_a_riders_box_covers_the_bicycle() -> None:
    assert counts(min_height=20) == counts()
    assert counts(min_height=21) == {"car": 0, "truck": 0, "cyclist": 1, "pedestrian": 0}
    assert counts(min_height=31)["cyclist"] == 0
    assert counts(min_height={"car": 21, "cyclist": 30}) == {"car": 0, "truck": 1, "cyclist": 1, "pedestrian": 1}


def test_one_object_counts_once_whatever_it_is_called() -> None:
    van = (("car", 0.6, box(0)), ("truck", 0.7, box(1)))
    assert counts(van) == {"car": 0, "truck": 1, "cyclist": 0, "pedestrian": 0}
    assert counts(van, max_iou=0.9)["car"] == 1
    on_top = (("person", 0.6, box(0)), ("bicycle", 0.7, box(1)))
    assert counts(on_top)["cyclist"] == 1, "a rider and what he rides on are two"


def test_categories_of_a_class_are_a_setting() -> None:
    assert counts(categories={"car": ["car", "bus"], "tree": ["cat"]}) == {"car": 3, "tree": 1}
    assert counts(categories={"pedestrian": ["person", "rider"]}) == {"pedestrian": 2}
    assert counts(categories={"pedestrian": ["person"]}) == {"pedestrian": 1}, "one of them rides"
    assert counts(categories={"cyclist": ["rider"]}, min_score={"cyclist": 0.56}) == {"cyclist": 0}


def test_images_are_enlarged_and_boxes_are_those_of_the_image() -> None:
    features = make([("car", 0.9, [0, 0, 30, 40])], scale=2.5)
    found = features.detect(torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(0)))
    (given,) = features.detector.given
    assert (
        given.shape == (1, 3, 50, 75) and torch.equal(given[:, 0], given[:, 2]) and 0 <= given.min() <= given.max() <= 1
    )
    assert found.boxes[0, 0].tolist() == [0, 0, 12, 16]
    assert make([("car", 0.9, [-5, -5, 30, 40])]).detect(torch.zeros(1, 3, 20, 25)).boxes.tolist() == [[[0, 0, 25, 20]]]


def test_blocks_hold_the_classes_that_are_counted() -> None:
    blocks = make(STREET, max_count={"car": 1, "pedestrian": 3}, count_kernel_std=0.5)(IMAGES)
    assert list(blocks) == ["classes", "count_car", "count_truck", "count_cyclist", "count_pedestrian"]
    assert blocks["classes"].tolist() == [[2, 1, 1, 1]] * 2
    assert blocks["count_car"].shape == (2, 2) and blocks["count_truck"].shape == (2, 21)
    wanted = torch.exp(-0.5 * ((1.0 - torch.arange(4)) / 0.5) ** 2)
    assert torch.allclose(blocks["count_pedestrian"][0], wanted)
    assert blocks["count_car"][0].argmax() == 1, "numbers above the largest are taken for it"
    assert make(STREET, max_count={"car": 1}).overflow_fraction(IMAGES) == {
        "count_car": 1, "count_truck": 0, "count_cyclist": 0, "count_pedestrian": 0,
    }  # fmt: skip


def test_readings_that_are_not_taken_are_nan_and_do_not_spoil_those_of_others() -> None:
    features = make(STREET)
    read = features.predict_counts(IMAGES)
    assert read.presence is None and read.total.isnan().all()
    assert features.channel.names == [f"count_{name}" for name in CLASSES], "numbers that are not read are kept"
    assert features.channel.sums(read.slots).tolist() == [[0, 2, 1, 1, 1, 0]] * 2


def test_a_detector_may_know_no_people() -> None:
    class Cars(Told, selectable=False):
        """Finds cars alone."""

        categories = ("car",)

    features = DetectorCounts(3, ["car"], Cars([]))
    assert features.predict_counts(IMAGES).counts.tolist() == [[0], [0]]


def test_nothing_is_trained() -> None:
    features = make(STREET).train().requires_grad_(True)
    assert not isinstance(features, TrainedExtractor)
    assert not features.training and not features.detector.training and list(features.parameters()) == []
    assert features.device == torch.device("cpu")


def labels(classes: list[int], heights: list[float], visibility: float = 1.0) -> Rendering:
    """Labels of one image."""
    boxes = torch.tensor([[[0, 0, 10, height] for height in heights]]).float()
    kinds, corners = torch.tensor([classes]), torch.zeros(1, len(classes), 4, 2)
    seen = torch.full((1, len(classes)), visibility)
    return Rendering(IMAGES[:1], kinds, torch.full_like(kinds, -1), boxes, corners, boxes, IMAGES[:1, 0].long(), seen)


def test_renders_are_labelled_by_the_same_least_height() -> None:
    features = make(min_height=15)
    assert features.labelled(labels([1, 1], [15, 14])).tolist() == [[True, False]]
    assert features.labelled(labels([1, 1], [15, 14], visibility=0.09)).tolist() == [[False, False]]


def test_renders_are_labelled_by_the_least_height_of_their_class() -> None:
    features = make(min_height={"car": 15, "pedestrian": 25})
    seen = features.labelled(labels([1, 1, 4, 4, 2, 5, -1], [15, 14, 25, 24, 1, 1, 99]))
    assert seen.tolist() == [[True, False, True, False, True, True, False]]
    assert not features.labels_all


def test_readings_of_renders_may_be_drawn_from_what_they_show() -> None:
    """Here without errors, though the detector finds nothing."""
    of_all = {name: dict.fromkeys(("car", "truck", "cyclist", "pedestrian"), n) for name, n in EXACT.items()}
    features = make(recall=RecallByHeight(**of_all), min_height={"car": 15})
    shown, draw = labels([1, 1, 4, 5, 0, -1], [15, 14, 25, 24, 1, 1]), torch.Generator().manual_seed(0)
    read = features.predict_labelled(shown, draw)
    assert read.slots[0].nan_to_num(-1).tolist() == [-1, 1, 0, 0, 1, -1] and features.detector.given == []
    assert features.predict_labelled(labels([4], [25], visibility=0.09), draw).slots[0, 4] == 0
    assert make(STREET).predict_labelled(shown, draw).slots[0, 1] == 2, "those that the detector finds"
    missing = {name: {"car": n} for name, n in EXACT.items()}
    with pytest.raises(UserError, match="no numbers of truck, cyclist, pedestrian"):
        make(recall=RecallByHeight(**missing))


class Shows(Renderer, selectable=False):
    """Renders what it is told, at a multiple of its size."""

    channels, size, attributes = 3, (64, 96), ()

    def __init__(self, shown: Rendering, factor: float = 1.0) -> None:
        self.shown, self.factor = shown, factor

    def render(self, scenes: SceneBatch) -> Tensor:
        return self.render_labelled(scenes).image

    def resized(self, factor: float) -> "Shows":
        return Shows(self.shown, factor)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        scaled = {name: getattr(self.shown, name) * self.factor for name in ("boxes", "visible_boxes", "corners")}
        image = IMAGES[:1, :, : round(64 * self.factor), : round(96 * self.factor)]
        return replace(self.shown, image=image, instances=image[:, 0].long(), **scaled)


def test_generated_scenes_are_read_by_their_labels_at_any_scale() -> None:
    """With recall: their numbers, where they are, and the colours; the detector sees none of them."""
    of_all = {name: dict.fromkeys(("car", "truck", "cyclist", "pedestrian"), n) for name, n in EXACT.items()}
    scenes, draw = SceneBatch(torch.tensor([[1, 1, 4]]), torch.full((1, 3), -1), {}, {}), torch.Generator()
    shown = labels([1, 1, 4], [40, 14, 25])
    layout, colours = BoxLayout(["car"], 3, 2, (15, 40)), ImageColours()
    for scale in (1.0, 0.5):
        features = make(
            recall=RecallByHeight(**of_all),
            min_height={"car": 15},
            label_scale=scale,
            layout=layout,
            image_features=[colours],
        )
        blocks = features.embed_scenes(Shows(shown), scenes, draw)
        assert blocks["classes"].tolist() == [[1, 0, 0, 1]] and features.detector.given == []
        whole = layout(shown.boxes[:, :1], torch.zeros(1, 1).long(), ["car"], 96)["layout_car"]
        assert torch.allclose(blocks["layout_car"], whole, atol=1e-5)
        assert torch.equal(blocks["colours"], colours(IMAGES[:1])["colours"])
    with pytest.raises(UserError, match=r"layout\.classes names a class 'tree'"):
        make(layout=BoxLayout(["tree"]))


class Pixels(FeatureExtractor, selectable=False):
    """Every pixel, so that size and place of what is seen show."""

    def forward(self, images: Tensor) -> Blocks:
        return {"pixels": images.flatten(1)}


def test_images_of_the_target_are_looked_at_in_the_size_of_renders() -> None:
    """A constant half stays one when it is scaled; renders come in that size already."""
    halves = torch.zeros(2, 3, 64, 96)
    halves[..., 48:] = 0.7
    recall = RecallByHeight(**{name: dict.fromkeys(CLASSES[1:5], n) for name, n in EXACT.items()})
    features = make(STREET, recall=recall, label_scale=0.25, image_features=[Pixels()])
    pixels = features(halves)["pixels"].view(2, 3, 16, 24)
    assert torch.allclose(pixels[..., [0, 10, 13, 23]], torch.tensor([0, 0, 0.7, 0.7]), atol=1e-5)
    assert features.detector.given[0].shape == (2, 3, 64, 96)  # the detector sees whole images
    scenes = SceneBatch(torch.tensor([[1]]), torch.tensor([[-1]]), {}, {})
    assert features.embed_scenes(Shows(labels([1], [40])), scenes, torch.Generator())["pixels"].shape == (
        1,
        3 * 16 * 24,
    )
    unscaled = make(STREET, label_scale=0.25, image_features=[Pixels()])
    assert torch.equal(unscaled(halves)["pixels"], halves.flatten(1))  # without recall, renders have the whole size


def test_image_features_that_need_training_are_refused() -> None:
    with pytest.raises(UserError, match="need no training, which DetectorCounts is not"):
        make(image_features=[make()])


def test_without_recall_generated_scenes_are_read_as_the_target_is() -> None:
    features = make(STREET, layout=BoxLayout(["car"], 3, 2, (10, 40)), label_scale=0.5)
    scenes = SceneBatch(torch.tensor([[1]]), torch.tensor([[-1]]), {}, {})
    found, own = features.embed_scenes(Shows(labels([1], [40])), scenes, torch.Generator()), features(IMAGES[:1])
    assert found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)
    assert own["layout_car"].sum() == own["count_car"].argmax() == 2


def test_more_objects_than_bins_are_found_in_renders() -> None:
    features, cars = make(max_count={"car": 2}), torch.tensor([[1, 1, 1, 5]])
    nobody = torch.full_like(cars, -1)
    with pytest.raises(CountError, match="holds 3 car, but the extractor counts only to 2"):
        features.check_numbers(cars, nobody, torch.ones(1, 4, dtype=torch.bool))
    features.check_numbers(cars, nobody, torch.tensor([[True, True, False, True]]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"categories": {"lorry": ["truck"]}}, "features.categories names a class 'lorry' that the world lacks"),
        ({"categories": {"car": ["cars"]}}, r"categories.car names 'cars', .* not find. Did you mean 'car'"),
        ({"categories": {"car": ["car"], "truck": ["car"]}}, "counts 'car' as 'car' and as 'truck': name it once"),
        ({"categories": {}}, "features.categories is empty: name"),
        ({"categories": {"car": []}}, "features.categories is empty: name"),
        ({"min_score": {"lorry": 0.5}}, "features.min_score names a class 'lorry'"),
        ({"min_height": {"lorry": 5.0}}, "features.min_height names a class 'lorry'"),
        ({"max_count": {"lorry": 5}}, "features.max_count names a class 'lorry'"),
        ({"min_score": 1.5}, "min_score must be at most 1"),
        ({"scale": 0.0}, "scale must be at least 0.1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(**settings)


def test_a_world_without_known_classes_needs_categories() -> None:
    with pytest.raises(UserError, match=r"none of the classes car, truck, .* set features.categories .*: 0, 1"):
        DetectorCounts(1, ["0", "1"], Told(()))
