"""``ms2 check``: check all contracts of a world, and draw labelled samples of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ms2.cli import plugins
from ms2.cli.generate import separate_settings
from ms2.contracts.base import BrokenPartError, NotCheckedError, Outcome, sample_scenes
from ms2.contracts.checks import check_max_count, check_world
from ms2.core import configurations
from ms2.core.bounds import PositiveInt, Seed
from ms2.core.errors import UserError
from ms2.core.parsing import ArgumentParser, get_nested
from ms2.core.paths import OptionalPath
from ms2.core.seeding import generator
from ms2.evaluation.examples import NUM_EXAMPLES, render_examples
from ms2.evaluation.label_sheet import label_sheet
from ms2.features.base import CountingExtractor, FeatureExtractor
from ms2.models.opening import find_configuration, open_model, parse_settings
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import StructurePrior
from ms2.world import World

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def check_command(command: "Command", argv: list[str]) -> int:
    """Check a world; return exit code 1 if a contract is broken."""
    parser = command.parser()
    worlds = ", ".join(configurations.worlds())
    source_help = (
        f"a configuration, the folder of a run, or a world: {worlds}. Settings of its world may follow: "
        "--world.renderer.canvas_size 96"
    )
    parser.add_argument("source", type=str, help=source_help)
    parser.add_argument("--output", type=OptionalPath, help="file of the picture; NAME_check.png by default, here")
    parser.add_argument("--num_scenes", type=PositiveInt, default=NUM_EXAMPLES, help="labelled scenes in the picture")
    parser.add_argument("--seed", type=Seed, default=0, help="seed of all scenes")
    own, settings = separate_settings(argv)
    args = parser.parse_args(own)
    plugins.load()
    check_picture(args.output)
    source = open_model(args.source, structure="prior", parameters="prior", arguments=settings)
    world = source.model.world
    failed = 0
    outcomes = check_world(world, args.seed)
    for outcome in outcomes:
        print_outcome(outcome)
        failed += not outcome.passed
    counted = max_count_outcome(find_configuration(args.source)[0], source.settings["world"], args.seed)
    if counted is not None:
        print_outcome(counted)
        failed += not counted.passed
    picture: Path = args.output or Path(f"{source.name}_check.png")
    broken = "1 contract is broken" if failed == 1 else f"{failed} contracts are broken or not checked"
    print(broken if failed else "all contracts are kept", end="; ")
    print(draw_samples(world, args.num_scenes, args.seed, picture))
    return int(failed > 0)


def check_picture(path: Path | None) -> None:
    """Check the name of the picture, before the checks that take longer.

    Raises:
        UserError: If it is that of a folder, or has a suffix of no format.
    """
    if path is not None and (path.is_dir() or path.suffix.lower() not in Image.registered_extensions()):
        what, file = (
            ("is a folder", path / "samples.png") if path.is_dir() else ("is no image", path.with_suffix(".png"))
        )
        raise UserError(f"--output {path} {what}: give another file with --output, such as {file}")


def print_outcome(outcome: Outcome) -> None:
    """Print a line about a contract, and one for each fault."""
    word = "passed" if outcome.passed else "failed" if outcome.findings else "not checked"
    print(f"{word:11}  {outcome.name:17}  {outcome.title}")
    for line in (*map(str, outcome.findings), *filter(None, [outcome.obstacle])):
        print(f"{'':13}{line}")


def draw_samples(world: World, num_scenes: int, seed: int, path: Path) -> str:
    """Write a picture of labelled scenes of the prior; return what to print about it."""
    try:
        scenes = sample_scenes(world, num_scenes, generator(seed, "samples"))
        pixels = label_sheet(render_examples(world, scenes))
    except (BrokenPartError, NotCheckedError) as error:
        return f"no samples are drawn: {error}"
    except (Exception, SystemExit) as error:  # whatever a broken renderer leads to
        return f"no samples are drawn: {type(error).__name__}: {error}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise UserError(f"can't write {path}: {error}; give another file with --output, such as samples.png") from error
    return f"{num_scenes} labelled samples: {path}"


def max_count_outcome(configuration: dict[str, Any], world: dict[str, Any], seed: int) -> Outcome | None:
    """Check that a configuration's extractor can count the objects of its training images; None without one."""
    features = get_nested(configuration, "model", "features")
    if not features:
        return None
    extractor = get_nested(configuration, "extractor")
    priors = {name: extractor[name] for name in ("structure_prior", "parameter_prior") if extractor.get(name)}
    try:
        _, made = parse_settings(features_parser(), {"world": world, "features": features, **priors})
    except UserError as error:  # such as weights that are not here
        return Outcome("max_count", "The extractor counts as far as its training images need.", (), str(error))
    if not isinstance(made.features, CountingExtractor):
        return None
    return check_max_count(made.features, made.world, made.get("structure_prior"), made.get("parameter_prior"), seed)


def features_parser() -> ArgumentParser:
    """Build a parser of a world, a feature extractor, and the priors of the images that this is trained on."""
    parser = ArgumentParser(prog="ms2 check")
    parser.add_class_arguments(World, "world")
    parser.add_subclass_arguments(FeatureExtractor, "features")
    parser.add_argument("--structure_prior", type=StructurePrior | None)
    parser.add_argument("--parameter_prior", type=ParameterPrior | None)
    for name, found in (
        ("channels", lambda world: world.renderer.channels),
        ("classes", lambda world: list(world.classes)),
        ("attributes", lambda world: world.mutable_attributes),
        ("environment", lambda world: world.mutable_environment),
    ):
        for features in ("features", "features.init_args.detected", "features.init_args.trained"):
            parser.link_arguments("world", f"{features}.init_args.{name}", found, apply_on="instantiate")
    return parser
