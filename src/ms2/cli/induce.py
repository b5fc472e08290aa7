"""``ms2 induce`` and ``ms2 distill``: learn a grammar from scenes, or its tables from a model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ms2.cli import plugins
from ms2.cli.read_images import check_classes, read_images
from ms2.core.bounds import NonNegativeFloat, PositiveFloat, SampleSize, Seed
from ms2.core.errors import UserError
from ms2.core.files import write_text
from ms2.core.paths import UserPath
from ms2.core.seeding import generator
from ms2.learning.induction.distill import distill
from ms2.learning.induction.fit_settings import fit_settings
from ms2.learning.induction.induce import choose_classes, induce
from ms2.learning.induction.sources import check, read_source
from ms2.learning.induction.writing import to_yaml
from ms2.models.opening import open_model

if TYPE_CHECKING:
    from ms2.cli.commands import Command

BATCH = 1000
"""Derivations that are scored at once."""
FIT_FILE = "fit.yaml"
"""Configuration that goes on from readings of images."""
MAX_STRAY = 0.25
"""Fraction of the objects of a class up to which those that lack the parent that the others have are misreadings."""


def induce_command(command: "Command", argv: list[str]) -> None:
    """Learn the grammar, write it, and print the account."""
    parser = command.parser()
    source = (
        "the annotation file of a COCO set; a folder of ms2 generate; a folder with KITTI's training/label_2; one with "
        "YOLO's data.yaml and labels, of which no image is read; or the folder of a run, whose extractor reads the "
        "target's images"
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
    folder, path = _folder(args.output), Path(args.source)
    read = read_images(path) if (path / "config.yaml").is_file() else None
    table = read_source(path) if read is None else check(read.table, f"what is read off the target of {path}")
    if args.classes is not None:
        table = check(choose_classes(table, args.classes), str(args.source))
    if args.parents != "given":
        nothing = torch.full_like(table.parent, -1)
        table = replace(table, parent=nothing, parents_known=args.parents == "none")
    induced = induce(table, args.seconds) if read is None else induce(table, args.seconds, read.given, MAX_STRAY)
    files = induced.write(folder)
    if read is not None:
        check_classes(induced.written, read)
        world = {**induced.written.settings(), "parameter_prior": induced.placement}
        settings = fit_settings(read.configuration, world, induced.hypothesis, induced.written)
        write_text(folder / FIT_FILE, to_yaml({**settings, "name": f"{folder.name}_fit"}))
        files.append(FIT_FILE)
    print(induced.account, end="")
    print(f"\nwritten to {folder}: {', '.join(files)}")


def distill_command(command: "Command", argv: list[str]) -> None:
    """Draw scenes from a run's structure model, fit tables to them, write them, and print what they lose."""
    parser = command.parser()
    parser.add_argument("run", type=str, help="folder of a run, a checkpoint in it, or multimnist_learned, ...")
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
