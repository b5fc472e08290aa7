"""KITTI's object detection set as target: images, and labels for evaluation (Geiger et al. 2012)."""

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch

from ms2.core.bounds import PositiveInt
from ms2.core.errors import OnError, UserError, format_examples, suggest
from ms2.core.images import Fit, image_header
from ms2.core.paths import UserPath, expand_path
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.kitti_files import (
    KittiObject,
    categories_by_type,
    check_types,
    frame_images,
    label_file,
    read_labels,
    select_frames,
    training_folder,
)
from ms2.datasets.labelled_set import NameIndex
from ms2.render.scene3d.calibration import KittiError
from ms2.scene.batch import SceneBatch
from ms2.targets.folder import Folder
from ms2.world import World


class Kitti(Folder):
    """KITTI images in the original folders: ``training/image_2``, ``label_2`` and ``ImageSets``.

    Labels are read for evaluation only, never for learning; they may be missing.

    Args:
        world: The world; its renderer defines the image size, its grammar the classes.
        root: Folder that holds ``training``.
        split: Name of a frame list in ``ImageSets``, such as ``train``; null for all frames.
        types: Class of the grammar for each of KITTI's types, whatever their case; other types are not counted, and
            named in a warning. By default cars and vans are ``car``, trucks and trams ``truck``, people ``pedestrian``.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle unreadable frames: "raise" or "skip".
        limit: Use only the first n frames; null for all.

    Raises:
        KittiError: If folders are missing, a listed frame has no image, or a frame is listed twice.
        UserError: If there are labels, and ``types`` names a class that the grammar lacks, or none that it has.
    """

    annotated = True
    _types_checked = False

    def __init__(
        self,
        world: World,
        root: UserPath,
        split: str | None = "train",
        types: dict[str, str] | None = None,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: PositiveInt | None = None,
    ) -> None:
        self.world, self.on_error, self.split = world, on_error, split
        self.root = expand_path(root)
        self.folder = training_folder(self.root)
        self.types = self._known_types(types)
        super().__init__(world, self.folder / "image_2", fit, on_error)
        self.images.paths = select_frames(self.root, split, on_error=on_error)[:limit]

    def _known_types(self, types: dict[str, str] | None) -> dict[str, str]:
        """Return the class of each type, as the grammar spells it; defaults may be classes that it lacks."""
        found = categories_by_type(types)
        if not self.labelled:
            return found
        classes = self.world.grammar.classes
        known = NameIndex(classes)
        for kind, name in found.items():
            number = known.get(name)
            if number is not None:
                found[kind] = classes[number]
            elif types is not None:
                raise UserError(
                    f"types maps {kind} to {name!r}, but the world has no such class. {suggest(name, classes)}"
                )
        if not any(name in classes for name in found.values()):
            raise UserError(
                f"the world has none of the classes {', '.join(dict.fromkeys(found.values()))}, to which KITTI's types "
                f"are mapped by default. Set types to one of its own for each type that counts: {', '.join(classes)}"
            )
        return found

    def leave_out(self) -> None:
        """Read every label file, if there are any, and leave out frames whose labels cannot be read.

        Raises:
            UserError: If a frame's labels cannot be read, unless ``on_error`` is "skip".
        """
        if not self.labelled:
            return
        found: dict[Path, list[KittiObject]] = {}
        bad = list[str]()
        for path in self.images.paths:
            try:
                found[path] = read_labels(label_file(path))
            except KittiError as error:
                bad.append(str(error))
        if bad:
            text = format_examples(f"{len(bad)} frames have no usable labels", bad)
            if self.on_error == "raise" or not found:
                raise KittiError(f"{text}\nRepair or remove them, or leave these frames out with on_error: skip.")
            warnings.warn(f"{text}\nThese frames are left out.", stacklevel=2)
            self.images.paths = list(found)
        self._check_types(found.values())

    def _check_types(self, objects: Iterable[list[KittiObject]]) -> None:
        """Warn, once, about objects that are not counted; raise an error if none is."""
        if not self._types_checked:
            check_types(chain.from_iterable(objects), self._counted_types, self.root.absolute())
            self._types_checked = True

    @property
    def _counted_types(self) -> dict[str, str]:
        """Class of each type whose class the grammar has."""
        return {kind: name for kind, name in self.types.items() if name in self.world.grammar.classes}

    @property
    def labelled(self) -> bool:
        """Whether labels are available."""
        return (self.folder / "label_2").is_dir()

    @property
    def truth(self) -> SceneBatch | None:  # type: ignore[override]
        """The labelled objects of each frame as scenes, for evaluation only; None without labels.

        Without those that are lower in the resized frame than `Renderer.min_height`, as in generated images.
        """
        return self._truth if self.labelled else None

    @cached_property
    def _truth(self) -> SceneBatch:
        classes, types = self.world.grammar.classes, self._counted_types
        kinds, numbers = NameIndex(list(types)), [classes.index(name) for name in types.values()]
        objects = [read_labels(label_file(path)) for path in self.images.paths]
        self._check_types(objects)
        objects = [self._high_enough(path, some) for path, some in zip(self.images.paths, objects, strict=True)]
        rows = [[numbers[i] for one in each if (i := kinds.get(one.type)) is not None] for each in objects]
        longest = max([1, *map(len, rows)])
        padded = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
        return SceneBatch(padded, torch.full_like(padded, -1))

    def _high_enough(self, frame: Path, objects: list[KittiObject]) -> list[KittiObject]:
        """Leave out the objects that are too low in the resized frame."""
        least = self.world.renderer.min_height
        if not least:
            return objects
        (new_height, new_width), (height, width) = self.world.renderer.size, image_header(frame)[0]
        vertical, horizontal = new_height / height, new_width / width
        scale = {"crop": max(vertical, horizontal), "pad": min(vertical, horizontal), "stretch": vertical}[
            self.images.fit
        ]
        return [one for one in objects if (one.box[3] - one.box[1]) * scale >= least]

    def labelled_set(self, categories: Sequence[str] | None = None, num_held_out: int | None = None) -> KittiSet | None:
        """Return the frames with their labels, or those that are not in the split; None without labels.

        If all frames are in the split, these are returned as held out too: their labels were not learned from.
        """
        if not self.labelled:
            return None
        if categories is None:
            categories = [name for name in self.world.grammar.classes if name in self.types.values()]
        size = self.world.renderer.size
        own = select_frames(self.root, self.split, on_error=self.on_error) if self.split else frame_images(self.root)
        others = num_held_out is not None and len(own) < len(frame_images(self.root))
        split, exclude = (None, self.split) if others else (self.split, None)
        found = KittiSet(self.root, categories, split, exclude, size, self.types, on_error=self.on_error)
        if num_held_out is None:
            found.frames = self.images.paths
        return found
