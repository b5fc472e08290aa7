"""Running what is missing: what is kept of runs, and when they are run again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ms2.core.configurations import merge

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
import running
from running import Kept, Run, RunError, WorldRun, first_below, flat, option_words, run_all, run_study, run_world

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TINY = {
    "data": {"batch_size": 8, "target": {"init_args": {"num_images": 20, "seed": 20}}},
    "pretraining": {"max_steps": 4, "num_validation": 50, "val_check_interval": 2},
    "model": {"structure": {"network": {"class_path": "LSTM", "init_args": {"hidden": 8}}}},
    "evaluation": {"num_scenes": 60},
    "trainer": {"max_steps": 4, "val_check_interval": 2},
}
COLUMNS = ["count_tv", "class_tv"]


def a_run(row: str = "default", seed: int = 20, **common: object) -> Run:
    base = str(EXPERIMENTS / "exact" / "multimnist.yaml")
    return Run("part", row, seed, base, {**common, "seed": seed}, common, COLUMNS)


# --- what is kept ---


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "study.json")
    kept.add(a_run(), {"score": 0.25, "reached": None})
    kept.add(a_run(seed=21), {"score": 0.5, "reached": 3})
    again = Kept(tmp_path / "study.json")
    assert again.has(a_run()) and again.has(a_run(seed=21)) and not again.has(a_run("other"))
    assert again.of("part", "default") == [{"score": 0.25, "reached": None}, {"score": 0.5, "reached": 3}]
    assert again.score("part", "default") == 0.375 and again.score("part", "default", [21]) == 0.5
    assert again.score("part", "paper") is None
    assert again.of_seed("part", 21) == [{"score": 0.5, "reached": 3}]


def test_a_run_is_a_line_and_a_row_is_a_line(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "study.json")
    for seed in range(20, 30):
        kept.add(a_run(seed=seed, trainer={"max_steps": 7}), {"score": 0.5})
    text = (tmp_path / "study.json").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 10 + 1 + 6
    assert json.loads(text)["rows"] == {"part / default": {"base": "exact/multimnist.yaml", "trainer.max_steps": 7}}


def test_a_row_with_other_settings_is_run_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "study.json")
    for seed in (20, 21):
        kept.add(a_run(seed=seed, lr=0.1), {"score": 0.5})
    assert kept.has(a_run(lr=0.1)) and not kept.has(a_run(lr=0.2))
    kept.add(a_run(lr=0.2), {"score": 0.7})
    assert kept.of("part", "default") == [{"score": 0.7}], "the old run of seed 21 has other settings"


def test_nested_settings_get_dotted_names() -> None:
    settings = {"model": {"objective": {"class_path": "KDE", "init_args": {"bandwidth": {"a": 1}}}, "none": {}}}
    assert flat(settings) == {"model.objective": "KDE", "model.objective.bandwidth.a": 1, "model.none": {}}
    assert option_words({"a": {"b": 1, "c": {"d": [2]}}}) == ["--a.b", "1", "--a.c.d", "[2]"]


def test_the_first_good_validation_is_found_in_the_logs(tmp_path: Path) -> None:
    logs = [tmp_path / "1.csv", tmp_path / "2.csv"]
    logs[0].write_text("step,val/a,val/b,loss\n9,,,1\n19,0.3,0.1,\n", encoding="utf-8")
    logs[1].write_text("step,val/a,val/b\n39,0.1,0.05\n59,0.0,0.0\n", encoding="utf-8")
    for below, step in ((0.3, 20), (0.2, 40), (0.05, 60), (0.0, None)):
        assert first_below(logs, {"columns": ["a", "b"], "below": below}) == step
    assert first_below(logs, {"columns": ["c"], "below": 1}) is None


# --- running ---


@pytest.mark.parametrize("num_jobs", [1, 3])
def test_a_failure_does_not_stop_the_others(num_jobs: int, capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def run(number: int) -> None:
        if number == 2:
            raise RunError("two failed")
        done.append(number)

    assert run_all(range(5), run, num_jobs) == ["two failed"]
    assert sorted(done) == [0, 1, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_commands_end_with_the_program_and_no_more_are_started(number: signal.Signals, tmp_path: Path) -> None:
    """Of a program named ms2 that says that it has started, and would go on for minutes."""
    (tmp_path / "ms2.py").write_text(
        "import os, sys, time\nopen(sys.argv[2], 'w').write(str(os.getpid()))\ntime.sleep(300)\n", encoding="utf-8"
    )
    program = (
        f"import os, sys; sys.path.insert(0, {str(EXPERIMENTS)!r}); from pathlib import Path; import running\n"
        f"os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n"
        f"run = lambda name: running.command('fit', [{str(tmp_path)!r} + '/' + name], Path({str(tmp_path)!r}), name)\n"
        "running.run_all(['a', 'b', 'c'], run, 2)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert not (tmp_path / "c").exists()
    for name in "ab":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / name).read_text()), 0)


def test_a_command_is_not_started_once_the_program_was_asked_to_stop(tmp_path: Path) -> None:
    """Such as the second one of a run that is measured on another target."""
    running.stopping.set()
    try:
        with pytest.raises(RunError, match="run was not started"):
            running.command("fit", [], tmp_path, "run")
    finally:
        running.stopping.clear()
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_program_is_raised() -> None:
    def run(number: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([1], run)


def test_a_run_is_run_once_and_measured_on_another_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Kept(tmp_path / "results" / "study.json")
    reach = {"columns": COLUMNS, "below": 1.5}  # which any two distances are
    other = {"data": {"target": {"init_args": {"num_images": 2000}}}}
    run = a_run()._replace(settings=TINY, common=TINY, reach=reach, tested_on=other)
    assert not run_study([run], kept, folder=tmp_path / "runs")
    [numbers] = Kept(kept.path).of("part", "default")
    assert numbers["score"] == pytest.approx((numbers["count_tv"] + numbers["class_tv"]) / 2, abs=1e-5)
    assert 0 < numbers["count_tv_noise_floor"] < 0.25 and numbers["count_tv_prior"] > 0  # 20 images have more
    assert numbers["steps"] == 4 and numbers["reached"] == 2 and numbers["seconds"] > 0
    assert not list((tmp_path / "runs").glob("part*")), "hundreds of runs would fill the disk"
    monkeypatch.setattr("running.run_once", lambda *_: pytest.fail("it is finished"))
    assert not run_study([run], kept, folder=tmp_path / "runs")


def test_a_run_that_diverges_is_the_worst_and_is_not_run_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "study.json")
    settings = merge(TINY, {"model": {"structure_learner": {"lr": 1e9}}})
    run = a_run()._replace(settings=settings, common=settings)
    assert not run_study([run], kept, folder=tmp_path / "runs")
    assert kept.has(run) and kept.of("part", "default", [20]) == [{"score": 1.0, "diverged": True}]


def test_a_run_that_fails_says_why_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = WorldRun("wrong", ["multimnist_quick"], 0, {"trainer": {"stpes": 1}})
    with pytest.raises(RunError, match=r"wrong failed with exit code 2: .* \(see .*wrong.log\)"):
        run_world(run, tmp_path / "runs", tmp_path / "results")
    assert not (tmp_path / "results").exists()
