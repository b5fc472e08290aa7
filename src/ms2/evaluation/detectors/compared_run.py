"""Open finished runs for a comparison: a scene model for each row, and the runs' target."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ms2.core.errors import UserError
from ms2.core.parsing import get_nested
from ms2.core.settings import setting_differences, settings_of
from ms2.evaluation.image_distances import ImageDistances
from ms2.metrics.statistics import ClassFrequency, ObjectCount, StructureStatistic
from ms2.models.opened_mixture import Opened, OpenedMixture, check_mixable
from ms2.models.opening import build_model, find_configuration, parse_settings, scene_model_parser
from ms2.models.scene_model import LEARNED, LEARNED_PARAMETERS, LEARNED_STRUCTURE, PRIOR, Row
from ms2.models.shares import Mix
from ms2.targets.base import Target

PRIOR_TITLE, STRUCTURE_TITLE, PARAMETERS_TITLE = "prior", "learned structure", "learned parameters"
BOTH_TITLE = "learned structure and parameters"
ROWS_BY_TITLE = {
    PRIOR_TITLE: PRIOR,
    PARAMETERS_TITLE: LEARNED_PARAMETERS,
    STRUCTURE_TITLE: LEARNED_STRUCTURE,
    BOTH_TITLE: LEARNED,
}
"""All rows by title; learned parameters with the prior's structure are Meta-Sim's."""
PREVIOUS_ROW = {PARAMETERS_TITLE: PRIOR_TITLE, STRUCTURE_TITLE: PRIOR_TITLE, BOTH_TITLE: STRUCTURE_TITLE}
"""The row whose detector a row's is fine-tuned from, as in the paper's Table 2; Meta-Sim's is not in that table."""
EVALUATION_SETTINGS = ("statistics", "image_distances", "evaluate_labels")
"""Settings of the run's evaluation that a comparison takes over."""


class ComparedRun(NamedTuple):
    """A run, or a mixture of runs, whose rows are compared by what detectors learn from their images.

    Attributes:
        name: The run's name.
        rows: Scene model of each row by its title, that of the prior first.
        target: The run's target.
        statistics: Statistics whose distance to the target is measured.
        image_distances: How FID and KID are measured; None for neither.
        evaluate_labels: Whether structure is compared with labels of the target's images.
        mix: Names and weights of the runs of a mixture, as text; None for one run.
    """

    name: str
    rows: Mapping[str, Opened]
    target: Target
    statistics: Sequence[StructureStatistic]
    image_distances: ImageDistances | None
    evaluate_labels: bool = False
    mix: str | None = None


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
    parser.add_argument("--evaluate_labels", type=bool, default=False)
    model, evaluation = get_nested(found, "model"), get_nested(found, "evaluation")
    given = {
        "world": found["world"],
        "structure": model.get("structure"),
        "target": get_nested(found, "data", "target"),
        **{key: evaluation[key] for key in EVALUATION_SETTINGS if evaluation.get(key)},
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
        made.evaluate_labels,
    )


def open_mixed_runs(runs: Sequence[str], mix: Mix, arguments: list[str] | None = None) -> ComparedRun:
    """Open runs for a comparison as one, each row of which is a mixture of theirs; the first says what is measured.

    Args:
        runs: Their folders.
        mix: ``even``, or the weight of each.
        arguments: More settings as on a command line.

    Raises:
        UserError: If one is no finished run, or they have not learned the same parts for the same target.
    """
    check_mixable(runs, mix)
    opened = [open_run(run, arguments) for run in runs]
    check_same_rows(dict(zip(runs, opened, strict=True)))
    rows = {
        title: OpenedMixture([part for one in opened for part in one.rows[title].parts], mix)
        for title in opened[0].rows
    }
    for run, one in zip(runs, opened, strict=True):
        if found := _target_differences(opened[0].target, one.target):
            differences = "; ".join(f"{key}: {ours!r} in {runs[0]}, {theirs!r} in {run}" for key, ours, theirs in found)
            raise UserError(
                f"runs can't be mixed, as detectors are tested on the target of all, and it is not one: {differences}"
            )
    mixture = next(iter(rows.values()))
    text = ", ".join(f"{weight} {name}" for name, weight in mixture.description()["mix"].items())
    return opened[0]._replace(name=mixture.name, rows=rows, mix=text)


def _target_differences(ours: Target, theirs: Target) -> list[tuple[str, Any, Any]]:
    """List the settings in which targets differ; their worlds' priors, which the hidden world replaces, don't count."""
    if ours.fingerprint() == theirs.fingerprint():
        return []
    one, other = (
        {"class": type(target).__name__, **target.settings, "world": target.hidden} for target in (ours, theirs)
    )
    return setting_differences(settings_of(one), settings_of(other), "target")


def check_same_rows(runs: Mapping[str, ComparedRun]) -> None:
    """Raise an error unless runs have learned the same parts.

    Raises:
        UserError: If they have not.
    """
    titles = {name: ", ".join(run.rows) for name, run in runs.items()}
    if len(set(titles.values())) > 1:
        listed = "; ".join(f"{name} has {rows}" for name, rows in titles.items())
        raise UserError(f"runs that are compared together must have learned the same parts: {listed}")


def learned_rows(model: dict[str, Any]) -> dict[str, Row]:
    """Return the rows of a run by title: the prior, and all combinations of what its settings say is learned."""
    if not model.get("parameters"):
        return {title: ROWS_BY_TITLE[title] for title in (PRIOR_TITLE, STRUCTURE_TITLE)}
    turns = model.get("turns") or {}
    if turns.get("init_args", turns).get("parameter_fraction") == 1:
        return {title: ROWS_BY_TITLE[title] for title in (PRIOR_TITLE, PARAMETERS_TITLE)}
    return dict(ROWS_BY_TITLE)
