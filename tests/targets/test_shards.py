"""Shards: every image once however it is read, as from a folder, and what is said where something is broken."""

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from helpers import EXPECTED, Beads, abacus, command, images, last, learner, ms2, on_two_ranks, trainer
from helpers import fit as run
from PIL import Image
from torch import Tensor

from ms2.core.errors import UserError
from ms2.core.images import ImageError
from ms2.features.base import Blocks
from ms2.learning.data import TargetImages
from ms2.targets.base import Target
from ms2.targets.folder import Folder
from ms2.targets.shards import Shards
from ms2.targets.tar_stream import ShardError, read_members
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

pytestmark = EXPECTED
WORKERS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork
SIDE = 8


def world() -> World:
    return World(MultiMNIST(), UniformDigits(2), UniformPlacement(), DigitCanvas(canvas_size=SIDE, digit_size=6))


def encoded(level: int, side: int = SIDE, extension: str = "png") -> bytes:
    """A grey image."""
    file = io.BytesIO()
    Image.new("L", (side, side), level).save(file, {"jpg": "jpeg"}.get(extension, extension))
    return file.getvalue()


def pack(path: Path, members: Mapping[str, bytes], mode: Any = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def packed(folder: Path, sizes: Sequence[int]) -> Path:
    """Shards with so many images, whose grey levels count up, and a label beside each."""
    level = 0
    for shard, size in enumerate(sizes):
        members: dict[str, bytes] = {}
        for _ in range(size):
            members |= {f"{level:04d}.png": encoded(level), f"{level:04d}.json": b"{}"}
            level += 1
        pack(folder / f"part-{shard:03d}.tar", members)
    return folder


def levels(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def seen(target: Target, rank: int, world_size: int, workers: int = 0, limit: int | None = None) -> dict[int, int]:
    """Grey level of each image by its place."""
    loader = TargetImages(target, embedding_batch_size=3, num_workers=workers).image_loader(rank, world_size, limit)
    found: dict[int, int] = {}
    for places, batch in loader:
        assert not set(places.tolist()) & set(found), "a place came twice"
        found |= dict(zip(places.tolist(), levels(batch), strict=True))
    return found


# --- each image once ---


SPLITS = {"one": [13], "three": [5, 1, 8], "five": [2, 4, 0, 7, 1], "one image": [1, 0], "empty first": [0, 0, 6]}


@WORKERS
@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_two_processes_with_two_workers_see_each_image_once(tmp_path: Path, sizes: list[int]) -> None:
    """Also where there are fewer shards than readers, or empty ones."""
    target = Shards(world(), str(packed(tmp_path, sizes)))
    parts = [seen(target, rank, 2, workers=2) for rank in range(2)]
    assert not set(parts[0]) & set(parts[1])
    together = parts[0] | parts[1]
    assert [together[place] for place in sorted(together)] == list(range(sum(sizes)))


@pytest.mark.parametrize("readers", range(1, 6))
def test_the_places_are_those_of_one_reader(tmp_path: Path, readers: int) -> None:
    target = Shards(world(), str(packed(tmp_path, [5, 1, 8])))
    together: dict[int, int] = {}
    for rank in range(readers):
        together |= seen(target, rank, readers)
    assert together == seen(target, 0, 1)


@pytest.mark.parametrize("limit", [1, 5, 6, 13, 99])
@pytest.mark.parametrize("readers", [1, 2, 3])
def test_a_limit_takes_the_first_images(tmp_path: Path, limit: int, readers: int) -> None:
    folder = str(packed(tmp_path, [5, 1, 8]))
    for target, asked in ((Shards(world(), folder, limit=limit), None), (Shards(world(), folder), limit)):
        parts = [seen(target, rank, readers, limit=asked) for rank in range(readers)]
        assert sorted(level for part in parts for level in part.values()) == list(range(min(limit, 14)))


def test_whole_shards_are_read_by_one_reader_each(tmp_path: Path) -> None:
    """Where there are enough of them, so that nothing is fetched twice."""
    target, opened = Shards(world(), str(packed(tmp_path, [2, 2, 2, 2, 2]))), list[str]()

    def members(url: str, timeout: float) -> Any:
        opened.append(url)
        return read_members(url, timeout)

    with mock.patch("ms2.targets.shards.read_members", members):
        for rank in range(4):
            seen(target, rank, 4)
    assert sorted(opened) == target.urls


def test_a_limit_of_an_indexed_target_is_spread_over_it(tmp_path: Path) -> None:
    for level in range(10):
        (tmp_path / f"{level}.png").write_bytes(encoded(level))
    found = [seen(Folder(world(), tmp_path), rank, 2, limit=5) for rank in range(2)]
    assert found[0] == {0: 0, 4: 4, 8: 8} and found[1] == {2: 2, 6: 6}


# --- the same as a folder ---


class Grey(Beads):
    """Mean and deviation of an image."""

    def forward(self, images: Tensor) -> Blocks:
        return {"look": torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1)}


def both(folder: Path, sizes: Sequence[int]) -> tuple[Shards, Folder]:
    """The same pictures in shards and in a folder, of several kinds and shapes."""
    numbers, draw = 0, np.random.default_rng(0)
    for shard, size in enumerate(sizes):
        members: dict[str, bytes] = {}
        for _ in range(size):
            file, kind = io.BytesIO(), ("png", "jpeg", "webp")[numbers % 3]
            shape = (SIDE, SIDE + 5 * (numbers % 2), 3)
            Image.fromarray(draw.integers(0, 255, shape, np.uint8)).save(file, kind)
            name = f"{numbers:04d}.{kind.upper()}"
            members[f"./deep/{name}"] = file.getvalue()
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / name).write_bytes(file.getvalue())
            numbers += 1
        pack(folder / "tars" / f"{shard}.tar", members)
    return Shards(world(), str(folder / "tars"), fit="pad"), Folder(world(), folder / "images", "pad")


@WORKERS
@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_the_same_images_in_a_folder(tmp_path: Path, workers: int) -> None:
    shards, folder = both(tmp_path, [5, 1, 3])
    found, expected = (
        TargetImages(target, embedding_batch_size=2, num_workers=n).embedded(Grey())["look"]
        for target, n in ((shards, workers), (folder, 0))
    )
    assert len(found) == 9 and torch.equal(found, expected)
    assert torch.equal(shards.preview(4), folder.preview(4)) and len(shards.preview(99)) == 9


def on_a_rank(folder: Path, tars: Path) -> dict[str, Tensor]:
    model = learner(abacus(), features=Grey())
    fit = trainer(folder, 1, devices=2, strategy="ddp")
    fit.fit(model, datamodule=images(model.world, 8, batch_size=4))
    data = TargetImages(Shards(world(), str(tars)), embedding_batch_size=3)
    return data.embedded(model.features)


@pytest.mark.parametrize("sizes", [[1], [5, 0, 2]], ids=["one image", "unequal"])
def test_two_processes_have_all_features_in_order(tmp_path: Path, sizes: list[int]) -> None:
    """Also a process that has no image at all."""
    packed(tmp_path / "tars", sizes)
    for rank in on_two_ranks(on_a_rank, tmp_path, tmp_path, tmp_path / "tars"):
        expected = torch.arange(sum(sizes)).float() / 255
        torch.testing.assert_close(rank["look"], torch.stack([expected, torch.zeros_like(expected)], 1))


def weights(run: Path) -> dict[str, Tensor]:
    return {name: value for name, value in last(run)["state_dict"].items() if isinstance(value, Tensor)}


def test_a_run_on_shards_ends_like_one_on_the_same_images_in_a_folder(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    content = {}
    for number in range(30):
        Image.fromarray(draw.integers(0, 255, (24, 24), np.uint8)).save(tmp_path / "images" / f"{number:02d}.png")
        content[f"{number:02d}.png"] = (tmp_path / "images" / f"{number:02d}.png").read_bytes()
    for shard in range(3):
        names = sorted(content)[10 * shard : 10 * shard + 10]
        pack(tmp_path / "tars" / f"{shard}.tar", {name: content[name] for name in names})
    without = [f"data.target.init_args.{name}" for name in ("num_images", "structure_prior.init_args.max_digits")]
    common: dict[str, Any] = {"without": without, "data__embedding_batch_size": 7}
    first = run(tmp_path / "a", "folder", data__target="Folder", data__target__root=tmp_path / "images", **common)
    tars = f"{tmp_path}/tars/{{0..2}}.tar"
    second = run(tmp_path / "b", "shards", data__target="Shards", data__target__urls=tars, **common)
    ours, theirs = weights(second), weights(first)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (second / "summary.png").exists()


def test_images_are_drawn_beside_a_stream(tmp_path: Path) -> None:
    target = Shards(world(), str(packed(tmp_path, [3])))
    assert len(TargetImages(target).predict_dataloader().dataset) == 1000  # type: ignore[arg-type]
    assert len(TargetImages(target, num_predict_images=7).predict_dataloader().dataset) == 7  # type: ignore[arg-type]
    assert len(images(abacus(), 40).predict_dataloader().dataset) == 40  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Shards is a stream"):
        len(target)


# --- which shards ---


def test_shards_are_named_by_folder_pattern_or_list(tmp_path: Path) -> None:
    packed(tmp_path, [1, 1, 1])
    every = [str(tmp_path / f"part-{n:03d}.tar") for n in range(3)]
    (tmp_path / "notes.txt").touch()
    assert Shards(world(), str(tmp_path)).urls == every
    assert Shards(world(), f"{tmp_path}/part-{{000..002}}.tar").urls == every
    assert Shards(world(), [every[2], f"{tmp_path}/part-00{{0,1}}.tar"]).urls == [every[2], *every[:2]]
    elsewhere = "https://example.org/{a,b}.tar"
    assert Shards(world(), elsewhere).urls == ["https://example.org/a.tar", "https://example.org/b.tar"]


@pytest.mark.parametrize("prefix", ["file://", "pipe:cat "])
def test_other_addresses_are_opened_by_webdataset(tmp_path: Path, prefix: str) -> None:
    path = packed(tmp_path, [3]) / "part-000.tar"
    assert levels(Shards(world(), f"{prefix}{path}", allow_pipe=True).preview(9)) == [0, 1, 2]


def test_compressed_shards(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar.gz", {"a.jpg": encoded(9, extension="jpg")}, "w:gz")
    assert levels(Shards(world(), str(tmp_path)).preview(1)) == [9]


def test_missing_shards_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    packed(tmp_path, [1, 1])
    with pytest.raises(ShardError, match=r"(?s)2 of 4 shards are missing:\n  .*part-002\.tar\n.*part-003\.tar\n.*has "
                       r"part-000\.tar, part-001\.tar\. Correct urls, or fetch"):  # fmt: skip
        Shards(world(), f"{tmp_path}/part-{{000..003}}.tar")
    with pytest.raises(ShardError, match=r"part-\*\.tar\n.*Write ranges as \{000\.\.099\}"):
        Shards(world(), f"{tmp_path}/part-*.tar")
    with pytest.raises(ShardError, match="no folder /nowhere"):
        Shards(world(), "/nowhere/a.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"holds no shards.*use the target Folder"):
        Shards(world(), str(tmp_path / "empty"))
    with pytest.raises(ShardError, match="names no shards"):
        Shards(world(), [])
    with pytest.raises(UserError, match="Shards: limit must be at least 1, not 0"):
        Shards(world(), str(tmp_path), limit=0)


@pytest.mark.parametrize("url", ["s3://bucket/a.tar", "htps://example.org/a.tar", "pipe2:x", "s3://[x"])
def test_addresses_that_nothing_reads_are_refused(url: str) -> None:
    with pytest.raises(
        ShardError, match=r"there is no reader of the address '.*Available: ais, file, .*https.*'pipe:COM"
    ):
        Shards(world(), url)


def test_a_command_that_fails_is_named_with_its_status(tmp_path: Path) -> None:
    target = Shards(world(), f"pipe:cat {tmp_path}/gone.tar 2>/dev/null", allow_pipe=True)
    with pytest.raises(ShardError, match=r"(?s)gone\.tar.*can't be read.*before its first image.*exit status 1\."):
        target.verify()


def test_the_key_follows_names_sizes_times_and_settings(tmp_path: Path) -> None:
    path = packed(tmp_path, [2]) / "part-000.tar"
    os.utime(path, ns=(10**18, 10**18))
    keys = {Shards(world(), str(path)).fingerprint()}
    assert Shards(world(), str(tmp_path)).fingerprint() in keys
    keys |= {Shards(world(), str(path), **more).fingerprint() for more in ({"fit": "pad"}, {"limit": 1})}  # type: ignore[arg-type]
    keys.add(Shards(world(), [str(path), "https://example.org/a.tar"]).fingerprint())
    os.utime(path, ns=(10**18, 10**18 + 1))
    keys.add(Shards(world(), str(path)).fingerprint())
    path.write_bytes(path.read_bytes() + bytes(512))
    os.utime(path, ns=(10**18, 10**18))
    keys.add(Shards(world(), str(path)).fingerprint())
    assert len(keys) == 6


# --- what is broken ---


def test_a_broken_image_is_named_with_its_shard_or_left_out(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"0.png": encoded(0), "../1.png": encoded(1)[:45], "2.png": encoded(2), "3.png": b""})
    with pytest.raises(ImageError, match=r"a\.tar, member '\.\./1\.png': "):
        Shards(world(), str(tmp_path)).verify()
    target = Shards(world(), str(tmp_path), on_error="skip")
    with pytest.warns(
        UserWarning, match=r"(?s)2 images of shards are left out:.*a\.tar, member '\.\./1\.png'.*'3\.png'"
    ):
        assert list(seen(target, 0, 1).values()) == [0, 2]


@pytest.mark.parametrize("cut", [530, 1124, 3000], ids=["in the first image", "in a header", "in the last image"])
def test_a_shard_that_breaks_off_stops_the_run_even_if_images_are_skipped(tmp_path: Path, cut: int) -> None:
    path = pack(tmp_path / "a.tar", {"0.png": encoded(0), "1.png": encoded(1), "2.png": bytes(2000)})
    path.write_bytes(path.read_bytes()[:cut])
    target = Shards(world(), str(path), on_error="skip")
    with pytest.raises(ShardError, match=r"a\.tar: the shard can't be read, or is truncated, (before|after '\d\.png')"):
        list(target.iterate())


def test_a_header_of_noise_is_not_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {"0.png": encoded(0), "1.png": encoded(1)})
    content = bytearray(path.read_bytes())
    content[1024:1536] = b"\x07" * 512
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"is truncated, after '0\.png'"):
        list(read_members(str(path), 10.0))


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ShardError, match=r"a\.tar: the shard can't be read.*before its first image.*Fetch or pack"):
        Shards(world(), str(tmp_path)).verify()


def test_shards_without_images_say_what_was_looked_for(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"a.txt": b"1", ".hidden.png": encoded(1), "__MACOSX/._a.png": encoded(1)})
    target = Shards(world(), str(tmp_path))
    with pytest.raises(ShardError, match=r"a\.tar hold no usable image.*\.jpg"):
        target.verify()
    with pytest.raises(ShardError, match="hold no usable image"):
        target.preview(3)
    with pytest.raises(UserError, match="not one image"):
        TargetImages(target).embedded(Grey())


def test_names_open_nothing(tmp_path: Path) -> None:
    """Links, and paths that lead out of the archive."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(99))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(outside)
            tar.addfile(info)
        for name in ("/etc/a.png", "../../b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(5))
            tar.addfile(info, io.BytesIO(encoded(5)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ImageError, match=rf"a\.tar, member 'link\.png': is a link to '{outside}' and has no content; pack"
    ):
        Shards(world(), str(tmp_path)).verify()
    target = Shards(world(), str(tmp_path), on_error="skip")
    with pytest.warns(
        UserWarning, match=r"(?s)3 images of shards are left out:.*'link.*'hard.*'pipe\.png': is a special"
    ):
        assert list(seen(target, 0, 1).values()) == [5, 5]
    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_another_aspect_are_told(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (64, 16)).save(file, "png")
    pack(tmp_path / "a.tar", {"a.png": file.getvalue()})
    with pytest.warns(UserWarning, match="1 of 1 images have another aspect"):
        Shards(world(), str(tmp_path)).verify()


# --- nothing is lost ---


@pytest.mark.parametrize("compress", [None, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
def test_concatenated_archives_are_read_to_the_end(tmp_path: Path, compress: Any) -> None:
    """Also where each was compressed by itself, and where an empty one is between."""
    packed(tmp_path, [2, 0, 3])
    content = [path.read_bytes() for path in sorted(tmp_path.glob("*.tar"))]
    (tmp_path / "all.bin").write_bytes(b"".join(compress(part) if compress else part for part in content))
    assert levels(Shards(world(), str(tmp_path / "all.bin")).preview(9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("member", [0, 2, 4], ids=["first", "middle", "last"])
def test_zeros_over_a_header_are_not_the_end(tmp_path: Path, member: int) -> None:
    """Members of a header and a block each, of which every second one is an image."""
    path = packed(tmp_path, [3]) / "part-000.tar"
    content = bytearray(path.read_bytes())
    content[1024 * member : 1024 * member + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"part-000\.tar: the shard can't be read, or is truncated"):
        list(Shards(world(), str(path), on_error="skip").iterate())


def test_an_archive_that_ends_between_two_members_is_truncated(tmp_path: Path) -> None:
    path = packed(tmp_path, [3]) / "part-000.tar"
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(ShardError, match=r"truncated, after '0000\.png': it ends without an end-of-archive mark"):
        list(read_members(str(path), 1.0))
    path.write_bytes(b"")
    with pytest.raises(ShardError, match="empty file"):
        list(read_members(str(path), 1.0))


def test_a_compressed_archive_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress((packed(tmp_path, [3]) / "part-000.tar").read_bytes())[:-20])
    with pytest.raises(ShardError, match=r"a\.tar\.gz: the shard can't be read"):
        list(read_members(str(path), 1.0))


def test_images_of_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {"0.png": encoded(0), "1.HEIC": b"ftypheic", "2.avif": b"", ".3.heic": b"", "4.txt": b""})
    with pytest.raises(
        ImageError, match=r"a\.tar, member '1\.HEIC': HEIC files are not read; convert it to PNG or JPEG"
    ):
        Shards(world(), str(tmp_path)).verify()
    with pytest.warns(UserWarning, match=r"2 images of shards are left out"):
        assert list(seen(Shards(world(), str(tmp_path), on_error="skip"), 0, 1).values()) == [0]


# --- what is no file ---


def test_only_files_are_shards(tmp_path: Path) -> None:
    """A named pipe would wait for ever, and can't be read twice."""
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "b.tar").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "c.tar"))
        for name, kind in (("a.tar", "a named pipe"), ("{b,b}.tar", "a folder"), ("c.tar", "a socket")):
            with pytest.raises(ShardError, match=rf"\.tar is {kind}: it must be a tar file"):
                Shards(world(), f"{tmp_path}/{name}")
    for url in ("/dev/zero", f"file://{tmp_path}/a.tar", str(tmp_path)):
        with pytest.raises(ShardError, match=r"is a (device|named pipe)"):
            Shards(world(), url)


@pytest.mark.parametrize("urls", ["", " ", [""], "$NOTHING"])
def test_an_empty_name_is_not_the_current_folder(
    urls: str | list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTHING", "")
    monkeypatch.chdir(packed(tmp_path, [1]))
    with pytest.raises(UserError, match=r"is empty: give a file or a folder, or '\.' for the current folder"):
        Shards(world(), urls)
    assert len(Shards(world(), ".").urls) == 1


# --- commands ---


@pytest.mark.parametrize(
    "url",
    ["pipe:touch MARK", "PIPE:touch MARK", " pipe:touch MARK", "a.tar::pipe:touch MARK", "{pipe,pipe}:touch MARK"],
)
def test_a_command_runs_only_with_permission(url: str, tmp_path: Path) -> None:
    url = url.replace("MARK", str(tmp_path / "mark"))
    with pytest.raises(ShardError, match=r"shell command, '.*touch .*runs only with permission.*--allow_pipe true"):
        Shards(world(), url)
    assert not (tmp_path / "mark").exists()
    if url.strip().startswith(("pipe", "PIPE")):
        with pytest.raises(ShardError, match="empty file"):
            Shards(world(), url, allow_pipe=True).verify()
        assert (tmp_path / "mark").exists()


def test_a_configuration_cannot_give_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither as an option, nor as an argument of the target, nor in a file of the target's own: it is typed."""
    urls = f"pipe:touch {tmp_path / 'mark'}"
    target = {"class_path": "Shards", "init_args": {"urls": urls, "allow_pipe": True}}
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(target))
    (tmp_path / "multimnist_theirs.yaml").write_text(
        yaml.safe_dump({"base": "multimnist_quick", "allow_pipe": True, "data": {"target": target}})
    )
    common: dict[str, Any] = {"without": ["data.target.init_args.num_images"], "name": "a"}
    common["without"].append("data.target.init_args.structure_prior.init_args.max_digits")
    theirs = command(tmp_path, tmp_path / "multimnist_theirs.yaml", **common)
    of_its_own = command(tmp_path, **common, data__target=tmp_path / "target.yaml")
    for words in (theirs, of_its_own):
        with pytest.raises(SystemExit):
            ms2(words)
        assert "runs only with permission" in capsys.readouterr().err and not (tmp_path / "mark").exists()
    with pytest.raises(SystemExit):
        ms2([*theirs, "--allow_pipe", "true"])
    assert "empty file" in capsys.readouterr().err and (tmp_path / "mark").exists()


@pytest.mark.parametrize("words", ["sleep 60", "cat FILE; sleep 60", "head -c 700 FILE; sleep 60; true"])
def test_a_silent_command_ends_with_a_message(words: str, tmp_path: Path) -> None:
    """Before its first byte, after its last one, and in between."""
    path = packed(tmp_path, [1]) / "part-000.tar"
    target = Shards(world(), f"pipe:{words.replace('FILE', str(path))}", allow_pipe=True, timeout=0.2)
    start = time.monotonic()
    with pytest.raises(ShardError, match=r"sleep 60.*: nothing came for 0\.2 seconds"):
        list(target.iterate())
    assert time.monotonic() - start < 20


def test_a_command_is_stopped_once_enough_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path, [1]) / "part-000.tar"
    start = time.monotonic()
    assert levels(Shards(world(), f"pipe:cat {path}; sleep 60", allow_pipe=True).preview(1)) == [0]
    assert time.monotonic() - start < 20
