"""A data set as a job: images and records in blocks, of which each can be made by itself, then formats and card."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import ms2
from ms2.core.errors import UserError, suggest
from ms2.core.images import encode
from ms2.core.seeding import generator
from ms2.datasets.card import write_card
from ms2.datasets.folder import PARTIAL, FolderError, SetFolder
from ms2.datasets.formats.base import Format, format_named
from ms2.datasets.labels import Arrays, LabelError, Rule, label
from ms2.datasets.plan import Plan
from ms2.datasets.records import Record, scene_to_plain
from ms2.datasets.rendering import ENDINGS, depths_of, facts_of, is_whole, pixels_of
from ms2.grammar.derivations import lengths
from ms2.models.conditional.condition import Condition
from ms2.models.opening import Source

BLOCK = 32
"""Scenes that are drawn and rendered together. Part of what an image's seed means, so it can't be set."""


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
        if record is None or not is_whole(self.root / self.image_name(index), record.get("image")):
            return False
        return not self.plan.depth or is_whole(self.root / self.depth_name(index), record.get("depth"))

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
        depths = depths_of(rendering) if self.plan.depth else None
        steps = lengths(self.source.world.grammar, rules).tolist()
        pixels, arrays = pixels_of(rendering), Arrays.of(rendering)
        about = self._provenance()
        for i, place in enumerate(missing):
            index = block * BLOCK + place
            labels, hidden = self._labels(arrays, i, index)
            content = encode(pixels[i], self.plan.image)
            self.files.write(self.image_name(index), content)
            record: Record = {
                "image": facts_of(self.image_name(index), content, rendering, i),
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
        if self.plan.depth and depths_of(rendering) is None:
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


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
