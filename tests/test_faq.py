"""What docs/faq.md says that commands print is what they print."""

import re
import shlex
from pathlib import Path

import pytest

from ms2.cli.commands import main

PAGE = Path(__file__).parents[1] / "docs" / "faq.md"
EXAMPLES = re.findall(r"^```console\n\$ (.*)\n((?:.*\n)+?)```$", PAGE.read_text(encoding="utf-8"), re.M)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("line", "answer"), EXAMPLES, ids=[line for line, _ in EXAMPLES])
def test_a_command_answers_as_the_page_says(
    line: str, answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three dots stand for anything; the message comes last, though a line about the help may follow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MS2_DATA", raising=False)
    Path("endless.txt").write_text("Scene -> Things\nThings -> tree Things\n", encoding="utf-8")
    words = shlex.split(line)
    assert words[0] == "ms2"
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    lint = words[1] == "lint"
    assert end.value.code == (1 if lint else 2)
    pattern = ".*".join(map(re.escape, answer.strip().split("...")))
    said = printed.out if lint else printed.err[printed.err.rindex("ms2: ") :]
    assert re.fullmatch(rf"{pattern}(\nAll options: .*)?", said.strip()), said
