"""Contracts of grammars and structure priors."""

from collections.abc import Iterator

from torch import Generator, Tensor

from ms2.contracts.base import Finding, call, is_table, place
from ms2.grammar.derivations import is_valid
from ms2.world import World

NUM_DERIVATIONS = 200
"""Derivations that are checked."""
LOG_SLACK = 1e-4
"""By how much the logarithm of a probability may exceed 0, from rounding."""


def grammar(world: World, draw: Generator) -> Iterator[Finding]:
    """The grammar has no faults, and derives objects of all its classes."""
    of = world.grammar
    for fault in of.lint():
        if fault.level == "error":
            yield Finding(place(of), "a grammar without faults", str(fault))
    lost = [name for name in of.classes if name not in of.reachable]
    if lost:
        yield Finding(place(of), "classes that the start symbol derives", f"no derivation of {', '.join(lost)}")


def derivations(world: World, draw: Generator) -> Iterator[Finding]:
    """Derivations of the structure prior are finished and of the grammar, with finite log-probabilities if any."""
    prior, where = world.structure_prior, place(world.structure_prior, "sample")
    rules = call(prior, "sample", world.grammar, NUM_DERIVATIONS, draw)
    if not is_table(rules, NUM_DERIVATIONS):
        found = f"{rules.dtype} of shape {list(rules.shape)}" if isinstance(rules, Tensor) else type(rules).__name__
        yield Finding(where, f"int64 of shape [{NUM_DERIVATIONS}, steps]", found)
        return
    valid = is_valid(world.grammar, rules)
    if not bool(valid.all()):
        first = rules[~valid][0].tolist()
        shown = f"[{', '.join(map(str, first[:12]))}{', ...' if len(first) > 12 else ''}]"
        found = f"{int((~valid).sum())} of {NUM_DERIVATIONS} that are none, such as the rules {shown}"
        yield Finding(where, f"finished derivations, padded with rule {world.grammar.num_rules}", found)
        return
    log_p = call(prior, "log_prob", world.grammar, rules)
    if log_p is None:
        return
    if log_p.shape != (NUM_DERIVATIONS,):
        yield Finding(place(prior, "log_prob"), f"a tensor of shape [{NUM_DERIVATIONS}]", f"{list(log_p.shape)}")
    elif not bool((log_p.isfinite() & (log_p <= LOG_SLACK)).all()):
        outside = int((~log_p.isfinite()).sum()), int((log_p > LOG_SLACK).sum())
        found = f"{outside[0]} that are not finite and {outside[1]} above 0 of {NUM_DERIVATIONS}"
        yield Finding(place(prior, "log_prob"), "finite log-probabilities of its own samples, at most 0", found)
