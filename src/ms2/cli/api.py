"""Python interface: `ms2.fit`, `ms2.generate` and `ms2.load`, which share the command line's code."""

import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
import yaml

from ms2.cli import plugins
from ms2.cli.run_folder import RunFolder, throwaway_folder
from ms2.cli.written_configuration import configuration
from ms2.core import configurations
from ms2.core.errors import UserError, suggest
from ms2.core.files import reading
from ms2.core.paths import OptionalPath, UserPath, expand_path
from ms2.core.seeding import generator
from ms2.datasets.generate import generate as generate_dataset
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.features.base import FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.gradients.advantages import Normalised
from ms2.metrics.results import HOW_TO_RECREATE, Results, load_results
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.opened_mixture import open_models
from ms2.models.opening import open_model
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import ROWS, SceneModel
from ms2.models.shares import Mix
from ms2.models.structure import StructureModel
from ms2.objectives.kde import KDE
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.targets.folder import Folder
from ms2.world import World

if TYPE_CHECKING:
    from PIL.Image import Image

    from ms2.evaluation.evaluation import Evaluation
    from ms2.learning.data import TargetImages
    from ms2.learning.metasim2 import MetaSim2
    from ms2.learning.parameter_learner import ParameterLearner
    from ms2.learning.stage import Stage
    from ms2.learning.structure_learner import StructureLearner
    from ms2.learning.turns import Turns

NUM_PRIOR_SCENES = 1000
"""Number of the prior's scenes from which t_max, the maximum length of derivations, is chosen."""


class FitResult:
    """Result of `fit`: the learned scene model, and its distances to the target.

    Args:
        folder: The run's folder, with ``metrics.json``, ``summary.png`` and checkpoints, as ``ms2 fit`` leaves it.
        model: The learned scene model.

    Example:
        >>> result = ms2.fit(world, target, max_steps=2, **tiny)
        >>> result.summary["count_tv"] >= 0
        True
        >>> result.images(4).shape
        torch.Size([4, 1, 24, 24])
    """

    def __init__(self, folder: Path, model: SceneModel) -> None:
        self.folder, self.model = folder, model

    @cached_property
    def results(self) -> Results:
        """Distances to the target, with intervals: structure, attributes, images."""
        return load_results(self.folder / "metrics.json")

    @property
    def summary(self) -> dict[str, float]:
        """Distances as a flat dictionary: ``count_tv``, ``count_tv_prior``, ..."""
        return self.results.summary

    @property
    def figure(self) -> "Image":
        """Figure with histograms and sample images of prior, learned model and target."""
        from PIL import Image

        path = self.folder / "summary.png"
        with reading(path, "an image", HOW_TO_RECREATE), Image.open(path) as figure:
            figure.load()
        return figure

    def scenes(self, n: int, seed: int = 0, row: str = "learned") -> SceneBatch:
        """Sample n scenes of a row: ``learned``, ``prior``, ``learned_structure`` or ``learned_parameters``."""
        return self.model.sample(n, generator(seed, "scenes"), ROWS[row])

    def images(self, n: int, seed: int = 0, row: str = "learned") -> torch.Tensor:
        """Render n scenes of a row, [n, c, h, w] in 0..1; the scenes are those of `scenes` with the same seed."""
        return self.model.world.renderer.render(self.scenes(n, seed, row))

    def labelled(self, n: int, seed: int = 0, row: str = "learned") -> Rendering:
        """Render n scenes of a row with boxes and masks."""
        return self.model.world.renderer.render_labelled(self.scenes(n, seed, row))

    def __repr__(self) -> str:
        """Name the folder and the distances of structure."""
        found = ", ".join(f"{name} {value:.3g}" for name, value in self.summary.items() if name.endswith("_tv"))
        return f"FitResult({str(self.folder)!r}: {found})"


def fit(
    world: World,
    target: Target | UserPath,
    *,
    features: FeatureExtractor | None = None,
    structure: StructureModel | None = None,
    structure_learner: "StructureLearner | None" = None,
    parameters: ParameterModel | None = None,
    parameter_learner: "ParameterLearner | None" = None,
    turns: "Turns | None" = None,
    evaluation: "Evaluation | None" = None,
    max_steps: int = 200,
    batch_size: int = 256,
    seed: int = 0,
    folder: OptionalPath = None,
    stages: Mapping[str, Mapping[str, Any]] | None = None,
    trainer: Mapping[str, Any] | None = None,
) -> FitResult:
    """Learn the structure of a target's scenes, and their parameters if a parameter model is given.

    Stages before learning (extractor training, pretraining, autoencoding) are run as needed, or loaded from the cache
    beside the folder if they were run with the same settings.

    Args:
        world: Grammar, priors and renderer.
        target: Target images, or a folder of image files.
        features: The feature extractor; `DenseCounts` by default.
        structure: The structure model; by default one for derivations of up to `choose_t_max` steps.
        structure_learner: Objective and optimisation of the structure model; KDE by default.
        parameters: The parameter model; None to keep the prior's parameters.
        parameter_learner: Objective and optimisation of the parameter model.
        turns: Which steps train the parameter model.
        evaluation: What is measured.
        max_steps: Training steps.
        batch_size: Images per step.
        seed: Seed of everything drawn.
        folder: Folder of the run; a temporary one by default. A finished run with the same settings that it holds is
            returned; one with other settings is renamed.
        stages: Settings of stages by name: ``{"extractor": {"max_steps": 2000}}``.
        trainer: Further arguments of Lightning's Trainer.

    Raises:
        UserError: If parts do not fit each other, or the target has no usable images.

    Example:
        >>> result = ms2.fit(world, target, max_steps=2, **tiny)
        >>> result.results.structure["count"].distances["tv"]["learned"].value >= 0
        True
    """
    from ms2.evaluation.evaluation import Evaluation
    from ms2.learning.data import TargetImages

    if not isinstance(world, World):
        raise UserError(f"world must be a World, not {world!r}: ms2.load(NAME).world makes one by a world's name")
    model = build_model(world, features, structure, structure_learner, parameters, parameter_learner, turns, seed)
    data = TargetImages(Folder(world, target) if isinstance(target, str | Path) else target, batch_size, seed=seed)
    path = Path(tempfile.mkdtemp(prefix="ms2-"), "run") if folder is None else run_path(folder)
    arguments = trainer_arguments(max_steps) | dict(trainer or {})
    return train(model, data, evaluation or Evaluation(seed=seed), build_stages(model, stages or {}), arguments, path)


def run_path(folder: UserPath) -> Path:
    """Return the path of a run's folder.

    Raises:
        UserError: If it is empty.
    """
    if not str(folder).strip():
        raise UserError("folder is empty: give the folder of the run, such as 'runs/first'")
    path = expand_path(folder)
    return path if path.name not in ("", "..") else path.resolve()


def build_model(
    world: World,
    features: FeatureExtractor | None,
    structure: StructureModel | None,
    structure_learner: "StructureLearner | None",
    parameters: ParameterModel | None,
    parameter_learner: "ParameterLearner | None",
    turns: "Turns | None",
    seed: int,
) -> "MetaSim2":
    """Build the LightningModule, with default parts where none are given; their initial weights depend on the seed."""
    from ms2.learning.metasim2 import MetaSim2
    from ms2.learning.structure_learner import StructureLearner

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = features or DenseCounts(world.renderer.channels, world.classes)
        structure = structure or StructureModel(world.grammar, choose_t_max(world))
    structure_learner = structure_learner or StructureLearner(KDE(0.1), Normalised(), lr=5e-3)
    return MetaSim2(world, structure, features, structure_learner, parameters, parameter_learner, turns, seed=seed)


def build_stages(model: "MetaSim2", settings: Mapping[str, Mapping[str, Any]]) -> "list[Stage[Any]]":
    """Build the stages before learning, which train parts of the model, from their settings by name.

    Raises:
        UserError: If there is no stage of a name.
    """
    from ms2.learning.stages import STAGES

    for name in settings:
        if name not in [stage.name for stage in STAGES]:
            raise UserError(f"stages has no {name!r}. {suggest(name, [stage.name for stage in STAGES])}")
    parts = {f"model.{name}": part for name, part in model.settings.items()}
    found = []
    for stage in STAGES:
        linked = {argument: parts[source] for argument, source in stage.links.items()}
        found.append(stage(**{"world": model.world, "seed": model.seed, **linked, **settings.get(stage.name, {})}))
    return found


def train(
    model: "MetaSim2",
    data: "TargetImages",
    evaluation: "Evaluation",
    stages: "Sequence[Stage[Any]]",
    trainer: Mapping[str, Any],
    path: Path,
) -> FitResult:
    """Train the stages and the model in a folder, unless that was done before with the same settings.

    Args:
        model: The model.
        data: The target images.
        evaluation: What is measured.
        stages: The stages before learning.
        trainer: Arguments of Lightning's Trainer.
        path: The run's folder.
    """
    from ms2.cli.dry_run import FitPlan, check_before_training
    from ms2.cli.fit import silence_lightning
    from ms2.cli.run import Run, run_identity
    from ms2.learning.stages import say

    start, folder = time.monotonic(), RunFolder(path.parent, path.name)
    if trainer.get("fast_dev_run"):
        folder = throwaway_folder(path.name)
    plan = FitPlan(folder, run_identity(trainer, model, data, stages), stages)
    parts = {"model": model, "data": data, "evaluation": evaluation, **{stage.name: stage for stage in stages}}
    settings = yaml.safe_dump(configuration(parts, trainer, path), sort_keys=False)
    with warnings.catch_warnings():
        silence_lightning()
        if plan.finished:
            return FitResult(path, open_model(str(path)).model)
        data.cache = folder.cache
        run = Run(folder, trainer, [], evaluation, start_time=start)
        check_before_training(plan, run, model, data)
        with folder.locked():
            measured_with = evaluation.measured_with(model.scene_model, data.target)
            message = folder.claim(plan.identity, settings, measured_with=measured_with)
            if message:
                say(message)
            run.fit(model, data, stages)
    return FitResult(folder.path, model.eval().scene_model.to("cpu"))


def generate(
    source: UserPath | FitResult | Sequence[UserPath | FitResult],
    output: UserPath,
    num_scenes: int = 1000,
    *,
    mix: Mix | None = None,
    seed: int = 0,
    formats: Sequence[str] = ("coco",),
    conditions: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    workers: int = 1,
    device: str = "cpu",
    frames: int | None = None,
    fps: float = Plan.fps,
) -> Path:
    """Generate a labelled data set; images that are there already are kept.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, the name of a world, or what `fit` returned;
            or several of these, whose worlds have the same grammar, classes and renderer.
        output: Folder of the data set.
        num_scenes: Number of images, or of sequences.
        mix: With several sources, ``even`` or the weight of each: the shares of their scenes.
        seed: Seed; an image depends on the seed and its own number alone.
        formats: Formats: ``coco``, ``kitti``, ``yolo``.
        conditions: Conditions that all scenes meet, such as ``"car == 5"``.
        classes: Classes to label; all by default.
        workers: Processes.
        device: Device for sampling and rendering.
        frames: Number of frames of each scene, in which the camera drives (3D worlds); None for single images.
        fps: Frames per second.

    Returns:
        The folder.

    Raises:
        UserError: If there is no such source, sources can't be mixed, or conditions, classes or formats don't fit.

    Example:
        >>> folder = ms2.generate("multimnist", tmp_path / "digits", num_scenes=2)
        >>> sorted(path.name for path in folder.iterdir())[:3]
        ['README.md', 'annotations', 'croissant.json']
    """
    sources = [source] if isinstance(source, str | Path | FitResult) else source
    names = [str(one.folder if isinstance(one, FitResult) else one) for one in sources]
    opened = open_models(names, mix)
    labelled = None if classes is None else as_tuple(classes)
    where, kinds = as_tuple(conditions), as_tuple(formats)
    plan = Plan(num_scenes, seed, classes=labelled, conditions=where, formats=kinds, frames=frames, fps=fps)
    folder = expand_path(output)
    generate_dataset(Job(opened, plan, folder, device), workers, progress=False)
    return folder


def as_tuple(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple; a single text is one name, not its characters."""
    return (names,) if isinstance(names, str) else tuple(names)


@overload
def load(source: UserPath) -> SceneModel: ...


@overload
def load(source: list[UserPath] | tuple[UserPath, ...], mix: Mix) -> SceneModel | MixedSceneModel: ...


def load(
    source: UserPath | list[UserPath] | tuple[UserPath, ...], mix: Mix | None = None
) -> SceneModel | MixedSceneModel:
    """Load a scene model: learned where the source is a run, of the priors where it is a world or a configuration.

    With each world of ms2 comes a learned model: ``multimnist_learned``, ``aerial2d_learned``, ``driving3d_learned``.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, or the name of a world or of a learned model
            that comes with one; or several of these, whose worlds have the same grammar, classes and renderer.
        mix: With several sources, ``even`` or the weight of each: the shares of their scenes.

    Raises:
        UserError: If there is no such source, or sources can't be mixed.

    Example:
        >>> model = ms2.load("multimnist")
        >>> model.world.classes[:3]
        ('0', '1', '2')
        >>> learned = ms2.load("multimnist_learned")
        >>> learned.images(2, ms2.generator(0, "images")).shape
        torch.Size([2, 1, 90, 90])
    """
    plugins.load()
    return open_models([str(one) for one in ([source] if isinstance(source, str | Path) else source)], mix).model


def choose_t_max(world: World) -> int:
    """Choose t_max: 1.5 times the longest of `NUM_PRIOR_SCENES` derivations of the prior."""
    rules = world.structure_prior.sample(world.grammar, NUM_PRIOR_SCENES, generator("maximum length"))
    return int(min(world.grammar.longest_derivation, rules.shape[1] * 3 // 2))


def trainer_arguments(max_steps: int) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer for a run: those of the configuration ``base``."""
    found: dict[str, Any] = configurations.load("base")["trainer"]
    every = max(1, min(50, max_steps))
    return found | {"max_steps": max_steps, "val_check_interval": every, "devices": 1}
