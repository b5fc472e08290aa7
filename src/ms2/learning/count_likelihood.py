"""Learn numbers of objects from what an extractor reads in the target, by maximum likelihood."""

import warnings
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ms2.core.bounds import Bounds, Fraction, PositiveInt
from ms2.core.errors import UserError, suggest
from ms2.core.seeding import generator
from ms2.core.settings import Configured
from ms2.features.base import Blocks, CountingExtractor, CountSlots, FeatureExtractor
from ms2.features.channel import ReadingChannel
from ms2.learning.probe import measure_channel
from ms2.models.scene_model import SceneModel
from ms2.objectives.likelihood import ReadingLikelihood
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import SceneBatch, scenes_from_derivations

MODEL_FRACTION = 0.75
"""Fraction of the scenes, on which the channel is measured again, whose structure is the model's. The others show what
is read of numbers that the model does not draw."""
MAX_BEYOND = 0.02
"""Fraction of target images with readings beyond all that were measured from which on to warn."""
HeldOut = Annotated[float, Bounds(ge=0, lt=1)]
"""Fraction of images that are not learned from."""
NUM_PRIOR_SCENES = 10_000
"""Scenes of the prior whose numbers are kept where readings tell nothing."""


class Readings(FeatureExtractor, selectable=False):
    """Block ``readings``: the expected number of what each name of an extractor's channel stands for.

    Args:
        features: The extractor, with a channel.
    """

    def __init__(self, features: CountingExtractor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Read the images."""
        slots = self.features.predict_counts(images).slots
        assert slots is not None and self.features.channel is not None
        return {"readings": self.features.channel.sums(slots)}


class StepsDone(NamedTuple):
    """Numbers of steps that have trained structure, and parameters."""

    structure: int
    parameters: int


class Prepared(NamedTuple):
    """What scores are computed from.

    Attributes:
        slots: What is counted.
        channel: The channel of its readings.
        places: Which names of the channel are learned.
        is_read: Which of those are read.
        likelihood: The likelihood of the target's readings.
        held_out: Distribution of the readings that are not learned from; None if there are none.
    """

    slots: CountSlots
    channel: ReadingChannel
    places: Int[Tensor, " k"]
    is_read: Bool[Tensor, " k"]
    likelihood: ReadingLikelihood
    held_out: Float[Tensor, "k r"] | None


class CountLikelihood(Configured, nn.Module):
    """Fits the numbers of objects of a structure model to the target's readings, through the extractor's channel.

    Scores are those of `ReadingLikelihood`: they need no images of generated scenes. Numbers that are not read
    (`ReadingChannel.quality`) keep the prior's distribution: which these are is judged by images of the wide prior, not
    of the model, whose numbers may vary little.

    Args:
        blocks: Names of the numbers to learn, such as ``count_car``; by default all that the extractor reads and that
            images show.
        held_out: Fraction of the target images whose readings are not learned from, on which the divergence is logged.
        redraw_every: Steps between measurements of the channel on scenes that are mostly the model's: what hides an
            object depends on all that there is. None to measure it on the wide prior alone. It is measured again in any
            case when parameters have been learned before structure, as light and layout change what is read; without
            this number, whenever parameters have been learned, which is each turn where turns alternate.
        num_images: Images on which the channel is measured again.
        smoothing: Fraction of the mass of each number that is read which goes to its two neighbours at each step, so
            that learned numbers are smooth, see `ReadingLikelihood.smoothed`. With few target images or a weak reading,
            maximum likelihood alone has few numbers with gaps between them.
        structure_prior: Structure prior of a part of those images, the world's by default. It should be that on which
            the extractor was trained, which a configuration takes if it names none (``extractor.structure_prior``).

    Raises:
        UserError: If no name is given, or one twice.
    """

    measured_after: Tensor
    """Numbers of structure and of parameter steps after which the channel was measured; kept in checkpoints."""
    not_read: list[str]
    """Names of numbers that keep the prior's distribution; empty before `prepare`."""

    def __init__(
        self,
        blocks: Sequence[str] | None = None,
        held_out: HeldOut = 0.2,
        redraw_every: PositiveInt | None = None,
        num_images: PositiveInt = 2000,
        smoothing: Fraction = 0.0,
        structure_prior: StructurePrior | None = None,
    ) -> None:
        super().__init__()
        if blocks is not None and not blocks:
            raise UserError(
                "structure_learner.likelihood.blocks is empty: name numbers, or leave it out for all of them"
            )
        if blocks is not None and len(set(blocks)) < len(blocks):
            raise UserError(f"structure_learner.likelihood.blocks names a number twice: {', '.join(blocks)}")
        self.blocks, self.held_out, self.redraw_every = blocks, held_out, redraw_every
        self.num_images, self.smoothing, self.structure_prior = num_images, smoothing, structure_prior
        self.register_buffer("measured_after", torch.zeros(2, dtype=torch.int64))
        self._measured_after = StepsDone(0, 0)
        self._prepared: Prepared | None = None
        self.not_read = []

    def check(self, features: FeatureExtractor) -> list[str]:
        """Return the names of the numbers that are learned.

        Raises:
            UserError: If the extractor reads no numbers, or none of a name.
        """
        channel = features.channel if isinstance(features, CountingExtractor) else None
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
        self,
        model: SceneModel,
        features: FeatureExtractor,
        readings: Float[Tensor, "m k"],
        steps: StepsDone,
        seed: int,
    ) -> None:
        """Set the channel and the target's readings, unless that was done and the channel need not be measured again.

        Args:
            model: The scene model. Its prior's numbers are kept where readings tell nothing, and its parameters are
                those of images on which the channel is measured again.
            features: The extractor.
            readings: What it reads in all target images, as `Readings` does.
            steps: Steps that were done before.
            seed: Seed of all that is drawn.

        Raises:
            UserError: If the channel was not measured.
        """
        if self._prepared is not None and not self._is_due(steps):
            return
        names = self.check(features)
        assert isinstance(features, CountingExtractor) and features.channel is not None
        if not features.channel.is_measured:
            raise UserError(
                "the extractor's channel was not measured: train it in stage 'extractor', which does so at its end"
            )
        self._measured_after = StepsDone(*self.measured_after.tolist())  # also where a checkpoint was loaded
        if self._is_due(steps):
            self._measure(model, features, steps, seed)
            self._measured_after = steps
            self.measured_after.copy_(torch.tensor(steps))
        self._prepared = self._prepare(model, features.slots, features.channel, names, readings, seed)

    def _is_due(self, steps: StepsDone) -> bool:
        """Return whether the channel has to be measured again."""
        last = self._measured_after
        changed = steps.parameters != last.parameters
        if self.redraw_every is None:
            return changed
        passed = sum(steps) - sum(last)
        return passed >= self.redraw_every or (changed and steps.structure == 0)

    def _measure(self, model: SceneModel, features: CountingExtractor, steps: StepsDone, seed: int) -> None:
        """Measure the channel on images with the scene model's parameters, and its structure once that is learned."""
        grammar, prior = model.world.grammar, self.structure_prior or model.world.structure_prior

        def draw(n: int, generator: Generator) -> SceneBatch:
            rules = prior.sample(grammar, n, generator)
            if steps.structure:
                learned = model.derivations(n, generator).rules
                width = max(rules.shape[1], learned.shape[1])
                rules, learned = (F.pad(r, (0, width - r.shape[1]), value=grammar.num_rules) for r in (rules, learned))
                chosen = torch.rand(n, 1, generator=generator, device=generator.device) < MODEL_FRACTION
                rules = torch.where(chosen, learned, rules)
            return model.scenes(rules, generator)

        keys = (seed, "channel", *steps)
        measure_channel(features, model.world, draw, self.num_images, keys, judged=not steps.structure)

    def _prepare(
        self,
        model: SceneModel,
        slots: CountSlots,
        channel: ReadingChannel,
        names: list[str],
        readings: Float[Tensor, "m k"],
        seed: int,
    ) -> Prepared:
        draw = generator(seed, "likelihood", device=readings.device)
        _warn_beyond(channel, readings)
        order = torch.randperm(len(readings), generator=draw, device=readings.device)
        held, kept = readings[order].tensor_split([min(round(self.held_out * len(readings)), len(readings) - 1)])
        if self.blocks is None:  # what is never seen, such as a scene's kind, is no number of objects
            names = [
                name for name, shown in zip(names, (channel.entropy(visible=True) > 0).tolist(), strict=True) if shown
            ]
        chosen = [channel.names.index(name) for name in names]
        places = torch.tensor(chosen, device=readings.device)
        prior = model.world.structure_prior.sample(model.world.grammar, NUM_PRIOR_SCENES, draw)
        numbers = _numbers(model, slots, channel, prior)[:, places]
        # a number that is not read is taken to be known without error, and its target is the prior's distribution
        of_prior = _exact(numbers, channel.largest).mean(0)
        quality = channel.quality()
        is_read = torch.tensor([quality[place] != "not read" for place in chosen], device=readings.device)
        self.not_read = [name for name, seen in zip(names, is_read.tolist(), strict=True) if not seen]
        if self.not_read:
            warnings.warn(f"not read, so the prior's numbers are kept: {', '.join(self.not_read)}", stacklevel=2)

        def target(some: Tensor) -> Tensor:
            return _either(is_read, channel.histogram(some)[places], of_prior)

        held_out = target(held) if len(held) else None
        return Prepared(slots, channel, places, is_read, ReadingLikelihood(names, target(kept)), held_out)

    def numbers(self, model: SceneModel, rules: Int[Tensor, "n t"]) -> Int[Tensor, "n k"]:
        """Count all that the channel reads in the structure of scenes."""
        prepared = self._prepared
        assert prepared is not None
        return _numbers(model, prepared.slots, prepared.channel, rules)

    def scores(
        self, population: Int[Tensor, "m k"], own: Int[Tensor, " b"]
    ) -> tuple[dict[str, Float[Tensor, " b"]], dict[str, Float[Tensor, ""]]]:
        """Compute the score of each sample by name, and what to log: the mean divergence from readings in nats.

        Args:
            population: `numbers` of the samples of all processes.
            own: Which of them are scored.
        """
        prepared = self._prepared
        assert prepared is not None
        likelihood, channel, places = prepared.likelihood, prepared.channel, prepared.places
        read = channel.readings_given_numbers(population).index_select(1, places)
        given = _either(prepared.is_read, read, _exact(population.index_select(1, places), channel.largest))
        readings = likelihood.readings(given)
        scores = likelihood.scores(given[own] if self.smoothing == 0 else given, readings)
        if self.smoothing > 0:
            numbers = population.index_select(1, places)
            smoothed = likelihood.smoothed(scores, numbers, self.smoothing, channel.largest)
            scores = torch.where(prepared.is_read, smoothed, scores)[own]
        log = {"likelihood/divergence": likelihood.divergence(readings).mean()}
        if prepared.held_out is not None:
            log["likelihood/held_out"] = likelihood.divergence(readings, prepared.held_out).mean()
        return dict(zip(likelihood.names, scores.unbind(1), strict=True)), log


def _exact(numbers: Int[Tensor, "m k"], largest: int) -> Float[Tensor, "m k n"]:
    """Return the distributions of readings that are the numbers themselves; larger ones are taken for the largest."""
    return (numbers.clamp(max=largest).unsqueeze(2) == torch.arange(largest + 1, device=numbers.device)).float()


def _either(is_read: Bool[Tensor, " k"], read: Float[Tensor, "*m k r"], unread: Float[Tensor, "*m k n"]) -> Tensor:
    """Choose by name between distributions, over as many readings as either has."""
    size = max(read.shape[-1], unread.shape[-1])
    read, unread = (F.pad(some, (0, size - some.shape[-1])) for some in (read, unread))
    return torch.where(is_read.unsqueeze(1), read, unread)


def _warn_beyond(channel: ReadingChannel, readings: Float[Tensor, "m k"]) -> None:
    """Warn of target images in which more is read than in any on which the channel was measured."""
    fractions = zip(channel.names, channel.fraction_beyond(readings).tolist(), strict=True)
    beyond = [f"{name} in {fraction:.0%}" for name, fraction in fractions if fraction > MAX_BEYOND]
    if beyond:
        warnings.warn(
            f"more is read in target images than in any that the extractor was measured on: {', '.join(beyond)} of "
            "them. The largest numbers won't be learned: let extractor.structure_prior draw more, and raise "
            "model.features.max_count where that is too low",
            stacklevel=2,
        )


def _numbers(
    model: SceneModel, slots: CountSlots, channel: ReadingChannel, rules: Int[Tensor, "n t"]
) -> Int[Tensor, "n k"]:
    # as wide as can be, where that is cheap: how many objects there are would have to be read from the device
    emitted = model.world.grammar.tensors(rules.device).emit.shape[1]
    width = rules.shape[1] * emitted if max(slots.sizes, default=1) == 1 else None
    scenes = scenes_from_derivations(model.world.grammar, rules, width)
    found: Tensor = channel.sums(slots.counts(scenes.classes, scenes.parents))
    return found
