"""``ms2 fit``, ``validate``, ``test`` and ``predict``: Lightning's command line."""

import logging
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ms2.cli import plugins
from ms2.cli.configs import with_settings
from ms2.cli.run import Run, run_fingerprint
from ms2.cli.run_folder import RunFolder
from ms2.core.parsing import explain_error
from ms2.evaluation.callbacks import ImageWriter
from ms2.evaluation.evaluation import Evaluation
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stages import STAGES, say
from ms2.world import World

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def lightning_command(command: "Command", argv: list[str]) -> int | None:
    """Run one of Lightning's commands; return SIGTERM's exit code if that interrupts it."""
    silence_lightning()
    help_texts = {command.name: {"description": f"{command.help}.", "epilog": f"Example: {command.example}"}}
    try:
        CLI([command.name, *argv], parser_kwargs=help_texts)
    except SIGTERMException:  # of itself it ends with exit code 0, as if all were done
        print("ms2: asked to stop (SIGTERM); the same command resumes where it was", file=sys.stderr)
        return 128 + signal.SIGTERM
    return None


def silence_lightning() -> None:
    """Suppress Lightning's messages about missing hardware, other products and the frozen extractor."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r"Found \d+ module\(s\) in eval mode",
        "The '.*' does not have many workers",
        "Checkpoint directory .* exists and is not empty",  # that of a run that is resumed
        "The dirpath has changed from",  # a checkpoint of another run was given
        r".isinstance\(treespec, LeafSpec\). is deprecated",
    ):
        warnings.filterwarnings("ignore", message)


class TrainerParser(LightningArgumentParser):
    """Argument parser whose error for a misspelt plug-in lists the available names."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with the message alone: the usage is some hundred lines, and --help shows it."""
        message = explain_error(message)
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"ms2: {message}\nAll options: ms2 fit --help\n")


class CLI(LightningCLI):
    """Builds a run's parts from its settings, and trains, measures or samples them in the folder of the run."""

    def __init__(self, args: ArgsType = None, run: bool = True, **kwargs: Any) -> None:
        plugins.load()
        super().__init__(
            MetaSim2,
            TargetImages,
            parser_class=TrainerParser,
            save_config_callback=None,  # the folder of a run is known only here, so it is saved here
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            run=run,
            **kwargs,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the settings of configurations, named or as files, and those of the command line on top of them."""
        words = list(args or [])
        command = words[:1] if words and not words[0].startswith("-") else []
        self.config = parser.parse_args([*command, *with_settings(words[len(command) :])])

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's commands, each with the arguments that are not command-line options."""
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate", "test", "predict")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's own options, and the sections of world and stages, which share parts with the model's."""
        add_run_options(parser)
        parser.add_class_arguments(World, "world")
        parser.add_class_arguments(Evaluation, "evaluation")
        for stage in STAGES:
            parser.add_class_arguments(stage, stage.name)
        link_parts(parser)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Prepare the run and its folder; return the trainer of the main training (stages have their own)."""
        self.folder = RunFolder(self._get(self.config, "runs_dir"), self._get(self.config, "name"))
        if self.subcommand is not None:
            self._claim_folder()
            self.datamodule.cache = self.folder.cache
        self.run = Run(
            self.folder,
            {**self._get(self.config_init, "trainer"), **kwargs},
            self._loggers(),
            self._get(self.config_init, "evaluation"),
            self._get(self.config, "checkpoint_every"),
        )
        return self.run.trainer

    def _loggers(self) -> list[Logger]:
        if self.subcommand not in ("fit", "test"):
            return []
        loggers: list[Logger] = [CSVLogger(self.folder.path, "csv")]
        mode, name = self._get(self.config, "wandb"), self._get(self.config, "name")
        if mode != "disabled":
            loggers.insert(0, WandbLogger(name, self.folder.path, offline=mode == "offline", project="ms2"))
        return loggers

    @rank_zero_only
    def _claim_folder(self) -> None:
        if self.subcommand != "fit":
            self.folder.make()
            return
        configuration = self._parser("fit").dump(self.config["fit"], skip_none=False)
        given, fresh = self._get(self.config, "ckpt_path"), self._get(self.config, "fresh")
        message = self.folder.claim(self.fingerprint(), configuration, given, fresh)
        if message:
            say(message)

    def fingerprint(self) -> str:
        """Return the fingerprint of the settings that determine what is learned."""
        sections = ("trainer", "model", "data", *(stage.name for stage in STAGES))
        trainer, model, data, *stages = (self._get(self.config_init, section) for section in sections)
        return run_fingerprint({**trainer}, model, data, stages)

    # -- subcommands -----------------------------------------------------------------------------------

    def fit(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Train the stages, or one of them, and the model; from the last checkpoint if there is one."""
        only = self._get(self.config, "stage")
        if only == "all" and self.folder.finished and ckpt_path is None:
            say(f"this run is finished, see {self.folder.path}; train it again with --fresh true")
            return
        stages = [self._get(self.config_init, stage.name) for stage in STAGES if only in ("all", stage.name)]
        if only == "all":
            self.run.fit(model, datamodule, stages, ckpt_path, self.fingerprint())
        else:
            datamodule.setup("fit")
            self.run.train_stages(stages)

    def validate(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Validate a checkpoint, by default the run's last."""
        path = ckpt_path or self.folder.checkpoint()
        self.run.trainer.validate(model, datamodule=datamodule, ckpt_path=path, weights_only=True)

    def test(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Test a checkpoint, by default the run's last, and write its results."""
        path = ckpt_path or self.folder.checkpoint()
        self.run.trainer.test(model, datamodule=datamodule, ckpt_path=path, weights_only=True)

    def predict(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Sample images from a checkpoint, by default the run's last, into the folder ``samples`` of the run."""
        path, trainer = ckpt_path or self.folder.checkpoint(), self.run.trainer
        trainer.callbacks.append(ImageWriter(self.folder.samples))  # type: ignore[attr-defined]
        trainer.predict(model, datamodule, return_predictions=False, ckpt_path=path, weights_only=True)
        say(f"images: {self.folder.samples}")


def add_run_options(parser: LightningArgumentParser) -> None:
    """Add the options of a run that belong to none of its parts."""
    stages = ("all", *(stage.name for stage in STAGES))
    add = parser.add_argument
    add("--name", type=str, default="run", help="Name of the run and its folder.")
    add("--runs_dir", type=str, default="runs", help="Folder of all runs.")
    add("--stage", choices=stages, default="all", help="Run all stages, or one of those before learning alone.")
    add("--fresh", type=bool, default=False, help="Train anew; an earlier run's folder is renamed.")
    add("--checkpoint_every", type=int, default=50, help="Steps between checkpoints.")
    wandb = "Weights & Biases: offline needs no account; 'wandb sync' uploads later."
    add("--wandb", type=Literal["offline", "online", "disabled"], default="offline", help=wandb)


def link_parts(parser: LightningArgumentParser) -> None:
    """Fill in arguments that are the same object in several parts of a run, or that the world determines."""
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
        link("world", f"model.features.init_args.{name}", found, apply_on="instantiate")
    for network in ("model.features", "model.reward.init_args.network"):
        for name, found in (("channels", lambda w: w.renderer.channels), ("classes", lambda w: list(w.classes))):
            link("world", f"{network}.init_args.{name}", found, apply_on="instantiate")
    for section in ("model", "data", "evaluation", *(stage.name for stage in STAGES)):
        link("seed_everything", f"{section}.seed", int)
    parser.set_defaults({"model.structure": {"class_path": "ms2.models.structure.StructureModel"}})
