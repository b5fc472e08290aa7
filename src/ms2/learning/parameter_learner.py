"""How parameters are learned: against what, by which gradient, and in which steps of a run."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ms2.core.errors import UserError, suggest
from ms2.core.settings import Configured
from ms2.features.base import AttributeExtractor, Blocks, FeatureExtractor
from ms2.gradients.base import Drawn, Gradient
from ms2.models.parameters import ParameterModel
from ms2.objectives.base import Objective
from ms2.scene.batch import SceneBatch
from ms2.world import World

Order = Literal["after", "before", "alternating"]


class ParameterLearning(Configured, nn.Module):
    """The steps of a run in which q(V | T) is learned, by matching features of generated and of target images.

    Args:
        objective: Scores images.
        gradient: How costs become a gradient.
        order: Which steps of the run these are: the last, as in the paper's Table 2, the first, or some in between all
            along.
        parameter_fraction: Share of the run's steps; with 1 structure is not learned, as in Meta-Sim.
        lr: Learning rate (Adam).
        lr_decay: Whether the learning rate falls linearly to zero.
        max_gradient: Largest norm of the gradient; longer ones are cut.
        freeze_encoder: Whether only the decoder learns, once the autoencoder is trained, as in Meta-Sim.
        ema_steps: Steps over which weights are averaged, exponentially; the last step of parameters ends with the mean.
            Matching distributions batch by batch goes round in circles about the target, as in adversarial learning,
            and the mean lies nearer to it (Yazici et al., ICLR 2019). 1 is no average, as in Meta-Sim.

    Raises:
        UserError: If a number makes no sense, or the objective has no gradient where one is needed.
    """

    def __init__(
        self,
        objective: Objective,
        gradient: Gradient,
        order: Order = "after",
        parameter_fraction: float = 0.5,
        lr: float = 1e-3,
        lr_decay: bool = True,
        max_gradient: float | None = 1.0,
        freeze_encoder: bool = False,
        ema_steps: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < parameter_fraction <= 1:
            raise UserError(
                f"parameter_fraction is the fraction of steps that learn parameters, above 0 and at most 1; got "
                f"{parameter_fraction}"
            )
        if ema_steps < 1:
            raise UserError(f"ema_steps is a number of steps, at least 1; got {ema_steps}")
        if (gradient.through_images or gradient.straight_through) and not objective.pathwise:
            raise UserError(
                f"{type(gradient).__name__} needs an objective whose scores have a gradient through features, and "
                f"{type(objective).__name__} is none: take KDE or MMDWitness, or another gradient"
            )
        self.objective, self.gradient, self.order, self.parameter_fraction = (
            objective,
            gradient,
            order,
            parameter_fraction,
        )
        self.lr, self.lr_decay, self.max_gradient, self.freeze_encoder = lr, lr_decay, max_gradient, freeze_encoder
        self.ema_steps = ema_steps

    def steps(self, first: int) -> int:
        """How many of the first so many steps of a run's alternating ones are of parameters."""
        return math.floor(first * self.parameter_fraction + 1e-9)

    def before(self, step: int, steps: int) -> int:
        """How many of a run's steps before this one learn parameters.

        Args:
            step: Number of the step, from 0.
            steps: Steps of the run.
        """
        if self.order == "alternating":
            return self.steps(step)
        ours = self.steps(steps)
        return min(step, ours) if self.order == "before" else max(0, step - (steps - ours))

    def its_turn(self, step: int, steps: int) -> bool:
        """Whether a step learns parameters."""
        return self.before(step + 1, steps) > self.before(step, steps)

    def mean_of(self, model: ParameterModel) -> AveragedModel | None:
        """What keeps the mean of a model's weights, if one is asked for; of the first few steps it is that of all."""
        if self.ema_steps == 1:
            return None
        # processes would wait for the gradient of what they take for weights to be learned
        return AveragedModel(model, avg_fn=self._averaged).requires_grad_(False)

    def _averaged(self, mean: Tensor, new: Tensor, number: Tensor | int) -> Tensor:
        return mean + (new - mean) * max(1 / (int(number) + 1), 1 / self.ema_steps)

    def trained(self, model: ParameterModel) -> list[nn.Parameter]:
        """The weights that are learned."""
        return list((model.decoder if self.freeze_encoder else model).parameters())

    def loss(
        self,
        model: ParameterModel,
        world: World,
        features: FeatureExtractor,
        prior: SceneBatch,
        real: Mapping[str, Float[Tensor, "m _"]],
        generator: torch.Generator,
        gather: Callable[[Tensor], Tensor] = lambda block: block,
        own: Int[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " b"], Drawn]:
        """A loss whose gradient lowers the scores of images, these scores, and the scenes.

        Args:
            model: The parameter model.
            world: Whose renderer draws.
            features: What embeds images.
            prior: Scenes with parameters of the prior.
            real: Features of as many target images, over all processes together, as there are scenes.
            generator: Draws the parameters.
            gather: Brings the values of all processes together.
            own: Places of this process's scenes among all.
        """
        proposal = model.propose(prior, generator)
        drawn = Drawn(prior, proposal, model.draw(proposal, generator))
        places = torch.arange(len(prior), device=proposal.mean.device) if own is None else own
        population: Blocks = {}

        def cost_of(scenes: SceneBatch) -> Float[Tensor, " b"]:
            found = self._features(features, world, scenes)
            if not population:
                population.update({name: gather(block.detach()) for name, block in found.items()})
            return self.objective(found, population, places, real)[0]

        def everyone(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
            return function(gather(values))[places]

        return (*self.gradient.loss(model, drawn, cost_of, generator, everyone), drawn)

    def _features(self, features: FeatureExtractor, world: World, scenes: SceneBatch) -> Blocks:
        """Features of the images of scenes, with the gradient that is asked for."""
        if not self.gradient.straight_through:
            return features(world.renderer.render(scenes))
        if not isinstance(features, AttributeExtractor):
            raise UserError(
                f"{type(self.gradient).__name__} goes through what features read, and {type(features).__name__} reads "
                "no parameters: take DenseLayout, or another gradient"
            )
        with torch.no_grad():
            found = features(world.renderer.render(scenes))
        truth = features.truth(scenes, world.renderer.centres(scenes))
        if not any(block in truth for block in self.objective.blocks or found):
            raise UserError(
                "no block of the objective of parameters is one whose true values are known, so there is nothing to "
                f"learn from. {suggest('', truth)}"
            )
        # the value of what was read, the gradient of what there was to read
        return {name: v + truth[name] - truth[name].detach() if name in truth else v for name, v in found.items()}
