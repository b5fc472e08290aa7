"""KITTI's object detection set as target: images, and labels for evaluation (Geiger et al. 2012)."""

import warnings
from collections.abc import Sequence
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
    VALIDATION_LIST,
    KittiObject,
    categories_by_type,
    check_types,
    frame_images,
    frame_lists,
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

    Labels are read for evaluation alone, and only if it is asked to (`Evaluation`'s ``evaluate_labels``), never for
    learning; they may be missing.

    Args:
        world: The world; its renderer defines the image size, its grammar the classes.
        root: Folder that holds ``training``.
        split: Name of a frame list in ``ImageSets``, such as ``train``; null for all frames.
        types: Class of the grammar for each of KITTI's types, whatever their case; other types are not counted, and
            named in a warning. By default cars and vans are ``car``, trucks and trams ``truck``, people ``pedestrian``.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle unreadable frames: "raise" or "skip"; likewise frames whose labels can't be read, which
            evaluation skips, but learning does not.
        limit: Use only the first n frames; null for all.

    Raises:
        KittiError: If folders are missing, a listed frame has no image, or a frame is listed twice.
        UserError: If there are labels, and ``types`` names a class that the grammar lacks, or none that it has.
    """

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
        self.root: Path = expand_path(root)
        self.folder = training_folder(self.root)
        self.types: dict[str, str] = self._known_types(types)
        super().__init__(world, self.folder / "image_2", fit, on_error)
        self.images.paths = select_frames(self.root, split, on_error=on_error)[:limit]

    def _known_types(self, types: dict[str, str] | None) -> dict[str, str]:
        """Return the class of each type, as the grammar spells it; defaults may be classes that it lacks."""
        found = categories_by_type(types)
        if not self.annotated:
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

    @property
    def _counted_types(self) -> dict[str, str]:
        """Class of each type whose class the grammar has."""
        return {kind: name for kind, name in self.types.items() if name in self.world.grammar.classes}

    @property
    def annotated(self) -> bool:  # type: ignore[override]
        """Whether there are labels."""
        return (self.folder / "label_2").is_dir()

    @cached_property
    def truth(self) -> SceneBatch | None:  # type: ignore[override]
        """The labelled objects of each frame as scenes, for evaluation only; None without labels.

        Without those that are lower in the resized frame than `Renderer.min_height`, as in generated images.

        Raises:
            KittiError: If a frame's labels cannot be read; with ``on_error`` "skip", only if none can.
        """
        if not self.annotated:
            return None
        classes, types = self.world.grammar.classes, self._counted_types
        kinds, numbers = NameIndex(list(types)), [classes.index(name) for name in types.values()]
        objects = self._read_labels()
        check_types(chain.from_iterable(objects.values()), types, self.root.absolute())
        visible = [self._high_enough(path, some) for path, some in objects.items()]
        rows = [[numbers[i] for one in each if (i := kinds.get(one.type)) is not None] for each in visible]
        longest = max([1, *map(len, rows)])
        padded = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
        return SceneBatch(padded, torch.full_like(padded, -1))

    def _read_labels(self) -> dict[Path, list[KittiObject]]:
        """Read the labels of all frames, without those whose labels cannot be read if they are to be skipped."""
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
                raise KittiError(f"{text}\nRepair or remove them, or compare without these frames with on_error: skip.")
            warnings.warn(f"{text}\nThese frames are left out of the evaluation.", stacklevel=2)
        return found

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
        """Return the frames with their labels, or those to test on; None without labels.

        To test on are the frames of the list ``val`` or, if there is none, all that are not in the target's own split.

        Raises:
            KittiError: If labels cannot be read, or there are no frames to test on.
        """
        if not self.annotated:
            return None
        if categories is None:
            categories = [name for name in self.world.grammar.classes if name in self.types.values()]
        split, exclude = (self.split, None) if num_held_out is None else self._held_out()
        size = self.world.renderer.size
        found = KittiSet(self.root, categories, split, exclude, size, self.types, on_error=self.on_error)
        if num_held_out is None:
            own = set(self.files)
            found.frames = [frame for frame in found.frames if frame in own]
        return found

    def _held_out(self) -> tuple[str | None, str | None]:
        """Return the list of frames to test on, or the one of those not to test on."""
        if VALIDATION_LIST in frame_lists(self.root) and self.split != VALIDATION_LIST:
            return VALIDATION_LIST, None
        every = len(frame_images(self.root))
        if self.split is None or len(select_frames(self.root, self.split, on_error=self.on_error)) == every:
            raise KittiError(
                f"{self.root.absolute()} has no frames to test on: no list ImageSets/{VALIDATION_LIST}.txt, and all "
                f"{every} frames are learned from. Give the folder of others with --test_root DIR, or test on these "
                "by --test_on_learned true"
            )
        return None, self.split
