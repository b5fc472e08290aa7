"""``ms2 compare``: what data of the prior, and of the learned structure, is worth to a detector."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ms2.cli.generate import chosen_device, default_workers, separate_settings
from ms2.core.files import write_text
from ms2.core.parsing import ArgumentParser
from ms2.evaluation.callbacks import StageProgressBar
from ms2.evaluation.detectors.comparison import Budget, measure_runs
from ms2.evaluation.detectors.detector import ARCHITECTURES

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def options(parser: ArgumentParser) -> None:
    """Add the options of ``ms2 compare``."""
    add = parser.add_argument
    add("runs", nargs="+", type=str, metavar="RUN", help="folder of a run, or of several: one for each seed")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of data sets and detectors")
    add("--num_scenes", type=int, default=Budget.num_scenes, help="images to train on")
    add("--steps", type=int, default=Budget.steps, help="training steps")
    add("--test_scenes", type=int, default=Budget.test_scenes, help="images to test on")
    add("--classes", nargs="+", type=str, metavar="CLASS", help="classes to detect; the grammar's terminals by default")
    add("--detector", choices=ARCHITECTURES, default=Budget.detector, help="architecture of the detector")
    weights = "initial weights of its backbone: imagenet, or a file; random by default"
    add("--weights", type=str | None, help=weights)
    add("--batch_size", type=int, default=Budget.batch_size, help="images per step")
    add("--lr", type=float, default=Budget.lr, help="learning rate")
    progressive = "initialise each row's detector with the weights of the row before, as in the paper"
    add("--progressive", action="store_true", help=progressive)
    add("--workers", type=int | None, help="processes that generate; by default one for each core, or one with a GPU")
    add("--device", type=str | None, help="cpu or cuda; a GPU by default where there is one")


def compare_command(command: "Command", argv: list[str]) -> None:
    """Train and test the detectors, and print the table."""
    parser = command.parser()
    options(parser)
    own, settings = separate_settings(argv)
    args = parser.parse_args(own)
    args.classes = None if args.classes is None else tuple(args.classes)
    budget = Budget(**{f.name: getattr(args, f.name) for f in fields(Budget)})
    device = chosen_device(args.device)
    workers = args.workers or default_workers(device)
    _, table = measure_runs(args.runs, args.seeds, budget, settings, workers, device, StageProgressBar)
    print(table)
    last = Path(args.runs[-1]) / "compare" / "table.md"
    write_text(last, table + "\n")
    print(f"this table: {last}")
