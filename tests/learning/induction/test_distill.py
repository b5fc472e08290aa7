"""Tables written from derivations of a known distribution: as few as needed, and the loss that they have."""

from pathlib import Path

import pytest
import torch

from ms2.core.files import read_json
from ms2.core.yaml_files import load_yaml
from ms2.grammar.grammar import Grammar
from ms2.learning.induction.distill import Distilled, distill
from ms2.learning.induction.object_table import InductionError
from ms2.priors.structure import ListLengthPrior, MixturePrior, StructurePrior
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits


def distilled(grammar: Grammar, model: StructurePrior, loss: float, n: int = 8000) -> Distilled:
    rules = model.sample(grammar, n, torch.Generator().manual_seed(0))
    log_q = model.log_prob(grammar, rules)
    assert log_q is not None
    return distill(grammar, rules, log_q, loss)


def test_a_probabilistic_grammar_needs_no_table() -> None:
    found = distilled(Aerial2D(), ListLengthPrior(weights={"Roads": [2, 1], "Cars": [3, 1]}), 0.01)
    assert found.steps == () and found.prior.lengths == {}
    assert found.prior.weights["Cars"] == pytest.approx([0.75, 0.25], abs=0.02)
    assert abs(found.loss) < 0.01


def test_tables_come_where_they_are_needed() -> None:
    found = distilled(Aerial2D(), BusyFirstRoad(), 0.005)
    assert set(found.prior.lengths) == {"Roads", "Cars"} and found.prior.weights == {}
    assert len(found.prior.lengths["Cars"]) == 2
    assert [step.loss for step in found.steps] == sorted((step.loss for step in found.steps), reverse=True)
    assert found.first_loss > found.steps[0].loss and abs(found.loss) < 0.005


def test_a_larger_loss_leaves_tables_out() -> None:
    sizes = [len(distilled(Aerial2D(), BusyFirstRoad(), loss).steps) for loss in (10.0, 0.1, 0.005)]
    assert sizes[0] == 0 < sizes[1] < sizes[2]


def test_choices_are_written_too() -> None:
    prior = RandomDigits(3)
    found = distilled(MultiMNIST(), prior, 0.01)
    weights = torch.tensor(prior.weights["Digit"])
    assert found.prior.weights["Digit"] == pytest.approx((weights / weights.sum()).tolist(), abs=0.02)


def test_what_tables_cannot_tell_is_said() -> None:
    grammar = Grammar("Scene -> As Bs\nAs -> a As | ε\nBs -> b Bs | ε")
    model = MixturePrior([ListLengthPrior({"As": n, "Bs": n}) for n in ([1], [0, 0, 0, 1])])
    found = distilled(grammar, model, 0.01)
    # both lists have 0 or 3 objects, together or not at all: log 2 per scene of 3 objects on average is lost
    assert found.loss == pytest.approx(torch.tensor(2.0).log().item() / 3, abs=0.01)
    assert "The loss stays above 0.01" in "\n".join(found.lines())


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    found = distilled(Aerial2D(), BusyFirstRoad(), 0.005)
    found.write(tmp_path)
    text = (tmp_path / "structure.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20
    world = load_yaml(text)["world"]
    grammar = Grammar(**world["grammar"]["init_args"])
    assert grammar.fingerprint == Aerial2D().fingerprint
    prior = ListLengthPrior(**world["structure_prior"]["init_args"])
    rules = prior.sample(grammar, 100, torch.Generator().manual_seed(0))
    assert torch.equal(prior.log_prob(grammar, rules), found.prior.log_prob(grammar, rules))
    counts = read_json(tmp_path / "counts.json")
    (cars,) = (one for one in counts["lists"] if one["list"] == "Cars")
    assert cars["items"] == ["car"] and cars["parents"] == ["Road"]
    assert [one["parent_number"] for one in cars["numbers"]] == ["1", "2 and later"]
    assert [one["mean"] for one in cars["numbers"]] == pytest.approx([9, 3], abs=0.15)


def test_too_few_scenes_and_empty_scenes_are_refused() -> None:
    with pytest.raises(InductionError, match="3 scenes are too few"):
        distilled(Aerial2D(), BusyFirstRoad(), 0.1, n=3)
    with pytest.raises(InductionError, match="no scene of the model has an object"):
        distilled(Aerial2D(), ListLengthPrior({"Roads": [1]}), 0.1, n=10)
