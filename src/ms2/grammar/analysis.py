"""Analysis of context-free grammars in about linear time: lengths of derivations, and symbols that can be reached.

Nothing here recurses, so that a grammar may be a chain of any depth.
"""

import math
from collections.abc import Collection, Sequence
from heapq import heappop, heappush

import numpy as np

from ms2.grammar.rules import Rule

MAX_SHOWN = 1e300
"""Largest number of steps that is written out: lengths can grow exponentially with the number of rules."""


def format_steps(steps: int | float) -> str:
    """Format a number of steps, which may be too large for a float."""
    return f"{steps:g}" if steps <= MAX_SHOWN or steps == math.inf else f"over {MAX_SHOWN:g}"


def shortest_derivations(rules: Sequence[Rule]) -> dict[str, int | float]:
    """Compute the number of steps of each non-terminal's shortest derivation; infinite for one that never terminates.

    Symbols are settled in the order of their lengths, as in Dijkstra's algorithm (Knuth, A generalization of Dijkstra's
    algorithm, 1977): a rule counts once all symbols of its right-hand side are settled.
    """
    length: dict[str, int | float] = dict.fromkeys((rule.lhs for rule in rules), math.inf)
    uses: dict[str, list[int]] = {symbol: [] for symbol in length}  # rules by symbols of their right-hand sides
    for k, rule in enumerate(rules):
        for symbol in rule.rhs:
            if symbol in uses:
                uses[symbol].append(k)
    unsettled = [sum(symbol in length for symbol in rule.rhs) for rule in rules]
    steps: list[int] = [1] * len(rules)
    queue: list[tuple[int, int]] = []  # steps of a rule, and its number
    for k, number in enumerate(unsettled):
        if number == 0:
            heappush(queue, (1, k))
    while queue:
        found, settled = heappop(queue)
        symbol = rules[settled].lhs
        if length[symbol] != math.inf:
            continue
        length[symbol] = found
        for k in uses[symbol]:
            steps[k] += found
            unsettled[k] -= 1
            if unsettled[k] == 0:
                heappush(queue, (steps[k], k))
    return length


def longest_derivation(rules: Sequence[Rule], start: str, shortest: dict[str, int | float]) -> int | float:
    """Compute the number of steps of the longest derivation.

    Args:
        rules: Rules of the grammar.
        start: Start symbol.
        shortest: Result of `shortest_derivations`.

    Returns:
        The number; infinite where a symbol that can be reached is recursive, minus infinity where no derivation ends.
    """
    if shortest[start] == math.inf:
        return -math.inf
    bodies: dict[str, list[list[str]]] = {symbol: [] for symbol in shortest}  # of rules that occur in derivations
    for rule in rules:
        body = [symbol for symbol in rule.rhs if symbol in shortest]
        if all(shortest[symbol] < math.inf for symbol in body):
            bodies[rule.lhs].append(body)
    length: dict[str, int] = {}
    opened = {start}
    stack = [(start, iter([symbol for body in bodies[start] for symbol in body]))]
    while stack:
        symbol, below = stack[-1]
        following = next((s for s in below if s not in length), None)
        if following is None:
            length[symbol] = max(1 + sum(length[s] for s in body) for body in bodies[symbol])
            stack.pop()
        elif following in opened:  # and has no length yet: it derives itself
            return math.inf
        else:
            opened.add(following)
            stack.append((following, iter([s for body in bodies[following] for s in body])))
    return length[start]


def most_objects(rules: Sequence[Rule], start: str, emitted: Sequence[int], t: int) -> list[int]:
    """Compute the largest number of objects of any derivation of at most 0, 1, ..., t steps; 0 where there is none.

    Args:
        rules: Rules of the grammar.
        start: Start symbol.
        emitted: Number of objects that each rule adds to the scene.
        t: Largest number of steps.
    """

    def unknown() -> np.ndarray:
        return np.full(t + 1, -math.inf)

    # by number of steps: of each symbol, and of what each rule's right-hand side has from its i-th non-terminal on
    of_symbol = {rule.lhs: unknown() for rule in rules}
    bodies = [[of_symbol[symbol] for symbol in rule.rhs if symbol in of_symbol] for rule in rules]
    of_rest = [[*(unknown() for _ in body[1:]), *body[-1:]] or [np.zeros(t + 1)] for body in bodies]
    for u in range(1, t + 1):
        for rule, number, rests in zip(rules, emitted, of_rest, strict=True):
            of_symbol[rule.lhs][u] = max(of_symbol[rule.lhs][u], number + rests[0][u - 1])
        for body, rests in zip(bodies, of_rest, strict=True):
            for first, rest, both in zip(body, rests[1:], rests, strict=False):
                both[u] = (first[: u + 1] + rest[u::-1]).max()
    return [int(number) for number in np.maximum.accumulate(of_symbol[start]).clip(min=0)]


def tallest_stack(rules: Sequence[Rule], start: str) -> int | float:
    """Compute the largest number of non-terminals that are left to expand in any leftmost derivation.

    Below the i-th of a right-hand side's non-terminals lie those after it. Lists such as ``L -> x L | ε`` have nothing
    after themselves, so that they need no more room the longer they are.

    Returns:
        The number; infinite where a symbol can derive itself with more after it.
    """
    heights = dict.fromkeys((rule.lhs for rule in rules), 1)
    reachable = reachable_symbols(rules, start)
    below = []  # symbol, a non-terminal of its right-hand side, and the number of those after it
    for rule in rules:
        body = [symbol for symbol in rule.rhs if symbol in heights]
        if rule.lhs in reachable:
            below += [(rule.lhs, symbol, len(body) - i) for i, symbol in enumerate(body, 1)]
    # longest paths, after Bellman and Ford: heights that still grow after so many rounds grow for ever.
    # In reverse order, since symbols often use symbols that are declared after them.
    for _ in range(len(heights) + 1):
        grown = False
        for symbol, child, after in reversed(below):
            if heights[child] + after > heights[symbol]:
                heights[symbol], grown = heights[child] + after, True
        if not grown:
            return heights[start]
    return math.inf


def reachable_symbols(rules: Sequence[Rule], start: str) -> frozenset[str]:
    """Return the symbols that occur in some sentential form."""
    bodies: dict[str, list[str]] = {}
    for rule in rules:
        bodies.setdefault(rule.lhs, []).extend(rule.rhs)
    seen, queue = {start}, [start]
    while queue:
        new = set(bodies.get(queue.pop(), ())) - seen
        seen |= new
        queue += new
    return frozenset(seen)


def object_generations(rules: Sequence[Rule], start: str, classes: Collection[str]) -> int | float:
    """Compute the largest number of objects on a path from an object up to one without parent; may be infinite.

    Args:
        rules: The rules.
        start: The start symbol.
        classes: Renderable symbols. The parent of an object is its nearest renderable ancestor.
    """
    by_symbol: dict[str, list[Rule]] = {}
    for rule in rules:
        by_symbol.setdefault(rule.lhs, []).append(rule)
    below: dict[str, set[str]] = {}  # classes of the children of each class; of no class, by an empty name
    seen = {(start, "")}
    queue = list(seen)
    while queue:
        symbol, parent = queue.pop()
        if symbol in classes:
            below.setdefault(parent, set()).add(symbol)
            parent = symbol
        reached = {(s, parent) for rule in by_symbol.get(symbol, ()) for s in rule.rhs} - seen
        seen |= reached
        queue += reached
    depth, current = 0, below.get("", set())
    while current:
        depth, current = depth + 1, set().union(*(below.get(name, set()) for name in current))
        if depth > len(classes):
            return math.inf
    return max(1, depth)
