"""Lists that grow without bound are warned of before no scene ends within t_max."""

import re
from pathlib import Path

import pytest
from helpers import EXPECTED, abacus, images, learner, rng, structure, trainer
from torch import Tensor

from ms2.grammar.derivations import lengths
from ms2.learning.list_growth import ListGrowthWarning, Lists, growth
from ms2.learning.structure_learner import StructureLearner
from ms2.models.structure import SamplingError, StructureModel
from ms2.objectives.base import KernelObjective

pytestmark = EXPECTED


class Longer(KernelObjective, selectable=False):
    """Rewards every digit."""

    def block_score(
        self, generated: Tensor, real: Tensor, own: Tensor, samples: tuple[Tensor, Tensor, float]
    ) -> Tensor:
        return -samples[0][own, 0]


def fit(folder: Path, max_steps: int, t_max: int, max_length: dict[str, int] | None = None) -> StructureModel:
    model = learner(abacus(), Longer(1.0, ["count"]), lr=0.02, lr_decay=False)
    model.structure = model.scene_model.structure = structure(t_max, max_length=max_length, max_tries=40)
    trainer(folder, max_steps, log_every_n_steps=5).fit(model, images(model.world, batch_size=32))
    return model.structure


def test_a_list_that_grows_is_named_before_no_scene_ends(tmp_path: Path) -> None:
    said = (
        r"lists grow towards t_max = 40 steps: \d+% of the draws .* \(0% in the first step\)\. Digits grows most: it "
        r"has \d+ items .* probability 0\.\d+ .*model\.structure\.max_length.*lr, now 0\.02,.*reject_weight, now 0\.01$"
    )
    with pytest.warns(UserWarning, match="lists grow") as found, pytest.raises(SamplingError):
        fit(tmp_path, 100, 40)
    [warning] = [str(one.message) for one in found if "lists grow" in str(one.message)]
    assert re.fullmatch(said, warning)


def test_lists_whose_bounds_fit_in_t_max_may_grow(tmp_path: Path) -> None:
    model = fit(tmp_path, 25, 40, {"Digits": 5})
    assert float(lengths(model.grammar, model.sample(50, rng()).rules).float().mean()) > 11


@pytest.mark.parametrize(
    ("draws", "rejected", "filled", "end", "warns"),
    [
        (1000, 0.09, 0.9, 0.2, False),
        (1000, 0.15, 0.4, 0.2, True),
        (20, 0.15, 0.4, 0.2, False),
        (1000, 0.0, 0.6, 0.09, True),
        (1000, 0.0, 0.4, 0.09, False),
        (1000, 0.0, 0.9, 0.11, False),
    ],
)
def test_it_warns_of_rejections_and_of_lists_that_hardly_end(
    draws: int, rejected: float, filled: float, end: float, warns: bool
) -> None:
    how = learner(abacus()).structure_learner
    assert isinstance(how, StructureLearner)
    first, now = Lists(1000, 0.02, 0.3, {"Digits": 0.5}), Lists(draws, rejected, filled, {"Digits": end})
    assert (growth(structure(), how, first, now) is not None) == warns
    assert (
        growth(structure(), how, first._replace(rejected=0.08), now._replace(end=first.end)) is None
    )  # rejected as before


def test_a_resumed_run_compares_with_the_first_step() -> None:
    one, other = ListGrowthWarning(), ListGrowthWarning()
    one.first = Lists(100, 0.0, 0.3, {"Digits": 0.5})
    other.load_state_dict(one.state_dict())
    assert (other.first, other.warned) == (one.first, False)
