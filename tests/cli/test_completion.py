"""Completion in a shell: what bash suggests after the first letters of a word."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ms2.cli.commands import COMMANDS, main
from ms2.core.configurations import experiments
from ms2.core.registry import KINDS, registered

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that the command prints."""
    path = tmp_path_factory.mktemp("completion") / "ms2.bash"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda text, **_: path.write_text(text, encoding="utf-8"))
        main(["completion", "bash"])
    return path


def suggested(script: Path, *words: str) -> list[str]:
    """What bash suggests for the last word of a command line, as readline asks for it."""
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ms2; printf "%s\\n" "${COMPREPLY[@]}"'
    call = ["bash", "-euc", ask, str(script), "ms2", *words]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()


def test_commands(script: Path) -> None:
    assert suggested(script, "") == [*COMMANDS]
    assert suggested(script, "ge") == ["generate"]


@pytest.mark.parametrize("name", ["fit", "generate"])
def test_every_option_of_the_help(script: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = {
        option.removesuffix("+") for option in re.findall(r"^  (?:-\w, )?(--[\w.]+)", capsys.readouterr().out, re.M)
    }
    assert shown <= set(suggested(script, name, "--")) and len(shown) > 10


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit", "--config", "aerial2d_q"], ["aerial2d_quick"]),
        (["fit", "--wandb", ""], ["offline", "online", "disabled"]),
        (["fit", "--fresh", ""], ["true", "false"]),
        (["fit", "--data.target", "K"], ["Kitti"]),
        (["generate", "runs/first", "--format", "coco", "yo"], ["yolo"]),
        (["configs", "multimnist_q"], ["multimnist_quick"]),
        (["fit", "--runs_dir", "r"], []),  # a folder: the shell's own suggestions
        (["report", "r"], []),
    ],
    ids="_".join,
)
def test_values(script: Path, words: list[str], expected: list[str]) -> None:
    assert suggested(script, *words) == expected


def test_configurations_and_plug_ins(script: Path) -> None:
    assert suggested(script, "fit", "--config", "") == [*experiments()]
    assert suggested(script, "list", "") == sorted(KINDS)
    assert suggested(script, "fit", "--model.features", "") == [*registered(KINDS["features"])]


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "tcsh"])
    assert "bash" in capsys.readouterr().err
