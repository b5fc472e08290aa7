"""``ms2 compare``: what data of the prior, and of the learned structure, is worth to a detector."""

import argparse
from dataclasses import fields
from pathlib import Path

from ms2.cli.generate import chosen_device, default_workers, divided
from ms2.evaluation.callbacks import StageBar
from ms2.evaluation.detectors.comparison import Budget, measure_runs
from ms2.evaluation.detectors.detector import ARCHITECTURES


def parser() -> argparse.ArgumentParser:
    """Options of ``ms2 compare``."""
    made = argparse.ArgumentParser(
        "ms2 compare",
        description="Train detectors on data of the prior and on data of a run, with the same budget, and measure both "
        "on the run's target.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("runs", nargs="+", metavar="RUN", help="folder of a run; or of several, for which each seed has one")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of data sets and detectors (0 1 2)")
    add("--num_scenes", type=int, default=Budget.num_scenes, help="images to train on (%(default)s)")
    add("--steps", type=int, default=Budget.steps, help="steps of training (%(default)s)")
    add("--test_scenes", type=int, default=Budget.test_scenes, help="images to test on (%(default)s)")
    add("--classes", nargs="+", metavar="CLASS", help="what is detected; the grammar's terminals")
    add("--detector", choices=ARCHITECTURES, default=Budget.detector, metavar="NAME", help="(%(default)s)")
    add("--weights", help="what its backbone begins with: imagenet, or a file; at random by default")
    add("--batch_size", type=int, default=Budget.batch_size, help="images of a step (%(default)s)")
    add("--lr", type=float, default=Budget.lr, help="learning rate (%(default)s)")
    add("--progressive", action="store_true", help="go on with each row from the row before, as in the paper")
    add("--workers", type=int, help="processes that generate; by default one for each core, or one with a GPU")
    add("--device", help="cpu or cuda; a GPU where there is one")
    return made


def compare_command(argv: list[str]) -> None:
    """Measure, and print the table."""
    ours, settings = divided(argv)
    args = parser().parse_args(ours)
    args.classes = None if args.classes is None else tuple(args.classes)
    budget = Budget(**{f.name: getattr(args, f.name) for f in fields(Budget)})
    device = chosen_device(args.device)
    workers = args.workers or default_workers(device)
    _, table = measure_runs(args.runs, args.seeds, budget, settings, workers, device, StageBar)
    print(table)
    last = Path(args.runs[-1]) / "compare" / "table.md"
    last.write_text(table + "\n")
    print(f"the same: {last}")
