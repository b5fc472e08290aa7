"""Read the target's images of a run by its extractor, as a source for ``ms2 induce``."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ms2.cli.fit import CLI
from ms2.core import configurations
from ms2.core.errors import UserError
from ms2.features.base import TrainedExtractor
from ms2.learning.induction.object_table import InductionError, ObjectTable
from ms2.learning.induction.placement import Given
from ms2.learning.induction.readings import measure_classes, read_target
from ms2.learning.induction.writing import WrittenGrammar
from ms2.learning.stages import load_stage
from ms2.priors.histogram_placement import HistogramPlacement

OF_COMMANDS = ("ckpt_path", "weights_only")
"""Settings of Lightning's commands, which are no part of what a run consists of."""


@dataclass(frozen=True)
class ImageReadings:
    """What an extractor reads off a target.

    Attributes:
        table: Objects of the images, without parents.
        given: Attributes of the renderer.
        configuration: Configuration of the run.
    """

    table: ObjectTable
    given: Given
    configuration: Mapping[str, Any]


def read_images(run: Path) -> ImageReadings:
    """Read the target of a run whose extractor is trained on independent objects.

    Raises:
        UserError: If the extractor is not trained yet, or the world's parameter prior has no ranges of attributes.
    """
    path = run / "config.yaml"
    configuration = configurations.load(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        settings = {key: value for key, value in configuration.items() if key not in OF_COMMANDS}
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        cli = CLI(["--config", str(file)], run=False)
    stage, world = cli.config_init.extractor, cli.model.world
    prior = world.parameter_prior
    if not isinstance(prior, HistogramPlacement):
        raise UserError(
            f"the parameter prior of {run} is {type(prior).__name__}, which gives no ranges of attributes: learn the "
            "extractor with HistogramPlacement, as in the configuration aerial2d_images"
        )
    if not isinstance(stage.features, TrainedExtractor) or not load_stage(stage, run.parent / "cache"):
        raise UserError(
            f"the extractor of {run} is not trained by these settings and this version: run 'ms2 fit --config {path} "
            "--stage extractor' first"
        )
    measures = measure_classes(world)
    table = read_target(stage.features, cli.datamodule.target, world, measures)
    given = Given(prior.ranges, measures.scales, prior.environment)
    return ImageReadings(table, given, configuration)


def check_classes(written: WrittenGrammar, read: ImageReadings) -> None:
    """Check that a grammar has all classes of the renderer, which knows them by number.

    Raises:
        InductionError: If some were never read.
    """
    lacking = [name for name in read.table.classes if name not in written.renderable]
    if lacking:
        raise InductionError(
            f"no image shows a {' or '.join(lacking)}, so that the grammar lacks them, but the renderer numbers all "
            "classes of the run: take them out of its world, or give more images"
        )
