"""Print the operators that each shipped configuration dispatches per training step, and the calls that wait for a GPU.

Compares them with the recorded ones, and fails where they have grown: python benchmarks/ops.py [--record] [NAME ...]
"""

import argparse
import copy
import json
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from operators import BLOCK, COUNTED, OperatorCount, counting
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from ms2.cli.fit import CLI, silence_lightning
from ms2.core import configurations
from ms2.core.seeding import generator
from ms2.features.base import CountingExtractor
from ms2.learning.count_likelihood import Readings
from ms2.learning.data import IndexBatches
from ms2.learning.drawn_ahead import BLOCK_SIZE
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.probe import measure_channel
from ms2.learning.stage import Stage
from ms2.learning.stages import STAGES

CONFIGS = Path(__file__).parents[1] / "configs" / "experiments"
RECORDED = Path(__file__).with_name("ops.json")
BATCH_SIZE, STEPS = 4, 3
"""Small sizes: the number of operators does not depend on them."""
NUM_MEASURED = 64
"""Images that a channel is measured on: each class is seen in some, as a class that is not has no block."""
GROWTH = 1.1
"""A figure may be this many times the recorded one."""
SIZES = ("batch_size", "max_steps", "lr", "num_probe_images", "num_validation")
"""Settings of a stage that change no operator of its steps."""


@dataclass
class Row:
    """What a step dispatches.

    Attributes:
        operators: Number of operators by part and by where they are called.
        waits: What waits for the device, and where, but for the drawing of blocks.
        block: Operators of a block per step.
    """

    operators: Counter[tuple[str, str]]
    waits: list[str]
    block: float = 0.0

    @property
    def parts(self) -> dict[str, int]:
        """Number of operators by part, of those that count."""
        return {p: sum(number for (part, _), number in self.operators.items() if part == p) for p in COUNTED}

    @property
    def figures(self) -> dict[str, float]:
        """What is recorded and compared."""
        return {"operators": sum(self.parts.values()), "block": self.block, "waits": len(self.waits)}


class LastStep(Callback):
    """Counts the operators of a training step, from its start to that of the next, for each kind of step.

    The last step of all is left out, as training ends with it.
    """

    def __init__(self, count: OperatorCount) -> None:
        self.count, self.kind = count, ""
        self.found: dict[str, Row] = {}
        self.block = 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self._close()
        parameters = isinstance(module, MetaSim2) and module.is_parameter_step
        self.kind = module.name if isinstance(module, Stage) else "parameters" if parameters else "structure"

    def _close(self) -> None:
        if self.kind:
            operators = self.count.operators
            self.block += sum(number for (part, _), number in operators.items() if part == BLOCK)
            waits = [f"{part}: {what}" for part, what in self.count.waits if part != BLOCK]
            self.found[self.kind] = Row(operators, waits)
        self.count.clear()


def measure(name: str, known: dict[str, Row]) -> Iterator[tuple[str, Row]]:
    """Yield each stage of a configuration with its figures, from those that are known where its parts are the same."""
    configuration = shrunk(configurations.load(CONFIGS / f"{name}.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        cli = CLI(["--config", str(file)], run=False)
    for section in (stage.name for stage in STAGES):
        stage: Stage = cli.config_init[section]
        if not stage.needed or not stage.max_steps:  # an extractor that is measured alone has no steps
            continue
        parts = {key: configuration.get(key) for key in ("world", "model", section)}
        key = json.dumps([_relevant(parts, section)], sort_keys=True, default=str)
        if key not in known:
            known[key] = count_stage(stage)
        yield section, known[key]
    yield from count_learning(cli.model).items()


def _relevant(parts: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The settings that operators of a stage depend on."""
    model = {key: value for key, value in (parts["model"] or {}).items() if "learner" not in key}
    own = {key: value for key, value in (parts[section] or {}).items() if key not in SIZES}
    return {"world": parts["world"], "model": model, section: own}


def shrunk(configuration: dict[str, Any]) -> dict[str, Any]:
    """A configuration that needs no file: a target of the prior's images, and networks with random weights."""
    features = configuration["model"]["features"]
    features = {"class_path": features} if isinstance(features, str) else features
    if features["class_path"] in ("PretrainedCounts", "InceptionPool3"):
        features.setdefault("init_args", {})["weights"] = None
    if features["class_path"] == "DetectorCounts":
        detector = {"architecture": "ssdlite320_mobilenet_v3_large", "weights": None}
        features["init_args"]["detector"] = {"class_path": "TorchvisionDetector", "init_args": detector}
    configuration["model"]["features"] = features
    prior = {key: configuration["world"][key] for key in ("structure_prior",) if key in configuration["world"]}
    configuration["data"]["target"] = {"class_path": "Synthetic", "init_args": {"num_images": BATCH_SIZE, **prior}}
    configuration["evaluation"] = {}
    return configuration


def count_stage(stage: Stage) -> Row:
    """Count the operators of a stage's steps; a block's are shared by the steps that the stage's settings give it.

    What it trains ends with the weights that it had: which stages were counted before decides nothing.
    """
    before = copy.deepcopy(stage.trained_module.state_dict())
    fewer = {"batch_size": BATCH_SIZE, "max_steps": STEPS, "num_validation": BATCH_SIZE}
    small = type(stage)(**{key: fewer.get(key, value) for key, value in stage.settings.items()})
    small.configure_callbacks = list  # early stopping needs validations
    last = fit(small)
    stage.trained_module.load_state_dict(before)
    steps = min(max(1, BLOCK_SIZE // stage.batch_size), stage.max_steps)
    return replace(last.found[stage.name], block=round(last.block / steps, 1))


def count_learning(model: MetaSim2) -> dict[str, Row]:
    """Count the operators of steps that train the structure model, and of those that train the parameter model."""
    with torch.no_grad():
        images = model.world.renderer.render(model.world.sample_prior(BATCH_SIZE, generator("operators")))
        model.target_features = model.features.eval()(images)
        likelihood = model.structure_learner.likelihood
        if likelihood is not None and isinstance(model.features, CountingExtractor):
            likelihood.num_images = BATCH_SIZE
            draw = model.world.sample_prior
            measure_channel(model.features, model.world, draw, NUM_MEASURED, ("operators",))
            model.target_features |= Readings(model.features)(images)
    with mock.patch("ms2.learning.metasim2.warn_unlike"):
        last = fit(model)
    return last.found


class Indices(LightningDataModule):
    """Draws indices of target images, of which there are as many as in a batch."""

    target, num_images = None, BATCH_SIZE

    def train_dataloader(self) -> IndexBatches:
        return IndexBatches(2 * STEPS, BATCH_SIZE, BATCH_SIZE, seed=0)

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader([0])


def fit(module: Stage | MetaSim2) -> LastStep:
    """Train a module for some steps, and count."""
    alternates = isinstance(module, MetaSim2) and module.parameter_learner is not None
    steps = 2 * STEPS if alternates else STEPS
    with counting(module.world.renderer) as count, tempfile.TemporaryDirectory() as folder:
        last = LastStep(count)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=steps, logger=False, callbacks=[last], limit_val_batches=0,
            enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            num_sanity_val_steps=0, use_distributed_sampler=False, default_root_dir=folder,
        )  # fmt: skip
        with mock.patch.object(ExtractorTraining, "measure"):
            trainer.fit(module, datamodule=None if isinstance(module, Stage) else Indices())
    return last


def table(found: Mapping[str, Row]) -> Iterator[str]:
    """Yield the lines of a table, with a row for each configuration and stage."""
    yield f"| configuration | stage | operators | {' | '.join(COUNTED)} | block, per step | waits |"
    yield "|:---|:---|" + "---:|" * (len(COUNTED) + 3)
    for key, row in found.items():
        operators, block, waits = row.figures.values()
        parts = " | ".join(map(str, row.parts.values()))
        yield f"| {' | '.join(key.split())} | {operators} | {parts} | {block or ''} | {waits} |"


def grown(found: Mapping[str, Row], recorded: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a line for each figure that has grown: operators by more than a tenth, waits at all."""
    for key, row in found.items():
        if key not in recorded:
            yield f"{key} is not recorded: record it with --record"
            continue
        for figure, number in row.figures.items():
            before = recorded[key][figure]
            if number > before * (1 if figure == "waits" else GROWTH):
                yield f"{key}: {figure} per step {number}, recorded {before}"
                yield from (f"    {what}" for what in row.waits if figure == "waits")


def places(found: Mapping[str, Row]) -> Iterator[str]:
    """Yield where operators that count are called, most first, and where a step waits."""
    for key, row in found.items():
        yield from (f"{key}: {n} × {part} at {at}" for (part, at), n in row.operators.most_common() if part in COUNTED)
        yield from (f"{key}: waits: {what}" for what in row.waits)


def main() -> int:
    """Measure, print and compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="configurations; all by default")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/ops.json")
    parser.add_argument("--where", action="store_true", help="print where each step dispatches and waits")
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # which Lightning would read
    quiet()
    known, found = dict[str, Row](), dict[str, Row]()
    for name in arguments.names or sorted(path.stem for path in CONFIGS.glob("*.yaml")):
        found |= {f"{name} {stage}": row for stage, row in measure(name, known)}
    print(*table(found), sep="\n")
    if arguments.where:
        print(*places(found), sep="\n")
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    if arguments.record:
        every = (recorded if arguments.names else {}) | {key: row.figures for key, row in found.items()}
        lines = [f" {json.dumps(key)}: {json.dumps(every[key])}" for key in sorted(every)]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return 0
    worse = list(grown(found, recorded))
    print(*worse, sep="\n", file=sys.stderr)
    return bool(worse)


def quiet() -> None:
    """Suppress what libraries say of small runs, and weights that would have to be fetched."""
    silence_lightning()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    os.environ.setdefault("MS2_DATA", "data")
    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
