"""``ms2 induce``: learn a grammar from labelled scenes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ms2.core.bounds import PositiveFloat
from ms2.core.errors import UserError
from ms2.core.paths import UserPath

if TYPE_CHECKING:
    from ms2.cli.commands import Command


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
    from ms2.induction.induce import choose_classes, induce
    from ms2.induction.sources import check, read_source

    folder = Path(args.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give --output a folder, which may be new")
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
