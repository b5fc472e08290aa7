"""Train the detector of each row: at once, or in stages from the detectors of the rows before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError
from ms2.datasets.labelled_set import LabelledSet, LabelledSubset
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.compared_run import PREVIOUS_ROW
from ms2.evaluation.detectors.detector import Detector, load_detector
from ms2.evaluation.detectors.real_images import REAL
from ms2.evaluation.detectors.training import train_detector
from ms2.models.checkpoints import CheckpointError


def row_stages(title: str, titles: list[str], fine_tune_previous: bool) -> list[str]:
    """Return the row whose images each stage of a row's detector is trained on; the last is the row itself.

    Every row has as many stages as the longest chain of rows (`PREVIOUS_ROW`): rows of a shorter chain go on with their
    own images. Two rows that share a stage share all stages before, too, so that each is trained once.

    Args:
        title: The row.
        titles: All rows.
        fine_tune_previous: Whether rows are fine-tuned from those before; otherwise each has one stage.

    Example:
        >>> row_stages("learned structure", ["prior", "learned structure", "learned structure and parameters"], True)
        ['prior', 'learned structure', 'learned structure']
    """
    if not fine_tune_previous:
        return [title]
    own, longest = _chain(title), max(len(_chain(one)) for one in titles)
    return own + [title] * (longest - len(own))


def _chain(title: str) -> list[str]:
    return [*(_chain(PREVIOUS_ROW[title]) if title in PREVIOUS_ROW else []), title]


def share(total: int, stage: int, num_stages: int) -> range:
    """Return a stage's share of images or steps, which all stages together use once."""
    return range(total * stage // num_stages, total * (stage + 1) // num_stages)


def check_shares(budget: DetectorBudget, num_stages: int) -> None:
    """Raise an error unless each stage has an image and a step.

    Raises:
        UserError: If one has none.
    """
    for name in ("num_train_images", "train_steps"):
        if (number := getattr(budget, name)) < num_stages:
            raise UserError(f"{name} is {number}, too few for the {num_stages} stages of fine_tune_previous: raise it")


def train_row(
    title: str, sets: Mapping[str, LabelledSet], budget: DetectorBudget, seed: int, folder: Path, trainer: Any
) -> Detector:
    """Train the detector of a row; stages that have been trained are loaded.

    Args:
        title: The row.
        sets: The training images of each row.
        budget: Images and steps of every row, which its stages share.
        seed: Seed of initial weights and the order of images.
        folder: Folder of this seed; the row's detector is in `row_folder`.
        trainer: Further arguments of `train_detector`.
    """
    stages = row_stages(title, list(sets), budget.fine_tune_previous)
    file: Path | None = None
    for stage, row in enumerate(stages):
        is_last = stage == len(stages) - 1
        previous, file = file, row_folder(folder, row) / ("detector.pt" if is_last else f"stage{stage + 1}.pt")
        images, steps = sets[row], len(share(budget.train_steps, stage, len(stages)))
        if len(stages) > 1:
            images = LabelledSubset(images, share(len(images), stage, len(stages)))
        detector = _trained(images, row, budget, steps, seed, file, previous, trainer)
    return detector


def row_folder(folder: Path, title: str) -> Path:
    """Return the folder of a row's images and detectors."""
    return folder / title.replace(" ", "_")


def _trained(
    images: LabelledSet,
    row: str,
    budget: DetectorBudget,
    steps: int,
    seed: int,
    file: Path,
    fine_tune_from: Path | None,
    trainer: Any,
) -> Detector:
    try:
        return load_detector(file)
    except CheckpointError:
        pass  # it is to be trained
    # frames have boxes alone, and masks are no part of average precision
    architecture = budget.detector.replace("maskrcnn", "fasterrcnn") if row == REAL else budget.detector
    detector = Detector(
        images.categories,
        architecture=architecture,
        backbone_weights=budget.backbone_weights,
        fine_tune_from=fine_tune_from,
        max_steps=steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        seed=seed,
    )
    train_detector(detector, images, file, **trainer)
    return detector
