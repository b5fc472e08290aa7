"""Rows, draws and conditions of `SceneModel`: each row against the priors and models called one by one."""

import pytest
import torch
from helpers import rng

from ms2.models.conditional.condition import Condition, ConditionError, satisfies
from ms2.models.conditional.sampling import ConditionalStructure, sample_prior_conditional
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import (
    LEARNED,
    LEARNED_PARAMETERS,
    LEARNED_STRUCTURE,
    PRIOR,
    ROWS,
    Row,
    SceneModel,
)
from ms2.models.structure import StructureModel
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

EVERY_ROW = pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))


def world() -> World:
    return World(MultiMNIST(), UniformDigits(4), UniformPlacement(), DigitCanvas(24, digit_size=8))


def both() -> SceneModel:
    """A scene model in which structure and parameters are learned."""
    torch.manual_seed(1)
    it = world()
    return SceneModel(it, StructureModel(it.grammar, 40), ParameterModel(it, hidden=8, num_layers=1).eval())


def same(a: SceneBatch, b: SceneBatch) -> bool:
    return (
        a.classes.equal(b.classes)
        and a.parents.equal(b.parents)
        and a.attributes.keys() == b.attributes.keys()
        and all(a.attributes[name].equal(b.attributes[name]) for name in a.attributes)
    )


# -- rows ------------------------------------------------------------------------------------------------------


def test_rows_are_named_once():
    assert {name: (row.structure, row.parameters) for name, row in ROWS.items()} == {
        "prior": (False, False),
        "learned_structure": (True, False),
        "learned_parameters": (False, True),
        "learned": (True, True),
    }
    assert [*ROWS.values()] == [PRIOR, LEARNED_STRUCTURE, LEARNED_PARAMETERS, LEARNED]


def test_rows_that_differ_from_each_other():
    model = both()
    structure, parameters = model.structure, model.parameters
    assert list(model.rows) == list(ROWS) and model.rows == ROWS
    ends = {"prior": PRIOR, "learned": LEARNED}
    assert SceneModel(model.world, structure).rows == ends
    assert SceneModel(model.world, None, parameters).rows == ends
    assert SceneModel(model.world).rows == {"prior": PRIOR}
    # a structure model that samples the prior, as pretraining left it, makes no row
    pretrained = SceneModel(model.world, structure, parameters, trained=Row(False, True))
    assert pretrained.rows == ends and pretrained.learned == LEARNED


def test_what_is_learned():
    model = both()
    assert model.learned == LEARNED
    assert SceneModel(model.world, model.structure).learned == LEARNED_STRUCTURE
    assert SceneModel(model.world, None, model.parameters).learned == LEARNED_PARAMETERS
    assert SceneModel(model.world).learned == PRIOR


# -- draws -----------------------------------------------------------------------------------------------------


@EVERY_ROW
def test_draws_are_those_of_priors_and_models_in_order(row: Row):
    model = both()
    assert model.structure is not None and model.parameters is not None
    draw = rng(3)
    if row.structure:
        rules = model.structure.sample(7, draw).rules
    else:
        rules = model.world.structure_prior.sample(model.world.grammar, 7, draw)
    scenes = model.world.parameter_prior.sample(scenes_from_derivations(model.world.grammar, rules), draw)
    if row.parameters:
        with torch.no_grad():
            scenes = model.parameters.sample(scenes, draw)
    image = model.world.renderer.render(scenes)

    assert model.derivations(7, rng(3), row).rules.equal(rules)
    assert same(model.sample(7, rng(3), row), scenes)
    assert model.images(7, rng(3), row).equal(image)
    labelled = model.labelled(7, rng(3), row)
    assert labelled.image.equal(image) and labelled.classes.equal(scenes.classes)
    assert not any(value.requires_grad for value in model.sample(7, rng(3), row).attributes.values())


def test_rows_with_the_same_structure_share_derivations():
    model = both()
    drawn = {name: model.derivations(20, rng(), row).rules for name, row in ROWS.items()}
    assert drawn["learned"].equal(drawn["learned_structure"])
    assert drawn["prior"].equal(drawn["learned_parameters"])
    assert not same(model.sample(20, rng(), LEARNED), model.sample(20, rng(), LEARNED_STRUCTURE))


@EVERY_ROW
def test_what_is_not_learned_comes_from_the_prior(row: Row):
    full = both()
    prior = SceneModel(full.world)
    assert same(prior.sample(9, rng(), row), full.sample(9, rng(), PRIOR))
    assert not prior.derivations(9, rng(), row).rejections.any()
    structure = SceneModel(full.world, full.structure)
    assert same(structure.sample(9, rng(), row), full.sample(9, rng(), Row(row.structure, False)))


def test_parameters_of_given_derivations():
    model = both()
    rules = model.derivations(5, rng(1)).rules
    assert same(model.scenes(rules, rng(2), LEARNED_STRUCTURE), model.world.scenes(rules, rng(2)))
    assert model.scenes(rules, rng(2)).classes.equal(model.world.scenes(rules, rng(2)).classes)


# -- conditions ------------------------------------------------------------------------------------------------


@EVERY_ROW
def test_conditions_hold_in_every_row(row: Row):
    model = both()
    grammar = model.world.grammar
    asked = [Condition.parse(text, grammar) for text in ("0 + 1 == 2", "2 <= 1")]
    drawn = model.derivations(30, rng(), row, asked)
    assert bool(satisfies(grammar, drawn.rules, asked).all())
    draw = model.sampler(row, asked)
    assert draw(30, rng()).rules.equal(drawn.rules)
    if row.structure:
        assert model.structure is not None
        expected = ConditionalStructure(model.structure, asked).sample(30, rng())
    else:
        expected = sample_prior_conditional(model.world.structure_prior, grammar, asked, 30, rng())
    assert expected.rules.equal(drawn.rules) and expected.rejections.equal(drawn.rejections)


def test_a_condition_that_no_scene_meets_is_refused_before_drawing():
    model = both()
    asked = [Condition.parse("0 == 30", model.world.grammar)]
    with pytest.raises(ConditionError, match="can't be met"):
        model.sampler(LEARNED, asked)


# -- devices ---------------------------------------------------------------------------------------------------


def test_moving_to_a_device_moves_the_learned_models():
    model = both()
    assert model.to("meta") is model
    assert model.structure is not None and model.parameters is not None
    assert {weight.device.type for part in (model.structure, model.parameters) for weight in part.parameters()} == {
        "meta"
    }
    assert SceneModel(model.world).to("cpu").learned == PRIOR
