"""What several test files compare with: random grammars, small networks, and a goodness-of-fit test."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import nltk
import torch
from hypothesis import assume
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ms2.grammar.grammar import Grammar
from ms2.models.networks import GRU, LSTM, SequenceNetwork, Transformer

T_MAX = 12

NETWORKS: dict[str, Callable[[int], SequenceNetwork]] = {
    "lstm": LSTM,
    "gru": GRU,
    "transformer": lambda hidden: Transformer(hidden, num_layers=2, num_heads=1),
}
"""Every sequence network by name, made from its width."""

# Ambiguous, left-recursive, cyclic (A -> B, B -> A), with renderable non-terminals, with one rule only, ...
TRICKY = [
    Grammar("S -> a"),
    Grammar("S -> S S | a"),
    Grammar("S -> S a | ε", ["S", "a"]),
    Grammar("A -> B | x\nB -> A B | C\nC -> A", ["A", "x", "C"]),
    Grammar("S -> S S S | ε | a S b", ["b", "a"]),
    Grammar("S -> A A\nA -> B x B | ε\nB -> A A A | y", ["B"]),
]


@st.composite
def grammars(draw: st.DrawFn, finite: bool = False) -> Grammar:
    """A terminating grammar; ``finite`` allows a symbol to expand only to later ones."""
    names = ["S", "A", "B", "C"][: draw(st.integers(2, 4))]
    lines = []
    for i, name in enumerate(names):
        symbol = st.sampled_from([*(names[i + 1 :] if finite else names), "a", "b", "c"])
        rules = draw(st.lists(st.lists(symbol, max_size=3), min_size=1, max_size=4, unique_by=tuple))
        lines.append(f"{name} -> {' | '.join(' '.join(rule) or 'ε' for rule in rules)}")
    everything = sorted(set(" ".join(lines).split()) - {"->", "|", "ε"})
    renderable = draw(st.none() | st.lists(st.sampled_from(everything), unique=True))
    grammar = Grammar("\n".join(lines), renderable)
    assume(not any(finding.level == "error" for finding in grammar.lint(T_MAX)))
    return grammar


@st.composite
def derivations(draw: st.DrawFn, grammar: Grammar, t_max: int = T_MAX) -> list[int]:
    """A random walk through the grammar, which steers home in time."""
    done: list[int] = []
    stack = [grammar.start]
    while stack:
        symbol, left = stack.pop(), t_max - len(done)
        pushed = {
            k: [s for s in reversed(grammar.rules[k].rhs) if s in grammar.nonterminals]
            for k in grammar.rules_of(symbol)
        }
        rule = draw(st.sampled_from([k for k, push in pushed.items() if 1 + steps(grammar, [*stack, *push]) <= left]))
        done.append(rule)
        stack += pushed[rule]
    return done


def steps(grammar: Grammar, stack: Sequence[str]) -> float:
    return sum(grammar.shortest_derivation[s] for s in stack)


@st.composite
def samples(draw: st.DrawFn, max_size: int = 5) -> tuple[Grammar, list[list[int]]]:
    """A grammar, random or tricky, with some of its derivations."""
    grammar = draw(st.sampled_from(TRICKY) | grammars())
    return grammar, draw(st.lists(derivations(grammar), min_size=1, max_size=max_size))


def unpadded(grammar: Grammar, rules: Tensor) -> list[tuple[int, ...]]:
    """Rows of a batch without their padding."""
    padding = grammar.num_rules
    return [tuple(r for r in row if r != padding) for row in rules.tolist()]


def fit(drawn: Iterable[object], law: dict[object, float]) -> float:
    """p-value of a chi-square test that ``drawn`` follows ``law``; values expected less than 5 times are pooled."""
    seen = Counter(drawn)
    assert set(seen) <= set(law), f"drawn, but impossible: {set(seen) - set(law)}"
    expected = torch.tensor(list(law.values()), dtype=torch.float64)
    expected *= seen.total() / expected.sum()
    observed = torch.tensor([seen[value] for value in law], dtype=torch.float64)
    often = expected >= 5
    if bool((~often).any()):
        expected = torch.cat([expected[often], expected[~often].sum()[None]])
        observed = torch.cat([observed[often], observed[~often].sum()[None]])
    if len(expected) == 1:
        return 1.0  # nothing could be otherwise
    return float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


def nltk_grammar(grammar: Grammar) -> nltk.CFG:
    symbol = {s: nltk.Nonterminal(s) for s in grammar.nonterminals}
    productions = [nltk.Production(symbol[r.lhs], [symbol.get(s, s) for s in r.rhs]) for r in grammar.rules]
    return nltk.CFG(symbol[grammar.start], productions)


def accepted(grammar: nltk.CFG, string: list[str]) -> bool:
    """Whether the chart has an edge from the start symbol over the whole string."""
    chart = nltk.ChartParser(grammar).chart_parse(string)
    return any(True for _ in chart.select(start=0, end=len(string), is_complete=True, lhs=grammar.start()))
