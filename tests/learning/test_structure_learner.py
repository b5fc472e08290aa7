"""The learner as a whole against enumeration: gradients through the loss, rejection, fixed points, a lost mode."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from helpers import EXPECTED, rng
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import TRICKY, accepted, grammars, nltk_grammar, unpadded
from torch import Tensor

from ms2.features.base import Blocks
from ms2.gradients.advantages import Advantage, LeaveOneOut, MovingAverage, Normalised
from ms2.grammar.derivations import Derivations, is_valid, pad
from ms2.grammar.grammar import Grammar
from ms2.grammar.trees import to_tree
from ms2.learning.structure_learner import Samples, StructureLearner
from ms2.models.networks.recurrent import GRU, LSTM
from ms2.models.structure import SamplingError, StructureModel
from ms2.objectives.base import KernelObjective, Objective
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.priors.structure import ListLengthPrior

pytestmark = EXPECTED

THINGS = Grammar("Scene -> Things\nThings -> thing Things | ε", ["thing"])
"""A list; a derivation of n things takes n + 2 steps."""
FINITE = Grammar("S -> A | B A\nA -> a | b\nB -> c", ["a", "b", "c"])
"""Four derivations, of two and three steps."""
COSTS = torch.tensor([1.5, -0.3, 0.4, 6.0]).double()
"""Score of each derivation, in the order of their enumeration."""


class Given(KernelObjective, selectable=False):
    """A cost that depends on the sample alone, given as its feature."""

    def block_score(
        self, generated_exponents: Tensor, real_exponents: Tensor, own_index: Tensor, samples: tuple[Tensor, ...]
    ) -> Tensor:
        return samples[0][own_index, 0]


def perturbed(model: StructureModel, scale: float, seed: int = 0) -> StructureModel:
    """Random weights of this size."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(scale * torch.randn(weights.shape, generator=rng(seed), dtype=weights.dtype))
    return model


class Learning(NamedTuple):
    """A structure model and how it is learned."""

    structure: StructureModel
    learner: StructureLearner

    def loss(self, samples: Samples, real: Blocks) -> Tensor:
        return self.learner.surrogate(self.structure, samples, real)[0]

    @property
    def advantage(self) -> Advantage:
        (advantage,) = self.learner.advantages
        return advantage


def learning(grammar: Grammar, t_max: int, objective: Objective, advantage: Advantage, **more: int | bool) -> Learning:
    """Structure learning in double precision."""
    structure = perturbed(
        StructureModel(grammar, t_max, network=LSTM(5), num_latents=int(more.pop("num_latents", 1))), 0.6
    )
    return Learning(structure.double(), StructureLearner(objective, advantage, **more).double())


def enumerated(model: StructureModel) -> Tensor:
    """Rules of all derivations that end in time."""
    return pad(model.grammar, list(model.grammar.enumerate_derivations(model.t_max)))


def gradient(value: Tensor, model: StructureModel) -> Tensor:
    """With respect to all parameters, in one row."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


# --- the gradient of the loss, in expectation ---


def exact_gradient(model: StructureModel) -> Tensor:
    """Gradient of the expected cost of accepted derivations, sum q(T) s(T) / P with P = sum q(T)."""
    q = model.log_prob(enumerated(model)).exp()
    return gradient((q * COSTS).sum() / q.sum(), model)


def accepted_law(model: StructureModel) -> Tensor:
    """q(T) / P of each derivation."""
    with torch.no_grad():
        return model.log_prob(enumerated(model)).softmax(0)


def expected_gradient(model: Learning, size: int) -> Tensor:
    """Mean gradient of the loss over all batches of accepted derivations; the advantage forgets each batch again."""
    rules, law = enumerated(model.structure), accepted_law(model.structure)
    state, total = {k: v.clone() for k, v in model.advantage.state_dict().items()}, torch.zeros(()).double()
    for batch in itertools.product(range(len(rules)), repeat=size):
        model.advantage.load_state_dict(state)
        derivations = Derivations(rules[list(batch)], torch.zeros(size, dtype=torch.long))
        samples = Samples(derivations, {"cost": COSTS[list(batch), None]})
        total = total + law[list(batch)].prod() * model.loss(samples, {"cost": torch.zeros(2, 1).double()})
    return gradient(total, model.structure)


LAWS: list[tuple[Grammar, int, int]] = [(FINITE, 3, 1), (FINITE, 3, 3), (THINGS, 5, 1), (THINGS, 5, 3)]
"""Each with four derivations; of the list, many draws do not end within 5 steps. With one latent and with three."""
every_law = pytest.mark.parametrize(
    "law", LAWS, ids=[f"{'rejecting' if g is THINGS else 'finite'}-{z}" for g, _, z in LAWS]
)


@every_law
def test_the_laws_are_what_they_are_said_to_be(law: tuple[Grammar, int, int]) -> None:
    grammar, t_max, z = law
    model = learning(grammar, t_max, Given(), LeaveOneOut(), num_latents=z).structure
    end = model.log_prob(enumerated(model)).exp().sum().item()
    assert len(enumerated(model)) == len(COSTS)
    assert end == pytest.approx(1) if grammar is FINITE else 0.2 < end < 0.95
    assert exact_gradient(model).norm() > 0.1


@every_law
@pytest.mark.parametrize("size", [2, 3])
def test_leaving_one_out_descends_the_expected_cost_of_accepted_scenes(
    law: tuple[Grammar, int, int], size: int
) -> None:
    grammar, t_max, z = law
    model = learning(grammar, t_max, Given(), LeaveOneOut(), num_latents=z)
    torch.testing.assert_close(expected_gradient(model, size), exact_gradient(model.structure))


@every_law
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("baseline", [-2.0, 3.0])
def test_a_moving_average_moves_the_chance_to_end_in_time(
    law: tuple[Grammar, int, int], size: int, baseline: float
) -> None:
    """By decay (E s - b) grad log P; besides, the share (1 - decay) / m of each sample's own score is lost."""
    grammar, t_max, z = law
    model, decay = learning(grammar, t_max, Given(), MovingAverage(0.75), num_latents=z), 0.75
    model.advantage.baseline.fill_(baseline)
    mean = (accepted_law(model.structure) * COSTS).sum()
    log_p = model.structure.log_prob(enumerated(model.structure)).logsumexp(0)
    moved = decay * (mean - baseline) * gradient(log_p, model.structure)
    assert moved.norm() > 0.1 or grammar is FINITE
    expected = (1 - (1 - decay) / size) * exact_gradient(model.structure) + moved
    torch.testing.assert_close(expected_gradient(model, size), expected)


def test_grad_log_p_is_the_mean_of_grad_log_q_over_accepted_scenes() -> None:
    """Why centred advantages have the gradient of accepted scenes."""
    model = learning(THINGS, 5, Given(), LeaveOneOut()).structure
    log_q = model.log_prob(enumerated(model))
    log_p = gradient(log_q.logsumexp(0), model)
    log_q = model.log_prob(enumerated(model))
    torch.testing.assert_close(gradient((accepted_law(model) * log_q).sum(), model), log_p)
    assert log_p.norm() > 0.1


def expected_normalised(model: StructureModel, size: int) -> Tensor:
    """As `expected_gradient`, over how often each derivation occurs in a batch: fewer than there are batches."""
    law, weight = accepted_law(model), torch.zeros_like(COSTS)
    for places in itertools.combinations(range(size + len(law) - 1), len(law) - 1):
        ends = torch.tensor([-1, *places, size + len(law) - 1])
        counts = ends.diff() - 1
        log_p = math.lgamma(size + 1) - torch.lgamma(counts + 1.0).sum() + (counts * law.log()).sum()
        number = torch.arange(len(law)).repeat_interleave(counts)
        advantage = Normalised()(COSTS[number])
        weight.index_add_(0, number, log_p.exp() * advantage / size)
    return gradient((weight * model.log_prob(enumerated(model))).sum(), model)


def test_normalised_advantages_take_the_gradient_by_the_deviation_in_large_batches() -> None:
    """Dividing by the batch's deviation is a bias, of the order of 1 / m."""
    model = learning(THINGS, 5, Given(), Normalised()).structure
    law = accepted_law(model)
    deviation = ((law * COSTS.square()).sum() - (law * COSTS).sum().square()).sqrt()
    limit = exact_gradient(model) / deviation
    off = {m: (expected_normalised(model, m) - limit).norm().item() / limit.norm().item() for m in (12, 24)}
    torch.testing.assert_close(
        expected_normalised(model, 3),
        expected_gradient(learning(THINGS, 5, Given(), Normalised()), 3),
    )
    assert off[24] < 0.08
    assert off[24] < 0.55 * off[12]


# --- where scores by kernels lead: populations without end, over a finite set of structures ---

PLACES = torch.tensor([[0.0], [1.0], [2.0], [3.0]]).double()
"""Exact features of lists of 0 to 3 things: their number."""

SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "KDE": lambda k, q, p: (k @ q).log() - (k @ p).log(),
    "ForwardKL": lambda k, q, p: k @ ((q - p) / (k @ q)),
    "MMDWitness": lambda k, q, p: k @ (q - p),
}
"""What the objectives' scores come to, by the kernel matrix and both laws; test_objectives.py has the way there."""
every_score = pytest.mark.parametrize("name", list(SCORES))


def kernel(places: Tensor, bandwidth: float = 0.5) -> Tensor:
    return torch.exp(-(torch.cdist(places, places) ** 2) / (2 * bandwidth))


def some_law(seed: int) -> Tensor:
    return torch.randn(len(PLACES), generator=rng(seed), dtype=torch.double).softmax(0)


def descent(name: str, places: Tensor, logits: Tensor, p: Tensor) -> Tensor:
    """E_q[s grad log q] with respect to the logits of q, which is q (s - E_q s)."""
    q = logits.softmax(0)
    score = SCORES[name](kernel(places), q, p)
    return q * (score - q @ score)


@every_score
def test_the_population_gradient_vanishes_at_the_target_alone(name: str) -> None:
    """Alone, because a score that is constant is 0 everywhere, and the kernel matrix has full rank."""
    assert torch.linalg.eigvalsh(kernel(PLACES)).min() > 0.05
    for seed in range(20):
        p, q = some_law(seed), some_law(seed + 100)
        assert descent(name, PLACES, p.log(), p).norm() < 1e-14
        assert descent(name, PLACES, q.log(), p).norm() > 1e-3


@every_score
def test_structures_that_features_do_not_tell_apart_are_left_as_they_are(name: str) -> None:
    places, p = PLACES[[0, 1, 1, 3]], torch.tensor([2, 3, 6, 5]).double() / 16
    q = torch.tensor([2, 8, 1, 5]).double() / 16  # 9 together, as in p
    assert descent(name, places, q.log(), p).norm() < 1e-14


@every_score
def test_near_the_target_every_way_leads_to_it(name: str) -> None:
    """Eigenvalues of the linearised descent are positive, but for that of the logits' common shift."""
    for seed in range(20):
        p = some_law(seed)
        jacobian = torch.autograd.functional.jacobian(lambda x, p=p: descent(name, PLACES, x, p), p.log())
        rates = torch.linalg.eigvals(jacobian).real.sort().values
        assert rates[0].abs() < 1e-12 and rates[1] > 1e-5


@pytest.mark.parametrize("name", ["ForwardKL", "MMDWitness"])
@pytest.mark.parametrize("seed", range(3))
def test_exact_descent_of_a_structure_model_reaches_the_target(name: str, seed: int) -> None:
    """Lists of up to 3 things, longer ones rejected: the law of accepted scenes comes from a random one to p."""
    model = perturbed(StructureModel(THINGS, 5, network=LSTM(5)).double(), 0.6, seed)
    rules, p = enumerated(model), torch.tensor([0.4, 0.05, 0.15, 0.4]).double()
    places = torch.tensor([[float(row.count(1))] for row in unpadded(THINGS, rules)]).double()
    assert places.equal(PLACES)
    optimiser, first = torch.optim.Adam(model.parameters(), 0.03), None
    for step in range(200):
        log_q = model.log_prob(rules)
        q = log_q.detach().softmax(0)
        first = (q - p).abs().sum() / 2 if first is None else first
        score = SCORES[name](kernel(PLACES), q, p)
        optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / 200)
        optimiser.zero_grad()
        (q * (score - q @ score) * log_q).sum().backward()
        optimiser.step()
    assert first is not None and first > 0.2
    assert (accepted_law(model) - p).abs().sum() / 2 < 0.01


# --- a mode that the prior does not reach ---

T_MAX = 16
TWO_MODES = torch.zeros(T_MAX - 1).index_fill(0, torch.tensor([1, 7]), 0.5)
"""One thing or seven."""


def learned(objective: Objective, seed: int, steps: int = 120, size: int = 128, lr: float = 0.01) -> Tensor:
    """Law of the number of things after learning from samples, from a prior of 0 to 2 things.

    Samples come from the enumerated law of accepted scenes. Drawn step by step they would follow the same, but take
    ten times as long while lists that are too long are rejected.
    """
    torch.manual_seed(seed)
    structure = StructureModel(THINGS, T_MAX, network=GRU(16))
    narrow, draw = ListLengthPrior(lengths={"Things": [1, 1, 1]}), rng(seed)
    optimiser = torch.optim.Adam(structure.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (-structure.log_prob(narrow.sample(THINGS, 64, draw)).mean()).backward()
        optimiser.step()
    assert accepted_law(structure)[:3].sum() > 0.9
    model = Learning(structure, StructureLearner(objective, Normalised()))
    every, no_rejections = enumerated(structure), torch.zeros(size, dtype=torch.long)
    optimiser = torch.optim.Adam(structure.parameters(), lr)
    for step in range(steps):
        count, real = (
            torch.multinomial(law, size, replacement=True, generator=draw)
            for law in (accepted_law(structure), TWO_MODES)
        )
        samples = Samples(Derivations(every[count], no_rejections), {"count": count[:, None].float()})
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        model.loss(samples, {"count": real[:, None].float()}).backward()
        optimiser.step()
    return accepted_law(structure)


@pytest.mark.parametrize("seed", range(3))
def test_the_mode_covering_score_finds_a_mode_far_from_the_prior(seed: int) -> None:
    q = learned(ForwardKL(0.3), seed)
    assert (q - TWO_MODES).abs().sum() / 2 < 0.15
    assert 0.35 < q[1] < 0.65 and q[6:9].sum() > 0.35


@pytest.mark.parametrize("seed", range(3))
def test_the_reverse_divergence_stays_in_the_mode_it_knows(seed: int) -> None:
    q = learned(KDE(0.3), seed, steps=60)
    assert (q - TWO_MODES).abs().sum() / 2 == pytest.approx(0.5, abs=0.05)
    assert q[:3].sum() > 0.95


# --- no invalid scene, however the weights stand ---


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(TRICKY) | grammars(), st.sampled_from([0.0, 0.3, 3.0, 30.0]), st.integers(0, 100))
def test_perturbed_models_of_any_grammar_draw_what_another_parser_accepts(
    grammar: Grammar, scale: float, seed: int
) -> None:
    """From all rules alike to choices all but certain, which extreme logits must not let slip past the mask."""
    model = StructureModel(grammar, int(grammar.shortest_derivation[grammar.start]) + 3, network=LSTM(4), max_tries=200)
    if scale:
        perturbed(model, scale, seed)
    try:
        rules = model.sample(20, rng(seed)).rules
    except SamplingError:  # such weights may never let a scene end
        assume(False)
    assert is_valid(grammar, rules).all()
    assert model.log_prob(rules).isfinite().all()
    judge = nltk_grammar(grammar)
    for row in set(unpadded(grammar, rules)):
        assert accepted(judge, list(to_tree(grammar, row).terminals()))


@pytest.mark.parametrize(
    ("scale", "said"),
    [(1e-2, r"too wide: .*lower model\.structure_learner\.objective\.bandwidth"), (1e2, "too narrow: .*raise model")],
)
def test_a_degenerate_kernel_is_warned_of_in_the_first_step_alone(scale: float, said: str) -> None:
    learner, draw = StructureLearner(KDE(1.0), LeaveOneOut(), reject_weight=0.0), rng()
    structure = StructureModel(THINGS, 12, LSTM(4))
    blocks, real = {"f": scale * torch.randn(32, 8, generator=draw)}, {"f": scale * torch.randn(32, 8, generator=draw)}
    samples = Samples(structure.sample(32, draw), blocks)
    with pytest.warns(UserWarning, match=f"the kernel of block 'f' is {said}"):
        learner.surrogate(structure, samples, real)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.surrogate(structure, samples, real)
