"""Whether a target looks like the world at all: features of its images against those of the prior's."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.seeding import generator
from ms2.features.base import FeatureExtractor
from ms2.metrics.vectors import energy_distance
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.world import World

NUM_COMPARED = 64
"""Images that are compared."""
MAX_RATIO = 3.0
"""How many times as far from the prior as empty scenes a target may be.

An energy distance is the root of a distance in feature space, so this is about nine times as far in it: beyond what
other numbers of objects amount to, and below what noise, photographs of something else or inverted images do.
"""


class Resemblance(NamedTuple):
    """Energy distances to features of the prior's images, over all blocks: the root of the sum of their squares.

    Over all, since the prior may leave a single block unused that a target uses, such as the cars of a fifth road.

    Attributes:
        target: That of the target's images.
        prior: That of other images of the prior, which is near 0.
        empty: That of the same scenes of the prior without their objects: as far as structure moves the features.
    """

    target: float
    prior: float
    empty: float

    @property
    def ratio(self) -> float:
        """The target's distance over the larger of the others."""
        return self.target / max(self.prior, self.empty, 1e-6)


@torch.no_grad()
def resemblance(
    features: FeatureExtractor, world: World, images: Float[Tensor, "m c h w"], seed: int = 0
) -> Resemblance:
    """Compare the features of target images with those of the prior.

    Args:
        features: The extractor, on the device of the images.
        world: The world.
        images: At least two target images.
        seed: Seed of the prior's scenes.
    """
    draw = generator(seed, "resemblance", device=images.device)
    first, second = (world.sample_prior(NUM_COMPARED, draw) for _ in range(2))
    rendered = [world.renderer.render(scenes) for scenes in (first, second, without_objects(first))]
    prior, other, empty = (features(pixels) for pixels in rendered)
    return Resemblance(*(_distance(some, prior) for some in (features(images), other, empty)))


def _distance(some: Mapping[str, Float[Tensor, "_ _"]], prior: Mapping[str, Float[Tensor, "_ _"]]) -> float:
    """Compute the energy distance over all blocks whose features are finite."""
    finite = [name for name in prior if bool(some[name].isfinite().all() and prior[name].isfinite().all())]
    return math.hypot(*(energy_distance(some[name], prior[name]) for name in finite))


def without_objects(scenes: SceneBatch) -> SceneBatch:
    """Return the scenes without any object."""
    nothing = torch.full_like(scenes.classes, -1)
    return replace(scenes, classes=nothing, parents=nothing)


def warn_unlike(features: FeatureExtractor, world: World, target: Target, device: torch.device, seed: int = 0) -> None:
    """Warn if the target looks nothing like the world: then learning fits what the extractor makes of it."""
    pixels = target.preview(NUM_COMPARED)
    if len(pixels) < 2:
        return
    features.eval()
    found = resemblance(features, world, pixels.to(device).float() / 255, seed)
    if found.ratio > MAX_RATIO:
        warnings.warn(
            f"the target looks nothing like the world: in the features, {len(pixels)} of its images are at an energy "
            f"distance of {found.target:.3g} from the prior's, which are at {found.prior:.3g} from each other and at "
            f"{found.empty:.3g} from empty scenes. What is learned from it will mean little: compare target and prior "
            "in summary.png, and give images of what the world draws, or another world",
            stacklevel=2,
        )
