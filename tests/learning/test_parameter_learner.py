"""Which weights a parameter learner trains, and which objectives, gradients and renderers fit each other."""

import pytest

from ms2.core.errors import UserError
from ms2.gradients.finite_difference import FiniteDifference
from ms2.gradients.pathwise import Pathwise
from ms2.gradients.score_function import ScoreFunction
from ms2.learning.parameter_learner import ParameterLearner
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import SceneModel
from ms2.objectives.energy import EnergyDistance
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import BatchMMD, MMDWitness
from ms2.objectives.sliced_wasserstein import SlicedWasserstein
from ms2.scene.attributes import ENVIRONMENT
from ms2.world import World
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas


def digits() -> SceneModel:
    world = World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(24, 8, rotation=True))
    return SceneModel(world, parameters=ParameterModel(world, hidden=8))


@pytest.mark.parametrize("objective", [ForwardKL, BatchMMD])
def test_scores_without_a_gradient_need_another_gradient(objective: type) -> None:
    said = f"Pathwise needs an objective .* {objective.__name__} is none: take KDE or MMDWitness, or another gradient"
    with pytest.raises(UserError, match=said):
        ParameterLearner(objective(), Pathwise())
    for gradient in (ScoreFunction(), FiniteDifference()):
        ParameterLearner(objective(), gradient)
    for other in (KDE(), MMDWitness(), EnergyDistance(), SlicedWasserstein()):
        ParameterLearner(other, Pathwise())


def test_only_the_decoder_is_trained_where_the_encoder_is_frozen() -> None:
    model = digits()
    assert model.parameters is not None
    every = {id(p) for p in model.parameters.parameters()}
    decoder = {id(p) for name, p in model.parameters.named_parameters() if name.startswith("decoder.")}
    assert {id(p) for p in ParameterLearner(KDE(), Pathwise()).weights(model)} == every
    frozen = ParameterLearner(KDE(), Pathwise(), freeze_encoder=True).weights(model)
    assert {id(p) for p in frozen} == decoder and 0 < len(decoder) < len(every)


def test_images_without_a_derivative_need_another_gradient() -> None:
    view = StreetView((32, 104), classes=["car"])
    streets = World(Driving(), SimpleStreets(), StreetLayout(max_distance=30), view)
    parameters = ParameterModel(
        streets, learned_attributes={ENVIRONMENT: ["haze", "exposure"], "car": ["length"]}, hidden=8
    )
    model = SceneModel(streets, parameters=parameters)
    said = (
        "Pathwise needs images that are differentiable in what is learned, and the renderer's are not in "
        r"'exposure', 'haze', 'length'\. Take another gradient \(.*FiniteDifference, .*ScoreFunction.*\), or learn"
    )
    with pytest.raises(UserError, match=said) as error:
        ParameterLearner(KDE(), Pathwise()).check(model)
    assert str(error.value).count("Pathwise") == 1
    for gradient in (ScoreFunction(), FiniteDifference()):
        ParameterLearner(KDE(), gradient).check(model)
    ParameterLearner(KDE(), Pathwise()).check(digits())
