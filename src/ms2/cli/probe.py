"""``ms2 probe``: choose from which score and height a detector's boxes count, by renders alone."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ms2.cli import plugins
from ms2.cli.check import features_parser
from ms2.cli.generate import separate_settings
from ms2.core.bounds import PositiveInt, Seed
from ms2.core.errors import UserError, suggest
from ms2.core.parsing import get_nested
from ms2.features.base import FeatureExtractor
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.height_recall import RecallCurve
from ms2.features.mixed_counts import MixedCounts
from ms2.learning.detector_choice import (
    BAND,
    HEIGHTS,
    MIN_OBJECTS,
    SATURATED,
    SCORES,
    ClassChoice,
    choose,
    render_errors,
)
from ms2.models.opening import find_configuration, open_model, parse_settings
from ms2.world import World

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def probe_command(command: "Command", argv: list[str]) -> None:
    """Print what a detector finds in renders, and the least height and scores that follow."""
    parser = command.parser()
    source_help = (
        "a configuration, or the folder of a run, whose features are DetectorCounts or MixedCounts. Settings of its "
        "world may follow: --world.renderer.size [375,1242]"
    )
    parser.add_argument("source", type=str, help=source_help)
    parser.add_argument("--num_images", type=PositiveInt, default=400, help="renders of the extractor's images")
    parser.add_argument("--seed", type=Seed, default=0, help="seed of their scenes")
    alike_help = "classes that renders show alike where photographs do not, as car truck: one may be found as another"
    parser.add_argument("--alike", type=str, nargs="*", default=[], metavar="CLASS", help=alike_help)
    own, settings = separate_settings(argv)
    args = parser.parse_args(own)
    plugins.load()
    configuration, name, _ = find_configuration(args.source)
    features, extractor = get_nested(configuration, "model", "features"), get_nested(configuration, "extractor") or {}
    world = open_model(args.source, structure="prior", parameters="prior", arguments=settings).settings["world"]
    priors = {key: extractor[key] for key in ("structure_prior", "parameter_prior") if extractor.get(key)}
    if not features:
        raise UserError(f"{name} has no model.features: give a configuration whose features are DetectorCounts")
    _, made = parse_settings(features_parser(), {"world": world, "features": features, **priors})
    counts = detector_counts(made.features)
    structure = made.get("structure_prior") or made.world.structure_prior
    parameters = made.get("parameter_prior") or made.world.parameter_prior
    drawn = World(made.world.grammar, structure, parameters, made.world.renderer)
    for one in args.alike:
        if one not in counts.counted:
            raise UserError(f"--alike names {one!r}, which is not counted. {suggest(one, counts.counted)}")
    errors = render_errors(counts, drawn, args.num_images, args.seed, args.alike)
    choice = choose(errors, args.num_images)
    print(f"{args.num_images} renders of {name}; no image of the target is read\n")
    print("\n".join(describe(choice)))


def detector_counts(features: FeatureExtractor) -> DetectorCounts:
    """Return the extractor that counts a detector's boxes.

    Raises:
        UserError: If there is none.
    """
    found = features.detected if isinstance(features, MixedCounts) else features
    if not isinstance(found, DetectorCounts):
        raise UserError(
            f"model.features is {type(features).__name__}, which has no scores and heights to choose: 'ms2 fit' "
            "measures what it reads at the end of stage 'extractor'"
        )
    return found


def describe(choice: Mapping[str, ClassChoice]) -> Iterator[str]:
    """Write what was tried and what was chosen, for people."""
    for name, one in choice.items():
        yield f"{name:14} height  objects  best score  recall"
        for trial in one.trials:
            mark = "  <- nearly the best" if trial.height == one.min_height else ""
            heights = f"{trial.height:g}-{trial.height * BAND:g}"
            yield f"{heights:>18} px  {trial.num_objects:7}  {trial.score:10.2f}  {trial.recall:6.2f}{mark}"
        if not one.trials:
            yield f"{'':15}fewer than {MIN_OBJECTS} objects of every height: give more --num_images"
        yield ""
    yield (
        f"Least heights: the smallest at which recall is at least {SATURATED:g} of the best, or {HEIGHTS[-1]:g} px. "
        "Below, whether an object is found depends on how sharply it is drawn, in which renders and photographs differ."
    )
    yield f"Scores: the highest from {SCORES[0]:g} on whose F1 in renders, from that height on, is nearly the best:"
    for name, one in choice.items():
        numbers = f"recall {one.errors.recall:.2f}, precision {one.errors.precision:.2f}"
        yield f"  {name:12} {one.min_score:.2f}  ({numbers}, {len(one.errors.heights)} objects)"
    yield "\nSettings of DetectorCounts:"
    yield _setting("min_height", {name: one.min_height for name, one in choice.items()})
    yield _setting("min_score", {name: one.min_score for name, one in choice.items()})
    yield "and, to draw the channel of readings from what renders show instead of reading them by the detector,"
    yield "recall:"
    for place, key in enumerate(RecallCurve._fields):
        yield "  " + _setting(key, {name: one.recall[place] for name, one in choice.items()})
    yield "  " + _setting("false_boxes", {name: one.false_boxes for name, one in choice.items()})


def _setting(key: str, values: Mapping[str, float]) -> str:
    """Write a setting by class as in a configuration."""
    return f"{key}: {{{', '.join(f'{name}: {value:.3g}' for name, value in values.items())}}}"
