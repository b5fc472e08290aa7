"""What moved between two samples: exact probabilities by place, another library's intervals, words and pictures."""

import csv
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import samples
from scipy import stats
from torch import Tensor

from ms2.evaluation.rule_changes import RuleChange, plot_rule_changes, rule_changes, to_csv, to_rows, wilson_interval
from ms2.grammar.derivations import contexts, pad
from ms2.grammar.grammar import Grammar
from ms2.priors.structure import ListLengthPrior

DRAWS = 4000
LENGTHS = {"Roads": [0, 1, 2, 1], "Cars": [2, 1, 1]}
LONGER = {"Roads": [0, 1, 1, 1, 1], "Cars": [1, 1, 2, 4]}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(grammar: Grammar, lengths: dict[str, list[float]], seed: int, n: int = DRAWS) -> Tensor:
    return ListLengthPrior(lengths=lengths, t_max=60).sample(grammar, n, rng(seed))


def goes_on(weights: list[float], position: int) -> float:
    """P(length > i) / P(length >= i)."""
    return sum(weights[position + 1 :]) / sum(weights[position:])


def by_place(found: list[RuleChange]) -> dict[tuple[str, int, int], RuleChange]:
    return {(move.symbol, move.item, move.position): move for move in found}


# -- numbers -----------------------------------------------------------------------------------------------


def test_intervals_hold_the_exact_probabilities_of_the_priors(aerial: Grammar):
    found = rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1))
    held = []
    for move in found:
        for lengths, share, (low, high) in (
            (LENGTHS, move.before, move.before_interval),
            (LONGER, move.after, move.after_interval),
        ):
            if not math.isnan(share):
                exact = goes_on(lengths[move.symbol], move.position)
                held.append(low <= exact <= high)
                assert exact not in (0, 1) or share == exact
    # 4 + 5 positions in the list of roads; in those of cars 3 on each of 3 roads, and 4 on each of 4
    assert len(held) == 9 + 9 + 16
    # 3 misses at most, of 23 intervals whose probability is not 0 or 1: so it is in 97 % of draws, and these are fixed
    assert sum(held) >= 31


def test_probabilities_and_visits_are_close_to_the_exact_ones(aerial: Grammar):
    found = by_place(rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1)))
    move = found["Cars", 1, 1]  # the second road, after one car
    assert (move.parent, move.rule) == ("Road", "Cars -> car Cars")
    assert move.before == pytest.approx(1 / 2, abs=0.03)
    assert move.after == pytest.approx(6 / 7, abs=0.03)
    assert move.change == move.after - move.before
    assert move.visits_before == pytest.approx(3 / 4 * 2 / 4, abs=0.03)  # a second road, and a car on it
    assert move.visits_after == pytest.approx(3 / 4 * 7 / 8, abs=0.03)


def test_equal_laws_do_not_move(aerial: Grammar):
    found = rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LENGTHS, 1))
    assert len(found) == 4 + 3 * 3
    for move in found:
        assert max(move.before_interval[0], move.after_interval[0]) <= min(
            move.before_interval[1], move.after_interval[1]
        )
        assert abs(move.change) < 0.06


@settings(max_examples=60)
@given(st.data())
def test_counts_equal_a_walk_in_plain_python(data: st.DataObject):
    """Every reported probability, from the contexts of one scene after another."""
    grammar, rows = data.draw(samples())
    before, after = (pad(grammar, data.draw(st.permutations(rows))[:k]) for k in (len(rows), 1 + len(rows) // 2))
    count: list[dict[tuple[object, ...], dict[str, int]]] = [{}, {}]
    for rules, counts in ((before, count[0]), (after, count[1])):
        place = contexts(grammar, rules)
        for b, row in enumerate(rules.tolist()):
            for t, rule in enumerate(row):
                if rule != grammar.num_rules:
                    names = [*grammar.nonterminals, ""]
                    key = (
                        names[place.symbol[b, t]],
                        names[place.parent[b, t]],
                        int(place.item[b, t]),
                        int(place.position[b, t]),
                    )
                    taken = counts.setdefault(key, {})
                    taken[str(grammar.rules[rule])] = taken.get(str(grammar.rules[rule]), 0) + 1
    found = rule_changes(grammar, before, after, min_visits=1)
    choices = {s: len(grammar.rules_of(s)) for s in grammar.nonterminals}
    expected = {key for key in count[1] if choices[str(key[0])] > 1}
    assert {move[1:5] for move in found} == expected
    assert len(found) == sum({1: 0, 2: 1}.get(choices[str(k[0])], choices[str(k[0])]) for k in expected)
    for move in found:
        key = move[1:5]
        for counts, share, visits, n in (
            (count[0], move.before, move.visits_before, len(before)),
            (count[1], move.after, move.visits_after, len(after)),
        ):
            taken = counts.get(key, {})
            assert visits == pytest.approx(sum(taken.values()) / n)
            if taken:
                assert share == pytest.approx(taken.get(move.rule, 0) / sum(taken.values()))
            else:
                assert math.isnan(share)


@pytest.mark.parametrize(("taken", "visits"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (500, 10_000)])
def test_wilson_agrees_with_scipy(taken: int, visits: int):
    expected = stats.binomtest(taken, visits).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(torch.tensor(taken), torch.tensor(visits)).tolist()
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-7)
    assert low <= taken / visits <= high


def test_nothing_is_known_without_a_visit():
    assert wilson_interval(torch.tensor([0]), torch.tensor([0])).tolist() == [[0, 1]]


# -- what is reported, and in which order ------------------------------------------------------------------


def test_the_complement_is_left_out_and_so_is_what_leaves_no_choice(aerial: Grammar, digits: Grammar):
    both = (drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1))
    assert {move.rule for move in rule_changes(aerial, *both)} == {"Roads -> Road Roads", "Cars -> car Cars"}
    flipped = Grammar("Scene -> bg Digits\nDigits -> ε | Digit Digits\nDigit -> zero | one")
    both = (drawn(flipped, {"Digits": [1, 1, 1]}, 0), drawn(flipped, {"Digits": [1, 1, 1]}, 1))
    assert {move.rule for move in rule_changes(flipped, *both)} == {"Digits -> Digit Digits", "Digit -> zero"}
    three = Grammar("Scene -> a Scene | b Scene | ε")
    sample = pad(three, [[0, 1, 2]] * 40)
    found = rule_changes(three, sample, sample)
    assert len(found) == 3 * 3
    assert sum(move.after for move in found) == pytest.approx(3)


def test_the_largest_change_comes_first_and_new_territory_last(aerial: Grammar):
    found = rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1))
    new = [move for move in found if math.isnan(move.change)]
    assert new == found[-len(new) :]
    changes = [abs(move.change) for move in found[: -len(new)]]
    assert changes == sorted(changes, reverse=True)
    assert [move.visits_after for move in new] == sorted((move.visits_after for move in new), reverse=True)
    # cars of a fourth road, and a fourth car, or the end, after the third; a fifth road never comes
    places = {("Cars", 3, k) for k in range(4)} | {("Cars", k, 3) for k in range(4)} | {("Roads", 0, 4)}
    assert set(by_place(new)) == places
    for move in new:
        assert math.isnan(move.before) and move.visits_before == 0 and move.before_interval == (0, 1)


def test_rarely_reached_places_are_left_out(digits: Grammar):
    none, one = [0, 2], [0, 1, 3, 2]
    rare, often = pad(digits, [none] * 50 + [one] * 29), pad(digits, [none] * 50 + [one] * 30)

    def reached(before: Tensor, after: Tensor) -> set[tuple[str, int]]:
        return {(move.symbol, move.position) for move in rule_changes(digits, before, after)}

    assert reached(often, often) == {("Digits", 0), ("Digits", 1), ("Digit", 0)}
    assert reached(often, rare) == reached(rare, often) == {("Digits", 0)}
    assert reached(pad(digits, [none] * 30), often) == {("Digits", 0), ("Digits", 1), ("Digit", 0)}
    assert reached(pad(digits, [none] * 30), rare) == {("Digits", 0)}
    assert reached(often, pad(digits, [none] * 30)) == {("Digits", 0)}


def test_nothing_moves_between_empty_samples(aerial: Grammar):
    empty, some = torch.empty(0, 4, dtype=torch.long), drawn(aerial, LENGTHS, 0, 50)
    assert rule_changes(aerial, empty, empty) == rule_changes(aerial, some, empty) == []
    assert all(math.isnan(move.before) for move in rule_changes(aerial, empty, some))
    assert rule_changes(aerial, torch.empty(3, 0, dtype=torch.long), torch.empty(0, 0, dtype=torch.long)) == []


def test_padding_changes_nothing(aerial: Grammar):
    before, after = drawn(aerial, LENGTHS, 0, 200), drawn(aerial, LONGER, 1, 200)
    wider = torch.nn.functional.pad(before, (0, 9), value=aerial.num_rules)
    assert str(rule_changes(aerial, wider, after)) == str(rule_changes(aerial, before, after))


def test_a_probability_needs_a_visit(aerial: Grammar):
    sample = drawn(aerial, LENGTHS, 0, 5)
    with pytest.raises(ValueError, match="min_visits=0 was given, but a probability takes at least 1 visit"):
        rule_changes(aerial, sample, sample, min_visits=0)


# -- for people --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "derivation", "labels"),
    [
        (
            "Scene -> Roads\nRoads -> Road Roads | ε\nRoad -> Cars\nCars -> car Cars | ε",
            [0, 1, 3, 4, 5, 1, 3, 5, 2],
            {
                *(f"Scene · Roads: one more Road after {k}" for k in range(3)),
                *(f"Road 1 · Cars: one more car after {k}" for k in range(2)),
                "Road 2 · Cars: one more car after 0",
            },
        ),
        (
            "Scene -> bg Digits\nDigits -> Digit Digits | ε\nDigit -> zero | one",
            [0, 1, 4, 2],
            {"Scene · Digits: one more Digit after 0", "Scene · Digits: one more Digit after 1", "Digit 1 → zero"},
        ),
        # the start is a list; two lists of the same cars
        (
            "Roads -> Road Roads | ε\nRoad -> Left Right\nLeft -> Car Left | ε\nRight -> Car Right | ε\nCar -> a | b",
            [0, 2, 3, 7, 4, 6, 1],
            {
                *(f"Roads: one more Road after {k}" for k in range(2)),
                *(f"Road 1 · Left: one more Car after {k}" for k in range(2)),
                "Road 1 · Right: one more Car after 0",
                "Left · Car 1 → a",
            },
        ),
        # three rules, one of which ends the list with more than nothing; and a rule that comes back twice
        (
            "S -> a S | S S | b",
            [1, 2, 0, 2],
            {f"S: {w} after {k}" for w in ("one more a", "S S", "b") for k in (0, 1, 2)},
        ),
        ("S -> a S | b S | ε", [2], {"S: one more a after 0", "S: one more b after 0", "S: end after 0"}),
        ("S -> A\nA -> x | y | ε", [0, 3], {"S · A → x", "S · A → y", "S · A → ε"}),
    ],
)
def test_labels_say_where_and_what(text: str, derivation: list[int], labels: set[str]):
    grammar = Grammar(text)
    sample = pad(grammar, [derivation])
    assert {move.label for move in rule_changes(grammar, sample, sample, min_visits=1)} == labels


def test_csv_reads_back_as_the_table(aerial: Grammar):
    found = rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1))
    table, read = to_rows(found), list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(table) == len(read) == len(found)
    for row, cells, move in zip(table, read, found, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == cells
        assert (row["after_low"], row["after_high"]) == move.after_interval
        assert (row["before"] is None) == (row["change"] is None) == math.isnan(move.before)
        assert float(cells["after"]) == move.after  # no digit lost


def test_csv_of_nothing_is_its_first_line():
    line = to_csv([])
    assert line.startswith("label,symbol,parent,item,position,rule,before,after,change,") and line.count("\n") == 1
    assert to_rows([]) == []


def test_picture_shows_prior_and_learned_where_they_are(aerial: Grammar):
    """The columns of the two colours in a picture of one move, in which 0 and 1 are the ends of the axis."""
    sample = drawn(aerial, LENGTHS, 0, 50)
    move = rule_changes(aerial, sample, sample)[0]._replace(before_interval=(0.2, 0.2), after_interval=(0.8, 0.8))
    columns = []
    for before, after in ((0.0, 1.0), (0.25, 0.5)):
        image = plot_rule_changes([move._replace(before=before, after=after)], "").astype(int)
        rows = image[image.shape[0] // 2 - 25 :]  # below the legend
        for colour in ((0xB8, 0xBE, 0xC7), (0x1F, 0x77, 0xB4)):
            hits = (abs(rows - colour).max(-1) <= 2).sum(0)
            columns.append(float(hits.argmax()))
    zero, one, quarter, half = columns
    assert (quarter - zero) / (one - zero) == pytest.approx(0.25, abs=0.02)
    assert (half - zero) / (one - zero) == pytest.approx(0.5, abs=0.02)


def test_picture_grows_with_its_rows_up_to_the_most(aerial: Grammar):
    found = rule_changes(aerial, drawn(aerial, LENGTHS, 0), drawn(aerial, LONGER, 1))
    heights = [plot_rule_changes(found, "t", max_rows=most).shape[0] for most in (2, 10, len(found))]
    assert heights == sorted(set(heights))
    assert plot_rule_changes(found, "t", max_rows=len(found) + 5).shape[0] == heights[-1]
    assert plot_rule_changes(found[-3:], "only new territory").shape == plot_rule_changes(found[:3], "t").shape
    assert plot_rule_changes([], "nothing").min() < 128  # says so
