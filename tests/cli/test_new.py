"""``ms2 new``: the package that it writes is installed, and the commands that it prints are run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ms2.cli.commands import main
from ms2.cli.new import write_package
from ms2.core.errors import UserError

FEW = "--trainer.max_steps 2 --trainer.val_check_interval 1 --extractor.max_steps 2 --extractor.num_probe_images 20 "
FEW += "--pretraining.max_steps 2 --pretraining.num_validation 50 --evaluation.num_scenes 50 "
FEW += "--data.target.num_images 200 --wandb disabled --trainer.accelerator cpu"


def test_what_it_writes_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As printed, save that the package goes to a folder of its own, and few steps are made."""
    folder = tmp_path / "play_rooms"
    main(["new", str(folder)])
    install, *commands = capsys.readouterr().out.split("Next:\n\n")[1].splitlines()
    words = shlex.split(install)
    assert words == ["pip", "install", "-e", str(folder)]
    offline = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "-q", "--target", str(tmp_path / "installed")]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, words[-1]], check=True)
    path = os.pathsep.join([str(tmp_path / "installed"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    said = []
    assert [command.split()[0] for command in commands] == ["ms2", "pytest", "ms2"]
    for command in commands:
        more = shlex.split(FEW) if " fit " in command else []
        call = [sys.executable, "-m", *shlex.split(command), *more]
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert "all contracts are kept" in said[0] and "2 passed" in said[1]
    assert (tmp_path / "samples.png").exists() and (tmp_path / "runs" / "play_rooms" / "metrics.json").exists()
    assert all(command.replace(str(folder), "play_rooms") in (folder / "README.md").read_text() for command in commands)


def test_its_code_has_the_style_of_the_package(tmp_path: Path) -> None:
    write_package(tmp_path / "rooms_of_mine")
    config = str(Path(__file__).parents[2] / "pyproject.toml")
    for words in (["check", "--ignore", "RUF012"], ["format", "--check"]):  # ms2 reads the attribute of the class
        subprocess.run([sys.executable, "-m", "ruff", *words, "-q", "--config", config, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("My-Rooms", r"'My-Rooms' can't be the name of a package: .*, such as my_rooms"),
        ("class", "can't be the name of a package"),
        ("json", "a package 'json' is installed already"),
    ],
)
def test_a_name_that_no_package_can_have(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        write_package(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is there already, and not empty"):
        write_package(tmp_path / "rooms")
    assert [path.name for path in (tmp_path / "rooms").iterdir()] == ["mine.txt"]
