"""Weights of the structure model are loaded where they belong, and refused in words everywhere else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ms2.core.errors import UserError
from ms2.grammar.grammar import Grammar
from ms2.models.checkpoints import CheckpointError, check_grammar, grammar_metadata, load_structure
from ms2.models.networks.recurrent import GRU, LSTM
from ms2.models.structure import StructureModel
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.multimnist.grammar import MultiMNIST


def model(grammar: Grammar | None = None, seed: int = 0, **settings: Any) -> StructureModel:
    torch.manual_seed(seed)
    return StructureModel(grammar or MultiMNIST(), **({"t_max": 12, "network": LSTM(8)} | settings))


def save(path: Path, structure: StructureModel, **more: Any) -> Path:
    """A checkpoint of a run, with weights of other parts as well."""
    weights = {f"structure.{name}": value for name, value in structure.state_dict().items()}
    others = {"features.weight": torch.ones(3), "restructure.weight": torch.ones(2)}
    torch.save(
        {"state_dict": weights | others, "grammar": grammar_metadata(structure.grammar), "epoch": 3} | more, path
    )
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.ckpt"


# --- what fits ---


def test_the_weights_are_loaded(path: Path) -> None:
    theirs, ours = model(seed=0), model(seed=1)
    assert not torch.equal(ours.head.weight, theirs.head.weight)
    load_structure(save(path, theirs), ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_the_hash_is_the_weights(path: Path, tmp_path: Path) -> None:
    """Whatever the file is called and holds besides; a single other bit is another hash."""
    first = load_structure(save(path, model()), model(seed=5))
    assert len(first) == 16 and int(first, 16) >= 0
    assert load_structure(save(tmp_path / "other.ckpt", model(), epoch=4), model(seed=6)) == first
    nearly = model()
    with torch.no_grad():
        nearly.head.bias[0] = torch.nextafter(nearly.head.bias[0], torch.tensor(9.0))
    assert load_structure(save(path, nearly), model()) != first


def test_weights_of_half_precision_are_loaded(path: Path) -> None:
    """As a run with ``--trainer.precision bf16-true`` leaves them."""
    theirs, ours = model().to(torch.bfloat16), model(seed=1)
    found = load_structure(save(path, theirs), ours)
    assert ours.head.weight.dtype == torch.float32
    assert torch.equal(ours.head.weight, theirs.head.weight.float())
    assert found == load_structure(save(path, model().to(torch.bfloat16)), model(seed=2))


def test_the_grammar_is_noted_in_words() -> None:
    noted = grammar_metadata(MultiMNIST())
    assert noted["text"] == str(MultiMNIST()) and "Digits -> Digit Digits" in noted["text"]
    check_grammar({"grammar": noted}, MultiMNIST())


# --- what doesn't ---


def test_another_grammar_is_refused_and_both_are_shown(path: Path) -> None:
    ours = model()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_structure(save(path, model(Aerial2D())), ours)
    theirs, mine = str(caught.value).split("This world's rules:")
    assert "trained with another grammar" in theirs and "Cars -> car Cars" in theirs
    assert "Digits -> Digit Digits" in mine and "Give the world it was trained with" in mine
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "settings", [{"network": LSTM(16)}, {"t_max": 14}, {"network": GRU(8)}, {"num_latents": 2}, {"context": False}]
)
def test_another_shape_is_refused(path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"last.ckpt holds a StructureModel of another shape: .*(?s:.)*config.yaml"
    ):
        load_structure(save(path, model(**settings)), model())


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no checkpoint .*last.ckpt: run 'ms2 fit' first, or give another"
    ):
        load_structure(path, model())
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_structure(path.parent, model())


def half(path: Path) -> None:
    content = save(path, model()).read_bytes()
    path.write_bytes(content[: len(content) // 2])


class Trap:
    """What a pickle must never make."""

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.rmtree, ("/nonexistent",)


BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": Path.touch,
    "text": lambda path: path.write_text("no checkpoint"),
    "half": half,
    "a list": lambda path: torch.save([1, 2], path),
    "bare weights": lambda path: torch.save(model().state_dict(), path),
    "weights that are none": lambda path: torch.save({"state_dict": None}, path),
    "weights with numbers for names": lambda path: torch.save({"state_dict": {1: torch.ones(1)}}, path),
    "code": lambda path: torch.save({"state_dict": Trap()}, path),
}


@pytest.mark.parametrize("write", BROKEN.values(), ids=BROKEN)
def test_what_is_no_checkpoint_is_refused(path: Path, write: Callable[[Path], Any]) -> None:
    write(path)
    with pytest.raises(CheckpointError, match=r"last.ckpt can't be read as a checkpoint of 'ms2 fit'"):
        load_structure(path, model())


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "no grammar": ({"grammar": None}, "trained with another grammar. Its rules:\nunknown"),
    "a grammar that is a word": ({"grammar": "MultiMNIST"}, "trained with another grammar. Its rules:\nunknown"),
    "no structure model": ({"state_dict": {"weight": torch.ones(1)}}, "another shape"),
    "weights that are numbers": ({"state_dict": {"structure.head.weight": 3}}, "another shape"),
}


@pytest.mark.parametrize(("changes", "expected"), OTHERS.values(), ids=OTHERS)
def test_another_program_s_checkpoint_is_refused(path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        load_structure(save(path, model(), **changes), model())


def test_the_errors_are_for_the_person_who_typed() -> None:
    assert issubclass(CheckpointError, UserError)
