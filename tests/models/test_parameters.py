"""The parameter model against torch.distributions, plain loops over scene graphs, and what a prior is to keep to."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm
from torch import Tensor
from torch.distributions import AffineTransform, Normal, SigmoidTransform, TransformedDistribution

from ms2.core.errors import UserError
from ms2.gradients.pathwise import Pathwise
from ms2.grammar.grammar import Grammar
from ms2.models.graph_network import GraphBatch
from ms2.models.mutable_attributes import MutableAttributes, ParameterError
from ms2.models.parameters import MAX_STD, MIN_STD, AttributeDistribution, ParameterModel
from ms2.models.scene_model import LEARNED, PRIOR, SceneModel
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer, Rendering
from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import ScatteredCars, UniformTraffic
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

PI = math.pi

# --- a world with three generations, each of which stands relative to the one before ---


GROUPS = Grammar(
    """
    Scene  -> Groups
    Groups -> Group Groups | ε
    Group  -> Items
    Items  -> Item Items | ε
    Item   -> thing | pebble
    thing  -> part | ε
    """,
    renderable=["Group", "thing", "part", "pebble"],
)
GROUP, THING, PART, PEBBLE = range(4)
MUTABLE = {
    "Group": (Attribute("x", 0, 10), Attribute("size", 0.2, 0.7)),
    "thing": (Attribute("x", -1, 1, relative=True), Attribute("angle", -PI, PI, periodic=True)),
    "part": (
        Attribute("x", -0.5, 0.5, relative=True),
        Attribute("angle", -PI, PI, periodic=True, relative=True),
        Attribute("size", 0.2, 0.7),
    ),
    ENVIRONMENT: (Attribute("light", 0.5, 1.5), Attribute("wind", -PI, PI, periodic=True)),
}
"""Nothing of pebbles, the hue of nothing, and of the scene not the haze."""


class Unseen(Renderer):
    """Says what it reads, and shows nothing."""

    channels, size = 1, (1, 1)
    attributes = (
        Attribute("x", 0, 10),
        Attribute("angle", -PI, PI, periodic=True),
        Attribute("size", 0.2, 0.7),
        Attribute("hue", 0, 1),
    )
    environment = (
        Attribute("light", 0.5, 1.5),
        Attribute("wind", -PI, PI, periodic=True),
        Attribute("haze", 0, 1),
    )

    def render(self, scenes: SceneBatch) -> Tensor:
        return torch.zeros(len(scenes), 1, 1, 1)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        raise NotImplementedError


class Strewn(ParameterPrior):
    """Everything uniform between its bounds; another ``mutable`` may be given."""

    def __init__(self, mutable: Mapping[str, Sequence[Attribute]] = MUTABLE, scenery: Sequence[str] = ()) -> None:
        self.mutable, self.scenery = mutable, tuple(scenery)

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        x, angle = sample_uniform(scenes, 0, 10, generator), sample_uniform(scenes, -PI, PI, generator)
        for kind, far in ((THING, 1), (PART, 0.5)):
            near = scenes.parent_values(x) + sample_uniform(scenes, -far, far, generator)
            x = torch.where(scenes.classes == kind, near, x)
        light, wind, haze = torch.rand(3, len(scenes), generator=generator)
        size, hue = sample_uniform(scenes, 0.2, 0.7, generator), sample_uniform(scenes, 0, 1, generator)
        return scenes.with_attributes(x=x, angle=angle, size=size, hue=hue).with_environment(
            light=0.5 + light, wind=2 * PI * wind - PI, haze=haze
        )


def world(mutable: Mapping[str, Sequence[Attribute]] = MUTABLE, scenery: Sequence[str] = ()) -> World:
    """One to three groups of up to three things and pebbles."""
    prior = ListLengthPrior({"Groups": [0, 1, 1, 1], "Items": [1, 1, 1, 1]})
    return World(GROUPS, prior, Strewn(mutable, scenery), Unseen())


def parameter_model(of: World | None = None, **more: Any) -> ParameterModel:
    torch.manual_seed(0)
    return ParameterModel(of or world(), **({"hidden": 16, "num_layers": 2} | more))


def some_scenes(n: int, seed: int) -> SceneBatch:
    return world().sample_prior(n, rng(seed))


def family() -> SceneBatch:
    """A group with two things, a pebble and a thing, of which the second has a part; a group with a thing; a group."""
    kinds = [GROUP, THING, THING, PART, PEBBLE, THING, GROUP, THING, GROUP]
    above = [-1, 0, 0, 2, 0, 0, -1, 6, -1]
    other = [GROUP, THING, *[-1] * 7], [-1, 0, *[-1] * 7]
    structure = SceneBatch(torch.tensor([kinds, other[0]]), torch.tensor([above, other[1]]))
    return Strewn().sample(structure, rng(7))


def random_distribution(model: ParameterModel, scenes: SceneBatch, seed: int) -> AttributeDistribution:
    """In double precision, with deviations of all sizes."""
    active = model.mutable_mask(scenes)
    mean, part = torch.rand(2, *active.shape, generator=rng(seed), dtype=torch.double)
    return AttributeDistribution(12 * mean - 6, MIN_STD * (MAX_STD / MIN_STD) ** part, active)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=rng(seed), dtype=torch.double)


# --- the distribution ---


def wrapped(mean: Tensor, deviation: Tensor, angle: Tensor) -> Tensor:
    """Log-density of an angle, from far more turns than matter."""
    turns = angle + 2 * PI * torch.arange(-40, 41, dtype=torch.double)
    return Normal(mean, deviation).log_prob(turns).logsumexp(0)


@settings(max_examples=12)
@given(st.integers(0, 2**16), st.sampled_from([0.1, 3.0, 30.0]))
def test_the_density_is_that_of_independent_normal_and_wrapped_normal_distributions(seed: int, far: float) -> None:
    model = parameter_model()
    scenes = some_scenes(3, seed)
    distribution = random_distribution(model, scenes, seed)
    values = distribution.mean + normal(*distribution.mean.shape, seed=seed + 1, scale=far) * distribution.std
    expected = torch.zeros(len(scenes), dtype=torch.double)
    for i, j, k in distribution.active.nonzero().tolist():
        mean, deviation, value = (t[i, j, k] for t in (distribution.mean, distribution.std, values))
        periodic = model.mutable.attributes[k].periodic
        expected[i] += wrapped(mean, deviation, value) if periodic else Normal(mean, deviation).log_prob(value)
    torch.testing.assert_close(model.log_prob(distribution, values), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("deviation", [MIN_STD, 0.1, 1.0, MAX_STD])
def test_the_density_of_an_angle_has_mass_one(deviation: float) -> None:
    model, points = parameter_model(), 4000
    k = [(a.name, a.relative) for a in model.mutable.attributes].index(("angle", False))
    shape = (points, 1, len(model.mutable.attributes))
    active = torch.zeros(shape, dtype=torch.bool)
    active[..., k] = True
    one = torch.ones(shape, dtype=torch.double)
    angles = torch.linspace(-PI, PI, points + 1, dtype=torch.double)[:-1, None, None] * one
    density = model.log_prob(AttributeDistribution(2.5 * one, deviation * one, active), angles).exp()
    assert density.mean().item() * 2 * PI == pytest.approx(1, abs=1e-7)


def test_what_is_not_there_counts_nothing() -> None:
    model, scenes = parameter_model(), family()
    distribution = random_distribution(model, scenes, 0)
    values = distribution.mean + normal(*distribution.mean.shape)
    junk = normal(*values.shape, seed=1, scale=50)
    active = distribution.active
    other = AttributeDistribution(
        torch.where(active, distribution.mean, junk), torch.where(active, distribution.std, junk.exp()), active
    )
    found = model.log_prob(other, torch.where(active, values, -junk))
    assert torch.equal(found, model.log_prob(distribution, values))
    inputs = [t.clone().requires_grad_() for t in (distribution.mean, distribution.std, values)]
    model.log_prob(AttributeDistribution(inputs[0], inputs[1], active), inputs[2]).sum().backward()
    for value in inputs:
        assert value.grad is not None and torch.equal(value.grad != 0, active)


def test_draws_are_of_the_distribution_that_a_proposal_says() -> None:
    """Kolmogorov and Smirnov's test, of a number between bounds, of one relative to it, and of an angle."""
    model, n = parameter_model(), 4000
    scenes = Strewn().sample(SceneBatch(torch.tensor([[GROUP, THING]]), torch.tensor([[-1, 0]])), rng())
    scenes = scenes[torch.zeros(n, dtype=torch.long)]
    active = model.mutable_mask(scenes)
    mean, deviation = torch.zeros(active.shape), torch.ones(active.shape)
    x, (near, angle) = MUTABLE["Group"][0], MUTABLE["thing"]
    for node, attribute, m, s in ((1, x, 0.4, 0.9), (2, near, -1.2, 0.5), (2, angle, 2.9, 1.4)):
        k = model.mutable.attributes.index(attribute)
        mean[:, node, k], deviation[:, node, k] = m, s
    new = model.with_values(scenes, model.rsample(AttributeDistribution(mean, deviation, active), rng(1))).attributes

    def between(low: float, high: float, m: float, s: float) -> Any:
        parts = [SigmoidTransform(), AffineTransform(low, high - low)]
        law = TransformedDistribution(Normal(m, s), parts)
        return lambda x: law.cdf(torch.as_tensor(x)).numpy()

    def around(angle: Any) -> Any:
        turns = 2 * PI * torch.arange(-5, 6).numpy()
        ends = [norm.cdf((at[..., None] + turns - 2.9) / 1.4).sum(-1) for at in (angle, angle * 0 - PI)]
        return ends[0] - ends[1]

    critical = 1.95 / n**0.5  # passed once in a thousand times
    assert kstest(new["x"][:, 0], between(0, 10, 0.4, 0.9)).statistic < critical
    assert kstest(new["x"][:, 1] - new["x"][:, 0], between(-1, 1, -1.2, 0.5)).statistic < critical
    assert kstest(new["angle"][:, 1], around).statistic < critical
    assert kstest(new["x"][:, 0], between(0, 10, 0.4, 1.1)).statistic > critical


def test_deviations_begin_where_they_are_told_and_stay_within_bounds() -> None:
    scenes = some_scenes(30, 0)
    for deviation in (MIN_STD, 0.1, 1.0, MAX_STD):
        model = parameter_model(init_std=deviation)
        found = model.distribution(scenes, rng()).std
        assert found.log().mean().item() == pytest.approx(math.log(deviation), abs=0.3)
        with torch.no_grad():
            model.decoder[-1].weight *= 1000
        found = model.distribution(scenes, rng()).std
        assert found.min() >= 0.999 * MIN_STD and found.max() <= 1.001 * MAX_STD
        assert found.max() > 2 * found.min()
    for wrong, said in (
        ({"num_heads": 3}, "hidden must be a multiple of num_heads, and 16 is none of 3"),
        ({"noise_dim": -1}, "noise_dim must be at least 0, not -1"),
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
    ):
        with pytest.raises(UserError, match=said):
            parameter_model(**{"hidden": 16, **wrong})
    for deviation in (0.5 * MIN_STD, 2 * MAX_STD):
        with pytest.raises(UserError, match=r"init_std must be (at least 0\.00673795|at most 2\.71828), not"):
            parameter_model(init_std=deviation)


# --- from values to scenes ---


def decoded(model: ParameterModel, scenes: SceneBatch, values: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Attributes and environment by plain loops; parents come before their children."""
    attributes = {name: value.clone().double() for name, value in scenes.attributes.items()}
    environment = {name: value.clone().double() for name, value in scenes.environment.items()}

    def value_of(attribute: Attribute, u: float) -> float:
        return u if attribute.periodic else attribute.low + (attribute.high - attribute.low) / (1 + math.exp(-u))

    for k, a in enumerate(model.mutable.attributes):
        for i in range(len(scenes)):
            if a in MUTABLE[ENVIRONMENT]:
                environment[a.name][i] = value_of(a, values[i, 0, k].item())
    for i, j in itertools.product(*map(range, scenes.classes.shape)):
        kind, parent = scenes.classes[i, j].item(), scenes.parents[i, j].item()
        for k, a in enumerate(model.mutable.attributes):
            if kind >= 0 and a in MUTABLE.get(GROUPS.classes[int(kind)], ()):
                above = attributes[a.name][i, int(parent)].item() if a.relative else 0.0
                attributes[a.name][i, j] = value_of(a, values[i, j + 1, k].item()) + above
    return attributes, environment


@settings(max_examples=20)
@given(st.integers(0, 2**16))
def test_values_are_decoded_as_plain_loops_do(seed: int) -> None:
    model, scenes = parameter_model(), some_scenes(4, seed)
    values = torch.randn(model.mutable_mask(scenes).shape, generator=rng(seed)) * 3
    attributes, environment = decoded(model, scenes, values)
    new = model.with_values(scenes, values)
    for found, expected in ((new.attributes, attributes), (new.environment, environment)):
        assert found.keys() == expected.keys()
        for name in found:
            if name in ("angle", "wind"):  # -pi is pi
                torch.testing.assert_close(found[name].double().cos(), expected[name].cos(), atol=1e-5, rtol=0)
                torch.testing.assert_close(found[name].double().sin(), expected[name].sin(), atol=1e-5, rtol=0)
            else:
                torch.testing.assert_close(found[name].double(), expected[name], atol=1e-5, rtol=0)


FINITE = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


@settings(max_examples=25)
@given(FINITE, st.integers(0, 2**16))
def test_bounds_are_kept_whatever_the_values(given_values: list[float], seed: int) -> None:
    model, scenes = parameter_model(), some_scenes(3, seed)
    shape = model.mutable_mask(scenes).shape
    chosen = torch.randint(len(given_values), shape, generator=rng(seed))
    new = model.with_values(scenes, torch.tensor(given_values)[chosen])
    turned = torch.isin(scenes.classes, torch.tensor([THING, PART]))
    for angle in (new.environment["wind"], new.attributes["angle"][turned]):
        assert (angle.abs() <= PI + 1e-6).all()
    assert ((new.environment["light"] >= 0.5 - 1e-6) & (new.environment["light"] <= 1.5 + 1e-6)).all()
    x, size = new.attributes["x"], new.attributes["size"]
    from_parent = x - new.parent_values(x)
    for kind, low, high in ((GROUP, 0, 10), (THING, -1, 1), (PART, -0.5, 0.5)):
        place = from_parent[scenes.classes == kind]
        assert ((place >= low - 1e-5) & (place <= high + 1e-5)).all()
    sized = size[torch.isin(scenes.classes, torch.tensor([GROUP, PART]))]
    assert ((sized >= 0.2 - 1e-6) & (sized <= 0.7 + 1e-6)).all()
    assert_kept(scenes, new)


def assert_kept(scenes: SceneBatch, new: SceneBatch) -> None:
    """What can't be learned is the same to the last bit."""
    assert torch.equal(new.classes, scenes.classes) and torch.equal(new.parents, scenes.parents)
    for name, kinds in {"x": [PEBBLE], "angle": [GROUP, PEBBLE], "size": [THING, PEBBLE], "hue": range(4)}.items():
        same = torch.isin(scenes.classes, torch.tensor([-1, *kinds]))
        assert torch.equal(new.attributes[name][same], scenes.attributes[name][same])
    assert torch.equal(new.environment["haze"], scenes.environment["haze"])


ALIKE = {"Group": MUTABLE["Group"], "thing": MUTABLE["thing"][:1], "part": MUTABLE["thing"][:1]}
"""Things and parts are learned as one column."""


@pytest.mark.parametrize("mutable", [MUTABLE, dict(reversed(MUTABLE.items())), ALIKE], ids=["down", "up", "alike"])
def test_what_is_relative_follows_its_parent_and_nothing_else_does(mutable: Mapping[str, Sequence[Attribute]]) -> None:
    """In whichever order columns come."""
    model, scenes = parameter_model(world(mutable)), family()
    values = torch.randn(model.mutable_mask(scenes).shape, generator=rng())
    k = model.mutable.attributes.index(Attribute("x", 0, 10))
    moved = values.clone()
    moved[0, 1, k] += 1  # the first group, which has things at 1, 2 and 5 and a part at 3
    before, after = (model.with_values(scenes, v) for v in (values, moved))
    shift = after.attributes["x"] - before.attributes["x"]
    step = 10 * (moved[0, 1, k].sigmoid() - values[0, 1, k].sigmoid())
    expected = torch.zeros_like(shift)
    expected[0, [0, 1, 2, 3, 5]] = step
    torch.testing.assert_close(shift, expected, atol=1e-5, rtol=0)
    assert step > 0.5 and torch.equal(shift != 0, expected != 0)
    for name in ("angle", "size", "hue"):
        assert torch.equal(after.attributes[name], before.attributes[name])


def test_a_part_turns_with_its_thing() -> None:
    model, scenes = parameter_model(), family()
    values = torch.randn(model.mutable_mask(scenes).shape, generator=rng())
    k = model.mutable.attributes.index(Attribute("angle", -PI, PI, periodic=True))
    turned = values.clone()
    turned[0, 3, k] += 2.5
    before, after = (model.with_values(scenes, v).attributes["angle"] for v in (values, turned))
    turns = torch.zeros_like(before)
    turns[0, [2, 3]] = 2.5
    torch.testing.assert_close((after - before).cos(), turns.cos(), atol=1e-5, rtol=0)
    torch.testing.assert_close((after - before).sin(), turns.sin(), atol=1e-5, rtol=0)


def test_the_scenes_attributes_are_those_of_its_own_node_alone() -> None:
    model, scenes = parameter_model(), family()
    values = torch.randn(model.mutable_mask(scenes).shape, generator=rng())
    shared = model.mutable.shared
    assert shared.tolist() == [a in MUTABLE[ENVIRONMENT] for a in model.mutable.attributes]
    before, other = model.with_values(scenes, values), torch.randn(values.shape, generator=rng(1))
    elsewhere = torch.ones(values.shape, dtype=torch.bool)
    elsewhere[:, 0, shared] = False
    after = model.with_values(scenes, torch.where(elsewhere, other, values))
    assert all(torch.equal(after.environment[name], before.environment[name]) for name in before.environment)
    of_node = torch.zeros(values.shape, dtype=torch.bool)
    of_node[:, 0] = True
    after = model.with_values(scenes, torch.where(of_node, other, values))
    assert all(torch.equal(after.attributes[name], before.attributes[name]) for name in before.attributes)
    for name in ("light", "wind"):
        assert (after.environment[name] != before.environment[name]).all()


def test_scenes_are_differentiable_in_values_where_there_are_any() -> None:
    model, scenes = parameter_model(), family()
    values = torch.randn(model.mutable_mask(scenes).shape, generator=rng()).requires_grad_()
    new = model.with_values(scenes, values)
    total = sum(value.sum() for value in (*new.attributes.values(), *new.environment.values()))
    (slope,) = torch.autograd.grad(total, values)
    assert torch.equal(slope != 0, model.mutable_mask(scenes))
    # a group's place moves four more things, and a relative one of its own only the part, where there is one
    k = model.mutable.attributes.index(Attribute("x", 0, 10))
    share = values[0, :, k].sigmoid()
    expected = (10 * share * (1 - share))[[1, 7, 9]] * torch.tensor([5.0, 2, 1])
    torch.testing.assert_close(slope[0, [1, 7, 9], k], expected)


# --- the network ---


def assert_alike(found: AttributeDistribution, expected: AttributeDistribution) -> None:
    """Where there is something."""
    assert torch.equal(found.active, expected.active)
    for ours, theirs in ((found.mean, expected.mean), (found.std, expected.std)):
        torch.testing.assert_close(ours[found.active], theirs[found.active], atol=1e-5, rtol=1e-4)


def parts(distribution: AttributeDistribution, index: Any) -> AttributeDistribution:
    return AttributeDistribution(*(value[index] for value in distribution))


def test_a_scene_alone_is_proposed_as_among_larger_ones() -> None:
    model, scenes = parameter_model(noise_dim=0), some_scenes(12, 3)
    together, sizes = model.distribution(scenes, rng()), scenes.mask.sum(1).tolist()
    assert min(sizes) < max(sizes) / 3
    for i, size in enumerate(sizes):
        alone = scenes[i : i + 1]
        alone = SceneBatch(
            alone.classes[:, :size],
            alone.parents[:, :size],
            {name: value[:, :size] for name, value in alone.attributes.items()},
            alone.environment,
        )
        assert_alike(model.distribution(alone, rng()), parts(together, (slice(i, i + 1), slice(size + 1))))


def test_what_stands_in_unused_places_does_not_matter() -> None:
    model, scenes = parameter_model(), some_scenes(12, 3)
    assert not scenes.mask.all()
    distribution, error = model.distribution(scenes, rng()), model.reconstruction_loss(scenes, rng())
    for junk in (1e6, -3.0, math.nan, math.inf):
        other = scenes.with_attributes(
            **{name: torch.where(scenes.mask, value, junk) for name, value in scenes.attributes.items()}
        )
        assert_alike(model.distribution(other, rng()), distribution)
        model.zero_grad()
        loss = model.reconstruction_loss(other, rng())
        loss.backward()
        torch.testing.assert_close(loss, error)
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_order_of_scenes_does_not_matter() -> None:
    model, scenes = parameter_model(noise_dim=0), some_scenes(12, 3)
    order = torch.randperm(12, generator=rng())
    assert_alike(model.distribution(scenes[order], rng()), parts(model.distribution(scenes, rng()), order))


def test_noise_is_a_source_of_randomness_of_its_own() -> None:
    scenes = family()
    for noise in (0, 2):
        model = parameter_model(noise_dim=noise)
        first, again, other = (model.distribution(scenes, rng(seed)).mean for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first != other, torch.full(first.shape, noise > 0))


EDGES = ("own", "parent", "children", "siblings", "before", "after")
"""Where a node's messages come from, in the order in which the network puts them together."""


def heard(scenes: SceneBatch, edge: str) -> list[set[int]]:
    """Nodes of the first scene that each hears of along an edge, by plain loops; the first node is the scene."""
    above = [0, *(scenes.parents[0] + 1).tolist()]
    nodes = range(len(above))
    rows = [[k for k in nodes[1:] if above[k] == above[j]] if j else [0] for j in nodes]
    ways = {
        "own": [{j} for j in nodes],
        "parent": [{above[j]} for j in nodes],
        "children": [{k for k in nodes[1:] if above[k] == j} for j in nodes],
        "siblings": [set(row) for row in rows],
        "before": [{max((k for k in rows[j] if k < j), default=j)} for j in nodes],
        "after": [{min((k for k in rows[j] if k > j), default=j)} for j in nodes],
    }
    return ways[edge]


def changed(model: ParameterModel, scenes: SceneBatch, other: SceneBatch) -> Tensor:
    """Nodes for which other values are proposed."""
    one, two = (model.distribution(s, rng()) for s in (scenes, other))
    return ((one.mean != two.mean) | (one.std != two.std)).any(2)


@pytest.mark.parametrize("edge", EDGES)
def test_messages_pass_along_each_kind_of_edge_and_no_further(edge: str) -> None:
    """One round, in which all other kinds of messages are left out."""
    model, scenes = parameter_model(num_layers=1, noise_dim=0), family()
    weight = model.layers[0].update[0].weight
    with torch.no_grad():
        for k, name in enumerate(EDGES):
            if name != edge:
                weight.unflatten(1, (6, -1))[:, k] = 0
    ways, below = heard(scenes, edge), heard(scenes, "children")
    for j in range(1, 10):
        hue = scenes.attributes["hue"].clone()
        hue[0, j - 1] += 1e-3  # so little that nobody's rank changes, of which siblings are told
        told = {j} | below[j]  # children are told how they differ from their parent
        expected = torch.zeros(2, 10, dtype=torch.bool)
        expected[0] = torch.tensor([k in told or bool(way & told) for k, way in enumerate(ways)])
        assert torch.equal(changed(model, scenes, scenes.with_attributes(hue=hue)), expected), j


def test_all_of_a_scene_hears_of_all_of_it_and_other_scenes_of_nothing() -> None:
    model, scenes = parameter_model(num_layers=4, noise_dim=0), family()
    hue = scenes.attributes["hue"].clone()
    hue[0, 3] = (hue[0, 3] + 0.5) % 1  # of the part, two generations below the groups
    found = changed(model, scenes, scenes.with_attributes(hue=hue))
    assert found[0].all() and not found[1].any()
    haze = scenes.environment["haze"].clone()
    haze[1] = (haze[1] + 0.5) % 1
    found = changed(model, scenes, scenes.with_environment(haze=haze))
    assert found[1, :3].all() and not found[0].any()


def test_places_among_siblings_by_plain_loops() -> None:
    """Share of the way along them and a tenth of their number, of all and of the same class, and odd or even."""
    scenes = family()
    above, kinds = [0, *(scenes.parents[0] + 1).tolist()], [-1, *scenes.classes[0].tolist()]
    expected = []
    for j, row in enumerate(heard(scenes, "siblings")):
        alike = [k for k in row if kinds[k] == kinds[j]]
        before = [sum(k < j for k in some) for some in (row, alike)]
        assert all(above[k] == above[j] for k in row)
        expected.append([
            (before[0] + 0.5) / len(row), len(row) / 10, (before[1] + 0.5) / len(alike), len(alike) / 10, before[0] % 2
        ])  # fmt: skip
    torch.testing.assert_close(GraphBatch.from_scenes(scenes, 4).positions[0], torch.tensor(expected))


def test_alike_siblings_are_told_apart_by_their_place() -> None:
    """Three groups with the same attributes, as a prior without randomness gives them."""
    model = parameter_model(noise_dim=0)
    scenes = SceneBatch(torch.full((1, 3), GROUP), torch.full((1, 3), -1))
    half = {a.name: torch.full((1, 3), (a.low + a.high) / 2) for a in Unseen.attributes}
    around = {a.name: torch.full((1,), (a.low + a.high) / 2) for a in Unseen.environment}
    mean = model.distribution(scenes.with_attributes(**half).with_environment(**around), rng()).mean[0, 1:]
    for one, two in itertools.combinations(mean, 2):
        assert (one != two).all()


def test_the_gradient_reaches_every_weight() -> None:
    model, scenes = parameter_model(), some_scenes(20, 0)
    distribution = model.distribution(scenes, rng())
    values = torch.randn(distribution.mean.shape, generator=rng(1))
    model.log_prob(distribution, values).mean().backward()
    slopes = {name: p.grad for name, p in model.named_parameters()}
    assert all(slope is not None and bool((slope != 0).any()) for slope in slopes.values()), slopes.keys()
    assert (slopes["first.0.weight"] != 0).any(0).all()  # all inputs
    kinds = (slopes["kinds.weight"] != 0).any(1)
    assert kinds[:-1].all() and not kinds[-1]  # the scene and its classes; the last is that of unused places
    for k in range(2):
        for part in slopes[f"layers.{k}.attend.weight"].chunk(3):  # query, key and value
            assert (part != 0).any()
        assert (slopes[f"layers.{k}.update.0.weight"].unflatten(1, (6, -1)) != 0).any(0).all()
    # of each attribute a mean and a deviation, and of angles one number more
    periodic = torch.tensor([a.periodic for a in model.mutable.attributes])
    used = torch.stack([torch.ones_like(periodic), periodic, torch.ones_like(periodic)]).flatten()
    assert torch.equal((slopes["decoder.3.weight"] != 0).any(1), used)


# --- the autoencoder ---


def test_the_error_of_a_reconstruction_by_hand() -> None:
    """Squares of shares of the way between bounds, and of angles 1 - cos, over all that is there."""
    model, scenes = parameter_model(), family()
    distribution = model.distribution(scenes, rng())
    errors = []
    for i, j, k in distribution.active.nonzero().tolist():
        a, mean = model.mutable.attributes[k], distribution.mean[i, j, k].item()
        value = (scenes.attributes[a.name][i, j - 1] if j else scenes.environment[a.name][i]).item()
        if a.relative:
            value -= scenes.attributes[a.name][i, int(scenes.parents[i, j - 1])].item()
        share = (value - a.low) / (a.high - a.low)
        errors.append(1 - math.cos(mean - value) if a.periodic else (1 / (1 + math.exp(-mean)) - share) ** 2)
    assert model.reconstruction_loss(scenes, rng()).item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_the_autoencoder_learns_to_give_back_what_it_is_given() -> None:
    placement = UniformPlacement(180)
    digits = World(MultiMNIST(), UniformDigits(4), placement, DigitCanvas(24, 8, rotation=True))
    model, draw = parameter_model(digits, hidden=32, num_layers=1, noise_dim=1), rng()
    fresh = digits.sample_prior(100, rng(1))
    with torch.no_grad():
        before = model.reconstruction_loss(fresh, rng()).item()
    adam = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        adam.zero_grad()
        model.reconstruction_loss(digits.sample_prior(32, draw), draw).backward()
        adam.step()
    with torch.no_grad():
        after = model.reconstruction_loss(fresh, rng()).item()
    assert after < before / 10


# --- scenes with learned parameters ---


def test_learned_parameters_change_mutable_attributes_alone() -> None:
    aerial = World(Aerial2D(), UniformTraffic(2, 3), ScatteredCars(), AerialView(canvas_size=16))
    model = parameter_model(aerial)
    assert aerial.classes == ("Road", "car", "house", "tree")
    learned = SceneModel(aerial, parameters=model)
    scenes, prior = learned.sample(40, rng(3), LEARNED), learned.sample(40, rng(3), PRIOR)
    again, other = learned.sample(40, rng(3), LEARNED), learned.sample(40, rng(4), LEARNED)
    assert torch.equal(scenes.classes, prior.classes) and torch.equal(scenes.parents, prior.parents)
    car = prior.classes == 1
    assert car.any() and (prior.classes == 2).any() and (prior.classes == 3).any()
    for name, values in scenes.attributes.items():
        assert not values.requires_grad
        assert torch.equal(values, again.attributes[name])
        differs = values != prior.attributes[name]
        assert torch.equal(differs, car & torch.tensor(name in ("x", "y", "angle", "spacing"))), name
    for name, values in scenes.environment.items():
        assert torch.equal(values, prior.environment[name])
    assert other.classes.shape != scenes.classes.shape or not torch.equal(other.attributes["x"], scenes.attributes["x"])
    # each car is on its own road, which is where the prior put it
    offset = (scenes.attributes["y"] - scenes.parent_values(prior.attributes["y"]))[car]
    assert (offset.abs() <= 3.6 + 1e-4).all() and offset.std() > 0.01


def test_attributes_derived_from_learned_ones_follow_them() -> None:
    aerial = World(Aerial2D(), UniformTraffic(2, 3), ScatteredCars(), AerialView(canvas_size=16))
    model = parameter_model(aerial, learned_attributes={"car": ["spacing"]})
    assert [a.name for a in model.mutable.attributes] == ["spacing"] and model.mutable.rendered == {"x"}
    scenes, car = aerial.sample_prior(20, rng()), aerial.sample_prior(20, rng()).classes == 1
    values = torch.full((20, scenes.classes.shape[1] + 1, 1), 0.7).logit().requires_grad_()
    changed = model.with_values(scenes, values)
    expected = aerial.parameter_prior.derive_attributes(scenes.with_attributes(spacing=torch.where(car, 0.7, 0.0)))
    torch.testing.assert_close(changed.attributes["x"], expected.attributes["x"])
    assert not torch.equal(changed.attributes["x"], scenes.attributes["x"])
    changed.attributes["x"].sum().backward()
    assert values.grad is not None and bool((values.grad[:, 1:, 0] != 0)[car].all())
    # what the renderer draws of it is what the gradient has to pass
    Pathwise().check(model.mutable.rendered, aerial.renderer.differentiable)
    with pytest.raises(UserError, match=r"not in 'x'"):
        Pathwise().check(model.mutable.rendered, aerial.renderer.differentiable - {"x"})


def test_no_scenes_and_empty_scenes_have_parameters_too() -> None:
    model = parameter_model()
    none = SceneBatch(torch.zeros(0, 1).long(), torch.zeros(0, 1).long())
    assert len(model.sample(Strewn().sample(none, rng()), rng())) == 0
    empty = SceneBatch(torch.full((3, 1), -1), torch.full((3, 1), -1))
    before = Strewn().sample(empty, rng())
    found = model.sample(before, rng(1))
    assert torch.equal(found.attributes["x"], before.attributes["x"])
    assert (found.environment["light"] != before.environment["light"]).all()


# --- what may be learned ---


def learnable(found: MutableAttributes, of: World) -> dict[str, set[tuple[str, float, float]]]:
    """Attributes of each class, with their bounds."""
    table = dict(zip([*of.classes, ENVIRONMENT], found.table, strict=True))
    return {
        name: {(a.name, a.low, a.high) for a, has in zip(found.attributes, row, strict=True) if has}
        for name, row in table.items()
        if row.any()
    }


def of_attributes(owner: Sequence[Attribute]) -> set[tuple[str, float, float]]:
    return {(a.name, a.low, a.high) for a in owner}


def test_columns_are_what_the_prior_calls_mutable() -> None:
    columns = MutableAttributes(world())
    assert learnable(columns, world()) == {owner: of_attributes(some) for owner, some in MUTABLE.items()}
    assert columns.names == columns.rendered == {"x", "size", "angle", "light", "wind"}
    assert len(columns.attributes) == 8  # size is one for groups and parts, whose bounds are alike


def test_only_those_that_are_named() -> None:
    found = learnable(MutableAttributes(world(), {"part": ["x"], ENVIRONMENT: ["wind"]}), world())
    assert found == {"part": {("x", -0.5, 0.5)}, ENVIRONMENT: {("wind", -PI, PI)}}
    # one column of two classes, of which one is named
    assert learnable(MutableAttributes(world(), {"Group": ["size"]}), world()) == {"Group": {("size", 0.2, 0.7)}}
    found = learnable(MutableAttributes(world(), {EVERY: ["x"]}), world())
    assert found == {"Group": {("x", 0, 10)}, "thing": {("x", -1, 1)}, "part": {("x", -0.5, 0.5)}}


def test_every_is_all_of_the_grammars_classes() -> None:
    hue = Attribute("hue", 0, 1)
    of = world({EVERY: [hue]}, scenery=["cloud"])
    assert learnable(MutableAttributes(of), of) == {name: {("hue", 0, 1)} for name in GROUPS.classes}
    of = world({EVERY: [hue], "cloud": [hue]}, scenery=["cloud"])
    assert set(learnable(MutableAttributes(of), of)) == {*GROUPS.classes, "cloud"}
    digits = World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(24, 8, rotation=True))
    assert learnable(MutableAttributes(digits, {"3": ["x"]}), digits) == {"3": {("x", 0, 1)}}


def test_a_class_goes_before_every() -> None:
    """Its own bounds are the only ones that it has."""
    wide, narrow = Attribute("hue", 0, 1), Attribute("hue", 0.4, 0.6)
    for mutable in ({EVERY: [wide], "thing": [narrow]}, {"thing": [narrow], EVERY: [wide]}):
        found = learnable(MutableAttributes(world(mutable)), world(mutable))
        assert found == {name: {("hue", 0.4, 0.6)} if name == "thing" else {("hue", 0, 1)} for name in GROUPS.classes}


def test_what_is_not_read_is_not_learned() -> None:
    upright, turning = (
        World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(24, 8, rotation=turning))
        for turning in (False, True)
    )
    assert MutableAttributes(upright).names == {"x", "y"}
    assert MutableAttributes(turning).names == {"x", "y", "angle"}
    # of objects the renderer reads a hue, of the scene it does not, and the other way about with light
    hue, light = Attribute("hue", 0, 1), Attribute("light", 0.5, 1.5)
    of = world({"thing": [hue, light], ENVIRONMENT: [hue, light]})
    assert learnable(MutableAttributes(of), of) == {"thing": {("hue", 0, 1)}, ENVIRONMENT: {("light", 0.5, 1.5)}}


@pytest.mark.parametrize(
    ("mutable", "learned", "message"),
    [
        ({"thign": MUTABLE["thing"]}, None, "Strewn would learn attributes of 'thign', which the world lacks. Did"),
        ({"thign": MUTABLE["thing"]}, None, "Did you mean 'thing'? Available: *, Group, environment, part, pebble,"),
        (
            MUTABLE,
            {"thign": ["x"]},
            "'learned_attributes' would learn attributes of 'thign', which the world lacks. Did you mean",
        ),
        (MUTABLE, {"environmnet": ["light"]}, "Did you mean 'environment'?"),
        (MUTABLE, {"thing": ["angel"]}, "'angel' of 'thing' can't be learned. Did you mean 'angle'? Available: an"),
        (MUTABLE, {"Group": ["angle"]}, "'angle' of 'Group' can't be learned. Available: size, x."),
        (MUTABLE, {"pebble": ["x"]}, "'x' of 'pebble' can't be learned. Available: none."),
        (MUTABLE, {ENVIRONMENT: ["haze"]}, "'haze' of 'environment' can't be learned. Available: light, wind."),
        (MUTABLE, {}, "'learned_attributes' names no attribute: name some, or leave it out"),
        (MUTABLE, {"thing": []}, "'learned_attributes' names no attribute"),
        ({}, None, "Strewn has no mutable attribute that Unseen uses: give the parameter prior a"),
        ({"thing": [Attribute("smell", 0, 1)]}, None, "'mutable', as in mutable = {'car': (Attribute('x', 0, 64),)}"),
        ({}, {"thing": ["x"]}, "leave out model.parameters"),
    ],
)
def test_what_cant_be_learned_is_said(
    mutable: Mapping[str, Sequence[Attribute]], learned: dict[str, list[str]] | None, message: str
) -> None:
    with pytest.raises(ParameterError) as error:
        parameter_model(world(mutable), learned_attributes=learned)
    assert message in str(error.value)


def test_values_beyond_their_bounds_are_refused() -> None:
    model, scenes = parameter_model(), family()
    model.distribution(scenes, rng())

    def told(changed: SceneBatch) -> str:
        with pytest.raises(ParameterError) as error:
            model.distribution(changed, rng())
        return str(error.value)

    x, size, light = scenes.attributes["x"].clone(), scenes.attributes["size"].clone(), scenes.environment["light"]
    x[0, 3] = x[0, 2] + 0.625
    message = told(scenes.with_attributes(x=x))
    assert message.startswith("'x' of 'part' is 0.625, beyond its bounds -0.5 and 0.5: widen the bounds")
    assert "bounds in 'mutable' of the parameter prior, or let it draw within them" in message
    size[1, 0] = 0.125
    assert "'size' of 'Group' is 0.125, beyond its bounds 0.2 and 0.7" in told(scenes.with_attributes(size=size))
    assert "'light' of 'environment' is 2, beyond its bounds 0.5 and 1.5" in told(
        scenes.with_environment(light=light.where(torch.tensor([True, False]), 2.0))
    )
    # an angle has no bounds, a thing's size is not learned, nor are rounding errors beyond
    fine = scenes.attributes["size"].clone()
    fine[0, 1], fine[0, 0] = 5.0, 0.7 + 1e-5
    model.distribution(scenes.with_attributes(size=fine, angle=scenes.attributes["angle"] + 7), rng())
