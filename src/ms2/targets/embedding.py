"""Distributed embedding: each process embeds part of the images; the features are gathered in all processes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

import ms2
from ms2.core.distributed import Processes
from ms2.core.errors import UserError
from ms2.core.files import read_cached, read_tensors, write_tensors
from ms2.core.hashing import digest
from ms2.core.settings import fingerprint, source_fingerprint
from ms2.features.base import Blocks, FeatureExtractor, blocks_of, state_bytes
from ms2.targets.base import Target

Batches = Iterable[tuple[Int[Tensor, " b"], Tensor]]
"""Images of this process with their indices among all: ``float[b c h w]`` in [0, 1], or ``uint8[b c h w]``."""
Inspect = Callable[[Float[Tensor, "b c h w"]], None]


@torch.no_grad()
def embed(
    features: FeatureExtractor,
    batches: Batches,
    title: str,
    device: torch.device | str = "cpu",
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    limit: int | None = None,
    on_first_batch: Inspect | None = None,
) -> Blocks:
    """Embed the images of all processes, and gather the features in order. All processes must call it.

    Args:
        features: The extractor, which is moved to the device and set to evaluation mode.
        batches: The images of this process.
        title: Title of the progress bar.
        device: Where features are computed and returned.
        processes: The processes that share the images.
        limit: Return features of the first images only, at most so many; None for all.
        on_first_batch: Called with this process's first batch.

    Raises:
        UserError: If no process has an image.
    """
    features.to(device).eval()
    indices: list[Tensor] = []
    parts: list[dict[str, Tensor]] = []  # batches of different sizes
    for index, images in tqdm(batches, title, disable=processes.rank > 0, leave=False, unit="batch"):
        pixels = images.to(device)
        pixels = pixels if pixels.is_floating_point() else pixels.float() / 255
        if not parts and on_first_batch is not None:
            on_first_batch(pixels)
        indices.append(index.to(device))
        parts.append(blocks_of(features, pixels))
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    order = processes.gather(torch.cat(indices) if indices else nothing)
    if not len(order):
        raise UserError(f"{title}: there is not one image that can be used")
    first = order.argsort()[:limit]
    blocks = _with_all_blocks(parts, processes, device)
    return {name: processes.gather(block)[first] for name, block in blocks.items()}


def embed_target(
    target: Target,
    features: FeatureExtractor,
    batches: Batches,
    device: torch.device | str = "cpu",
    processes: Processes = Processes(),  # noqa: B008 (immutable)
    limit: int | None = None,
    on_first_batch: Inspect | None = None,
    cache: Path | None = None,
) -> Blocks:
    """Embed target images, or load their features from the cache. All processes must call it.

    Args:
        target: The target, which the images come from.
        features: The extractor.
        batches: The images of this process; not read where the cache has the features.
        device: Where features are computed and returned.
        processes: The processes that share the images.
        limit: Return features of the first images only, at most so many; None for all.
        on_first_batch: Called with this process's first batch, if images are embedded.
        cache: Folder of the cached features; None for no cache.
    """
    path = cache and cache / f"TargetFeatures-{target_key(target, features, limit)}.pt"
    found = None if path is None or processes.rank else read_cached(path, _blocks, device)
    # The first process decides for all: another one may look a moment later, when the file is there.
    if processes.broadcast(found is not None):
        assert path is not None
        return found or _blocks(read_tensors(path, device))
    blocks = embed(features, batches, "embedding the target", device, processes, limit, on_first_batch)
    if path is not None and processes.rank == 0:
        write_tensors(path, {name: block.cpu() for name, block in blocks.items()})
    return blocks


def _blocks(content: Any) -> Blocks:
    """Check that cached content is features of images."""
    blocks: Blocks = dict(content)
    if not blocks or len({len(block) for block in blocks.values()}) != 1 or {b.ndim for b in blocks.values()} != {2}:
        raise ValueError("features are tensors of rows, as many in each block")
    return blocks


def target_key(target: Target, features: FeatureExtractor, limit: int | None = None) -> str:
    """Return a hash of everything that the target's features depend on: images, extractor, and its weights."""
    weights = digest(state_bytes(features))
    source = source_fingerprint(target, features)
    return fingerprint(ms2.__version__, target.fingerprint(), source, features, weights, limit)


def _with_all_blocks(parts: list[dict[str, Tensor]], processes: Processes, device: torch.device | str) -> Blocks:
    """Concatenate this process's features; if it has none (of a short stream), return empty blocks of equal width."""
    mine = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else {})}
    widths = processes.gather_objects({name: block.shape[1] for name, block in mine.items()})
    known = next(filter(None, widths))
    return {name: mine.get(name, torch.empty(0, width, device=device)) for name, width in known.items()}
