"""What README and docs say is so: links, commands, settings and names exist, and the README's Python examples run."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import jsonargparse
import pytest
import yaml
from helpers import EXPECTED
from PIL import Image

import ms2
from ms2.cli.commands import COMMANDS, main
from ms2.core import configurations
from ms2.core.parsing import ArgumentParser
from ms2.core.yaml_files import load_yaml

pytestmark = EXPECTED
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LIGHTNING = ("fit", "validate", "test", "predict")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
every_current_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language, none for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for name, text in found if name == language]


def prose(page: Path) -> str:
    """The text outside of fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def spans(page: Path) -> list[str]:
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def shell_lines(page: Path) -> Iterator[list[str]]:
    """Words of each line of blocks without a language, without comments and what is done with the output."""
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield [*takewhile(lambda word: word not in (">", "&&"), words)]


# --- links ---


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_of_docs_is_linked() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not target.startswith("http")
    }
    assert {page for page in PAGES if page.parent != ROOT} <= linked
    assert set((ROOT / "docs" / "images").iterdir()) <= linked, "a picture that no page shows"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


# --- commands ---


class Parsed(Exception):  # noqa: N818
    """Raised where a command line has been parsed, so that the command does no more."""


def parse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Parse a command line of ms2."""
    name = words[1]
    assert name in COMMANDS, f"there is no command {name}"
    if name not in LIGHTNING:
        original = jsonargparse.ArgumentParser.parse_args

        def stop(parser: ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
            original(parser, *args, **kwargs)
            raise Parsed

        with mock.patch.object(ArgumentParser, "parse_args", stop), pytest.raises(Parsed):
            main(words[1:])
        return
    try:
        main([*words[1:], "--print_config"])
    except SystemExit as end:
        assert not end.code, f"{shlex.join(words)}: {capsys.readouterr().err}"
    capsys.readouterr()


def commands() -> list[str]:
    """Different command lines of ms2 on all pages, and the examples of ``ms2 COMMAND --help``."""
    found = {shlex.join(words) for page in PAGES for words in shell_lines(page) if words[0] == "ms2"}
    complete = {span for page in PAGES for span in spans(page) if span.startswith("ms2 ") and len(span.split()) > 2}
    examples = {shlex.join(shlex.split(command.example)) for command in COMMANDS.values()}
    return sorted(found | complete | examples)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("line", commands())
def test_a_command_line_can_be_parsed(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # files of experiments/ and examples/ are named
    words = [re.sub(r"\{(\d)[\d,]*\}", r"\1", word) for word in shlex.split(line)]  # as a shell would expand it
    if "--help" in words or words[-2].endswith(".help"):
        with pytest.raises(SystemExit, match="0"):
            main(words[1:])
        return
    words = [word.replace("runs/multimnist_quick/config.yaml", "multimnist_quick") for word in words]
    if "examples/shapes/shapes.yaml" in words:  # its package may not be installed
        assert configurations.load("examples/shapes/shapes.yaml")["world"]
        return
    if words[-1].endswith("induced_aerial2d/fit.yaml"):  # the command before it writes it
        assert shlex.join(words) == "ms2 fit --config=induced_aerial2d/fit.yaml"
        return
    if words[1:3] == ["fit", "--config"] and len(words) == 4:
        assert configurations.find(words[3])  # tests/cli/test_configs.py reads the settings of each
        return
    parse(words, capsys)


@every_current_page
def test_configurations_commands_and_files_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [*shell_lines(page), *(span.split() for span in spans(page))]
    for words in lines:
        for key, value in pairwise(words):
            if key == "--config" and value != "NAME":
                assert configurations.find(value, ROOT), value
        if words[:1] == ["ms2"] and len(words) > 1:
            assert words[1] in COMMANDS or words[1] in ("--help", "--version"), words
        if words[:1] == ["make"] and len(words) > 1:
            assert re.search(rf"^{words[1]}:", makefile, re.M), words
        for word in words:
            if re.fullmatch(r"(\.\./)*(src|tests|experiments|examples|benchmarks|configs)/[\w/.]+", word):
                assert (ROOT / word.replace("../", "")).exists(), word


# --- settings and names ---


def keys(settings: Any) -> Iterator[str]:
    """Dotted names of settings, without class_path and init_args."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            found = list(keys(value))
            if key in ("init_args", "class_path"):
                yield from found
            else:
                yield from (key, *(f"{key}.{name}" for name in found))


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """All settings of some configurations, with their defaults."""
    found: set[str] = set()
    reward = ["--model.reward", "TaskReward"]
    several = ["aerial2d_parameters"], ["kitti_pretrained"], ["kitti_quick"], ["multimnist_parameters", *reward]
    for name, *more in several:
        with mock.patch("builtins.print"), pytest.raises(SystemExit), mock.patch("sys.stdout") as out:
            main(["fit", "--config", name, *more, "--print_config"])
        text = "".join(str(call.args[0]) for call in out.write.call_args_list)
        found |= set(keys(yaml.safe_load(text)))
    return found


@every_current_page
def test_settings_in_the_text_exist(page: Path, settings: set[str]) -> None:
    sections = "world|model|data|evaluation|extractor|pretraining|autoencoding|trainer"
    for span in spans(page):
        for name in re.findall(rf"(?<![\w./-])(?:--)?((?:{sections})\.[\w.]+)", span):
            assert name in settings or name.endswith((".py", ".yaml")), name


@every_page
def test_yaml_blocks_are_settings(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, block in enumerate(blocks(page, "yaml")):
        found = load_yaml(block)
        file = tmp_path / f"{i}.yaml"
        file.write_text(yaml.safe_dump({"base": "multimnist_quick"} | found))
        parse(["ms2", "fit", "--config", str(file)], capsys)


@cache
def names_in_code() -> set[str]:
    """Names that the package defines or uses, and words of strings without spaces; not those of its comments."""
    found: set[str] = set()
    for file in (ROOT / "src" / "ms2").rglob("*.py"):
        found |= {*file.relative_to(ROOT).with_suffix("").parts}
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.Name(id=name):
                    found.add(name)
                case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.Attribute(attr=name):
                    found.add(name)
                case ast.alias(name=name):
                    found |= {*name.split(".")}
                case ast.Constant(value=str(text)) if not re.search(r"\s", text):
                    found |= {*re.findall(r"\w+", text)}
    return found


def test_words_of_comments_are_no_names() -> None:
    assert {"MetaSim2", "structure_prior", "conditional"} <= names_in_code()
    assert "Bińkowski" not in names_in_code(), "the author of a paper"


@every_current_page
def test_classes_in_the_text_exist(page: Path) -> None:
    for span in spans(page):
        for name in re.findall(r"(?<![\w/])[A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+(?![\w/])", span):
            assert name in names_in_code(), name


def test_new_names_in_the_changelogs_tables_exist() -> None:
    known = {*names_in_code(), *configurations.experiments(), "png", "csv"}
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 30
    for row in rows:
        for span in re.findall(r"`([^`]+)`", row):
            unknown = [name for name in re.findall(r"[A-Za-z_]\w*", span) if name not in known]
            assert not unknown, span


# --- Python ---


TINY: dict[str, Any] = {
    "max_steps": 2,
    "batch_size": 8,
    "stages": {
        "extractor": {"max_steps": 2, "batch_size": 4, "num_probe_images": 20},
        "pretraining": {"max_steps": 2, "batch_size": 16, "num_validation": 50},
    },
    "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
}
SIZES = {
    "max_steps=4000": "max_steps=2, num_probe_images=20",
    "max_steps=400": "max_steps=2, num_validation=50",
    "max_steps=200": "max_steps=2",
    "batch_size=16": "batch_size=4",
    "batch_size=256": "batch_size=8",
    "num_scenes=10000": "num_scenes=50",
}
"""Sizes in the README's Python, and those that a test has time for."""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("number", range(len(blocks(ROOT / "README.md", "python"))))
def test_the_readmes_python_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but for the number of steps and images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for i in range(8):
        Image.new("L", (100, 90), 30 * i).save(tmp_path / "photographs" / f"{i}.png")
    code = blocks(ROOT / "README.md", "python")[number]
    for size, tiny in SIZES.items():
        code = code.replace(size, tiny)
    monkeypatch.setattr(ms2, "fit", partial(ms2.fit, evaluation=ms2.Evaluation(num_scenes=50), **TINY))
    generate = ms2.generate
    monkeypatch.setattr(ms2, "generate", lambda source, output, num_scenes, **more: generate(source, output, 2, **more))
    monkeypatch.setattr(ms2, "Synthetic", partial(ms2.Synthetic, num_images=20))
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    if number == 0:
        assert names["result"].figure.width > 100 and len(names["result"].images(3)) == 3
