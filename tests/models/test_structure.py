"""The structure model against exact enumeration: law, sampling, rejection, latents, entropy and gradients."""

import copy
import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import NETWORKS, TRICKY, fit, grammars, unpadded
from scipy import stats
from torch import Tensor

from ms2.core.errors import UserError
from ms2.grammar.derivations import is_valid, lengths, pad
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import SamplingError, SequenceLogProb, StructureModel

FINITE = Grammar("S -> A B | A A A | ε\nA -> a | b B\nB -> c | d | e")
RECURSIVE = Grammar("S -> x L\nL -> D L | ε\nD -> a | b")
LONG = 16  # steps within which all but a few of RECURSIVE's derivations end, under these weights
DRAWS = 20_000
SCALE = 0.7


def make(grammar: Grammar, t_max: int, seed: int = 1, network: str = "lstm", **settings: object) -> StructureModel:
    """A small model in double precision, with weights large enough for context and latents to matter."""
    model = StructureModel(grammar, t_max, NETWORKS[network](6), latent_dim=4, **settings).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(SCALE * torch.randn(weights.shape, generator=generator, dtype=torch.double))
        if grammar is RECURSIVE:  # one more digit: some draws must be too long
            model.head.bias[1] += 1
    return model


KINDS = [  # each pair of settings occurs
    {"network": "lstm", "num_latents": 1, "context": True},
    {"network": "gru", "num_latents": 1, "context": False},
    {"network": "lstm", "num_latents": 3, "context": False},
    {"network": "gru", "num_latents": 3, "context": True},
    {"network": "transformer", "num_latents": 1, "context": True},
    {"network": "transformer", "num_latents": 3, "context": False},
]
RECURRENT = [kind for kind in KINDS if kind["network"] != "transformer"]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_rules(grammar: Grammar, t_max: int) -> Tensor:
    return pad(grammar, list(grammar.enumerate_derivations(t_max)))


@torch.no_grad()
def scored(model: StructureModel, rules: Tensor) -> SequenceLogProb:
    return model.log_prob_and_entropy(rules)


@torch.no_grad()
def law(model: StructureModel, t_max: int | None = None) -> dict[tuple[int, ...], float]:
    """q(T) of every derivation that ends in time."""
    rules = all_rules(model.grammar, t_max or model.t_max)
    return dict(zip(unpadded(model.grammar, rules), model.log_prob(rules).exp().tolist(), strict=True))


# -- the law -----------------------------------------------------------------------------------------------


@every_kind
def test_probabilities_of_a_finite_grammar_add_up_to_one(kind: dict[str, object]):
    every = law(make(FINITE, 7, **kind))
    assert len(every) == (1 + 3) * 3 + (1 + 3) ** 3 + 1
    assert sum(every.values()) == pytest.approx(1, abs=1e-12)
    assert max(every.values()) > 5 / len(every), "too even to tell"


@every_kind
def test_probabilities_of_a_recursive_grammar_add_up_to_the_share_of_draws_that_end(kind: dict[str, object]):
    model = make(RECURSIVE, LONG, **kind)
    ends = [sum(law(model, t).values()) for t in range(2, LONG + 1, 2)]
    assert all(0 < a < b for a, b in pairwise(ends))
    assert ends[-1] < 1 + 1e-12
    for t in (2, 4, 6, 12):
        end = ends[t // 2 - 1]
        model.t_max, model.max_tries = t, 100_000
        first_draw_fails = int((model.sample(5000, rng()).rejections > 0).sum())
        assert stats.binomtest(first_draw_fails, 5000, 1 - end).pvalue > 1e-3


@pytest.mark.parametrize("kind", RECURRENT, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_law_is_the_product_of_masked_softmaxes_step_by_step(kind: dict[str, object]):
    """An independent pass: one derivation, one latent and one step at a time, with the cell's weights applied here."""
    model = make(RECURSIVE, 8, **kind)
    for rules, q in law(model).items():
        per_latent = [step_by_step(model, rules, z) for z in model.latents]
        assert q == pytest.approx(sum(per_latent) / len(per_latent), rel=1e-9)


@torch.no_grad()
def step_by_step(model: StructureModel, rules: tuple[int, ...], z: Tensor) -> float:
    """q(T|z)."""
    grammar, net = model.grammar, model.network.cell
    lstm = isinstance(net, torch.nn.LSTM)
    cell = (torch.nn.LSTMCell if lstm else torch.nn.GRUCell)(6, 6).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.state_dict().items()})
    h = model.condition(z)[None]
    c = torch.zeros_like(h)
    probability, previous, stack = 1.0, grammar.num_rules, [(grammar.start, len(grammar.nonterminals), 0, 0)]
    for rule in rules:
        symbol, parent, index, item = stack.pop()
        x = model.embedding.weight[previous]
        number = grammar.nonterminals.index(symbol)
        seen = (number, parent, index, item)
        for embedding, place in zip(model.context_embeddings, seen, strict=False):
            x = x + embedding.weight[place]
        if lstm:
            h, c = cell(x[None], (h, c))
        else:
            h = cell(x[None], h)
        weights = model.head(h)[0].exp()
        probability *= float(weights[rule] / weights[grammar.rules_of(symbol)].sum())
        for s in reversed(grammar.rules[rule].rhs):
            if s in grammar.nonterminals:
                is_list = any(symbol in grammar.rules[k].rhs for k in grammar.rules_of(symbol))
                again = s == symbol
                stack.append((s, parent, index + 1, item) if again else (s, number, 0, index if is_list else item))
        previous = rule
    return probability


def test_the_choice_depends_on_what_was_chosen_before():
    """No PCFG has this: the second digit's law given the first."""
    every = law(make(RECURSIVE, 6, context=False))
    given = {first: every[0, 1, first, 1, 3, 2] / every[0, 1, first, 1, 4, 2] for first in (3, 4)}
    assert abs(math.log(given[3] / given[4])) > 0.1


@every_kind
def test_samples_follow_the_law(kind: dict[str, object]):
    model = make(FINITE, 7, **kind)
    drawn = model.sample(DRAWS, rng())
    assert fit(unpadded(FINITE, drawn.rules), law(model)) > 1e-3
    assert not bool(drawn.rejections.any())


@every_kind
def test_samples_after_rejection_follow_the_law_of_what_ends_in_time(kind: dict[str, object]):
    """q(T) / P(finish), whether or not tries failed before: each try draws its latent anew."""
    model = make(RECURSIVE, 6, max_tries=100_000, **kind)
    every = law(model)
    drawn = model.sample(DRAWS, rng())
    assert drawn.rules.shape == (DRAWS, 6)
    assert bool(is_valid(RECURSIVE, drawn.rules).all())
    rows, again = unpadded(RECURSIVE, drawn.rules), (drawn.rejections > 0).tolist()
    assert sum(again) > 500
    assert fit(rows, every) > 1e-3
    assert fit([row for row, rejected in zip(rows, again, strict=True) if rejected], every) > 1e-3


@every_kind
def test_failed_tries_are_counted(kind: dict[str, object]):
    """Their number is geometric with the probability to end in time, known exactly."""
    model = make(RECURSIVE, 6, max_tries=100_000, **kind)
    end = sum(law(model).values())
    assert 0.01 < end < 0.99
    counts = model.sample(DRAWS, rng(1)).rejections.tolist()
    geometric = {j: end * (1 - end) ** j for j in range(max(counts) + 1)}
    geometric[len(geometric)] = (1 - end) ** len(geometric)
    assert fit(counts, geometric) > 1e-3


def test_each_choice_is_free_where_the_network_is_indifferent():
    """With weights zero it is the PCFG with uniform rules: 1/2 for each list step, 1/2 for each digit."""
    model = make(RECURSIVE, 10)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    for rules, q in law(model).items():
        assert q == pytest.approx(0.5 ** (len(rules) - 1))


@settings(max_examples=40)
@given(st.sampled_from(TRICKY) | grammars(), st.integers(0, 3))
def test_samples_of_any_grammar_are_valid_and_as_likely_as_their_law_says(grammar: Grammar, extra: int):
    t_max = int(grammar.shortest_derivation[grammar.start]) + extra
    model = make(grammar, t_max, max_tries=100_000)
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(0.3)  # else some grammars end in time too rarely
    every = law(model)
    assert sum(every.values()) <= 1 + 1e-9
    drawn = model.sample(300, rng())
    assert bool(is_valid(grammar, drawn.rules).all())
    assert fit(unpadded(grammar, drawn.rules), every) > 1e-5  # 40 grammars, and few draws


# -- latents -----------------------------------------------------------------------------------------------


def single_latents(model: StructureModel) -> Iterator[StructureModel]:
    for i in range(len(model.latents)):
        single = copy.deepcopy(model)
        single.latents = model.latents[i : i + 1]
        yield single


@pytest.mark.parametrize("network", NETWORKS)
def test_the_marginal_is_the_mean_over_latents(network: str):
    model, rules = make(RECURSIVE, 10, network=network, num_latents=3), all_rules(RECURSIVE, 10)
    per_latent = torch.stack([single.log_prob(rules).exp() for single in single_latents(model)])
    torch.testing.assert_close(model.log_prob(rules).exp(), per_latent.mean(0))
    least = 1.01 if network == "transformer" else 1.5  # attention weighs the latent as little as any other token
    assert bool(((per_latent.amax(0) / per_latent.amin(0)) > least).any()), "latents too alike to tell"


def test_the_entropy_is_the_mean_over_latents():
    model, rules = make(RECURSIVE, 10, num_latents=3), all_rules(RECURSIVE, 10)
    per_latent = torch.stack([single.log_prob_and_entropy(rules).entropy for single in single_latents(model)])
    torch.testing.assert_close(model.log_prob_and_entropy(rules).entropy, per_latent.mean(0))


def test_latents_are_fixed_by_the_seed_and_saved():
    same, other = StructureModel(FINITE, 8, num_latents=2), StructureModel(FINITE, 8, num_latents=2, seed=1)
    assert same.latents.equal(StructureModel(FINITE, 8, num_latents=2).latents)
    assert not same.latents.equal(other.latents)
    assert "latents" in same.state_dict()
    assert all(p is not same.latents for p in same.parameters())
    many = StructureModel(FINITE, 8, num_latents=500, latent_dim=20).latents
    assert many.shape == (500, 20)
    assert stats.kstest(many.flatten().numpy(), "norm").pvalue > 1e-3


# -- entropy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_the_entropy_estimate_is_unbiased(network: str):
    """With one latent and a finite grammar, its exact mean is - sum q log q, whatever q is."""
    model, rules = make(FINITE, 7, network=network), all_rules(FINITE, 7)
    score = scored(model, rules)
    exact = -(score.log_prob.exp() * score.log_prob).sum()
    assert float(exact) > 0.1
    torch.testing.assert_close((score.log_prob.exp() * score.entropy).sum(), exact)
    drawn = scored(model, model.sample(DRAWS, rng()).rules).entropy
    assert float(drawn.mean() - exact) == pytest.approx(0, abs=4 * float(drawn.std()) / DRAWS**0.5)


def test_the_entropy_of_forced_steps_is_zero():
    score = make(Grammar("S -> A A\nA -> a"), 3).log_prob_and_entropy(torch.tensor([[0, 1, 1]]))
    assert score.entropy.tolist() == [0]
    assert score.log_prob.tolist() == [0]


# -- scoring -----------------------------------------------------------------------------------------------


@every_kind
def test_scores_do_not_depend_on_padding_or_company(kind: dict[str, object]):
    model, rules = make(RECURSIVE, 10, **kind), all_rules(RECURSIVE, 10)
    score = model.log_prob_and_entropy(rules)
    wider = torch.nn.functional.pad(rules, (0, 5), value=RECURSIVE.num_rules)
    order = torch.randperm(len(rules), generator=rng())
    for other in (
        model.log_prob_and_entropy(wider),
        [value[order.argsort()] for value in model.log_prob_and_entropy(rules[order])],
    ):
        torch.testing.assert_close(tuple(other), tuple(score))
    for i, row in enumerate(unpadded(RECURSIVE, rules)):
        alone = model.log_prob_and_entropy(torch.tensor([row]))
        torch.testing.assert_close(alone.log_prob[0], score.log_prob[i])
        torch.testing.assert_close(alone.entropy[0], score.entropy[i])


def test_an_empty_batch_has_empty_scores():
    score = make(RECURSIVE, 8).log_prob_and_entropy(torch.zeros(0, 4, dtype=torch.long))
    assert score.log_prob.shape == score.entropy.shape == (0,)


def some_places(model: StructureModel) -> Iterator[tuple[Tensor, int]]:
    """Three numbers of every parameter, of those that matter the most."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        for i in parameter.grad.flatten().abs().argsort(descending=True)[:3].tolist():
            yield parameter, i


@torch.no_grad()
def slope(value: Callable[[], Tensor], parameter: Tensor, place: int, step: float = 1e-5) -> float:
    """Central difference."""
    flat = parameter.view(-1)
    before = flat[place].item()
    ends = []
    for sign in (1, -1):
        flat[place] = before + sign * step
        ends.append(value().item())
    flat[place] = before
    return (ends[0] - ends[1]) / (2 * step)


@every_kind
def test_gradients_against_finite_differences(kind: dict[str, object]):
    """Of log-probability and entropy, in a batch with padding."""
    model, rules = make(RECURSIVE, 8, **kind), all_rules(RECURSIVE, 8)
    for part in ("log_prob", "entropy"):
        weights = torch.randn(len(rules), generator=rng(), dtype=torch.double)

        def value(part: str = part, weights: Tensor = weights) -> Tensor:
            return (weights * getattr(model.log_prob_and_entropy(rules), part)).sum()

        model.zero_grad()
        value().backward()
        for parameter, place in some_places(model):
            assert parameter.grad is not None
            exact = parameter.grad.flatten()[place].item()
            assert exact == pytest.approx(slope(value, parameter, place), rel=1e-5, abs=1e-7)


@every_kind
def test_the_expected_score_function_gradient_is_the_gradient_of_the_expectation(kind: dict[str, object]):
    """E[s grad log q] by enumeration, against finite differences of E[s]; and E[grad log q] = 0."""
    model, rules = make(FINITE, 7, **kind), all_rules(FINITE, 7)
    s = torch.randn(len(rules), generator=rng(), dtype=torch.double)

    def reinforce(cost: Tensor) -> None:
        model.zero_grad()
        log_q = model.log_prob(rules)
        (log_q.detach().exp() * cost * log_q).sum().backward()

    reinforce(torch.ones_like(s))
    assert all(float(p.grad.abs().max()) < 1e-12 for p in model.parameters() if p.grad is not None)
    reinforce(s)

    def expectation() -> Tensor:
        return (model.log_prob(rules).exp() * s).sum()

    largest = 0.0
    for parameter, place in some_places(model):
        assert parameter.grad is not None
        exact = parameter.grad.flatten()[place].item()
        assert exact == pytest.approx(slope(expectation, parameter, place), rel=1e-5, abs=1e-8)
        largest = max(largest, abs(exact))
    assert largest > 1e-2


@pytest.mark.parametrize("num_latents", [1, 3])
def test_the_sampled_score_function_gradient_is_unbiased(num_latents: int):
    """mean_j s(T_j) grad log q(T_j) over samples, within 4 deviations of its exact value, for the head's biases."""
    model, rules = make(FINITE, 7, num_latents=num_latents), all_rules(FINITE, 7)
    number = {row: i for i, row in enumerate(unpadded(FINITE, rules))}
    s = torch.randn(len(rules), generator=rng(), dtype=torch.double)
    log_q = model.log_prob(rules)
    per_derivation = torch.stack([torch.autograd.grad(q, model.head.bias, retain_graph=True)[0] for q in log_q])
    gradient = s[:, None] * per_derivation
    q = log_q.detach().exp()[:, None]
    exact = (q * gradient).sum(0)
    deviation = ((q * gradient.square()).sum(0) - exact.square()).sqrt() / DRAWS**0.5
    drawn = torch.tensor([number[row] for row in unpadded(FINITE, model.sample(DRAWS, rng()).rules)])
    assert bool(((gradient[drawn].mean(0) - exact).abs() < 4 * deviation + 1e-12).all())


# -- sampling as a program ---------------------------------------------------------------------------------


@every_kind
def test_equal_generators_give_equal_samples(kind: dict[str, object]):
    model = make(RECURSIVE, 8, max_tries=1000, **kind)
    one, same, other = (model.sample(200, rng(seed)) for seed in (5, 5, 6))
    assert one.rules.equal(same.rules)
    assert one.rejections.equal(same.rejections)
    assert not one.rules.equal(other.rules)


def test_sampling_leaves_the_global_random_state_alone():
    model = make(RECURSIVE, 8, max_tries=1000)
    before = torch.get_rng_state()
    model.sample(10, rng())
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("t_max", [7, 8, 9, 16, 17])
def test_samples_are_as_wide_as_t_max(t_max: int):
    """Around the step at which the sampler asks whether all are done; FINITE takes 7 steps at the most."""
    drawn = make(FINITE, t_max).sample(50, rng())
    assert drawn.rules.shape == (50, t_max)
    assert bool(is_valid(FINITE, drawn.rules).all())


def test_a_derivation_may_use_the_last_step():
    model = make(RECURSIVE, 6, max_tries=10_000)
    assert int(lengths(RECURSIVE, model.sample(2000, rng()).rules).max()) == 6


def test_no_samples_at_all():
    drawn = make(RECURSIVE, 8).sample(0, rng())
    assert drawn.rules.shape == (0, 8)
    assert drawn.rejections.shape == (0,)


def test_too_many_failed_tries_are_an_error_that_says_what_to_do():
    model = make(RECURSIVE, 4, max_tries=3)
    with torch.no_grad():
        model.head.bias[1] += 1000  # one more digit, always
    with pytest.raises(SamplingError) as error:
        model.sample(7, rng())
    assert str(error.value) == (
        "7 of 7 scenes did not end within t_max = 4 steps in 3 draws. "
        "Raise t_max, lower the learning rate, or weigh rejections more (reject_weight)."
    )


def test_the_error_counts_the_scenes_that_failed():
    """As many as need a second try where they may have one."""
    model = make(RECURSIVE, 4, max_tries=1)
    with pytest.raises(SamplingError) as error:
        model.sample(1000, rng())
    failed = int(str(error.value).split()[0])
    assert f"{failed} of 1000 scenes did not end within t_max = 4 steps in 1 draws." in str(error.value)
    model.max_tries = 100_000
    assert int((model.sample(1000, rng()).rejections > 0).sum()) == failed


@pytest.mark.parametrize(
    ("text", "t_max", "message"),
    [
        ("S -> a | T\nT -> T t", 8, "never terminate: T; give each a rule that ends"),
        ("S -> A A\nA -> a", 2, "the shortest derivation takes 3 steps, t_max is 2; raise it"),
    ],
)
def test_a_grammar_that_cannot_be_sampled_is_refused(text: str, t_max: int, message: str):
    with pytest.raises(GrammarError) as error:
        StructureModel(Grammar(text), t_max)
    assert str(error.value) == message


# --- choices that are given ---


@every_kind
def test_given_weights_are_the_probabilities_whatever_the_network_says(kind: dict[str, object]):
    """Of A -> a | b B, first in A B and up to three times in A A A, and of B, in every context."""
    weights = {"A": [1.0, 3.0], "B": [2.0, 1.0, 1.0]}
    model = make(FINITE, 12, fixed_rule_weights=weights, **kind)
    rules = all_rules(FINITE, 12)
    q = scored(model, rules).log_prob.exp()
    assert float(q.sum()) == pytest.approx(1, abs=1e-9)
    first = FINITE.rules_of("S")
    start = torch.stack([q[rules[:, 0] == rule].sum() for rule in first])
    for i, derivation in enumerate(rules.tolist()):
        p = start[first.index(derivation[0])]
        for symbol, given_weights in weights.items():
            numbers = FINITE.rules_of(symbol)
            for rule in derivation[1:]:
                if rule in numbers:
                    p = p * given_weights[numbers.index(rule)] / sum(given_weights)
        assert float(q[i]) == pytest.approx(float(p), abs=1e-9)


def test_gradients_leave_given_weights_alone():
    model = make(FINITE, 12, fixed_rule_weights={"S": [1.0, 1.0, 2.0]})
    rules = all_rules(FINITE, 12)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    share = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.double)

    def start() -> Tensor:
        q = scored(model, rules).log_prob.exp()
        return torch.stack([q[rules[:, 0] == rule].sum() for rule in FINITE.rules_of("S")])

    before = scored(model, rules).log_prob
    for _ in range(5):
        optimizer.zero_grad()
        (-model.log_prob(rules[:4]).sum()).backward()
        optimizer.step()
    assert not torch.allclose(scored(model, rules).log_prob, before)  # it learns what it may
    torch.testing.assert_close(start()[None], share, atol=1e-6, rtol=0)
    # where all is given there is nothing to learn
    every = make(FINITE, 12, fixed_rule_weights={"S": [1, 1, 1], "A": [1, 1], "B": [1, 1, 1]})
    every.log_prob(rules).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in every.parameters())


def test_a_weight_of_zero_is_never_drawn():
    model = make(FINITE, 12, fixed_rule_weights={"S": [0.0, 1.0, 0.0], "B": [1.0, 0.0, 1.0]})
    none, all_a, other = FINITE.rules_of("S")[2], FINITE.rules_of("S")[1], FINITE.rules_of("S")[0]
    rules = model.sample(5000, rng()).rules
    assert (rules[:, 0] == all_a).all() and not (rules == FINITE.rules_of("B")[1]).any()
    every = all_rules(FINITE, 12)
    score = scored(model, every)
    q = score.log_prob.exp()
    assert float(q[(every[:, 0] == none) | (every[:, 0] == other)].sum()) < 1e-20
    assert float(q.sum()) == pytest.approx(1, abs=1e-9)
    # what was pretrained on a prior that does draw it stays finite
    assert score.log_prob.isfinite().all() and score.entropy.isfinite().all()


def test_samples_have_the_given_weights():
    model = make(RECURSIVE, LONG, fixed_rule_weights={"D": [1.0, 4.0]})
    rules = model.sample(4000, rng()).rules
    a, b = (int((rules == rule).sum()) for rule in RECURSIVE.rules_of("D"))
    assert stats.binomtest(a, a + b, 0.2).pvalue > 1e-3


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"C": [1.0]}, "C"),
        ({"S": [1.0, 1.0]}, "the fixed weights of S must be 3 numbers, one per rule, not 2"),
        ({"S": [1.0, -1.0, 1.0]}, r"fixed_rule_weights\.S\[1\] must be at least 0, not -1"),
        ({"S": [0.0, 0.0, 0.0]}, "and not all zero"),
    ],
)
def test_given_weights_that_make_no_sense(fixed: dict[str, list[float]], said: str):
    with pytest.raises(UserError, match=said):
        StructureModel(FINITE, 12, network=LSTM(6), fixed_rule_weights=fixed)


def test_given_weights_are_no_part_of_a_checkpoint():
    """One that was trained without them can be used with them, and the other way round."""
    free, given_one = make(FINITE, 12), make(FINITE, 12, seed=2, fixed_rule_weights={"S": [1.0, 1.0, 2.0]})
    assert set(free.state_dict()) == set(given_one.state_dict())
    given_one.load_state_dict(free.state_dict())
    rules = all_rules(FINITE, 12)
    q = scored(given_one, rules).log_prob.exp()
    assert float(q[rules[:, 0] == FINITE.rules_of("S")[2]].sum()) == pytest.approx(0.5, abs=1e-9)
    free.load_state_dict(given_one.state_dict())
    # whose S is not given, has its own law again
    assert torch.equal(scored(free, rules).log_prob, scored(make(FINITE, 12), rules).log_prob)


# --- groups of symbols ---


@every_kind
def test_parts_have_the_gradients_of_their_steps(kind: dict[str, object]):
    """Each part is log q(T); a symbol's own steps move it alone, and the gradients add up to that of log q(T)."""
    model = make(FINITE, 12, **kind)
    rules = all_rules(FINITE, 12)
    weights = torch.randn(len(rules), generator=rng(), dtype=torch.double)

    def gradient(value: Tensor) -> list[Tensor]:
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(
                model.parameters(),
                torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True),
                strict=True,
            )
        ]

    score = model.log_prob_and_entropy(rules, torch.tensor([0, 1, 1, 0]))  # S by itself, A and B together
    assert score.group_log_prob.shape == (len(rules), 2)
    for part in score.group_log_prob.unbind(1):
        torch.testing.assert_close(part, score.log_prob)
    whole = gradient((weights * score.log_prob).sum())
    first, second = (gradient((weights * part).sum()) for part in score.group_log_prob.unbind(1))
    for a, b, both in zip(first, second, whole, strict=True):
        torch.testing.assert_close(a + b, both)
    # the first step alone expands S, and its probability depends on nothing but the latent
    bias = [name for name, _ in model.named_parameters()].index("head.bias")
    others = [k for symbol in "AB" for k in FINITE.rules_of(symbol)]
    assert first[bias].any() and not first[bias][others].any()
    assert second[bias].any() and not second[bias][list(FINITE.rules_of("S"))].any()


# --- lists that end ---


@every_kind
def test_a_list_has_no_more_items_than_it_may_and_no_draw_is_rejected(kind: dict[str, object]):
    """With at most two digits there are 1 + 2 + 4 derivations, which share all probability."""
    model = make(RECURSIVE, LONG, max_length={"L": 2}, **kind)
    rules = all_rules(RECURSIVE, LONG)
    score = scored(model, rules)
    go_on = RECURSIVE.rules_of("L")[0]
    short = (rules == go_on).sum(1) <= 2
    assert int(short.sum()) == 7
    assert torch.equal(score.log_prob.isfinite(), short)
    assert torch.equal(model.in_support(rules), short)
    assert float(score.log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert score.entropy[short].isfinite().all()
    drawn = model.sample(DRAWS, rng())
    assert not drawn.rejections.any()
    law = dict(zip(unpadded(RECURSIVE, rules[short]), score.log_prob[short].exp().tolist(), strict=True))
    assert fit(unpadded(RECURSIVE, drawn.rules), law) > 1e-3


def test_gradients_stay_finite_where_a_list_must_end():
    model = make(RECURSIVE, LONG, max_length={"L": 2})
    score = model.log_prob_and_entropy(model.sample(50, rng()).rules)
    (score.log_prob.sum() + score.entropy.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("most", "said"),
    [
        ({"D": 3}, "max_length names 'D', which is no list"),
        ({"l": 3}, "Did you mean 'L'"),
        ({"L": -1}, r"max_length\.L must be at least 0, not -1"),
    ],
)
def test_an_impossible_maximum_length_is_refused(most: dict[str, int], said: str):
    with pytest.raises(UserError, match=said):
        StructureModel(RECURSIVE, LONG, network=LSTM(6), max_length=most)
