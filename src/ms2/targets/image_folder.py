"""Dataset of 8-bit images in a folder."""

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import get_args

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ms2.core.bounds import Dimension, PositiveInt, check_arguments
from ms2.core.errors import MAX_LISTED, OnError, UserError, format_examples, suggest
from ms2.core.hashing import sha256
from ms2.core.images import (
    IMAGE_SUFFIXES,
    UNREAD_IMAGE_SUFFIXES,
    Channels,
    Fit,
    ImageError,
    image_header,
    read_image,
    unread_reason,
    unreadable_reason,
)
from ms2.core.paths import UserPath, expand_path

MAX_ASPECT_DIFFERENCE = 0.05
"""Largest |log(a / b)| of two aspect ratios that count as equal."""


class ImageFolder(Dataset[UInt8[Tensor, "c h w"]]):
    """The images in a folder and its subfolders, sorted by path, without hidden files and folders.

    Creating it only lists the files; `verify` decodes them all. With `size=None`, images of different sizes cannot be
    batched.

    Args:
        root: Folder to search, with its subfolders, for png, jpg, bmp, gif, webp, tif, ppm and pgm files.
        size: Height and width of the images in pixels; null keeps each image's own.
        channels: 3 for colour, 1 for grey.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle unreadable files: "raise" or "skip" with a warning.
        limit: Use only the first n files (counted before any are skipped); null for all.

    Raises:
        ImageError: The folder is missing, is not a folder, holds no images, or holds a folder that cannot be listed.
        UserError: Another argument has an invalid value.
    """

    def __init__(
        self,
        root: UserPath,
        size: tuple[Dimension, Dimension] | None = None,
        channels: Channels = 3,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: PositiveInt | None = None,
    ) -> None:
        _check_choice("channels", channels, get_args(Channels))
        _check_choice("fit", fit, get_args(Fit))
        _check_choice("on_error", on_error, get_args(OnError))
        check_arguments(ImageFolder.__init__, {"size": size, "limit": limit}, "ImageFolder")
        self.root = _check_folder(root)
        self.size, self.channels, self.fit, self.on_error = size, channels, fit, on_error
        self.paths: list[Path] = self._find()[:limit]
        self.decoded: dict[Path, UInt8[Tensor, "c h w"]] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> UInt8[Tensor, "c h w"]:
        """Read one image; raise `ImageError` if it cannot be read, whatever `on_error` is."""
        return read_image(self.paths[index], self.channels, self.size, self.fit)

    def verify(self, max_bytes: int = 0) -> list[ImageError]:
        """Decode every image once, with a progress bar; with `on_error="skip"`, drop the unreadable ones.

        Args:
            max_bytes: Keep the images in ``decoded``, by their path, if all of them take no more than this.

        Returns:
            The errors of the images that were dropped.

        Raises:
            ImageError: Some cannot be read and `on_error` is "raise", or none can. Lists up to 10, with reasons.
        """
        # Pillow releases Python's lock while it decodes, so threads help; more of them only need more memory.
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            keep = self.size is not None and len(self) * self.channels * math.prod(self.size) <= max_bytes
            sizes = pool.map(partial(self._image_size, keep=keep), self.paths)
            found = list(tqdm(sizes, "Checking images", len(self), unit="image", disable=None))
        bad = [error for error in found if isinstance(error, ImageError)]
        self._report(bad, f"{len(bad)} of {len(self)} images cannot be read")
        if len(bad) == len(self):
            raise ImageError(self.root, f"no image is left; none of the {len(self)} can be read.")
        good = {path: size for path, size in zip(self.paths, found, strict=True) if not isinstance(size, ImageError)}
        self.paths = list(good)
        if self.size is not None:
            warn_about_shapes(self.root, good, self.size, self.fit)
        return bad

    def fingerprint(self) -> str:
        """Compute a hash of file names, sizes, modification times and settings, as a cache key.

        It does not depend on the folder's own path.
        """
        files = [(path.relative_to(self.root).as_posix(), *_stamp(path)) for path in self.paths]
        facts = json.dumps([self.size, self.channels, self.fit, files])
        return sha256(facts)

    def _find(self) -> list[Path]:
        unlisted: list[OSError] = []
        files = list(_walk(self.root, unlisted.append))
        errors = [ImageError(str(error.filename), unreadable_reason(error)) for error in unlisted]
        self._report(errors, f"{len(errors)} folders cannot be listed")
        images = sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
        unread = sorted(file for file in files if file.suffix.lower() in UNREAD_IMAGE_SUFFIXES)
        if not images:
            kinds = Counter(file.suffix.lower() or "(no extension)" for file in files).most_common(MAX_LISTED)
            instead = ", ".join(f"{count} {kind}" for kind, count in kinds) or "nothing"
            looked = f"looked here and in subfolders for {' '.join(IMAGE_SUFFIXES)} and found {instead}"
            convert = f" {unread_reason(unread[0])}." if unread else ""
            raise ImageError(
                self.root, f"no images: {looked} (hidden files aside).{convert} Point root at a folder of images."
            )
        errors = [ImageError(file, unread_reason(file)) for file in unread]
        self._report(errors, f"{len(unread)} of {len(images) + len(unread)} images are of kinds that are not read")
        return images

    def _image_size(self, path: Path, keep: bool) -> ImageError | tuple[int, int]:
        """Return height and width of an image, or the error if it cannot be read."""
        try:
            if keep:
                self.decoded[path] = read_image(path, self.channels, self.size, self.fit)
                (height, width), orientation = image_header(path)
                return (width, height) if orientation > 4 else (height, width)
            height, width = read_image(path, self.channels).shape[1:]
        except ImageError as error:
            return ImageError(error.path, error.reason)  # without the traceback, which references the pixels
        return height, width

    def _report(self, bad: Sequence[ImageError], message: str) -> None:
        if not bad:
            return
        text = format_examples(message, bad)
        if self.on_error == "raise":
            raise ImageError(self.root, f"{text}\nRepair or remove them, or leave them out with `on_error: skip`.")
        warnings.warn(f"{self.root}: left out, {text}", stacklevel=3)


def warn_about_shapes(
    root: str | Path, sizes: Mapping[Path, tuple[int, int]], wanted: tuple[int, int], fit: Fit
) -> None:
    """Warn about images of another aspect ratio than the renderer's, and smaller ones; say how they are resized."""
    height, width = wanted
    aspect = width / height
    odd = {
        path: (w / h) / aspect
        for path, (h, w) in sizes.items()
        if abs(math.log((w / h) / aspect)) > MAX_ASPECT_DIFFERENCE
    }
    if odd:
        path = max(odd, key=lambda p: abs(math.log(odd[p])))
        h, w = sizes[path]
        lost = 1 - min(odd[path], 1 / odd[path])
        effect = {
            "crop": f"up to {lost:.0%} of an image is cropped",
            "pad": f"black bars fill up to {lost:.0%} of an image",
            "stretch": "they are distorted",
        }[fit]
        warnings.warn(
            f"{root}: {len(odd)} of {len(sizes)} images have another aspect than the renderer's {width} x {height} "
            f"pixels, most of all {path.name} ({w} x {h}). With fit: {fit}, {effect}. Rendered images don't show that, "
            "so features will differ. Crop the images yourself, choose another fit, or give the renderer their aspect.",
            stacklevel=4,
        )
    small = [path for path, (h, w) in sizes.items() if h < height and w < width]
    if small:
        h, w = sizes[small[0]]
        warnings.warn(
            f"{root}: {len(small)} of {len(sizes)} images are smaller than the renderer's {width} x {height} pixels, "
            f"such as {small[0].name} ({w} x {h}). Enlarged images are blurred, and rendered ones are not: lower the "
            "renderer's size.",
            stacklevel=4,
        )


def _walk(root: Path, onerror: Callable[[OSError], object]) -> Iterator[Path]:
    # Linked folders are followed, as data sets often are links; but each real folder is visited once, and the root's
    # parents never, so that loops of links terminate.
    real = root.resolve()
    seen = {real, *real.parents}
    for folder, subfolders, names in os.walk(root, onerror=onerror, followlinks=True):
        fresh = []
        for name in sorted(subfolders):
            real = Path(folder, name).resolve()
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                fresh.append(name)
        subfolders[:] = fresh
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # verify() reports a missing file
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise UserError(f"{name} cannot be {value!r}. {suggest(str(value), map(str, choices))}")


def _check_folder(root: str | Path) -> Path:
    if not str(root):
        raise UserError("root is empty: give the folder that holds the images.")
    folder = expand_path(root).absolute()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ImageError(folder, f"is a file, and root must be a folder. Did you mean {folder.parent}?")
    near, exact = _nearest(folder)
    advice = f"The part that exists is {near}." if exact else f"Did you mean {near}?"
    raise ImageError(folder, f"no such folder. {advice}")


def _nearest(path: Path) -> tuple[Path, bool]:
    """Follow `path` through existing folders of equal or similar names; return the last, and if all names are equal."""
    near, exact = Path(path.anchor), True
    for part in path.parts[1:]:
        if not (near / part).is_dir():
            names = {each.name.lower(): each.name for each in near.iterdir() if each.is_dir()}
            match = get_close_matches(part.lower(), names, n=1)
            if not match:
                break
            part, exact = names[match[0]], False
        near /= part
    return near, exact
