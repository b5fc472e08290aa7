"""A world: a grammar, its priors and a renderer."""

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
    """A grammar, priors of structure and parameters, and a renderer.

    Args:
        grammar: The scene grammar.
        structure_prior: Prior of scene structure.
        parameter_prior: Prior of object attributes, given the structure.
        renderer: Renders scenes.

    Raises:
        UserError: If the renderer is meant for other classes.

    Example:
        >>> world = ms2.load("multimnist").world
        >>> scenes = world.sample_prior(8, generator(0, "example"))
        >>> world.renderer.render(scenes).shape
        torch.Size([8, 1, 128, 128])
    """

    def __init__(
        self, grammar: Grammar, structure_prior: StructurePrior, parameter_prior: ParameterPrior, renderer: Renderer
    ) -> None:
        self.grammar, self.structure_prior = grammar, structure_prior
        self.parameter_prior, self.renderer = parameter_prior, renderer
        renderer.check_classes(self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes: the grammar's, then those of objects that the parameter prior adds (scenery)."""
        return (*self.grammar.classes, *self.parameter_prior.scenery)

    @property
    def mutable_attributes(self) -> list[Attribute]:
        """Attributes of objects that may be learned and are rendered; one per name, with the widest bounds."""
        owners = [a for owner, some in self.parameter_prior.mutable.items() if owner != ENVIRONMENT for a in some]
        return self._rendered(owners, shared=False)

    @property
    def mutable_environment(self) -> list[Attribute]:
        """Attributes of the scene as a whole that may be learned and are rendered."""
        return self._rendered(self.parameter_prior.mutable.get(ENVIRONMENT, ()), shared=True)

    def sample_prior(self, n: int, generator: Generator) -> SceneBatch:
        """Sample n scenes with structure and parameters from the priors."""
        return self.scenes(self.structure_prior.sample(self.grammar, n, generator), generator)

    def scenes(self, rules: Int[Tensor, "b t"], generator: Generator) -> SceneBatch:
        """Sample the parameters of given derivations from the prior.

        Scenes have entries for as many objects as derivations of so many steps can have: to count those that they do
        have, the device would have to be waited for.
        """
        width = max(1, self.grammar.most_objects(rules.shape[1]))
        return self.parameter_prior.sample(scenes_from_derivations(self.grammar, rules, width), generator)

    def images(self, rules: Int[Tensor, "b t"], generator: Generator) -> Float[Tensor, "b c h w"]:
        """Render given derivations with parameters from the prior."""
        return self.renderer.render(self.scenes(rules, generator))

    def renderer_attribute(self, attribute: Attribute) -> str:
        """Return what the renderer uses where an attribute is learned, such as ``x`` for ``spacing``."""
        return self.parameter_prior.derived_attributes.get(attribute.name, attribute.name)

    def is_rendered(self, attribute: Attribute, shared: bool) -> bool:
        """Return whether the renderer uses a mutable attribute, or what is derived from it.

        Attributes of objects may be derived from one of the scene as a whole.

        Args:
            attribute: The attribute.
            shared: Whether it belongs to the scene as a whole.
        """
        used = list(self.renderer.environment if shared else self.renderer.attributes)
        if shared and attribute.name in self.parameter_prior.derived_attributes:
            used += self.renderer.attributes
        return self.renderer_attribute(attribute) in {one.name for one in used}

    def _rendered(self, attributes: Iterable[Attribute], shared: bool) -> list[Attribute]:
        """Select the attributes that the renderer uses; one per name, with the widest bounds."""
        found = dict[str, Attribute]()
        for attribute in attributes:
            if self.is_rendered(attribute, shared):
                old = found.get(attribute.name, attribute)
                found[attribute.name] = attribute._replace(
                    low=min(old.low, attribute.low), high=max(old.high, attribute.high)
                )
        return list(found.values())
