"""Grammars: their text, lint, tensors and enumeration, against closed forms, counting series and NLTK's parser."""

import math
from collections import Counter
from itertools import islice

import nltk
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import TRICKY, accepted, grammars, nltk_grammar, samples, unpadded

from ms2.grammar.analysis import format_steps
from ms2.grammar.derivations import is_valid, pad
from ms2.grammar.grammar import Grammar, LintFinding
from ms2.grammar.rules import GrammarError, Rule
from ms2.grammar.trees import from_tree, to_tree
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.priors.structure import ListLengthPrior

# -- text --------------------------------------------------------------------------------------------------


def test_text_format():
    grammar = Grammar(
        """
        # a comment on a line of its own
        Scene → bg Digits   # → may be the arrow; the first symbol is the start

        Digits -> Digit Digits
               | ε
        Digit->zero|one
          | two three"""
    )
    assert [str(rule) for rule in grammar.rules] == [
        "Scene -> bg Digits",
        "Digits -> Digit Digits",
        "Digits -> ε",
        "Digit -> zero",
        "Digit -> one",
        "Digit -> two three",
    ]
    assert grammar.rules[2] == Rule("Digits", ())
    assert grammar.start == "Scene"
    assert grammar.nonterminals == ("Scene", "Digits", "Digit")
    assert grammar.terminals == ("bg", "zero", "one", "two", "three")
    assert grammar.classes == grammar.terminals
    assert grammar.num_rules == 6
    assert grammar.rules_of("Digits") == [1, 2]


def test_rules_of_one_symbol_may_stand_apart():
    grammar = Grammar("S -> a T\nT -> b\nS -> c")
    assert grammar.rules_of("S") == [0, 2]
    assert grammar.nonterminals == ("S", "T")


@given(grammars())
def test_str_is_read_back(grammar: Grammar):
    again = Grammar(str(grammar), grammar.classes)
    assert again.rules == grammar.rules
    assert again.fingerprint == grammar.fingerprint


EXAMPLE = "write for example 'Digits -> Digit Digits | ε'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S -> a\n# b\nDigits a", f"line 3 of the grammar, 'Digits a', has no '->'; {EXAMPLE}"),
        ("| a", f"line 1 of the grammar, '| a', has no '->'; {EXAMPLE}"),
        ("S T -> a", "line 1 of the grammar, 'S T -> a', must have exactly one symbol before '->'"),
        ("-> a", "line 1 of the grammar, '-> a', must have exactly one symbol before '->'"),
        ("S -> a\n| T -> b", "line 2 of the grammar, '| T -> b', must have exactly one symbol before '->'"),
        ("S -> a |", "line 1 of the grammar, 'S -> a |': the alternative '' is not symbols or a lone ε"),
        ("S ->  # c", "line 1 of the grammar, 'S ->': the alternative '' is not symbols or a lone ε"),
        ("S -> a | b ε", "line 1 of the grammar, 'S -> a | b ε': the alternative 'b ε' is not symbols or a lone ε"),
        ("S -> ε ε", "line 1 of the grammar, 'S -> ε ε': the alternative 'ε ε' is not symbols or a lone ε"),
        ("S -> a -> b", "line 1 of the grammar, 'S -> a -> b': the alternative 'a -> b' is not symbols or a lone ε"),
        ("S -> a\nS -> b | a", "line 2 of the grammar, 'S -> b | a', repeats the rule S -> a"),
        ("S -> ε\n| ε", "line 2 of the grammar, '| ε', repeats the rule S -> ε"),
        (
            " \n# nothing",
            "the grammar is empty; write for example 'Scene -> Digits' and 'Digits -> digit Digits | ε'",
        ),
    ],
)
def test_text_that_is_no_grammar(text: str, message: str):
    with pytest.raises(GrammarError) as error:
        Grammar(text)
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["S->a->b", "S -> a T->b"])
def test_an_arrow_glued_to_symbols_is_no_symbol(text: str):
    """Two rules run together must not become the terminal 'a->b'."""
    with pytest.raises(GrammarError, match=r"^line 1 of the grammar, .* is not symbols or a lone ε$"):
        Grammar(text)


def test_the_empty_word_has_no_rules():
    with pytest.raises(GrammarError, match=r"^line 1 of the grammar, 'ε -> a'"):
        Grammar("ε -> a")


def test_renderable_symbols_give_the_classes_in_their_order(aerial: Grammar):
    assert aerial.classes == ("Road", "car")
    assert aerial.class_index("car") == 1
    assert Grammar("S -> a b", ["b", "S"]).classes == ("b", "S")
    assert Grammar("S -> a b", []).classes == ()


def test_renderable_symbols_that_are_wrong():
    with pytest.raises(GrammarError) as error:
        Grammar("Scene -> Road\nRoad -> car", ["Road", "cars"])
    expected = "renderable symbol 'cars' is not in the grammar. Did you mean 'car'? Available: Road, Scene, car."
    assert str(error.value) == expected
    with pytest.raises(GrammarError) as error:
        Grammar("S -> a b", ["a", "b", "a"])
    assert str(error.value) == "a renderable symbol is named twice: a, b, a"


def test_unknown_symbols_are_answered_with_the_nearest(aerial: Grammar):
    with pytest.raises(GrammarError) as error:
        aerial.class_index("Roads")
    assert str(error.value) == "'Roads' is not a renderable symbol. Did you mean 'Road'? Available: Road, car."
    with pytest.raises(GrammarError) as error:
        aerial.rules_of("cars")
    assert str(error.value) == "'cars' is not a non-terminal. Did you mean 'Cars'? Available: Cars, Road, Roads, Scene."


# -- fingerprint -------------------------------------------------------------------------------------------


def test_fingerprint_ignores_how_the_text_is_laid_out():
    one = Grammar("S -> a S | ε")
    assert one.fingerprint == Grammar("# hello\nS → a   S\n  | ε  # end").fingerprint
    assert one.fingerprint == Grammar("S -> a S\nS -> ε", ["a"]).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        Grammar("S -> ε | a S b", ["a", "b"]),  # rules have other numbers
        Grammar("S -> a S b | ε", ["b", "a"]),  # classes have other numbers
        Grammar("S -> a S b | ε", ["a"]),
        Grammar("T -> a T b | ε", ["a", "b"]),
        Grammar("S -> a S b", ["a", "b"]),
    ],
    ids=str,
)
def test_fingerprint_tells_meanings_apart(other: Grammar):
    assert other.fingerprint != Grammar("S -> a S b | ε", ["a", "b"]).fingerprint


# -- lint --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "level", "message"),
    [
        ("S -> a\nA -> b", "warning", "unreachable from S: A, b"),
        ("S -> a\nA -> B\nB -> A | b", "warning", "unreachable from S: A, B, b"),
        ("S -> a | T\nT -> t T", "error", "never terminate: T; give each a rule that ends"),
        ("S -> A\nA -> a B\nB -> b A", "error", "never terminate: S, A, B; give each a rule that ends"),
        ("S -> S a | b", "warning", "left-recursive, so the stack grows before it shrinks: S -> S a"),
    ],
)
def test_lint_finds(text: str, level: str, message: str):
    findings = Grammar(text, []).lint()
    assert findings == [LintFinding(level, message)]
    assert str(findings[0]) == f"{level}: {message}"


def test_lint_finds_nothing_in_the_grammars_of_the_paper(digits: Grammar, aerial: Grammar):
    assert digits.lint(t_max=2) == []
    assert aerial.lint(t_max=2) == []


def test_lint_names_classes_that_are_never_generated():
    assert Grammar("S -> a\nA -> b").lint() == [
        LintFinding("warning", "unreachable from S: A, b"),
        LintFinding("warning", "renderable but never generated: b"),
    ]


def test_lint_puts_errors_first():
    found = Grammar("S -> S a | b\nA -> A c").lint()
    assert [f.level for f in found] == ["error", "warning", "warning", "warning"]


def test_t_max_must_admit_the_shortest_derivation(digits: Grammar):
    digits.check(t_max=2)
    with pytest.raises(GrammarError) as error:
        digits.check(t_max=1)
    assert str(error.value) == "the shortest derivation takes 2 steps, t_max is 1; raise it"


def test_check_raises_errors_only():
    Grammar("S -> S a | b\nA -> c").check()
    with pytest.raises(GrammarError, match=r"^never terminate: A; give each a rule that ends$"):
        Grammar("S -> a\nA -> A").check(t_max=0)


@pytest.mark.parametrize(
    ("text", "shortest", "longest"),
    [
        ("S -> a b", {"S": 1}, 1),
        ("S -> A A | a\nA -> a | B B\nB -> b", {"S": 1, "A": 1, "B": 1}, 7),
        ("S -> A B\nA -> B B | B\nB -> C C\nC -> c", {"S": 8, "A": 4, "B": 3, "C": 1}, 11),
        ("S -> a S | ε", {"S": 1}, math.inf),
        ("S -> A\nA -> S | a", {"S": 2, "A": 1}, math.inf),  # mutual
        ("S -> a\nA -> a A | a", {"S": 1, "A": 1}, 1),  # the loop is unreachable
        ("S -> a | A b\nA -> A a", {"S": 1, "A": math.inf}, 1),  # the loop never ends
        ("S -> L T | a\nL -> a L | a\nT -> T t", {"S": 1, "L": 1, "T": math.inf}, 1),  # nor does what follows it
        ("S -> A", {"S": 1}, 1),  # A has no rule: a terminal
        ("S -> S", {"S": math.inf}, -math.inf),  # no derivation at all
    ],
)
def test_shortest_and_longest(text: str, shortest: dict[str, float], longest: float):
    grammar = Grammar(text)
    assert grammar.shortest_derivation == shortest
    assert grammar.longest_derivation == longest


def test_lengths_of_the_grammars_of_the_paper(digits: Grammar, aerial: Grammar):
    """Section 2 of METHOD.md: 2 + 2n for n digits, 2 + sum over roads of (3 + cars)."""
    lengths = {len(d) - 2 for d in digits.enumerate_derivations(8)}
    assert lengths == {0, 2, 4, 6}
    for rules in aerial.enumerate_derivations(12):
        assert len(rules) == 2 + 3 * rules.count(3) + rules.count(4)


@given(grammars(finite=True))
def test_lengths_against_all_derivations(grammar: Grammar):
    series = counts_by_length(grammar, 40)  # three levels below S with three symbols each: 1 + 3 + 9 + 27
    possible = [n for n, count in enumerate(series) if count]
    assert (grammar.shortest_derivation[grammar.start], grammar.longest_derivation) == (possible[0], possible[-1])


@given(st.sampled_from(TRICKY) | grammars())
def test_longest_is_infinite_where_a_useful_symbol_reaches_itself(grammar: Grammar):
    """By the transitive closure of "expands to", over the rules that can end; else it is a number that occurs."""
    edges = {
        (rule.lhs, s)
        for rule in grammar.rules
        if all(grammar.shortest_derivation.get(t, 0) < math.inf for t in rule.rhs)
        for s in rule.rhs
        if s in grammar.nonterminals
    }
    for middle in grammar.nonterminals:
        into, out = {a for a, b in edges if b == middle}, {b for a, b in edges if a == middle}
        edges |= {(a, b) for a in into for b in out}
    looping = any((s, s) in edges and (s == grammar.start or (grammar.start, s) in edges) for s, _ in edges)
    assert math.isinf(grammar.longest_derivation) == looping


# -- enumeration -------------------------------------------------------------------------------------------


def counts_by_length(grammar: Grammar, t_max: int) -> list[int]:
    """How many derivations take exactly 0, 1, ..., t_max steps, by the recursion of their generating functions."""
    count = {s: [0] * (t_max + 1) for s in grammar.nonterminals}

    def coefficients(symbols: tuple[str, ...], n: int) -> list[int]:
        """Of the product of the symbols' series, up to n."""
        product = [1] + [0] * n
        for s in symbols:
            if s in count:
                product = [sum(product[i] * count[s][m - i] for i in range(m + 1)) for m in range(n + 1)]
        return product

    for n in range(1, t_max + 1):
        for rule in grammar.rules:
            count[rule.lhs][n] += coefficients(rule.rhs, n - 1)[-1]
    return count[grammar.start]


@pytest.mark.parametrize("c", [1, 2, 3])
def test_number_of_scenes_with_digits(c: int):
    """n digits of c classes: c^n."""
    grammar = Grammar("Scene -> Digits\nDigits -> Digit Digits | ε\nDigit -> " + " | ".join(f"d{i}" for i in range(c)))
    for n in range(6):
        found = list(grammar.enumerate_derivations(2 + 2 * n))
        assert len(found) == sum(c**i for i in range(n + 1))
        assert len(list(grammar.enumerate_derivations(3 + 2 * n))) == len(found)  # an odd step admits none


def test_number_of_binary_trees():
    """S -> S S | a has Catalan(n) derivations with n + 1 leaves, which take 2n + 1 steps."""
    lengths = Counter(len(d) for d in Grammar("S -> S S | a").enumerate_derivations(17))
    assert lengths == {2 * n + 1: math.comb(2 * n, n) // (n + 1) for n in range(9)}


@given(st.sampled_from(TRICKY) | grammars())
def test_enumeration_is_complete_and_without_repetition(grammar: Grammar):
    expected = counts_by_length(grammar, 8)
    t_max = max(t for t in range(9) if sum(expected[: t + 1]) <= 2000)
    found = list(grammar.enumerate_derivations(t_max))
    assert len(set(found)) == len(found)
    assert Counter(map(len, found)) == {n: count for n, count in enumerate(expected[: t_max + 1]) if count}


def test_enumeration_ends_where_a_symbol_never_does():
    assert list(Grammar("S -> a | T\nT -> t T").enumerate_derivations(10)) == [(0,)]


# -- judged by others --------------------------------------------------------------------------------------


def judge(grammar: Grammar, rules: list[int]) -> bool:
    """Plain interpreter of leftmost derivations: rewrite the sentential form, then only padding."""
    form = [grammar.start]
    for number in rules:
        places = [i for i, s in enumerate(form) if s in grammar.nonterminals]
        if not places:
            if number != grammar.num_rules:
                return False
        elif 0 <= number < grammar.num_rules and grammar.rules[number].lhs == form[places[0]]:
            form[places[0] : places[0] + 1] = grammar.rules[number].rhs
        else:
            return False
    return not any(s in grammar.nonterminals for s in form)


@given(st.sampled_from(TRICKY) | grammars())
def test_what_is_enumerated_is_valid(grammar: Grammar):
    found = list(islice(grammar.enumerate_derivations(8), 300))
    assert all(judge(grammar, [*rules]) for rules in found)
    if found:
        assert bool(is_valid(grammar, pad(grammar, found)).all())


@given(samples(), st.data())
def test_corrupted_derivations_are_judged_alike(sample: tuple[Grammar, list[list[int]]], data: st.DataObject):
    grammar, batch = sample
    width = max(map(len, batch)) + data.draw(st.integers(0, 2))
    number = st.integers(-2, grammar.num_rules + 2)
    rows = [rules + [grammar.num_rules] * (width - len(rules)) for rules in batch]
    for row in rows:
        place = data.draw(st.integers(0, width - 1))
        match data.draw(st.sampled_from(["keep", "replace", "insert", "delete", "swap", "any"])):
            case "replace":
                row[place] = data.draw(number)
            case "insert":
                row[place:] = [data.draw(number), *row[place:-1]]
            case "delete":
                row[place:] = [*row[place + 1 :], grammar.num_rules]
            case "swap":
                row[place], row[-1] = row[-1], row[place]
            case "any":
                row[:] = data.draw(st.lists(number, min_size=width, max_size=width))
    assert is_valid(grammar, torch.tensor(rows)).tolist() == [judge(grammar, row) for row in rows]


def num_parses(grammar: nltk.CFG, string: list[str]) -> int:
    return len(list(nltk.ChartParser(grammar).parse(string)))


@given(samples(max_size=3))
def test_nltk_accepts_the_string_of_every_derivation(sample: tuple[Grammar, list[list[int]]]):
    grammar, batch = sample
    judge = nltk_grammar(grammar)
    for rules in batch:
        assert accepted(judge, list(to_tree(grammar, rules).terminals()))


@pytest.mark.parametrize("source", ["prior", "model"])
def test_nltk_accepts_what_is_sampled(digits: Grammar, aerial: Grammar, source: str):
    generator = torch.Generator().manual_seed(0)
    for grammar in (digits, aerial, Grammar("S -> ( S ) S | ε")):
        if source == "prior":
            weights = {s: [1.0, 1.5] for s in grammar.nonterminals if len(grammar.rules_of(s)) == 2}
            rules = ListLengthPrior(weights=weights).sample(grammar, 40, generator)
        else:
            rules = StructureModel(grammar, t_max=20, network=LSTM(4)).sample(40, generator).rules
        judge = nltk_grammar(grammar)
        assert len(set(unpadded(grammar, rules))) > 5
        for row in unpadded(grammar, rules):
            assert accepted(judge, list(to_tree(grammar, row).terminals()))


def test_nltk_refuses_strings_outside_the_language(digits: Grammar):
    judge = nltk_grammar(digits)
    assert accepted(judge, ["bg", "one", "zero"])
    for string in ([], ["one"], ["bg", "bg"], ["one", "bg"]):
        assert not accepted(judge, string)


@pytest.mark.parametrize(
    ("text", "t_max"),
    [
        ("Scene -> bg Digits\nDigits -> Digit Digits | ε\nDigit -> zero | one", 9),
        ("S -> ( S ) S | ε", 9),
        ("S -> a S a | b S b | ε", 6),
        ("E -> E + T | T\nT -> T * F | F\nF -> x | ( E )", 9),
    ],
)
def test_strings_of_unambiguous_grammars_have_one_parse(text: str, t_max: int):
    grammar = Grammar(text)
    judge = nltk_grammar(grammar)
    strings = [tuple(to_tree(grammar, rules).terminals()) for rules in grammar.enumerate_derivations(t_max)]
    assert len(set(strings)) == len(strings) > 5
    assert all(num_parses(judge, [*string]) == 1 for string in strings)


@given(grammars(finite=True))
def test_as_many_derivations_as_nltk_finds_parses(grammar: Grammar):
    """Of every string of a finite grammar that has no more than 300 derivations."""
    found = list(islice(grammar.enumerate_derivations(40), 301))
    if len(found) > 300:
        return
    judge = nltk_grammar(grammar)
    strings = Counter(tuple(to_tree(grammar, rules).terminals()) for rules in found)
    for string, count in strings.most_common(5):
        assert num_parses(judge, [*string]) == count


# -- tensors -----------------------------------------------------------------------------------------------


def test_tensors_of_a_grammar_small_enough_to_write_them_down():
    """Non-terminals S 0, L 1, none 2; rules S -> x L L, L -> y L, L -> ε, padding; classes L 0, y 1, x 2."""
    tensors = Grammar("S -> x L L\nL -> y L | ε", ["L", "y", "x"]).tensors()
    assert tensors.allowed.tolist() == [[True, False, False], [False, True, True], [False, False, False]]
    assert tensors.lhs.tolist() == [0, 1, 1, 2]
    assert tensors.push.tolist() == [[1, 1], [1, 2], [2, 2], [2, 2]]
    assert tensors.grow.tolist() == [1, 0, -1, 0]
    assert tensors.repeats.tolist() == [[False, False], [True, False], [False, False], [False, False]]
    assert tensors.emit.tolist() == [[2, -1], [0, 1], [0, -1], [-1, -1]]
    assert tensors.owns.tolist() == [False, True, True, False]


def test_tables_are_made_once(digits: Grammar):
    assert digits.tensors("cpu") is digits.tensors(torch.device("cpu"))


# -- depth -------------------------------------------------------------------------------------------------


def recursive_analysis(grammar: Grammar) -> tuple[dict[str, float], float, frozenset[str]]:
    """Shortest derivations by relaxation, the longest and the reachable symbols by recursion, for small grammars."""
    shortest: dict[str, float] = dict.fromkeys(grammar.nonterminals, math.inf)
    for _ in grammar.nonterminals:
        for rule in grammar.rules:
            shortest[rule.lhs] = min(shortest[rule.lhs], 1 + sum(shortest.get(s, 0) for s in rule.rhs))

    def longest(symbol: str, above: frozenset[str]) -> float:
        if symbol not in shortest:
            return 0
        if symbol in above:
            return math.inf
        bodies = [rule.rhs for rule in grammar.rules if rule.lhs == symbol]
        ending = [body for body in bodies if all(shortest.get(s, 0) < math.inf for s in body)]
        return max((1 + sum(longest(s, above | {symbol}) for s in body) for body in ending), default=-math.inf)

    def reach(symbol: str, seen: frozenset[str]) -> frozenset[str]:
        if symbol in seen:
            return seen
        seen |= {symbol}
        for rule in grammar.rules:
            for s in rule.rhs if rule.lhs == symbol else ():
                seen = reach(s, seen)
        return seen

    return shortest, longest(grammar.start, frozenset()), reach(grammar.start, frozenset())


@given(st.sampled_from(TRICKY) | grammars())
def test_analysis_is_that_by_recursion(grammar: Grammar):
    shortest, longest, reachable = recursive_analysis(grammar)
    assert grammar.shortest_derivation == shortest
    assert list(grammar.shortest_derivation) == list(grammar.nonterminals)
    assert grammar.longest_derivation == longest
    assert grammar.reachable == reachable


def chain(depth: int, step: str = "s{0} -> a s{1} | b") -> Grammar:
    rules = [step.format(i, i + 1) for i in range(depth - 1)]
    return Grammar("\n".join([*rules, f"s{depth - 1} -> a"]))


@pytest.mark.parametrize("depth", [3_000, 20_000])
def test_a_chain_may_be_deep(depth: int):
    grammar = chain(depth)
    assert (grammar.shortest_derivation["s0"], grammar.longest_derivation) == (1, depth)
    assert len(grammar.reachable) == depth + 2
    assert grammar.lint() == []
    rules = [*range(0, 2 * depth - 2, 2), 2 * depth - 2]
    tree = to_tree(grammar, rules)
    assert from_tree(tree) == rules
    assert list(tree.terminals()) == ["a"] * depth
    assert str(tree) == "(s0 a " + "".join(f"(s{i} a " for i in range(1, depth))[:-1] + ")" * depth
    assert tree == to_tree(grammar, rules)
    assert tree != to_tree(grammar, [*rules[:-2], rules[-2] + 1])


def test_a_deep_chain_that_never_ends_is_an_error():
    grammar = Grammar(str(chain(3_000)).replace("s2999 -> a", "s2999 -> s0").replace(" | b", ""))
    endless = Grammar("\n".join(str(rule) for rule in grammar.rules if rule.rhs != ("b",)))
    assert endless.longest_derivation == -math.inf
    assert "never terminate: s0, s1, " in endless.lint()[0].message
    assert grammar.longest_derivation == math.inf


def test_lengths_may_be_larger_than_any_float():
    grammar = chain(3_000, "s{0} -> s{1} s{1}")
    assert grammar.shortest_derivation["s0"] == grammar.longest_derivation == 2**3000 - 1
    assert "takes over 1e+300 steps" in grammar.lint(10)[0].message
    assert format_steps(12) == "12" and format_steps(math.inf) == "inf"


# -- bounds of derivations -------------------------------------------------------------------------------------


@given(st.sampled_from(TRICKY) | grammars())
def test_the_most_objects_and_the_tallest_stack_of_all_small_derivations(grammar: Grammar):
    """Against enumeration, number of steps by number of steps."""
    emitted = (grammar.tensors().emit >= 0).sum(1).tolist()
    push = [[s for s in rule.rhs if s in grammar.nonterminals] for rule in grammar.rules]
    most, tallest = [0] * 7, 1
    for rules in grammar.enumerate_derivations(6):
        objects, depth = sum(emitted[k] for k in rules), 1
        most[len(rules)] = max(most[len(rules)], objects)
        for k in rules:
            depth += len(push[k]) - 1
            tallest = max(tallest, depth)
    assert [grammar.most_objects(t) for t in range(7)] == [max(most[: t + 1]) for t in range(7)]
    assert tallest <= grammar.tallest_stack


def test_lists_need_no_more_room_the_longer_they_are():
    assert Grammar("S -> A B C\nA -> a A | ε\nB -> A B | ε\nC -> c").tallest_stack == 3
    assert Grammar("S -> A\nA -> B\nB -> b").tallest_stack == 1
    assert Grammar("S -> S a | ε").tallest_stack == 1
    assert Grammar("S -> S S | a").tallest_stack == math.inf
