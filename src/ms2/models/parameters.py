"""The parameter model q(V | T): a graph network that changes the attribute values which the prior sampled.

Meta-Sim (Kar et al., ICCV 2019) learns the attributes of scene graphs whose structure is given; Meta-Sim2 takes it over
(section 3.1). Each scene of the parameter prior is encoded and decoded again, with new values of the mutable
attributes. Meta-Sim's decoder gives one value; this one gives a distribution around it, so that scores of images have a
gradient by sampling too, where the renderer has no derivative. The prior's random values remain the network's input, so
that the distribution over scenes may have any shape.
"""

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ms2.core.bounds import Bounds, Count, Dimension
from ms2.core.errors import UserError
from ms2.core.settings import Configured
from ms2.grammar.analysis import object_generations
from ms2.models.graph_network import GraphBatch, MessagePassing, num_generations
from ms2.models.mutable_attributes import MutableAttributes, ParameterError
from ms2.scene.attributes import ENVIRONMENT
from ms2.scene.batch import SceneBatch
from ms2.world import World

PARENT_OFFSET_SCALE = 8.0
"""Factor of the inputs that are differences to the parent, which are small beside the range of the values."""
FULL_TURNS = (-2, -1, 0, 1, 2)
"""Full turns that the density of an angle sums over; for `MAX_STD`, the rest is below 1e-8."""
MIN_STD, MAX_STD = math.exp(-5), math.exp(1)
"""Bounds of the standard deviations that are learned, in the units of `AttributeDistribution`."""
MAX_LOG_FACTOR = 3.0
"""Largest logarithm of the ratio of a learned standard deviation to the initial one: a factor of 20."""


class AttributeDistribution(NamedTuple):
    """Distribution of the mutable attributes of N = n + 1 nodes, of which node 0 is the scene itself.

    Independent normal distributions, given the prior's scene. An angle is in radians, wrapped around the circle; any
    other attribute is unbounded, and mapped between its bounds by a logistic function.

    Attributes:
        mean: Means.
        std: Standard deviations.
        active: Which attributes each node has.
    """

    mean: Float[Tensor, "b N k"]
    std: Float[Tensor, "b N k"]
    active: Bool[Tensor, "b N k"]


class ParameterModel(Configured, nn.Module):
    """Predicts new attribute values from a scene graph with the prior's values.

    Messages pass along typed edges: from the parent, from children, from the previous and the next sibling, and, by
    attention, from all siblings. Scenes of different sizes are one padded batch. No graph library is used: attention
    and gathering from parents are a few dense operations.

    Args:
        world: The world whose parameters are learned.
        learned_attributes: Names of attributes by class (``"*"`` for all), to learn only these; by default all that the
            world's parameter prior calls mutable.
        hidden: Dimension of node features.
        num_layers: Layers of message passing.
        num_heads: Heads of the attention between siblings.
        noise_dim: Dimension of each node's random input, a source of randomness beside the prior's values.
        init_std: Initial standard deviation: of angles in radians, of others in units of a logistic function, of which
            1 is at most a quarter of the way between the bounds.

    Raises:
        ParameterError: If the world has no mutable attributes, or ``learned_attributes`` names others.
        UserError: If a size or ``init_std`` is out of range.

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
        learned_attributes: dict[str, list[str]] | None = None,
        hidden: Dimension = 64,
        num_layers: Dimension = 3,
        num_heads: Dimension = 4,
        noise_dim: Count = 2,
        init_std: Annotated[float, Bounds(ge=MIN_STD, le=MAX_STD)] = 0.1,
    ) -> None:
        super().__init__()
        if hidden % num_heads:
            raise UserError(f"hidden must be a multiple of num_heads, and {hidden} is none of {num_heads}")
        self.mutable = MutableAttributes(world, learned_attributes)
        self.classes, self.noise_dim, self.init_std = world.classes, noise_dim, init_std
        self.register_buffer("table", self.mutable.table, persistent=False)
        self.register_buffer("shared", self.mutable.shared, persistent=False)
        self.is_shared: list[bool] = self.mutable.shared.tolist()
        for name in ("periodic", "relative"):
            flags = torch.tensor([getattr(a, name) for a in self.mutable.attributes])
            self.register_buffer(name, flags, persistent=False)
        for name in ("low", "high"):
            bounds = torch.tensor([float(getattr(a, name)) for a in self.mutable.attributes])
            self.register_buffer(name, bounds, persistent=False)
        derived = world.parameter_prior.derived_attributes
        self.object_inputs = (*world.renderer.attributes, *(a for a in world.mutable_attributes if a.name in derived))
        shared = (a for a in world.mutable_environment if a.name in derived)
        self.environment_inputs = (*world.renderer.environment, *shared)
        self.derive_attributes = world.parameter_prior.derive_attributes
        grammar = world.grammar
        self.generations = object_generations(grammar.rules, grammar.start, grammar.classes)
        self.ranked = [a.name for a in self.object_inputs if not a.periodic]
        own = sum(1 + a.periodic for a in self.object_inputs)
        around = sum(1 + a.periodic for a in self.environment_inputs)
        inputs = 2 * own + len(self.ranked) + around + 5 + noise_dim
        self.kinds = nn.Embedding(len(world.classes) + 2, hidden)
        self.first = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.layers = nn.ModuleList(MessagePassing(hidden, num_heads) for _ in range(num_layers))
        outputs = 3 * len(self.mutable.attributes)
        self.decoder = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, outputs)
        )

    # -- the distribution ------------------------------------------------------------------------------

    def distribution(self, scenes: SceneBatch, generator: torch.Generator, check: bool = True) -> AttributeDistribution:
        """Predict the distribution of mutable attributes, given scenes with parameters of the prior.

        Args:
            scenes: The scenes.
            generator: Draws the nodes' noise.
            check: Whether to check the bounds of attributes, which waits for the device.

        Raises:
            ParameterError: If an attribute exceeds its bounds.
        """
        if check:
            self.check_bounds(scenes)
        graph = GraphBatch.from_scenes(scenes, len(self.classes))
        nodes = self.first(self._inputs(scenes, graph, generator)) + self.kinds(graph.classes)
        for layer in self.layers:
            nodes = layer(nodes, graph)
        first, second, spread = self.decoder(nodes).unflatten(2, (3, -1)).unbind(2)  # [b N k] each
        mean = torch.where(self.periodic, torch.atan2(second, first), first)
        log_std = math.log(self.init_std) + torch.tanh(spread / MAX_LOG_FACTOR) * MAX_LOG_FACTOR
        std = log_std.clamp(math.log(MIN_STD), math.log(MAX_STD)).exp()
        return AttributeDistribution(mean, std, self.mutable_mask(scenes))

    def rsample(self, distribution: AttributeDistribution, generator: torch.Generator) -> Float[Tensor, "b N k"]:
        """Draw values in the units of the distribution, differentiable in its means and standard deviations."""
        noise = torch.randn(distribution.mean.shape, generator=generator, device=distribution.mean.device)
        return distribution.mean + distribution.std * noise

    def log_prob(self, distribution: AttributeDistribution, values: Float[Tensor, "b N k"]) -> Float[Tensor, " b"]:
        """Compute the log-density of values in the units of the distribution, summed over each scene's attributes."""
        offset = values - distribution.mean
        turns = 2 * math.pi * torch.tensor(FULL_TURNS, dtype=offset.dtype, device=offset.device)
        wrapped = _log_normal(_wrap(offset)[..., None] + turns, distribution.std[..., None])
        density = torch.where(self.periodic, wrapped.logsumexp(-1), _log_normal(offset, distribution.std))
        return torch.where(distribution.active, density, 0.0).sum((1, 2))

    def with_values(self, scenes: SceneBatch, values: Float[Tensor, "b N k"]) -> SceneBatch:
        """Return scenes with new attributes, given in the units of `AttributeDistribution`; differentiable."""
        active = self.mutable_mask(scenes)
        new = torch.where(self.periodic, _wrap(values), self.low + (self.high - self.low) * values.sigmoid())
        attributes, environment = dict(scenes.attributes), dict(scenes.environment)
        # an attribute relative to the parent's changes with it, so relative ones are set once per generation
        columns = list(enumerate(self.mutable.attributes))
        relative = [pair for pair in columns if pair[1].relative]
        repeats = 0
        if relative:
            repeats = int(self.generations) if self.generations < math.inf else num_generations(scenes)
        for k, attribute in [pair for pair in columns if not pair[1].relative] + relative * repeats:
            name = attribute.name
            if self.is_shared[k]:
                environment[name] = torch.where(active[:, 0, k], new[:, 0, k], environment[name])
                continue
            own = new[:, 1:, k]
            if attribute.relative:
                own = own + scenes.parent_values(attributes[name])
                own = _wrap(own) if attribute.periodic else own
            attributes[name] = torch.where(active[:, 1:, k], own, attributes[name])
        return self.derive_attributes(scenes.with_attributes(**attributes).with_environment(**environment))

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        """Sample scenes with learned parameters, given scenes with parameters of the prior; training checks these."""
        return self.with_values(scenes, self.rsample(self.distribution(scenes, generator, check=False), generator))

    def reconstruction_loss(self, scenes: SceneBatch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Compute the mean squared error of the means, with each attribute scaled by its bounds to 0..1.

        Of angles, 1 less the cosine of the error. Bounds are not checked here, see `check_bounds`.
        """
        distribution = self.distribution(scenes, generator, check=False)
        old = self._values(scenes)
        fraction = (old - self.low) / (self.high - self.low)
        squared = (distribution.mean.sigmoid() - fraction).square()
        error = torch.where(self.periodic, 1 - (distribution.mean - old).cos(), squared)
        return (error * distribution.active).sum() / distribution.active.sum().clamp(min=1)

    # -- scenes as nodes -------------------------------------------------------------------------------

    def mutable_mask(self, scenes: SceneBatch) -> Bool[Tensor, "b N k"]:
        """Return which mutable attributes each node has; node 0 is the scene."""
        rows = torch.cat([scenes.classes.new_full((len(scenes), 1), len(self.classes)), scenes.classes], 1)
        return self.table[rows.clamp(min=0)] & (rows >= 0)[..., None]

    def check_bounds(self, scenes: SceneBatch) -> None:
        """Raise an error if a mutable attribute exceeds its bounds.

        Raises:
            ParameterError: Naming the first such attribute.
        """
        values, active = self._values(scenes), self.mutable_mask(scenes)
        slack = 1e-3 * (self.high - self.low)
        beyond = active & ((values < self.low - slack) | (values > self.high + slack)) & ~self.periodic
        if bool(beyond.any()):
            scene, node, k = beyond.nonzero()[0].tolist()
            attribute = self.mutable.attributes[k]
            owner = self.classes[int(scenes.classes[scene, node - 1])] if node else ENVIRONMENT
            raise ParameterError(
                f"{attribute.name!r} of {owner!r} is {float(values[scene, node, k]):.4g}, beyond its bounds "
                f"{attribute.low:g} and {attribute.high:g}: widen the bounds in 'mutable' of the parameter "
                "prior, or let it draw within them"
            )

    def _values(self, scenes: SceneBatch) -> Float[Tensor, "b N k"]:
        """Return the mutable attributes of all nodes, relative ones as offsets to the parent; 0 for those it lacks."""
        columns = []
        for k, attribute in enumerate(self.mutable.attributes):
            if self.is_shared[k]:
                value = scenes.environment[attribute.name][:, None]
                columns.append(F.pad(value, (0, scenes.classes.shape[1])))
                continue
            columns.append(F.pad(scenes.value(attribute), (1, 0)))
        return torch.where(self.mutable_mask(scenes), torch.stack(columns, 2), 0.0)

    def _inputs(self, scenes: SceneBatch, graph: GraphBatch, generator: torch.Generator) -> Float[Tensor, "b N i"]:
        """Compute the nodes' inputs: attributes, offsets to the parent, ranks, environment, positions and noise."""
        own = [column for a in self.object_inputs for column in a.encode(scenes.attributes[a.name])]
        values = torch.where(scenes.mask[..., None], torch.stack(own, 2), 0.0)
        parents = values.gather(1, scenes.parents.clamp(min=0)[..., None].expand_as(values))
        offsets = PARENT_OFFSET_SCALE * (values - parents) * (scenes.parents >= 0)[..., None]
        objects = F.pad(torch.cat([values, offsets, self._ranks(scenes, graph)], 2), (0, 0, 1, 0))
        around = [column for a in self.environment_inputs for column in a.encode(scenes.environment[a.name])]
        scene = torch.stack(around, 1) if around else objects.new_zeros(len(scenes), 0)
        noise = torch.randn(*graph.classes.shape, self.noise_dim, generator=generator, device=objects.device)
        return torch.cat([objects, scene[:, None].expand(-1, objects.shape[1], -1), graph.positions, noise], 2)

    def _ranks(self, scenes: SceneBatch, graph: GraphBatch) -> Float[Tensor, "b n a"]:
        """Compute the fraction of each object's siblings that have a smaller value of each attribute."""
        among = graph.siblings[:, 1:, 1:] & scenes.mask[:, None]
        number = (among.sum(2) - 1).clamp(min=1)
        ranks = []
        for name in self.ranked:
            value = scenes.attributes[name]
            ranks.append((among & (value[:, None] < value[:, :, None])).sum(2) / number)
        if not ranks:
            return torch.zeros(*scenes.classes.shape, 0, device=number.device)
        return torch.stack(ranks, 2) * scenes.mask[..., None]


def _wrap(angle: Tensor) -> Tensor:
    """Wrap angles to [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _log_normal(offset: Tensor, std: Tensor) -> Tensor:
    """Compute the log-density of normal distributions at an offset from their means."""
    return -0.5 * (offset / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
