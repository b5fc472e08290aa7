"""Runs and worlds small enough for a test, and functions run in processes of their own, which may be killed."""

import inspect
import multiprocessing as mp
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from ms2.cli.commands import main
from ms2.core import configurations
from ms2.features.base import Blocks, CountPrediction, FeatureExtractor, TrainedExtractor
from ms2.features.detection.detections import Detections
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.object_detector import ObjectDetector
from ms2.gradients.advantages import Advantage, LeaveOneOut
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stage import Stage
from ms2.learning.structure_learner import StructureLearner
from ms2.metrics.results import Results, load_results
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.objectives.base import Objective
from ms2.objectives.kde import KDE
from ms2.render.base import Renderer, Rendering
from ms2.scene.batch import SceneBatch
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits, UniformDigits, UniformPlacement

CONFIGS = Path(__file__).parent.parent / "configs" / "experiments"
TINY: dict[str, object] = {  # an untrained extractor on a canvas for ants
    "data.batch_size": 16,
    "extractor.max_steps": 2,
    "extractor.batch_size": 8,
    "extractor.num_probe_images": 40,
    "pretraining.max_steps": 4,
    "pretraining.batch_size": 16,
    "pretraining.num_validation": 50,
    "pretraining.val_check_interval": 2,
    "autoencoding.max_steps": 2,
    "autoencoding.batch_size": 8,
    "model.structure.init_args.network": '{"class_path": "LSTM", "init_args": {"hidden": 8}}',
    "evaluation.num_scenes": 60,
    "trainer.max_steps": 4,
    "trainer.val_check_interval": 2,
    "trainer.log_every_n_steps": 1,
    "trainer.accelerator": "cpu",
    "trainer.devices": 1,
    "wandb": "disabled",
}
EXPECTED = [
    pytest.mark.filterwarnings(f"ignore:{what}")
    for what in (
        "not read, so the prior's numbers are kept",
        "the features miscount",  # with reason: the extractor of a tiny run can't count yet ...
        "the kernel of block",
        "the target looks nothing like the world",
        ".* of the target images hold more than block",
        "the score's deviation",
        "Found .* in eval mode",  # ... and is frozen
        ":jsonargparse._deprecated.JsonargparseDeprecationWarning",  # Lightning 2.6 calls it by an older name
    )
]
"""Warnings that belong to tiny runs."""


STREETS: dict[str, object] = {
    "world.renderer.init_args.size": "[32,104]",
    "world.renderer.init_args.engine.init_args.shadow_size": 64,
    "world.renderer.init_args.engine.init_args.supersampling": 1,
}
SLIGHT = (
    '{"class_path": "Backbone", "init_args": {"architecture": "squeezenet1_1", "layer": "features.0", "weights": null}}'
)
TINY_WORLDS: dict[str, dict[str, object]] = {
    "multimnist": {
        "world.structure_prior.init_args.max_digits": 3,
        "world.renderer.init_args.canvas_size": 24,
        "world.renderer.init_args.digit_size": 8,
        "data.target.init_args.num_images": 40,
        "data.target.init_args.structure_prior.init_args.max_digits": 3,
        "model.structure.init_args.t_max": 12,
    },
    "digits": {
        "world.renderer.init_args.canvas_size": 24,
        "world.renderer.init_args.digit_size": 8,
        "data.target.init_args.num_images": 40,
    },
    "aerial2d": {
        "world.structure_prior.init_args.max_roads": 2,
        "world.structure_prior.init_args.max_cars": 2,
        "world.renderer.init_args.canvas_size": 40,
        "data.target.init_args.num_images": 40,
        "model.structure.init_args.t_max": 40,
    },
    "driving": STREETS
    | {
        "data.target.init_args.num_images": 40,
        "evaluation.num_visible": 20,
        "model.structure_learner.likelihood.num_images": 40,
    },
    "kitti": STREETS
    | {
        "data.target.init_args.limit": 20,
        "data.num_workers": 0,
        "evaluation.image_distances.features": SLIGHT,
        "evaluation.image_distances.num_images": 20,
        "evaluation.num_images": 20,
        "evaluation.evaluate_labels": "true",
    },
}
TINY_FEATURES: dict[str, dict[str, object]] = {  # random weights, where others would have to be fetched
    "PretrainedCounts": {"width": 4, "weights": "null"},
    "InceptionPool3": {"layer": "Conv2d_1a_3x3", "weights": "null"},
    "DetectorCounts": {"min_height": 4},  # of the images' pixels, of which there are few
    "MixedCounts": {"detected.init_args.min_height": 4, "trained.init_args.width": 4},
}


def features_of(config: Path) -> dict[str, object]:
    """Tiny settings of a configuration's feature extractor, whichever that is."""
    features = configurations.load(config)["model"]["features"]
    name = features if isinstance(features, str) else features["class_path"]
    settings = TINY_FEATURES.get(name, {"widths": "[4,4,4]"})
    return {f"model.features.init_args.{key}": value for key, value in settings.items()}


def command(
    folder: Path, config: Path = CONFIGS / "multimnist_quick.yaml", without: Sequence[str] = (), **settings: object
) -> list[str]:
    """`ms2 fit` with tiny settings, save some; dots of further settings are written as two underscores."""
    every = (
        TINY
        | TINY_WORLDS[config.stem.split("_")[0]]
        | features_of(config)
        | {"runs_dir": folder}
        | {key.replace("__", "."): value for key, value in settings.items()}
    )
    every = {key: value for key, value in every.items() if key not in without}
    return [
        "fit",
        "--config",
        str(config),
        *(word for key, value in every.items() for word in (f"--{key}", str(value))),
    ]


def fit(folder: Path, name: str, **settings: object) -> Path:
    """A tiny run to its end; its folder."""
    ms2(command(folder, name=name, **settings))
    return folder / name


def ms2(words: Sequence[str]) -> None:
    """The command line."""
    with mock.patch("sys.argv", ["ms2", *words]):
        main()


def run_reader(python: str, reader: str, *words: object) -> None:
    """Run another library's reader of a data set, in tests/datasets/readers, by an interpreter that has the library."""
    script = Path(__file__).parent / "datasets" / "readers" / f"{reader}_reader.py"
    done = subprocess.run([python, script, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def python_of(reader: str) -> str:
    """The interpreter that has a reader, which a variable names; the test is skipped where it does not."""
    variable = f"MS2_{reader.upper()}_PYTHON"
    return os.environ.get(variable) or pytest.skip(f"{variable} names no interpreter that has {reader}")


def results_of(run: Path) -> Results:
    """What was measured at the end of a run."""
    return load_results(run / "metrics.json")


def metrics_of(run: Path) -> dict[str, float]:
    """The summary of a run's results, without seconds."""
    return {key: value for key, value in results_of(run).summary.items() if not key.startswith("seconds_")}


def last(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


# --- a world without pixels, whose features are exact ---


class Abacus(Renderer):
    """One pixel with a channel for each class, as light as the scene has objects of it."""

    channels, size, attributes = 10, (1, 1), ()

    def render(self, scenes: SceneBatch) -> Tensor:
        return scenes.counts(self.channels)[..., None, None] / 15  # 255 / 15 is whole, so bytes lose nothing

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        image, boxes = self.render(scenes), torch.zeros(*scenes.classes.shape, 4)
        corners = torch.zeros(*scenes.classes.shape, 4, 2)
        none = torch.full((len(scenes), 1, 1), -1)
        return Rendering(image, scenes.classes, scenes.parents, boxes, corners, boxes, none, boxes[..., 0])


class Beads(TrainedExtractor):
    """Reads an abacus, exactly if its scale is 15 and nothing is added.

    Args:
        scale: What pixels are multiplied with at first.
        too_many: Added to the total that is read.
    """

    def __init__(self, scale: float = 15.0, too_many: float = 0.0) -> None:
        super().__init__()
        self.scale, self.too_many = nn.Parameter(torch.tensor(scale)), too_many

    def forward(self, images: Tensor) -> Blocks:
        counts = self.scale * images[..., 0, 0]
        return {"classes": counts, "count": counts.sum(1, keepdim=True)}

    def predict_counts(self, images: Tensor) -> CountPrediction:
        counts = self(images)["classes"]
        return CountPrediction(counts > 0.5, counts, counts.sum(1) + self.too_many)

    def loss(self, images: Tensor, labels: Rendering, scenes: SceneBatch | None = None) -> Tensor:
        return (self(images)["classes"] - 15 * labels.image[..., 0, 0]).square().mean()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def abacus(max_digits: int = 3) -> World:
    """Up to three digits, in one pixel."""
    return World(MultiMNIST(), UniformDigits(max_digits), UniformPlacement(), Abacus())


def structure(t_max: int = 12, **more: Any) -> StructureModel:
    torch.manual_seed(0)
    return StructureModel(MultiMNIST(), t_max, network=LSTM(8), **more)


def learner(
    world: World,
    objective: Objective | None = None,
    advantage: Advantage | None = None,
    features: FeatureExtractor | None = None,
    **more: Any,
) -> MetaSim2:
    """Structure learning, by default with exact features; further arguments are the learner's or the model's."""
    of_learner = {key: more.pop(key) for key in LEARNER_SETTINGS & more.keys()}
    how = StructureLearner(objective or KDE(0.5), advantage or LeaveOneOut(), **of_learner)
    return MetaSim2(world, structure(), features or Beads(), how, **more)


LEARNER_SETTINGS = inspect.signature(StructureLearner.__init__).parameters.keys()


def images(world: World, num_images: int = 40, **more: Any) -> TargetImages:
    """Target images of another structure than the prior's."""
    return TargetImages(Synthetic(world, RandomDigits(1, 3), num_images=num_images), **more)


def trainer(folder: Path, max_steps: int, **more: Any) -> Trainer:
    """A quiet trainer."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_checkpointing": False, "enable_model_summary": False, "use_distributed_sampler": False,
        "num_sanity_val_steps": 0, "default_root_dir": folder, "limit_val_batches": 0,
    }  # fmt: skip
    return Trainer(max_steps=max_steps, **(quiet | more))


def stage_trainer(folder: Path, stage: Stage) -> Trainer:
    """A quiet trainer for a stage before learning."""
    every = stage.val_check_interval
    return trainer(folder, stage.max_steps, limit_val_batches=1, val_check_interval=every, check_val_every_n_epoch=None)


# --- other processes ---


CONTEXT = mp.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ms2.cli.fit"])  # imported once; each process is then a copy, made in no time


def _run(function: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str], out: Path | None) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    result = function(*args)
    if out is not None:
        torch.save(result, out)


def start(function: Callable[..., Any], *args: Any, out: Path | None = None, **environment: str) -> BaseProcess:
    """A function of a test file, started in a process of its own."""
    process = CONTEXT.Process(target=_run, args=(function, args, environment, out))
    process.start()
    return process


def wait_for(condition: Callable[[], object], process: BaseProcess, seconds: float = 120) -> None:
    """Wait until something has happened in a process that is still running."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.is_alive(), f"the process has ended: {process.exitcode}"
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.002)


def on_two_ranks(function: Callable[..., Any], folder: Path, *args: Any) -> Iterator[Any]:
    """What a function of a test file gives in each of two processes, for a Trainer with ``strategy="ddp"``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    paths = [folder / f"rank{rank}.pt" for rank in range(2)]
    ranks = [start(function, *args, out=path, LOCAL_RANK=str(i), **shared) for i, path in enumerate(paths)]
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    return (torch.load(path, weights_only=False) for path in paths)


# --- a world whose objects any detector would find ---


class Bars(Renderer):
    """A row of bars, one for each object, which is as light as its class is high."""

    channels, size, attributes = 1, (4, 16), ()

    def render(self, scenes: SceneBatch) -> Tensor:
        row = nn.functional.pad(scenes.classes, (0, self.size[1] - scenes.classes.shape[1]), value=-1)
        return ((row + 1) / 15).view(-1, 1, 1, self.size[1]).expand(-1, 1, *self.size)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        number, used = scenes.classes.shape[1], scenes.mask
        left = torch.arange(number).expand_as(scenes.classes)
        boxes = torch.stack([left, torch.zeros_like(left), left + 1, torch.full_like(left, 4)], 2) * used[..., None]
        corners = boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(2, (4, 2)).float()
        instances = torch.full((len(scenes), *self.size), -1)
        instances[:, :, :number] = torch.where(used, left, -1)[:, None]
        kinds = (scenes.classes, scenes.parents)
        return Rendering(self.render(scenes), *kinds, boxes.float(), corners, boxes.float(), instances, used.float())


class BarDetector(ObjectDetector, selectable=False):
    """Finds the bars of `Bars`, in images that are not resized, except those of some class."""

    categories = tuple("0123456789")

    def __init__(self, blind_to: int = -1) -> None:
        super().__init__()
        self.blind_to = blind_to

    def forward(self, images: Tensor) -> Detections:
        kinds = (15 * images[:, 0, 0]).round().long() - 1
        kinds = kinds.where(kinds != self.blind_to, -1)
        left = torch.arange(kinds.shape[1]).expand_as(kinds).float()
        boxes = torch.stack([left, torch.zeros_like(left), left + 1, torch.full_like(left, 4)], 2)
        return Detections(boxes, (kinds >= 0).float(), kinds)


def bars(max_digits: int = 3) -> World:
    """Up to three bars."""
    return World(MultiMNIST(), UniformDigits(max_digits), UniformPlacement(), Bars())


def bar_counts(counted: str = "0123456789", blind_to: int = -1, **settings: Any) -> DetectorCounts:
    """Counts the bars of some classes."""
    categories = {name: [name] for name in counted}
    return DetectorCounts(1, list("0123456789"), BarDetector(blind_to), categories, **({"max_count": 3} | settings))
