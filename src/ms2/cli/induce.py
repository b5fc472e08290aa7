"""``ms2 induce`` and ``ms2 distill``: learn a grammar from labelled scenes, or its tables from a model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ms2.cli import plugins
from ms2.core.bounds import NonNegativeFloat, PositiveFloat, SampleSize, Seed
from ms2.core.errors import UserError
from ms2.core.paths import UserPath
from ms2.core.seeding import generator
from ms2.learning.induction.distill import distill
from ms2.learning.induction.induce import choose_classes, induce
from ms2.learning.induction.sources import check, read_source
from ms2.models.opening import open_model

if TYPE_CHECKING:
    from ms2.cli.commands import Command

BATCH = 1000
"""Derivations that are scored at once."""


def induce_command(command: "Command", argv: list[str]) -> None:
    """Learn the grammar, write it, and print the account."""
    parser = command.parser()
    source = (
        "the annotation file of a COCO set; a folder of ms2 generate; a folder with KITTI's training/label_2; or one "
        "with YOLO's data.yaml and labels. No image is read"
    )
    parser.add_argument("source", type=UserPath, help=source)
    parser.add_argument("--output", type=UserPath, required=True, help="folder for the world and the account")
    classes = "classes to keep, in the order of their indices; all by default"
    parser.add_argument("--classes", nargs="+", type=str, metavar="CLASS", help=classes)
    parents = "how objects get their parents: as the set says, if it does; found from places; or none"
    parser.add_argument("--parents", choices=["given", "found", "none"], default="given", help=parents)
    seconds = "time after which the best grammar so far is written"
    parser.add_argument("--seconds", type=PositiveFloat, default=240.0, help=seconds)
    args = parser.parse_args(argv)
    folder = _folder(args.output)
    table = read_source(Path(args.source))
    if args.classes is not None:
        table = check(choose_classes(table, args.classes), str(args.source))
    if args.parents != "given":
        nothing = torch.full_like(table.parent, -1)
        table = replace(table, parent=nothing, parents_known=args.parents == "none")
    induced = induce(table, args.seconds)
    induced.write(folder)
    print(induced.account, end="")
    print(f"\nwritten to {folder}: grammar.txt, world.yaml, attributes.yaml, account.txt")


def distill_command(command: "Command", argv: list[str]) -> None:
    """Draw scenes from a run's structure model, fit tables to them, write them, and print what they lose."""
    parser = command.parser()
    parser.add_argument("run", type=str, help="folder of a run, or a checkpoint in it")
    parser.add_argument("--output", type=UserPath, required=True, help="folder for structure.yaml and counts.json")
    loss = "nats per object that the tables may lose: KL(model || tables)"
    parser.add_argument("--loss", type=NonNegativeFloat, default=0.05, help=loss)
    parser.add_argument("--num_scenes", type=SampleSize, default=20_000, help="scenes to draw from the model")
    parser.add_argument("--seed", type=Seed, default=0, help="seed of the scenes")
    args = parser.parse_args(argv)
    plugins.load()
    folder = _folder(args.output)
    model = open_model(args.run, structure="learned").model.structure
    assert model is not None
    with torch.no_grad():
        rules = model.sample(args.num_scenes, generator(args.seed, "distill")).rules
        log_q = torch.cat([model.log_prob(part) for part in rules.split(BATCH)])
    distilled = distill(model.grammar, rules, log_q, args.loss)
    distilled.write(folder)
    print("\n".join(distilled.lines()))
    print((folder / "structure.yaml").read_text(encoding="utf-8"), end="")
    print(f"loss {distilled.loss:.4f} nats per object; written to {folder}: structure.yaml, counts.json")


def _folder(path: UserPath) -> Path:
    """Return the folder to write to.

    Raises:
        UserError: If it is a file.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give --output a folder, which may be new")
    return folder
