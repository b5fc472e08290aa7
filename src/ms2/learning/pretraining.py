"""Pretraining stage: fit the structure model to derivations of the prior by maximum likelihood."""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from ms2.core.bounds import BatchSize, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from ms2.core.seeding import generator
from ms2.grammar.derivations import lengths
from ms2.grammar.rules import GrammarError
from ms2.learning.stage import Stage
from ms2.models.structure import StructureModel
from ms2.priors.structure import StructurePrior
from ms2.world import World

MIN_SUPPORTED_FRACTION = 0.5
"""Fraction of the prior's derivations that the model must be able to produce."""


class Pretraining(Stage[Tensor]):
    """Maximises log q(T) over derivations T of the structure prior, drawn anew for each step.

    Training stops early at a plateau of the validation loss (see ``patience``). Where the prior knows its own
    log-probability, its entropy, the lower bound of the loss, is logged beside it.

    Derivations with longer lists than the model allows (``max_length`` of `StructureModel`) are left out: the model
    then learns the prior conditioned on shorter lists.

    Args:
        world: The world whose prior is learned.
        structure: The structure model.
        max_steps: Maximum number of training steps.
        batch_size: Derivations per step, over all processes.
        lr: Learning rate (Adam), which falls linearly to zero.
        val_check_interval: Steps between validations.
        patience: Validations without improvement after which training stops.
        num_validation: Number of derivations of the prior in the validation set.
        structure_prior: Structure prior to learn, the world's by default. Where that has few objects and the target
            many, mix in a little of a wider one: after rules that no training derivation contains, the model's
            predictions are arbitrary, and lists may grow without end once learning reaches them.
        seed: Seed of the derivations.

    Example:
        >>> stage = Pretraining(world, structure, max_steps=400)
        >>> Trainer(max_steps=stage.max_steps).fit(stage)
    """

    name, title = "pretraining", "pretraining on the prior"
    links = {"structure": "model.structure"}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        structure: StructureModel,
        max_steps: PositiveInt = 400,
        batch_size: BatchSize = 256,
        lr: PositiveFloat = 5e-3,
        val_check_interval: PositiveInt = 50,
        patience: NonNegativeInt = 4,
        num_validation: PositiveInt = 2000,
        structure_prior: StructurePrior | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(world, max_steps, batch_size, lr, seed)
        self.structure, self.structure_prior = structure, structure_prior or world.structure_prior
        self.val_check_interval, self.patience, self.num_validation = val_check_interval, patience, num_validation
        self._validation: Tensor | None = None

    @property
    def trained_module(self) -> StructureModel:
        """The structure model."""
        return self.structure

    def configure_callbacks(self) -> list[Callback]:
        """Configure early stopping at a plateau of the validation loss."""
        return [EarlyStopping("pretraining/val_nll", patience=self.patience, min_delta=1e-3)]

    def check(self) -> None:
        """Check that the model can produce the prior's derivations.

        Raises:
            GrammarError: If the prior draws derivations longer than the model's t_max, or mostly ones with longer
                lists than the model allows.
        """
        rules = self._validation_rules()
        longest = int(lengths(self.world.grammar, rules).max())
        if longest > self.structure.t_max:
            raise GrammarError(
                f"the prior draws derivations of {longest} steps, the model takes at most t_max = "
                f"{self.structure.t_max}: raise model.structure.t_max, with room for what is to be learned"
            )
        made = float(self.structure.in_support(rules).float().mean())
        if made < MIN_SUPPORTED_FRACTION:
            raise GrammarError(
                f"{1 - made:.0%} of the prior's derivations have longer lists than model.structure.max_length "
                "allows: raise it, with room for what is to be learned"
            )

    def on_fit_start(self) -> None:
        """Check again, for whoever trains the stage alone."""
        self.check()

    def draw_samples(self, n: int, generator: torch.Generator) -> Int[Tensor, "n t"]:
        """Draw derivations of the prior that the model can produce."""
        grammar, parts, number = self.world.grammar, list[Tensor](), 0
        while number < n:
            rules = self.structure_prior.sample(grammar, n, generator)
            parts.append(rules[self.structure.in_support(rules)])
            number += len(parts[-1])
        width = max(part.shape[1] for part in parts)
        return torch.cat([F.pad(p, (0, width - p.shape[1]), value=grammar.num_rules) for p in parts])[:n]

    def used(self, samples: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
        """Compute the lengths of derivations."""
        return lengths(self.world.grammar, samples)

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the negative log-likelihood of new derivations of the prior."""
        loss = -self.structure.log_prob(self.samples()).mean()
        self.log_loss("nll", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the negative log-likelihood of fixed derivations, and the prior's own where it is known."""
        rules = self._validation_rules()
        made = self.structure.in_support(rules)
        nll = -self.structure.log_prob(rules[made]).mean()
        self.log("pretraining/val_nll", nll, sync_dist=True)
        known = self.structure_prior.log_prob(self.world.grammar, rules)
        if known is not None and bool(made.all()):
            self.log("pretraining/prior_entropy", -known.mean(), sync_dist=True)

    def val_dataloader(self) -> DataLoader[int]:
        """Return one empty batch: ``validation_step`` draws its own derivations."""
        return DataLoader([0])  # type: ignore[arg-type]

    def _validation_rules(self) -> Tensor:
        if self._validation is None or self._validation.device != self.device:
            draw = generator(self.seed, "pretraining validation", device=self.device)
            self._validation = self.structure_prior.sample(self.world.grammar, self.num_validation, draw)
        return self._validation
