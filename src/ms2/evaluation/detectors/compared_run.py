"""Open a finished run for a comparison: a scene model for each row, and the run's target."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ms2.core.errors import UserError
from ms2.core.parsing import get_nested
from ms2.evaluation.image_distances import ImageDistances
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic
from ms2.models.opening import OpenedModel, build_model, find_configuration, parse_settings, scene_model_parser
from ms2.models.scene_model import LEARNED, LEARNED_PARAMETERS, LEARNED_STRUCTURE, PRIOR, Row
from ms2.targets.base import Target


class ComparedRun(NamedTuple):
    """A run whose rows are compared by what detectors learn from their images.

    Attributes:
        name: The run's name.
        rows: Scene model of each row by its title, that of the prior first.
        target: The run's target.
        statistics: Statistics whose distance to the target is measured.
        image_distances: How FID and KID are measured; None for neither.
    """

    name: str
    rows: dict[str, OpenedModel]
    target: Target
    statistics: Sequence[StructureStatistic]
    image_distances: ImageDistances | None


def open_run(run: str, arguments: list[str] | None = None) -> ComparedRun:
    """Open a run for a comparison.

    Args:
        run: Its folder.
        arguments: More settings as on a command line.

    Raises:
        UserError: If it is no finished run.
    """
    found, name, weights = find_configuration(run)
    if weights is None:
        raise UserError(f"{run} has no trained model to compare: name the folder of a run of 'ms2 fit'")
    parser = scene_model_parser("ms2 compare")
    parser.add_subclass_arguments(Target, "target")
    parser.link_arguments("world", "target.init_args.world", apply_on="instantiate")
    parser.add_argument("--statistics", type=list[StructureStatistic] | None)
    parser.add_argument("--image_distances", type=ImageDistances | None)
    model, evaluation = get_nested(found, "model"), get_nested(found, "evaluation")
    given = {
        "world": found["world"],
        "structure": model.get("structure"),
        "target": get_nested(found, "data", "target"),
        **{key: evaluation[key] for key in ("statistics", "image_distances") if evaluation.get(key)},
        **({"parameters": model["parameters"]} if model.get("parameters") else {}),
    }
    plain, made = parse_settings(parser, given, arguments)
    settings = {key: plain[key] for key in ("world", "structure", "parameters") if plain.get(key)}
    return ComparedRun(
        name,
        {title: build_model(settings, weights, name, row) for title, row in learned_rows(model).items()},
        made.target,
        made.statistics or [ObjectCount(), ClassFrequency()],
        made.image_distances,
    )


def learned_rows(model: dict[str, Any]) -> dict[str, Row]:
    """Return the rows of a run by title: the prior, and what the settings of its model say is learned."""
    if not model.get("parameters"):
        return {"prior": PRIOR, "learned structure": LEARNED_STRUCTURE}
    turns = model.get("turns") or {}
    if turns.get("init_args", turns).get("parameter_fraction") == 1:
        return {"prior": PRIOR, "learned parameters": LEARNED_PARAMETERS}
    return {"prior": PRIOR, "learned structure": LEARNED_STRUCTURE, "learned structure and parameters": LEARNED}
