"""A warning while lists grow, before derivations no longer end within t_max and sampling ends with an error."""

import math
import warnings
from typing import Any, NamedTuple

from jaxtyping import Float
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ms2.grammar.derivations import Derivations, lengths
from ms2.learning.structure_learner import StructureLearner
from ms2.models.structure import StructureModel

MIN_REJECTED, MIN_RISE, STANDARD_ERRORS = 0.1, 2.0, 3.0
"""Fraction of draws that are rejected, and its ratio to that of the first step, from which to warn; and by how many
standard errors it must exceed them, as batches are small."""
MAX_FALL, MIN_FILLED = 0.2, 0.5
"""Ratio of a list's probability to end to that of the first step, and mean steps over t_max, from which to warn."""


class Lists(NamedTuple):
    """How long lists are in a batch of derivations.

    Attributes:
        draws: Number of draws, those that were rejected included.
        rejected: Fraction of draws that were rejected.
        filled: Mean number of steps over t_max.
        end: Probability to end in each step of a list, by symbol: the share of its expansions that end it.
    """

    draws: int
    rejected: float
    filled: float
    end: dict[str, float]


class ListGrowthWarning(Callback):
    """Warns once if lists grow towards t_max: draws are rejected more and more, or a list hardly ends any more.

    The first step is what later ones are compared with. Samples are looked at when Lightning logs values, so that no
    other step waits for the device.
    """

    def __init__(self) -> None:
        self.first: Lists | None = None
        self.warned = False

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on with."""
        return {"first": None if self.first is None else tuple(self.first), "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.first = None if state_dict["first"] is None else Lists(*state_dict["first"])
        self.warned = state_dict["warned"]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look at the samples of the first step, and of steps whose values are logged."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_due = self.first is None or (every and trainer.global_step % every == 0)
        learner, structure = pl_module.structure_learner, pl_module.structure
        assert isinstance(learner, StructureLearner) and isinstance(structure, StructureModel)
        if self.warned or not is_due or learner.last_derivations is None or not trainer.is_global_zero:
            return
        now = list_lengths(structure, learner.last_derivations)
        self.first = self.first or now
        found = growth(structure, learner, self.first, now)
        if found is not None:
            self.warned = True
            warnings.warn(found, stacklevel=2)


def list_lengths(structure: StructureModel, derivations: Derivations) -> Lists:
    """Measure a batch of samples, which waits for the device."""
    grammar, rules = structure.grammar, derivations.rules.cpu()
    used = rules.flatten().bincount(minlength=grammar.num_rules + 1).float()
    end = {symbol: _end_probability(structure, symbol, used) for symbol in grammar.lists}
    rejections = int(derivations.rejections.sum())
    draws = rejections + len(rules)
    filled = float(lengths(grammar, rules).float().mean()) / structure.t_max
    return Lists(draws, rejections / draws, filled, end)


def _end_probability(structure: StructureModel, symbol: str, used: Float[Tensor, " k1"]) -> float:
    numbers = structure.grammar.rules_of(symbol)
    ends = ~structure.extends_list.cpu()[numbers]
    total = float(used[numbers].sum())
    return float(used[numbers][ends].sum()) / total if total else 1.0


def growth(structure: StructureModel, learner: StructureLearner, first: Lists, now: Lists) -> str | None:
    """Return how lists have grown and what to do, if they are about to exceed t_max."""
    if not now.end:
        return None
    fall = {symbol: end / first.end[symbol] for symbol, end in now.end.items()}
    symbol = min(set(fall) - structure.bounded or fall, key=lambda name: fall[name])
    least = now.rejected - STANDARD_ERRORS * math.sqrt(now.rejected * (1 - now.rejected) / now.draws)
    rejected = least >= max(MIN_REJECTED, MIN_RISE * first.rejected)
    endless = fall[symbol] <= MAX_FALL and now.filled >= MIN_FILLED and symbol not in structure.bounded
    if not (rejected or endless):
        return None
    items = [1 / max(found.end[symbol], 1e-3) - 1 for found in (first, now)]
    return (
        f"lists grow towards t_max = {structure.t_max} steps: {now.rejected:.0%} of the draws exceed it and are "
        f"rejected ({first.rejected:.0%} in the first step). {symbol} grows most: it has {items[1]:.0f} items on "
        f"average ({items[0]:.0f}) and ends in each step with probability {now.end[symbol]:.2g} "
        f"({first.end[symbol]:.2g}). Learning ends with an error once no scene ends in time: bound the list "
        f"(model.structure.max_length), lower model.structure_learner.lr, now {learner.lr:g}, or raise "
        f"model.structure_learner.reject_weight, now {learner.reject_weight:g}"
    )
