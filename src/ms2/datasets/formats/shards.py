"""Tar files with images and records, which are read in sequence: writer."""

import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import orjson

from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord

IMAGES_PER_SHARD = 1024
"""32 blocks of images; some 100 MB of streets, which object stores and disks read at full speed."""


class ShardsFormat(Format):
    """Tar files of 1024 images each, ``shards/NUMBER.tar``, in WebDataset's layout: files of a name belong together.

    Of image 42 they hold ``000042.png`` and ``000042.json``, its record; with depth and maps ``000042.depth.png`` and,
    for instance, ``000042.panoptic.png``. Equal settings give equal bytes.
    """

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write the shards, one after the other."""
        remaining = iter(records())
        for number in range(-(-plan.num_images // IMAGES_PER_SHARD)):
            folder.write(f"shards/{number:06d}.tar", _tar(_members(folder, islice(remaining, IMAGES_PER_SHARD))))

    def usage(self) -> str:
        """Return usage with WebDataset."""
        return (
            "Tar files for WebDataset, `shards/`; `images/` and `scenes/` need not be copied with them:\n\n"
            "```python\nfrom glob import glob\n\nimport webdataset\n\n"
            'shards = webdataset.WebDataset(sorted(glob("shards/*.tar")), shardshuffle=False)\n'
            'data = shards.decode("torchrgb").to_tuple("png;jpg", "json")\n```'
        )


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    content: bytes


def _members(folder: DataSetFolder, records: Iterable[ImageRecord]) -> Iterator[Member]:
    for record in records:
        maps = dict(record.maps) | ({} if record.depth is None else {"depth": record.depth})
        files = {"": record.image.file} | {f".{name}": one.file for name, one in sorted(maps.items())}
        for kind, file in files.items():
            yield Member(f"{record.stem}{kind}.{file.rpartition('.')[2]}", (folder.root / file).read_bytes())
        yield Member(f"{record.stem}.json", orjson.dumps(record.to_json()))


def _tar(members: Iterable[Member]) -> Iterator[bytes]:
    """Yield the parts of a tar file without times and owners."""
    for name, content in members:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        yield header.tobuf(tarfile.USTAR_FORMAT)
        yield content
        yield b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    yield b"\0" * 2 * tarfile.BLOCKSIZE
