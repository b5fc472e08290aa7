"""Labelled images of a target: those that detectors are tested on, and those that bound what they can learn."""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ms2.core.errors import UserError, suggest
from ms2.core.paths import expand_path
from ms2.core.seeding import generator
from ms2.datasets.formats.kitti import KittiSet
from ms2.datasets.formats.kitti_files import VALIDATION_LIST, benchmark_categories, frame_lists
from ms2.datasets.labelled_set import LabelledSet, LabelledSubset
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.targets.base import Target
from ms2.world import World

REAL = "real images with labels"
"""Title of the row that is trained on labelled images of the target."""


class DetectorTest(NamedTuple):
    """What detectors are tested on.

    Attributes:
        images: The labelled images.
        notes: What has to be known of them, for below the table; empty for new images of a rendered target.
    """

    images: LabelledSet
    notes: tuple[str, ...] = ()


def images_to_test_on(target: Target, world: World, budget: DetectorBudget) -> DetectorTest:
    """Open the images to test on: those that the budget names; by default new ones of the target.

    Raises:
        UserError: If there are none, or some of them were learned from and the budget does not allow that.
    """
    in_frames = budget.test_root is not None or target.root is not None
    terminals = [name for name in world.grammar.classes if name in world.grammar.terminals]
    default = benchmark_categories(target.types, world.grammar.classes) if in_frames else terminals
    classes = list(budget.classes or default)
    if budget.test_root is not None or budget.test_split is not None:
        images: LabelledSet | None = _named_frames(target, world, classes, budget)
    else:
        own = budget.test_on_learned
        images = target.labelled_set(classes, num_held_out=None if own else budget.num_test_images)
    if images is None:
        raise UserError(
            f"the target's images have no labels ({type(target).__name__}), so no detector can be measured on them: "
            "give labelled frames in KITTI's layout with --test_root DIR, or compare runs whose target is Synthetic or "
            "Kitti with labels"
        )
    if not isinstance(images, KittiSet):
        return DetectorTest(images, ("Tested on images that were learned from.",) * budget.test_on_learned)
    return DetectorTest(images, _notes(images, learned_frames(images.frames, target), budget.test_on_learned))


def _named_frames(target: Target, world: World, classes: Sequence[str], budget: DetectorBudget) -> KittiSet:
    """Open the frames of the folder and the list that the budget names."""
    given = budget.test_root or target.root
    if given is None:
        raise UserError(
            f"test_split is {budget.test_split!r}, a list of frames, but the target ({type(target).__name__}) has no "
            "lists: give the folder that has them with --test_root DIR"
        )
    root = expand_path(given)
    split, lists = budget.test_split, frame_lists(root)
    if split is None and lists:  # without any list, all frames
        split = VALIDATION_LIST
    if split is not None and split not in lists:
        there = suggest(split, lists) if lists else "There are no lists."
        raise UserError(
            f"{root.absolute() / 'ImageSets'} has no list {split}.txt of frames to test on. {there} Name another with "
            "--test_split NAME, or its folder with --test_root DIR"
        )
    return KittiSet(root, classes, split, size=world.renderer.size, types=target.types)


def learned_frames(frames: Sequence[Path], target: Target) -> list[Path]:
    """Return the frames that are among the target's images, under the same name and with the same bytes."""
    own = {path.stem: path for path in target.files}
    return [path for path in frames if path.stem in own and filecmp.cmp(path, own[path.stem], shallow=False)]


def _notes(images: KittiSet, learned: Sequence[Path], allowed: bool) -> tuple[str, ...]:
    """Describe the frames that are tested on.

    Raises:
        UserError: If some were learned from, and that is not allowed.
    """
    if learned and not allowed:
        raise UserError(
            f"{len(learned)} of the {len(images)} frames to test on are among those that were learned from, the first "
            f"{learned[0]}: name others with --test_split NAME or --test_root DIR, or allow that with "
            "--test_on_learned true"
        )
    split, exclude = images.settings["split"], images.settings["exclude"]
    which = "all" if split is None and exclude is None else f"list {split}" if split else f"those not in list {exclude}"
    notes = [f"Tested on {len(images)} frames of {images.settings['root']} ({which})."]
    if learned:
        notes.append(f"TESTED ON WHAT WAS LEARNED FROM: {len(learned)} of these frames, though not their labels.")
    return tuple(notes)


def bound_images(target: Target, categories: Sequence[str], budget: DetectorBudget, seed: int) -> LabelledSet:
    """Draw as many labelled images of the target as other rows are trained on, or take all if there are fewer.

    Raises:
        UserError: If the target's images have no labels.
    """
    found = target.labelled_set(categories)
    if found is None:
        raise UserError(
            f"real_bound is trained on labels of the target's images, and those of {type(target).__name__} have none: "
            "leave it out"
        )
    drawn = torch.randperm(len(found), generator=generator(seed, REAL))[: budget.num_train_images]
    return LabelledSubset(found, drawn.tolist())


def bound_note(images: LabelledSet) -> str:
    """Say what the row of the bound is trained on."""
    return (
        f"{REAL}: trained on {len(images)} of the target's images with their labels, which no other row uses. This "
        "bounds what can be reached; it is no result of learning without labels."
    )
