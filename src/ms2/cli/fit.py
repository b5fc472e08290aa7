"""``ms2 fit``, ``validate``, ``test`` and ``predict``: Lightning's command line."""

import logging
import os
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import yaml
from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ms2.cli import plugins
from ms2.cli.configs import with_settings
from ms2.cli.dry_run import FitPlan, check_before_training, dry_run
from ms2.cli.run import Run, run_identity
from ms2.cli.run_folder import Identity, RunFolder, is_first_process, throwaway_folder
from ms2.cli.run_logger import RunLogger
from ms2.core.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Seed, problem
from ms2.core.errors import UserError
from ms2.core.explain import explain_error
from ms2.core.parsing import check_bounds, hand_over
from ms2.core.paths import UserPath, expand_path
from ms2.core.process_variables import process_number
from ms2.evaluation.callbacks import ImageWriter
from ms2.evaluation.evaluation import Evaluation
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stages import STAGES, say
from ms2.world import World

if TYPE_CHECKING:
    from ms2.cli.commands import Command

TRAINER_BOUNDS = {
    "log_every_n_steps": NonNegativeInt | None,
    "val_check_interval": PositiveFloat | str | timedelta | dict | None,
    "check_val_every_n_epoch": PositiveInt | None,
}
"""Bounds of arguments that Lightning's Trainer does not check."""
SHORT_OPTIONS = {"--evaluate_labels": "--evaluation.evaluate_labels"}
"""Options that 'ms2 compare' has under the short name too."""
EXTRACTORS = ("model.features", "model.features.init_args.detected", "model.features.init_args.trained")
"""Keys of the feature extractor and of those that it may consist of."""
MAX_DRAWN_SEED = 2**31
"""Bound of seeds that are drawn; short enough to be typed."""


def lightning_command(command: "Command", argv: list[str]) -> int | None:
    """Run one of Lightning's commands; return the signal's exit code if SIGTERM or Ctrl-C interrupts it."""
    silence_lightning()
    help_texts = {command.name: {"description": f"{command.help}.", "epilog": f"Example: {command.example}"}}
    goes_on = "resumes where it was" if command.name == "fit" else "starts again"
    try:
        CLI([command.name, *argv], parser_kwargs=help_texts)
    except SIGTERMException:  # of itself it ends with exit code 0, as if all were done
        print(f"ms2: asked to stop (SIGTERM); the same command {goes_on}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print(f"ms2: interrupted (Ctrl-C); the same command {goes_on}", file=sys.stderr)
        return 128 + signal.SIGINT
    return None


def silence_lightning() -> None:
    """Suppress Lightning's messages about missing hardware, other products and the frozen extractor."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r"Found \d+ module\(s\) in eval mode",
        "The '.*' does not have many workers",
        "Checkpoint directory .* exists and is not empty",  # that of a run that is resumed
        "Be aware that when using `ckpt_path`, callbacks",  # the timer of a run that max_time stopped
        "The dirpath has changed from",  # a checkpoint of another run was given
        r".isinstance\(treespec, LeafSpec\). is deprecated",
    ):
        warnings.filterwarnings("ignore", message)


class TrainerParser(LightningArgumentParser):
    """Argument parser whose error for a misspelt plug-in lists the available names."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with the message alone: the usage is some hundred lines, and --help shows it."""
        message = explain_error(message, self)
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"ms2: {message}\nAll options: ms2 fit --help\n")


class CLI(LightningCLI):
    """Builds a run's parts from its settings, and trains, measures or samples them in the folder of the run."""

    def __init__(self, args: Sequence[str] = (), run: bool = True, **kwargs: Any) -> None:
        plugins.load()
        self._words = list(args)
        super().__init__(
            MetaSim2,
            TargetImages,
            parser_class=TrainerParser,
            save_config_callback=None,  # the folder of a run is known only here, so it is saved here
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=self._words,
            run=run,
            **kwargs,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the settings of configurations, named or as files, and those of the command line on top of them."""
        words = list(args or [])
        command = words[:1] if words and not words[0].startswith("-") else []
        hand_over(self._parser(command[0] if command else None))
        self.config = parser.parse_args([*command, *with_settings(full_names(words[len(command) :]))])
        settings = self.config[command[0]] if command else self.config
        if settings.get("ckpt_path"):
            settings["ckpt_path"] = str(expand_path(settings["ckpt_path"]))
        settings["seed_everything"] = seed = self.seed(settings["seed_everything"])
        if found := problem(Seed, seed, "seed_everything"):
            raise UserError(found)
        share_structure_prior(settings)
        if "data.target.init_args.allow_pipe" in settings:
            settings["data.target.init_args.allow_pipe"] = settings["allow_pipe"]  # whatever a file says
        for name in ("name", "trainer"):
            if settings.get(name) is None:
                raise UserError(f"{name} has no value: give one, or remove the key {name!r}")
        if command and command[0] != "fit":
            # a run's own configuration, which the other commands read too, may say how it was trained
            typed = {word.partition("=")[0] for word in words}
            for name in ("dry_run", "stage", "fresh"):
                if f"--{name}" in typed or (name == "dry_run" and settings[name]):
                    raise UserError(f"{name} belongs to 'ms2 fit': 'ms2 {command[0]}' trains nothing, leave it out")
        check_bounds(self._parser(command[0] if command else None), settings)
        for name, hint in TRAINER_BOUNDS.items():
            if found := problem(hint, settings["trainer"][name], f"trainer.{name}"):
                raise UserError(found)

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint: Lightning would read any file, and put what it finds over the run's."""

    @cached_property
    def drawn_seed(self) -> int:
        """Seed where none is given: a random one, of which the first process tells the others."""
        told = os.environ.get("PL_GLOBAL_SEED")
        if is_first_process() and process_number("WORLD_SIZE", 1) == 1:
            return secrets.randbelow(MAX_DRAWN_SEED)
        if is_first_process() or told is None:
            raise UserError(
                "processes that are started one by one can't agree on a random seed: give a number, as in "
                "--seed_everything 1"
            )
        return int(told)

    def seed(self, given: bool | int) -> int:
        """Return the seed of everything that is drawn; a random one where true or false is given, not a number."""
        return self.drawn_seed if isinstance(given, bool) else given

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """Return the command that is called, if any, with the arguments that are not command-line options.

        Lightning makes a parser of each command that is named here, which takes as long as to parse.
        """
        every = LightningCLI.subcommands()
        return {name: every[name] for name in self._words[:1] if name in every}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's own options, and the sections of world and stages, which share parts with the model's."""
        add_run_options(parser)
        parser.add_class_arguments(World, "world")
        parser.add_class_arguments(Evaluation, "evaluation")
        for stage in STAGES:
            parser.add_class_arguments(stage, stage.name)
        link_parts(parser, self.seed)

    def before_instantiate_classes(self) -> None:
        """Find the run's folder, before anything that takes long; write nothing yet."""
        self.folder = RunFolder(self._get(self.config, "runs_dir"), self._get(self.config, "name"))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Prepare the run; return the trainer of the main training (stages have their own)."""
        trainer = {**self._get(self.config_init, "trainer"), **kwargs}
        self.place = throwaway_folder(self.folder.path.name) if trainer.get("fast_dev_run") else self.folder
        if self.subcommand is not None:
            self.datamodule.cache = self.place.cache
        self.run = Run(
            self.place,
            trainer,
            self._loggers(),
            self._get(self.config_init, "evaluation"),
            self._get(self.config, "checkpoint_every"),
        )
        return self.run.trainer

    def _loggers(self) -> list[Logger]:
        if self.subcommand not in ("fit", "test"):
            return []
        loggers: list[Logger] = [CSVLogger(self.place.path, "csv")]
        mode = self._get(self.config, "wandb")
        if mode != "disabled":
            settings = yaml.safe_load(self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False))
            loggers.insert(0, RunLogger(self.place, settings, mode == "offline", self.subcommand))
        return loggers

    def identity(self) -> Identity:
        """Return the fingerprints of the settings and the code that determine what is learned."""
        sections = ("trainer", "model", "data", *(stage.name for stage in STAGES))
        trainer, model, data, *stages = (self._get(self.config_init, section) for section in sections)
        return run_identity({**trainer}, model, data, stages)

    def measured_with(self) -> str:
        """Return the fingerprint of what results are measured with."""
        evaluation: Evaluation = self._get(self.config_init, "evaluation")
        return evaluation.measured_with(self.model.scene_model, self.datamodule.target)

    # -- subcommands -----------------------------------------------------------------------------------

    def fit(self, model: MetaSim2, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Train the stages, or one of them, and the model; from the last checkpoint if there is one."""
        only, fresh, dry = (self._get(self.config, key) for key in ("stage", "fresh", "dry_run"))
        stages = [self._get(self.config_init, stage.name) for stage in STAGES if only in ("all", stage.name)]
        plan = FitPlan(self.place, self.identity(), stages, only == "all", ckpt_path, fresh)
        if plan.finished and not dry:
            say(f"this run is finished, see {self.folder.path}; train it again with --fresh true")
            if self.folder.measured_with not in (None, self.measured_with()):
                say("its results were measured with other settings: 'ms2 test' measures with these")
            return
        check_before_training(plan, self.run, model, datamodule)
        if dry:
            with self.place.locked():
                dry_run(plan, self.run, model, datamodule)
            return
        with self.place.locked():
            self._claim(ckpt_path, fresh)
            if only == "all":
                self.run.fit(model, datamodule, stages, ckpt_path, resume=plan.resumes)
            else:
                self.run.train_stages(stages)
                self.run.finish_logging()
        if self.place is not self.folder:
            say("fast_dev_run: all parts of the run work; nothing is kept of it")

    def _claim(self, checkpoint: Any, fresh: bool) -> None:
        configuration = self._parser("fit").dump(self.config["fit"], skip_none=False)
        message = self.place.claim(self.identity(), configuration, checkpoint, fresh, self.measured_with())
        if message:
            say(message)

    def validate(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Validate a checkpoint, by default the run's last."""
        path = self.folder.checkpoint(ckpt_path)
        self.run.trainer.validate(model, datamodule=datamodule, ckpt_path=path, weights_only=True)

    def test(self, model: MetaSim2, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Test a checkpoint, by default the run's last, and write its results, beside those of other settings."""
        path = self.folder.checkpoint(ckpt_path)
        with self.place.locked():
            self.run.results.output = self.place.results_folder(self.measured_with(), path)
            if self.run.results.output != self.place.path:
                say(f"this is not what the run was measured with, so its results stay: see {self.run.results.output}")
            self.run.trainer.test(model, datamodule=datamodule, ckpt_path=path, weights_only=True)

    def predict(self, model: MetaSim2, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Sample images from a checkpoint, by default the run's last, into the folder ``samples`` of the run."""
        path, trainer = self.folder.checkpoint(ckpt_path), self.run.trainer
        trainer.callbacks.append(ImageWriter(self.place.samples))  # type: ignore[attr-defined]
        with self.place.locked():
            trainer.predict(model, datamodule, return_predictions=False, ckpt_path=path, weights_only=True)
        say(f"images: {self.place.samples}")


def full_names(words: Sequence[str]) -> list[str]:
    """Replace short options of a command line by the settings that they mean."""
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        found.append(f"{SHORT_OPTIONS.get(option, option)}{equals}{value}")
    return found


def add_run_options(parser: LightningArgumentParser) -> None:
    """Add the options of a run that belong to none of its parts."""
    stages = ("all", *(stage.name for stage in STAGES))
    add = parser.add_argument
    add("--name", type=str, default="run", help="Name of the run and its folder.")
    add("--runs_dir", type=UserPath, default="runs", help="Folder of all runs.")
    add("--stage", choices=stages, default="all", help="Run all stages, or one of those before learning alone.")
    add("--fresh", type=bool, default=False, help="Train anew; an earlier run's folder is renamed.")
    add(
        "--dry_run",
        type=bool,
        default=False,
        help="Check everything, and show images of prior and target; no training.",
    )
    add("--checkpoint_every", type=PositiveInt, default=50, help="Steps between checkpoints.")
    add("--allow_pipe", type=bool, default=False, help="Run shell commands (pipe:...) that the target names.")
    wandb = "Weights & Biases: offline needs no account; 'wandb sync' uploads later."
    add("--wandb", type=Literal["offline", "online", "disabled"], default="offline", help=wandb)


def share_structure_prior(settings: Namespace) -> None:
    """Let the channel be measured again on the structure prior of the extractor's training, unless one is named.

    No link, as those of jsonargparse leave no choice.
    """
    likelihood = settings.get("model.structure_learner.init_args.likelihood")
    if likelihood is not None and likelihood.init_args.structure_prior is None:
        likelihood.init_args.structure_prior = settings["extractor.structure_prior"]


def link_parts(parser: LightningArgumentParser, seed: Callable[[bool | int], int]) -> None:
    """Fill in arguments that are the same object in several parts of a run, or that the world determines.

    Args:
        parser: The parser of a command.
        seed: Computes the seed of the parts from ``seed_everything``.
    """
    link = parser.link_arguments
    for section in ("model", *(stage.name for stage in STAGES), "data.target.init_args", "model.parameters.init_args"):
        link("world", f"{section}.world", apply_on="instantiate")
    link("world", "model.structure.init_args.grammar", lambda world: world.grammar, apply_on="instantiate")
    for stage in STAGES:
        for argument, source in stage.links.items():
            link(source, f"{stage.name}.{argument}", apply_on="instantiate")
    for name, found in (
        ("attributes", lambda w: w.mutable_attributes),
        ("environment", lambda w: w.mutable_environment),
    ):
        for features in EXTRACTORS:
            link("world", f"{features}.init_args.{name}", found, apply_on="instantiate")
    for network in (*EXTRACTORS, "model.reward.init_args.network"):
        for name, found in (("channels", lambda w: w.renderer.channels), ("classes", lambda w: list(w.classes))):
            link("world", f"{network}.init_args.{name}", found, apply_on="instantiate")
    for section in ("model", "data", "evaluation", *(stage.name for stage in STAGES)):
        link("seed_everything", f"{section}.seed", seed)
    parser.set_defaults({"model.structure": {"class_path": "ms2.models.structure.StructureModel"}})
