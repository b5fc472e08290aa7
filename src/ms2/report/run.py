"""The report of a run: what was learned, compared with what, how it got there, and how to do it again."""

import csv
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ms2.core.errors import UserError
from ms2.report.charts import histogram, legend, span
from ms2.report.detectors import detectors
from ms2.report.gallery import Picture, embedded, gallery, label_of
from ms2.report.learning import learning, probed, read_logs
from ms2.report.markup import Html, details, element, fragment
from ms2.report.page import Section, chips, commands, page
from ms2.report.reading import inside, read_json, read_text, read_yaml
from ms2.report.results import Metrics, measures, number, results

MOVES_SHOWN, MOVES_MOST = 16, 200
"""Rows of what moved that are shown, and that are on the page at all."""
MAX_PICTURE_BYTES = 900_000
"""A summary picture up to this size goes into the page as it is."""
STAGES = {
    "extractor": "features",
    "pretraining": "pretraining",
    "autoencoding": "autoencoder",
    "training": "learning",
}
"""What takes time in a run, by key."""


def report_run(folder: Path) -> str:
    """The page of a run.

    Raises:
        UserError: If its files can't be read, or there are no results and no logs yet.
    """
    metrics: dict[str, Any] = read_json(folder / "metrics.json", dict, {})
    config, logs = read_yaml(folder / "config.yaml"), read_logs(folder)
    if not metrics and not logs:
        raise UserError(
            f"{folder} is the folder of a run that has left neither results nor logs yet. Let it learn: "
            f"ms2 fit --config {folder / 'config.yaml'}"
        )
    drawn = read_json(folder / "histograms.json", list, [])
    titles = {
        str(one["name"]): str(one["title"]) for one in drawn if isinstance(one, dict) and {"name", "title"} <= {*one}
    }
    finished = bool(metrics) or read_json(folder / "run.json", dict, {}).get("finished") is not False
    sections = [
        Section("Results", results(metrics, titles)),
        Section("Histograms" if drawn else "Summary", _histograms(folder, drawn, metrics)),
        Section("Images", _images(folder)),
        Section("Detectors", detectors(folder)),
        Section("Learning", learning(logs, titles)),
        Section("What moved", _moved(folder)),
        Section("What the features read", probed(metrics.get("stages") or {})),
        Section("Time", _times(metrics)),
        Section("Reproduce", _reproduce(folder, metrics)),
        Section("Configuration", _configuration(folder)),
    ]
    name = str(config.get("name") or folder.resolve().name)
    return page("run", name, _lead(metrics, config, titles, finished), sections)


def _lead(metrics: Metrics, config: Mapping[str, Any], titles: Mapping[str, str], finished: bool) -> Html:
    """Facts, and the most important numbers as sentences."""
    facts: list[tuple[str, object]] = [
        (what, str(_inner(config, *path, "class_path") or "").rpartition(".")[2] or None)
        for what, path in (("world", ("world", "grammar")), ("target", ("data", "target")))
    ]
    facts += [
        ("steps", metrics.get("steps") or _inner(config, "trainer", "max_steps")),  # ms2 test takes none
        ("seed", metrics.get("seed", config.get("seed_everything"))),
        ("scenes measured", f"{metrics['eval_scenes']:,}" if "eval_scenes" in metrics else None),
        ("took", duration(metrics["seconds_total"]) if "seconds_total" in metrics else None),
        ("ms2", _inner(metrics, "versions", "ms2")),
    ]
    lines = [element("li", measure.in_words()) for measure in measures(metrics, titles)[:4]]
    unfinished = "This run has not finished: these are its logs so far. The same command goes on with it."
    caption = element("p", "Distance to the target, from the prior to the learned model:", class_="note")
    return fragment(
        chips(facts),
        None if finished else element("p", unfinished, class_="warning"),
        element("div", caption, element("ul", lines), class_="lead") if lines else None,
    )


def _inner(settings: object, *path: str) -> Any:
    """What stands at the end of a path of keys; None where it breaks off."""
    for key in path:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


# -- what there is to see ------------------------------------------------------------------------------


def _histograms(folder: Path, drawn: Sequence[Any], metrics: Metrics) -> Html:
    """Charts, or the picture of runs that left no numbers of them."""
    if not drawn:
        return _picture(folder / "summary.png", "Histograms and images of prior, learned model and target")
    distances = {measure.key: measure for measure in measures(metrics, {})}
    charts = []
    try:
        for one in drawn:
            bins = [str(name) for name in one["bins"]]
            shares = {str(who): [float(share) for share in some] for who, some in one["shares"].items()}
            if not bins or any(len(share) != len(bins) for share in shares.values()):
                raise ValueError(f"{one['title']}: not as many shares as bins")
            measure = distances.get(f"{one['name']}_tv") or distances.get(f"{one['name']}_w1")
            caption = f"{measure.kind} to the target: {number(measure.value)}" if measure else ""
            if measure and "_prior" in measure.others:
                caption += f", of the prior: {number(measure.others['_prior'])}"
            ordered = all(re.fullmatch(r"-?[\d.]+(e[-+]?\d+)?", name) for name in bins)
            charts.append(histogram(str(one["title"]), bins, shares, caption, ordered))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _not_ours(folder / "histograms.json", folder, error) from error
    return element("div", charts, class_="charts")


def _images(folder: Path) -> Html:
    """Examples of prior, learned model and target."""
    examples = folder / "examples"
    groups: dict[str, list[Picture]] = {}
    try:
        for who, some in read_json(examples / "examples.json", dict, {}).items():
            groups[who] = []
            for i, one in enumerate(some):
                uri, size = embedded(inside(examples, one["file"]))
                labels = None if one["labels"] is None else [label_of(label) for label in one["labels"]]
                groups[who].append(Picture(uri, size, labels, f"{who} {i + 1}"))
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _not_ours(examples / "examples.json", folder, error) from error
    return gallery(groups) if groups else Html()


def _picture(path: Path, said: str) -> Html:
    if not path.exists():
        return Html()
    return element("img", src=embedded(path, MAX_PICTURE_BYTES)[0], alt=said, class_="picture")


def _moved(folder: Path) -> Html:
    """The table of what moved with a line for each row, or the picture of it."""
    path = folder / "moved.csv"
    rows = list(csv.DictReader(read_text(path).splitlines())) if path.exists() else []
    try:
        lines = [_move(row) for row in rows[:MOVES_MOST]]
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(path, folder, error) from error
    if not lines:
        return _picture(folder / "moved.png", "What moved: probabilities of choices under the prior and the model")
    columns = ("choice", legend(["prior", "learned"]), "probability", "reached per scene")
    shown, more = lines[:MOVES_SHOWN], lines[MOVES_SHOWN:]
    note = (
        "The probability of each choice where it has to be made, under the prior and the learned model, with the 95 % "
        "interval of the latter; the largest changes first. What the prior never gets to comes last."
    )
    rest = f"{len(rows) - MOVES_MOST:,} smaller moves are in moved.csv." if len(rows) > MOVES_MOST else None
    return fragment(
        element("p", note, class_="note"),
        element(
            "div", element("div", [element("span", c) for c in columns], class_="move head"), shown, class_="moves"
        ),
        details(f"{len(more)} more", element("div", more, class_="moves")) if more else None,
        element("p", rest, class_="note") if rest else None,
    )


def _move(row: Mapping[str, str]) -> Html:
    before, after = float(row["before"]) if row["before"] else None, float(row["after"])
    low, high = float(row["after_low"]), float(row["after_high"])
    told = f"new → {after:.3f}" if before is None else f"{before:.3f} → {after:.3f}"
    said = f"{row['label']}\n{told}\n95 % interval {low:.3f} to {high:.3f}"
    return element(
        "div",
        element("span", row["label"], title=row["rule"]),
        span((low, high), {"prior": before, "learned": after}, said),
        element("span", told),
        element("span", f"{float(row['visits_before']):.2f} → {float(row['visits_after']):.2f}"),
        class_="move",
    )


def _not_ours(path: Path, folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: not what ms2 writes ({type(error).__name__}: {error}). Write it again: "
        f"ms2 test --config {folder / 'config.yaml'}"
    )


# -- how it went, and how to do it again ---------------------------------------------------------------


def _times(metrics: Metrics) -> Html:
    reused = metrics.get("reused_stages") or []
    known = {stage: float(metrics[f"seconds_{stage}"]) for stage in STAGES if f"seconds_{stage}" in metrics}
    if not known:
        return Html()
    longest = max(1e-9, *known.values())
    rows = []
    for stage, seconds in known.items():
        pale, width = 0.4 if stage in reused else None, f"{100 * seconds / longest:.2f}%"
        bar = element("rect", x=0, y=4, width=width, height=16, rx=3, class_="ink-learned", opacity=pale)
        note = element("small", "done before, reused") if pale else None
        rows.append(
            element(
                "div",
                element("span", STAGES[stage], note),
                element("svg", bar, class_="span", aria_hidden="true"),
                element("span", duration(seconds)),
                class_="move time",
            )
        )
    total = metrics.get("seconds_total")
    told = f"The command took {duration(total)} in all, with measuring and start-up." if total is not None else None
    return fragment(element("div", rows, class_="moves"), element("p", told, class_="note") if told else None)


def _reproduce(folder: Path, metrics: Metrics) -> Html:
    lines = {}
    if typed := str(metrics.get("command") or ""):
        lines["what was typed"] = f"ms2 {typed.partition(' ')[2]}"
    if (folder / "config.yaml").exists():
        config, name = shlex.quote(str(folder / "config.yaml")), shlex.quote(f"{folder.resolve().name}_again")
        lines |= {
            "the same again, under another name": f"ms2 fit --config {config} --name {name}",
            "measure the last checkpoint again": f"ms2 test --config {config}",
            "images of the learned scenes": f"ms2 predict --config {config}",
        }
    lines["this page"] = f"ms2 report {shlex.quote(str(folder))}"
    versions = metrics.get("versions") or {}
    made = ", ".join(f"{what} {version}" for what, version in versions.items())
    return fragment(commands(lines), element("p", f"Made with {made}.", class_="note") if made else None)


def _configuration(folder: Path) -> Html:
    path = folder / "config.yaml"
    return details("config.yaml", element("pre", element("code", read_text(path)))) if path.exists() else Html()


def duration(seconds: float) -> str:
    """A time as one says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
