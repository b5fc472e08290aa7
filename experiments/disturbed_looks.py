"""How far a channel that was measured on renders of other looks leads astray: hidden streets read by a detector.

Usage: MS2_DATA=DIR python experiments/disturbed_looks.py [--seeds 20 21] [--num_images 400]

A detector that was trained on photographs reads renders of a hidden structure in three looks: light and colours as
usual, dark and grey, pale and blurred. From its readings, numbers of cars, trucks, cyclists and pedestrians are
estimated through four channels: that of the target's own looks (as good as can be), that of the usual looks, that of
recall by height, fitted to the usual looks, and none, where readings are taken for numbers. The estimate is
expectation-maximisation of each class alone, whose fixed points are those of `ReadingLikelihood`, from even numbers,
stopped early. Prints the total variation of the visible numbers, mean over the four classes, and the mean number of
visible cars, true and estimated.
"""

import argparse
import copy
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ms2.core.seeding import generator
from ms2.features.channel import ReadingChannel
from ms2.features.detection.detections import Detections
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.detector_errors import detector_errors, join_errors
from ms2.features.detection.height_recall import RecallByHeight, RecallCurve, fit_recall
from ms2.features.detection.onnx_detector import OnnxDetector
from ms2.metrics.histograms import total_variation
from ms2.priors.structure import StructurePrior
from ms2.render.base import Rendering
from ms2.scene.batch import scenes_from_derivations
from ms2.world import World
from ms2.worlds.driving3d import Driving, RandomStreets, SimpleStreets, StreetLayout, StreetView

LOOKS: dict[str, dict[str, tuple[float, float]]] = {
    "usual": {},
    "dark and grey": {
        "exposure": (0.6, 0.8), "contrast": (2.8, 3.2), "saturation": (0.0, 0.2), "sun_height": (0.1, 0.35),
    },
    "pale and blurred": {
        "exposure": (1.5, 2.0), "contrast": (0.5, 1.0), "saturation": (1.7, 2.0), "blur": (1.0, 1.0), "haze": (0.9, 1.0)
    },
}  # fmt: skip
CHANNELS = ("own looks", "usual looks", "recall by height", "none")
ALIKE = ("car", "truck")
SIZE, SCALE, MIN_HEIGHT = (188, 621), 2.0, {"car": 20.0, "truck": 20.0, "cyclist": 32.0, "pedestrian": 25.0}
"""Half of KITTI's size, enlarged for the detector; half the least heights of kitti_quick."""
MIN_SCORE, MAX_COUNT, BATCH, ITERATIONS = 0.3, 8, 16, 50


class Read(NamedTuple):
    """What is read and seen in m renders, by the channel's names.

    Attributes:
        readings: What the detector reads.
        drawn: What recall by height says instead; equal without it.
        visible: How many can be seen.
        numbers: How many there are.
    """

    readings: Tensor
    drawn: Tensor
    visible: Tensor
    numbers: Tensor


def make_features(classes: tuple[str, ...], recall: RecallByHeight | None = None) -> DetectorCounts:
    """The reader."""
    detector = OnnxDetector(Path(os.environ["MS2_DATA"]) / "weights" / "yolox_nano_coco.onnx")
    rules = {"min_score": MIN_SCORE, "min_height": MIN_HEIGHT, "max_count": MAX_COUNT, "scale": SCALE}
    return DetectorCounts(3, classes, detector, recall=recall, **rules)


def detected(
    features: DetectorCounts, world: World, structure: StructurePrior, look: str, number: int, *keys: int | str
) -> list[tuple[Rendering, Detections]]:
    """Render scenes of a structure prior in some looks, a batch at a time, and find what is in them."""
    layout, draw = StreetLayout(max_distance=45, light_ranges=LOOKS[look]), generator(*keys, look)
    found = []
    for _ in tqdm(range(0, number, BATCH), look, leave=False):
        rules = structure.sample(world.grammar, BATCH, draw)
        scenes = layout.sample(scenes_from_derivations(world.grammar, rules), draw)
        labels = world.renderer.render_labelled(scenes)
        tiny = {name: getattr(labels, name)[..., :1, :1] for name in ("image", "instances", "depth")}  # needed no more
        found.append((replace(labels, **tiny), features.detect(labels.image)))
    return found


def fit_errors(features: DetectorCounts, batches: list[tuple[Rendering, Detections]]) -> RecallByHeight:
    """Fit recall by height."""
    errors = join_errors([detector_errors(features, found, labels, MIN_SCORE, ALIKE) for labels, found in batches])
    made = {name: one.at_least(MIN_HEIGHT[name]) for name, one in errors.items()}
    curves = {name: fit_recall(one.heights, one.found, MIN_HEIGHT[name]) for name, one in made.items()}
    number = len(batches) * BATCH
    columns = {key: {name: curve[i] for name, curve in curves.items()} for i, key in enumerate(RecallCurve._fields)}
    return RecallByHeight(**columns, false_boxes={name: len(one.false_heights) / number for name, one in made.items()})


def read(features: DetectorCounts, batches: list[tuple[Rendering, Detections]], draw: torch.Generator) -> Read:
    """Read renders whose detections are known."""
    assert features.channel is not None
    rows = []
    for labels, found in batches:
        seen = torch.where(features.labelled(labels), labels.classes, -1)
        readings = torch.zeros(len(seen), len(features.slots))
        readings[:, features.places] = features.count(found).float()
        slots = [readings, features.predict_labelled(labels, draw).slots]
        slots += [features.slots.counts(classes, labels.parents) for classes in (seen, labels.classes)]
        rows.append([features.channel.sums(one) for one in slots])
    return Read(*map(torch.cat, zip(*rows, strict=True)))


def estimate(channel: ReadingChannel, readings: Tensor) -> Tensor:
    """Estimate the distribution of each visible number [k v] by expectation-maximisation."""
    given, target = channel.reading_given_number().double(), channel.histogram(readings).double()
    known = (given.sum(2) > 0).double()
    q = known / known.sum(1, keepdim=True)
    for _ in range(ITERATIONS):
        joint = q.unsqueeze(2) * given
        q = (joint / joint.sum(1, keepdim=True).clamp(min=1e-9) * target.unsqueeze(1)).sum(2)
        q = q / q.sum(1, keepdim=True)
    return torch.einsum("kn,knv->kv", q, channel.visible_given_number().double())


def histogram(numbers: Tensor) -> Tensor:
    """Distribution of each number [k v]."""
    rounded = numbers.round().long().clamp(0, MAX_COUNT)
    return torch.stack([one.bincount(minlength=MAX_COUNT + 1) / len(one) for one in rounded.unbind(1)]).double()


@torch.no_grad()
def main() -> None:
    """Print a table for each hidden structure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[20])
    parser.add_argument("--num_images", type=int, default=400, help="of each look; twice as many for a channel")
    args = parser.parse_args()
    start = time.perf_counter()
    world = World(Driving(), SimpleStreets(), StreetLayout(), StreetView(size=SIZE))
    features, channels = make_features(world.classes), dict[tuple[str, str], ReadingChannel]()
    assert features.channel is not None
    places = [features.channel.names.index(f"count_{name}") for name in features.counted]
    for look in LOOKS:
        batches = detected(features, world, SimpleStreets(0, 7), look, 2 * args.num_images, 0, "channel")
        if look == "usual":
            recall = fit_errors(features, batches)
            features = make_features(world.classes, recall)
            for key, column in recall.numbers.items():
                print(key, {name: round(value, 3) for name, value in column.items()})
        one = read(features, batches, generator(0, "errors", look))
        for name, readings in (("usual looks", one.readings), ("recall by height", one.drawn)):
            channel = copy.deepcopy(features.channel)
            channel.measure(readings, one.visible, one.numbers, generator(0, "channel", look))
            channels[look, name] = channel
    print("| hidden | looks of the target | " + " | ".join(CHANNELS) + " | cars: true | " + " | ".join(CHANNELS) + " |")
    print("|---" * (3 + 2 * len(CHANNELS)) + "|")
    for seed in args.seeds:
        for look in LOOKS:
            batches = detected(features, world, RandomStreets(seed=seed), look, args.num_images, seed, "target")
            target = read(features, batches, generator(seed, "errors", look))
            estimates = {
                "own looks": estimate(channels[look, "usual looks"], target.readings),
                "usual looks": estimate(channels["usual", "usual looks"], target.readings),
                "recall by height": estimate(channels["usual", "recall by height"], target.readings),
                "none": histogram(target.readings),
            }
            true, car = histogram(target.visible)[places], places[features.counted.index("car")]
            tv = [float(total_variation(estimates[name][places], true).mean()) for name in CHANNELS]
            numbers = torch.arange(MAX_COUNT + 1).double()
            means = [float(estimates[name][car] @ numbers) for name in CHANNELS]
            cars = float(target.visible[:, car].double().mean())
            cells = [*(f"{value:.3f}" for value in tv), *(f"{value:.2f}" for value in (cars, *means))]
            print(f"| {seed} | {look} | " + " | ".join(cells) + " |", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
