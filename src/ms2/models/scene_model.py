"""Sample scenes, images and labels from the prior, the learned models, or one learned model and one prior."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ms2.grammar.derivations import Derivations
from ms2.models.conditional.condition import Condition
from ms2.models.conditional.sampling import ConditionalStructure, sample_prior_conditional
from ms2.models.parameters import ParameterModel
from ms2.models.structure import StructureModel
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World

Sampler = Callable[[int, Generator], Derivations]
"""Draws a number of derivations with a generator."""


class Row(NamedTuple):
    """A row of the paper's tables: which distributions are learned; the others are the world's priors.

    Attributes:
        structure: Whether derivations are drawn from the structure model, not from the structure prior.
        parameters: Whether the parameter model changes what the parameter prior drew.
    """

    structure: bool
    parameters: bool


PRIOR = Row(False, False)
LEARNED_STRUCTURE = Row(True, False)
LEARNED_PARAMETERS = Row(False, True)
LEARNED = Row(True, True)
ROWS = {
    "prior": PRIOR,
    "learned_structure": LEARNED_STRUCTURE,
    "learned_parameters": LEARNED_PARAMETERS,
    "learned": LEARNED,
}
"""Every row by its name, as files and figures use it."""


class SceneModel:
    """A distribution over scenes: a world's priors, and the models that were learned in their place.

    Every method takes a row, which says what to draw from the learned models. What the scene model lacks is drawn from
    the prior in every row, so that a scene model without learned models is the prior. No method records gradients.

    Args:
        world: Grammar, priors and renderer.
        structure: The structure model q(T); None where none was learned.
        parameters: The parameter model q(V | T); None where none was learned.
        trained: Which of these models were fitted to a target. A structure model that was only pretrained on the prior
            is used for sampling, but gets no row of its own in `rows`.

    Example:
        >>> model = SceneModel(world, structure)
        >>> images = model.images(16, generator(0, "preview"), ROWS["prior"])
    """

    def __init__(
        self,
        world: World,
        structure: StructureModel | None = None,
        parameters: ParameterModel | None = None,
        trained: Row = LEARNED,
    ) -> None:
        self.world, self.structure, self.parameters, self.trained = world, structure, parameters, trained

    @property
    def components(self) -> tuple["SceneModel", ...]:
        """The scene models that scenes are drawn from: this one alone, unlike those of a `MixedSceneModel`."""
        return (self,)

    def components_of(self, seed: int, numbers: range) -> list[int]:
        """Index of the component that each scene of a data set is drawn from."""
        return [0] * len(numbers)

    @property
    def learned(self) -> Row:
        """Which of structure and parameters have a learned model."""
        return Row(self.structure is not None, self.parameters is not None)

    @property
    def rows(self) -> dict[str, Row]:
        """The rows that differ from each other, in the order of `ROWS`, by their names."""
        fitted = [has and trained for has, trained in zip(self.learned, self.trained, strict=True)]
        if not any(self.learned):
            return {"prior": PRIOR}
        return dict(ROWS) if all(fitted) else {"prior": PRIOR, "learned": LEARNED}

    def sampler(self, row: Row = LEARNED, conditions: Sequence[Condition] = ()) -> Sampler:
        """Prepare to draw derivations that meet all conditions, from the same weights in many batches.

        Raises:
            ConditionError: If no scene of the structure model meets the conditions.
            SamplingError: From the sampler, if too many tries fail in a row.
        """
        if row.structure and self.structure is not None:
            return ConditionalStructure(self.structure, conditions).sample
        prior, grammar = self.world.structure_prior, self.world.grammar
        return lambda n, generator: sample_prior_conditional(prior, grammar, conditions, n, generator)

    @torch.no_grad()
    def derivations(
        self, n: int, generator: Generator, row: Row = LEARNED, conditions: Sequence[Condition] = ()
    ) -> Derivations:
        """Draw n derivations that meet all conditions.

        Raises:
            ConditionError: If no scene of the structure model meets the conditions.
            SamplingError: If too many tries fail in a row.
        """
        return self.sampler(row, conditions)(n, generator)

    @torch.no_grad()
    def scenes(self, rules: Int[Tensor, "n t"], generator: Generator, row: Row = LEARNED) -> SceneBatch:
        """Draw the parameters of given derivations."""
        scenes = self.world.scenes(rules, generator)
        if row.parameters and self.parameters is not None:
            scenes = self.parameters.sample(scenes, generator)
        return scenes

    def sample(self, n: int, generator: Generator, row: Row = LEARNED) -> SceneBatch:
        """Draw n scenes, structure first and then parameters."""
        return self.scenes(self.derivations(n, generator, row).rules, generator, row)

    @torch.no_grad()
    def images(self, n: int, generator: Generator, row: Row = LEARNED) -> Float[Tensor, "n c h w"]:
        """Render n scenes."""
        return self.world.renderer.render(self.sample(n, generator, row))

    @torch.no_grad()
    def labelled(self, n: int, generator: Generator, row: Row = LEARNED) -> Rendering:
        """Render n scenes with labels."""
        return self.world.renderer.render_labelled(self.sample(n, generator, row))

    def to(self, device: torch.device | str) -> "SceneModel":
        """Move the learned models to a device, in place, and return this scene model."""
        for model in (self.structure, self.parameters):
            if model is not None:
                model.to(device)
        return self
