"""FID and KID of prior and learned images to the target's, in the features of a network trained elsewhere."""

import inspect
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.errors import UserError, suggest
from ms2.core.files import expand_path
from ms2.core.hashing import sha256
from ms2.core.settings import Configured, settings_of
from ms2.features.base import Blocks, FeatureExtractor, TrainedExtractor, weight_bytes
from ms2.metrics.fid import fid_intervals
from ms2.metrics.kid import kid_intervals
from ms2.render.base import Renderer

LEAST = 10
"""Images of each kind, below which the intervals mean nothing."""


class ImageDistances(Configured):
    """Measures the distance of generated images to the target's in the features of a network trained elsewhere.

    FID (Heusel et al., 2017) is the Fréchet distance of two normal laws; KID (Bińkowski et al., 2018) the squared MMD
    with the kernel (x·y / d + 1)^3, without bias. FID is biased by the number of images: it compares only with a FID
    of as many. Figures compare only under the same features, whose name is kept beside them.

    Args:
        features: The extractor, by name. Not one that a run trains.
        num_images: Images drawn of the prior, and as many of the learned model.
        block: Block of the extractor's features, where it has several.
        max_real: Most target images to compare with; null for all.
        resamples: Bootstrap samples behind the intervals of KID.
        batch_size: Images drawn and embedded at a time.

    Raises:
        UserError: If the extractor is one that a run trains, or a number makes no sense.
    """

    def __init__(
        self,
        features: FeatureExtractor,
        num_images: int = 1000,
        block: str | None = None,
        max_real: int | None = None,
        resamples: int = 200,
        batch_size: int = 50,
    ) -> None:
        if isinstance(features, TrainedExtractor):
            raise UserError(
                f"model.image_distances.features is {type(features).__name__}, which is made to be trained, and "
                "would not be: give one that was trained elsewhere, such as InceptionPool3 or Backbone"
            )
        least = {"num_images": LEAST, "max_real": LEAST, "resamples": 20, "batch_size": 1}
        for name, bound in least.items():
            given = {"num_images": num_images, "max_real": max_real, "resamples": resamples, "batch_size": batch_size}
            if given[name] is not None and given[name] < bound:  # type: ignore[operator]
                raise UserError(f"model.image_distances.{name} is {given[name]}, but must be at least {bound}")
        self.features, self.block, self.max_real = features, block, max_real
        self.num_images, self.resamples, self.batch_size = num_images, resamples, batch_size

    def check(self, renderer: Renderer, num_real: int) -> None:
        """Raise what would be wrong at the end of a run now: the block, images that don't fit, too few of them.

        Raises:
            UserError: If there is no such block, or there are too few target images.
        """
        self.features.eval()
        with torch.no_grad():
            device = next((value.device for value in self.features.state_dict().values()), torch.device("cpu"))
            self.pick(self.features(torch.zeros(1, renderer.channels, *renderer.size, device=device)))
        _check_number("the target", num_real)

    def pick(self, blocks: Blocks) -> Float[Tensor, "b d"]:
        """The block that is compared, in double precision: distances are small differences of large numbers."""
        if self.block is None and len(blocks) > 1:
            raise UserError(
                f"{type(self.features).__name__} gives several blocks: choose one with model.image_distances.block. "
                f"{suggest('', blocks)}"
            )
        block = next(iter(blocks)) if self.block is None else self.block
        if block not in blocks:
            raise UserError(
                f"model.image_distances.block is {block!r}, which {type(self.features).__name__} doesn't give. "
                f"{suggest(block, blocks)}"
            )
        return blocks[block].cpu().double()  # not every accelerator knows doubles

    @property
    def name(self) -> str:
        """What the features are: extractor, layer, all that is not as by default, and a hash of the weights."""
        given, cls = self.features.settings, type(self.features)
        usual = inspect.signature(cls.__init__).parameters
        plain = [str(given[key]) for key in ("architecture", "layer") if key in given]
        rest = [
            f"{key} {settings_of(value)}"
            for key, value in given.items()
            if key not in ("architecture", "layer", "weights") and value != usual[key].default
        ]
        named = " ".join([cls.__name__, *plain])
        return ", ".join([named, *rest, *([f"block {self.block}"] if self.block else []), _weights(self.features)])

    def compare(
        self,
        prior: Float[Tensor, "n d"],
        learned: Float[Tensor, "k d"],
        real: Float[Tensor, "m d"],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Distances of features of the prior's images and of the learned model's to those of real ones.

        Keys ``kid``, ``kid_interval`` (95 %), ``kid_prior``, ``kid_change`` (relative to the prior's: -0.5 is half of
        it; null where the prior's might be 0), the same of ``fid``, and ``realism_*``: which features, how many images.

        The intervals of KID hold the distance of the laws themselves; those of FID the mean FID of as many images. The
        two distances behind a change share the real images, in its interval too.

        Raises:
            UserError: If there are too few images, or a feature is not finite.
        """
        sets = {"the prior": prior, "the model": learned, "the target": real}
        for who, features in sets.items():
            _check_number(who, len(features))
            if not bool(features.isfinite().all()):
                raise UserError(f"a feature of images of {who} is not finite: check model.image_distances.features")
        of_prior, of_model, of_target = (features.cpu().double() for features in sets.values())
        kids = kid_intervals(of_prior, of_model, of_target, self.resamples, generator)
        found: dict[str, Any] = {}
        for name, intervals in (("kid", kids), ("fid", fid_intervals(of_prior, of_model, of_target))):
            for ending, interval in zip(("", "_prior", "_change"), intervals, strict=True):
                found[f"{name}{ending}"] = interval and interval.value
                found[f"{name}{ending}_interval"] = interval and [interval.low, interval.high]
        about = {"features": self.name, "num_generated": len(learned), "num_real": len(real)}
        return found | {f"realism_{key}": value for key, value in about.items()}


# --- numbers and names ---


def _check_number(who: str, n: int) -> None:
    if n < LEAST:
        raise UserError(f"realism can't be measured with {n} images of {who}: it takes at least {LEAST}")


def _weights(features: FeatureExtractor) -> str:
    """Name of the weights, and the first digits of the SHA-256 of their file, or of the weights themselves."""
    given = features.settings.get("weights", "")
    path = expand_path(given) if isinstance(given, (str, Path)) and str(given) else None
    if path is not None and path.is_file():
        with path.open("rb") as file:
            return f"{path.name} (sha256 {sha256(iter(lambda: file.read(1 << 20), b''))[:8]})"
    which = "random weights" if given is None else f"{given} weights".strip()
    return f"{which} (sha256 {sha256(weight_bytes(features))[:8]})"
