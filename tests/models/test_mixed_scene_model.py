"""Mixtures of scene models: exact shares in random order, each scene as by its own model, errors for other worlds."""

from fractions import Fraction
from itertools import product
from math import ceil, floor

import pytest
import torch
from helpers import abacus, rng, structure

from ms2.core.errors import UserError
from ms2.grammar.grammar import Grammar
from ms2.models.mixed_scene_model import MixedSceneModel, draw_scenes, join_scenes
from ms2.models.scene_model import LEARNED, PRIOR, SceneModel
from ms2.models.shares import components_of, whole_weights
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

NAMES = ("a", "b", "c")

# -- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ("even", (1, 1, 1)),
        (["even"], (1, 1, 1)),
        ([2, 1, 1], (2, 1, 1)),
        (["4", "2", "2"], (2, 1, 1)),
        ([0.5, 0.3, 0.2], (5, 3, 2)),
        (["50", "30", "20"], (5, 3, 2)),
        (["0.333", "0.333", "0.334"], (333, 333, 334)),
        ([1 / 3, 1 / 3, 1 / 3], (1, 1, 1)),
        ([1234, 2345, 3456], (1234, 2345, 3456)),
        ([1e9, 1e9, 2e9], (1, 1, 2)),
    ],
)
def test_weights_are_whole_numbers_of_the_same_ratio(mix, expected):
    assert whole_weights(mix, NAMES) == expected == whole_weights(expected, NAMES)


def test_weights_of_no_small_ratio_are_rounded():
    given = [2**0.5, 3**0.5, 5**0.5]
    found = whole_weights(given, NAMES)
    assert [w / sum(found) for w in found] == pytest.approx([w / sum(given) for w in given], abs=2e-4)
    assert whole_weights(found, NAMES) == found


@pytest.mark.parametrize(
    ("mix", "complaint"),
    [
        ("evn", "'evn', which is no weight: give 'even', or a positive number for each run"),
        (["even", "1"], "'even', which is no weight"),
        ([1, 2], "gives 2 weights for 3 runs (a, b, c): give 'even', or one weight for each run"),
        ([1, 0, 1], "0, which is no weight"),
        ([1, -1, 1], "-1, which is no weight"),
        (["1", "nan", "inf"], "'nan', which is no weight"),
        ([1, 1e-9, 1], "gives b less than one of 10000 scenes: leave it out"),
    ],
)
def test_what_is_no_weight_is_named(mix, complaint):
    with pytest.raises(UserError) as error:
        whole_weights(mix, NAMES)
    assert complaint in str(error.value)


@pytest.mark.parametrize("weights", [*product((1, 2, 3, 5), repeat=3), (7, 3), (1,), (1, 1, 1, 1, 9), (40, 1, 2)])
def test_every_beginning_has_its_shares(weights):
    total, counts = sum(weights), [0] * len(weights)
    for n, component in enumerate(components_of(weights, 0, range(2 * total + 1)), 1):
        counts[component] += 1
        for count, weight in zip(counts, weights, strict=True):
            assert floor(Fraction(n * weight, total)) <= count <= ceil(Fraction(n * weight, total))


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 3, 2), (333, 333, 334)])
def test_the_order_depends_on_seed_and_number_alone(weights):
    order = components_of(weights, 3, range(200))
    assert [components_of(weights, 3, range(n, n + 1))[0] for n in range(200)] == order
    assert components_of(weights, 3, range(64, 96)) == order[64:96]
    others = [components_of(weights, seed, range(200)) for seed in range(4, 24)]
    assert len({tuple(some) for some in (order, *others)}) == 21
    assert {some[0] for some in others} == {0, 1, 2}, "no component comes first in all"


def test_remainders_are_spread_by_the_seed():
    lasts = [components_of((1, 1, 1), seed, range(4))[3] for seed in range(600)]
    assert all(lasts.count(k) == pytest.approx(200, abs=50) for k in range(3))


# -- scenes ------------------------------------------------------------------------------------------------------


def mixed(mix: object = "even") -> MixedSceneModel:
    """One, two or three digits, of a prior, a learned structure, and another prior."""
    models = {
        "few": SceneModel(abacus(1)),
        "learned": SceneModel(abacus(), structure(max_length={"Digits": 2})),
        "more": SceneModel(World(MultiMNIST(), UniformDigits(9), UniformPlacement(), abacus().renderer)),
    }
    return MixedSceneModel(models, mix)


def test_each_scene_is_of_its_component():
    """As it would be without the others, and at its place."""
    model = mixed([1, 2, 3])
    chosen = model.components_of(5, range(30))
    samplers = [one.sampler() for one in model.components]
    rules, scenes = draw_scenes(model.components, samplers, chosen, rng(1))
    draw = rng(1)
    for index, component in enumerate(model.components):
        places = [i for i, one in enumerate(chosen) if one == index]
        assert len(places) == (5, 10, 15)[index]
        own = component.derivations(len(places), draw).rules
        expected = component.scenes(own, draw)
        assert rules[places][:, : own.shape[1]].equal(own) and (rules[places][:, own.shape[1] :] == 13).all()
        width = expected.classes.shape[1]
        assert scenes.classes[places][:, :width].equal(expected.classes)
        assert scenes.parents[places][:, :width].equal(expected.parents)
        assert all(scenes.attributes[k][places][:, :width].equal(v) for k, v in expected.attributes.items())
        assert not scenes.mask[places][:, width:].any()


def test_draws_have_exact_shares():
    model = mixed()
    model.components[0].world.structure_prior.lengths["Digits"] = [0.0, 0.0, 0.0, 1.0]
    model.components[2].world.structure_prior.lengths["Digits"] = [0.0] * 9 + [1.0]
    for seed in range(3):
        counts = model.sample(30, rng(seed)).mask.sum(1).tolist()
        assert (counts.count(3), counts.count(9)) == (10, 10) and counts != sorted(counts)
    assert model.images(3, rng()).equal(model.labelled(3, rng()).image)
    assert len(model.sample(2, rng(), PRIOR)) == 2 and len(model.sample(0, rng(), LEARNED)) == 0
    assert model.to("cpu") is model


def test_a_single_model_draws_as_it_does_by_itself():
    one = mixed().components[1]
    rules, scenes = draw_scenes((one,), [one.sampler()], one.components_of(0, range(9)), rng(2))
    draw = rng(2)
    expected = one.derivations(9, draw).rules
    assert rules.equal(expected) and scenes.attributes["x"].equal(one.scenes(expected, draw).attributes["x"])


# -- one world ---------------------------------------------------------------------------------------------------

CANVAS = {"canvas_size": 24, "digit_size": 8}


def digits(grammar: Grammar | None = None, scenery: tuple[str, ...] = (), **settings: object) -> SceneModel:
    placement = UniformPlacement()
    placement.scenery = scenery
    return SceneModel(World(grammar or MultiMNIST(), UniformDigits(2), placement, DigitCanvas(**CANVAS | settings)))


def test_other_priors_are_of_the_same_world():
    wide = World(MultiMNIST(), UniformDigits(7), UniformPlacement(), DigitCanvas(**CANVAS))
    assert MixedSceneModel({"a": digits(), "b": SceneModel(wide)}).world.structure_prior is not wide.structure_prior


FOREIGN = {
    "renderer": (digits(canvas_size=30), "renderer.canvas_size: 24 in a, 30 in b"),
    "classes": (digits(scenery=("fog",)), "classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 in a; 0, 1"),
    "rules": (
        digits(Grammar("Scene -> bg Digits\nDigits -> Digit Digits | ε\nDigit -> zero | one")),
        "b has the rules",
    ),
    "another renderer": (SceneModel(abacus()), "renderer: {'class': 'ms2.worlds.multimnist.renderer.DigitCanvas'"),
}


@pytest.mark.parametrize(("other", "complaint"), FOREIGN.values(), ids=FOREIGN)
def test_other_worlds_are_refused(other, complaint):
    with pytest.raises(UserError) as error:
        MixedSceneModel({"a": digits(), "b": other})
    said = str(error.value)
    assert said.startswith("a and b can't be mixed, as their scenes are not of one world:\n  ")
    assert complaint.replace("b has the rules", "in their place") in said
    assert "settings that are given here, such as --world.renderer.size, apply to all runs" in said


def test_scenes_of_other_attributes_are_not_joined():
    one = SceneBatch(torch.zeros(1, 1).long(), -torch.ones(1, 1).long(), {"x": torch.zeros(1, 1)})
    for other in (one.with_attributes(spacing=torch.zeros(1, 1)), one.with_environment(sun=torch.zeros(1))):
        with pytest.raises(UserError, match=r"not all of them have '(spacing|sun)'"):
            join_scenes([one, other])
