"""Context-free scene grammars: symbols, rules, linting and enumeration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ms2.core.errors import suggest
from ms2.core.hashing import digest
from ms2.core.registry import Plugin
from ms2.grammar.analysis import (
    format_steps,
    longest_derivation,
    most_objects,
    reachable_symbols,
    shortest_derivations,
    tallest_stack,
)
from ms2.grammar.rules import GrammarError, Rule, parse_rules
from ms2.grammar.tensors import GrammarTensors, grammar_tensors


@dataclass(frozen=True)
class LintFinding:
    """One finding of the grammar linter: its level, ``error`` or ``warning``, and its message."""

    level: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


class Grammar(Plugin, kind="grammars"):
    """A context-free grammar whose leftmost derivations are scene structures (section 3.2).

    Written as text, one symbol to a line, ``|`` between alternatives and ``ε`` for the empty one::

        Scene  -> bg Digits
        Digits -> Digit Digits | ε

    Symbols with rules are non-terminals, all others terminals; the first symbol is the start. A derivation
    ends when only terminals remain (the paper says non-terminals, a misprint).

    Args:
        rules: The grammar as text.
        renderable: Symbols that become objects of the scene, in the order of their class indices; a
            non-terminal may be renderable too. By default all terminals.

    Attributes:
        expansions: Numbers of the rules that expand each non-terminal.

    Raises:
        GrammarError: If the text is not a grammar, with the line at fault.

    Example:
        >>> grammar = Grammar("Ducks -> duck Ducks | ε")
        >>> grammar.num_rules, grammar.classes
        (2, ('duck',))
    """

    def __init__(self, rules: str, renderable: Sequence[str] | None = None) -> None:
        self.rules: tuple[Rule, ...] = tuple(parse_rules(rules))
        self.start = self.rules[0].lhs
        self.nonterminals: tuple[str, ...] = tuple(dict.fromkeys(rule.lhs for rule in self.rules))
        everything = dict.fromkeys(symbol for rule in self.rules for symbol in (rule.lhs, *rule.rhs))
        expansions: dict[str, list[int]] = {symbol: [] for symbol in self.nonterminals}
        for k, rule in enumerate(self.rules):
            expansions[rule.lhs].append(k)
        self.expansions: dict[str, tuple[int, ...]] = {symbol: tuple(numbers) for symbol, numbers in expansions.items()}
        self.terminals: tuple[str, ...] = tuple(s for s in everything if s not in expansions)
        self.classes: tuple[str, ...] = self.terminals if renderable is None else tuple(renderable)
        for symbol in self.classes:
            if symbol not in everything:
                raise GrammarError(f"renderable symbol {symbol!r} is not in the grammar. {suggest(symbol, everything)}")
        if len(set(self.classes)) < len(self.classes):
            raise GrammarError(f"a renderable symbol is named twice: {', '.join(self.classes)}")
        self._most_objects: list[int] = []
        self._tensors: dict[torch.device, GrammarTensors] = {}

    def __str__(self) -> str:
        return "\n".join(map(str, self.rules))

    @property
    def num_rules(self) -> int:
        """K, the number of rules; number K is the padding rule that follows a finished derivation."""
        return len(self.rules)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of rules and classes; grammars with equal hashes have the same derivations and classes."""
        return digest(f"{self}\n{self.classes}")

    def class_index(self, symbol: str) -> int:
        """Return the class index of a renderable symbol.

        Raises:
            GrammarError: If it isn't one.
        """
        if symbol not in self.classes:
            raise GrammarError(f"{symbol!r} is not a renderable symbol. {suggest(symbol, self.classes)}")
        return self.classes.index(symbol)

    def rules_of(self, symbol: str) -> list[int]:
        """Return the numbers of the rules that expand a non-terminal.

        Raises:
            GrammarError: If it isn't one.
        """
        if symbol not in self.expansions:
            raise GrammarError(f"{symbol!r} is not a non-terminal. {suggest(symbol, self.nonterminals)}")
        return list(self.expansions[symbol])

    def tensors(self, device: torch.device | str = "cpu") -> GrammarTensors:
        """Return the grammar as tensors on a device, cached per device."""
        device = torch.device(device)
        if device not in self._tensors:
            built = grammar_tensors(self.rules, self.nonterminals, self.classes)
            self._tensors[device] = GrammarTensors(*(tensor.to(device) for tensor in built))
        return self._tensors[device]

    # -- analysis -------------------------------------------------------------------------------------

    @cached_property
    def shortest_derivation(self) -> dict[str, int | float]:
        """Number of steps of each non-terminal's shortest derivation; infinite for one that never terminates."""
        return shortest_derivations(self.rules)

    @cached_property
    def lists(self) -> tuple[str, ...]:
        """Non-terminals with rules that repeat them and rules that do not, such as ``Cars -> car Cars | ε``."""
        repeats = {s: {s in self.rules[k].rhs for k in numbers} for s, numbers in self.expansions.items()}
        return tuple(symbol for symbol, found in repeats.items() if found == {True, False})

    @cached_property
    def longest_derivation(self) -> int | float:
        """Number of steps of the longest derivation; infinite where a reachable symbol is recursive."""
        return longest_derivation(self.rules, self.start, self.shortest_derivation)

    @cached_property
    def tallest_stack(self) -> int | float:
        """Largest number of non-terminals that are left to expand in any derivation; infinite without a bound."""
        return tallest_stack(self.rules, self.start)

    def most_objects(self, t: int) -> int:
        """Return the largest number of objects of any derivation of at most t steps."""
        if t >= len(self._most_objects):
            emitted = (self.tensors().emit >= 0).sum(1).tolist()
            self._most_objects = most_objects(self.rules, self.start, emitted[:-1], 2 * t)
        return self._most_objects[t]

    @cached_property
    def reachable(self) -> frozenset[str]:
        """Symbols that occur in some sentential form."""
        return reachable_symbols(self.rules, self.start)

    def lint(self, t_max: int | None = None) -> list[LintFinding]:
        """Lint the grammar; return its findings, errors first.

        Args:
            t_max: Maximum number of steps of a derivation, with which the shortest is compared.
        """
        found = []
        endless = [s for s in self.nonterminals if self.shortest_derivation[s] == math.inf]
        if endless:
            found.append(LintFinding("error", f"never terminate: {', '.join(endless)}; give each a rule that ends"))
        elif t_max is not None and self.shortest_derivation[self.start] > t_max:
            need = format_steps(self.shortest_derivation[self.start])
            found.append(
                LintFinding("error", f"the shortest derivation takes {need} steps, t_max is {t_max}; raise it")
            )
        unreachable = [s for s in (*self.nonterminals, *self.terminals) if s not in self.reachable]
        if unreachable:
            found.append(LintFinding("warning", f"unreachable from {self.start}: {', '.join(unreachable)}"))
        looping = [str(rule) for rule in self.rules if rule.rhs and rule.rhs[0] == rule.lhs]
        if looping:
            found.append(
                LintFinding("warning", f"left-recursive, so the stack grows before it shrinks: {'; '.join(looping)}")
            )
        unseen = [s for s in self.classes if s not in self.reachable]
        if unseen:
            found.append(LintFinding("warning", f"renderable but never generated: {', '.join(unseen)}"))
        return found

    def check(self, t_max: int | None = None) -> None:
        """Raise an error if the linter finds errors.

        Raises:
            GrammarError: If some symbol never terminates, or no derivation fits into ``t_max`` steps.
        """
        errors = [f.message for f in self.lint(t_max) if f.level == "error"]
        if errors:
            raise GrammarError("; ".join(errors))

    def enumerate_derivations(self, t_max: int) -> Iterator[tuple[int, ...]]:
        """Enumerate all derivations of at most ``t_max`` steps, for exact results on small grammars.

        Their number grows exponentially with ``t_max``.
        """
        steps = self.shortest_derivation
        reverse = {k: [s for s in reversed(rule.rhs) if s in steps] for k, rule in enumerate(self.rules)}
        queue: list[tuple[tuple[int, ...], list[str]]] = [((), [self.start])]
        while queue:
            done, stack = queue.pop()
            if not stack:
                yield done
            elif len(done) + sum(steps[s] for s in stack) <= t_max:
                queue += [((*done, k), stack[:-1] + reverse[k]) for k in self.rules_of(stack[-1])]
