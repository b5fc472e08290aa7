"""Draw scenes from several scene models of one world, each of which has its share of them."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ms2.core.errors import UserError
from ms2.core.settings import setting_differences, settings_of
from ms2.models.scene_model import LEARNED, Row, Sampler, SceneModel
from ms2.models.shares import Mix, components_of, whole_weights
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.world import World


class MixedSceneModel:
    """A mixture of scene models, which share grammar, classes and renderer; priors and learned models may differ.

    Args:
        models: The scene models by name.
        mix: ``even``, or the weight of each scene model.

    Attributes:
        components: The scene models.
        weights: Their weights, as the smallest whole numbers of that ratio.

    Raises:
        UserError: If the scene models do not share a world, or there is not one positive weight for each.

    Example:
        >>> mixed = MixedSceneModel({"rural": rural, "urban": urban}, [2, 1])
        >>> images = mixed.images(9, generator(0, "preview"))  # six of the first, three of the second, in random order
    """

    def __init__(self, models: Mapping[str, SceneModel], mix: Mix = "even") -> None:
        self.components, self.weights = tuple(models.values()), whole_weights(mix, list(models))
        check_same_world({name: model.world for name, model in models.items()})

    @property
    def world(self) -> World:
        """The first component's world, whose grammar, classes and renderer are those of all."""
        return self.components[0].world

    def components_of(self, seed: int, numbers: range) -> list[int]:
        """Draw which component each scene of a data set comes from, by the set's seed and the scenes' numbers."""
        return components_of(self.weights, seed, numbers)

    def sample(self, n: int, generator: Generator, row: Row = LEARNED) -> SceneBatch:
        """Draw n scenes: of each component its share, rounded up or down, in random order."""
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        samplers = [component.sampler(row) for component in self.components]
        return draw_scenes(self.components, samplers, self.components_of(seed, range(n)), generator, row)[1]

    @torch.no_grad()
    def images(self, n: int, generator: Generator, row: Row = LEARNED) -> Float[Tensor, "n c h w"]:
        """Render n scenes."""
        return self.world.renderer.render(self.sample(n, generator, row))

    @torch.no_grad()
    def labelled(self, n: int, generator: Generator, row: Row = LEARNED) -> Rendering:
        """Render n scenes with labels."""
        return self.world.renderer.render_labelled(self.sample(n, generator, row))

    def to(self, device: torch.device | str) -> "MixedSceneModel":
        """Move the learned models to a device, in place, and return this scene model."""
        for component in self.components:
            component.to(device)
        return self


def draw_scenes(
    components: Sequence[SceneModel],
    samplers: Sequence[Sampler],
    chosen: Sequence[int],
    generator: Generator,
    row: Row = LEARNED,
) -> tuple[Int[Tensor, "n t"], SceneBatch]:
    """Draw scenes, each from a given one of several scene models.

    Args:
        components: The scene models.
        samplers: What draws the derivations of each: its `SceneModel.sampler`.
        chosen: Index of the scene model of each scene.
        generator: Draws all scenes of the first scene model, then those of the second, and so on.
        row: What is drawn from the learned models.

    Returns:
        Derivations and scenes.

    Raises:
        UserError: If objects have other attributes in some of the scene models than in others.
    """
    rules, scenes = [], []
    for index in sorted({*chosen}) or [0]:
        rules.append(samplers[index](chosen.count(index), generator).rules)
        scenes.append(components[index].scenes(rules[-1], generator, row))
    if len(rules) == 1:
        return rules[0], scenes[0]
    place = torch.tensor(chosen, device=rules[0].device).argsort(stable=True).argsort()
    return _stacked(rules, components[0].world.grammar.num_rules)[place], join_scenes(scenes)[place]


def join_scenes(batches: Sequence[SceneBatch]) -> SceneBatch:
    """Concatenate batches of scenes, as wide as the widest.

    Raises:
        UserError: If they have different attributes.
    """
    first = batches[0]
    for part in ("attributes", "environment"):
        names = [getattr(batch, part).keys() for batch in batches]
        if odd := set().union(*names).difference(set(names[0]).intersection(*names)):
            raise UserError(
                f"scenes can't be mixed, as not all of them have {', '.join(map(repr, sorted(odd)))}: their parameter "
                "priors draw different attributes. Mix runs whose parameter priors draw the same"
            )
    return SceneBatch(
        _stacked([batch.classes for batch in batches], -1),
        _stacked([batch.parents for batch in batches], -1),
        {name: _stacked([batch.attributes[name] for batch in batches], 0) for name in first.attributes},
        {name: torch.cat([batch.environment[name] for batch in batches]) for name in first.environment},
    )


def _stacked(parts: Sequence[Tensor], filling: int) -> Tensor:
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1]), value=filling) for part in parts])


# -- what is shared ----------------------------------------------------------------------------------------


def check_same_world(worlds: Mapping[str, World]) -> None:
    """Raise an error unless worlds have the same grammar, classes and renderer.

    Raises:
        UserError: If they have not; the message says which two differ in what.
    """
    (first, world), *others = worlds.items()
    for name, other in others:
        if found := _world_differences(world, other, first, name):
            raise UserError(
                f"{first} and {name} can't be mixed, as their scenes are not of one world:\n  {found}\n"
                "Mix runs of the same grammar, classes and renderer; settings that are given here, such as "
                "--world.renderer.size, apply to all runs."
            )


def _world_differences(ours: World, theirs: World, first: str, second: str) -> str:
    """Describe what two worlds do not share; empty if they share all that is needed."""
    if ours.grammar.fingerprint != theirs.grammar.fingerprint:
        rules = [str(world.grammar).splitlines() for world in (ours, theirs)]
        own = ["; ".join(line for line in some if line not in other) for some, other in (rules, rules[::-1])]
        if any(own):
            return f"grammar: {first} has the rules {own[0] or 'none'}; {second} has {own[1] or 'none'} in their place"
        return f"grammar: {first} and {second} have the same rules, but other objects, or another order of rules"
    if ours.classes != theirs.classes:
        return f"classes: {', '.join(ours.classes)} in {first}; {', '.join(theirs.classes)} in {second}"
    found = setting_differences(settings_of(ours.renderer), settings_of(theirs.renderer), "renderer")
    return "; ".join(f"{key}: {one!r} in {first}, {other!r} in {second}" for key, one, other in found)
