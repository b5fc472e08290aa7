"""Generates data sets: images and records in blocks, by several processes, then the formats and the card."""

import contextlib
import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

import ms2
from ms2.conditions import Condition
from ms2.datasets.card import write_card
from ms2.datasets.folder import PARTIAL, FolderError, SetFolder
from ms2.datasets.formats import Format, format_named
from ms2.datasets.labels import Arrays, LabelError, Rule, label
from ms2.datasets.plan import Plan
from ms2.datasets.records import Record, RecordError, drawable, scene_from_plain, scene_to_plain
from ms2.datasets.source import Learned, Source, build
from ms2.derivation import lengths
from ms2.pictures import encode, to_pixels
from ms2.registry import UserError, suggest
from ms2.render import Rendering
from ms2.scene import SceneBatch
from ms2.seeding import generator

BLOCK = 32
"""Scenes that are drawn and rendered together. Part of what an image's seed means, so it can't be set."""
ENDINGS = {"png": "png", "jpeg": "jpg"}
"""Endings of the images' names."""
DEPTH_SCALE = 256
"""Steps of a depth image for each metre, as KITTI has it."""


class Job:
    """One data set in one folder: what to draw, how to label it, and where to write it.

    Args:
        source: Where scenes come from.
        plan: What the data set holds.
        root: Its folder.
        device: What to draw on.

    Raises:
        UserError: If the plan does not fit the source: unknown classes or formats, conditions that can't be met, depth
            of a flat world.
    """

    def __init__(self, source: Source, plan: Plan, root: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.source, self.plan, self.root = source.to(self.device), plan, root
        self.files = SetFolder(root)
        world = source.world
        self.formats: list[Format] = [format_named(name) for name in plan.formats]
        for each in self.formats:
            each.check(plan)
        self.draw = source.sampler([Condition.parse(text, world.grammar) for text in plan.where])
        named = (*(name for name in world.classes if name not in world.grammar.nonterminals),)
        for name in plan.classes or ():
            if name not in world.classes:
                raise UserError(f"this world has no class {name!r}. {suggest(name, world.classes)}")
        categories = named if plan.classes is None else tuple(name for name in world.classes if name in plan.classes)
        self.rule = Rule(categories, plan.min_visibility, plan.min_pixels)

    @property
    def categories(self) -> tuple[str, ...]:
        """Classes that are labelled, in the order of the world's."""
        return self.rule.categories

    # -- one image -------------------------------------------------------------------------------------

    def image_name(self, index: int) -> str:
        """Where an image lies."""
        return f"images/{index:06d}.{ENDINGS[self.plan.image]}"

    def record_name(self, index: int) -> str:
        """Where its record lies."""
        return f"scenes/{index:06d}.json"

    def depth_name(self, index: int) -> str:
        """Where its depth lies."""
        return f"depth/{index:06d}.png"

    def is_done(self, index: int) -> bool:
        """Whether image and record are there, and whole."""
        record = self.files.read_json(self.record_name(index))
        if record is None or not _is_whole(self.root / self.image_name(index), record.get("image")):
            return False
        return not self.plan.depth or _is_whole(self.root / self.depth_name(index), record.get("depth"))

    # -- a block of images -----------------------------------------------------------------------------

    @property
    def blocks(self) -> range:
        """Numbers of the blocks."""
        return range(-(-self.plan.num_scenes // BLOCK))

    def missing(self, block: int) -> list[int]:
        """Places in a block whose images are still to be made."""
        first = block * BLOCK
        there = range(min(BLOCK, self.plan.num_scenes - first))
        return [place for place in there if not self.is_done(first + place)]

    def make(self, block: int) -> int:
        """Draw a block's scenes, and write those that are missing; how many there are in it.

        All scenes of a block are drawn together, whatever is missing, and by a generator of its own: so an image
        depends on the data set's seed and on its number alone.
        """
        missing = self.missing(block)
        number = min(BLOCK, self.plan.num_scenes - block * BLOCK)
        if not missing:
            return number
        draw = generator(self.plan.seed, "dataset", block, device=self.device)
        rules = self.draw(BLOCK, draw)
        scenes = self.source.world.scenes(rules, draw).packed()
        chosen = torch.tensor(missing, device=self.device)
        rules, scenes = rules[chosen], scenes[chosen]
        rendering = self.source.world.renderer.render_labelled(scenes)
        depths = _depths(rendering) if self.plan.depth else None
        steps = lengths(self.source.world.grammar, rules).tolist()
        pixels, arrays = _pixels(rendering), Arrays.of(rendering)
        about = self._provenance()
        for i, place in enumerate(missing):
            index = block * BLOCK + place
            labels, hidden = self._labels(arrays, i, index)
            content = encode(pixels[i], self.plan.image)
            self.files.write(self.image_name(index), content)
            record: Record = {
                "image": _facts(self.image_name(index), content, rendering, i),
                "provenance": {"index": index, "block": block, **about},
                "derivation": rules[i, : steps[i]].tolist(),
                "scene": scene_to_plain(scenes, i, self.source.world.classes),
                "labels": labels,
                "hidden": hidden,
            }
            if depths is not None:
                deep = encode(depths[i], "png")
                self.files.write(self.depth_name(index), deep)
                record["depth"] = {"file": self.depth_name(index), "bytes": len(deep)}
            self.files.write_json(self.record_name(index), record)  # last: it says that the image is done
        return number

    def try_out(self) -> None:
        """Draw one scene, so that what can't be had is known before anything is written.

        Raises:
            UserError: If there is no scene that meets the conditions, or no depth.
        """
        draw, world = generator(self.plan.seed, "trial", device=self.device), self.source.world
        rendering = world.renderer.render_labelled(world.scenes(self.draw(1, draw), draw))
        if self.plan.depth and _depths(rendering) is None:
            raise UserError(f"images of {type(world.renderer).__name__} have no depth: leave --depth out")

    def _labels(self, arrays: Arrays, i: int, index: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        try:
            return label(arrays, i, self.source.world.classes, self.rule)
        except LabelError as error:
            raise UserError(f"scene {index} has broken labels, and was not written. {error}") from error

    def _provenance(self) -> dict[str, Any]:
        return {
            "seed": self.plan.seed,
            "ms2": ms2.__version__,
            **self.source.hashes(),
            "device": self.device.type,
        }

    # -- the whole -------------------------------------------------------------------------------------

    def description(self) -> dict[str, Any]:
        """All that the files depend on: a folder whose ``dataset.json`` says the same is this data set."""
        return {
            **self._provenance(),
            **self.plan.plain(),
            "categories": list(self.categories),
            "size": list(self.source.world.renderer.size),
            "source": self.source.name,
            "structure": "prior" if self.source.structure is None else "learned",
            "layout": "prior" if self.source.parameters is None else "learned",
            "world": self.source.configuration["world"],
            "model": None if self.source.structure is None else self.source.configuration["structure"],
        }

    def take_folder(self) -> None:
        """Begin the folder, or see that it holds this very data set, finished or not.

        Raises:
            FolderError: If it holds anything else.
        """
        others = self.files.names(".") - {PARTIAL}  # first: what another machine may write now begins with the json
        ours, theirs = self.description(), self.files.read_json("dataset.json")
        if theirs is None:
            if others:
                raise FolderError(
                    f"{self.root.absolute()} holds other files already: give a new folder with --output, or empty it"
                )
            self.try_out()
            self.files.write_json("dataset.json", ours, indent=True)
        elif theirs != ours:
            keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
            differences = "\n".join(f"  {k}: {_short(theirs.get(k))} there, {_short(ours.get(k))} now" for k in keys)
            raise FolderError(
                f"{self.root.absolute()} holds a data set of other settings:\n{differences}\n"
                "Nothing was changed. Give another folder with --output, or the settings that are there."
            )

    def records(self) -> Iterator[Record]:
        """The records of all images in order."""
        for index in range(self.plan.num_scenes):
            record = self.files.read_json(self.record_name(index))
            if record is None:
                raise FolderError(f"{self.root / self.record_name(index)} is missing: run the same command again")
            yield record

    def finish(self) -> None:
        """Write the formats' files and the card from the records."""
        for each in self.formats:
            each.write(self.files, self.plan, self.categories, self.records)
        write_card(self.files, self.description(), self.formats, self.rule, self.source.world, self.records)
        self.files.clean()


def generate(job: Job, workers: int = 1, rank: int = 0, world_size: int = 1, progress: bool = True) -> bool:
    """Generate what is missing of a data set.

    Several machines that share a folder may each do a part of the blocks; whoever is last writes the formats' files.

    Args:
        job: The data set.
        workers: Processes on this machine.
        rank: Number of this machine.
        world_size: Number of machines.
        progress: Whether to show a bar.

    Returns:
        Whether the data set is finished.

    Raises:
        UserError: If it can't be done; what was written before stays, and is not done again.
    """
    job.take_folder()
    mine = job.blocks[rank::world_size]
    total = sum(min(BLOCK, job.plan.num_scenes - block * BLOCK) for block in mine)
    with tqdm(total=total, desc="generating", unit="image", disable=None if progress else True) as bar:
        for done in _made(job, mine, min(workers, len(mine))):
            bar.update(done)
    if not all(job.is_done(i) for block in job.blocks if block not in mine for i in _indices(job, block)):
        return False
    job.finish()
    return True


def _indices(job: Job, block: int) -> range:
    return range(block * BLOCK, min((block + 1) * BLOCK, job.plan.num_scenes))


def _made(job: Job, blocks: range, workers: int) -> Iterator[int]:
    """Make blocks, and give the number of images of each one that is done."""
    if workers <= 1:
        with _one_thread():
            yield from map(job.make, blocks)
        return
    begin = partial(_begin, job.source.configuration, job.source.weights, job.source.name, job.source.learned)
    plan = replace(job.plan, formats=())  # workers write none, nor do they know those of a script or a notebook
    context = multiprocessing.get_context("spawn")  # forks of a process with threads, or with a GPU, hang
    with ProcessPoolExecutor(workers, context, begin, (plan, job.root, str(job.device))) as pool:
        pending: list[Future[int]] = [pool.submit(_make, block) for block in blocks]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker was killed, perhaps for want of memory: run the same command again, which goes on where it "
                "stopped, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_job: Job | None = None
"""A worker's own."""


def _begin(
    configuration: dict[str, Any],
    weights: Path | None,
    name: str,
    learned: Learned,
    plan: Plan,
    root: Path,
    device: str,
) -> None:
    global _job  # noqa: PLW0603 - what an initialiser leaves for the tasks of its process
    torch.set_num_threads(1)
    from ms2.registry import load_entry_points

    load_entry_points()
    _job = Job(build(configuration, weights, name, learned), plan, root, device)


def _make(block: int) -> int:
    assert _job is not None
    return _job.make(block)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums don't depend on how many threads share them, and images not on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pixels(rendering: Rendering) -> list[np.ndarray]:
    return [to_pixels(image) for image in rendering.image.cpu()]


def _depths(rendering: Rendering) -> list[np.ndarray] | None:
    """Depth as 16-bit images; None of a flat world."""
    depth: Float[torch.Tensor, "b h w"] | None = getattr(rendering, "depth", None)
    if depth is None:
        return None
    steps = torch.where(depth.isfinite(), depth * DEPTH_SCALE, 0).round().clamp(0, 65535)
    return list(steps.cpu().numpy().astype(np.uint16))


def _facts(name: str, content: bytes, rendering: Rendering, i: int) -> dict[str, Any]:
    height, width = rendering.image.shape[-2:]
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    facts = {"file": name, "width": width, "height": height, "bytes": len(content), "hash": digest}
    projection: Float[torch.Tensor, "b 3 4"] | None = getattr(rendering, "projection", None)
    return facts if projection is None else facts | {"projection": projection[i].tolist()}


def _is_whole(path: Path, facts: dict[str, Any] | None) -> bool:
    """Whether a file is there, as long as its record says."""
    return facts is not None and path.is_file() and path.stat().st_size == facts.get("bytes")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def render_record(path: Path) -> tuple[bytes, str, bool]:
    """Draw the image of a record again.

    Args:
        path: The record, ``scenes/NUMBER.json`` of a data set.

    Returns:
        The image file's content, its name, and whether these are the recorded bytes.

    Raises:
        UserError: If it is no record, or lies outside of a data set.
    """
    record, root = SetFolder(path.parent).read_json(path.name) or {}, path.absolute().parent.parent
    if not isinstance(record.get("scene"), dict) or not isinstance(record.get("image"), dict):
        raise RecordError(f"{path} is no record of an image: those lie under scenes/ in a data set")
    about = SetFolder(root).read_json("dataset.json") or {}
    if not isinstance(about.get("world"), dict) or about.get("image") not in ENDINGS:
        raise RecordError(
            f"{path} lies outside of a data set: {root / 'dataset.json'}, which describes its world, is missing"
        )
    world = build({"world": about["world"]}, None, root.name).world
    scenes: SceneBatch = drawable(scene_from_plain(record["scene"], world.classes), world.renderer)
    with _one_thread(), torch.no_grad():
        rendering = world.renderer.render_labelled(scenes)
    content = encode(_pixels(rendering)[0], about["image"])
    name = f"{path.stem}.{ENDINGS[about['image']]}"  # a record's own word is not to be trusted with a path
    return content, name, hashlib.blake2b(content, digest_size=16).hexdigest() == record["image"].get("hash")
