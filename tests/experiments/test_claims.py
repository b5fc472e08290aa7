"""The page of claims is what its kept results say, and all of them exist."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from ms2.core import configurations
from ms2.core.errors import UserError
from ms2.metrics.results import Estimate, Results, RunProvenance, StatisticResult, load_results, save_results

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
import claims
from kept import KEPT

CLAIMS = claims.read_claims()[1]


def keep(folder: Path, name: str, **rows: float) -> None:
    """Keep the results of a made-up run that measured one distance."""
    (folder / name).mkdir(parents=True)
    statistic = StatisticResult("cars", {"tv": {row: Estimate(value) for row, value in rows.items()}})
    save_results(folder / name / "metrics.json", Results(RunProvenance(10, 0, "Synthetic"), {"cars": statistic}))


def claim(**more: object) -> claims.Claim:
    """A claim about cars."""
    settings = {
        "title": "Cars",
        "claim": "They are learned.",
        "said_in": {"README": "../README.md"},
        "command": "make results ARGS=cars",
        "seeds": [0, 1, 2],
        "chosen": "nothing.",
        "numbers": {"cars TV": "cars_tv"},
        "rows": {"prior": ("cars_quick", "prior"), "learned": ("cars_quick", "learned")},
        "lower": {"learned": "prior"},
    }
    return claims.Claim(**settings | more)


# --- the page ---


def test_the_page_is_written_from_the_kept_results() -> None:
    written = claims.PAGE.read_text(encoding="utf-8")
    assert written == claims.page(), "python experiments/claims.py writes it again"


def test_numbers_of_the_page_are_those_of_the_kept_results() -> None:
    """Computed here in another way, for a claim that is measured."""
    runs = [load_results(path) for path in sorted(KEPT.glob("driving_quick_seed*/metrics.json"))]
    learned = [
        sum(
            one.visible[name].distances["tv"]["learned"].value
            for name in one.visible
            if one.visible[name].counted_class
        )
        / sum(bool(one.visible[name].counted_class) for name in one.visible)
        for one in runs
    ]
    rest = claims.PAGE.read_text(encoding="utf-8").partition("what can be seen\n")[2]
    row = next(line for line in rest.splitlines() if line.startswith("| mean of eleven classes |"))
    mean, worst = sum(learned) / len(learned), max(learned)
    assert f"| {mean:.3f} ± " in row and f"| {worst:.3f} |" in row
    assert f"| {len(runs)} of {len(runs)} seeds, intervals apart |" in row


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.title)
def test_each_claim_has_all_its_numbers_or_says_that_it_is_not_measured(one: claims.Claim) -> None:
    text = "\n".join(claims.section(one, KEPT))
    found = {
        (row, title): claims.values(KEPT, source, number)
        for row, source in one.rows.items()
        for title, number in one.numbers.items()
    }
    if not any(found.values()):
        assert claims.NOT_MEASURED in text
        return
    for (row, title), values in found.items():
        assert values or row not in {*one.lower, *one.lower.values()}, (row, title)
    seeds = {seed for values in found.values() for seed in values}
    assert all(set(values) in (seeds, set()) for values in found.values()), "a run without one of the numbers"
    assert claims.NOT_MEASURED not in text and "\n| " in text


@pytest.mark.parametrize("one", CLAIMS, ids=lambda one: one.title)
def test_sources_are_configurations_or_files_of_studies(one: claims.Claim) -> None:
    for name, _ in one.rows.values():
        if name not in ("ablation.json", "search.json", claims.EXACT_NUMBERS):
            assert configurations.find(name.removesuffix("_mnist"))
            world, _, config = name.removesuffix("_mnist").partition("_")
            assert (world in one.command and config in one.command) or one.command == f"make results ARGS={world}"
    assert one.chosen and one.seeds and one.command


# --- a claim ---


def test_a_claim_without_results_says_so(tmp_path: Path) -> None:
    text = "\n".join(claims.section(claim(), tmp_path))
    assert "Not measured by this version yet. Seeds to be reported: 0 to 2." in text and "|" not in text


def test_a_claims_numbers_are_means_with_intervals_and_the_worst_seed(tmp_path: Path) -> None:
    keep(tmp_path, "cars_quick_seed0", prior=0.5, learned=0.1)
    keep(tmp_path, "cars_quick_seed2", prior=0.5, learned=0.3)
    lines = list(claims.section(claim(), tmp_path))
    assert "- Seeds: 0, 2, not measured yet: 1." in lines
    half = 12.7062 * 0.2 / 2**0.5 / 2**0.5  # Student's t with one degree of freedom
    assert lines[-3] == "| | prior | learned | learned: worst | learned below prior |"
    assert lines[-1] == (f"| cars TV | 0.500 ± 0.000 | 0.200 ± {half:.3f} | 0.300 | 2 of 2 seeds, intervals overlap |")


def test_seeds_of_configurations_that_differ_are_said_for_each(tmp_path: Path) -> None:
    other = claim(rows={"MMD": ("cars_mmd", "learned"), "ours": ("cars_quick", "learned")}, lower={"ours": "MMD"})
    for seed in range(3):
        keep(tmp_path, f"cars_quick_seed{seed}", learned=0.1)
    keep(tmp_path, "cars_mmd_seed1", learned=0.2)
    lines = list(claims.section(other, tmp_path))
    assert "- Seeds: cars_mmd: 1, not measured yet: 0, 2; cars_quick: 0 to 2, all of them." in lines
    assert lines[-1] == "| cars TV | 0.200 | 0.100 ± 0.000 | 0.100 | 1 of 1 seeds |"


def test_it_is_said_where_a_claim_does_not_hold(tmp_path: Path) -> None:
    for seed, learned in enumerate((0.61, 0.6, 0.62)):
        keep(tmp_path, f"cars_quick_seed{seed}", prior=0.5 + seed / 1000, learned=learned)
    lines = list(claims.section(claim(), tmp_path))
    assert "- Seeds: 0 to 2, all of them." in lines
    assert lines[-1].endswith("| 0 of 3 seeds, intervals apart the other way |")


def test_missing_numbers_and_other_seeds_are_errors(tmp_path: Path) -> None:
    keep(tmp_path, "cars_quick_seed0", learned=0.1)
    with pytest.raises(UserError, match="'Cars': there are kept results, but none has 'cars TV' of the row 'prior'"):
        list(claims.section(claim(), tmp_path))
    keep(tmp_path, "cars_quick_seed7", prior=0.1, learned=0.1)
    with pytest.raises(UserError, match="seeds 7 are kept, and are not among its seeds"):
        list(claims.section(claim(), tmp_path))


def test_rows_that_are_compared_exist(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    one = {key: getattr(claim(lower={"learnt": "prior"}), key) for key in claims.Claim.__dataclass_fields__}
    one["rows"] = {row: list(source) for row, source in one["rows"].items()}
    file.write_text(yaml.safe_dump({"introduction": "", "claims": [one]}), encoding="utf-8")
    with pytest.raises(UserError, match="'Cars' compares learnt, which are no rows of it"):
        claims.read_claims(file)


def test_rows_of_studies_are_read(tmp_path: Path) -> None:
    runs = {
        "digits / paper, 1 / 20": {"count_tv": 0.1, "score": 0.1},  # the best, but of the first round alone
        "digits / paper, 2 / 20": {"count_tv": 0.3, "score": 0.3},
        "digits / paper, 2 / 21": {"count_tv": 0.5, "score": 0.5},
        "digits / paper, 3 / 20": {"count_tv": 0.2, "score": 0.9},
        "digits / paper, 3 / 21": {"count_tv": 0.2, "score": 0.9},
        "digits / paper / 20": {"count_tv": 0.8, "score": 0.8},
    }
    (tmp_path / "search.json").write_text(json.dumps({"rows": {}, "runs": runs}), encoding="utf-8")
    assert claims.values(tmp_path, ("search.json", "digits / paper,*"), "count_tv") == {20: 0.3, 21: 0.5}
    assert claims.values(tmp_path, ("search.json", "digits / paper"), "count_tv") == {20: 0.8}
    assert claims.values(tmp_path, ("search.json", "digits / mmd*"), "count_tv") == {}
    assert claims.values(tmp_path, ("ablation.json", "digits / paper"), "count_tv") == {}


def test_exact_numbers_are_read_by_seed(tmp_path: Path) -> None:
    (tmp_path / claims.EXACT_NUMBERS).write_text(json.dumps({"3": {"car": 0.1, "tree": 0.3}}), encoding="utf-8")
    source = (claims.EXACT_NUMBERS, "")
    assert claims.values(tmp_path, source, "mean") == {3: pytest.approx(0.2)}
    assert claims.values(tmp_path, source, "max") == {3: 0.3}
