"""The table of commands: help, examples, exit codes, and what a command has to import."""

import errno
import gc
import importlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ms2.cli import commands, plugins
from ms2.cli.commands import COMMANDS, main
from ms2.cli.configs import with_settings
from ms2.core.configurations import experiments, load, load_all
from ms2.core.errors import UserError
from ms2.core.registry import KINDS, available
from ms2.worlds.multimnist.grammar import MultiMNIST

HEAVY = ("torch", "pytorch_lightning", "torchvision", "torchmetrics", "matplotlib", "scipy", "sklearn", "wandb")


def said(words: Sequence[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[str, str]:
    """What a command prints, and what it says to standard error."""
    try:
        main(words)
        found: object = 0
    except SystemExit as end:
        found = end.code or 0
    assert found == code
    printed = capsys.readouterr()
    return printed.out, printed.err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_the_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(words, capsys)
    for name, command in COMMANDS.items():
        assert f"  {name:10}  {command.help}\n" in out
    assert all(len(line) <= 120 for line in out.splitlines())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["--version"], capsys)
    assert out == f"ms2 {importlib.import_module('ms2').__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = said(["ft"], capsys, code=2)
    assert err == f"ms2: there is no command 'ft'. Did you mean 'fit'? Available: {', '.join(sorted(COMMANDS))}.\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said([name, "--help"], capsys)
    flat = " ".join(out.split())
    assert f"{COMMANDS[name].help}." in flat and f"Example: {COMMANDS[name].example}" in flat and not err
    assert f"ms2 {name}" in flat.partition(COMMANDS[name].help)[0] or name in ("fit", "validate", "test", "predict")
    program, command, *_ = shlex.split(COMMANDS[name].example)
    assert (program, command) == ("ms2", name)


@pytest.mark.parametrize("name", ["generate", "render", "compare", "report", "configs", "list", "lint"])
def test_an_unknown_option_is_an_error_that_names_the_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = said([name, "x", "--nonsense", "1"], capsys, code=2)
    assert err.startswith("ms2: ") and "nonsense" in err and err.endswith(f"All options: ms2 {name} --help\n")


# --- what is imported ---


def modules_of(words: Sequence[str]) -> set[str]:
    """Top-level modules that a command imports, in a process of its own."""
    code = f"import sys; from ms2.cli.commands import main; main({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("words", [["--help"], ["--version"]], ids=str)
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    assert not modules_of(words) & {*HEAVY, "jsonargparse", "numpy", "yaml"}


def test_configurations_are_listed_without_torch() -> None:
    assert not modules_of(["configs"]) & {*HEAVY, "numpy"}


def test_plugins_are_listed_without_what_takes_seconds_to_import() -> None:
    assert not modules_of(["list"]) & set(HEAVY[1:])


def test_a_program_is_imported_without_garbage_collection(tmp_path: Path) -> None:
    """And collects garbage afterwards, but what was imported not before the end."""
    program = "import gc; during = gc.isenabled(); made = [[] for _ in range(9999)]"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    code = "import gc; from ms2.cli.commands import _imported; found = _imported('program'); "
    code += "print(found.during, gc.isenabled(), gc.get_freeze_count() > 9999); "
    code += "import atexit; atexit._run_exitfuncs(); print(gc.get_freeze_count())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "True", "True", "0"]


# --- list, lint, configs ---


def test_every_plugin_is_listed_though_little_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, which has not imported what the tests have."""
    code = "from ms2.cli.commands import main; main(['list'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plugins.load()
    listed: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            listed[kind].add(line.split()[0])
        else:
            kind = line
            listed[kind] = set()
    ours = {
        kind: {name for name, cls in available(kind).items() if cls.__module__.startswith("ms2.")}
        for kind, base in KINDS.items()
        if base.__module__.startswith("ms2.")
    }
    assert {kind: names & ours.get(kind, set()) for kind, names in listed.items() if kind in ours} == ours


def test_some_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["list", "objectives", "grammars"], capsys)
    assert out.startswith("objectives\n  ") and "\ngrammars\n" in out and "  KDE  " in out and "renderers" not in out
    _, err = said(["list", "objektives"], capsys, code=2)
    assert "Did you mean 'objectives'?" in err


def test_a_plugin_without_docstring_and_a_clash_of_names_do_not_keep_others_from_being_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugins.load()
    bare = type("Bare", (MultiMNIST,), {"__module__": "acme", "__qualname__": "Bare"})
    twin = type("MultiMNIST", (MultiMNIST,), {"__module__": "acme", "__qualname__": "MultiMNIST", "__doc__": "  \n"})
    out, _ = said(["list", "grammars"], capsys)
    lines = [line for line in out.splitlines() if line.split()[0] in ("Bare", "MultiMNIST")]
    assert lines[0] == "  Bare               (no docstring)"
    assert any(
        "Grammar of MultiMNIST: a list of digits" in line and "2 have this name: rename one" in line for line in lines
    )
    assert any("(no docstring) (acme; 2 have this name: rename one)" in line for line in lines)
    _, err = said(["lint", "MultiMNIST"], capsys, code=2)
    assert err.startswith("ms2: two Grammar plug-ins are called 'MultiMNIST': ") and err.endswith(
        "Rename one of them.\n"
    )
    assert "rules; derivations take" in said(["lint", "Aerial2D"], capsys)[0]
    del bare, twin
    gc.collect()
    assert "nothing suspicious" in said(["lint", "MultiMNIST"], capsys)[0]


def test_a_grammar_is_linted_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["lint", "MultiMNIST"], capsys)
    assert "nothing suspicious" in out and "13 rules" in out
    _, err = said(["lint", "MultiMNST"], capsys, code=2)
    assert "Did you mean 'MultiMNIST'?" in err


def test_a_grammar_that_cannot_be_used_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grammar.txt"
    file.write_text("Scene -> Scene car\n")
    out, _ = said(["lint", str(file)], capsys, code=1)
    assert "error" in out


def test_every_configuration_is_listed_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(["configs"], capsys)
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments())
    assert all(len(line.split()) > 4 for line in lines)
    _, err = said(["configs", "kitti_quik"], capsys, code=2)
    assert "Did you mean 'kitti_quick'?" in err


# --- --config ---


def test_configurations_on_a_command_line_become_one_text_before_all_else() -> None:
    words = ["--name", "x", "--config", "multimnist_quick", "--model.lr=1", "--config=base", "-c", "worlds/aerial2d"]
    key, text, *others = with_settings(words)
    assert key == "--config" and others == ["--name", "x", "--model.lr=1"]
    assert yaml.safe_load(text) == load_all(["multimnist_quick", "base", "worlds/aerial2d"])
    assert with_settings(["--name", "x"]) == ["--name", "x"]
    assert yaml.safe_load(with_settings(["-c", "multimnist"])[1]) == load("multimnist")
    with pytest.raises(UserError, match="no configuration called ''"):
        with_settings(["--config"])


# --- errors of the system ---


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            "a/b: No space left on device; make room there, then",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            "/root/x: Permission denied; give another path",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "File name too long; give a shorter path"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), "x: No such file or directory"),
        (OSError("odd"), "odd"),
    ],
    ids=repr,
)
def test_an_error_of_the_system_is_one_message(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(commands.Command, "run", fail)
    out, err = said(["configs"], capsys, code=2)
    assert err.startswith("ms2: ") and message in err and err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    "words", [["report"], ["lint"], ["render", "--provenance"], ["configs"]], ids=lambda words: words[0]
)
def test_a_path_below_what_cannot_be_read_is_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for anyone but root; of whom the tests may be run."""
    path, look = tmp_path / "closed" / "x.yaml", os.stat

    def stat(given: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if isinstance(given, (str, os.PathLike)) and "closed" in os.fspath(given):
            raise PermissionError(errno.EACCES, "Permission denied", str(given))
        return look(given, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    _, err = said([*words, str(path)], capsys, code=2)
    assert err.startswith("ms2: ") and "closed" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "x"), ("RANK", ""), ("LOCAL_RANK", "-1"), ("WORLD_SIZE", "two"), ("SLURM_PROCID", "1.5")],
)
def test_a_rank_that_is_no_number_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    _, err = said(["configs"], capsys, code=2)
    assert err.startswith(f"ms2: the environment variable {name} is {value!r}, and must be a whole number")
    assert f"unset {name}" in err


def test_a_rank_is_below_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, err = said(["configs"], capsys, code=2)
    assert "RANK=2 and WORLD_SIZE=2 do not fit" in err
    monkeypatch.setenv("RANK", "1")
    said(["configs"], capsys)


def test_whoever_reads_what_is_printed_may_stop() -> None:
    command = f"{shlex.quote(sys.executable)} -m ms2 configs multimnist_quick | head -c 1"
    found = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert found.stderr == b""


def test_an_abbreviated_option_names_a_configuration_too() -> None:
    assert with_settings(["--conf", "multimnist_quick", "-c=base"])[0] == "--config"
    assert with_settings(["--c", "x"]) == ["--c", "x"]


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_reader_that_has_gone_is_no_error(word: str) -> None:
    """As in ``ms2 --help | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run([sys.executable, "-m", "ms2", word], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert found.stderr == b"" and found.returncode == 1
