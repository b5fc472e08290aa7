"""Downstream task reward: accuracy on labelled target images of a network that is trained on generated ones."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.core.settings import Configured
from ms2.features.base import CountError, TrainedExtractor, class_counts
from ms2.gradients.advantages import Advantage, MovingAverage
from ms2.gradients.base import SampledScenes
from ms2.models.scene_model import SceneModel
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.targets.synthetic import Synthetic
from ms2.world import World


class TaskReward(Configured, nn.Module):
    """Meta-Sim's second objective: networks that are trained on generated images should do well on the target.

    Every few parameter steps a task network is trained on labelled generated images. Its accuracy on a few labelled
    images of the target is the reward of all of these images together, and REINFORCE makes the parameters of rewarded
    scenes more likely. This uses labels of the target, which the other objectives do without.

    Args:
        network: The task network: an extractor, whose task is to count the objects of each class in an image.
        every: Parameter steps from one reward to the next.
        steps: Training steps of the network for each reward.
        num_validation: Number of labelled target images.
        weight: Weight of the reward relative to the objective.
        lr: Learning rate of the network (AdamW).
        baseline: Baseline that is subtracted from rewards.
    """

    def __init__(
        self,
        network: TrainedExtractor,
        every: int = 5,
        steps: int = 5,
        num_validation: int = 100,
        weight: float = 1.0,
        lr: float = 3e-3,
        baseline: Advantage | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("every", every), ("steps", steps), ("num_validation", num_validation)):
            if value < 1:
                raise UserError(f"reward.{name} must be at least 1, not {value}")
        if baseline is not None and baseline.centred:
            raise UserError(
                f"reward.baseline can't be {type(baseline).__name__}: there is one reward at a time, and less the mean "
                "of all it is always zero. Take MovingAverage"
            )
        self.network, self.baseline = network, baseline or MovingAverage()
        self.every, self.steps, self.num_validation = every, steps, num_validation
        self.weight, self.lr = weight, lr
        self.validation: Rendering | None = None

    def check(self, target: Target) -> None:
        """Check that the target has labels.

        Raises:
            UserError: If it has none.
        """
        if not isinstance(target, Synthetic):
            raise UserError(
                "a task's reward is measured on labelled images of the target, and those of "
                f"{type(target).__name__} have no labels that it could use: leave out model.reward"
            )

    def prepare(self, target: Target) -> None:
        """Render the labelled target images, on which rewards are measured.

        Raises:
            UserError: If the target has no labels.
        """
        self.check(target)
        assert isinstance(target, Synthetic)
        device = next(self.network.parameters()).device
        self.validation = target.world.renderer.render_labelled(target.scenes[: self.num_validation].to(device))

    def is_due(self, parameter_steps: int) -> bool:
        """Return whether there is a reward after a number of parameter steps."""
        return parameter_steps % self.every == 0

    def forward(self, model: SceneModel, samples: SampledScenes) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute the loss of sampled scenes by their reward, and what to log."""
        assert model.parameters is not None
        values = samples.values.detach()
        accuracy = self.accuracy(model.world, model.parameters.applied(samples.prior, values))
        loss = self.surrogate(accuracy, model.parameters.log_prob(samples.proposal, values))
        return loss, {"parameters/reward": accuracy}

    def accuracy(self, world: World, scenes: SceneBatch) -> Float[Tensor, ""]:
        """Train the network on scenes, in one batch per step, and measure its accuracy on the target images.

        Returns:
            Among the classes that an image holds, or is predicted to hold, the fraction whose number is right.

        Raises:
            UserError: If the network can't count, or not as many objects as a scene holds.
        """
        assert self.validation is not None, "prepare must be called first"
        network = copy.deepcopy(self.network).train().requires_grad_(True)
        self._train(network, world, scenes)
        self.network.load_state_dict(network.state_dict())
        network.eval()
        with torch.no_grad():
            read = network.read(self.validation.image).counts
        if read is None:
            raise UserError(f"{type(network).__name__} counts nothing: give the reward a network that does")
        counted = ~read.isnan().any(0)
        predicted, true = read.round()[:, counted], class_counts(self.validation, read.shape[1])[:, counted]
        named = (predicted > 0) | (true > 0)  # most classes are absent from an image, which is easily predicted
        return ((predicted == true) & named).sum() / named.sum().clamp(min=1)

    @torch.enable_grad()
    def _train(self, network: TrainedExtractor, world: World, scenes: SceneBatch) -> None:
        optimizer = torch.optim.AdamW(network.parameters(), self.lr)
        for part in torch.arange(len(scenes), device=scenes.classes.device).tensor_split(self.steps):
            if not len(part):
                continue
            labels = world.renderer.render_labelled(scenes[part])
            try:
                loss = network.loss(labels.image, labels, scenes[part])
            except CountError as error:
                raise UserError(
                    f"a generated scene holds more than model.reward.network can count: raise its max_count ({error})"
                ) from error
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def surrogate(self, accuracy: Float[Tensor, ""], log_prob: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Compute REINFORCE's surrogate loss of scenes that share one reward."""
        return -self.weight * self.baseline(accuracy[None])[0] * log_prob.mean()
