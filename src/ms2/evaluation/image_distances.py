"""Image distances: FID and KID of generated images to the target's, in the features of a pretrained network."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import MAX_INT, BatchSize, Bounds
from ms2.core.distributed import Processes
from ms2.core.errors import UserError, suggest
from ms2.core.hashing import sha256
from ms2.core.paths import expand_path
from ms2.core.seeding import generator
from ms2.core.settings import Configured, settings_of
from ms2.evaluation.sampling import measured_rows
from ms2.features.base import Blocks, FeatureExtractor, TrainedExtractor, weights_fingerprint
from ms2.metrics.fid import fid_intervals
from ms2.metrics.intervals import PriorAndLearned
from ms2.metrics.kid import kid_intervals
from ms2.metrics.results import LEARNED, PRIOR, ROW_TITLES, Estimate, ImageResult
from ms2.models.scene_model import Row, SceneModel
from ms2.render.base import Renderer
from ms2.targets.embedding import embed

CONFIG_SECTION = "evaluation.image_distances"
"""Section of a configuration in which the settings stand."""
MIN_IMAGES = 10
"""Images of each row, below which intervals are useless."""
EnoughImages = Annotated[int, Bounds(ge=MIN_IMAGES, le=MAX_INT)]
"""Number of images of a row."""
Resamples = Annotated[int, Bounds(ge=20, le=MAX_INT)]
"""Number of bootstrap resamples of an interval."""


class ImageDistances(Configured):
    """Computes FID and KID of generated images to the target's, in the feature space of a pretrained network.

    FID (Heusel et al., 2017) is the Fréchet distance of two normal distributions; KID (Bińkowski et al., 2018) the
    unbiased squared MMD with the kernel (x·y / d + 1)^3. FID is biased by the number of images: compare it with a FID
    of as many images only. Values compare only under the same features, whose name is kept beside them.

    Args:
        features: Pretrained extractor, not one that a run trains.
        num_images: Number of images sampled from each of prior and model.
        block: Block of the extractor's features, where it has several.
        max_target_images: Maximum number of target images to compare with; null for all.
        num_resamples: Bootstrap resamples for the KID interval.
        batch_size: Batch size of rendering and embedding.

    Raises:
        UserError: If the extractor is one that a run trains, or a number is too small.
    """

    def __init__(
        self,
        features: FeatureExtractor,
        num_images: EnoughImages = 1000,
        block: str | None = None,
        max_target_images: EnoughImages | None = None,
        num_resamples: Resamples = 200,
        batch_size: BatchSize = 50,
    ) -> None:
        if isinstance(features, TrainedExtractor):
            raise UserError(
                f"{CONFIG_SECTION}.features is {type(features).__name__}, which is made to be trained, and would "
                "not be: give a pretrained one, such as InceptionPool3 or Backbone"
            )
        self.features, self.block, self.max_target_images = features, block, max_target_images
        self.num_images, self.num_resamples, self.batch_size = num_images, num_resamples, batch_size

    def measure(
        self,
        model: SceneModel,
        real: Blocks,
        seed: int,
        device: torch.device,
        processes: Processes = Processes(),  # noqa: B008 (immutable)
    ) -> ImageResult | None:
        """Compute the distances of all rows; the result is None in all processes but the first.

        All processes have to call this: they share the images.

        Args:
            model: The scene model.
            real: Features of the target's images.
            seed: Seed of scenes and resamples.
            device: Device of the learned models.
            processes: The processes that share the images.
        """
        self.check(model.world.renderer, self.num_images)
        target = self.select_block(real)
        features = {}
        for name, row in measured_rows(model).items():
            images = self._images(model, row, seed, device, processes)
            features[name] = self.select_block(
                embed(self.features, images, f"embedding images: {ROW_TITLES[name]}", device, processes)
            )
        if processes.rank > 0:
            return None
        draw = generator(seed, "realism", "bootstrap")
        others = [name for name in features if name not in (PRIOR, LEARNED)]
        found = {  # in this order: their intervals are drawn one after another
            name: self.compare(features[PRIOR], features[name], target, draw) for name in (LEARNED, *others)
        }
        distances, changes = dict[str, dict[str, Estimate]](), dict[str, dict[str, Estimate]]()
        for distance in ("kid", "fid"):
            pairs = {name: both[distance] for name, both in found.items()}
            rows = {name: pair.learned for name, pair in pairs.items()} | {PRIOR: pairs[LEARNED].prior}
            distances[distance] = {name: Estimate.from_interval(rows[name]) for name in features}
            changes[distance] = {
                name: Estimate.from_interval(pair.change) for name, pair in pairs.items() if pair.change is not None
            }
        return ImageResult(self.features_name, self.num_images, len(target), distances, changes)

    @torch.no_grad()
    def _images(
        self, model: SceneModel, row: Row, seed: int, device: torch.device, processes: Processes
    ) -> Iterator[tuple[Int[Tensor, " b"], Float[Tensor, "b c h w"]]]:
        """This process's share of the images of a row, rounded to 8 bits as files are."""
        # rows with the same structure have the same scenes, and those with the prior's parameters the same places
        structure = LEARNED if row.structure else PRIOR
        first_of = processes.rank * self.batch_size
        for first in range(first_of, self.num_images, processes.world_size * self.batch_size):
            index = torch.arange(first, min(first + self.batch_size, self.num_images), device=device)
            draw = generator(seed, "realism", structure, first, device=device)
            yield index, (model.images(len(index), draw, row) * 255).round() / 255

    def check(self, renderer: Renderer, num_real: int) -> None:
        """Validate block, image size and number of images before a run.

        Raises:
            UserError: If there is no such block, or there are too few target images.
        """
        self.features.eval()
        with torch.no_grad():
            device = next((value.device for value in self.features.state_dict().values()), torch.device("cpu"))
            self.select_block(self.features(torch.zeros(1, renderer.channels, *renderer.size, device=device)))
        _check_number("the target", num_real)

    def select_block(self, blocks: Blocks) -> Float[Tensor, "b d"]:
        """Select the block, as float64 on the CPU: distances are small differences of large numbers.

        Raises:
            UserError: If there is no such block, or no block is chosen of several.
        """
        if self.block is None and len(blocks) > 1:
            raise UserError(
                f"{type(self.features).__name__} gives several blocks: choose one with {CONFIG_SECTION}.block. "
                f"{suggest('', blocks)}"
            )
        block = next(iter(blocks)) if self.block is None else self.block
        if block not in blocks:
            raise UserError(
                f"{CONFIG_SECTION}.block is {block!r}, which {type(self.features).__name__} doesn't give. "
                f"{suggest(block, blocks)}"
            )
        return blocks[block].cpu().double()  # not every accelerator has float64

    @property
    def features_name(self) -> str:
        """Describe the features for results: extractor, layer, non-default settings and a hash of the weights."""
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
    ) -> dict[str, PriorAndLearned]:
        """Compute ``kid`` and ``fid`` of the features of prior and learned images to those of target images.

        The intervals of KID are of the distance of the distributions themselves; those of FID of the mean FID of as
        many images. The two distances behind a change share the target's images, in its interval too.

        Raises:
            UserError: If there are too few images, or a feature is not finite.
        """
        sets = {"the prior": prior, "the model": learned, "the target": real}
        for title, features in sets.items():
            _check_number(title, len(features))
            if not bool(features.isfinite().all()):
                raise UserError(f"a feature of images of {title} is not finite: check {CONFIG_SECTION}.features")
        of_prior, of_model, of_target = (features.cpu().double() for features in sets.values())
        return {
            "kid": kid_intervals(of_prior, of_model, of_target, self.num_resamples, generator),
            "fid": fid_intervals(of_prior, of_model, of_target),
        }


def _check_number(title: str, n: int) -> None:
    if n < MIN_IMAGES:
        raise UserError(f"FID and KID can't be computed from {n} images of {title}: they need at least {MIN_IMAGES}")


def _weights(features: FeatureExtractor) -> str:
    """Name of the weights, and the first digits of the SHA-256 of their file, or of the weights themselves."""
    given = features.settings.get("weights", "")
    path = expand_path(given) if isinstance(given, (str, Path)) and str(given) else None
    if path is not None and path.is_file():
        with path.open("rb") as file:
            return f"{path.name} (sha256 {sha256(iter(lambda: file.read(1 << 20), b''))[:8]})"
    which = "random weights" if given is None else f"{given} weights".strip()
    return f"{which} (sha256 {weights_fingerprint(features)[:8]})"
