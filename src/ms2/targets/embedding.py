"""Embedding images, each process doing its share, so that all of them end with all features in order."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int, Shaped
from pytorch_lightning import LightningModule
from torch import Tensor
from tqdm import tqdm

import ms2
from ms2.core.errors import UserError
from ms2.core.settings import code, fingerprint
from ms2.features.base import Blocks, FeatureExtractor, weight_bytes
from ms2.learning.data import TargetImages

Batches = Iterable[tuple[Int[Tensor, " b"], Float[Tensor, "b c h w"]]]
"""Images, with the places that they have among all."""


def processes(model: LightningModule) -> tuple[int, int]:
    """Number of this process, and of all: 0 and 1 without a trainer."""
    return (0, 1) if model._trainer is None else (model.global_rank, model.trainer.world_size)


def target_batches(model: LightningModule, data: TargetImages, limit: int | None = None) -> Iterator:
    """This process's share of the target images, with pixels in [0, 1], on the model's device."""
    for places, images in data.image_loader(*processes(model), limit):
        yield places.to(model.device), images.to(model.device).float() / 255


@torch.no_grad()
def embed(
    model: LightningModule,
    features: FeatureExtractor,
    batches: Batches,
    title: str,
    limit: int | None = None,
    look: Callable[[Tensor], None] | None = None,
) -> Blocks:
    """Features of the images of all processes, in the order of their places. To be called by all of them.

    Args:
        model: Says which process this is.
        features: What embeds.
        batches: The images of this process.
        title: Shown on the progress bar.
        limit: Only so many features are kept, the first.
        look: Shown the first batch.

    Raises:
        UserError: If no process has an image.
    """
    rank, _ = processes(model)
    features.to(model.device).eval()
    places: list[Tensor] = []
    parts: list[dict[str, Tensor]] = []
    for place, images in tqdm(batches, title, disable=rank > 0, leave=False, unit="batch"):
        if not parts and look is not None:
            look(images)
        places.append(place)
        parts.append(features(images))
    order = _gathered(model, torch.cat(places) if places else torch.empty(0, dtype=torch.int64, device=model.device))
    if not len(order):
        raise UserError(f"{title}: there is not one image that can be used")
    blocks = _agreed(model, parts)
    first = order.argsort()[:limit]
    return {name: _gathered(model, block)[first] for name, block in blocks.items()}


def _agreed(model: LightningModule, parts: list[dict[str, Tensor]]) -> Blocks:
    """The features of this process. One without images, a short stream's, learns from the others what they have."""
    mine = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else {})}
    if processes(model)[1] == 1:
        return mine
    widths: list[dict[str, int]] = [{} for _ in range(processes(model)[1])]
    torch.distributed.all_gather_object(widths, {name: block.shape[1] for name, block in mine.items()})
    known = next(filter(None, widths))
    return {name: mine.get(name, torch.empty(0, width, device=model.device)) for name, width in known.items()}


def _gathered(model: LightningModule, rows: Shaped[Tensor, "b *d"]) -> Shaped[Tensor, "m *d"]:
    """The rows of all processes, which may have different numbers of them."""
    if processes(model)[1] == 1:
        return rows
    sizes: Tensor = model.all_gather(torch.tensor(len(rows), device=model.device))  # type: ignore[assignment]
    padding = rows.new_zeros(int(sizes.max()) - len(rows), *rows.shape[1:])
    everyone: Tensor = model.all_gather(torch.cat([rows, padding]))  # type: ignore[assignment]
    return torch.cat([part[:size] for part, size in zip(everyone, sizes.tolist(), strict=True)])


def target_key(data: TargetImages, features: FeatureExtractor, limit: int | None = None) -> str:
    """A hash of all that the target's features depend on: images, extractor, and its weights."""
    weights = hashlib.blake2b(digest_size=8)
    for part in weight_bytes(features):
        weights.update(part)
    made = code(data.target, features)
    return fingerprint(ms2.__version__, data.target.key(), made, features, weights.hexdigest(), limit)
