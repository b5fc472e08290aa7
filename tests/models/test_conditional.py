"""Conditions on object counts: sampling against enumeration of q(T | C), reachability against brute force."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import NETWORKS, TRICKY, fit, grammars, unpadded
from scipy import stats
from torch import Tensor

from ms2.grammar.derivations import Derivations, is_valid, pad
from ms2.grammar.grammar import Grammar
from ms2.models.conditional import reachability, sampling
from ms2.models.conditional.condition import OPERATORS, Condition, ConditionError, satisfies
from ms2.models.conditional.reachability import Reachability, build_reachability, possible_counts
from ms2.models.conditional.sampling import ConditionalStructure, sample_conditional, sample_prior_conditional
from ms2.models.structure import SamplingError, StructureModel
from ms2.priors.structure import ListLengthPrior, MixturePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.multimnist.grammar import MultiMNIST

DRAWS = 20_000
DIGITS = Grammar("S -> x L\nL -> D L | ε\nD -> a | b")
ROADS = Grammar("S -> Roads\nRoads -> Road Roads | ε\nRoad -> Cars\nCars -> car Cars | ε", renderable=["Road", "car"])
STREET = Grammar("S -> Cars Trucks\nCars -> car Cars | ε\nTrucks -> truck Trucks | ε")


def make(grammar: Grammar, t_max: int, scale: float = 0.7, network: str = "lstm", **kind: object) -> StructureModel:
    """A small model in double precision, with weights large enough for context and latents to matter."""
    model = StructureModel(grammar, t_max, NETWORKS[network](6), latent_dim=4, **kind).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(scale * torch.randn(weights.shape, generator=generator, dtype=torch.double))
    return model


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(grammar: Grammar, *texts: str) -> list[Condition]:
    return [Condition.parse(text, grammar) for text in texts]


@torch.no_grad()
def law(model: StructureModel, asked: Sequence[Condition] = ()) -> dict[tuple[int, ...], float]:
    """q(T) of every derivation that ends in time and meets the conditions; their sum is P(C)."""
    rules = pad(model.grammar, list(model.grammar.enumerate_derivations(model.t_max)))
    rules = rules[model.in_support(rules) & meets(model.grammar, rules, asked)]
    return dict(zip(unpadded(model.grammar, rules), model.log_prob(rules).exp().tolist(), strict=True))


def meets(grammar: Grammar, rules: Tensor, asked: Sequence[Condition]) -> Tensor:
    """By the scenes' objects."""
    counts = scenes_from_derivations(grammar, rules).counts(len(grammar.classes))
    met = torch.ones(len(rules), dtype=torch.bool)
    for c in asked:
        met &= OPERATORS[c.operator](counts[:, [grammar.class_index(s) for s in c.classes]].sum(1), c.value)
    return met


# -- reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["car == 5", "Road != 0", "car <= 12", "car < 3", "car + Road >= 2", "car > 1"])
def test_what_is_read_is_written_again(text: str):
    assert str(Condition.parse(text, ROADS)) == text
    assert str(Condition.parse(f"  {text.replace(' ', '')} ", ROADS)) == text


def test_symbols_that_look_like_something_else():
    odd = Grammar("S -> 3 <b> c+d == Car")
    for name in ("3", "<b>", "c+d", "==", "Car"):
        assert Condition.parse(f"{name} == 2", odd) == Condition((name,), "==", 2)
    assert Condition.parse("<b>>=2", odd) == Condition(("<b>",), ">=", 2)


@pytest.mark.parametrize("text", ["car", "car = 5", "5 cars", "car == five", "car == -1", "car == 1.5", "", "== 5"])
def test_what_cannot_be_read(text: str):
    with pytest.raises(ConditionError) as error:
        Condition.parse(text, ROADS)
    assert str(error.value) == (
        f"{text!r} is no condition. Write a class, an operator and a whole number, for example 'Road == 5'; "
        "the operators are ==, !=, <=, <, >=, >."
    )


def test_a_class_that_the_grammar_lacks():
    with pytest.raises(ConditionError) as error:
        Condition.parse("cars >= 2", ROADS)
    assert str(error.value) == (
        "'cars >= 2' names 'cars', which is no class of the grammar. Did you mean 'car'? Available: Road, car."
    )
    with pytest.raises(ConditionError, match="'Cars', which is no class"):  # it has such a symbol, but no such objects
        Condition.parse("car + Cars == 2", ROADS)


# -- what derivations meet -------------------------------------------------------------------------------------


@st.composite
def asked_of(draw: st.DrawFn, grammar: Grammar, most: int = 4) -> list[Condition]:
    """One to three conditions on classes of a grammar, some of them sums."""
    assume(grammar.classes)
    classes = st.lists(st.sampled_from(grammar.classes), min_size=1, max_size=2, unique=True).map(tuple)
    condition = st.builds(Condition, classes, st.sampled_from(list(OPERATORS)), st.integers(0, most))
    return draw(st.lists(condition, min_size=1, max_size=3))


@st.composite
def bounds(draw: st.DrawFn, grammar: Grammar) -> dict[str, int]:
    """Most items of some of the lists."""
    lists = [s for s in grammar.nonterminals if {s in grammar.rules[k].rhs for k in grammar.rules_of(s)} == {0, 1}]
    return draw(st.dictionaries(st.sampled_from(lists), st.integers(0, 3))) if lists else {}


def small(grammar: Grammar, t_max: int, at_most: int = 1500) -> list[tuple[int, ...]]:
    """All derivations, unless there are too many."""
    every = list(itertools.islice(grammar.enumerate_derivations(t_max), at_most + 1))
    assume(len(every) <= at_most)
    return every


@settings(max_examples=60)
@given(st.data(), st.sampled_from(TRICKY) | grammars())
def test_satisfied_counts_the_objects_of_the_scene(data: st.DataObject, grammar: Grammar):
    asked = data.draw(asked_of(grammar))
    rules = pad(grammar, small(grammar, 8))
    assert satisfies(grammar, rules, asked).equal(meets(grammar, rules, asked))
    assert bool(satisfies(grammar, rules, []).all())


# -- what can still become of them -----------------------------------------------------------------------------


Steps = dict[tuple[int, ...], tuple[float, float]]


def ways(model: StructureModel, every: Sequence[tuple[int, ...]], asked: Sequence[Condition]) -> Steps:
    """Fewest further steps from each beginning of a derivation to a good end, and to a bad one."""
    rules = pad(model.grammar, every)
    found: Steps = {}
    for row, makes, good in zip(every, model.in_support(rules), meets(model.grammar, rules, asked), strict=True):
        for step in range(len(row) + 1 if makes else 0):
            to_good, to_bad = found.get(row[:step], (math.inf, math.inf))
            left = len(row) - step
            found[row[:step]] = (min(to_good, left), to_bad) if good else (to_good, min(to_bad, left))
    return found


def ahead(model: StructureModel, views: Sequence[Reachability], prefixes: Sequence[tuple[int, ...]]) -> Steps:
    """The same by `Reachability`."""
    seen = [view.initial_state(len(prefixes)) for view in views]
    for rule in pad(model.grammar, prefixes).unbind(1):
        seen = [view.advance(last.state, rule) for view, last in zip(views, seen, strict=True)]
    good, bad = torch.stack([s.good for s in seen]).amax(0), torch.stack([s.bad for s in seen]).amin(0)
    return {
        prefix: tuple(steps if steps + len(prefix) <= model.t_max else math.inf for steps in pair)
        for prefix, *pair in zip(prefixes, good.tolist(), bad.tolist(), strict=True)
    }


@torch.no_grad()
def one_step_more(model: StructureModel, prefixes: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Beginnings of all lengths up to ``t_max``, of which some end in time and others don't."""
    prefixes = [prefix for prefix in prefixes if len(prefix) < model.t_max]
    latents = torch.zeros(len(prefixes), dtype=torch.long)
    allowed = model.rule_probabilities(pad(model.grammar, prefixes), latents).nan_to_num() > 0  # none where finished
    return {
        (*prefix, k) for prefix, row in zip(prefixes, allowed.tolist(), strict=True) for k, ok in enumerate(row) if ok
    }


@settings(max_examples=60)
@given(st.data(), st.sampled_from([*TRICKY, ROADS, DIGITS]) | grammars())
def test_reachability_is_exact(data: st.DataObject, grammar: Grammar):
    t_max = int(grammar.shortest_derivation[grammar.start]) + data.draw(st.integers(0, 5))
    model = make(grammar, t_max, max_length=data.draw(bounds(grammar)))
    asked = data.draw(asked_of(grammar))
    expected = ways(model, small(grammar, t_max), asked)
    assume(expected)  # bounded lists may be too short for any derivation
    too_long = dict.fromkeys(one_step_more(model, list(expected)) - set(expected), (math.inf, math.inf))
    expected |= too_long
    assert ahead(model, [Reachability(grammar, asked, t_max, model.max_lengths.tolist())], list(expected)) == expected


@pytest.mark.parametrize("asked", [["a == 2", "b <= 1"], ["a >= 1", "b == 1", "x == 1"], ["a != 1", "a + b == 2"]])
def test_several_groups_never_exclude_what_is_possible(asked: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reachability, "MAX_JOINT_COUNTS", 1)
    model, wanted = make(DIGITS, 10), read(DIGITS, *asked)
    views = build_reachability(DIGITS, wanted, 10, model.max_lengths.tolist())
    assert len(views) == len({c.classes for c in wanted})
    expected = ways(model, list(DIGITS.enumerate_derivations(10)), wanted)
    for prefix, (good, bad) in ahead(model, views, list(expected)).items():
        assert good <= expected[prefix][0]
        assert bad == expected[prefix][1]  # an end is bad if it is for one of them


def test_conditions_are_divided_only_where_they_are_many():
    classes = [f"c{i}" for i in range(6)]
    grammar = Grammar(
        "S -> " + " ".join(f"L{i}" for i in range(6)) + "".join(f"\nL{i} -> c{i} L{i} | ε" for i in range(6))
    )
    longest = [100] * len(grammar.nonterminals)

    def number(value: int) -> int:
        return len(build_reachability(grammar, read(grammar, *(f"{c} == {value}" for c in classes)), 60, longest))

    assert [number(value) for value in (0, 1, 2, 6, 60)] == [1, 2, 2, 2, 6]


@settings(max_examples=60)
@given(st.data(), st.sampled_from([*TRICKY, ROADS, STREET]) | grammars())
def test_possible_counts_are_those_of_all_derivations(data: st.DataObject, grammar: Grammar):
    assume(grammar.classes)
    t_max = int(grammar.shortest_derivation[grammar.start]) + data.draw(st.integers(0, 5))
    model = make(grammar, t_max, max_length=data.draw(bounds(grammar)))
    rules = pad(grammar, small(grammar, t_max))
    rules = rules[model.in_support(rules)]
    classes = data.draw(st.lists(st.sampled_from(grammar.classes), min_size=1, unique=True))
    counts = (
        scenes_from_derivations(grammar, rules)
        .counts(len(grammar.classes))[:, [grammar.class_index(c) for c in classes]]
        .sum(1)
    )
    assert possible_counts(grammar, classes, t_max, model.max_lengths.tolist()) == sorted(set(counts.tolist()))


# -- the model step by step ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"network": "gru", "num_latents": 3},
        {"network": "transformer", "num_latents": 2},
        {"context": False},
        {"max_length": {"L": 2}},
    ],
)
@torch.no_grad()
def test_probabilities_of_steps_multiply_to_that_of_the_derivation(kind: dict[str, object]):
    """In a batch of beginnings of unlike lengths, and one step at a time."""
    model = make(DIGITS, 6, **kind)
    end, num = DIGITS.num_rules, len(model.latents)
    for row, q in law(model).items():
        at_once, stepwise = torch.ones(num, dtype=torch.double), torch.ones(num, dtype=torch.double)
        prefixes = pad(DIGITS, [row[:step] for step in range(len(row))])
        state = model.begin(torch.arange(num))
        for z in range(num):
            probability = model.rule_probabilities(prefixes, torch.full((len(row),), z))
            torch.testing.assert_close(probability.sum(1), torch.ones(len(row), dtype=torch.double))
            at_once[z] = probability[torch.arange(len(row)), torch.tensor(row)].prod()
        for rule in row:
            assert not state.finished.any()
            assert state.logits().equal(state.logits())
            stepwise *= state.logits().softmax(1)[:, rule]
            state.advance(torch.full((num,), rule))
        assert state.finished.all() and (state.sample_rule(torch.rand(num, dtype=torch.double)) == end).all()
        assert float(at_once.mean()) == pytest.approx(q)
        assert float(stepwise.mean()) == pytest.approx(q)


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_selected_derivations_are_extended_as_in_the_whole_batch(network: str):
    model = make(DIGITS, 10, network=network, num_latents=2)
    whole = model.begin(torch.tensor([0, 1, 0, 1]))
    for rule in ([0, 0, 0, 0], [1, 1, 2, 1], [3, 4, 5, 4]):
        whole.logits()
        whole.advance(torch.tensor(rule))
    index = torch.tensor([3, 0])
    part = whole[index]
    torch.testing.assert_close(part.logits(), whole.logits()[index])
    part.advance(torch.tensor([1, 2]))
    assert whole.finished.tolist() == [False, False, True, False], "the part must have its own stacks"
    whole.advance(torch.tensor([2, 1, 5, 1]))
    torch.testing.assert_close(part.logits()[0], whole.logits()[3])
    assert part.finished.tolist() == [False, True]


# -- the law ---------------------------------------------------------------------------------------------------

CASES = {
    "one class": (DIGITS, 12, {}, ["a == 1"]),
    "not": (DIGITS, 10, {"network": "gru"}, ["b != 1"]),
    "two classes, several latents": (DIGITS, 12, {"num_latents": 3}, ["a >= 1", "b < 4"]),
    "a sum": (DIGITS, 12, {"num_latents": 2, "context": False}, ["a + b > 0", "a <= 1"]),
    "few steps": (DIGITS, 6, {"num_latents": 2}, ["a >= 1"]),
    "bounded lists": (ROADS, 18, {"max_length": {"Roads": 2, "Cars": 3}, "num_latents": 2}, ["car >= 2"]),
    "a renderable non-terminal": (ROADS, 13, {}, ["Road == 1", "car >= 1"]),
    "late": (STREET, 12, {}, ["truck >= 1"]),
    "never settled": (Grammar("S -> a S b | b S | ε"), 9, {}, ["a < 3", "b >= 2"]),
}


@pytest.mark.parametrize(
    ("max_prefixes", "n"), [(1, DRAWS // 8), (60, DRAWS // 2), (4096, DRAWS)]
)  # many tries fail, or few
@pytest.mark.parametrize("case", CASES)
def test_samples_follow_the_law_given_the_conditions(case: str, max_prefixes: int, n: int):
    """And so do those that were tried again; tries succeed as often as they should."""
    grammar, t_max, kind, texts = CASES[case]
    model, asked = make(grammar, t_max, **kind), read(grammar, *texts)
    every = law(model, asked)
    assert 1 < len(every) < len(law(model))
    sampler = ConditionalStructure(model, asked, max_prefixes=max_prefixes)
    drawn = sampler.sample(n, rng())
    assert drawn.rules.shape == (n, t_max)
    rows = unpadded(grammar, drawn.rules)
    assert fit(rows, every) > 1e-3
    again = [row for row, failed in zip(rows, drawn.rejections.tolist(), strict=True) if failed]
    assert not again or fit(again, every) > 1e-3
    check_tries(drawn, sum(every.values()), sampler.bound)


def check_tries(drawn: Derivations, probability: float, bound: float) -> None:
    """The number of failed tries is geometric, with success in P(C) / bound of tries."""
    success = probability / bound
    assert success <= 1 + 1e-12
    failed = drawn.rejections.tolist()
    assert min(failed) >= 0
    most = max(failed)
    geometric: dict[object, float] = {j: success * max(0, 1 - success) ** j for j in range(most + 1)}
    geometric[most + 1] = max(0.0, 1 - success) ** (most + 1)
    assert fit(failed, geometric) > 1e-3


@pytest.mark.parametrize("case", ["two classes, several latents", "a sum", "a renderable non-terminal"])
def test_the_law_is_the_same_where_conditions_are_divided(case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reachability, "MAX_JOINT_COUNTS", 1)
    grammar, t_max, kind, texts = CASES[case]
    model, asked = make(grammar, t_max, **kind), read(grammar, *texts)
    sampler = ConditionalStructure(model, asked)
    drawn = sampler.sample(DRAWS, rng())
    assert fit(unpadded(grammar, drawn.rules), law(model, asked)) > 1e-3
    check_tries(drawn, sum(law(model, asked).values()), sampler.bound)


@pytest.mark.parametrize("lanes", [5, 30])
def test_the_law_is_the_same_however_tries_are_batched(lanes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sampling, "MAX_BATCH_SIZE", lanes)
    model, asked = make(DIGITS, 6), read(DIGITS, "a >= 1")
    sampler = ConditionalStructure(model, asked, max_prefixes=1)
    drawn = sampler.sample(60 * lanes, rng())
    assert fit(unpadded(DIGITS, drawn.rules), law(model, asked)) > 1e-3
    check_tries(drawn, sum(law(model, asked).values()), sampler.bound)


@settings(max_examples=40)
@given(st.data(), st.sampled_from(TRICKY) | grammars())
def test_the_law_of_any_grammar(data: st.DataObject, grammar: Grammar):
    t_max = int(grammar.shortest_derivation[grammar.start]) + data.draw(st.integers(0, 4))
    model = make(
        grammar, t_max, scale=0.2, num_latents=data.draw(st.integers(1, 2)), max_length=data.draw(bounds(grammar))
    )
    asked = data.draw(asked_of(grammar))
    small(grammar, t_max)
    max_prefixes = data.draw(st.sampled_from([1, 10, 1000]))
    every = law(model, asked)
    if not every:
        with pytest.raises(ConditionError, match="can't be met"):
            ConditionalStructure(model, asked, max_prefixes)
        return
    sampler = ConditionalStructure(model, asked, max_prefixes)
    assert sum(every.values()) <= sampler.bound * (1 + 1e-9)
    assume(sum(every.values()) > 0.01 * sampler.bound)
    drawn = sampler.sample(300, rng())
    assert fit(unpadded(grammar, drawn.rules), every) > 1e-5  # 40 grammars, and few draws


# -- how often tries fail --------------------------------------------------------------------------------------


def test_a_finer_envelope_is_a_tighter_bound_down_to_the_probability_itself():
    model, asked = make(ROADS, 18, max_length={"Roads": 2, "Cars": 3}, num_latents=2), read(ROADS, "car == 3")
    exact = sum(law(model, asked).values())
    bound = [ConditionalStructure(model, asked, max_prefixes).bound for max_prefixes in (1, 3, 6, 10, 4096)]
    assert all(a > b for a, b in itertools.pairwise(bound))
    assert bound[0] == 1
    assert bound[-1] == pytest.approx(exact)


def test_a_prefix_is_settled_only_if_no_end_is_bad(monkeypatch: pytest.MonkeyPatch):
    """The only bad one is the longest, and takes the last step."""
    monkeypatch.setattr(sampling, "MAX_REJECTED_FRACTION", 0.0)
    model, asked = make(ROADS, 14, max_length={"Roads": 2, "Cars": 3}), read(ROADS, "car < 6")
    every, good = law(model), law(model, asked)
    assert len(every) - len(good) == 1
    assert sum(every.values()) == pytest.approx(1, abs=1e-12)
    assert sum(good.values()) < 1 - 1e-8
    assert ConditionalStructure(model, asked).bound == pytest.approx(sum(good.values()), abs=1e-12)


def test_ten_cars_are_drawn_without_a_retry_however_rare():
    model = make(STREET, 40, max_length={"Cars": 15, "Trucks": 3})
    with torch.no_grad():
        model.head.bias[STREET.rules_of("Cars")[0]] -= 3
    asked = read(STREET, "car == 10")
    every = law(model, asked)
    assert len(every) == 4
    assert 0 < sum(every.values()) < 1e-4
    sampler = ConditionalStructure(model, asked)
    assert sampler.bound == pytest.approx(sum(every.values()))
    drawn = sampler.sample(DRAWS, rng())
    assert not drawn.rejections.any()
    assert fit(unpadded(STREET, drawn.rules), every) > 1e-3


def test_a_condition_that_always_holds_leaves_only_the_limit_of_steps():
    model, asked = make(DIGITS, 6), read(DIGITS, "x == 1")
    sampler = ConditionalStructure(model, asked)
    assert sampler.bound == 1
    drawn = sampler.sample(DRAWS, rng())
    assert fit(unpadded(DIGITS, drawn.rules), law(model)) > 1e-3
    check_tries(drawn, sum(law(model).values()), 1.0)


def test_what_has_weight_zero_is_not_drawn_when_asked_for():
    fixed = make(STREET, 12, max_length={"Cars": 2}, fixed_rule_weights={"Trucks": [0.0, 1.0]})
    with pytest.raises(ConditionError) as error:
        ConditionalStructure(fixed, read(STREET, "truck == 1"))
    assert str(error.value) == (
        "'truck == 1' can't be met: truck can be 0 to 9 here, but to this model that has probability 0."
    )
    assert not ConditionalStructure(fixed, read(STREET, "truck < 2")).sample(100, rng()).rejections.any()


# -- what can't be done ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grammar", "kind", "texts", "said"),
    [
        (STREET, {}, ["car == 10"], "'car == 10' can't be met: car can be 0 to 9 here, in 12 steps at most."),
        (
            STREET,
            {"max_length": {"Cars": 5}},
            ["truck >= 1", "car > 5"],
            "'car > 5' can't be met: car can be 0 to 5 here, in 12 steps at most.",
        ),
        (
            STREET,
            {},
            ["car >= 5", "truck >= 5"],
            "'car >= 5' and 'truck >= 5' can't be met together. By themselves, car can be 0 to 9; truck can be 0 to 9 "
            "here, in 12 steps at most.",
        ),
        (
            STREET,
            {},
            ["car > 2", "car < 3"],
            "'car > 2' and 'car < 3' can't be met together. By themselves, car can be 0 to 9 here, "
            "in 12 steps at most.",
        ),
        (DIGITS, {}, ["x != 1"], "'x != 1' can't be met: x can be 1 here, in 12 steps at most."),
        (
            Grammar("S -> a a S | b"),
            {},
            ["a == 3"],
            "'a == 3' can't be met: a can be 0, 2, 4, 6, ..., 22 here, in 12 steps at most.",
        ),
        (DIGITS, {}, ["a + b == 6"], "'a + b == 6' can't be met: a + b can be 0 to 5 here, in 12 steps at most."),
    ],
)
def test_conditions_that_no_scene_meets(grammar: Grammar, kind: dict[str, object], texts: list[str], said: str):
    with pytest.raises(ConditionError) as error:
        ConditionalStructure(make(grammar, 12, **kind), read(grammar, *texts))
    assert str(error.value) == said


def test_conditions_that_exclude_each_other_where_they_are_divided(monkeypatch: pytest.MonkeyPatch):
    """No group excludes it by itself; the envelope comes out empty."""
    monkeypatch.setattr(reachability, "MAX_JOINT_COUNTS", 1)
    with pytest.raises(ConditionError, match="'car >= 5' and 'truck >= 5' can't be met together"):
        ConditionalStructure(make(STREET, 12), read(STREET, "car >= 5", "truck >= 5"))


def test_conditions_that_are_too_rare():
    model = make(STREET, 40)
    with torch.no_grad():
        model.head.bias[STREET.rules_of("Trucks")[0]] -= 20
    sampler = ConditionalStructure(model, read(STREET, "truck == 3"), max_prefixes=1, max_tries=5000)
    with pytest.raises(SamplingError) as error:
        sampler.sample(10, rng())
    said = str(error.value)
    tries = int(said.partition(" of ")[2].partition(" ")[0])
    assert 5000 <= tries < 5000 + 2 * sampling.MAX_BATCH_SIZE
    assert said == (
        f"'truck == 3' is too rare: none of {tries} tries met it, so that its probability is at most about "
        f"{3 * sampler.bound / tries:.1g}. Ask for less."
    )


def test_failed_tries_are_counted_in_a_row():
    """One try in six succeeds, so that far more than 200 fail in all."""
    model, asked = make(DIGITS, 6, num_latents=2), read(DIGITS, "a >= 1")
    assert 0.15 < sum(law(model, asked).values()) < 0.2
    drawn = ConditionalStructure(model, asked, max_prefixes=1, max_tries=200).sample(1000, rng())
    assert int(drawn.rejections.sum()) > 4000


# -- as a program ----------------------------------------------------------------------------------------------


def test_without_conditions_it_is_the_model_itself():
    model = make(DIGITS, 8, max_tries=1000)
    plain, same = model.sample(50, rng()), sample_conditional(model, [], 50, rng())
    assert same.rules.equal(plain.rules) and same.rejections.equal(plain.rejections)
    none = sample_conditional(model, read(DIGITS, "a == 1"), 0, rng())
    assert none.rules.shape == (0, 0) and none.rejections.shape == (0,)


def test_equal_generators_give_equal_samples():
    """Also from a sampler that has seen other stacks before."""
    model, asked = make(ROADS, 14, num_latents=2), read(ROADS, "car == 2")
    sampler = ConditionalStructure(model, asked, max_prefixes=10)
    one, other = sampler.sample(200, rng(5)), sampler.sample(200, rng(6))
    state = torch.get_rng_state()
    same = sample_conditional(model, asked, 200, rng(5))
    fine = ConditionalStructure(model, asked, max_prefixes=10).sample(200, rng(5))
    assert torch.get_rng_state().equal(state)
    assert fine.rules.equal(one.rules) and fine.rejections.equal(one.rejections)
    assert sampler.sample(200, rng(5)).rules.equal(one.rules)
    assert not other.rules.equal(one.rules)
    assert bool(meets(ROADS, same.rules, asked).all())


SHIPPED = [
    (MultiMNIST(), 24, {}, ["3 == 2", "7 == 0"]),
    (MultiMNIST(), 24, {"num_latents": 2}, ["0 + 1 + 2 >= 4", "9 <= 1"]),
    (Aerial2D(), 40, {}, ["Road == 2"]),
    (Aerial2D(), 40, {"network": "gru"}, ["Road == 3", "car == 9"]),
    (Driving(), 64, {}, ["car == 5", "pedestrian >= 1", "truck == 0"]),
    (Driving(), 100, {"max_length": {"Trees": 20, "Poles": 4}}, ["Urban == 1", "car >= 18", "pole >= 1"]),
    (Driving(), 100, {}, [f"{name} == 2" for name in Driving().classes[3:]]),
]


@pytest.mark.parametrize(("grammar", "t_max", "kind", "texts"), SHIPPED, ids=lambda value: type(value).__name__)
def test_shipped_grammars(grammar: Grammar, t_max: int, kind: dict[str, object], texts: list[str]):
    kind = dict(kind)
    model = StructureModel(grammar, t_max, NETWORKS[kind.pop("network", "lstm")](16), **kind)
    asked = read(grammar, *texts)
    drawn = ConditionalStructure(model, asked, max_prefixes=500).sample(64, rng())
    assert bool(is_valid(grammar, drawn.rules).all())
    assert bool(model.in_support(drawn.rules).all())
    assert bool(meets(grammar, drawn.rules, asked).all())
    assert bool(model.log_prob(drawn.rules).isfinite().all())


# -- priors ----------------------------------------------------------------------------------------------------


def test_a_prior_given_conditions():
    prior = MixturePrior(
        [ListLengthPrior(lengths={"L": [1, 2, 3]}), ListLengthPrior(lengths={"L": [0, 1, 0, 1]})], [1.0, 2.0]
    )
    asked = read(DIGITS, "a == 1", "b <= 1")
    rules = pad(DIGITS, list(DIGITS.enumerate_derivations(8)))
    rules = rules[meets(DIGITS, rules, asked)]
    p = prior.log_prob(DIGITS, rules)
    assert p is not None
    drawn = sample_prior_conditional(prior, DIGITS, asked, DRAWS, rng()).rules
    assert len(drawn) == DRAWS
    assert bool(is_valid(DIGITS, drawn).all())
    assert fit(unpadded(DIGITS, drawn), dict(zip(unpadded(DIGITS, rules), p.exp().tolist(), strict=True))) > 1e-3
    assert sample_prior_conditional(prior, DIGITS, asked, 50, rng(1)).rules.equal(
        sample_prior_conditional(prior, DIGITS, asked, 50, rng(1)).rules
    )
    assert sample_prior_conditional(prior, DIGITS, [], 50, rng(1)).rules.equal(prior.sample(DIGITS, 50, rng(1)))
    assert len(sample_prior_conditional(prior, DIGITS, asked, 0, rng())) == 0


def test_conditions_that_a_prior_never_meets():
    prior = ListLengthPrior(lengths={"Cars": [0, 1, 1, 0, 1], "Trucks": [1]})
    with pytest.raises(SamplingError) as error:
        sample_prior_conditional(prior, STREET, read(STREET, "car == 3", "truck < 5"), 10, rng(), max_tries=100)
    assert str(error.value) == (
        "'car == 3' and 'truck < 5' is too rare for the prior ListLengthPrior: none of 110 draws met it. In them, car "
        "was 1 to 2, 4; truck was 0. Ask for less, or draw from a learned model: name the folder of a run."
    )


def test_the_share_of_a_prior_that_meets_a_condition():
    """With 0 to 3 digits alike, and both alike, P(no b) = (1 + 1/2 + 1/4 + 1/8) / 4."""
    prior = ListLengthPrior(lengths={"L": [1, 1, 1, 1]})
    rules = prior.sample(DIGITS, DRAWS, rng())
    met = int(satisfies(DIGITS, rules, read(DIGITS, "b == 0")).sum())
    assert stats.binomtest(met, DRAWS, 1.875 / 4).pvalue > 1e-3
