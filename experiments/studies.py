"""Studies: grids of runs that belong together, read from experiments/ablation.yaml and experiments/search.yaml.

A part of a study is a table. Its rows are settings, each of which is run with several seeds. Which rows there are may
depend on results: the search keeps the best combinations of a round for the next one. So `Study.wanted` is asked again
after its runs are done.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from running import Kept, Run

from ms2.core.configurations import load, merge, read
from ms2.core.errors import UserError, suggest

HERE = Path(__file__).parent
PAPER = "paper"
"""End of an ablation that has the paper's choices."""
SEED = "SEED"
"""Value of settings that stands for the seed."""
FROM = "FROM"
"""Key of settings that are taken from another configuration."""
Settings = Mapping[str, Any]


class Chosen(NamedTuple):
    """What is run of a study, to try it or to divide it: all by default.

    Attributes:
        parts: Names of parts.
        rows: Patterns of titles of rows, such as ``default*``.
        seeds: Seeds.
    """

    parts: Sequence[str] = ()
    rows: Sequence[str] = ()
    seeds: Sequence[int] | None = None


class Study:
    """The runs of a study, part by part.

    Args:
        name: Name of the study, ``ablation`` or ``search``.
        chosen: What is run of it; all by default.
        parts: Its parts by name; by default those of its file.

    Raises:
        UserError: If a part is chosen that the study lacks, or rows that no part has.
    """

    def __init__(self, name: str, chosen: Chosen | None = None, parts: Mapping[str, Settings] | None = None) -> None:
        self.name, self.chosen = name, chosen or Chosen()
        every = read(HERE / f"{name}.yaml") if parts is None else parts
        for part in self.chosen.parts:
            if part not in every:
                raise UserError(f"the study {name} has no part {part!r}. {suggest(part, every)}")
        self.parts = {part: settings for part, settings in every.items() if part in (self.chosen.parts or every)}

    def wanted(self, kept: Kept) -> list[Run]:
        """Return the runs that are known to be wanted by now, finished or not."""
        return [run for part in self.parts for run in self.runs(part, kept)]

    def runs(self, part: str, kept: Kept) -> list[Run]:
        """Return the runs of one part that are known to be wanted by now."""
        settings = self.parts[part]
        found = rounds(part, settings, kept, self._seeds) if "rounds" in settings else self._ablated(part)
        unique = {run.key: run for run in found}
        return [run for run in unique.values() if self._is_chosen(run.row)]

    def _ablated(self, part: str) -> Iterator[Run]:
        settings = self.parts[part]
        for (row, own), seed in product(ablation_rows(settings).items(), self._seeds(settings["seeds"])):
            yield make_run(part, row, settings["base"], settings, own, seed)

    def _seeds(self, seeds: Sequence[int]) -> list[int]:
        return [seed for seed in seeds if self.chosen.seeds is None or seed in self.chosen.seeds]

    def _is_chosen(self, row: str) -> bool:
        return not self.chosen.rows or any(fnmatch(row, pattern) for pattern in self.chosen.rows)


def make_run(part: str, row: str, base: str, settings: Settings, own: Settings, seed: int) -> Run:
    """Build a run from the settings of its part and its row.

    Args:
        part: Name of the part.
        row: Title of the row.
        base: Configuration of the run.
        settings: The part's.
        own: Settings of the row.
        seed: The seed.
    """
    common = merge(settings.get("settings", {}), own)
    given = merge(common, seeded(settings["seeded"], seed))
    columns = [*settings["columns"].values()]
    reach = settings.get("reach")
    return Run(part, row, seed, _file(base), given, common, columns, reach, settings.get("tested_on"))


def seeded(settings: Any, seed: int) -> Any:
    """Return settings with the seed in place of `SEED`."""
    if isinstance(settings, Mapping):
        return {key: seeded(value, seed) for key, value in settings.items()}
    return seed if settings == SEED else settings


def _file(base: str) -> str:
    """Return a configuration's name, or its absolute path: runs have configurations in other folders."""
    return str((HERE / base).resolve()) if base.endswith(".yaml") else base


# -- ablation ------------------------------------------------------------------------------------------


def ablation_rows(settings: Settings) -> dict[str, Settings]:
    """Return the settings of each row of an ablation, from the paper's to the other end.

    Args:
        settings: The part's.
    """
    factors, end = settings["factors"], other_end(settings)
    paper, other = dict.fromkeys(factors, PAPER), dict.fromkeys(factors, end)
    chosen = {
        PAPER: paper,
        **{f"{PAPER} + {factor}": {**paper, factor: end} for factor in factors},
        **{f"{end} - {factor}": {**other, factor: PAPER} for factor in factors},
        end: other,
    }
    named = settings.get("rows", list(chosen))
    rows = {row: combine(settings, of) for row, of in chosen.items() if row in named}
    for row, also in settings.get("also", {}).items():
        ends = {**dict.fromkeys(factors, also["of"]), **also.get("but", {})}
        rows[row] = merge(combine(settings, ends), also["settings"])
    return rows


def other_end(settings: Settings) -> str:
    """Return the name of an ablation's other end than the paper's."""
    return str(settings.get("end", "default"))


def combine(settings: Settings, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Merge the settings of all factors.

    Args:
        settings: The part's.
        chosen: The end of each factor, such as ``paper`` or ``default``.
    """
    found: dict[str, Any] = {}
    for factor, end in chosen.items():
        found = merge(found, taken(settings["factors"][factor][end]))
    for where in settings.get("where", ()):
        if all(chosen[factor] == end for factor, end in where["of"].items()):
            found = merge(found, where["settings"])
    return found


def taken(settings: Settings) -> Settings:
    """Return settings, of which those under `FROM` are sections of another configuration."""
    if FROM not in settings:
        return settings
    source, found = load(settings[FROM]["configuration"]), dict[str, Any]()
    for section in settings[FROM]["sections"]:
        value: Any = source
        for key in section.split("."):
            value = value[key]
        for key in reversed(section.split(".")):
            value = {key: value}
        found = merge(found, copy.deepcopy(value))
    return found


# -- search --------------------------------------------------------------------------------------------


def combinations(grid: Settings) -> dict[str, Settings]:
    """Return the settings of each combination of a grid, by title."""
    found = {}
    for values in product(*(one["values"] for one in grid.values())):
        settings: dict[str, Any] = {}
        for one, value in zip(grid.values(), values, strict=True):
            nested: Any = value
            for key in reversed(one["setting"].split(".")):
                nested = {key: nested}
            settings = merge(settings, nested)
        found[", ".join(f"{name} {value:g}" for name, value in zip(grid, values, strict=True))] = settings
    return found


def rounds(part: str, settings: Settings, kept: Kept, choose: Any = list) -> Iterator[Run]:
    """Yield the runs of a search: those of the first round, and of each further one once those before are finished.

    Args:
        part: Name of the part.
        settings: The part's.
        kept: Results.
        choose: Chooses among seeds.
    """
    for method, one in settings["methods"].items():
        left = combinations(settings["grid"])
        for number in settings["rounds"]:
            runs = [
                make_run(part, f"{method}: {title}", one["base"], settings, merge(one["settings"], own), seed)
                for seed in choose(number["seeds"])
                for title, own in left.items()
            ]
            yield from runs
            if not runs or not all(map(kept.has, runs)):
                break
            order = ranking(part, method, left, choose(number["seeds"]), kept)
            left = {title: left[title] for title in order[: number["keep"]]}


def ranking(
    part: str, method: str, titles: Iterator[str] | Mapping[str, Any], seeds: Sequence[int], kept: Kept
) -> list[str]:
    """Order combinations of a method by their mean score over seeds, the best first; without those that have none."""
    scores = {title: kept.score(part, f"{method}: {title}", seeds) for title in titles}
    return sorted((title for title in scores if scores[title] is not None), key=lambda title: scores[title])
