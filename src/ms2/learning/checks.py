"""Checks before learning: parts that belong together, settings of the trainer, and what features can count."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pytorch_lightning import Trainer
from torch import Tensor

from ms2.contracts.checks import check_first_batch, check_max_count
from ms2.core.errors import UserError
from ms2.features.base import CountingExtractor, FeatureExtractor
from ms2.learning.extractor import ExtractorTraining
from ms2.learning.stage import Stage
from ms2.learning.turns import Turns
from ms2.targets.embedding import Inspect
from ms2.world import World

MAX_OVERFLOW = 0.02
"""Fraction of target images with more objects than the features count, above which to warn."""

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions of the trainer in which weights are as wide as images."""


def check_parts(parameters: object, parameter_learner: object, turns: Turns | None, reward: object) -> None:
    """Check that the parts of parameter learning, which are None where they are not given, are given together.

    Raises:
        UserError: If one part is given without another.
    """
    needed = {"parameters": parameters, "parameter_learner": parameter_learner}
    missing = [name for name, part in needed.items() if part is None]
    given = [name for name, part in (needed | {"turns": turns, "reward": reward}).items() if part is not None]
    if missing and given:
        raise UserError(
            f"model.{given[0]} is given without model.{missing[0]}: parameters are learned with model.parameters and "
            "model.parameter_learner, as in multimnist_parameters.yaml, or not at all"
        )
    if turns is not None and turns.parameter_fraction == 0:
        raise UserError("model.turns.parameter_fraction is 0, so no step would train model.parameters: raise it")


def check_trainer(trainer: Trainer, learns_parameters: bool, has_reward: bool) -> None:
    """Check that the trainer's settings allow learning.

    Raises:
        UserError: If they don't.
    """
    if learns_parameters and trainer.max_steps < 1:
        raise UserError("give trainer.max_steps: which of the steps learn parameters depends on how many there are")
    if trainer.accumulate_grad_batches != 1:
        raise UserError(
            "trainer.accumulate_grad_batches must be 1: scores compare the scenes of a batch with each other, so "
            "that two halves are not a whole. Raise data.batch_size instead"
        )
    shortened = trainer.fast_dev_run  # type: ignore[attr-defined]  # a trial run takes fewer steps than are set
    if not shortened and 0 < trainer.max_steps < (trainer.min_steps or 0):
        raise UserError(
            f"trainer.min_steps is {trainer.min_steps}, but trainer.max_steps {trainer.max_steps}: lower the first or "
            "raise the second"
        )
    if trainer.precision not in PRECISIONS:
        raise UserError(
            f"trainer.precision is {trainer.precision}, but images are 32 bits wide: take {' or '.join(PRECISIONS)}"
        )
    if has_reward and trainer.world_size > 1:
        raise UserError(
            "model.reward trains its network on the scenes of one process: leave it out, or train with "
            "trainer.devices 1"
        )


def check_first_images(
    world: World, seed: int, stages: Sequence[Stage[Any]], device: torch.device | str = "cpu"
) -> None:
    """Check the first images of a world, and that the extractor can count their objects, before any stage is trained.

    Raises:
        UserError: If a part of the world is broken, or the extractor counts to less than its images hold.
    """
    check_first_batch(world, seed, device)
    for stage in stages:
        if isinstance(stage, ExtractorTraining) and isinstance(stage.features, CountingExtractor):
            outcome = check_max_count(stage.features, world, stage.structure_prior, stage.parameter_prior, seed, device)
            for finding in outcome.findings:
                raise UserError(finding.found)


def overflow_warning(features: FeatureExtractor) -> Inspect | None:
    """Return a function of target images that warns if they hold more than the features can count."""
    if not isinstance(features, CountingExtractor):
        return None

    def warn(images: Float[Tensor, "b c h w"]) -> None:
        for name, fraction in features.overflow_fraction(images).items():
            if fraction > MAX_OVERFLOW:
                warnings.warn(
                    f"{fraction:.0%} of the target images hold more than block {name!r} of the features can tell "
                    "apart, so the largest numbers won't be learned: raise model.features.max_count (and let "
                    "extractor.structure_prior draw as many)",
                    stacklevel=2,
                )

    return warn
