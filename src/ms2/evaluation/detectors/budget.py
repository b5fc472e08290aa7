"""What the detectors of a comparison are trained and tested with, the same for every row."""

from dataclasses import dataclass

from ms2.core.bounds import BatchSize, PositiveFloat, PositiveInt, check_arguments
from ms2.core.errors import UserError
from ms2.core.paths import OptionalPath, Weights


@dataclass(frozen=True)
class DetectorBudget:
    """Training and test budget, the same for every row.

    Args:
        num_train_images: Number of training images.
        train_steps: Number of training steps, of all stages together.
        num_test_images: Number of test images, if the test set is rendered.
        classes: Classes to detect; by default the grammar's terminals, or in KITTI's layout those of its benchmark.
        detector: Architecture of the detector, see `ms2.evaluation.detectors.architectures`.
        backbone_weights: Initial weights of the backbone; None for random ones.
        batch_size: Images per step.
        lr: Peak learning rate.
        fine_tune_previous: Whether each row's detector is fine-tuned from that of the row before, as the paper's are:
            images and steps are divided among as many stages as the longest chain of rows has, and rows of a shorter
            chain go on with their own images.
        test_root: Folder of the frames to test on, in KITTI's layout; the target's by default.
        test_split: Name of the list in ``ImageSets`` of the frames to test on; ``val`` by default.
        test_on_learned: Whether images that were learned from may be tested on; without the two settings above, the
            target's own are.
        real_bound: Whether there is also a row that is trained on labelled images of the target.

    Raises:
        UserError: If a number is out of bounds, or the bound would be tested on what it was trained on.
    """

    num_train_images: PositiveInt = 1000
    train_steps: PositiveInt = 400
    num_test_images: PositiveInt = 500
    classes: tuple[str, ...] | None = None
    detector: str = "fcos_resnet18_fpn"
    backbone_weights: Weights = None
    batch_size: BatchSize = 8
    lr: PositiveFloat = 1e-3
    fine_tune_previous: bool = False
    test_root: OptionalPath = None
    test_split: str | None = None
    test_on_learned: bool = False
    real_bound: bool = False

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self), "budget of the detectors")
        if self.real_bound and self.test_on_learned:
            raise UserError(
                "real_bound trains on labelled images of the target, and test_on_learned tests on the same: give other "
                "images to test on, or leave one of the two out"
            )
