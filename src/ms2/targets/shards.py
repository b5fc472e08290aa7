"""Target images streamed from tar shards (WebDataset), for sets larger than a disk."""

import contextlib
import json
import stat
import warnings
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ms2.core.bounds import PositiveFloat, PositiveInt
from ms2.core.errors import MAX_LISTED, OnError, format_examples, suggest
from ms2.core.hashing import sha256
from ms2.core.images import IMAGE_SUFFIXES, Fit, ImageError, read_image
from ms2.core.paths import UserPath, expand_path
from ms2.targets.base import Target
from ms2.targets.image_folder import warn_about_shapes
from ms2.targets.tar_stream import ShardError, Unusable, read_members, scheme
from ms2.world import World

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
NUM_VERIFIED = 16
"""Images that `Shards.verify` decodes; to verify all would read the whole set twice."""
FILE_TYPES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
MEMBER_BITS = 32
"""Bits of an image's index that number the member of its shard; the others number the shard."""


class Shards(Target):
    """Images in WebDataset tar shards, streamed once and not stored.

    Every member with an image suffix is an image; other members, such as labels, are ignored. Links, and images of
    kinds that are not read (HEIC, AVIF, raw files and so on), count as undecodable images. Concatenated archives are
    read to the end. Images are ordered by shard and by member, however many processes and workers read.

    If there are at least as many shards as workers of all processes, each worker reads whole shards, every n-th of
    them: make shards of about equal size, and more of them than workers. If there are fewer shards, or ``limit`` is
    given, each worker reads all shards and decodes every n-th image.

    Remote shards are assumed not to change: give changed ones new names, or delete the cached features in
    ``runs/cache``. A ``pipe:`` runs a shell command, which needs ``allow_pipe``; configurations cannot give it, so that
    those of others run nothing.

    Args:
        world: The world; its renderer defines image size and channels.
        urls: A folder, files, URLs (``https://...``, ``gs://...``) or commands (``pipe:...``) of tar shards; braces
            name many: ``train-{0000..0099}.tar``.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle undecodable images: "raise" or "skip"; a missing or truncated shard always raises, as
            its content is unknown.
        limit: Use only the first n images (counted before any are skipped); null for all.
        allow_pipe: Whether commands (``pipe:...``) may run; on the command line, type ``--allow_pipe true``.
        timeout: Seconds to wait for the next bytes of a command or a server.

    Raises:
        ShardError: If there are no shards, local ones are missing or no files, or a command is not allowed.
    """

    def __init__(
        self,
        world: World,
        urls: UserPath | list[UserPath],
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: PositiveInt | None = None,
        allow_pipe: bool = False,
        timeout: PositiveFloat = 120.0,
    ) -> None:
        self.channels: Literal[1, 3] = 1 if world.renderer.channels == 1 else 3
        self.frame, self.fit, self.on_error, self.limit = world.renderer.size, fit, on_error, limit
        self.timeout = timeout
        self.urls = [url for given in (urls if isinstance(urls, list) else [urls]) for url in _expand(str(given))]
        if not self.urls:
            raise ShardError("urls names no shards: give a folder of tar files, or their names or addresses")
        commands = [url for url in self.urls if scheme(url) == "pipe"]
        if commands and not allow_pipe:
            raise ShardError(
                f"urls has a shell command, {commands[0]!r}, which runs only with permission. If you trust it, add "
                "--allow_pipe true to the command (a configuration cannot give it; in Python: allow_pipe=True)."
            )
        _check_schemes(self.urls)
        _check_files(self.urls)
        self._preview: UInt8[Tensor, "m c h w"] | None = None

    @property
    def num_images(self) -> int | None:
        """None: the number is unknown until all are read."""
        return None

    def partition(self, rank: int = 0, world_size: int = 1, limit: PositiveInt | None = None) -> "_Partition":
        """Return a process's partition of the images, or of the first ones."""
        return _Partition(self, rank, world_size, limit)

    def preview(self, n: int) -> UInt8[Tensor, "m c h w"]:
        """Return the first n images, which are cached for further calls."""
        if self._preview is None or len(self._preview) < n:
            with contextlib.closing(self.iterate()) as images:
                found = [image for _, image in islice(images, n)]
            if not found:
                raise self._empty_error()
            self._preview = torch.stack(found)
        return self._preview[:n]

    def _empty_error(self) -> ShardError:
        more = f" and {len(self.urls) - 1} more shards" if len(self.urls) > 1 else ""
        return ShardError(
            f"{self.urls[0]}{more} hold no usable image: looked for members that end in "
            f"{' '.join(IMAGE_SUFFIXES)} (hidden ones aside). Pack images into them, or give other urls."
        )

    def fingerprint(self) -> str:
        """Compute a hash of the URLs, and of sizes and times of local files."""
        settings = [self.frame, self.channels, self.fit, self.on_error, self.limit]
        return sha256(json.dumps([*settings, *map(_file_stamp, self.urls)]))

    def verify(self) -> None:
        """Decode the first images, and warn about their shape."""
        sizes: dict[Path, tuple[int, int]] = {}
        with contextlib.closing(self.iterate(raw=True)) as images:
            for index, image in islice(images, NUM_VERIFIED):
                shard, member = divmod(index, 1 << MEMBER_BITS)
                sizes[Path(f"image {shard}-{member}")] = (image.shape[1], image.shape[2])
        if not sizes:
            raise self._empty_error()
        warn_about_shapes(self.urls[0], sizes, self.frame, self.fit)

    def iterate(
        self,
        worker: int = 0,
        num_workers: int = 1,
        limit: PositiveInt | None = None,
        raw: bool = False,
    ) -> Generator[tuple[int, UInt8[Tensor, "c h w"]], None, None]:
        """Iterate over one worker's images and their indices, which hold the numbers of shard and member.

        Args:
            worker: Number of the worker.
            num_workers: Number of workers of all processes.
            limit: Maximum number of images of all workers.
            raw: Whether to keep the images' own sizes.

        Raises:
            ImageError: If an image cannot be decoded, unless those are skipped; names shard and member.
            ShardError: If a shard is missing or truncated.
        """
        limit = min((n for n in (limit, self.limit) if n is not None), default=None)
        whole_shards = limit is None and len(self.urls) >= num_workers
        read, bad = 0, list[ImageError]()
        for shard, url in enumerate(self.urls):
            if (whole_shards and shard % num_workers != worker) or read == limit:
                continue
            with contextlib.closing(read_members(url, self.timeout)) as members:
                for number, (name, content) in enumerate(members):
                    own, read = whole_shards or read % num_workers == worker, read + 1
                    if own:
                        image = self._decode(f"{url}, member {name!r}", content, raw)
                        if isinstance(image, ImageError):
                            bad.append(image)
                        else:
                            yield shard << MEMBER_BITS | number, image
                    if read == limit:
                        break
        if bad:
            warnings.warn(format_examples(f"{len(bad)} images of shards are left out", bad), stacklevel=2)

    def _decode(self, name: str, content: bytes | Unusable, raw: bool) -> UInt8[Tensor, "c h w"] | ImageError:
        """Decode an image; return its error if undecodable images are skipped."""
        try:
            if isinstance(content, Unusable):
                raise ImageError(name, content.reason)
            return read_image(name, self.channels, None if raw else self.frame, self.fit, content)
        except ImageError as error:
            if self.on_error == "raise":
                raise
            return error


class _Partition(IterableDataset[tuple[int, UInt8[Tensor, "c h w"]]]):
    """A process's partition of the images, divided among its workers."""

    def __init__(self, shards: Shards, rank: int, world_size: int, limit: int | None) -> None:
        self.shards, self.rank, self.world_size, self.limit = shards, rank, world_size, limit

    def __iter__(self) -> Iterator[tuple[int, UInt8[Tensor, "c h w"]]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return self.shards.iterate(self.rank * workers + worker, self.world_size * workers, self.limit)


def _expand(given: str) -> list[str]:
    """Expand a folder to its archives, and a pattern to its URLs."""
    from webdataset.shardlists import expand_urls

    remote = "://" in given or given.startswith("pipe:")
    folder = Path(given) if remote else expand_path(given)
    if not folder.is_dir():
        return expand_urls(str(folder) if _local(given) is not None else given)
    found = sorted(
        str(path) for path in folder.iterdir() if path.name.endswith(ARCHIVE_SUFFIXES) and path.name[0] != "."
    )
    if not found:
        raise ShardError(
            f"{folder.absolute()} holds no shards: looked for files that end in {', '.join(ARCHIVE_SUFFIXES)}. Give a "
            "folder of tar files; for a folder of images use the target Folder."
        )
    return found


def _local(url: str) -> Path | None:
    """Return the path of a local URL; None for others."""
    if scheme(url) == "file":
        return Path(url2pathname(urlparse(url).path))
    return Path(url) if scheme(url) == "" else None


def _check_schemes(urls: Sequence[str]) -> None:
    """Raise an error if there is no reader of an address."""
    from webdataset.gopen import gopen_schemes

    known = {"file", *gopen_schemes} - {"__default__"}
    for url in urls:
        if scheme(url) not in ("", *known):
            raise ShardError(
                f"there is no reader of the address {url!r}. {suggest(scheme(url), known)} For others, 'pipe:COMMAND' "
                "reads the output of a command."
            )


def _check_files(urls: Sequence[str]) -> None:
    """Raise an error if local shards are missing, or no files."""
    local = [path for url in urls if (path := _local(url)) is not None]
    for path in local:
        if path.exists() and not path.is_file():
            kind = FILE_TYPES.get(stat.S_IFMT(path.stat().st_mode), "no file")
            raise ShardError(
                f"the shard {path} is {kind}: it must be a tar file, which can be read several times. Write it to a "
                "file, or give the name of a file."
            )
    missing = [path for path in local if not path.exists()]
    if not missing:
        return
    text = format_examples(f"{len(missing)} of {len(urls)} shards are missing", missing)
    folder = missing[0].absolute().parent
    if not folder.is_dir():
        raise ShardError(f"{text}\nThere is no folder {folder}. Correct urls, or fetch what is missing.")
    there = sorted(path.name for path in folder.iterdir() if path.name.endswith(ARCHIVE_SUFFIXES))
    more = " ..." if len(there) > MAX_LISTED else ""
    names = ", ".join(there[:MAX_LISTED]) or "none"
    wild = any(sign in path.name for path in missing for sign in "*?")
    advice = (
        "Write ranges as {000..099}: '*' and '?' stand for themselves."
        if wild
        else "Correct urls, or fetch what is missing."
    )
    raise ShardError(f"{text}\n{folder} has {names}{more}. {advice}")


def _file_stamp(url: str) -> list[Any]:
    """Return a URL, with size and time if it is a local file."""
    path = _local(url)
    if path is None:
        return [url]
    found = path.stat()
    return [url, found.st_size, found.st_mtime_ns]
