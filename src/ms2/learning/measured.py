"""Temporary: evaluation settings and validation of `MetaSim2`, until the evaluation package measures by itself."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.seeding import generator
from ms2.evaluation.image_distances import ImageDistances
from ms2.learning.metasim2 import MetaSim2
from ms2.metrics.attribute_distances import attribute_w1
from ms2.metrics.attributes import AttributeStatistic
from ms2.metrics.histograms import distribution, total_variation
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic, StructureVector
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.targets.base import Target
from ms2.targets.synthetic import Synthetic

VALIDATED = 1000
"""Scenes by which a validation judges parameters."""
MIN_SEEN = 0.1
"""Visible share of an object from which somebody who annotates images would see it."""
RENDERED_AT_ONCE = 50
"""Scenes whose images are drawn together where only their labels are asked for."""


class MeasuredMetaSim2(MetaSim2):
    """`MetaSim2` with settings of its evaluation.

    Args:
        statistics: Structure statistics to evaluate against the target's ground truth.
        attribute_statistics: Attribute statistics to evaluate against the target's ground truth.
        eval_scenes: Scenes that a validation draws.
        eval_images: Images that it draws instead where the target's truth was annotated in images.
        image_distances: FID and KID of the learned images at the end of a run; null for none.
    """

    def __init__(
        self,
        *args: Any,
        statistics: Sequence[StructureStatistic] | None = None,
        attribute_statistics: Sequence[AttributeStatistic] | None = None,
        eval_scenes: int = 4000,
        eval_images: int = 500,
        image_distances: ImageDistances | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.statistics = list(statistics or (ObjectCount(), ClassFrequency()))
        self.attribute_statistics = list(attribute_statistics or ())
        self.eval_scenes, self.eval_images, self.image_distances = eval_scenes, eval_images, image_distances

    def on_train_start(self) -> None:
        """Check that image distances can be measured at the end."""
        if self.image_distances is not None:
            self.image_distances.check(self.world.renderer, self.trainer.datamodule.num_images)  # type: ignore[attr-defined]

    @torch.no_grad()
    def scenes(self, rules: Int[Tensor, "n t"], annotated: bool = False) -> SceneBatch:
        """Scenes of derivations, without parameters.

        Args:
            rules: The derivations.
            annotated: Leave out what nobody would see in an image of the scene, see `MIN_SEEN`. Then there are only
                the first ``eval_images`` of them.
        """
        if not annotated:
            return scenes_from_derivations(self.world.grammar, rules)
        draw = generator(self.seed, "annotated", device=rules.device)
        parts = []
        for some in rules[: self.eval_images].split(RENDERED_AT_ONCE):
            scenes = self.current_model().scenes(some, draw)
            seen = self.world.renderer.render_labelled(scenes).visibility >= MIN_SEEN
            parts.append(torch.where(seen & scenes.mask, scenes.classes, -1))
        most = max(part.shape[1] for part in parts)
        classes = torch.cat([F.pad(part, (0, most - part.shape[1]), value=-1) for part in parts])
        return SceneBatch(classes, torch.full_like(classes, -1))

    def tables(self, scenes: SceneBatch) -> dict[str, Float[Tensor, "n k"]]:
        """The statistics of scenes by name, see `ms2.metrics.histograms.compare_histograms`."""
        return {s.name: s.measure(scenes, self.world.grammar.classes).float() for s in self.statistics}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Distance of the model's structure to the target's true one, where that is known."""
        draw = generator(self.seed, "validation", device=self.device)
        target: Target = self.trainer.datamodule.target  # type: ignore[attr-defined]
        if target.truth is None:
            return
        n = self.eval_images if target.annotated else self.eval_scenes
        learned = self.tables(self.scenes(self.structure.sample(n, draw).rules, target.annotated))
        true = self.tables(target.truth)
        self._validate_parameters(target, draw)
        for name in (s.name for s in self.statistics if not isinstance(s, StructureVector)):
            table = true[name]
            width = max(table.shape[1], learned[name].shape[1])
            p, q = (distribution(F.pad(t, (0, width - t.shape[1]))) for t in (learned[name].cpu(), table.cpu()))
            self.log(f"val/{name}_tv", total_variation(p, q).to(self.device), prog_bar=True, sync_dist=True)

    def _validate_parameters(self, target: Target, draw: torch.Generator) -> None:
        """Distance of the learned parameters to the target's true ones, where these are known."""
        if not self.attribute_statistics or not isinstance(target, Synthetic):
            return
        scenes = self.current_model().sample(VALIDATED, draw)
        for measure in self.attribute_statistics:
            ours, theirs = (measure.measure(some, self.world.classes) for some in (scenes, target.scenes))
            found = attribute_w1(ours.values.cpu(), theirs.values.cpu(), measure.period)
            self.log(f"val/{measure.name}_w1", found, prog_bar=True, sync_dist=True)

    test_step = validation_step
