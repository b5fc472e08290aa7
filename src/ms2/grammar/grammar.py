"""The language of scenes: context-free grammars, their tables for batched expansion, lint and enumeration."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.hashing import digest
from ms2.core.registry import Plugin

EMPTY = "ε"


class GrammarError(UserError):
    """A grammar that cannot be read or used."""


class Rule(NamedTuple):
    """One numbered rule of a grammar: ``lhs -> rhs``."""

    lhs: str
    rhs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.lhs} -> {' '.join(self.rhs) or EMPTY}"


class Tables(NamedTuple):
    """A grammar as tensors: N non-terminals, K rules, R non-terminals in the longest right-hand side.

    Row N of ``allowed`` stands for an empty stack; row K of the others for the padding rule, which expands
    nothing. ``push`` is in the order in which a LIFO stack takes it, last symbol first.
    """

    allowed: Bool[Tensor, "n1 k"]
    lhs: Int[Tensor, " k1"]
    push: Int[Tensor, "k1 r"]
    grow: Int[Tensor, " k1"]
    repeats: Bool[Tensor, "k1 r"]
    lists: Bool[Tensor, " n1"]
    emit: Int[Tensor, "k1 e"]
    owns: Bool[Tensor, " k1"]


@dataclass(frozen=True)
class Finding:
    """What the lint of a grammar found."""

    level: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


class Grammar(Plugin, kind="grammars"):
    """A context-free grammar, whose leftmost derivations are scene structures (section 3.2).

    Written as text, one symbol to a line, ``|`` between alternatives and ``ε`` for the empty one::

        Scene  -> bg Digits
        Digits -> Digit Digits | ε

    Symbols with rules are non-terminals, all others terminals; the first symbol is the start. A derivation
    ends when only terminals remain (the paper says non-terminals, a misprint).

    Args:
        rules: The grammar as text.
        renderable: Symbols that become objects of the scene, in the order of their class numbers; a
            non-terminal may be renderable too. By default all terminals.

    Raises:
        GrammarError: If the text is not a grammar, with the line at fault.
    """

    def __init__(self, rules: str, renderable: Sequence[str] | None = None) -> None:
        self.rules: tuple[Rule, ...] = tuple(_parse(rules))
        self.start = self.rules[0].lhs
        self.nonterminals: tuple[str, ...] = tuple(dict.fromkeys(rule.lhs for rule in self.rules))
        everything = dict.fromkeys(symbol for rule in self.rules for symbol in (rule.lhs, *rule.rhs))
        self.terminals: tuple[str, ...] = tuple(s for s in everything if s not in self.nonterminals)
        self.classes: tuple[str, ...] = self.terminals if renderable is None else tuple(renderable)
        for symbol in self.classes:
            if symbol not in everything:
                raise GrammarError(f"renderable symbol {symbol!r} is not in the grammar. {suggest(symbol, everything)}")
        if len(set(self.classes)) < len(self.classes):
            raise GrammarError(f"a renderable symbol is named twice: {', '.join(self.classes)}")
        self._tables: dict[torch.device, Tables] = {}

    def __str__(self) -> str:
        return "\n".join(map(str, self.rules))

    @property
    def num_rules(self) -> int:
        """K, the number of rules; also the number of the padding rule that follows a finished derivation."""
        return len(self.rules)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of rules and classes: equal for grammars whose derivations mean the same."""
        return digest(f"{self}\n{self.classes}")

    def class_id(self, symbol: str) -> int:
        """The class number of a renderable symbol.

        Raises:
            GrammarError: If it isn't one.
        """
        if symbol not in self.classes:
            raise GrammarError(f"{symbol!r} is not a renderable symbol. {suggest(symbol, self.classes)}")
        return self.classes.index(symbol)

    def expansions(self, symbol: str) -> list[int]:
        """Numbers of the rules that expand a non-terminal.

        Raises:
            GrammarError: If it isn't one.
        """
        if symbol not in self.nonterminals:
            raise GrammarError(f"{symbol!r} is not a non-terminal. {suggest(symbol, self.nonterminals)}")
        return [k for k, rule in enumerate(self.rules) if rule.lhs == symbol]

    def tables(self, device: torch.device | str = "cpu") -> Tables:
        """The grammar's tensors on a device, made once."""
        device = torch.device(device)
        if device not in self._tables:
            self._tables[device] = Tables(*(table.to(device) for table in _tables(self)))
        return self._tables[device]

    # -- what can be said without sampling -------------------------------------------------------------

    @cached_property
    def shortest(self) -> dict[str, float]:
        """Steps of each non-terminal's shortest derivation; infinite for one that never terminates."""
        length: dict[str, float] = dict.fromkeys(self.nonterminals, math.inf)
        for _ in self.nonterminals:  # the shortest derivation is at most this deep
            for rule in self.rules:
                length[rule.lhs] = min(length[rule.lhs], 1 + sum(length.get(s, 0) for s in rule.rhs))
        return length

    @cached_property
    def longest(self) -> float:
        """Steps of the longest derivation; infinite where a reachable symbol can come back."""
        length: dict[str, float] = {}

        def visit(symbol: str, above: frozenset[str]) -> float:
            if symbol not in self.nonterminals or math.isinf(self.shortest[symbol]):
                return 0 if symbol not in self.nonterminals else -math.inf
            if symbol in above:
                return math.inf
            if symbol not in length:
                length[symbol] = max(
                    1 + sum(visit(s, above | {symbol}) for s in self.rules[k].rhs)
                    for k in self.expansions(symbol)
                    if all(self.shortest.get(s, 0) < math.inf for s in self.rules[k].rhs)
                )
            return length[symbol]

        return visit(self.start, frozenset())

    @cached_property
    def reachable(self) -> frozenset[str]:
        """Symbols that occur in some sentential form."""
        seen, queue = {self.start}, [self.start]
        while queue:
            symbol = queue.pop()
            new = {s for rule in self.rules if rule.lhs == symbol for s in rule.rhs} - seen
            seen |= new
            queue += new
        return frozenset(seen)

    def lint(self, t_max: int | None = None) -> list[Finding]:
        """Everything suspicious about the grammar; errors first.

        Args:
            t_max: Most steps that a derivation may take, to compare the shortest and longest with.
        """
        found = []
        endless = [s for s in self.nonterminals if math.isinf(self.shortest[s])]
        if endless:
            found.append(Finding("error", f"never terminate: {', '.join(endless)}; give each a rule that ends"))
        elif t_max is not None and self.shortest[self.start] > t_max:
            need = f"{self.shortest[self.start]:.0f}"
            found.append(Finding("error", f"the shortest derivation takes {need} steps, t_max is {t_max}; raise it"))
        unreachable = [s for s in (*self.nonterminals, *self.terminals) if s not in self.reachable]
        if unreachable:
            found.append(Finding("warning", f"unreachable from {self.start}: {', '.join(unreachable)}"))
        looping = [str(rule) for rule in self.rules if rule.rhs and rule.rhs[0] == rule.lhs]
        if looping:
            found.append(
                Finding("warning", f"left-recursive, so the stack grows before it shrinks: {'; '.join(looping)}")
            )
        unseen = [s for s in self.classes if s not in self.reachable]
        if unseen:
            found.append(Finding("warning", f"renderable but never generated: {', '.join(unseen)}"))
        return found

    def check(self, t_max: int | None = None) -> None:
        """Raise the lint's errors.

        Raises:
            GrammarError: If some symbol never terminates, or no derivation fits into ``t_max`` steps.
        """
        errors = [f.message for f in self.lint(t_max) if f.level == "error"]
        if errors:
            raise GrammarError("; ".join(errors))

    def derivations(self, t_max: int) -> Iterator[tuple[int, ...]]:
        """Every derivation of at most ``t_max`` steps, each once: the exact oracle for small grammars.

        Their number grows exponentially with ``t_max``.
        """
        reverse = {k: [s for s in reversed(rule.rhs) if s in self.shortest] for k, rule in enumerate(self.rules)}
        queue: list[tuple[tuple[int, ...], list[str]]] = [((), [self.start])]
        while queue:
            done, stack = queue.pop()
            if not stack:
                yield done
            elif len(done) + sum(self.shortest[s] for s in stack) <= t_max:
                queue += [((*done, k), stack[:-1] + reverse[k]) for k in self.expansions(stack[-1])]


def _parse(text: str) -> Iterator[Rule]:
    """Rules of a grammar's text, in the order of their numbers."""
    lhs, seen = None, set()
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        where = f"line {number} of the grammar, {line!r}"
        head, arrow, body = re.sub("→", "->", line).partition("->")
        if not arrow and line.startswith("|") and lhs is not None:
            body = line[1:]
        elif not arrow:
            raise GrammarError(f"{where}, has no '->'; write for example 'Digits -> Digit Digits | {EMPTY}'")
        elif len(head.split()) != 1 or "|" in head or head.strip() == EMPTY:
            raise GrammarError(f"{where}, must have exactly one symbol before '->'")
        else:
            lhs = head.strip()
        for alternative in body.split("|"):
            symbols = alternative.split()
            if not symbols or (EMPTY in symbols and len(symbols) > 1) or "->" in alternative:
                raise GrammarError(f"{where}: the alternative {alternative.strip()!r} is not symbols or a lone {EMPTY}")
            rule = Rule(str(lhs), tuple(s for s in symbols if s != EMPTY))
            if rule in seen:
                raise GrammarError(f"{where}, repeats the rule {rule}")
            seen.add(rule)
            yield rule
    if not seen:
        raise GrammarError(
            f"the grammar is empty; write for example 'Scene -> Digits' and 'Digits -> digit Digits | {EMPTY}'"
        )


def _tables(grammar: Grammar) -> Tables:
    """The grammar as tensors on the CPU."""
    number = {s: i for i, s in enumerate(grammar.nonterminals)}
    done, pad = len(number), grammar.num_rules
    pushed = [[s for s in reversed(rule.rhs) if s in number] for rule in grammar.rules] + [[]]
    emitted = [_emitted(grammar, rule) for rule in grammar.rules] + [[]]
    wide_push, wide_emit = max(1, *map(len, pushed)), max(1, *map(len, emitted))
    allowed = torch.zeros(done + 1, pad, dtype=torch.bool)
    for k, rule in enumerate(grammar.rules):
        allowed[number[rule.lhs], k] = True
    heads = [rule.lhs for rule in grammar.rules] + [""]
    return Tables(
        allowed=allowed,
        lhs=torch.tensor([number.get(s, done) for s in heads]),
        push=torch.tensor([[number[s] for s in row] + [done] * (wide_push - len(row)) for row in pushed]),
        # the padding rule leaves an empty stack empty, hence its 0 where other rules pop one symbol
        grow=torch.tensor([len(row) - 1 for row in pushed[:-1]] + [0]),
        repeats=torch.tensor(
            [
                [s == head for s in row] + [False] * (wide_push - len(row))
                for head, row in zip(heads, pushed, strict=True)
            ]
        ),
        lists=torch.tensor([any(s in grammar.rules[k].rhs for k in grammar.expansions(s)) for s in number] + [False]),
        emit=torch.tensor([[grammar.classes.index(s) for s in row] + [-1] * (wide_emit - len(row)) for row in emitted]),
        owns=torch.tensor([s in grammar.classes for s in heads]),
    )


def _emitted(grammar: Grammar, rule: Rule) -> list[str]:
    """Renderable symbols that a rule adds to the scene: its own left-hand side first, then its terminals."""
    return [s for s in (rule.lhs,) if s in grammar.classes] + [
        s for s in rule.rhs if s in grammar.classes and s in grammar.terminals
    ]


def rule_weights(values: Sequence[float], name: str, size: int | None = None) -> Float[Tensor, " k"]:
    """Weights as probabilities.

    Raises:
        GrammarError: If they are not ``size`` numbers, or negative, or all zero.
    """
    weights = torch.tensor([float(v) for v in values])
    if size is not None and len(weights) != size:
        raise GrammarError(f"the {name} must be {size} numbers, one per rule, not {len(weights)}")
    if not len(weights) or bool((weights < 0).any()) or not 0 < float(weights.sum()) < torch.inf:
        raise GrammarError(f"the {name} must be non-negative and not all zero, not {list(values)}")
    return weights / weights.sum()
