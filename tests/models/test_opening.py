"""Opening scene models: by a world's name, a run's folder or a configuration; which models are used; fingerprints."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers import rng

from ms2.core.errors import UserError
from ms2.models.checkpoints import PARAMETERS, STRUCTURE, grammar_metadata
from ms2.models.networks import LSTM
from ms2.models.opening import OpenedModel, build_model, open_model
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import LEARNED, LEARNED_PARAMETERS, LEARNED_STRUCTURE, PRIOR, Row
from ms2.models.structure import StructureModel

SMALL = ["--world.renderer.canvas_size", "24", "--world.renderer.digit_size", "8"]
NETWORK = {"class_path": "LSTM", "init_args": {"hidden": 8}}


@pytest.fixture(scope="module")
def world() -> OpenedModel:
    return open_model("multimnist", arguments=SMALL)


@pytest.fixture
def run(tmp_path: Path, world: OpenedModel) -> Path:
    """The folder of a run with a structure model and a parameter model of random weights."""
    it = world.model.world
    models = {STRUCTURE: StructureModel(it.grammar, 40, LSTM(8)), PARAMETERS: ParameterModel(it, hidden=8)}
    weights = {f"{prefix}{k}": v for prefix, model in models.items() for k, v in model.state_dict().items()}
    folder = tmp_path / "mine"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": weights, "grammar": grammar_metadata(it.grammar)}, folder / "checkpoints" / "last.ckpt")
    settings = {
        "structure": {"t_max": 40, "network": NETWORK},
        "parameters": {"class_path": "ParameterModel", "init_args": {"hidden": 8}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"world": world.settings["world"], "model": settings}))
    return folder


def test_a_world_by_its_name_is_the_prior(world: OpenedModel):
    assert world.model.learned == PRIOR and world.name == "multimnist" and world.weights is None
    assert world.model.world.renderer.size == (24, 24)
    assert world.weight_hashes == (None, None)


@pytest.mark.parametrize("row", [PRIOR, LEARNED_STRUCTURE, LEARNED_PARAMETERS, LEARNED], ids=str)
def test_models_of_a_run_that_are_used(run: Path, row: Row):
    words = ("prior", "learned")
    opened = open_model(str(run), words[row.structure], parameters=words[row.parameters])
    assert opened.model.learned == row and opened.name == "mine"
    assert [value is not None for value in opened.weight_hashes] == list(row)
    again = opened.rebuild()
    assert again.fingerprints() == opened.fingerprints()
    assert again.model.images(3, rng()).equal(opened.model.images(3, rng()))


def test_a_run_without_a_checkpoint_is_no_prior_unless_asked_for(run: Path):
    (run / "checkpoints" / "last.ckpt").unlink()
    for words in ({}, {"parameters": "prior"}, {"parameters": "learned"}):
        with pytest.raises(
            UserError, match=r"mine has no checkpoint yet.*or draw from the prior with --structure prior"
        ):
            open_model(str(run), **words)
    assert open_model(str(run), "prior").model.learned == PRIOR
    assert open_model(str(run / "config.yaml")).model.learned == PRIOR


def test_fingerprints_differ_where_images_do(run: Path, world: OpenedModel):
    found = {}
    for structure in ("prior", "learned"):
        for parameters in ("prior", "learned"):
            found[structure, parameters] = open_model(str(run), structure, parameters=parameters).fingerprints()
    assert found["prior", "prior"] == world.fingerprints()
    assert len({tuple(one.values()) for one in found.values()}) == 4
    assert len({one["renderer"] for one in found.values()}) == len({one["grammar"] for one in found.values()}) == 1
    larger = open_model(str(run), arguments=["--world.renderer.canvas_size", "30"])
    assert larger.fingerprints()["renderer"] != found["learned", "learned"]["renderer"]
    assert larger.fingerprints()["checkpoint"] == found["learned", "learned"]["checkpoint"]


def test_settings_are_complete(world: OpenedModel):
    """They build the scene model without the configuration."""
    built = build_model(world.settings, None, "copy")
    assert built.settings == world.settings and built.fingerprints() == world.fingerprints()


def test_what_cannot_be_opened_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="has no trained structure model"):
        open_model("multimnist", "learned")
    with pytest.raises(UserError, match="has no trained parameter model"):
        open_model("multimnist", parameters="learned")
    with pytest.raises(UserError, match="Did you mean 'multimnist'"):
        open_model("multimnst")
    with pytest.raises(UserError, match="is not the folder of a run"):
        open_model(str(tmp_path))
    with pytest.raises(UserError, match="holds a StructureModel of another shape"):
        open_model(str(run), arguments=["--structure.network", "GRU"])
