"""Context-free scene grammars: symbols, rules, linting and enumeration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ms2.core.errors import suggest
from ms2.core.hashing import digest
from ms2.core.registry import Plugin
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
        self.terminals: tuple[str, ...] = tuple(s for s in everything if s not in self.nonterminals)
        self.classes: tuple[str, ...] = self.terminals if renderable is None else tuple(renderable)
        for symbol in self.classes:
            if symbol not in everything:
                raise GrammarError(f"renderable symbol {symbol!r} is not in the grammar. {suggest(symbol, everything)}")
        if len(set(self.classes)) < len(self.classes):
            raise GrammarError(f"a renderable symbol is named twice: {', '.join(self.classes)}")
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
        if symbol not in self.nonterminals:
            raise GrammarError(f"{symbol!r} is not a non-terminal. {suggest(symbol, self.nonterminals)}")
        return [k for k, rule in enumerate(self.rules) if rule.lhs == symbol]

    def tensors(self, device: torch.device | str = "cpu") -> GrammarTensors:
        """Return the grammar as tensors on a device, cached per device."""
        device = torch.device(device)
        if device not in self._tensors:
            built = grammar_tensors(self.rules, self.nonterminals, self.terminals, self.classes)
            self._tensors[device] = GrammarTensors(*(tensor.to(device) for tensor in built))
        return self._tensors[device]

    # -- analysis -------------------------------------------------------------------------------------

    @cached_property
    def shortest_derivation(self) -> dict[str, float]:
        """Number of steps of each non-terminal's shortest derivation; infinite for one that never terminates."""
        length: dict[str, float] = dict.fromkeys(self.nonterminals, math.inf)
        for _ in self.nonterminals:  # the shortest derivation is at most this deep
            for rule in self.rules:
                length[rule.lhs] = min(length[rule.lhs], 1 + sum(length.get(s, 0) for s in rule.rhs))
        return length

    @cached_property
    def longest_derivation(self) -> float:
        """Number of steps of the longest derivation; infinite where a reachable symbol is recursive."""
        length: dict[str, float] = {}

        def visit(symbol: str, above: frozenset[str]) -> float:
            if symbol not in self.nonterminals or math.isinf(self.shortest_derivation[symbol]):
                return 0 if symbol not in self.nonterminals else -math.inf
            if symbol in above:
                return math.inf
            if symbol not in length:
                length[symbol] = max(
                    1 + sum(visit(s, above | {symbol}) for s in self.rules[k].rhs)
                    for k in self.rules_of(symbol)
                    if all(self.shortest_derivation.get(s, 0) < math.inf for s in self.rules[k].rhs)
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

    def lint(self, t_max: int | None = None) -> list[LintFinding]:
        """Lint the grammar; return its findings, errors first.

        Args:
            t_max: Maximum number of steps of a derivation, with which the shortest is compared.
        """
        found = []
        endless = [s for s in self.nonterminals if math.isinf(self.shortest_derivation[s])]
        if endless:
            found.append(LintFinding("error", f"never terminate: {', '.join(endless)}; give each a rule that ends"))
        elif t_max is not None and self.shortest_derivation[self.start] > t_max:
            need = f"{self.shortest_derivation[self.start]:.0f}"
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
