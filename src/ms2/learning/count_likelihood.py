"""Learn numbers of objects from what an extractor reads in the target, by maximum likelihood."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ms2.core.bounds import Fraction
from ms2.core.errors import UserError, suggest
from ms2.core.settings import Configured
from ms2.features.base import Blocks, FeatureExtractor, TrainedExtractor
from ms2.features.channel import NUM_BINS, ReadingChannel
from ms2.models.scene_model import SceneModel
from ms2.objectives.likelihood import ReadingLikelihood
from ms2.scene.batch import scenes_from_derivations

NUM_PRIOR_SCENES = 10_000
"""Scenes of the prior whose numbers are kept where readings tell nothing."""


class Readings(FeatureExtractor):
    """Block ``readings``: the expected number of what each name of an extractor's channel stands for.

    Args:
        features: The extractor, with a channel.
    """

    selectable = False

    def __init__(self, features: TrainedExtractor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Read the images."""
        slots = self.features.predict_counts(images).slots
        assert slots is not None and self.features.channel is not None
        return {"readings": self.features.channel.sums(slots)}


class CountLikelihood(Configured, nn.Module):
    """Fits the numbers of objects of a structure model to the target's readings, through the extractor's channel.

    Scores are those of `ReadingLikelihood`: they need no images of generated scenes. Numbers that are not read
    (`ReadingChannel.quality`) keep the prior's distribution.

    Args:
        blocks: Names of the numbers to learn, such as ``count_car``; by default all that the extractor reads.
        held_out: Fraction of the target images whose readings are not learned from, on which the divergence is logged.

    Raises:
        UserError: If a name is given twice.
    """

    def __init__(self, blocks: Sequence[str] | None = None, held_out: Fraction = 0.2) -> None:
        super().__init__()
        if blocks is not None and len(set(blocks)) < len(blocks):
            raise UserError(f"likelihood.blocks names a number twice: {', '.join(blocks)}")
        self.blocks, self.held_out = blocks, held_out
        self.likelihood: ReadingLikelihood | None = None
        self._held_out_target: Tensor | None = None
        self._places: list[int] = []
        self._extractor: list[TrainedExtractor] = []  # in a list, as it is no part of this module

    def check(self, features: FeatureExtractor) -> list[str]:
        """Return the names of the numbers that are learned.

        Raises:
            UserError: If the extractor reads no numbers, or none of a name.
        """
        channel = features.channel if isinstance(features, TrainedExtractor) else None
        if channel is None:
            raise UserError(
                f"{type(features).__name__} reads no expected numbers of objects, from which structure_learner."
                "likelihood learns: take features such as DenseCounts, or structure_learner.objective instead"
            )
        for name in self.blocks or ():
            if name not in channel.names:
                raise UserError(
                    f"structure_learner.likelihood.blocks names {name!r}, which {type(features).__name__} does not "
                    f"count. {suggest(name, channel.names)}"
                )
        return list(self.blocks or channel.names)

    def prepare(
        self, model: SceneModel, features: FeatureExtractor, readings: Float[Tensor, "m k"], generator: Generator
    ) -> None:
        """Set the channel and the target's readings.

        Args:
            model: The scene model, whose prior's numbers are kept where readings tell nothing.
            features: The extractor.
            readings: What it reads in all target images, as `Readings` does.
            generator: Draws the prior's scenes and chooses the images that are held out.

        Raises:
            UserError: If the channel was not measured, or most readings are beyond those measured.
        """
        names = self.check(features)
        assert isinstance(features, TrainedExtractor) and features.channel is not None
        channel: ReadingChannel = features.channel
        if not channel.is_measured:
            raise UserError(
                "the extractor's channel was not measured: train it in stage 'extractor', which does so at its end"
            )
        self._extractor = [features]
        self._places = [channel.names.index(name) for name in names]
        prior = model.world.structure_prior.sample(model.world.grammar, NUM_PRIOR_SCENES, generator)
        order = torch.randperm(len(readings), generator=generator, device=readings.device)
        kept = order[round(self.held_out * len(readings)) :]
        target = channel.histogram(readings[kept])[self._places]
        held = channel.histogram(readings[order[: len(readings) - len(kept)]])[self._places] if self.held_out else None
        given_number = channel.reading_given_number()[self._places]
        # A number that is not read is known without error instead, and its target is the prior's distribution.
        size = channel.largest + 1
        bins = max(NUM_BINS, size)
        of_prior = F.one_hot(self.numbers(model, prior).clamp(max=size - 1), size).float().mean(0)
        quality = channel.quality()
        not_read = torch.tensor([quality[k] == "not read" for k in self._places], device=readings.device)
        exact = F.pad(torch.eye(size, device=readings.device), (0, bins - size))

        def fill(read: Tensor, unread: Tensor) -> Tensor:
            read, unread = (F.pad(some, (0, bins - some.shape[-1])) for some in (read, unread))
            return torch.where(not_read.view(-1, *(1,) * (read.ndim - 1)), unread, read)

        self.likelihood = ReadingLikelihood(names, fill(given_number, exact), fill(target, of_prior))
        self._held_out_target = None if held is None else fill(held, of_prior)
        unread = [name for name, is_unread in zip(names, not_read.tolist(), strict=True) if is_unread]
        if unread:
            warnings.warn(f"not read, so the prior's numbers are kept: {', '.join(unread)}", stacklevel=2)

    def numbers(self, model: SceneModel, rules: Int[Tensor, "n t"]) -> Int[Tensor, "n k"]:
        """Count what is learned in the structure of scenes."""
        (features,) = self._extractor
        assert features.channel is not None
        scenes = scenes_from_derivations(model.world.grammar, rules)
        slots = features.slots.counts(scenes.classes, scenes.parents)
        return features.channel.sums(slots)[:, self._places]

    def scores(
        self, numbers: Int[Tensor, "b k"], population: Int[Tensor, "m k"]
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample by name, and what to log: the mean divergence from readings in nats."""
        likelihood = self.likelihood
        assert likelihood is not None
        scores = likelihood.scores(numbers, population)
        log = {"likelihood/divergence": likelihood.divergence(population).mean()}
        if self._held_out_target is not None:
            log["likelihood/held_out"] = likelihood.divergence(population, self._held_out_target).mean()
        return dict(zip(likelihood.names, scores.unbind(1), strict=True)), log
