"""The parameter model q(V | T): a graph network over scene graphs that moves, turns and recolours what the prior drew.

Meta-Sim (Kar et al., ICCV 2019) learns the attributes of scene graphs whose structure is given; Meta-Sim2 takes it over
(section 3.1). Each scene of the parameter prior is encoded and decoded again, with new values for the attributes that
may be learned. Meta-Sim's decoder gives one value; this one gives a distribution around it, so that scores of images
have a gradient by sampling too, where no derivative of the renderer is to be had. What the prior draws at random stays
a source of randomness, so that the distribution over scenes may have any shape.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ms2.core.errors import UserError, suggest
from ms2.core.settings import Configured
from ms2.models.graph_network import Graph, Messages, _generations
from ms2.priors.parameters import ParameterPrior
from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World

NEAR = 8.0
"""By how much differences to the parent are enlarged: those between a car and its road are small on the whole map."""
WRAPS = (-2, -1, 0, 1, 2)
"""Turns that are summed over in the density of an angle: of the greatest deviation, all but a hundred-millionth."""
LEAST, GREATEST = math.exp(-5), math.exp(1)
"""Least and greatest standard deviation that is learned, in the units of `Proposal`."""


class ParameterError(UserError):
    """Attributes that can't be learned, or lie beyond their bounds."""


class Proposal(NamedTuple):
    """The distribution of the mutable attributes of N = n + 1 nodes, of which the first is the scene itself.

    Independent normal distributions, given the prior's scene: of an angle itself, wrapped around the circle; of all
    others before they are squashed between their bounds by a logistic function.

    Attributes:
        mean: Means.
        deviation: Standard deviations.
        active: Which attributes of which nodes there are.
    """

    mean: Float[Tensor, "b N k"]
    deviation: Float[Tensor, "b N k"]
    active: Bool[Tensor, "b N k"]


class Columns:
    """The k attributes that may be learned in a world, and of which classes.

    Args:
        world: The world: its parameter prior says what may be learned, its renderer what is read at all.
        only: Names of attributes by class, to learn these alone.

    Attributes:
        attributes: Each attribute's bounds, by column. Classes with bounds of their own have a column each.
        drawn: Names of the attributes that change in what is drawn.
        table: Which columns each class has; the last row is the scene's.

    Raises:
        ParameterError: If there are none, or a class or an attribute is named that there is not.
    """

    def __init__(self, world: World, only: dict[str, list[str]] | None = None) -> None:
        read = {a.name for a in world.renderer.attributes}, {a.name for a in world.renderer.environment}
        found: dict[tuple[Attribute, bool], list[int]] = {}
        mutable, who = world.parameter_prior.mutable, type(world.parameter_prior).__name__
        for owner, attributes in mutable.items():
            every = _numbers(owner, world, who)
            for attribute in attributes:
                # what is said of a class itself goes before what is said of all
                own = {name for name, some in mutable.items() if attribute.name in {a.name for a in some}}
                numbers = [n for n in every if owner != EVERY or world.classes[n] not in own]
                if numbers and world.renderer_attribute(attribute) in read[owner == ENVIRONMENT]:
                    found.setdefault((attribute, owner == ENVIRONMENT), []).extend(numbers)
        if not found:
            raise ParameterError(
                f"{type(world.parameter_prior).__name__} says of no attribute that {type(world.renderer).__name__} "
                "reads that it may be learned: give the parameter prior a 'mutable', as in mutable = {'car': "
                "(Attribute('x', 0, 64),)}, or leave out model.parameters"
            )
        if only is not None:
            found = _only(found, only, world)
            if not found:
                raise ParameterError("'only' names no attribute: name some, or leave it out to learn all of them")
        self.attributes = [attribute for attribute, _ in found]
        self.drawn = frozenset(world.renderer_attribute(attribute) for attribute in self.attributes)
        self.shared = torch.tensor([shared for _, shared in found])
        self.table = torch.zeros(len(world.classes) + 1, len(found), dtype=torch.bool)
        for k, numbers in enumerate(found.values()):
            self.table[numbers, k] = True

    @property
    def names(self) -> frozenset[str]:
        """Names of all of them."""
        return frozenset(attribute.name for attribute in self.attributes)


def _numbers(owner: str, world: World, who: str) -> list[int]:
    """Rows of the table that an owner of attributes stands for."""
    if owner == ENVIRONMENT:
        return [len(world.classes)]
    if owner == EVERY:
        return list(range(len(world.grammar.classes)))
    if owner not in world.classes:
        raise ParameterError(
            f"{who} would learn attributes of {owner!r}, which the world lacks. "
            f"{suggest(owner, [*world.classes, EVERY, ENVIRONMENT])}"
        )
    return [world.classes.index(owner)]


def _only(
    found: dict[tuple[Attribute, bool], list[int]], only: dict[str, list[str]], world: World
) -> dict[tuple[Attribute, bool], list[int]]:
    """Those that a person has named."""
    kept: dict[tuple[Attribute, bool], list[int]] = {}
    for owner, names in only.items():
        numbers = set(_numbers(owner, world, "'only'"))
        possible = {key: numbers & set(rows) for key, rows in found.items() if numbers & set(rows)}
        for name in names:
            match = {key: sorted(rows) for key, rows in possible.items() if key[0].name == name}
            if not match:
                raise ParameterError(
                    f"{name!r} of {owner!r} can't be learned. {suggest(name, {key[0].name for key in possible})}"
                )
            for key, rows in match.items():
                kept.setdefault(key, []).extend(rows)
    return kept


class ParameterModel(Configured, nn.Module):
    """Encodes a scene graph with the prior's parameters, and decodes new ones for the attributes that may be learned.

    Messages pass along typed edges: from parents, from children, from the siblings before and after, and, by attention,
    from all siblings. Scenes of different sizes are one padded batch, as everywhere here, which is why no graph library
    is used: attention and gathering from parents are a few dense operations, without the indices that such a library
    would make of them.

    Args:
        world: Whose parameters to learn.
        only: Names of attributes by class, to learn these alone; all that the world's parameter prior calls mutable by
            default.
        hidden: Width of the network.
        layers: Rounds of messages.
        heads: Heads of the attention between siblings.
        noise: Random numbers that each node is given, for what the prior does not draw at random.
        deviation: Standard deviation that attributes have to begin with: of angles in radians, of others in units of
            a logistic function, of which 1 is at most a quarter of the way between the bounds.

    Raises:
        ParameterError: If the world has nothing to learn, or ``only`` names what it does not have.

    Example:
        >>> parameters = ParameterModel(world, hidden=16)
        >>> scenes = parameters.sample(world.sample_prior(4, generator(0, "scenes")), generator(0, "parameters"))
    """

    table: Tensor
    shared: Tensor
    periodic: Tensor
    relative: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        world: World,
        only: dict[str, list[str]] | None = None,
        hidden: int = 64,
        layers: int = 3,
        heads: int = 4,
        noise: int = 2,
        deviation: float = 0.1,
    ) -> None:
        super().__init__()
        if not LEAST <= deviation <= GREATEST:
            raise UserError(f"deviation must lie between {LEAST:.3g} and {GREATEST:.3g}, not be {deviation}")
        if min(hidden, layers, heads) < 1 or noise < 0:
            raise UserError(
                "hidden, layers and heads must be at least 1 and noise at least 0, not "
                f"{hidden}, {layers}, {heads} and {noise}"
            )
        if hidden % heads:
            raise UserError(f"hidden must be a multiple of heads, and {hidden} is none of {heads}")
        self.columns = Columns(world, only)
        self.classes, self.noise, self.deviation = world.classes, noise, deviation
        self.register_buffer("table", self.columns.table, persistent=False)
        self.register_buffer("shared", self.columns.shared, persistent=False)
        for name in ("periodic", "relative"):
            flags = torch.tensor([getattr(a, name) for a in self.columns.attributes])
            self.register_buffer(name, flags, persistent=False)
        for name in ("low", "high"):
            bounds = torch.tensor([float(getattr(a, name)) for a in self.columns.attributes])
            self.register_buffer(name, bounds, persistent=False)
        spaced = [a for a in world.mutable_attributes if a.name in world.parameter_prior.derived_attributes]
        self.given, self.around = (*world.renderer.attributes, *spaced), world.renderer.environment
        self.derive_attributes = world.parameter_prior.derive_attributes
        own = sum(1 + a.periodic for a in self.given)
        self.ranked = [a.name for a in self.given if not a.periodic]
        inputs = 2 * own + len(self.ranked) + sum(1 + a.periodic for a in self.around) + 5 + noise
        self.kinds = nn.Embedding(len(world.classes) + 2, hidden)
        self.first = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.layers = nn.ModuleList(Messages(hidden, heads) for _ in range(layers))
        outputs = 3 * len(self.columns.attributes)
        self.decoder = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, outputs)
        )

    # -- the distribution ------------------------------------------------------------------------------

    def propose(self, scenes: SceneBatch, generator: torch.Generator) -> Proposal:
        """The distribution of scenes' mutable attributes, given scenes with parameters of the prior.

        Raises:
            ParameterError: If one of them lies beyond its bounds.
        """
        self.check(scenes)
        graph = Graph.of(scenes, len(self.classes))
        nodes = self.first(self._inputs(scenes, graph, generator)) + self.kinds(graph.kinds)
        for layer in self.layers:
            nodes = layer(nodes, graph)
        one, other, spread = self.decoder(nodes).unflatten(2, (3, -1)).unbind(2)
        mean = torch.where(self.periodic, torch.atan2(other, one), one)
        # within a factor of twenty of what it begins with
        middle = math.log(self.deviation)
        deviation = (middle + torch.tanh(spread / 3) * 3).clamp(math.log(LEAST), math.log(GREATEST)).exp()
        return Proposal(mean, deviation, self.active(scenes))

    def draw(self, proposal: Proposal, generator: torch.Generator) -> Float[Tensor, "b N k"]:
        """Values from a proposal, in its units; differentiable in its means and deviations."""
        noise = torch.randn(proposal.mean.shape, generator=generator, device=proposal.mean.device)
        return proposal.mean + proposal.deviation * noise

    def log_prob(self, proposal: Proposal, values: Float[Tensor, "b N k"]) -> Float[Tensor, " b"]:
        """Log-density of values in the units of a proposal, each scene's mutable attributes together."""
        away = values - proposal.mean
        turns = 2 * math.pi * torch.tensor(WRAPS, dtype=away.dtype, device=away.device)
        wrapped = _log_normal(_turned(away)[..., None] + turns, proposal.deviation[..., None])
        density = torch.where(self.periodic, wrapped.logsumexp(-1), _log_normal(away, proposal.deviation))
        return torch.where(proposal.active, density, 0.0).sum((1, 2))

    def applied(self, scenes: SceneBatch, values: Float[Tensor, "b N k"]) -> SceneBatch:
        """Scenes with new values of their mutable attributes, given in the units of a proposal; differentiable."""
        active = self.active(scenes)
        new = torch.where(self.periodic, _turned(values), self.low + (self.high - self.low) * values.sigmoid())
        attributes, environment = dict(scenes.attributes), dict(scenes.environment)
        # what is relative follows its parent, which may itself be relative to its own: generation by generation
        columns = list(enumerate(self.columns.attributes))
        relative = [pair for pair in columns if pair[1].relative]
        rounds = _generations(scenes) if relative else 0
        for k, attribute in [pair for pair in columns if not pair[1].relative] + relative * rounds:
            name = attribute.name
            if self.columns.shared[k]:
                environment[name] = torch.where(active[:, 0, k], new[:, 0, k], environment[name])
                continue
            own = new[:, 1:, k]
            if attribute.relative:
                own = own + scenes.parent_values(attributes[name])
                own = _turned(own) if attribute.periodic else own
            attributes[name] = torch.where(active[:, 1:, k], own, attributes[name])
        return self.derive_attributes(scenes.with_attributes(**attributes).with_environment(**environment))

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Scenes with learned parameters, from scenes with parameters of the prior."""
        return self.applied(scenes, self.draw(self.propose(scenes, generator), generator))

    def reconstruction(self, scenes: SceneBatch, generator: torch.Generator) -> Float[Tensor, ""]:
        """How far means are from the attributes that were encoded: mean square of the share of the way between bounds.

        Of angles, 1 less the cosine of the error.
        """
        proposal = self.propose(scenes, generator)
        old = self._values(scenes)
        share = (old - self.low) / (self.high - self.low)
        error = torch.where(self.periodic, 1 - (proposal.mean - old).cos(), (proposal.mean.sigmoid() - share).square())
        return (error * proposal.active).sum() / proposal.active.sum().clamp(min=1)

    # -- scenes as nodes -------------------------------------------------------------------------------

    def active(self, scenes: SceneBatch) -> Bool[Tensor, "b N k"]:
        """Which mutable attributes each node has; the scene itself is the first node."""
        rows = torch.cat([scenes.classes.new_full((len(scenes), 1), len(self.classes)), scenes.classes], 1)
        return self.table[rows.clamp(min=0)] & (rows >= 0)[..., None]

    def check(self, scenes: SceneBatch) -> None:
        """Refuse scenes whose mutable attributes lie beyond their bounds.

        Raises:
            ParameterError: Naming the first of them.
        """
        values, active = self._values(scenes), self.active(scenes)
        slack = 1e-3 * (self.high - self.low)
        beyond = active & ((values < self.low - slack) | (values > self.high + slack)) & ~self.periodic
        if bool(beyond.any()):
            scene, node, k = beyond.nonzero()[0].tolist()
            attribute = self.columns.attributes[k]
            owner = self.classes[int(scenes.classes[scene, node - 1])] if node else ENVIRONMENT
            raise ParameterError(
                f"{attribute.name!r} of {owner!r} is {float(values[scene, node, k]):.4g}, but it may be learned only "
                f"between {attribute.low:g} and {attribute.high:g}: widen the bounds in 'mutable' of the parameter "
                "prior, or let it draw within them"
            )

    def _values(self, scenes: SceneBatch) -> Float[Tensor, "b N k"]:
        """Mutable attributes of all nodes, those of others being 0; relative ones less the parent's."""
        columns = []
        for k, attribute in enumerate(self.columns.attributes):
            if self.columns.shared[k]:
                value = scenes.environment[attribute.name][:, None]
                columns.append(F.pad(value, (0, scenes.classes.shape[1])))
                continue
            columns.append(F.pad(scenes.value(attribute), (1, 0)))
        return torch.where(self.active(scenes), torch.stack(columns, 2), 0.0)

    def _inputs(self, scenes: SceneBatch, graph: "Graph", generator: torch.Generator) -> Float[Tensor, "b N i"]:
        """What each node is told: attributes, also beside those of parent and siblings, place in its row, noise."""
        own = [column for a in self.given for column in a.encode(scenes.attributes[a.name])]
        mine = torch.where(scenes.mask[..., None], torch.stack(own, 2), 0.0)
        theirs = mine.gather(1, scenes.parents.clamp(min=0)[..., None].expand_as(mine))
        beside = NEAR * (mine - theirs) * (scenes.parents >= 0)[..., None]
        objects = F.pad(torch.cat([mine, beside, self._ranks(scenes, graph)], 2), (0, 0, 1, 0))
        around = [column for a in self.around for column in a.encode(scenes.environment[a.name])]
        scene = torch.stack(around, 1) if around else objects.new_zeros(len(scenes), 0)
        noise = torch.randn(*graph.kinds.shape, self.noise, generator=generator, device=objects.device)
        return torch.cat([objects, scene[:, None].expand(-1, objects.shape[1], -1), graph.places, noise], 2)

    def _ranks(self, scenes: SceneBatch, graph: "Graph") -> Float[Tensor, "b n a"]:
        """Share of each object's siblings that have less of an attribute: who is first on the road, who is next."""
        among = graph.siblings[:, 1:, 1:] & scenes.mask[:, None]
        number = (among.sum(2) - 1).clamp(min=1)
        ranks = []
        for name in self.ranked:
            value = scenes.attributes[name]
            ranks.append((among & (value[:, None] < value[:, :, None])).sum(2) / number)
        if not ranks:
            return torch.zeros(*scenes.classes.shape, 0, device=number.device)
        return torch.stack(ranks, 2) * scenes.mask[..., None]


class LearnedParameters(ParameterPrior, selectable=False):
    """A parameter prior as a parameter model has changed it: learned parameters, wherever a prior's would do.

    Args:
        prior: What is encoded.
        model: What decodes it.
    """

    def __init__(self, prior: ParameterPrior, model: ParameterModel) -> None:
        self.prior, self.model = prior, model
        self.scenery, self.mutable, self.derived_attributes = prior.scenery, prior.mutable, prior.derived_attributes

    def derive_attributes(self, scenes: SceneBatch) -> SceneBatch:
        """As the prior does."""
        return self.prior.derive_attributes(scenes)

    @torch.no_grad()
    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """The same scenes with attributes drawn by the prior and changed by the model."""
        return self.model.sample(self.prior.sample(scenes, generator), generator)


def _turned(angle: Tensor) -> Tensor:
    """The same angle between -pi and pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _log_normal(away: Tensor, deviation: Tensor) -> Tensor:
    return -0.5 * (away / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
