"""Target images in shards, tar files that are read from front to back: for sets that outgrow a disk."""

import contextlib
import json
import tarfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ms2.core.errors import UserError
from ms2.core.hashing import sha256
from ms2.core.images import EXTENSIONS, Fit, ImageError, read_image
from ms2.targets.base import Target
from ms2.targets.image_folder import MAX_LISTED, OnError, format_examples, warn_about_shapes
from ms2.world import World

ARCHIVES = (".tar", ".tar.gz", ".tgz")
LOOKED_AT = 16
"""Images that are decoded before anything is trained on them: to check all would be to read the whole set twice."""


class ShardError(UserError):
    """A shard that can't be opened or read to its end."""


class Shards(Target):
    """Images in tar files, as the webdataset package writes and opens them, streamed once and never kept.

    Every member with an image's extension is an image; labels and other members are passed over. The order is that of
    the shards and of the members in each, however many processes and workers read.

    Processes and workers read whole shards, every n-th of them, while there are enough shards to go round: make them
    of about one size, and more of them than readers. Where there are fewer, or ``num_images`` is given, each reader
    passes over all shards and decodes every n-th image.

    Shards elsewhere are taken not to change: give new ones new names, or delete what is kept in ``runs/cache``. A
    ``pipe:`` runs a command, so take configurations from people you trust.

    Args:
        world: Whose renderer sets the images' size and channels.
        urls: A folder of tar files, or one or more files, addresses (``https://...``, ``gs://...``) or commands
            (``pipe:...``), with braces for many: ``train-{0000..0099}.tar``.
        fit: How images of another shape are brought to the renderer's: cut, padded with black, or stretched.
        on_error: What to do with images that can't be decoded. A shard that is missing or breaks off stops the run
            in any case: nobody knows what else it held.
        num_images: Use the first so many images only, counted before any are skipped.

    Raises:
        ShardError: If there are no shards, or local ones are missing.
    """

    def __init__(
        self,
        world: World,
        urls: str | list[str],
        fit: Fit = "crop",
        on_error: OnError = "raise",
        num_images: int | None = None,
    ) -> None:
        if num_images is not None and num_images < 1:
            raise UserError(f"num_images is {num_images}: give the number of images to use, 1 or more, or null for all")
        self.channels: Literal[1, 3] = 1 if world.renderer.channels == 1 else 3
        self.frame, self.fit, self.on_error, self.num_images = world.renderer.size, fit, on_error, num_images
        self.urls = [url for given in ([urls] if isinstance(urls, str) else urls) for url in _expanded(given)]
        if not self.urls:
            raise ShardError("urls names no shards: give a folder of tar files, or their names or addresses")
        _check_files(self.urls)
        self._first: UInt8[Tensor, "m c h w"] | None = None

    @property
    def size(self) -> int | None:
        """Unknown before all is read."""
        return None

    def share(self, rank: int = 0, world_size: int = 1, limit: int | None = None) -> "_Share":
        """One of ``world_size`` parts; with a limit, of the first images."""
        return _Share(self, rank, world_size, limit)

    def first(self, n: int) -> UInt8[Tensor, "m c h w"]:
        """The first n images, which are kept: pictures show the same ones again and again."""
        if self._first is None or len(self._first) < n:
            with contextlib.closing(self.read()) as images:
                found = [image for _, image in islice(images, n)]
            if not found:
                raise self.empty()
            self._first = torch.stack(found)
        return self._first[:n]

    def empty(self) -> ShardError:
        """What to say where there is no image."""
        more = f" and {len(self.urls) - 1} more shards" if len(self.urls) > 1 else ""
        return ShardError(
            f"{self.urls[0]}{more} hold no image that can be used: looked for members that end in "
            f"{' '.join(EXTENSIONS)} (hidden ones aside). Pack images into them, or give other urls."
        )

    def key(self) -> str:
        """Hash of the addresses, and of sizes and times of local files."""
        facts = [self.frame, self.channels, self.fit, self.on_error, self.num_images, *map(_facts, self.urls)]
        return sha256(json.dumps(facts))

    def verify(self) -> None:
        """Decode the first few images, and say what becomes of their shape."""
        sizes: dict[Path, tuple[int, int]] = {}
        with contextlib.closing(self.read(as_they_are=True)) as images:
            for place, image in islice(images, LOOKED_AT):
                sizes[Path(f"image {place >> 32}-{place & 0xFFFFFFFF}")] = (image.shape[1], image.shape[2])
        if not sizes:
            raise self.empty()
        warn_about_shapes(self.urls[0], sizes, self.frame, self.fit)

    def read(
        self,
        reader: int = 0,
        readers: int = 1,
        limit: int | None = None,
        as_they_are: bool = False,
    ) -> Generator[tuple[int, UInt8[Tensor, "c h w"]], None, None]:
        """The images of one of several readers, each with its place: the shard's number, then the member's.

        They are brought to the renderer's size, unless they are asked for as they are.

        Raises:
            ImageError: If an image can't be decoded, unless those are skipped; names shard and member.
            ShardError: If a shard can't be read to its end.
        """
        limits = [n for n in (limit, self.num_images) if n is not None]
        most = min(limits) if limits else None
        whole = most is None and len(self.urls) >= readers
        frame = None if as_they_are else self.frame
        seen, bad = 0, list[ImageError]()
        for shard, url in enumerate(self.urls):
            if (whole and shard % readers != reader) or seen == most:
                continue
            with contextlib.closing(_members(url)) as members:
                for number, (name, content) in enumerate(members):
                    mine, seen = whole or seen % readers == reader, seen + 1
                    if mine:
                        try:
                            image = read_image(f"{url}, member {name!r}", self.channels, frame, self.fit, content)
                        except ImageError as error:
                            if self.on_error == "raise":
                                raise
                            bad.append(error)
                        else:
                            yield shard << 32 | number, image
                    if seen == most:
                        break
        if bad:
            warnings.warn(format_examples(f"{len(bad)} images of shards are left out", bad), stacklevel=2)


class _Share(IterableDataset[tuple[int, UInt8[Tensor, "c h w"]]]):
    """What one process reads of shards, shared with its workers."""

    def __init__(self, shards: Shards, rank: int, world_size: int, limit: int | None) -> None:
        self.shards, self.rank, self.world_size, self.limit = shards, rank, world_size, limit

    def __iter__(self) -> Iterator[tuple[int, UInt8[Tensor, "c h w"]]]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.shards.read(self.rank * workers + number, self.world_size * workers, self.limit)


class _Strict(tarfile.TarInfo):
    """A member's header that is whole: by itself, tarfile takes a broken one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Strict":
        """The next member; ReadError for half a header."""
        try:
            return super().fromtarfile(tar)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def _members(url: str) -> Generator[tuple[str, bytes], None, None]:
    """Name and content of the images in a shard. The names come from strangers: they are shown, and open nothing."""
    from webdataset.gopen import gopen

    last, stream = "before its first image", None
    try:
        stream = gopen(url)
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Strict) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined] # else it remembers all of them
                file = tar.extractfile(member) if member.isreg() and _is_image(member.name) else None
                if file is not None:
                    yield member.name, file.read()
                    last = f"after {member.name!r}"
        while stream.read(1 << 16):  # padding, without which a command would end by a broken pipe
            pass
        stream.close()  # a command that failed says so now
    except Exception as error:  # given broken bytes, decompressors raise anything
        raise ShardError(
            f"{url}: the shard can't be read, or breaks off, {last}: {_reason(error, stream)}. Fetch or pack it again, "
            "or take it out of urls."
        ) from error
    finally:
        if stream is not None:
            with contextlib.suppress(Exception):  # of a command that is stopped early
                stream.close()


def _reason(error: Exception, stream: Any) -> str:
    """Why a shard can't be read: if a command was to fetch it, what that ended with."""
    try:
        if stream is not None:
            stream.close()
    except Exception as status:
        return str(status)
    return str(error) or type(error).__name__


def _is_image(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in EXTENSIONS


def _expanded(given: str) -> list[str]:
    """The addresses that are meant by one: a folder's files, or those of a pattern."""
    from webdataset.shardlists import expand_urls

    folder = Path(given).expanduser()
    if not folder.is_dir():
        return [str(Path(url).expanduser()) if url.startswith("~") else url for url in expand_urls(given)]
    found = sorted(str(path) for path in folder.iterdir() if path.name.endswith(ARCHIVES) and path.name[0] != ".")
    if not found:
        raise ShardError(
            f"{folder.absolute()} holds no shards: looked for files that end in {', '.join(ARCHIVES)}. Give a folder "
            "of tar files; for a folder of images use the target Folder."
        )
    return found


def _local(url: str) -> Path | None:
    """The file that an address means, if it is one."""
    parsed = urlparse(url)
    if parsed.scheme == "file":
        return Path(url2pathname(parsed.path))
    return Path(url) if parsed.scheme == "" else None


def _check_files(urls: Sequence[str]) -> None:
    """Refuse local shards that are not there."""
    missing = [path for url in urls if (path := _local(url)) is not None and not path.exists()]
    if not missing:
        return
    folder = missing[0].absolute().parent
    there = sorted(path.name for path in folder.iterdir() if path.name.endswith(ARCHIVES)) if folder.is_dir() else []
    more = " ..." if len(there) > MAX_LISTED else ""
    text = format_examples(f"{len(missing)} of {len(urls)} shards are missing", missing)
    has = f"{folder} has {', '.join(there[:MAX_LISTED]) or 'none'}{more}" if folder.is_dir() else f"no {folder}"
    raise ShardError(f"{text}\n{has}. Correct urls, or fetch what is missing.")


def _facts(url: str) -> list[Any]:
    path = _local(url)
    if path is None:
        return [url]
    stat = path.stat()
    return [url, stat.st_size, stat.st_mtime_ns]
