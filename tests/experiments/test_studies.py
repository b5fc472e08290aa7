"""Grids of the studies: rows differ in what they say, ends are what is shipped, and results decide what is run next."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import EXPECTED

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
from running import Kept, Run, RunError, check_run, flat
from studies import PAPER, Chosen, Study, combinations, combine, other_end, seeded, taken

from ms2.core.configurations import find, load, merge
from ms2.core.errors import UserError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

pytestmark = EXPECTED
DEFAULTS = {"leave_one_out": True, "lr_decay": True, "context": True}
"""Values that the classes have where a configuration is silent."""


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "study.json")


def finish(study: Study, kept: Kept, score: Callable[[Run], float]) -> list[str]:
    """Give every wanted run a score until nothing more is wanted, and return the runs in order."""
    done: list[str] = []
    kept._save = lambda: None  # hundreds of times, it takes seconds
    while missing := [run for run in study.wanted(kept) if not kept.has(run)]:
        for run in missing:
            kept.add(run, {"score": score(run)})
            done.append(run.key)
    return done


# --- what the files say ---


@pytest.mark.parametrize("name", ["ablation", "search"])
def test_nothing_is_chosen_on_targets_that_are_reported(name: str, kept: Kept) -> None:
    study = Study(name)
    finish(study, kept, lambda run: len(run.row))
    runs = study.wanted(kept)
    assert {run.part for run in runs} == set(study.parts)
    for run in runs:
        assert run.seed >= 20
        assert run.settings["data"]["target"]["init_args"]["seed"] == run.seed


@pytest.mark.parametrize("name", ["ablation", "search"])
def test_no_two_rows_are_the_same(name: str, kept: Kept) -> None:
    finish(study := Study(name), kept, lambda run: len(run.row))
    texts: dict[str, str] = {}
    runs = {run.row + run.part: run for run in study.wanted(kept)}.values()
    bases = {base: load(base) for base in {run.base for run in runs}}
    for run in runs:
        text = json.dumps([run.part, merge(bases[run.base], run.common)], sort_keys=True)
        assert texts.setdefault(text, run.row) == run.row


def departures(part: str) -> Mapping[str, Any]:
    return Study("ablation").parts[part]


@pytest.mark.parametrize("part", [part for part in Study("ablation").parts if part != "multimnist first"])
def test_the_default_is_what_is_shipped(part: str) -> None:
    """The default end changes nothing of its base, save that it names what the class has by default."""
    assert other_end(departures(part)) == "default"
    settings = departures(part)
    base = settings["base"]
    shipped = flat(load(EXPERIMENTS / base if base.endswith(".yaml") else base))
    for key, value in flat(combine(settings, dict.fromkeys(settings["factors"], "default"))).items():
        assert shipped.get(key, DEFAULTS.get(key.rpartition(".")[2])) == value, key


@pytest.mark.parametrize("part", ["multimnist", "aerial2d", "learned"])
def test_the_other_end_is_the_paper_mode(part: str) -> None:
    settings = departures(part)
    paper = flat(load("aerial2d_paper" if part == "aerial2d" else "multimnist_paper"))
    found = flat(combine(settings, dict.fromkeys(settings["factors"], PAPER)))
    for key, value in found.items():
        assert paper[key] == value, key


def test_features_of_the_paper_are_taken_from_its_configuration() -> None:
    paper = load("multimnist_paper")
    found = taken(departures("learned")["factors"]["features"]["paper"])
    assert found == {"extractor": paper["extractor"], "model": {"features": paper["model"]["features"]}}


@pytest.mark.parametrize(("part", "other"), [("multimnist first", "all"), ("learned", "default")])
def test_rows_exchange_one_factor(part: str, other: str) -> None:
    rows = {run.row: run.settings for run in Study("ablation").runs(part, Kept(Path("none.json")))}
    settings = departures(part)
    factors = settings["factors"]
    depending = {key for one in settings.get("where", ()) for key in flat(one["settings"])}
    assert next(iter(rows)) == PAPER and {f"{PAPER} + {one}" for one in factors} < set(rows)
    for factor in factors:
        for row, end in ((f"{PAPER} + {factor}", PAPER), (f"{other} - {factor}", other)):
            ours, theirs = flat(rows[row]), flat(rows[end])
            changed = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
            own = {*flat(taken(factors[factor][PAPER])), *flat(taken(factors[factor][other])), *depending}
            assert changed and changed <= own


def test_the_first_round_had_the_same_paper_end() -> None:
    """So that its rows of the paper with one departure are also those of what is left."""
    runs = {run.part: run for run in Study("ablation").wanted(Kept(Path("none.json"))) if run.row == PAPER}
    first, left = (flat(merge(load(runs[part].base), runs[part].common)) for part in ("multimnist first", "multimnist"))
    assert first.pop("model.structure_learner.objective.bandwidth") == 1.0  # which is the default
    first["model.structure_learner.objective"] = left.get("model.structure_learner.objective")
    assert first == left


def test_an_image_level_network_is_compared_in_its_own_blocks(kept: Kept) -> None:
    finish(study := Study("ablation"), kept, lambda run: len(run.row))
    blocks = {
        run.row: run.settings["model"]["structure_learner"]["objective"]["init_args"]["blocks"]
        for run in study.runs("learned", kept)
    }
    assert blocks["paper"] == ["embedding"] and blocks["default - features"] == ["embedding", "count"]
    assert blocks["default"] == ["classes", "count"] and blocks["paper + features"] == ["classes"]


# --- results decide what is run ---


def test_a_search_keeps_the_best_of_each_method(kept: Kept) -> None:
    """With a score that every method has its own minimum of, and noise that the first round's seeds have."""
    best = {"paper": 1.0, "mmd": 0.3, "default": 0.1}
    study = Study("search", Chosen(["multimnist"]))

    def score(run: Run) -> float:
        method, settings = run.row.split(":")[0], flat(run.settings)
        wide = settings["model.structure_learner.objective.bandwidth"]
        lr, steps = settings["model.structure_learner.lr"], settings["trainer.max_steps"]
        return abs(wide - best[method]) + abs(lr - 3e-3) + (steps == 200) * 1e-4 + run.seed * 1e-6

    done = finish(study, kept, score)
    assert len(done) == len(set(done)) == 3 * (30 * 2 + 4 * 3)
    for method, bandwidth in best.items():
        last = {run.row for run in study.wanted(kept) if run.seed == 24 and run.row.startswith(method)}
        assert len(last) == 4 and f"{method}: learning rate 0.003, bandwidth {bandwidth:g}, steps 800" in last


def test_combinations_are_those_of_all_values() -> None:
    grid = {"rate": {"setting": "a.lr", "values": [0.1, 0.2]}, "steps": {"setting": "a.steps", "values": [5]}}
    found = {"rate 0.1, steps 5": {"a": {"lr": 0.1, "steps": 5}}, "rate 0.2, steps 5": {"a": {"lr": 0.2, "steps": 5}}}
    assert combinations(grid) == found


def test_the_seed_is_filled_in() -> None:
    assert seeded({"a": {"seed": "SEED", "name": "SEEDS"}}, 21) == {"a": {"seed": 21, "name": "SEEDS"}}


def test_some_of_a_study_may_be_run(kept: Kept) -> None:
    runs = Study("ablation", Chosen(["multimnist first"], ["all*"], [21])).wanted(kept)
    assert {(run.part, run.seed) for run in runs} == {("multimnist first", 21)}
    assert all(run.row.startswith("all") for run in runs) and len(runs) > 5
    with pytest.raises(UserError, match=r"the study search has no part 'aerial2d'\. Did you mean 'aerial2d learned'"):
        Study("search", Chosen(["aerial2d"]))


# --- settings are accepted ---


@pytest.mark.parametrize("name", ["multimnist", "aerial2d", "streets"])
def test_exact_configurations_have_their_own_names(name: str) -> None:
    assert load(EXPERIMENTS / "exact" / f"{name}.yaml")["name"] == f"exact_{name}"
    assert not find(str(EXPERIMENTS / "exact" / f"{name}.yaml")).is_symlink()


@pytest.mark.parametrize(
    ("study", "part", "row"),
    [
        ("ablation", "multimnist first", "all, SlicedWasserstein"),
        ("ablation", "aerial2d", "paper"),
        ("ablation", "streets", "default - credit"),
        ("search", "aerial2d learned", "mmd: learning rate 0.001, bandwidth 1, steps 150"),
    ],
)
def test_a_row_would_start(study: str, part: str, row: str, kept: Kept, tmp_path: Path) -> None:
    """All rows: ``python experiments/results.py ablation --check``."""
    run = Study(study, Chosen([part], [row])).wanted(kept)[0]
    check_run(run, tmp_path)


def test_a_row_that_would_not_start_is_named(kept: Kept, tmp_path: Path) -> None:
    run = Study("ablation", Chosen(["multimnist"], ["default"])).wanted(kept)[0]
    wrong = {"model": {"structure_learner": {"objective": {"init_args": {"blocks": ["clases"]}}}}}
    with pytest.raises(RunError, match=r"multimnist / default is refused: .*no block 'clases'.*'classes'"):
        check_run(run._replace(settings=merge(run.settings, wrong)), tmp_path)
