"""Tables of results: means and intervals by hand, and the places of pages that they are written to."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
from running import Kept
from studies import Study
from tables import study_tables, world_tables, write_tables

from ms2.core.configurations import read
from results import main

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, Any] = {
    "base": "multimnist_quick",
    "seeds": [20, 21],
    "seeded": {"seed": "SEED"},
    "columns": {"count TV": "count_tv"},
    "reach": {"columns": ["count_tv"], "below": 0.1},
    "factors": {"context": {"paper": {"context": False}, "default": {"context": True}}},
    "rows": ["paper", "default"],
}
SEARCH: dict[str, Any] = {
    "settings": {},
    "seeded": {"seed": "SEED"},
    "columns": {"count TV": "count_tv"},
    "grid": {"rate": {"setting": "lr", "values": [0.1, 0.2]}},
    "rounds": [{"seeds": [20], "keep": 1}, {"seeds": [20, 21], "keep": 1}],
    "methods": {"ours": {"base": "multimnist_quick", "settings": {}}},
}


def test_an_ablation_has_means_intervals_and_the_time_to_a_distance(tmp_path: Path) -> None:
    study, kept = Study("ablation", parts={"digits": SETTINGS}), Kept(tmp_path / "study.json")
    assert not study_tables(study, kept)
    for run in study.wanted(kept):
        tv = {"paper": 0.3, "default": 0.02}[run.row] + (run.seed - 20) * 0.02
        reached = 100 if run.row == "default" and run.seed == 20 else None
        numbers = {"count_tv": tv, "count_tv_prior": 0.5, "count_tv_noise_floor": 0.01, "score": tv}
        kept.add(run, numbers | {"steps": 400, "seconds": 60.0, "reached": reached})
    # the interval of two values is 12.706 of Student's t, times half of their difference
    assert study_tables(study, kept)["digits"] == [
        "|  | count TV | steps to 0.1 | seconds to 0.1 | seconds in all | seeds |",
        "|---|---|---|---|---|---|",
        "| prior | 0.500 ± 0.000 |  |  |  |  |",
        "| noise floor | 0.010 ± 0.000 |  |  |  |  |",
        "| **paper** | 0.310 ± 0.127 | not reached |  | 60 | 2 |",
        "| **default** | 0.030 ± 0.127 | 100 (1 of 2 seeds) | 15 (1 of 2 seeds) | 60 | 2 |",
    ]


def test_a_search_has_the_best_of_the_last_round(tmp_path: Path) -> None:
    study, kept = Study("search", parts={"digits": SEARCH}), Kept(tmp_path / "study.json")
    while missing := [run for run in study.wanted(kept) if not kept.has(run)]:
        for run in missing:
            tv = 0.1 if "0.2" in run.row else 0.4
            kept.add(run, {"count_tv": tv, "count_tv_prior": 0.5, "count_tv_noise_floor": 0.01, "score": tv})
    assert study_tables(study, kept)["digits"] == [
        "| method | settings | count TV | seeds |",
        "|---|---|---|---|",
        "| prior |  | 0.500 ± 0.000 |  |",
        "| noise floor |  | 0.010 ± 0.000 |  |",
        "| ours | rate 0.2 | 0.100 ± 0.000 | 2 |",
        "",
        "The best: ours (rate 0.2).",
    ]


def test_tables_are_written_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n", encoding="utf-8"
    )
    assert write_tables([page], {"one": ["| new |"], "three": ["| none |"]}) == ["one"]
    expected = "a\n<!-- table: one -->\n\n| new |\n\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n"
    assert page.read_text(encoding="utf-8") == expected
    assert write_tables([page], {"one": ["| new |"]}) == ["one"]
    assert page.read_text(encoding="utf-8") == expected, "written again, it is the same"


def test_every_part_of_a_study_has_its_place_on_a_page() -> None:
    text = (ROOT / "docs" / "results" / "ablation.md").read_text(encoding="utf-8")
    for name in ("ablation", "search"):
        for part in Study(name).parts:
            assert f"<!-- table: {name} {part} -->\n" in text


def test_the_table_of_a_world_is_built_from_what_is_kept() -> None:
    tables = world_tables("driving", read(ROOT / "experiments" / "tables.yaml")["driving"], ["quick"], None)
    assert list(tables) == ["", "quick by class", "quick readings"]
    lines = tables[""]
    titles, _, *rows = [line for line in lines if line.startswith("|")]
    assert titles.split(" | ")[1:3] == ["cars TV", "mean TV"]
    number = len(list((ROOT / "results").glob("driving_quick_seed*")))
    assert next(row for row in rows if row.startswith("| default |")).endswith(f"| {number} |")


def test_reported_targets_are_drawn_by_their_seed() -> None:
    """Not picked: seed 0 has hidden distribution 0."""
    tables = read(ROOT / "experiments" / "tables.yaml")
    for world, number in (("multimnist", 10), ("driving", 10)):
        seeds = tables[world]["seeds"]
        assert list(seeds) == list(range(number))
        for seed, settings in seeds.items():
            target = settings["data"]["target"]["init_args"]
            assert target["seed"] == target["structure_prior"]["init_args"]["seed"] == seed
    assert len(tables["aerial2d"]["seeds"]) == 5


def test_an_unknown_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["multimnist", "papr", "--table-only"]) == 2
    assert "the table of multimnist has no configuration 'papr'. Did you mean 'paper'" in capsys.readouterr().err


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablation", "multimnst", "--table-only"]) == 2
    assert "the study ablation has no part 'multimnst'. Did you mean 'multimnist'" in capsys.readouterr().err
