"""KITTI's object detection set as target: images, and labels for evaluation (Geiger et al. 2012)."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from ms2.core.files import expand_path
from ms2.core.images import Fit
from ms2.datasets.formats.kitti import CLASS_BY_TYPE, KittiSet, frames_of_list, read_labels, training_folder
from ms2.render.scene3d.calibration import KittiError
from ms2.scene.batch import SceneBatch
from ms2.targets.folder import Folder
from ms2.targets.image_folder import OnError, format_examples
from ms2.world import World


class Kitti(Folder):
    """KITTI images in the original folders: ``training/image_2``, ``label_2`` and ``ImageSets``.

    Labels are read for evaluation only, never for learning; they may be missing.

    Args:
        world: The world; its renderer defines the image size, its grammar the classes.
        root: Folder that holds ``training``.
        split: Name of a frame list in ``ImageSets``, such as ``train``; null for all frames.
        types: Class of the grammar for each of KITTI's types; other types are ignored. By default cars and vans are
            ``car``, trucks and trams ``truck``, people ``pedestrian``.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle unreadable frames: "raise" or "skip".
        limit: Use only the first n frames; null for all.

    Raises:
        KittiError: If folders are missing, or a listed frame has no image.
    """

    annotated = True

    def __init__(
        self,
        world: World,
        root: Path | str,
        split: str | None = "train",
        types: dict[str, str] | None = None,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: int | None = None,
    ) -> None:
        self.world, self.on_error, self.split, self.types = world, on_error, split, types or CLASS_BY_TYPE
        self.root = expand_path(root)
        self.folder = training_folder(self.root)
        super().__init__(world, self.folder / "image_2", fit, on_error)
        if split is not None:
            self.images.paths = frames_of_list(self.root / "ImageSets" / f"{split}.txt", self.images.paths)
        self.images.paths = self.images.paths[:limit]

    def verify(self) -> None:
        """Decode every image once, and read every label file if there are any.

        Raises:
            UserError: If a frame cannot be read, unless ``on_error`` is "skip".
        """
        super().verify()
        bad = {path: error for path in self.images.paths if (error := self._label_error(path))}
        if not bad:
            return
        text = format_examples(f"{len(bad)} frames have no usable labels", list(bad.values()))
        if self.on_error == "raise":
            raise KittiError(f"{text}\nRepair or remove them, or leave these frames out with on_error: skip.")
        warnings.warn(f"{text}\nThese frames are left out.", stacklevel=2)
        self.images.paths = [path for path in self.images.paths if path not in bad]

    def _label_error(self, image: Path) -> str:
        if not self.labelled:
            return ""
        try:
            read_labels(self._label_file(image))
        except KittiError as error:
            return str(error)
        return ""

    @property
    def labelled(self) -> bool:
        """Whether labels are available."""
        return (self.folder / "label_2").is_dir()

    def _label_file(self, image: Path) -> Path:
        return self.folder / "label_2" / f"{image.stem}.txt"

    @property
    def truth(self) -> SceneBatch | None:  # type: ignore[override]
        """The labelled objects of each frame as scenes, for evaluation only; None without labels."""
        return self._truth if self.labelled else None

    @cached_property
    def _truth(self) -> SceneBatch:
        classes = self.world.grammar.classes
        index = {name: classes.index(own) for name, own in self.types.items() if own in classes}
        rows = [
            [index[one.type] for one in read_labels(self._label_file(path)) if one.type in index]
            for path in self.images.paths
        ]
        longest = max([1, *map(len, rows)])
        padded = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
        return SceneBatch(padded, torch.full_like(padded, -1))

    def labelled_set(self, categories: Sequence[str] | None = None, num_held_out: int | None = None) -> KittiSet | None:
        """Return the frames with their labels, or those that are not in the split; None without labels.

        If all frames are in the split, these are returned as held out too: their labels were not learned from.
        """
        if not self.labelled:
            return None
        if categories is None:
            categories = [name for name in self.world.grammar.classes if name in self.types.values()]
        size = self.world.renderer.size
        if num_held_out is not None:
            try:
                return KittiSet(self.root, categories, exclude=self.split, size=size, types=self.types)
            except KittiError:  # no frame is left
                pass
        found = KittiSet(self.root, categories, self.split, size=size, types=self.types)
        if num_held_out is None:
            found.frames = self.images.paths
        return found
