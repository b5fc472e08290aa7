"""The card of a run: each number that it shows is that of the results, and it says what was not learned or read."""

import math
import re
from dataclasses import replace

import pytest
from helpers import abacus, structure

from ms2.evaluation.run_card import run_card
from ms2.metrics.results import (
    Estimate,
    ImageResult,
    ProbeResult,
    ReadingResult,
    Results,
    RunProvenance,
    StageRecord,
    StatisticResult,
)
from ms2.models.scene_model import SceneModel

COUNT = StatisticResult(
    "objects per scene",
    {
        "tv": {
            "prior": Estimate(0.58, 0.53, 0.63), "learned": Estimate(0.12, 0.09, 0.15), "noise_floor": Estimate(0.05),
        },
        "kl": {"learned": Estimate(0.4), "prior": Estimate(math.inf)},
    },
)  # fmt: skip
RESULTS = Results(
    RunProvenance(2000, 7, "Synthetic", 600, fingerprint="abc", command="ms2 fit --config x.yaml"),
    {"count": COUNT},
    stages={"extractor": StageRecord(60.0, True, probes={"prior": ProbeResult({"count_accuracy": 0.8})})},
    seconds={"total": 181.0},
)


def card(results: Results = RESULTS) -> str:
    return run_card("first", results, SceneModel(abacus(), structure()))


def row(text: str, title: str) -> list[str]:
    """Cells of a table's row."""
    (line,) = re.findall(rf"^\| {re.escape(title)} \|(.*)\|$", text, re.M)
    return [cell.strip() for cell in line.split("|")]


def test_distances_stand_beside_their_intervals() -> None:
    expected = ["0.580 (0.530 to 0.630)", "0.120 (0.0900 to 0.150)", "0.0500"]
    assert row(card(), "objects per scene, total variation") == expected
    assert row(card(), "distance to the target") == ["prior", "learned", "noise floor"]


def test_distances_of_images() -> None:
    images = ImageResult("Some network", 500, 1000, {"kid": {"learned": Estimate(0.0133), "prior": Estimate(0.25)}})
    text = card(replace(RESULTS, images=images))
    assert row(text, "KID") == ["0.250", "0.0133", ""] and "by Some network" in text


def test_what_it_was_made_with() -> None:
    text = card()
    assert row(text, "command") == ["`ms2 fit --config x.yaml`"] and row(text, "seed") == ["7"]
    assert row(text, "duration") == ["3 min 01 s"] and row(text, "stages before") == [
        "extractor 1 min 00 s (from the cache)"
    ]
    assert "ms2 generate runs/first " in text and 'ms2.load("runs/first")' in text and abacus().renderer.licence in text


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (RESULTS, "Parameters: the hand-made prior's"),
        (RESULTS, "counts the objects of 80 % of rendered images rightly (prior)"),
        (
            replace(RESULTS, not_read=["cyclists"]),
            "Not read in images, so that the prior's numbers are kept: cyclists.",
        ),
        (replace(RESULTS, structure={}), "Nothing was measured"),
        (
            replace(RESULTS, structure={}, readings=ReadingResult(100, None, {"learned": 3.25, "target": 3.5}, {})),
            "Objects per image as the extractor reads them, estimates: learned 3.250, target 3.500.",
        ),
    ],
    ids=["prior", "misread", "not read", "nothing known", "readings"],
)
def test_limits_are_stated(results: Results, said: str) -> None:
    assert said in card(results)


def test_what_is_known_is_not_called_unknown() -> None:
    text = card()
    assert "unknown" not in text and "Not read" not in text and "Structure: the hand-made" not in text
