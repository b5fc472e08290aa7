"""A world: everything that turns a rule sequence into an image."""

from collections.abc import Iterable

from jaxtyping import Float, Int
from torch import Generator, Tensor

from ms2.core.settings import Configured
from ms2.grammar.grammar import Grammar
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.render.base import Renderer
from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.scene.batch import SceneBatch, scenes_from_derivations


class World(Configured):
    """What may exist, what is likely before learning, and how it looks.

    Args:
        grammar: What a scene may hold.
        structure_prior: How scenes are structured before learning.
        parameter_prior: Where objects stand and how they look, given the structure.
        renderer: Draws scenes.
    """

    def __init__(
        self, grammar: Grammar, structure_prior: StructurePrior, parameter_prior: ParameterPrior, renderer: Renderer
    ) -> None:
        self.grammar, self.structure_prior, self.parameter_prior, self.renderer = (
            grammar,
            structure_prior,
            parameter_prior,
            renderer,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes: the grammar's, and those of the scenery."""
        return (*self.grammar.classes, *self.parameter_prior.scenery)

    @property
    def mutable(self) -> list[Attribute]:
        """Attributes of objects that may be learned and are drawn, of one name one with the widest bounds."""
        owners = [a for owner, some in self.parameter_prior.mutable.items() if owner != ENVIRONMENT for a in some]
        return self._drawn(owners, self.renderer.attributes)

    @property
    def mutable_environment(self) -> list[Attribute]:
        """The same of the scene as a whole."""
        return self._drawn(self.parameter_prior.mutable.get(ENVIRONMENT, ()), self.renderer.environment)

    def sample_prior(self, n: int, generator: Generator) -> SceneBatch:
        """n scenes with structure and parameters from the priors."""
        return self.scenes(self.structure_prior.sample(self.grammar, n, generator), generator)

    def scenes(self, rules: Int[Tensor, "b t"], generator: Generator) -> SceneBatch:
        """Scenes of given derivations, with parameters from the prior."""
        return self.parameter_prior.sample(scenes_from_derivations(self.grammar, rules), generator)

    def images(self, rules: Int[Tensor, "b t"], generator: Generator) -> Float[Tensor, "b c h w"]:
        """Images of given derivations, with parameters from the prior."""
        return self.renderer.render(self.scenes(rules, generator))

    def drawn_as(self, attribute: Attribute) -> str:
        """Name of what a renderer reads of a mutable attribute of objects: mostly its own."""
        return self.parameter_prior.derived_attributes.get(attribute.name, attribute.name)

    def _drawn(self, attributes: Iterable[Attribute], read: Iterable[Attribute]) -> list[Attribute]:
        names, found = {attribute.name for attribute in read}, dict[str, Attribute]()
        for attribute in attributes:
            if self.drawn_as(attribute) in names:
                old = found.get(attribute.name, attribute)
                found[attribute.name] = attribute._replace(
                    low=min(old.low, attribute.low), high=max(old.high, attribute.high)
                )
        return list(found.values())
