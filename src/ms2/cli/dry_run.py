"""What ``ms2 fit`` is going to do, the checks that it makes before it trains anything, and ``--dry_run``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ms2.cli.run import Run
from ms2.cli.run_folder import SHEET_NAME, Identity, RunFolder
from ms2.core.errors import UserError
from ms2.core.files import read_cached, write_bytes
from ms2.core.images import encode
from ms2.core.seeding import generator
from ms2.evaluation.examples import NUM_EXAMPLES
from ms2.evaluation.plots import image_sheet
from ms2.learning.checks import check_first_images, check_trainer
from ms2.learning.data import TargetImages
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stage import Stage
from ms2.learning.stages import say, stage_files
from ms2.metrics.results import PRIOR, TARGET
from ms2.models.checkpoints import read_checkpoint

NUM_CHECK_SCENES = 4
"""Scenes of the prior on which features and objectives are tried."""


@dataclass(frozen=True)
class FitPlan:
    """What a run is going to do in its folder.

    Attributes:
        folder: The run's folder.
        identity: Fingerprints of what determines what is learned.
        stages: Stages before learning that were asked for.
        learns: Whether the model is learned after them.
        checkpoint: File to resume from that was asked for.
        fresh: Whether to train anew.
    """

    folder: RunFolder
    identity: Identity
    stages: Sequence[Stage[Any]]
    learns: bool = True
    checkpoint: str | Path | None = None
    fresh: bool = False

    @property
    def resumes(self) -> bool:
        """Whether the run that is in the folder goes on from its last checkpoint."""
        return not self.fresh and self.folder.identity == self.identity

    @property
    def start(self) -> Path | None:
        """Checkpoint that learning goes on from; None for the beginning."""
        if self.checkpoint is not None:
            return Path(self.checkpoint)
        return self.folder.last_checkpoint if self.resumes and self.folder.last_checkpoint.exists() else None

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do."""
        return self.learns and self.checkpoint is None and self.resumes and self.folder.finished

    def lines(self, max_steps: int) -> Iterator[str]:
        """Say what is going to be done, in a line for each part.

        Args:
            max_steps: Steps of learning; -1 where epochs are counted.
        """
        earlier = self.folder.identity
        if earlier is not None and not self.resumes and self.checkpoint is None:
            reason = self.identity.difference(earlier) or "--fresh true"
            yield f"the earlier run called {self.folder.path.name} is kept under another name: {reason}"
        for stage in self.stages:
            if stage.needed:
                yield f"{stage.name}: {_stage_plan(stage, self.folder.cache)}"
        if not self.learns:
            return
        steps = f"{max_steps} steps" if max_steps > 0 else "all epochs"
        if self.finished:
            yield "learning: nothing, this run is finished"
        elif self.start is None:
            yield f"learning: {steps}"
        else:
            step = read_checkpoint(self.start).get("global_step", 0)
            yield f"learning: {steps}, resumed after step {step} from {self.start}"


def _stage_plan(stage: Stage[Any], cache: Path) -> str:
    files = stage_files(stage, cache)
    if files.result.exists():
        return f"done before, taken from {files.result}"
    step = read_cached(files.checkpoint, lambda saved: int(saved["global_step"]))
    if stage.max_steps == 0:
        return "measured on renders, not trained"
    return f"{stage.max_steps} steps" + ("" if step is None else f", resumed after step {step}")


def check_before_training(plan: FitPlan, run: Run, model: MetaSim2, data: TargetImages) -> None:
    """Check all that can be known before the first stage is trained.

    Args:
        plan: What is going to be done.
        run: The run.
        model: The model.
        data: The target images.

    Raises:
        UserError: If settings don't fit each other, or the target, or the folder.
    """
    data.setup("fit")
    run.results.evaluation.truth(data.target)  # for the error, if its labels are to be evaluated and can't be read
    if plan.folder.identity is None:
        plan.folder.check_free()
    if plan.learns and plan.start is not None:
        model.check_checkpoint(read_checkpoint(plan.start), resumes=True)
    trainer, needed = run.trainer, [stage for stage in plan.stages if stage.needed]
    check_trainer(trainer, model.parameter_learner is not None, model.reward is not None)
    if trainer.max_steps == 0 or trainer.max_epochs == 0:
        raise UserError("trainer.max_steps or trainer.max_epochs is 0, so that nothing would be learned: raise it")
    if trainer.gradient_clip_val is not None:
        raise UserError(
            "trainer.gradient_clip_val has no effect, as each learner clips its own gradients: set "
            "model.structure_learner.max_grad_norm instead"
        )
    check_batch_size("data", data.batch_size, trainer.world_size)
    for stage in needed:
        check_batch_size(stage.name, stage.batch_size, trainer.world_size)
    with torch.random.fork_rng(devices=[]):
        check_first_images(model.world, model.seed, needed, trainer.strategy.root_device)
        run.results.evaluation.check_statistics(model.world)
        for stage in needed:
            stage.check()
        check_features(model)
    if model.reward is not None:
        model.reward.prepare(data.target, model.world)
    if data.target.num_images is not None:
        run.results.evaluation.check(model.scene_model, data.target.num_images)


def check_batch_size(section: str, batch_size: int, num_processes: int) -> None:
    """Check that processes can share a batch evenly.

    Raises:
        UserError: If they can't; the message has the nearest batch sizes that they can.
    """
    if batch_size % num_processes:
        below = batch_size // num_processes * num_processes
        nearest = " or ".join(str(size) for size in (below, below + num_processes) if size)
        raise UserError(
            f"{section}.batch_size is {batch_size}, which {num_processes} processes can't share evenly: take {nearest}"
        )


@torch.no_grad()
def check_features(model: MetaSim2) -> None:
    """Try features and objectives on a few scenes of the prior, such as for names of feature blocks.

    Raises:
        UserError: If they don't fit each other, or the renderer's images.
    """
    scenes = model.world.sample_prior(NUM_CHECK_SCENES, generator(model.seed, "check"))
    training = model.features.training
    model.features.eval()
    for learner in model.learners:
        learner.check_features(model.scene_model, model.features, scenes)
    model.features.train(training)


def dry_run(plan: FitPlan, run: Run, model: MetaSim2, data: TargetImages) -> None:
    """Say what a run is going to do, and draw images of prior and target side by side.

    Args:
        plan: What is going to be done.
        run: The run.
        model: The model.
        data: The target images.
    """
    scenes = model.world.sample_prior(NUM_EXAMPLES, generator(model.seed, "pictures"))
    target = torch.stack([image.float() / 255 for image in data.target.preview(NUM_EXAMPLES)])
    images = {PRIOR: model.world.renderer.render(scenes), TARGET: target}
    name = plan.folder.path.name
    sheet = plan.folder.path / SHEET_NAME
    if plan.folder.identity is not None:  # of a run that is not to be disturbed
        sheet = plan.folder.path.with_name(f"{name}_{SHEET_NAME}")
    write_bytes(sheet, encode(image_sheet(name, images), "png"))
    say("ready; without --dry_run this command does:")
    for line in plan.lines(run.trainer.max_steps):
        say(f"  {line}")
    say(f"images of prior and target: {sheet}")
