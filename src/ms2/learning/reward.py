"""The reward of a task: how well a network does on labelled images of the target that was trained on generated ones."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ms2.core.errors import UserError
from ms2.core.settings import Configured
from ms2.features.base import CountError, TrainedExtractor, class_counts
from ms2.gradients.advantages import Advantage, MovingAverage
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.targets.synthetic import Synthetic
from ms2.world import World


class TaskReward(Configured, nn.Module):
    """Meta-Sim's second objective: generated images should be good to learn a task from.

    Now and then a task network is trained on labelled generated images, and its accuracy on a few labelled images of
    the target is the reward of all of these together; REINFORCE makes parameters of such scenes more likely. Labels of
    the target are looked at here, which distribution matching does without.

    Args:
        network: The task network: an extractor, whose task is to tell how many objects of each class an image holds.
        every: Parameter steps from one reward to the next.
        steps: Steps that the network goes on training for each reward.
        num_validation: Labelled images of the target.
        weight: Weight of the reward beside the objective.
        lr: Learning rate of the network (AdamW).
        baseline: What rewards are compared with.
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

    def check(self, target: Target) -> None:
        """Refuse a target without labels.

        Raises:
            UserError: If nobody knows what its images show.
        """
        if not isinstance(target, Synthetic):
            raise UserError(
                "a task's reward is measured on labelled images of the target, and those of "
                f"{type(target).__name__} have no labels that it could use: leave out model.reward"
            )

    def validation(self, target: Target) -> Rendering:
        """The labelled images of the target.

        Raises:
            UserError: If nobody knows what its images show.
        """
        self.check(target)
        assert isinstance(target, Synthetic)
        device = next(self.network.parameters()).device
        return target.world.renderer.render_labelled(target.scenes[: self.num_validation].to(device))

    def accuracy(self, world: World, scenes: SceneBatch, validation: Rendering) -> Float[Tensor, ""]:
        """Train on scenes, a batch for each step, and measure the network on labelled images.

        Returns:
            Of all classes that an image holds, or is said to hold, the share whose number is right.

        Raises:
            UserError: If the network can't count, or not as far as scenes go.
        """
        network = copy.deepcopy(self.network).train().requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), self.lr)
        with torch.enable_grad():
            for part in torch.arange(len(scenes), device=scenes.classes.device).tensor_split(self.steps):
                if not len(part):
                    continue
                labels = world.renderer.render_labelled(scenes[part])
                try:
                    loss = network.loss(labels.image, labels, scenes[part])
                except CountError as error:
                    raise UserError(
                        "a generated scene holds more than model.reward.network can count: raise its max_count "
                        f"({error})"
                    ) from error
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.network.load_state_dict(network.state_dict())
        network.eval()
        read = network.read(validation.image).counts
        if read is None:
            raise UserError(f"{type(network).__name__} counts nothing: give the reward a network that does")
        counted = ~read.isnan().any(0)
        said, true = read.round()[:, counted], class_counts(validation, read.shape[1])[:, counted]
        named = (said > 0) | (true > 0)  # that most classes are nowhere is easily said
        return ((said == true) & named).sum() / named.sum().clamp(min=1)

    def loss(self, accuracy: Float[Tensor, ""], log_prob: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """REINFORCE's surrogate: all images of a reward share it."""
        return -self.weight * self.baseline(accuracy[None])[0] * log_prob.mean()
