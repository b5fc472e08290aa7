"""Data sets whose scenes are drawn from several runs: exact shares, the same files however they are made."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers import EXPECTED, ms2
from test_datasets import FORMATS, SMALL, changed_files, counts, records, run_folder, small, tree

from ms2.core.errors import UserError
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord
from ms2.datasets.rendering import render_record
from ms2.models.opened_mixture import Opened, open_models
from ms2.report.dataset import report_dataset

pytestmark = EXPECTED
NUMBER = 44
"""Images: a whole block, and a part of one."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs of other weights and bounds."""
    folder = tmp_path_factory.mktemp("runs")
    few = run_folder(folder / "few", seed=1, max_length={"Digits": 1})
    return [str(few), str(run_folder(folder / "many", seed=2, max_length={"Digits": 4}))]


def opened(runs: list[str], mix: object = (3, 1)) -> Opened:
    return open_models(runs, mix)


@pytest.fixture(scope="module")
def whole(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set made at one go, by one process."""
    root = tmp_path_factory.mktemp("whole") / "set"
    assert generate(job(runs, root), progress=False)
    return root


def job(runs: list[str], root: Path, number: int = NUMBER, mix: object = (3, 1), **settings: object) -> Job:
    return Job(opened(runs, mix), Plan(number, **({"formats": FORMATS} | settings)), root)


def runs_of(root: Path) -> list[str]:
    return [record["provenance"]["run"] for record in records(root)]


def test_shares_are_exact_and_records_name_the_run(whole: Path, runs: list[str]) -> None:
    found = records(whole)
    assert Counter(runs_of(whole)) == {"few": 33, "many": 11} and len({*runs_of(whole)[:4]}) == 2
    parts = {part.name: part.fingerprints() for part in opened(runs).parts}
    for record in found:
        about = record["provenance"]
        assert about.items() >= parts[about["run"]].items()
        assert ImageRecord.from_json(record).to_json() == record
        if about["run"] == "few":
            assert counts(record).total() <= 1
    assert max(counts(record).total() for record in found) > 1


def test_the_description_names_all_runs(whole: Path, runs: list[str]) -> None:
    about = json.loads((whole / "dataset.json").read_text())
    few, many = opened(runs).parts
    assert (about["source"], about["structure"], about["parameters"]) == ("few+many", "learned", "prior")
    assert about["mix"] == {"few": 3, "many": 1}
    for run, part in zip(about["runs"], (few, many), strict=True):
        assert run.items() >= {"source": part.name, **part.fingerprints()}.items()
        assert run["model"]["init_args"]["max_length"] == part.settings["structure"]["init_args"]["max_length"]
    assert about["grammar"] == few.fingerprints()["grammar"] and about["structure_prior"] is None
    assert about["checkpoint"] not in (few.fingerprints()["checkpoint"], many.fingerprints()["checkpoint"], None)
    other = opened(runs, "even")
    assert other.fingerprints()["checkpoint"] != about["checkpoint"], "the shares count"


def test_the_card_lists_shares_and_fingerprints(whole: Path, runs: list[str]) -> None:
    card = (whole / "README.md").read_text()
    assert card.startswith("# few+many: 44 images, ") and "from a mixture of `few` and `many`, seed 0." in card
    for part, share, number in zip(opened(runs).parts, ("3 of 4", "1 of 4"), (33, 11), strict=True):
        known = part.fingerprints()
        row = f"learned `{known['checkpoint']}` | prior `{known['parameter_prior']}`"
        assert f"| {part.name} | {share} | {number} | {row} |\n" in card


def test_the_report_shows_the_runs_and_warns_of_nothing(whole: Path) -> None:
    page = report_dataset(whole)
    assert "few (33 images), many (11 images)" in page and "Not all images were made alike" not in page


def test_processes_and_interruptions_make_the_same_set(whole: Path, runs: list[str], tmp_path: Path) -> None:
    """One machine's two processes make the first block and are stopped; another run of the command makes the rest."""
    root = tmp_path / "set"
    assert not generate(job(runs, root), rank=1, world_size=2, progress=False)
    assert len(records(root)) == NUMBER - 32
    for path in ("scenes/000040.json", "images/000033.png"):
        (root / path).unlink()
    assert generate(job(runs, root), workers=2, progress=False)
    assert changed_files(tree(root), tree(whole)) == []


def test_a_larger_set_begins_with_a_smaller_one(whole: Path, runs: list[str], tmp_path: Path) -> None:
    assert generate(job(runs, tmp_path / "set", 21), progress=False)
    assert Counter(runs_of(tmp_path / "set"))["many"] in (5, 6)
    fewer, more = tree(tmp_path / "set"), tree(whole)
    names = [name for name in fewer if name.startswith(("images/", "scenes/", "labels/"))]
    assert len(names) >= 3 * 21 and all(fewer[name] == more[name] for name in names)


def test_other_shares_are_another_set(whole: Path, runs: list[str]) -> None:
    with pytest.raises(UserError, match=r'mix: {"few": 3, "many": 1} there, {"few": 1, "many": 1} now'):
        generate(job(runs, whole, mix="even"), progress=False)


def test_images_are_rendered_again(whole: Path) -> None:
    for index in range(4):
        assert render_record(whole / "scenes" / f"{index:06d}.json")[2]


def test_conditions_hold_in_every_run_and_keep_the_shares(runs: list[str], tmp_path: Path) -> None:
    generate(job(runs, tmp_path / "set", 8, mix="even", conditions=("3 == 1",)), progress=False)
    assert Counter(runs_of(tmp_path / "set")) == {"few": 4, "many": 4}
    assert all(counts(record)["3"] == 1 for record in records(tmp_path / "set"))
    with pytest.raises(UserError, match=r"^few: '3 == 2' can't be met: 3 can be 0 to 1 here"):
        job(runs, tmp_path / "none", conditions=("3 == 2",))


def test_a_run_may_be_mixed_with_a_prior(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command line; a prior is not mistaken for a run."""
    world = tmp_path / "plain.yaml"
    world.write_text(json.dumps({"world": small("multimnist").settings["world"]}))
    words = ["--num_scenes", "6", "--workers", "1", "--output", str(tmp_path / "set")]
    ms2(["generate", runs[0], str(world), *words, "--mix", "0.5", "0.5"])
    said = capsys.readouterr().out
    assert "structure is drawn from the prior of plain, not" in said and "prior of few" not in said
    assert Counter(runs_of(tmp_path / "set")) == {"few": 3, "plain": 3}
    about = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert (about["structure"], about["parameters"]) == ("mixed", "prior")


def test_runs_of_equal_names_are_numbered(runs: list[str], tmp_path: Path) -> None:
    other = run_folder(tmp_path / "few", seed=3)
    mixture = opened([runs[0], str(other)], "even")
    assert [part.name for part in mixture.parts] == ["few-1", "few-2"] and mixture.name == "few-1+few-2"
    again = mixture.recipe()
    assert again.description() == mixture.description() and again.fingerprints() == mixture.fingerprints()


def test_one_source_is_itself_whatever_the_mix(runs: list[str]) -> None:
    alone = opened(runs[:1], None)
    assert opened(runs[:1], "even").description() == alone.description() and "mix" not in alone.description()


WRONG = {
    "no mix": ([], "are 2 sources: say how many scenes to draw from each, such as --mix even, or --mix 2 1"),
    "another number": (["--mix", "1", "2", "3"], "mix gives 3 weights for 2 runs"),
    "no number": (["--mix", "evenly"], "mix has 'evenly', which is no weight: give 'even', or a positive number"),
    "a checkpoint": (["--mix", "even", "--checkpoint", "a.ckpt"], "name the checkpoints as sources instead"),
}


@pytest.mark.parametrize(("words", "complaint"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(
    words: list[str], complaint: str, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        ms2(["generate", *runs, *words])
    assert complaint in capsys.readouterr().err


def test_other_sources_are_refused(runs: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"few is named twice: name it once, and give it more weight"):
        opened([runs[0], runs[0] + "/"], "even")
    with pytest.raises(UserError, match=r"few and multimnist can't be mixed.*\n  renderer.canvas_size: 40 in few, 128"):
        opened([runs[0], "multimnist"], "even")
    both = open_models([runs[0], "multimnist"], "even", arguments=SMALL["multimnist"])
    assert both.model.world.renderer.size == (40, 40), "settings apply to all"
    with pytest.raises(UserError, match="there is no source to draw scenes from"):
        opened([], None)
