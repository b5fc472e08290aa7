"""Downstream task reward: accuracy on labelled target images of a network that is trained on generated ones."""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ms2.core.bounds import NonNegativeFloat, PositiveFloat, PositiveInt
from ms2.core.errors import UserError
from ms2.core.settings import Configured
from ms2.datasets.labelled_set import count_labels
from ms2.features.base import CountError, TrainedExtractor
from ms2.gradients.advantages import Advantage, MovingAverage
from ms2.gradients.base import SampledScenes
from ms2.models.scene_model import SceneModel
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.world import World


class ValidationImages(NamedTuple):
    """Labelled target images.

    Attributes:
        images: Pixels in [0, 1].
        classes: Index, among the world's classes, of each labelled category.
        counts: Number of labelled objects of each category in each image.
    """

    images: Float[Tensor, "n c h w"]
    classes: Int[Tensor, " k"]
    counts: Int[Tensor, "n k"]


class TaskReward(Configured, nn.Module):
    """Meta-Sim's second objective: the accuracy on target images of networks trained on generated ones.

    Every few parameter steps a task network is trained on labelled generated images. Its accuracy on a few labelled
    images of the target is the reward of all of these images together, and REINFORCE makes the parameters of rewarded
    scenes more likely. This uses labels of the target, which the other objectives do without.

    Args:
        network: The task network: an extractor, whose task is to count the objects of each class in an image.
        steps_between_rewards: Parameter steps from one reward to the next.
        steps_per_reward: Training steps of the network for each reward.
        num_validation: Number of labelled target images.
        weight: Weight of the reward relative to the objective.
        lr: Learning rate of the network (AdamW).
        baseline: Baseline that is subtracted from rewards.
    """

    def __init__(
        self,
        network: TrainedExtractor,
        steps_between_rewards: PositiveInt = 5,
        steps_per_reward: PositiveInt = 5,
        num_validation: PositiveInt = 100,
        weight: NonNegativeFloat = 1.0,
        lr: PositiveFloat = 3e-3,
        baseline: Advantage | None = None,
    ) -> None:
        super().__init__()
        if baseline is not None and baseline.centred:
            raise UserError(
                f"reward.baseline can't be {type(baseline).__name__}: there is one reward at a time, and less the mean "
                "of all it is always zero. Take MovingAverage"
            )
        self.network, self.baseline = network, baseline or MovingAverage()
        self.steps_between_rewards, self.steps_per_reward = steps_between_rewards, steps_per_reward
        self.num_validation = num_validation
        self.weight, self.lr = weight, lr
        self.validation: ValidationImages | None = None

    def prepare(self, target: Target, world: World) -> None:
        """Load the labelled target images, on which rewards are measured.

        Raises:
            UserError: If the target has no labels.
        """
        labelled = target.labelled_set()
        if labelled is None:
            raise UserError(
                "a task's reward is measured on labelled images of the target, and those of "
                f"{type(target).__name__} have no labels that it could use: leave out model.reward"
            )
        device = next(self.network.parameters()).device
        examples = [labelled[i] for i in range(min(self.num_validation, len(labelled)))]
        images = torch.stack([image[: world.renderer.channels] for image, _ in examples]).to(device).float() / 255
        names = labelled.categories
        counts = torch.stack([count_labels(annotations["labels"], len(names)) for _, annotations in examples])
        columns = torch.tensor([world.classes.index(name) for name in names])
        self.validation = ValidationImages(images, columns.to(device), counts.to(device))

    def is_due(self, parameter_steps: int) -> bool:
        """Return whether there is a reward after a number of parameter steps."""
        return parameter_steps % self.steps_between_rewards == 0

    def forward(self, model: SceneModel, samples: SampledScenes) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute the loss of sampled scenes by their reward, and what to log."""
        assert model.parameters is not None
        values = samples.values.detach()
        accuracy = self.accuracy(model.world, model.parameters.with_values(samples.prior, values))
        loss = self.surrogate(accuracy, model.parameters.log_prob(samples.distribution, values))
        return loss, {"parameters/reward": accuracy}

    def accuracy(self, world: World, scenes: SceneBatch) -> Float[Tensor, ""]:
        """Train the network on scenes, in one batch per step, and measure its accuracy on the target images.

        Returns:
            Among the categories that an image holds, or is predicted to hold, the fraction whose number is right.

        Raises:
            UserError: If the network can't count, or not as many objects as a scene holds.
        """
        assert self.validation is not None, "prepare must be called first"
        network = copy.deepcopy(self.network).train().requires_grad_(True)
        self._train(network, world, scenes)
        self.network.load_state_dict(network.state_dict())
        network.eval()
        with torch.no_grad():
            read = network.predict_counts(self.validation.images).counts
        if read is None:
            raise UserError(f"{type(network).__name__} counts nothing: give the reward a network that does")
        read = read[:, self.validation.classes]
        counted = ~read.isnan().any(0)
        predicted, true = read.round()[:, counted], self.validation.counts[:, counted]
        named = (predicted > 0) | (true > 0)  # most classes are absent from an image, which is easily predicted
        return ((predicted == true) & named).sum() / named.sum().clamp(min=1)

    @torch.enable_grad()
    def _train(self, network: TrainedExtractor, world: World, scenes: SceneBatch) -> None:
        optimizer = torch.optim.AdamW(network.parameters(), self.lr)
        for part in torch.arange(len(scenes), device=scenes.classes.device).tensor_split(self.steps_per_reward):
            if not len(part):
                continue
            labels = world.renderer.render_labelled(scenes[part])
            try:
                network.check_numbers(labels.classes, labels.parents, network.labelled(labels))
            except CountError as error:
                raise UserError(
                    f"a generated scene holds more than model.reward.network can count: raise its max_count ({error})"
                ) from error
            loss = network.loss(labels.image, labels, scenes[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def surrogate(self, accuracy: Float[Tensor, ""], log_prob: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """Compute REINFORCE's surrogate loss of scenes that share one reward."""
        return -self.weight * self.baseline(accuracy[None])[0] * log_prob.mean()
