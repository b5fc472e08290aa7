"""Settings by which ``ms2 fit`` goes on from an induced world: an extractor that reads it, and what is compared."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ms2.learning.induction.codes import LengthTable
from ms2.learning.induction.hypothesis import Hypothesis
from ms2.learning.induction.lists import Expansion, FittedList
from ms2.learning.induction.writing import WrittenGrammar

TAIL = 5e-3
"""Probability of lists that are longer than what an extractor has to count, before `ROOM` is added."""
ROOM = 1.25
"""How much longer the lists of the extractor's training are, and derivations may become, as a factor."""
MAX_PARENTS = 12
"""Largest number of parents whose objects are counted one by one."""
NUM_DERIVATIONS = 2000
"""Derivations of which the longest is measured."""


def fit_settings(
    configuration: Mapping[str, Any], world: Mapping[str, Any], hypothesis: Hypothesis, written: WrittenGrammar
) -> dict[str, Any]:
    """Return the configuration of a run on an induced world.

    Target, renderer, training and what is evaluated are those of the run whose readings the world was induced from. The
    extractor is trained on lists of uniform length, and counts objects by parent where they nest.

    Args:
        configuration: That run's configuration, with all settings.
        world: Settings of the induced world: grammar and priors.
        hypothesis: What was learned.
        written: What it was written as.
    """
    settings = copy.deepcopy(dict(configuration))
    settings["world"] = {**settings["world"], **world}
    settings |= {"stage": "all", "fresh": False, "dry_run": False}
    rules = written.prior.sample(written.grammar, NUM_DERIVATIONS, torch.Generator().manual_seed(0))
    model, extractor = settings["model"], settings.setdefault("extractor", {})
    _arguments(model["structure"])["t_max"] = math.ceil(ROOM * rules.shape[1])
    extractor["structure_prior"] = {
        "class_path": "ListLengthPrior",
        "init_args": {"lengths": {name: [1.0] * (n + 1) for name, n in _longest(hypothesis, written).items()}},
    }
    counted, blocks = _counts(hypothesis)
    features = _arguments(model["features"])
    features |= counted
    objective = _arguments(_arguments(model["structure_learner"]).get("objective") or {})
    objective["blocks"] = blocks
    if isinstance(objective.get("bandwidth"), Mapping):  # of blocks that may not be there: H = d I, as by default
        objective |= {"bandwidth": 1.0, "relative_bandwidth": True}
    if settings.get("pretraining"):
        settings["pretraining"]["structure_prior"] = None  # the world's
    return settings


def _arguments(described: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class in a configuration."""
    found: dict[str, Any] = described.get("init_args", described)
    return found


def _longest(hypothesis: Hypothesis, written: WrittenGrammar) -> dict[str, int]:
    """Return, by the symbol of each list, the length up to which an extractor has to count."""
    found = {}
    for place, lists in _places(hypothesis):
        for number, one in enumerate(lists.lists):
            symbol = written.symbols[(*place, number)]
            if symbol is not None:
                found[symbol] = _most(one)
    return found


def _places(hypothesis: Hypothesis) -> Iterator[tuple[tuple[int | None, int], Expansion]]:
    yield from (((None, k), lists) for k, lists in enumerate(hypothesis.kinds))
    yield from (((c, 0), lists) for c, lists in hypothesis.inside.items())


def _most(one: FittedList) -> int:
    """Return the length that a list has room for."""
    return one.constant or max(math.ceil(ROOM * _likely(table)) for table in one.tables)


def _likely(table: LengthTable) -> int:
    """Return the length that lists exceed with a probability of `TAIL`."""
    total = 0.0
    for length, weight in enumerate(table.weights):
        total += weight
        if total >= 1 - TAIL:
            return length
    return len(table.weights) - 1


def _counts(hypothesis: Hypothesis) -> tuple[dict[str, Any], list[str]]:
    """Return settings of what `DenseCounts` counts, and the blocks that are compared."""
    names, top = hypothesis.classes, [one for lists in hypothesis.kinds for one in lists.lists]
    if not hypothesis.inside and len(hypothesis.kinds) == 1 and len(top) == 1 and len(top[0].rule.items) > 1:
        return {"max_count": _most(top[0])}, ["classes", "count"]
    most = _numbers(top)
    alone = set(most)  # classes of which some objects have no parent, by which they could be counted
    parents, counts, blocks = dict[str, int](), dict[str, int](), list[str]()
    owners = {c: (owner, lists) for owner, lists in hypothesis.inside.items() for c in _numbers(lists.lists)}
    waiting = list(owners)
    while waiting:  # parents first
        c = next((c for c in waiting if owners[c][0] not in waiting), waiting[0])
        waiting.remove(c)
        owner, lists = owners[c]
        each, above = _numbers(lists.lists)[c], most.get(owner, 1)
        most[c] = most.get(c, 0) + above * each
        if above <= MAX_PARENTS and c not in alone:
            parents[names[c]], counts[names[c]] = above, each
            blocks += [f"count_{names[c]}_{k + 1}" for k in range(max(1, round(above / ROOM)))]
    for c, number in most.items():
        if names[c] not in counts:
            counts[names[c]] = number
            blocks.append(f"count_{names[c]}")
    return {"max_count": counts, "parents_per_class": parents or None}, blocks


def _numbers(lists: list[FittedList] | tuple[FittedList, ...]) -> dict[int, int]:
    """Return the largest number of objects of each class in some lists."""
    found = dict[int, int]()
    for one in lists:
        for item in one.rule.items:
            for c, copies in item:
                found[c] = max(found.get(c, 0), copies * _most(one))
    return found
