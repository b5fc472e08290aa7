"""Stage 2: pretrain the structure model on derivations of the prior, by maximum likelihood."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.grammar.derivations import lengths
from ms2.grammar.grammar import GrammarError
from ms2.learning.steps import Steps
from ms2.models.structure import StructureModel
from ms2.priors.structure import StructurePrior
from ms2.world import World

MIN_MADE = 0.5
"""Share of the prior's derivations that the model must be able to make."""


class Pretraining(Configured, LightningModule):
    """Maximises log q(T) over derivations T of the structure prior, drawn anew for each step.

    Stops early at a plateau of the validation loss (see `stop_after`). Where the prior knows its own
    log-probability, its entropy is logged beside the loss, which cannot fall below it.

    Derivations with longer lists than the model may make (`StructureModel`'s ``most``) are left out: it learns the
    prior given that there are none.

    Args:
        world: Whose prior to learn.
        structure: The structure model.
        max_steps: Most training steps.
        batch_size: Derivations per step, over all processes together.
        lr: Learning rate (Adam), which falls linearly to zero.
        validate_every: Steps between validations.
        stop_after: Validations in a row without improvement after which to stop.
        num_validation: Derivations to validate with.
        structure_prior: Structure prior to learn, the world's by default. Where that has few objects and the target
            many, one with a little of a wider one mixed in is better: what no derivation has shown, the model goes on
            with by chance, and once learning gets there lists may grow without end.
        seed: Seed of the derivations.
    """

    def __init__(
        self,
        world: World,
        structure: StructureModel,
        max_steps: int = 400,
        batch_size: int = 256,
        lr: float = 5e-3,
        validate_every: int = 50,
        stop_after: int = 4,
        num_validation: int = 2000,
        structure_prior: StructurePrior | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.world, self.structure, self.structure_prior = world, structure, structure_prior or world.structure_prior
        self.max_steps, self.batch_size, self.lr, self.seed = max_steps, batch_size, lr, seed
        self.findings: dict[str, float] = {}
        self.validate_every, self.stop_after, self.num_validation = validate_every, stop_after, num_validation

    title = "pretraining on the prior"

    @property
    def product(self) -> StructureModel:
        """What the stage trains."""
        return self.structure

    @property
    def needed(self) -> bool:
        """Always."""
        return True

    def configure_callbacks(self) -> list[Callback]:
        """Stop at a plateau."""
        return [EarlyStopping("pretraining/val_nll", patience=self.stop_after, min_delta=1e-3)]

    def on_fit_start(self) -> None:
        """Refuse a prior whose scenes the model can't express.

        Raises:
            GrammarError: If the prior draws derivations longer than the model's t_max, or mostly ones with longer
                lists than it may make.
        """
        rules = self._validation_rules()
        longest = int(lengths(self.world.grammar, rules).max())
        if longest > self.structure.t_max:
            raise GrammarError(
                f"the prior draws derivations of {longest} steps, the model takes at most t_max = "
                f"{self.structure.t_max}: raise model.structure.t_max, with room for what is to be learned"
            )
        made = float(self.structure.makes(rules).float().mean())
        if made < MIN_MADE:
            raise GrammarError(
                f"{1 - made:.0%} of the prior's derivations have longer lists than model.structure.max_length "
                "allows: raise it, with room for what is to be learned"
            )

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Negative log-likelihood of derivations of the prior."""
        draw = generator(self.seed, "pretraining", self.global_step, self.global_rank, device=self.device)
        rules = self.structure_prior.sample(self.world.grammar, self.batch_size // self.trainer.world_size, draw)
        loss = -self.structure.log_prob(rules[self.structure.makes(rules)]).mean()
        self.log("pretraining/nll", loss, prog_bar=True, sync_dist=True)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Let the learning rate fall."""
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.lr * (1 - self.global_step / self.max_steps)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Negative log-likelihood of fixed derivations, and the prior's own where it is known."""
        rules = self._validation_rules()
        made = self.structure.makes(rules)
        nll = -self.structure.log_prob(rules[made]).mean()
        self.log("pretraining/val_nll", nll, prog_bar=True, sync_dist=True)
        known = self.structure_prior.log_prob(self.world.grammar, rules)
        if known is not None and bool(made.all()):
            self.log("pretraining/prior_entropy", -known.mean(), sync_dist=True)

    def train_dataloader(self) -> Steps:
        """Numbers of the steps; each draws its own derivations."""
        return Steps(self.max_steps)

    def val_dataloader(self) -> DataLoader[int]:
        """One empty batch: validation has its own derivations."""
        return DataLoader([0])  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.structure.parameters(), self.lr)

    def _validation_rules(self) -> Tensor:
        draw = generator(self.seed, "pretraining validation", device=self.device)
        return self.structure_prior.sample(self.world.grammar, self.num_validation, draw)
