"""``ms2 generate`` and ``ms2 render``: generate labelled data sets, and render single images again."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from ms2.core import configurations
from ms2.core.bounds import Fraction, PositiveFloat, PositiveInt, PositiveWorkers, Seed
from ms2.core.errors import UserError
from ms2.core.parsing import ArgumentParser
from ms2.core.paths import OptionalPath, UserPath
from ms2.core.process_variables import process_number
from ms2.datasets.formats.base import format_names
from ms2.datasets.generate import Executor, generate
from ms2.datasets.job import Job
from ms2.datasets.maps import MAP_SUFFIXES
from ms2.datasets.plan import Plan
from ms2.datasets.rendering import render_record
from ms2.models.opened_mixture import open_models

if TYPE_CHECKING:
    from ms2.cli.commands import Command

EXECUTOR_HELP = (
    "what generates: processes of this machine, or the Ray cluster of RAY_ADDRESS, --workers blocks at a time"
)


def options(parser: ArgumentParser) -> None:
    """Add the options of ``ms2 generate``."""
    add, worlds = parser.add_argument, ", ".join(configurations.worlds())
    add(
        "source",
        nargs="+",
        type=UserPath,
        help=f"the folder of a run, a checkpoint in it, a configuration, or a world: {worlds}. Settings of its world "
        "may follow: --world.renderer.canvas_size 96. Or several of one world, with --mix",
    )
    shipped = ", ".join(configurations.learned_models())
    learned = f"draw from the learned model that comes with the world, one of {shipped}, which may be named instead"
    add("--learned", action="store_true", help=learned)
    mix = "with several sources, 'even', or a weight for each, such as 2 1 1: the shares of their scenes"
    add("--mix", nargs="+", type=str, metavar="WEIGHT", help=mix)
    add("--output", type=OptionalPath, help="folder of the data set; data/NAME by default")
    add("--num_scenes", type=PositiveInt, default=Plan.num_scenes, help="number of images, or of sequences")
    add("--frames", type=PositiveInt | None, help="frames of each scene, in which the camera drives (3D worlds)")
    add("--fps", type=PositiveFloat, default=Plan.fps, help="frames per second")
    add("--seed", type=Seed, default=Plan.seed, help="an image depends on the seed and its own number alone")
    formats = ", ".join(format_names())
    add("--format", nargs="+", type=str, default=["coco"], metavar="NAME", help=f"one or several of {formats}")
    add("--structure", choices=("learned", "prior"), help="learned by default, where there is a checkpoint")
    add("--parameters", choices=("learned", "prior"), help="learned by default, where they were")
    add("--checkpoint", type=OptionalPath, help="file of weights, where the source is a configuration")
    conditions = "conditions that all scenes meet, such as 'car == 5' 'pedestrian >= 1'"
    add("--where", nargs="+", type=str, default=[], metavar="CONDITION", help=conditions)
    add("--classes", nargs="+", type=str, metavar="CLASS", help="classes to label; all by default")
    add("--image", choices=("png", "jpeg"), default="png", help="format of the images")
    add("--depth", action="store_true", help="write depth images as well")
    maps = f"further ground truth of each pixel: {', '.join(MAP_SUFFIXES)}"
    add("--maps", nargs="+", type=str, default=[], metavar="NAME", help=maps)
    visibility = "smallest visible fraction of a labelled object"
    add("--min_visibility", type=Fraction, default=Plan.min_visibility, help=visibility)
    add("--min_pixels", type=PositiveInt, default=Plan.min_pixels, help="fewest visible pixels of a labelled object")
    add("--workers", type=PositiveWorkers | None, help="processes; by default one for each core, or one with a GPU")
    add("--executor", choices=get_args(Executor), default="processes", help=EXECUTOR_HELP)
    add("--device", type=str | None, help="cpu, cuda, ...; a GPU by default where there is one")
    wandb = "online: log the data set as an artifact to Weights & Biases"
    add("--wandb", choices=("disabled", "online"), default="disabled", help=wandb)


def generate_command(command: "Command", argv: list[str]) -> None:
    """Generate a data set, or what is missing of it."""
    parser = command.parser()
    options(parser)
    own, settings = separate_settings(argv)
    args = parser.parse_args(own)
    names = [configurations.learned_name(str(one)) if args.learned else str(one) for one in args.source]
    source = open_models(names, args.mix, args.structure, args.checkpoint, settings, args.parameters)
    plan = Plan(
        num_scenes=args.num_scenes,
        seed=args.seed,
        image=args.image,
        depth=args.depth,
        maps=tuple(args.maps),
        classes=None if args.classes is None else tuple(args.classes),
        conditions=tuple(args.where),
        min_visibility=args.min_visibility,
        min_pixels=args.min_pixels,
        formats=tuple(name.lower() for name in args.format),
        frames=args.frames,
        fps=args.fps,
    )
    rank, world_size, local = process_number("RANK"), process_number("WORLD_SIZE", 1), process_number("LOCAL_RANK")
    device = chosen_device(args.device, local)
    workers = chosen_workers(args.workers, device, args.executor)
    root = args.output or Path("data") / source.name
    if generate(Job(source, plan, root, device), workers, rank, world_size, executor=args.executor):
        for part in source.parts:
            if part.model.structure is None:
                print(f"structure is drawn from the prior of {part.name}, not from a learned model")
        print(f"{plan.num_images} images: {root}, described in {root / 'README.md'}")
        if args.wandb == "online":
            from ms2.cli.run_logger import log_data_set  # with Lightning, which takes seconds to import

            log_data_set(root)
    else:
        print(f"this machine's part is done; whoever is last writes the labels of {root}. If none does, run this again")


def chosen_device(name: str | None, local_rank: int = 0) -> str:
    """Return the named device; by default the GPU of this process's local rank, or the CPU.

    Raises:
        UserError: If it isn't there.
    """
    if name is None:
        return f"cuda:{local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except Exception as error:  # of various kinds, as PyTorch was built
        reason = str(error).splitlines()[0]
        raise UserError(f"there is no device {name!r} here: give --device cpu, or leave it out. ({reason})") from error
    return name


def default_workers(device: str) -> int:
    """Number of processes to generate with: one for each core, or one with a GPU."""
    return 1 if torch.device(device).type != "cpu" else available_cores()


def chosen_workers(workers: int | None, device: str, executor: Executor) -> int | None:
    """Return the number of workers that was asked for, or the default; None for all that a Ray cluster has."""
    return workers if workers or executor == "ray" else default_workers(device)


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def separate_settings(argv: list[str]) -> tuple[list[str], list[str]]:
    """Separate a command's own options from settings of its source, which begin with ``--world.`` or ``--model.``."""
    own: list[str] = []
    settings: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith(("--world.", "--model.")):
            own.append(word)
            continue
        key, equals, value = word.partition("=")
        value = value if equals else next(words, "")
        settings.append(f"{key.replace('--model.', '--', 1)}={value}")
    return own, settings


def render_command(command: "Command", argv: list[str]) -> None:
    """Render an image again from its record.

    Raises:
        UserError: If it is no record, or the image can't be written.
    """
    parser = command.parser()
    parser.add_argument("--provenance", type=UserPath, required=True, metavar="FILE", help="scenes/NUMBER.json")
    parser.add_argument("--output", type=OptionalPath, help="file of the image; by default its own name, here")
    args = parser.parse_args(argv)
    content, name, same = render_record(args.provenance)
    output: Path = args.output or Path(name)
    try:
        if output.exists() and output.read_bytes() != content:
            raise UserError(f"{output} is there already, and is another image: give another file with --output")
        output.write_bytes(content)
    except OSError as error:
        raise UserError(f"can't write {output}: {error.strerror or error}; give another file with --output") from error
    print(f"{output}: the same bytes" if same else f"{output}: NOT the recorded bytes; another version made those")
