"""Hand-made priors: what is drawn against exact probabilities, closed forms, and the errors of bad settings."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import TRICKY, fit, grammars, unpadded
from scipy import stats
from torch import Tensor

from ms2.core.errors import UserError
from ms2.grammar.derivations import is_valid, pad
from ms2.grammar.grammar import Grammar
from ms2.grammar.rules import GrammarError
from ms2.priors.parameters import ParameterPrior, sample_uniform
from ms2.priors.structure import ListLengthPrior, MixturePrior, StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations

DRAWS = 20_000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(prior: ListLengthPrior, grammar: Grammar, t_max: int) -> dict[tuple[int, ...], float]:
    every = list(grammar.enumerate_derivations(t_max))
    return dict(zip(every, prior.log_prob(grammar, pad(grammar, every)).double().exp().tolist(), strict=True))


# t_max bounds the memory: 24 bytes for each of them in each of the draws
UNEVEN = ListLengthPrior(lengths={"Digits": [1, 2, 0, 3]}, weights={"Digit": [1, 4]}, t_max=40)
ROADS = ListLengthPrior(lengths={"Roads": [1, 2, 1], "Cars": [2, 1, 1]}, t_max=40)


# -- ListLengthPrior: its law -----------------------------------------------------------------------------------


def test_probabilities_add_up_to_one(digits: Grammar, aerial: Grammar):
    assert sum(law(UNEVEN, digits, 10).values()) == pytest.approx(1, abs=1e-5)
    assert sum(law(ROADS, aerial, 12).values()) == pytest.approx(1, abs=1e-5)


def test_probabilities_written_down(digits: Grammar, aerial: Grammar):
    """A length among those given, a class for each digit."""
    every = law(UNEVEN, digits, 10)
    assert every[0, 2] == pytest.approx(1 / 6)
    assert every[0, 1, 3, 2] == pytest.approx(2 / 6 * 0.2)
    assert every[0, 1, 4, 1, 3, 2] == 0
    assert every[0, 1, 4, 1, 3, 1, 4, 2] == pytest.approx(3 / 6 * 0.8 * 0.2 * 0.8)
    assert every[0, 1, 4, 1, 3, 1, 4, 1, 4, 2] == 0
    two_roads = (0, 1, 3, 4, 4, 5, 1, 3, 5, 2)  # with two cars, with none
    assert law(ROADS, aerial, 10)[two_roads] == pytest.approx(1 / 4 * 1 / 4 * 2 / 4)


def test_samples_follow_the_exact_probabilities(digits: Grammar, aerial: Grammar):
    for prior, grammar, t_max in ((UNEVEN, digits, 10), (ROADS, aerial, 12)):
        rules = prior.sample(grammar, DRAWS, rng())
        assert bool(is_valid(grammar, rules).all())
        every = {row: p for row, p in law(prior, grammar, t_max).items() if p > 0}
        assert fit(unpadded(grammar, rules), every) > 1e-3


def test_lengths_of_lists_follow_the_lengths_given(aerial: Grammar):
    """Roads in a scene and cars on a road, each by itself, and independent of each other."""
    scenes = scenes_from_derivations(aerial, ROADS.sample(aerial, DRAWS, rng()))
    roads = scenes.counts(2)[:, 0].tolist()
    assert fit(roads, {0: 1, 1: 2, 2: 1}) > 1e-3
    cars = [
        tuple(parents.count(i) for i, c in enumerate(classes) if c == 0)
        for classes, parents in zip(scenes.classes.tolist(), scenes.parents.tolist(), strict=True)
    ]
    weight = {0: 2, 1: 1, 2: 1}
    assert fit([n for row in cars for n in row], weight) > 1e-3
    pairs = {(i, j): weight[i] * weight[j] for i in weight for j in weight}
    assert fit([row for row in cars if len(row) == 2], pairs) > 1e-3


@pytest.mark.parametrize("weights", [[0, 0, 1], [1], [1e-6, 1], [0, 3, 0, 1, 0, 0], list(range(1, 30))], ids=str)
def test_any_lengths_are_hit(digits: Grammar, weights: list[float]):
    """Also those with gaps, with zeros at the end, and of one length only."""
    rules = ListLengthPrior(lengths={"Digits": weights}, t_max=80).sample(digits, DRAWS, rng())
    counts = scenes_from_derivations(digits, rules).counts(3)[:, 1:].sum(1)
    assert fit(counts.tolist(), {n: w for n, w in enumerate(weights) if w}) > 1e-3


def test_weights_of_a_list_divide_what_ends_it():
    grammar = Grammar("L -> x L | stop | end | ε")
    prior = ListLengthPrior(lengths={"L": [1, 1]}, weights={"L": [7, 1, 3, 0]})
    every = law(prior, grammar, 2)
    expected = {(1,): 1 / 8, (2,): 3 / 8, (3,): 0, (0, 1): 1 / 8, (0, 2): 3 / 8, (0, 3): 0}
    assert every == pytest.approx({key: expected[key] for key in every})


def test_a_list_may_be_left_recursive():
    grammar = Grammar("L -> L x | ε")
    assert law(ListLengthPrior(lengths={"L": [0, 1, 3]}), grammar, 4) == pytest.approx(
        {(1,): 0, (0, 1): 1 / 4, (0, 0, 1): 3 / 4, (0, 0, 0, 1): 0}
    )


def test_the_entropy_of_uniform_digits():
    """log 11 + 5 log 10 for n uniform in 0..10 and ten classes: exact, and as the mean over samples."""
    classes = " | ".join(f"d{i}" for i in range(10))
    grammar = Grammar(f"Scene -> bg Digits\nDigits -> Digit Digits | ε\nDigit -> {classes}")
    assert grammar.num_rules == 13
    prior = ListLengthPrior(lengths={"Digits": [1] * 11}, t_max=22)
    by_length = pad(grammar, [[0] + [1, 3] * n + [2] for n in range(11)])
    information = -prior.log_prob(grammar, by_length)
    torch.testing.assert_close(information, math.log(11) + torch.arange(11) * math.log(10))
    entropy = math.log(11) + 5 * math.log(10)
    assert float(information.mean()) == pytest.approx(entropy, rel=1e-6)
    drawn = -prior.log_prob(grammar, prior.sample(grammar, DRAWS, rng()))
    error = math.log(10) * math.sqrt(10 / DRAWS)  # n uniform in 0..10 has variance 10
    assert float(drawn.mean()) == pytest.approx(entropy, abs=4 * error)


# -- ListLengthPrior as a PCFG ----------------------------------------------------------------------------------


def test_weights_alone_make_a_pcfg():
    """Each rule is drawn with its own probability, wherever its symbol stands."""
    grammar = Grammar("S -> A S | A | ε\nA -> a | b A")
    weights = {"S": [1.0, 2.0, 1.0], "A": [3.0, 1.0]}
    p = [0.25, 0.5, 0.25, 0.75, 0.25]
    prior = ListLengthPrior(weights=weights, t_max=100)
    for rules, q in law(prior, grammar, 7).items():
        assert q == pytest.approx(math.prod(p[r] for r in rules), rel=1e-5)
    rules = Counter(r for row in unpadded(grammar, prior.sample(grammar, DRAWS, rng())) for r in row)
    for some in ((0, 1, 2), (3, 4)):
        drawn = [r for r in some for _ in range(rules[r])]
        assert fit(drawn, {r: p[r] for r in some}) > 1e-3


def test_rules_are_uniform_without_weights():
    grammar = Grammar("S -> a | b | T\nT -> c | d")
    expected = {(0,): 1 / 3, (1,): 1 / 3, (2, 3): 1 / 6, (2, 4): 1 / 6}
    assert law(ListLengthPrior(), grammar, 2) == pytest.approx(expected)


def test_binary_trees_end_with_the_known_probability():
    """S -> S S with probability p = 1/4: Catalan(n) trees with n + 1 leaves, each p^n (1 - p)^(n + 1)."""
    grammar = Grammar("S -> S S | a")
    prior = ListLengthPrior(weights={"S": [1, 3]})
    every = law(prior, grammar, 15)
    for n in range(8):
        total = sum(q for rules, q in every.items() if len(rules) == 2 * n + 1)
        assert total == pytest.approx(math.comb(2 * n, n) / (n + 1) * 0.25**n * 0.75 ** (n + 1), rel=1e-5)
    steps = [len(row) for row in unpadded(grammar, prior.sample(grammar, 5000, rng()))]
    # an expansion has 2 p = 1/2 children in the mean and 4 p (1 - p) = 3/4 in the variance
    mean, variance = 1 / (1 - 1 / 2), (3 / 4) / (1 - 1 / 2) ** 3
    assert sum(steps) / 5000 == pytest.approx(mean, abs=4 * math.sqrt(variance / 5000))


@settings(max_examples=50)
@given(st.sampled_from(TRICKY) | grammars(finite=True), st.data())
def test_any_weights_make_a_law(grammar: Grammar, data: st.DataObject):
    """Each derivation has the product of its rules' probabilities; those of a finite grammar add up to one."""
    number = st.floats(0.1, 1)
    weights = {
        s: data.draw(st.lists(number, min_size=len(rules), max_size=len(rules)))
        for s in grammar.nonterminals
        for rules in [grammar.rules_of(s)]
    }
    prior = ListLengthPrior(weights=weights)
    probability = {}
    for s, values in weights.items():
        probability |= {k: v / sum(values) for k, v in zip(grammar.rules_of(s), values, strict=True)}
    t_max = 6
    every = law(prior, grammar, t_max)
    for rules, q in every.items():
        assert q == pytest.approx(math.prod(probability[r] for r in rules), rel=1e-4)
    if grammar.longest_derivation <= t_max:
        assert sum(every.values()) == pytest.approx(1, abs=1e-4)


# -- ListLengthPrior: log_prob of anything ----------------------------------------------------------------------


def log_prob(grammar: Grammar, rows: list[list[int]]) -> list[float]:
    return UNEVEN.log_prob(grammar, torch.tensor(rows)).tolist()


def test_log_prob_ignores_padding(digits: Grammar):
    assert log_prob(digits, [[0, 1, 3, 2, 5, 5]]) == log_prob(digits, [[0, 1, 3, 2]])


def test_log_prob_of_rules_that_the_grammar_forbids(digits: Grammar):
    forbidden = [[0, 3, 2, 5], [5, 0, 2, 5], [0, 5, 2, 5], [0, 2, 5, 3]]
    assert log_prob(digits, forbidden) == [-math.inf] * 4


def test_log_prob_of_rules_after_the_end(digits: Grammar):
    assert log_prob(digits, [[0, 2, 2, 2], [0, 2, 2, 5]]) == [-math.inf] * 2


def test_log_prob_of_what_is_unfinished(digits: Grammar):
    """The prior never draws it, whatever it weighs as a beginning."""
    assert log_prob(digits, [[0, 1, 4, 1], [0, 1, 4, 2]]) == [-math.inf, pytest.approx(math.log(2 / 6 * 0.8))]


# -- ListLengthPrior as a program -------------------------------------------------------------------------------


def test_equal_generators_give_equal_samples(digits: Grammar):
    one, same, other = (UNEVEN.sample(digits, 100, rng(seed)) for seed in (3, 3, 4))
    assert one.equal(same)
    assert not (one.shape == other.shape and one.equal(other))


def test_no_samples_at_all(digits: Grammar):
    assert len(UNEVEN.sample(digits, 0, rng())) == 0


def test_samples_are_no_wider_than_the_longest(digits: Grammar):
    assert ListLengthPrior(lengths={"Digits": [0, 0, 1]}).sample(digits, 5, rng()).shape == (5, 6)


def test_a_derivation_may_take_t_max_steps_but_no_more(digits: Grammar):
    lengths = {"Digits": [0, 0, 1]}
    assert ListLengthPrior(lengths=lengths, t_max=6).sample(digits, 3, rng()).shape == (3, 6)
    with pytest.raises(GrammarError) as error:
        ListLengthPrior(lengths=lengths, t_max=5).sample(digits, 3, rng())
    assert str(error.value) == "the prior drew a derivation of over 5 steps; check its weights"


LIST = "S -> L\nL -> x L | ε"


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (LIST, {"lengths": {"M": [1]}}, "'M' is not a non-terminal. Available: L, S."),
        (LIST, {"weights": {"l": [1]}}, "'l' is not a non-terminal. Did you mean 'L'? Available: L, S."),
        (LIST, {"weights": {"L": [1]}}, "the weights of L must be 2 numbers, one per rule, not 1"),
        (
            LIST,
            {"weights": {"L": [1, -1]}},
            "ListLengthPrior: weights.L[1] must be at least 0, not -1",
        ),
        (LIST, {"weights": {"L": [0, 0]}}, "the weights of L must be non-negative and not all zero, not [0, 0]"),
        (LIST, {"lengths": {"L": []}}, "the lengths of L must be non-negative and not all zero, not []"),
        (LIST, {"lengths": {"L": [0.0]}}, "the lengths of L must be non-negative and not all zero, not [0.0]"),
        (LIST, {"lengths": {"S": [1]}}, "'S' has lengths, but not exactly one rule that has it on its right-hand side"),
        (
            "L -> x L | y L | ε",
            {"lengths": {"L": [1]}},
            "'L' has lengths, but not exactly one rule that has it on its right-hand side",
        ),
        (
            "L -> M | ε\nM -> x L",
            {"lengths": {"L": [1]}},
            "'L' has lengths, but not exactly one rule that has it on its right-hand side",
        ),
    ],
)
def test_settings_that_make_no_sense(text: str, settings: dict[str, dict[str, list[float]]], message: str):
    for use in (lambda p, g: p.sample(g, 1, rng()), lambda p, g: p.log_prob(g, torch.tensor([[0, 2]]))):
        with pytest.raises(UserError) as error:
            use(ListLengthPrior(**settings), Grammar(text))
        assert str(error.value) == message


def test_a_symbol_that_comes_back_twice_spells_no_list():
    """L -> L L has one rule in which L comes back, but neither a length nor the law that `lengths` promises."""
    with pytest.raises(GrammarError, match="'L' has lengths, but"):
        ListLengthPrior(lengths={"L": [1, 1, 1]}).sample(Grammar("L -> L L | a"), 3, rng())


def test_weights_must_leave_a_way_to_end_a_list():
    with pytest.raises(GrammarError, match="L"):
        ListLengthPrior(lengths={"L": [1, 1]}, weights={"L": [1, 0]}).sample(Grammar(LIST), 3, rng())


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_weights_must_be_finite(value: float):
    with pytest.raises(UserError, match=r"^ListLengthPrior: weights\.L\[1\] must be finite, not"):
        ListLengthPrior(weights={"L": [1, value]}).sample(Grammar(LIST), 3, rng())


def test_a_prior_need_not_know_its_probabilities(digits: Grammar):
    class Fixed(StructurePrior):
        def sample(self, grammar: Grammar, n: int, generator: torch.Generator) -> Tensor:
            return pad(grammar, [[0, 2]] * n)

    assert Fixed().log_prob(digits, Fixed().sample(digits, 2, rng())) is None


# -- parameters --------------------------------------------------------------------------------------------


def places(b: int, n: int) -> SceneBatch:
    empty = torch.full((b, n), -1)
    return SceneBatch(empty, empty)


def test_uniform_attributes_fill_their_bounds():
    draw = sample_uniform(places(100, 50), -2, 3.0, rng())
    assert draw.shape == (100, 50)
    assert stats.kstest(draw.flatten().numpy(), stats.uniform(-2, 5).cdf).pvalue > 1e-3


def test_bounds_may_differ_from_place_to_place():
    low = torch.tensor([[0.0], [10.0]])
    draw = sample_uniform(places(2, 1000), low, low + torch.tensor([[1.0], [2.0]]), rng())
    assert stats.kstest(draw[0].numpy(), stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert stats.kstest(draw[1].numpy(), stats.uniform(10, 2).cdf).pvalue > 1e-3


# --- mixtures ---


def test_a_mixtures_probabilities_are_the_weighted_means(digits: Grammar):
    """Of every derivation, also those that only one of them draws."""
    few, many = ListLengthPrior({"Digits": [1, 1]}), ListLengthPrior({"Digits": [0, 1, 2]}, {"Digit": [3, 1]})
    mixture = MixturePrior([few, many], [1.0, 3.0])
    rules = pad(digits, list(digits.enumerate_derivations(8)))
    p = mixture.log_prob(digits, rules).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    wanted = 0.25 * few.log_prob(digits, rules).exp() + 0.75 * many.log_prob(digits, rules).exp()
    torch.testing.assert_close(p, wanted)
    assert (few.log_prob(digits, rules) == -torch.inf).any() and (many.log_prob(digits, rules) == -torch.inf).any()


def test_a_mixture_draws_each_by_its_weight(digits: Grammar):
    mixture = MixturePrior([ListLengthPrior({"Digits": [1]}), ListLengthPrior({"Digits": [0, 0, 1]})], [1.0, 3.0])
    rules = mixture.sample(digits, 4000, rng())
    two = (rules == 1).sum(1) == 2
    assert is_valid(digits, rules).all() and ((rules == 1).sum(1) == 0)[~two].all()
    assert stats.binomtest(int(two.sum()), 4000, 0.75).pvalue > 1e-3
    assert torch.equal(rules, mixture.sample(digits, 4000, rng()))
    # in no order: the next scene's prior can't be told
    assert stats.binomtest(int((two[1:] == two[:-1]).sum()), 3999, 0.625).pvalue > 1e-3


@pytest.mark.parametrize("weights", [[0.0, 1.0], [1.0, 0.0]])
def test_a_mixture_may_leave_one_out(digits: Grammar, weights: list[float]):
    mixture = MixturePrior([ListLengthPrior({"Digits": [1]}), ListLengthPrior({"Digits": [0, 1]})], weights)
    rules = mixture.sample(digits, 50, rng())
    assert ((rules == 1).sum(1) == int(weights[1])).all()
    assert mixture.log_prob(digits, rules).isfinite().all()
    assert mixture.sample(digits, 0, rng()).shape[0] == 0


def test_mixtures_that_make_no_sense(digits: Grammar):
    with pytest.raises(GrammarError, match="weights of a mixture must be 2 numbers"):
        MixturePrior([ListLengthPrior(), ListLengthPrior()], [1.0])
    with pytest.raises(GrammarError, match="weights of a mixture"):
        MixturePrior([])


def test_a_mixture_of_a_prior_that_does_not_know_its_probabilities(digits: Grammar):
    class Unknown(ListLengthPrior):
        def log_prob(self, grammar: Grammar, rules: Tensor) -> None:
            return None

    rules = ListLengthPrior().sample(digits, 5, rng())
    assert MixturePrior([ListLengthPrior(), Unknown()]).log_prob(digits, rules) is None


def test_priors_are_abstract():
    for cls in (StructurePrior, ParameterPrior):
        with pytest.raises(TypeError, match="abstract"):
            cls()
