"""Whether places on the street and light are found again from boxes alone, with the settings of kitti_parameters.

Usage: python experiments/hidden_places.py [--seeds 0 1 2] [--steps 100] [--objective MMDWitness]

Scenes of the urban prior have hidden ranges of some places and lights, narrower than the prior's and at their ends.
Only what a detector would find of them is known (`RecallByHeight`), and the colours of small renders. A parameter model
is learned from it with the structure given. Prints how far the mean of each learned attribute has gone from the prior's
to the hidden one: 0 is none of the way, 1 all of it. What boxes do not show stays near 0.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from pytorch_lightning import Trainer
from tqdm import tqdm

from ms2.core.configurations import load
from ms2.core.seeding import generator
from ms2.features.base import Blocks
from ms2.features.colours import ImageColours
from ms2.features.detection.box_layout import BoxLayout
from ms2.features.detection.detections import Detections
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.height_recall import RecallByHeight
from ms2.features.detection.object_detector import ObjectDetector
from ms2.gradients import Normalised, ScoreFunction
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.parameter_learner import ParameterLearner
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import SceneModel
from ms2.objectives import KDE, MMDWitness
from ms2.scene.attributes import ENVIRONMENT
from ms2.world import World
from ms2.worlds.driving3d import Driving, StreetLayout, StreetView, Urban

HIDDEN: dict[str, tuple[float, float]] = {
    "parked": (0.72, 0.9), "parking_strips": (0.84, 1.0), "parking_distance": (6.0, 13.6), "parking_gap": (0.3, 1.4),
    "own_lane": (0.1, 0.25), "traffic_distance": (17.4, 25.0), "lane_width": (2.6, 3.0), "contrast": (1.3, 1.6),
    "saturation": (0.7, 0.85),
}  # fmt: skip
BATCH, NUM_TARGET, NUM_MEASURED = 128, 512, 500


class Blind(ObjectDetector, selectable=False):
    """A detector that is never asked, as both sides are read by their labels."""

    categories = ("car", "truck", "bus", "train", "person", "bicycle", "motorcycle")

    def forward(self, images: torch.Tensor) -> Detections:
        """Raise an error."""
        raise NotImplementedError


def make_world(settings: dict, hidden: bool) -> World:
    """The world of the configuration with the urban prior, and hidden ranges if asked for."""
    layout = dict(settings["world"]["parameter_prior"]["init_args"])
    if hidden:
        for name, limits in HIDDEN.items():
            key = "light_ranges" if name in layout["light_ranges"] else "place_ranges"
            layout[key] = {**layout[key], name: limits}
    view = settings["world"]["renderer"]["init_args"]
    size = tuple(view["size"])
    return World(
        Driving(), Urban(), StreetLayout(**layout), StreetView(size, mesh_set="detailed", metering=view["metering"])
    )


def make_features(settings: dict, world: World) -> DetectorCounts:
    """The reader of the configuration, without its detector."""
    given = settings["model"]["features"]["init_args"]
    rules = {name: given[name] for name in ("min_height", "min_score", "label_scale")}
    recall, layout = RecallByHeight(**given["recall"]), BoxLayout(**given["layout"])
    return DetectorCounts(
        3, world.classes, Blind(), recall=recall, layout=layout, image_features=[ImageColours()], **rules
    )


def embedded(features: DetectorCounts, world: World, seed: int) -> Blocks:
    """Read scenes of a world."""
    parts = []
    for i in range(NUM_TARGET // BATCH):
        draw = generator(seed, "target", i)
        parts.append(features.embed_scenes(world.renderer, world.sample_prior(BATCH, draw), draw))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def means(world: World, parameters: ParameterModel | None, names: list[str]) -> dict[str, float]:
    """Mean of each attribute, of new scenes."""
    scenes = world.sample_prior(NUM_MEASURED, generator(0, "means"))
    if parameters is not None:
        scenes = parameters.sample(scenes, generator(0, "parameters"))
    return {name: float(scenes.environment[name].mean()) for name in names}


def progress(settings: dict, seed: int, steps: int, objective: str) -> dict[str, float]:
    """Learn with a seed; return the fraction of the way that each attribute's mean has gone."""
    torch.manual_seed(seed)
    prior, target = make_world(settings, False), make_world(settings, True)
    model = settings["model"]
    names = model["parameters"]["init_args"]["learned_attributes"][ENVIRONMENT]
    parameters = ParameterModel(prior, **model["parameters"]["init_args"])
    stage = Autoencoding(prior, parameters, seed=seed, **settings["autoencoding"])
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        Trainer(max_steps=stage.max_steps, default_root_dir=folder, enable_model_summary=False, **quiet).fit(stage)
    features = make_features(settings, prior)
    real = embedded(features, target, seed)
    bandwidths = model["parameter_learner"]["objective"]["init_args"]["bandwidth"]
    compared = {"MMDWitness": MMDWitness, "KDE": KDE}[objective](bandwidths, relative_bandwidth=True)
    learner = ParameterLearner(compared, ScoreFunction(Normalised()), lr=model["parameter_learner"]["lr"])
    scenes = SceneModel(prior, None, parameters)
    optimizer = torch.optim.Adam(learner.weights(scenes), learner.lr)
    average = torch.optim.swa_utils.AveragedModel(parameters)
    for step in tqdm(range(steps), f"seed {seed}", leave=False):
        draw = generator(seed, "step", step)
        chosen = torch.randint(NUM_TARGET, (BATCH,), generator=draw)
        loss, _ = learner.loss(scenes, features, {name: block[chosen] for name, block in real.items()}, draw)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.weights(scenes), 1.0)
        optimizer.step()
        if step >= steps * 3 // 4:  # the mean of the last quarter's weights
            average.update_parameters(parameters)
    learned = means(prior, average.module, names)
    start, end = means(prior, None, names), means(target, None, names)
    return {name: (learned[name] - start[name]) / (end[name] - start[name]) for name in names if name in HIDDEN}


def main() -> None:
    """Print a table of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--objective", choices=("MMDWitness", "KDE"), default="MMDWitness")
    given = parser.parse_args()
    settings = load(Path(__file__).parents[1] / "configs" / "experiments" / "kitti_parameters.yaml")
    found = [progress(settings, seed, given.steps, given.objective) for seed in given.seeds]
    print("| attribute | " + " | ".join(f"seed {seed}" for seed in given.seeds) + " | mean |")
    print("|---|" + "---|" * (len(found) + 1))
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in [*values, statistics.mean(values)]) + " |")


if __name__ == "__main__":
    main()
