"""``ms2 compare``: detectors trained on images of the prior and of the learned models."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ms2.cli.generate import EXECUTOR_HELP, chosen_device, chosen_workers, separate_settings
from ms2.core.bounds import BatchSize, PositiveFloat, PositiveInt, PositiveWorkers, Seed
from ms2.core.errors import UserError
from ms2.core.files import write_text
from ms2.core.parsing import ArgumentParser
from ms2.core.paths import OptionalPath, UserPath, Weights
from ms2.datasets.generate import Executor
from ms2.evaluation.callbacks import StageProgressBar
from ms2.evaluation.detectors.architectures import ARCHITECTURES
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.evaluation.detectors.comparison import compare_runs

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def options(parser: ArgumentParser) -> None:
    """Add the options of ``ms2 compare``."""
    add = parser.add_argument
    add("runs", nargs="+", type=UserPath, metavar="RUN", help="folder of a run, or of several: one for each seed")
    mix = "mix the runs, whose target must be the same: 'even', or a weight for each, such as 2 1 1"
    add("--mix", nargs="+", type=str, metavar="WEIGHT", help=mix)
    add("--seeds", nargs="+", type=Seed, default=[0, 1, 2], help="seeds of data sets and detectors")
    add("--num_train_images", type=PositiveInt, default=DetectorBudget.num_train_images, help="images to train on")
    add("--train_steps", type=PositiveInt, default=DetectorBudget.train_steps, help="training steps")
    add("--num_test_images", type=PositiveInt, default=DetectorBudget.num_test_images, help="images to test on")
    frames = "folder of labelled frames to test on, in KITTI's layout"
    add("--test_root", type=OptionalPath, metavar="DIR", help=f"{frames}; the target's folder by default")
    add("--test_split", type=str | None, metavar="NAME", help="list in its ImageSets of the frames; val by default")
    learned = "test on images that were learned from, the target's own unless others are given"
    add("--test_on_learned", type=bool, default=DetectorBudget.test_on_learned, help=learned)
    real = "add a row that is trained on labelled images of the target, as a bound"
    add("--real_bound", type=bool, default=DetectorBudget.real_bound, help=real)
    labels = "show distances of structure to the labels of real images; as in the run's configuration by default"
    add("--evaluate_labels", type=bool | None, help=labels)
    classes = "classes to detect; by default the grammar's terminals, or those of KITTI's benchmark"
    add("--classes", nargs="+", type=str, metavar="CLASS", help=classes)
    add("--detector", choices=ARCHITECTURES, default=DetectorBudget.detector, help="architecture of the detector")
    weights = "initial weights of its backbone: imagenet, or a file; random by default"
    add("--backbone_weights", type=Weights, help=weights)
    add("--batch_size", type=BatchSize, default=DetectorBudget.batch_size, help="images per step")
    add("--lr", type=PositiveFloat, default=DetectorBudget.lr, help="learning rate")
    fine_tune = "fine-tune each row's detector from that of the row before, as in the paper, all with the same steps"
    add("--fine_tune_previous", action="store_true", help=fine_tune)
    add(
        "--workers",
        type=PositiveWorkers | None,
        help="processes that generate; by default one for each core, or one with a GPU",
    )
    add("--executor", choices=get_args(Executor), default="processes", help=f"of data sets, {EXECUTOR_HELP}")
    add("--device", type=str | None, help="cpu or cuda; a GPU by default where there is one")


def compare_command(command: "Command", argv: list[str]) -> None:
    """Train and test the detectors, and print the table."""
    parser = command.parser()
    options(parser)
    own, settings = separate_settings(argv)
    args = parser.parse_args(own)
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError(f"seeds are {' '.join(map(str, args.seeds))}: the same one twice counts one result twice")
    if args.evaluate_labels is not None:
        settings.append(f"--evaluate_labels={str(args.evaluate_labels).lower()}")
    args.classes = None if args.classes is None else tuple(args.classes)
    budget = DetectorBudget(**{f.name: getattr(args, f.name) for f in fields(DetectorBudget)})
    device, runs = chosen_device(args.device), list(map(str, args.runs))
    workers = chosen_workers(args.workers, device, args.executor)
    _, table = compare_runs(
        runs, args.seeds, budget, settings, workers, device, StageProgressBar, args.mix, args.executor
    )
    print(table)
    last = Path(runs[-1]) / "compare" / "table.md"
    write_text(last, table + "\n")
    print(f"this table: {last}")
