"""Lightning's command line: fit, validate, test and predict."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

import ms2
from ms2.core import configurations
from ms2.core.errors import UserError
from ms2.core.files import write_json
from ms2.core.parsing import explain
from ms2.core.settings import fingerprint
from ms2.evaluation.callbacks import AtomicCheckpoints, Gallery, Results, SaveImages, StageBar
from ms2.learning.autoencoding import Autoencoding
from ms2.learning.data import TargetImages
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.pretraining import Pretraining
from ms2.learning.stage import Stage
from ms2.learning.stages import run_stage, say
from ms2.world import World

STARTED = time.monotonic()


def resolved(args: Any) -> Any:
    """A command line on which all that is named after ``--config`` stands as one text, merged in order.

    Raises:
        UserError: If there is no such configuration.
    """
    if not isinstance(args, (list, tuple)) or not args:
        return args
    words, names = [], []
    remaining = iter(args[1:])
    for word in remaining:
        key, equals, value = word.partition("=")
        if key != "--config":
            words.append(word)
        else:
            names.append(value if equals else next(remaining, ""))
    text = yaml.safe_dump(configurations.load_all(names), sort_keys=False)
    return [args[0], *(["--config", text] if names else []), *words]


class Parser(LightningArgumentParser):
    """Adds the names one may type to the error on a misspelt plug-in."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with the message alone: the usage is some hundred lines, and --help shows it."""
        message = explain(message)
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"ms2: {message}\nAll options: ms2 fit --help\n")


class CLI(LightningCLI):
    """Runs the stages in order, keeps a run's files in one folder, and resumes what was interrupted."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        super().__init__(
            MetaSim2,
            TargetImages,
            parser_class=Parser,
            save_config_callback=None,  # the folder of a run is known only here, so it is saved here
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            run=run,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the settings of configurations, found by name or as files, and of the command line, which win."""
        self.config = parser.parse_args(resolved(sys.argv[1:] if args is None else args))

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What a trainer can do here."""
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate", "test", "predict")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The world and the stages, which share its parts."""
        parser.add_argument("--name", type=str, default="run", help="Name of the run and its folder.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--stage",
            type=Literal["all", "extractor", "pretraining", "autoencoding"],
            default="all",
            help="Run all stages, or one of those before learning alone.",
        )
        parser.add_argument(
            "--fresh", type=bool, default=False, help="Train anew, keeping an earlier run's folder aside."
        )
        parser.add_argument("--checkpoint_every", type=int, default=50, help="Steps between checkpoints.")
        parser.add_argument(
            "--wandb",
            type=Literal["offline", "online", "disabled"],
            default="offline",
            help="Weights & Biases: offline needs no account; 'wandb sync' uploads later.",
        )
        parser.add_class_arguments(World, "world")
        parser.add_class_arguments(ExtractorTraining, "extractor")
        parser.add_class_arguments(Pretraining, "pretraining")
        parser.add_class_arguments(Autoencoding, "autoencoding")
        for target in (
            *("model.world", "extractor.world", "pretraining.world", "autoencoding.world"),
            *("data.target.init_args.world", "model.parameters.init_args.world"),
        ):
            parser.link_arguments("world", target, apply_on="instantiate")
        parser.link_arguments(
            "world", "model.structure.init_args.grammar", lambda world: world.grammar, apply_on="instantiate"
        )
        parser.link_arguments("model.features", "extractor.features", apply_on="instantiate")
        parser.link_arguments("model.structure", "pretraining.structure", apply_on="instantiate")
        parser.link_arguments("model.parameters", "autoencoding.parameters", apply_on="instantiate")
        for name, found in (("attributes", lambda w: w.mutable), ("environment", lambda w: w.mutable_environment)):
            parser.link_arguments("world", f"model.features.init_args.{name}", found, apply_on="instantiate")
        for network in ("model.features", "model.reward.init_args.network"):
            for name, found in (("channels", lambda w: w.renderer.channels), ("classes", lambda w: list(w.classes))):
                parser.link_arguments("world", f"{network}.init_args.{name}", found, apply_on="instantiate")
        for target in ("model.seed", "data.seed", "extractor.seed", "pretraining.seed", "autoencoding.seed"):
            parser.link_arguments("seed_everything", target, int)
        parser.set_defaults({"model.structure": {"class_path": "ms2.models.structure.StructureModel"}})

    # -- the run's folder ------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return Path(self._get(self.config, "runs_dir")) / self._get(self.config, "name")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of the last stage, with the loggers and callbacks of a run."""
        if self.subcommand is not None:
            self._take_folder()
            self.datamodule.cache = self.folder.parent / "cache"
        config = self._get(self.config_init, "trainer")
        if config.get("logger") is None:
            kwargs["logger"] = self._loggers()
        self.results = Results(self.folder, self._get(self.config, "name"), STARTED)
        checkpoints = ModelCheckpoint(
            self.folder / "checkpoints",
            "step{step}",
            every_n_train_steps=self._get(self.config, "checkpoint_every"),
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        bar = [] if config["enable_progress_bar"] is False else [StageBar()]
        callbacks = [*bar, Gallery(), self.results, checkpoints]
        plugins = config.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpoints()]
        trainer_config = {**config, "default_root_dir": str(self.folder), "use_distributed_sampler": False, **kwargs}
        return self._instantiate_trainer(trainer_config, callbacks)

    def _loggers(self) -> list[Any]:
        mode = self._get(self.config, "wandb")
        loggers = [CSVLogger(self.folder, "csv")] if self.subcommand in ("fit", "test") else []
        if mode == "disabled" or not loggers:
            return loggers
        name = self._get(self.config, "name")
        return [WandbLogger(name, self.folder, offline=mode == "offline", project="ms2"), *loggers]

    @rank_zero_only
    def _take_folder(self) -> None:
        """Make the run's folder; keep an earlier run of other settings aside."""
        try:
            if self.subcommand == "fit" and self.folder.exists():
                state = self._state()
                other = bool(state) and state.get("identity") != self._identity()
                given = self._get(self.config, "ckpt_path")
                if given and self.folder.resolve() in Path(given).resolve().parents:
                    self._note(finished=False)  # it goes on from a checkpoint of its own, whatever is changed
                elif other or self._get(self.config, "fresh"):
                    aside = _free_name(self.folder)
                    self.folder.rename(aside)
                    say(f"an earlier run called {self.folder.name} had other settings; it is now {aside}")
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.subcommand == "fit":
                config = self._parser("fit").dump(self.config["fit"], skip_none=False)
                (self.folder / "config.yaml").write_text(config)
                if not self._state():
                    self._note(finished=False)
        except OSError as error:
            raise UserError(
                f"can't write to the folder of the run, {self.folder.absolute()}: {error.strerror or error}. "
                "Give another one with --runs_dir, or make room or permission there."
            ) from error

    def _identity(self) -> str:
        trainer = self._get(self.config_init, "trainer")
        extent = [trainer.get(key) for key in ("max_steps", "max_epochs", "devices", "num_nodes", "precision")]
        parts = [
            self._get(self.config_init, part) for part in ("model", "data", "extractor", "pretraining", "autoencoding")
        ]
        return fingerprint(ms2.__version__, [str(value) for value in extent], *parts)

    def _state(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @rank_zero_only
    def _note(self, finished: bool) -> None:
        write_json(self.folder / "run.json", {"identity": self._identity(), "finished": finished})

    # -- subcommands -----------------------------------------------------------------------------------

    def fit(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Check the target, run the stages, and learn; from the last checkpoint if there is one."""
        assert self.trainer is not None
        if self._state().get("finished") and ckpt_path is None and self._get(self.config, "stage") == "all":
            say(f"this run is finished, see {self.folder}; train it again with --fresh true")
            return
        datamodule.setup("fit")
        only = self._get(self.config, "stage")
        for name in ("extractor", "pretraining", "autoencoding"):
            stage: Stage = self._get(self.config_init, name)
            if stage.needed and only in ("all", name):
                self.results.stages[name] = run_stage(stage, self._stage_trainer, self.folder.parent / "cache")
        if only != "all":
            return
        last = self.folder / "checkpoints" / "last.ckpt"
        if ckpt_path is None and last.exists():
            say(f"resuming from {last}")
            ckpt_path = last
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **(kwargs | {"weights_only": True}))
        self.trainer.save_checkpoint(last, weights_only=False)  # with the optimiser's state
        self._note(finished=True)
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and self.trainer.is_global_zero:
                logger.experiment.finish()  # all of it is on disk when the command ends, also within a longer program

    def _stage_trainer(self, stage: Stage) -> Trainer:
        """A trainer like the run's, for a stage before learning."""
        assert self.trainer is not None
        config = self._get(self.config_init, "trainer")
        same = {
            key: config[key]
            for key in ("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic")
        }
        bar = config["enable_progress_bar"]
        return Trainer(
            **same,
            max_steps=stage.max_steps,
            val_check_interval=stage.validate_every and min(stage.validate_every, stage.max_steps),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=self.trainer.loggers,
            log_every_n_steps=config["log_every_n_steps"],
            callbacks=[] if bar is False else [StageBar(stage.title)],
            enable_progress_bar=bar,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=str(self.folder),
        )

    def validate(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Validate a checkpoint, by default the run's last."""
        assert self.trainer is not None
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self._checkpoint(ckpt_path), weights_only=True)

    def test(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Test a checkpoint, by default the run's last, and leave its results."""
        assert self.trainer is not None
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self._checkpoint(ckpt_path), weights_only=True)

    def predict(self, model: LightningModule, datamodule: TargetImages, ckpt_path: Any = None, **kwargs: Any) -> None:
        """Draw images from a checkpoint, by default the run's last, into the folder ``samples`` of the run."""
        assert self.trainer is not None
        folder = self.folder / "samples"
        self.trainer.callbacks.append(SaveImages(folder))  # type: ignore[attr-defined]
        checkpoint = self._checkpoint(ckpt_path)
        self.trainer.predict(model, datamodule, return_predictions=False, ckpt_path=checkpoint, weights_only=True)
        say(f"images: {folder}")

    def _checkpoint(self, path: Any) -> Any:
        last = self.folder / "checkpoints" / "last.ckpt"
        if path is None and not last.exists():
            raise UserError(
                f"there is no checkpoint {last}: run 'ms2 fit' with this configuration, or give --ckpt_path"
            )
        return path or last


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return aside
