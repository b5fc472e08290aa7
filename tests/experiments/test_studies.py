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
from studies import Chosen, Study, combinations, combine, largest_effects, seeded, taken

from ms2.core.configurations import find, load, merge
from ms2.core.errors import UserError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

pytestmark = EXPECTED
DEFAULTS = {"relative_bandwidth": False, "leave_one_out": True, "correct_rejection": True, "lr_decay": True}
DEFAULTS |= {"context": True}
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


@pytest.mark.parametrize("part", Study("ablation").parts)
def test_the_default_is_what_is_shipped(part: str) -> None:
    """The default end changes nothing of its base, save that it names what the class has by default."""
    settings = departures(part)
    base = settings["base"]
    shipped = flat(load(EXPERIMENTS / base if base.endswith(".yaml") else base))
    for key, value in flat(combine(settings, dict.fromkeys(settings["factors"], "default"))).items():
        name = key.rpartition(".")[2]
        if name == "embedding":  # the bandwidth of a block that is not compared
            continue
        if name == "blocks":  # by default those that have a bandwidth
            assert all(f"{key.replace('blocks', 'bandwidth')}.{block}" in shipped for block in value)
        else:
            assert shipped.get(key, DEFAULTS.get(name)) == value, key


@pytest.mark.parametrize("part", ["multimnist", "aerial2d", "learned"])
def test_the_other_end_is_the_paper_mode(part: str) -> None:
    settings = departures(part)
    paper = flat(load("aerial2d_paper" if part == "aerial2d" else "multimnist_paper"))
    found = flat(combine(settings, dict.fromkeys(settings["factors"], "paper")))
    # of features of unit variance, relative to which the bandwidth is
    assert found.pop("model.structure_learner.objective.relative_bandwidth") is True
    for key, value in found.items():
        assert paper[key] == value, key


def test_features_of_the_paper_are_taken_from_its_configuration() -> None:
    paper = load("multimnist_paper")
    found = taken(departures("learned")["factors"]["features"]["paper"])
    assert found == {"extractor": paper["extractor"], "model": {"features": paper["model"]["features"]}}


def test_rows_exchange_one_factor() -> None:
    rows = {run.row: run.settings for run in Study("ablation").runs("multimnist", Kept(Path("none.json")))}
    factors = departures("multimnist")["factors"]
    assert next(iter(rows)) == "paper" and {f"paper + {one}" for one in factors} < set(rows)
    for factor in factors:
        for row, end in ((f"paper + {factor}", "paper"), (f"default - {factor}", "default")):
            ours, theirs = flat(rows[row]), flat(rows[end])
            changed = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
            assert changed and changed <= {*flat(factors[factor]["paper"]), *flat(factors[factor]["default"])}


def test_an_image_level_network_is_compared_in_its_own_blocks(kept: Kept) -> None:
    finish(study := Study("ablation"), kept, lambda run: len(run.row))
    blocks = {
        run.row: run.settings["model"]["structure_learner"]["objective"]["init_args"]["blocks"]
        for run in study.runs("learned", kept)
    }
    assert blocks["paper"] == ["embedding"] and blocks["default - features"] == ["embedding", "count"]
    assert blocks["default"] == ["classes", "count"] and blocks["paper + features"] == ["classes"]


# --- results decide what is run ---


def test_the_largest_effects_go_on_to_learned_features(kept: Kept) -> None:
    effects = {"blocks": 0.5, "context": 0.4, "bandwidth": 0.3, "advantage": 0.2, "leave-one-out": 0.1}
    study = Study("ablation")
    assert not study.runs("learned", kept)

    def score(run: Run) -> float:
        sign, _, factor = run.row.partition(" ")[2].partition(" ")
        return {"+": 1 - effects.get(factor, 0), "-": effects.get(factor, 0) / 3}.get(sign, float(run.row == "paper"))

    finish(study, kept, score)
    factors = list(departures("multimnist")["factors"])
    found = largest_effects({"number": 4, "of": "multimnist", "keep": ["features"]}, ["features", *factors], kept)
    assert found == ["features", "blocks", "bandwidth", "advantage", "context"]
    learned = {run.row for run in study.runs("learned", kept)}
    assert learned == {"paper", "default", *(f"paper + {f}" for f in found), *(f"default - {f}" for f in found)}


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
    runs = Study("ablation", Chosen(["aerial2d"], ["default*"], [21])).wanted(kept)
    assert {(run.part, run.seed) for run in runs} == {("aerial2d", 21)}
    assert all(run.row.startswith("default") for run in runs) and len(runs) > 5
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
        ("ablation", "multimnist", "default, SlicedWasserstein"),
        ("ablation", "aerial2d", "paper"),
        ("ablation", "streets", "default, lists bounded by max_length"),
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
