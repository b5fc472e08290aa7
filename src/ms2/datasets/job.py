"""A generation job: images and records in independent blocks, then formats and card."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

import ms2
from ms2.contracts.checks import check_first_scenes, num_first_scenes
from ms2.core.errors import UserError
from ms2.core.images import encode
from ms2.core.seeding import generator
from ms2.datasets.blocks import SceneBlocks
from ms2.datasets.card import write_card
from ms2.datasets.croissant import write_croissant
from ms2.datasets.folder import TEMPORARY_FOLDER, DataSetFolder, FolderError
from ms2.datasets.formats.base import Format, format_named
from ms2.datasets.formats.native import RecordFiles
from ms2.datasets.labels import LabelArrays, LabelError, LabelFilter, categories_of, image_labels
from ms2.datasets.maps import DenseMaps, with_maps
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord, MapFile, ObjectLabel, Provenance
from ms2.datasets.rendering import depth_arrays, describe_image, image_arrays
from ms2.datasets.sequences.frames import SequenceBlocks
from ms2.grammar.derivations import lengths
from ms2.models.conditional.condition import Condition
from ms2.models.mixed_scene_model import join_scenes
from ms2.models.opened_mixture import Opened
from ms2.models.opening import OpenedModel
from ms2.models.scene_model import Sampler
from ms2.scene.records import to_record

MAX_CARD_RECORDS = 100_000
"""Records that a data set's card is counted from: of a million images their numbers are known to 1 %."""


class Job:
    """Generation of one data set in one folder.

    Args:
        source: The scene model to sample from, or a mixture of several, with the settings and weights that it was built
            from.
        plan: The data set's specification.
        root: The data set's folder.
        device: Device for sampling and rendering.

    Raises:
        UserError: If the plan does not fit the source: unknown classes or formats, or conditions that no scene meets.
    """

    def __init__(self, source: Opened, plan: Plan, root: Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.source, self.root = source, root
        self.files = DataSetFolder(root)
        self.formats: list[Format] = [format_named(name) for name in plan.formats]
        for each in self.formats:
            each.check(plan)
        self.plan = plan = with_maps(plan, [name for each in self.formats for name in each.maps])
        self.model = source.model.to(self.device)
        self.world = self.model.world
        for each in self.formats:
            each.bind(self.world)
        self.maps = DenseMaps(self.world, plan.maps)
        self.record_files = RecordFiles(self.files, plan.image, plan.depth, self.maps.suffixes)
        conditions = [Condition.parse(text, self.world.grammar) for text in plan.conditions]
        self.samplers = [self._sampler(part, conditions) for part in source.parts]
        blocks = SceneBlocks if plan.frames is None else SequenceBlocks
        self.images = blocks(plan, self.model, self.samplers, self.device)
        categories = categories_of(self.world, plan.classes)
        self.label_filter = LabelFilter(categories, plan.min_visibility, plan.min_pixels)

    def _sampler(self, part: OpenedModel, conditions: list[Condition]) -> Sampler:
        with self._naming(part):
            return part.model.sampler(conditions=conditions)

    @contextmanager
    def _naming(self, part: OpenedModel) -> Iterator[None]:
        """Name the part of a mixture in errors."""
        try:
            yield
        except UserError as error:
            if len(self.source.parts) == 1:
                raise
            raise UserError(f"{part.name}: {error}") from error

    @property
    def categories(self) -> tuple[str, ...]:
        """The labelled classes, in the world's order."""
        return self.label_filter.categories

    # -- blocks ----------------------------------------------------------------------------------------

    @property
    def blocks(self) -> range:
        """Numbers of the blocks."""
        return self.images.numbers

    def all_complete(self, blocks: Iterable[int]) -> bool:
        """Return whether all images and records of blocks, which others generate, exist and are complete."""
        if len(self.files.names("scenes")) < self.plan.num_images:
            return False  # known without reading records
        return all(map(self.is_complete, blocks))

    def is_complete(self, block: int) -> bool:
        """Return whether all images and records of a block exist and are complete."""
        return not self._missing(block)

    def _missing(self, block: int) -> list[int]:
        """List the indices in a block that are still to be generated."""
        return [i for i in self.images.indices(block) if not self.record_files.is_complete(i)]

    def generate_block(self, block: int) -> int:
        """Render and write the missing images of a block; return the block's number of images.

        Raises:
            UserError: If the renderer's labels are inconsistent, or a file cannot be written.
        """
        indices, missing = self.images.indices(block), self._missing(block)
        if not missing:
            return len(indices)
        shown = self.images.shown(missing)
        rules, scenes, components, frames, following = self.images.sample(block, shown)
        world = self.world
        rendering = world.renderer.render_labelled(scenes)
        depths = depth_arrays(rendering) if self.plan.depth else None
        steps = lengths(world.grammar, rules).tolist()
        pixels, arrays = image_arrays(rendering), LabelArrays.from_rendering(rendering)
        labelled = [self._labels(arrays, i, index) for i, index in enumerate(shown)]
        maps = self.maps.render(scenes, rendering, [labels for labels, _ in labelled], following)
        for i, (index, image_maps, (_, hidden)) in enumerate(zip(shown, maps, labelled, strict=True)):
            if index not in missing:
                continue
            content = encode(pixels[i], self.plan.image)
            image = describe_image(self.record_files.image_name(index), content, rendering, i)
            made, depth = image_maps.files, None
            files = {name: MapFile(self.record_files.map_name(name, index), len(made[name])) for name in made}
            contents = {files[name].file: made[name] for name in made}
            if depths is not None:
                depth_content, path = encode(depths[i], "png"), self.record_files.depth_name(index)
                contents[path], depth = depth_content, MapFile(path, len(depth_content))
            record = ImageRecord(
                image=image,
                provenance=self._provenance(index, block, components[i]),
                derivation=rules[i, : steps[i]].tolist(),
                scene=to_record(scenes, i, world.classes),
                labels=image_maps.labels,
                hidden=hidden,
                depth=depth,
                maps=files,
                segments=image_maps.segments,
                frame=frames[i],
            )
            self.record_files.write(record, {image.file: content, **contents})
        return len(indices)

    def _labels(self, arrays: LabelArrays, i: int, index: int) -> tuple[list[ObjectLabel], list[ObjectLabel]]:
        """Build the labels and hidden objects of the i-th image of a block, the scene ``index``.

        Raises:
            UserError: If the renderer's labels are inconsistent.
        """
        try:
            return image_labels(arrays, i, self.world.classes, self.label_filter)
        except LabelError as error:
            raise UserError(f"scene {index} has inconsistent labels, and was not written. {error}") from error

    @cached_property
    def _fingerprints(self) -> list[dict[str, str | None]]:
        return [part.fingerprints() for part in self.source.parts]

    def _provenance(self, index: int, block: int, component: int) -> Provenance:
        run = self.source.parts[component].name if len(self.source.parts) > 1 else None
        hashes = self._fingerprints[component]
        return Provenance(index, block, self.plan.seed, ms2.__version__, self.device.type, hashes, run)

    # -- the data set ----------------------------------------------------------------------------------

    def dry_run(self) -> None:
        """Render a few scenes to detect unsupported settings and broken worlds before anything is written.

        Raises:
            UserError: If no scene meets the conditions, the world breaks a contract, the scenes of a mixture have
                different attributes, or the renderer has no depth.
        """
        drawn = []
        for part, sampler in zip(self.source.parts, self.samplers, strict=True):
            draw, model = generator(self.plan.seed, "trial", device=self.device), part.model
            with self._naming(part):
                drawn.append(model.scenes(sampler(num_first_scenes(model.world), draw).rules, draw))
                learned = model.parameters
                drawn_by = "" if learned is None else type(learned).__name__
                rendering = check_first_scenes(model.world, drawn[-1], drawn_by)
        self.images.check(join_scenes(drawn))
        if self.plan.depth and depth_arrays(rendering) is None:
            raise UserError(f"images of {type(self.world.renderer).__name__} have no depth: leave --depth out")

    def description(self) -> dict[str, Any]:
        """Return everything the files depend on, as stored in ``dataset.json``."""
        return {
            "seed": self.plan.seed,
            "ms2": ms2.__version__,
            **self.source.fingerprints(),
            "device": self.device.type,
            **self.plan.to_json(),
            "categories": list(self.categories),
            "size": list(self.world.renderer.size),
            **self.source.description(),
        }

    def claim_folder(self) -> None:
        """Create the folder, or check that it holds this data set, complete or not.

        Raises:
            FolderError: If it holds anything else.
        """
        # listed before dataset.json is read: whatever another machine writes meanwhile comes after that file
        others = self.files.names(".") - {TEMPORARY_FOLDER}
        ours, theirs = self.description(), self.files.read_json("dataset.json")
        if theirs is None:
            if others:
                raise FolderError(
                    f"{self.root.absolute()} holds other files already: give a new folder with --output, or empty it"
                )
            self.dry_run()
            self.files.write_json("dataset.json", ours, indent=True)
        elif theirs != ours:
            keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
            differences = "\n".join(f"  {k}: {_short(theirs.get(k))} there, {_short(ours.get(k))} now" for k in keys)
            raise FolderError(
                f"{self.root.absolute()} holds a data set of other settings:\n{differences}\n"
                "Nothing was changed. Give another folder with --output, or the settings that are there."
            )

    def records(self) -> Iterator[ImageRecord]:
        """Iterate over all records in order.

        Raises:
            FolderError: If one is missing.
        """
        return self.record_files.read(self.plan.num_images)

    def finish(self) -> None:
        """Write the format files and the card from the records, and remove temporary files."""
        for each in self.formats:
            each.write(self.files, self.plan, self.categories, self.records)
        number = self.plan.num_images
        sampled = partial(self.record_files.read, number, -(-number // MAX_CARD_RECORDS))
        write_card(self.files, self.description(), self.formats, self.label_filter, self.world, sampled)
        write_croissant(self.files, self.description(), self.label_filter, self.world.renderer.licence)
        self.files.clean()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
