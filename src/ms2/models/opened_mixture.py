"""Open several runs as one mixture of scene models."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ms2.core.errors import UserError
from ms2.core.paths import OptionalPath, expand_path
from ms2.core.settings import fingerprint
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.opening import LearnedOrPrior, OpenedModel, open_model
from ms2.models.shares import Mix, whole_weights


class OpenedMixture:
    """A mixture of opened scene models, in the place of one.

    Args:
        parts: The opened models; those of equal names are numbered.
        mix: ``even``, or the weight of each.

    Attributes:
        parts: The opened models.
        model: The mixture of their scene models.

    Raises:
        UserError: If they do not share a world, or there is not one positive weight for each.
    """

    def __init__(self, parts: Sequence[OpenedModel], mix: Mix) -> None:
        names = [part.name for part in parts]
        self.parts = tuple(
            replace(part, name=f"{part.name}-{i}") if names.count(part.name) > 1 else part
            for i, part in enumerate(parts, 1)
        )
        self.model = MixedSceneModel({part.name: part.model for part in self.parts}, mix)

    @property
    def name(self) -> str:
        """The names of all parts."""
        return "+".join(part.name for part in self.parts)

    def fingerprints(self) -> dict[str, str | None]:
        """Compute hashes of everything that images depend on: equal hashes mean equal images."""
        found = [part.fingerprints() for part in self.parts]
        return {key: _joint_hash([one[key] for one in found], self.model.weights) for key in found[0]}

    def description(self) -> dict[str, Any]:
        """Return what a data set's description says of where its scenes come from: weights, and each part's own."""
        parts = [part.description() for part in self.parts]
        joint = {key: _joint_word([part[key] for part in parts]) for key in ("structure", "parameters")}
        return {
            "source": self.name,
            **joint,
            "world": parts[0]["world"],  # its grammar, renderer and classes are those of all
            "model": None,
            "mix": dict(zip((part.name for part in self.parts), self.model.weights, strict=True)),
            "runs": [part | one.fingerprints() for part, one in zip(parts, self.parts, strict=True)],
        }

    @property
    def recipe(self) -> Callable[[], "OpenedMixture"]:
        """What builds the mixture again from settings and weights, in another process too."""
        return partial(_build_mixture, tuple(part.recipe for part in self.parts), self.model.weights)


Opened = OpenedModel | OpenedMixture
"""What scenes of a data set are drawn from."""


def open_models(
    sources: Sequence[str],
    mix: Mix | None = None,
    structure: LearnedOrPrior | None = None,
    checkpoint: OptionalPath = None,
    arguments: list[str] | None = None,
    parameters: LearnedOrPrior | None = None,
) -> Opened:
    """Open one scene model, or several as a mixture.

    Args:
        sources: Runs, checkpoints, configurations, or names of worlds, as `open_model` takes them.
        mix: ``even``, or the weight of each; None for one source.
        structure: As for `open_model`, of all sources.
        checkpoint: As for `open_model`, of one source.
        arguments: As for `open_model`, of all sources.
        parameters: As for `open_model`, of all sources.

    Raises:
        UserError: As `open_model` and `OpenedMixture`, or if several sources have no ``mix``.
    """
    if mix is not None:
        whole_weights(mix, sources)  # for the error, before anything is opened
    if len(sources) == 1:
        return open_model(sources[0], structure, checkpoint, arguments, parameters)
    check_mixable(sources, mix)
    if checkpoint is not None:
        raise UserError("checkpoint is the file of one run: name the checkpoints as sources instead, to mix several")
    return OpenedMixture([open_model(one, structure, None, arguments, parameters) for one in sources], mix or "even")


def check_mixable(sources: Sequence[str], mix: Mix | None) -> None:
    """Raise an error unless there are several different sources, and a mix.

    Raises:
        UserError: If there are not.
    """
    if not sources:
        raise UserError("there is no source to draw scenes from: name the folder of a run, or several")
    if mix is None:
        raise UserError(
            f"{' and '.join(sources)} are {len(sources)} sources: say how many scenes to draw from each, such as "
            f"--mix even, or --mix {' '.join(['2', *['1'] * (len(sources) - 1)])} (in Python, mix='even')"
        )
    paths = [expand_path(source) for source in sources]
    for source, path in zip(sources, paths, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"{source} is named twice: name it once, and give it more weight")


def _build_mixture(recipes: Sequence[Callable[[], OpenedModel]], weights: Sequence[int]) -> OpenedMixture:
    return OpenedMixture([build() for build in recipes], weights)


def _joint_hash(hashes: Sequence[str | None], weights: Sequence[int]) -> str | None:
    """Return the hash that all have, or one of all hashes and weights."""
    return hashes[0] if len({*hashes}) == 1 else fingerprint(list(hashes), list(weights))


def _joint_word(words: Sequence[str]) -> str:
    return words[0] if len({*words}) == 1 else "mixed"
