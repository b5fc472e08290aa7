"""Gradients of parameters against quadrature, closed forms, central differences, and one another."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import rng
from torch import Tensor

from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.features.base import Blocks, FeatureExtractor
from ms2.gradients.advantages import MovingAverage, Normalised
from ms2.gradients.base import Gradient, SampledScenes
from ms2.gradients.finite_difference import FiniteDifference
from ms2.gradients.pathwise import Pathwise
from ms2.gradients.score_function import ScoreFunction
from ms2.grammar.grammar import Grammar
from ms2.learning.parameter_learner import ParameterLearner
from ms2.models.parameters import AttributeDistribution, ParameterModel
from ms2.models.scene_model import SceneModel
from ms2.objectives.base import Objective
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior
from ms2.render.base import Renderer, Rendering
from ms2.render.engines.warp.engine import WarpEngine
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import ScatteredCars
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

# --- a world of one object in four pixels, in double precision ---


PLACE, ANGLE = Attribute("place", 0, 1), Attribute("angle", -math.pi, math.pi, periodic=True)


class Shade(Renderer):
    """Four pixels, smooth in the place and the angle of the only object."""

    channels, size, attributes = 1, (2, 2), (PLACE, ANGLE)
    differentiable = frozenset({"place", "angle"})

    def render(self, scenes: SceneBatch) -> Tensor:
        place, angle = (scenes.attributes[name][:, 0] for name in ("place", "angle"))
        pixels = [place.square(), (2 * place + angle).sin(), place * angle.cos(), (-4 * (place - 0.4).square()).exp()]
        return torch.stack(pixels, 1).view(-1, 1, 2, 2)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        raise NotImplementedError


class Anyhow(ParameterPrior):
    """Any place, any angle."""

    mutable = {"dot": (PLACE, ANGLE)}  # noqa: RUF012

    def sample(self, scenes: SceneBatch, generator: torch.Generator) -> SceneBatch:
        place, angle = torch.rand(2, *scenes.classes.shape, generator=generator, dtype=torch.double)
        return scenes.with_attributes(place=place, angle=2 * math.pi * (angle - 0.5))


class Pixels(FeatureExtractor):
    """Pixels as they are, or means of some."""

    def __init__(self, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, images: Tensor) -> Blocks:
        return {"pixels": F.avg_pool2d(images, self.pool).flatten(1)}


DOT = World(Grammar("Scene -> dot"), ListLengthPrior(), Anyhow(), Shade())


def dots(n: int, seed: int = 0) -> SceneBatch:
    return DOT.sample_prior(n, rng(seed))


def features_of(scenes: SceneBatch) -> Blocks:
    return Pixels()(Shade().render(scenes))


class Told(ParameterModel):
    """Proposes what it is told and draws by the coins that it is told, where it is told any."""

    told: AttributeDistribution | None = None
    coins: Tensor | None = None

    def distribution(self, scenes: SceneBatch, generator: torch.Generator) -> AttributeDistribution:
        return super().distribution(scenes, generator) if self.told is None else self.told

    def rsample(self, distribution: AttributeDistribution, generator: torch.Generator) -> Tensor:
        if self.coins is None:
            return super().rsample(distribution, generator)
        return distribution.mean + distribution.std * self.coins


def model_of(world: World = DOT, **more: Any) -> Told:
    torch.manual_seed(0)
    return Told(world, hidden=8, num_layers=1, num_heads=2, noise_dim=0, **more)


# --- all of them, against the gradient of the expected cost ---


MEAN, DEVIATION = torch.tensor([0.3, 0.8]).double(), torch.tensor([0.5, 0.3]).double()
"""Of place, before it is squashed, and angle."""
Cost = Callable[[SceneBatch], Tensor]


def unsquashed(scenes: SceneBatch) -> tuple[Tensor, Tensor]:
    return scenes.attributes["place"][:, 0].logit(), scenes.attributes["angle"][:, 0]


def quadratic(scenes: SceneBatch) -> Tensor:
    """Of means m, n and deviations s, t the expected cost is 3 ((m + 1/2)^2 + s^2) + 2 ((n - 1/2)^2 + t^2) + m n."""
    place, angle = unsquashed(scenes)
    return 3 * (place + 0.5).square() + 2 * (angle - 0.5).square() + place * angle


def scored(objective: Objective) -> Cost:
    """Score of images against seven others that stay the same, of which the first is left out, and seven targets."""
    population, real = (features_of(dots(7, seed)) for seed in (2, 22))

    def cost_of(scenes: SceneBatch) -> Tensor:
        return objective(features_of(scenes), population, torch.zeros(len(scenes)).long(), real)[0]

    return cost_of


COSTS: dict[str, Cost] = {
    "quadratic": quadratic,
    "KDE": scored(KDE(0.2)),
    "KDE with self": scored(KDE(0.2, leave_one_out=False)),
    "MMDWitness": scored(MMDWitness(0.2)),
}
GRADIENTS: dict[str, Callable[[], Gradient]] = {
    "Pathwise": Pathwise,
    "ScoreFunction": ScoreFunction,
    "ScoreFunction, moving average": lambda: ScoreFunction(MovingAverage()),
    "FiniteDifference": lambda: FiniteDifference(0.02),
    "FiniteDifference, 3 directions": lambda: FiniteDifference(0.02, 3),
}


def expected_gradient(cost: Cost) -> Tensor:
    """Gradient of the expected cost with respect to both means and both deviations, by Gauss-Hermite quadrature."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / weights.sum()
    mean, deviation = MEAN.clone().requires_grad_(), DEVIATION.clone().requires_grad_()
    values = mean + deviation * torch.cartesian_prod(nodes, nodes)
    scenes = dots(1)[torch.zeros(len(values), dtype=torch.long)]
    scenes = scenes.with_attributes(place=values[:, :1].sigmoid(), angle=values[:, 1:])
    total = (torch.outer(weights, weights).flatten() * cost(scenes)).sum()
    return torch.cat(torch.autograd.grad(total, [mean, deviation]))


def gradient_of_each(gradient: Gradient, cost: Cost, n: int, model: ParameterModel | None = None) -> Tensor:
    """What each of n scenes gives, with respect to the same."""
    model = (model or model_of()).double()
    prior = dots(n)
    active = model.mutable_mask(prior)
    columns = [(PLACE, ANGLE).index(a) for a in model.mutable.attributes]
    mean, deviation = (v[columns].expand(active.shape).clone().requires_grad_() for v in (MEAN, DEVIATION))
    distribution = AttributeDistribution(mean, deviation, active)
    drawn = SampledScenes(prior, distribution, model.rsample(distribution, rng(3)))
    loss, costs = gradient.loss(model, drawn, cost, rng(4))
    torch.testing.assert_close(costs, cost(model.with_values(prior, drawn.values.detach())))
    assert not costs.requires_grad
    slopes = torch.autograd.grad(loss, [mean, deviation])
    assert all((slope[:, 0] == 0).all() for slope in slopes)  # the scene itself has no attributes
    return n * torch.cat([slope[:, 1] for slope in slopes], 1)


def test_quadrature_is_exact_for_the_quadratic_cost() -> None:
    (m, n), (s, t) = MEAN.tolist(), DEVIATION.tolist()
    expected = [6 * (m + 0.5) + n, 4 * (n - 0.5) + m, 6 * s, 4 * t]
    assert expected_gradient(quadratic).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_are_those_of_the_expected_cost(gradient: str, cost: str) -> None:
    """Each within four standard errors, none of which is more than a tenth of it."""
    n = 20000
    each, expected = gradient_of_each(GRADIENTS[gradient](), COSTS[cost], n), expected_gradient(COSTS[cost])
    error = each.std(0) / n**0.5
    assert (error < expected.abs() / 10).all(), (error, expected)
    assert ((each.mean(0) - expected).abs() < 4 * error).all(), (each.mean(0), expected, error)


def test_advantages_that_are_divided_by_a_deviation_give_a_gradient_that_is() -> None:
    n, cost = 20000, COSTS["MMDWitness"]
    each = gradient_of_each(ScoreFunction(Normalised()), cost, n)
    model = model_of().double()
    scores = cost(model.with_values(dots(n), MEAN + DEVIATION * torch.randn(n, 2, 2, generator=rng(5))))
    expected, error = expected_gradient(cost) / scores.std(), each.std(0) / n**0.5
    assert (error < expected.abs() / 10).all() and ((each.mean(0) - expected).abs() < 4 * error).all()


# --- finite differences ---


def test_the_slope_of_a_line_is_exact_whatever_the_step() -> None:
    def cost(scenes: SceneBatch) -> Tensor:
        return 7.0 - 1.25 * scenes.attributes["angle"][:, 0]

    for step in (0.3, 0.05, 1e-3):
        slope = gradient_of_each(FiniteDifference(step), cost, 50, model_of(learned_attributes={"dot": ["angle"]}))[
            :, 0
        ]
        torch.testing.assert_close(slope, torch.full((50,), -1.25).double(), rtol=1e-6, atol=0)


def test_the_slopes_of_a_plane_are_exact_but_for_the_toss_of_a_coin() -> None:
    """Along a and b, each 1 or -1, they are (p a + q b) a and (p a + q b) b: p and q, give or take q a b and p a b."""
    p, q = 0.75, -2.0

    def cost(scenes: SceneBatch) -> Tensor:
        place, angle = unsquashed(scenes)
        return p * place + q * angle

    slopes = gradient_of_each(FiniteDifference(0.1), cost, 400)[:, :2]
    signs = ((slopes[:, 0] - p) / q).sign()
    expected = torch.stack([p + q * signs, q + p * signs], 1)
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-6)
    assert (signs > 0).sum().item() == pytest.approx(200, abs=40)  # four standard deviations
    many = gradient_of_each(FiniteDifference(0.1, 100), cost, 400)[:, :2]
    # over d directions the deviation of either is d^(-1/2) of the other's slope
    torch.testing.assert_close(many.std(0), torch.tensor([abs(q), abs(p)]).double() / 10, rtol=0.15, atol=0)
    torch.testing.assert_close(many.mean(0), torch.tensor([p, q]).double(), atol=4 * 2 / (10 * 20), rtol=0)


def test_the_error_falls_with_the_square_of_the_step() -> None:
    """Of a cube it is the square: ((v + h)^3 - (v - h)^3) / 2 h = 3 v^2 + h^2."""

    def cost(scenes: SceneBatch) -> Tensor:
        return scenes.attributes["angle"][:, 0] ** 3

    model = model_of(learned_attributes={"dot": ["angle"]})
    exact = gradient_of_each(Pathwise(), cost, 50, model)[:, 0]
    for step in (0.4, 0.2, 0.1, 0.05):
        slope = gradient_of_each(FiniteDifference(step), cost, 50, model)[:, 0]
        torch.testing.assert_close(slope - exact, torch.full((50,), step**2).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("step", "directions"), [(0.0, 1), (-0.1, 1), (math.nan, 1), (0.1, 0)])
def test_steps_and_directions_that_make_no_sense(step: float, directions: int) -> None:
    with pytest.raises(UserError, match=r"(step must be (greater than 0|finite)|directions must be at least 1), not"):
        FiniteDifference(step, directions)


# --- the loss of a step ---


class Overheard(MMDWitness, selectable=False):
    """Remembers what it was asked."""

    def __init__(self, bandwidth: float = 0.05) -> None:
        super().__init__(bandwidth)
        self.asked: list[tuple[Blocks, Blocks, Tensor, Blocks]] = []

    def __call__(self, features: Any, population: Any, own: Tensor, real: Any) -> Any:
        self.asked.append((dict(features), dict(population), own, dict(real)))
        return super().__call__(features, population, own, real)


@pytest.mark.parametrize(
    ("gradient", "calls"),
    [(Pathwise(), 1), (ScoreFunction(), 1), (FiniteDifference(), 3), (FiniteDifference(0.1, 4), 9)],
)
def test_scenes_are_compared_with_those_that_were_drawn(gradient: Gradient, calls: int) -> None:
    model, prior, real, heard = model_of().double(), dots(8), features_of(dots(8, 1)), Overheard()
    model.coins = torch.randn(8, 2, 2, generator=rng())
    drawn = features_of(model.with_values(prior, model.rsample(model.distribution(prior, rng()), rng())))[
        "pixels"
    ].detach()
    loss, score, *_ = ParameterLearner(heard, gradient).surrogate(
        SceneModel(DOT, parameters=model), Pixels(), prior, real, rng()
    )
    assert len(heard.asked) == calls and loss.requires_grad
    for number, (features, population, own, target) in enumerate(heard.asked):
        assert torch.equal(population["pixels"], drawn) and not population["pixels"].requires_grad
        assert torch.equal(features["pixels"], drawn) == (number == 0)
        assert features["pixels"].requires_grad == gradient.through_images
        assert torch.equal(own, torch.arange(8)) and torch.equal(target["pixels"], real["pixels"])
    expected = MMDWitness(0.05)({"pixels": drawn}, {"pixels": drawn}, torch.arange(8), real)[0]
    torch.testing.assert_close(score, expected)
    if isinstance(gradient, Pathwise):
        torch.testing.assert_close(loss, expected.mean())


def dot(model: ParameterModel) -> SceneModel:
    """The world of one dot, with a parameter model."""
    return SceneModel(DOT, parameters=model)


def weights_gradient(loss: Tensor, model: ParameterModel) -> Tensor:
    """With respect to all weights, in one row."""
    slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([s.flatten() for s in slopes if s is not None])


@pytest.mark.parametrize("gradient", [Pathwise(), ScoreFunction(Normalised())])
@pytest.mark.parametrize("objective", [KDE(0.05), MMDWitness(0.05)])
def test_two_processes_have_the_gradient_of_one(objective: Objective, gradient: Gradient) -> None:
    """Also where costs are compared with each other: each process would divide by a deviation of its own."""
    model, prior, real = model_of().double(), dots(8), features_of(dots(8, 1))
    learning, coins = ParameterLearner(objective, gradient), torch.randn(8, 2, 2, generator=rng())
    everyone: list[Tensor] = []

    class Listening(Processes):
        """One process, whose rows are kept."""

        def gather_equal(self, rows: Tensor) -> Tensor:
            everyone.append(rows)
            return rows

    class Half(Processes):
        """Half of the rows; the others are those that were kept."""

        def gather_equal(self, rows: Tensor) -> Tensor:
            whole, part = next(asked), halves_of[self.rank]
            torch.testing.assert_close(rows, whole[part])
            assert not rows.requires_grad
            return torch.cat([rows, whole[4:]] if self.rank == 0 else [whole[:4], rows])

    model.coins = coins
    loss, scores, *_ = learning.surrogate(dot(model), Pixels(), prior, real, rng(), Listening())
    whole = weights_gradient(loss, model)
    assert whole.norm() > 1e-3
    halves, alone, halves_of = [], [], (slice(4), slice(4, 8))
    for rank, part in enumerate(halves_of):
        asked = iter(everyone)
        model.coins = coins[part]
        here = dot(model), Pixels(), prior[part], real, rng()
        loss, found, *_ = learning.surrogate(*here, Half(rank, 2))
        torch.testing.assert_close(found, scores[part])
        halves.append(weights_gradient(loss, model))
        loss, *_ = learning.surrogate(*here)
        alone.append(weights_gradient(loss, model))
    torch.testing.assert_close(sum(halves) / 2, whole)
    assert (sum(alone) / 2 - whole).norm() > 0.01 * whole.norm()


def squared_mmd(x: Tensor, y: Tensor, variance: float) -> Tensor:
    """The unbiased estimate, differentiable in both sets."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-(a[:, None] - b).square().sum(2) / (2 * variance)).exp()

    n, m = len(x), len(y)
    others = [kernel(z, z)[~torch.eye(len(z), dtype=torch.bool)].sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return others[0] + others[1] - 2 * kernel(x, y).sum() / (n * m)


def test_the_witness_has_half_the_gradient_of_the_squared_mmd() -> None:
    model, prior, real = model_of().double(), dots(12), features_of(dots(12, 1))
    model.coins = torch.randn(12, 2, 2, generator=rng())
    loss, *_ = ParameterLearner(MMDWitness(0.05), Pathwise()).surrogate(
        SceneModel(DOT, parameters=model), Pixels(), prior, real, rng()
    )
    new = model.with_values(prior, model.rsample(model.distribution(prior, rng()), rng()))
    features = features_of(new)["pixels"]
    mmd = squared_mmd(features, real["pixels"], 0.05 * 4)
    batch = BatchMMD(0.05)({"pixels": features}, {"pixels": features}, torch.arange(12), real)[0]
    torch.testing.assert_close(mmd.expand(12), batch)
    found, expected = weights_gradient(loss, model), weights_gradient(mmd, model)
    assert expected.norm() > 1e-3
    torch.testing.assert_close(found, expected / 2)


def test_what_a_baseline_remembers_is_kept_with_the_weights() -> None:
    """So that a run that goes on has the baseline that it had."""
    learning, other = (ParameterLearner(KDE(), ScoreFunction(MovingAverage(0.5))) for _ in range(2))
    model, real = model_of().double(), features_of(dots(8, 1))
    learning.surrogate(dot(model), Pixels(), dots(8), real, rng())
    other.load_state_dict(learning.state_dict())
    ours, theirs = (
        one.surrogate(dot(model), Pixels(), dots(8, 2), features_of(dots(8, 3)), rng(1))[0] for one in (learning, other)
    )
    assert torch.equal(ours, theirs)
    fresh = ParameterLearner(KDE(), ScoreFunction(MovingAverage(0.5)))
    assert fresh.surrogate(dot(model), Pixels(), dots(8, 2), features_of(dots(8, 3)), rng(1))[0] != ours


# --- scores as functions of features ---


def log_density(x: Tensor, samples: Tensor, variance: float, used: Tensor) -> Tensor:
    exponents = -(x[:, None] - samples).square().sum(2) / (2 * variance)
    return exponents.masked_fill(~used, -math.inf).logsumexp(1) - used.sum(1).log()


def kde_by_hand(x: Tensor, others: Tensor, y: Tensor, variance: float, leave_one_out: bool) -> Tensor:
    n = len(x)
    used = ~torch.eye(n, dtype=torch.bool) if leave_one_out else torch.ones(n, n, dtype=torch.bool)
    real = torch.ones(n, n, dtype=torch.bool)
    real[:, n - leave_one_out :] = False
    return log_density(x, others, variance, used) - log_density(x, y, variance, real)


def witness_by_hand(x: Tensor, others: Tensor, y: Tensor, variance: float) -> Tensor:
    kernel = [(-(x[:, None] - z).square().sum(2) / (2 * variance)).exp() for z in (others, y)]
    return (kernel[0].sum(1) - kernel[0].diagonal()) / (len(x) - 1) - kernel[1].mean(1)


@pytest.mark.parametrize("n", [6, 40])  # from 26 on distances are computed another way
@pytest.mark.parametrize("score", ["KDE", "KDE with self", "MMDWitness"])
def test_scores_have_the_gradient_of_their_formula_with_the_others_held(score: str, n: int) -> None:
    x, y = (torch.randn(n, 3, generator=rng(seed), dtype=torch.double).requires_grad_() for seed in (0, 1))
    objective = MMDWitness(0.5) if score == "MMDWitness" else KDE(0.5, leave_one_out=score == "KDE")

    def by_hand(others: Tensor) -> Tensor:
        if score == "MMDWitness":
            return witness_by_hand(x, others, y.detach(), 1.5)
        return kde_by_hand(x, others, y.detach(), 1.5, score == "KDE")

    weights = torch.linspace(-1, 2, n).double()
    found = objective({"f": x}, {"f": x}, torch.arange(n), {"f": y.detach()})[0]
    torch.testing.assert_close(found, by_hand(x))
    slopes = [torch.autograd.grad((weights * value).sum(), x)[0] for value in (found, by_hand(x.detach()), by_hand(x))]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-6, atol=1e-8)
    assert (slopes[0] - slopes[2]).norm() > 0.1 * slopes[0].norm()  # it matters that they are


# --- through real images ---


def digits() -> World:
    return World(MultiMNIST(), UniformDigits(3), UniformPlacement(180), DigitCanvas(24, 12, rotation=True))


def streets() -> World:
    prior = ListLengthPrior({"Roads": [0, 1], "Cars": [0, 0, 1]})
    return World(Aerial2D(), prior, ScatteredCars(32, max_houses=1, max_trees=2), AerialView(48, 32))


@pytest.mark.parametrize("objective", [KDE(0.02), MMDWitness(0.02)])
@pytest.mark.parametrize("make", [digits, streets])
def test_gradients_through_images_are_those_of_central_differences(
    make: Callable[[], World], objective: Objective
) -> None:
    """Of one attribute of one object at a time; the largest of each attribute, among what moves and what turns."""
    world, n = make(), 6
    model, pixels, learning = model_of(world), Pixels(4), ParameterLearner(objective, Pathwise())
    prior = world.sample_prior(n, rng())
    real = pixels(world.renderer.render(world.sample_prior(n, rng(1))))
    active = model.mutable_mask(prior)
    start, deviation = 0.5 * torch.randn(active.shape, generator=rng(2)), torch.full(active.shape, 0.2)
    model.coins = torch.randn(active.shape, generator=rng(3))
    population: list[Tensor] = []

    def cost(mean: Tensor) -> Tensor:
        class First(Processes):
            """One process, whose rows are those of the first call."""

            def gather_equal(self, rows: Tensor) -> Tensor:
                population.append(rows)
                return population[0]

        model.told = AttributeDistribution(mean, deviation, active)
        return learning.surrogate(SceneModel(world, parameters=model), pixels, prior, real, rng(), First())[0]

    mean = start.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(cost(mean), mean)
    assert model.mutable.rendered == {"x", "y", "angle"} and (slopes[~active] == 0).all()
    step = 0.002  # thousandths of a pixel: a wider one finds the corners of bilinear interpolation
    with torch.no_grad():
        for k in range(3):
            column = slopes[..., k].flatten()
            places, measured = column.abs().topk(4).indices, []
            for place in places:
                there = torch.zeros(active.shape)
                there.view(-1, 3)[place, k] = step
                measured.append((cost(start + there) - cost(start - there)) / (2 * step))
            error = torch.stack(measured) - column[places]
            assert error.norm() < 0.05 * column[places].norm()


# --- the rasteriser, which has no derivative ---


def test_sampling_and_differences_agree_on_streets() -> None:
    """How light streets are, by their exposure: both against a difference of means over the same draws."""
    size = 192
    world = World(
        Driving(),
        SimpleStreets(),
        StreetLayout(max_distance=30),
        StreetView((24, 80), engine=WarpEngine(1, shadow_size=64)),
    )
    model = ParameterModel(world, learned_attributes={"environment": ["exposure"]}, hidden=8, num_layers=1, num_heads=2)
    prior = world.sample_prior(1, rng(2))[torch.zeros(size, dtype=torch.long)]
    shape = (size, prior.classes.shape[1] + 1, 1)
    noise, deviation = torch.randn(shape, generator=rng(3)), torch.full(shape, 0.4)

    def cost_of(scenes: SceneBatch) -> Tensor:
        return world.renderer.render(scenes).mean((1, 2, 3))

    def mean_cost(middle: float) -> float:
        return float(cost_of(model.with_values(prior, middle + deviation * noise)).mean())

    expected = (mean_cost(0.05) - mean_cost(-0.05)) / 0.1
    assert expected > 0.01
    found = {}
    for gradient in (ScoreFunction(), FiniteDifference(0.05)):
        middle = torch.zeros(shape, requires_grad=True)
        distribution = AttributeDistribution(middle, deviation, model.mutable_mask(prior))
        drawn = SampledScenes(prior, distribution, middle + deviation * noise)
        loss, _ = gradient.loss(model, drawn, cost_of, rng(4))
        each = torch.autograd.grad(loss, middle)[0][:, 0, 0] * size
        found[type(gradient).__name__] = float(each.mean()), float(each.std()) / size**0.5
    for name, (value, error) in found.items():
        assert abs(value - expected) < 4 * error + 0.02 * expected, name
        assert error < 0.3 * expected, name
    assert found["FiniteDifference"][1] < found["ScoreFunction"][1], "directions cost images, and are worth them"
