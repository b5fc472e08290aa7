"""Small runs with fixed seeds give the recorded numbers.

After an intended change, record a section again with ``python tests/regression/record.py SECTION``.
"""

import json
import platform
from pathlib import Path

import pytest
from helpers import EXPECTED
from recording import Section, Tolerance, differences, make_section
from sections import SECTIONS

RECORDED = Path(__file__).parent / "recorded"
MAX_SHOWN = 20
pytestmark = EXPECTED


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="PyTorch's random numbers differ on other architectures"
)
@pytest.mark.parametrize("name", SECTIONS)
def test_fixed_seeds_give_the_recorded_numbers(name: str) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    found = list(differences(make_section(SECTIONS[name]), recorded, SECTIONS[name]))
    more = [f"... and {len(found) - MAX_SHOWN} more"] if len(found) > MAX_SHOWN else []
    assert not found, "\n".join([f"{name} differs from what was recorded:", *found[:MAX_SHOWN], *more])


def test_every_recorded_file_belongs_to_a_section() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(SECTIONS)


def test_differences_are_described_with_their_path() -> None:
    section = Section(lambda _: None, Tolerance(0.0, 0.1), {"loose": Tolerance(0.0, 2.0)})
    recorded = {"a": [1, 2.0, "x"], "loose": {"b": 1.0}, "gone": 0}
    assert not list(differences({"a": [1, 2.05, "x"], "loose": {"b": 2.5}, "gone": 0}, recorded, section))
    found = list(differences({"a": [2, 2.5, "y"], "loose": {"b": 4.0}, "new": 0}, recorded, section))
    assert [line.split(":")[0] for line in found] == ["(the whole)", "(the whole)", "a/0", "a/1", "a/2", "loose/b"]
