"""A target that looks nothing like the world is named before learning; one with other numbers of objects is not."""

import warnings
from pathlib import Path

import pytest
import torch
from helpers import abacus, images, learner, trainer
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ms2.features.base import Blocks, FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.learning.resemblance import MAX_RATIO, NUM_COMPARED, resemblance, warn_unlike, without_objects
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior, StructurePrior
from ms2.render.engines.warp.engine import WarpEngine
from ms2.targets.synthetic import Synthetic
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad, ScatteredCars, SpacedCars, UniformTraffic
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import RandomStreets, SimpleStreets
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

CPU = torch.device("cpu")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> World:
    return World(MultiMNIST(), UniformDigits(5), UniformPlacement(), DigitCanvas(40, 8))


@pytest.fixture(scope="module")
def features(digits: World) -> DenseCounts:
    """Trained for a few seconds."""
    torch.manual_seed(0)
    found = DenseCounts(1, digits.classes, widths=(8, 16, 16), max_count=5)
    optimizer = torch.optim.AdamW(found.parameters(), 5e-3)
    for step in range(70):
        labels = digits.renderer.render_labelled(digits.sample_prior(16, draw(step)))
        loss = found.loss(labels.image, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found.eval()


def rendered(
    world: World, structure_prior: StructurePrior, parameter_prior: ParameterPrior, n: int = NUM_COMPARED
) -> Tensor:
    other = World(world.grammar, structure_prior, parameter_prior, world.renderer)
    return other.renderer.render(other.sample_prior(n, draw(99)))


def distance(features: FeatureExtractor, world: World, pixels: Tensor) -> float:
    return resemblance(features, world, pixels).ratio


def unlike(size: tuple[int, ...]) -> dict[str, Tensor]:
    """Images of nothing that a world draws."""
    shape = (NUM_COMPARED, *size)
    return {
        "uniform noise": torch.rand(shape, generator=draw(1)),
        "normal noise": (0.5 + 0.2 * torch.randn(shape, generator=draw(2))).clamp(0, 1),
        "smooth noise": avg_pool2d(torch.rand(shape, generator=draw(3)), 3, 1, 1),
        "grey": torch.full(shape, 0.5),
    }


def test_noise_is_far_from_a_world_of_digits(digits: World, features: DenseCounts) -> None:
    found = {name: distance(features, digits, pixels) for name, pixels in unlike((1, 40, 40)).items()}
    found["inverted"] = distance(features, digits, 1 - rendered(digits, RandomDigits(13, 5), LinePlacement()))
    assert min(found.values()) > MAX_RATIO, found


def test_other_numbers_classes_and_layouts_are_near(digits: World, features: DenseCounts) -> None:
    """Also numbers that the prior does not draw, and no digits at all."""
    priors: dict[str, tuple[StructurePrior, ParameterPrior]] = {
        "shipped target": (RandomDigits(13, 5), LinePlacement()),
        "always five": (ListLengthPrior({"Digits": [0, 0, 0, 0, 0, 1]}), UniformPlacement()),
        "eight to ten": (ListLengthPrior({"Digits": [0] * 8 + [1, 1, 1]}), UniformPlacement()),
        "at most one": (UniformDigits(1), UniformPlacement()),
        "none": (UniformDigits(0), UniformPlacement()),
        "sevens": (ListLengthPrior({"Digits": [1] * 6}, {"Digit": [0] * 7 + [1, 0, 0]}), UniformPlacement()),
        "the prior itself": (digits.structure_prior, digits.parameter_prior),
    }
    found = {name: distance(features, digits, rendered(digits, *pair)) for name, pair in priors.items()}
    assert max(found.values()) < 0.75 * MAX_RATIO, found


class Edges(FeatureExtractor, selectable=False):
    """How much changes from pixel to pixel: more with every object, and most in noise."""

    def forward(self, images: Tensor) -> Blocks:
        across, down = images.diff(dim=3), images.diff(dim=2)
        return {"edges": torch.stack([across.square().mean((1, 2, 3)), down.square().mean((1, 2, 3))], 1)}


def shipped() -> dict[str, tuple[World, StructurePrior, ParameterPrior]]:
    """The priors of the configurations' worlds, and of their synthetic targets."""
    streets = StreetLayout(max_distance=45)
    view = StreetView((32, 104), engine=WarpEngine(shadow_size=64))
    return {
        "aerial2d": (
            World(Aerial2D(), UniformTraffic(), ScatteredCars(), AerialView(canvas_size=48)),
            BusyFirstRoad(),
            SpacedCars(),
        ),
        "driving3d": (World(Driving(), SimpleStreets(), streets, view), RandomStreets(seed=1), streets),
    }


@pytest.mark.parametrize("name", ["aerial2d", "driving3d"])
def test_targets_of_other_worlds_are_near_and_noise_is_far(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ms2.learning.resemblance.NUM_COMPARED", 24)
    world, structure_prior, parameter_prior = shipped()[name]
    assert distance(Edges(), world, rendered(world, structure_prior, parameter_prior, 24)) < 0.75 * MAX_RATIO
    noise = torch.rand(NUM_COMPARED, world.renderer.channels, *world.renderer.size, generator=draw(1))
    assert distance(Edges(), world, noise) > MAX_RATIO


# --- the warning ---


class Given(Synthetic, selectable=False):
    """A target whose images are replaced."""

    def __init__(self, world: World, pixels: Tensor) -> None:
        super().__init__(world, UniformDigits(1), num_images=2)
        self.pixels = pixels

    def preview(self, n: int) -> Tensor:
        return (255 * self.pixels[:n]).round().to(torch.uint8)


def test_the_warning_names_the_distances(digits: World, features: DenseCounts) -> None:
    noise = Given(digits, unlike((1, 40, 40))["uniform noise"])
    with pytest.warns(UserWarning, match=r"the target looks nothing like the world: in the features, 64 of its im"):
        warn_unlike(features, digits, noise, CPU)


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_images_say_nothing(digits: World, features: DenseCounts, number: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unlike(features, digits, Given(digits, torch.rand(number, 1, 40, 40)), CPU)


def test_scenes_without_objects_keep_what_concerns_the_whole() -> None:
    world = shipped()["aerial2d"][0]
    scenes = world.sample_prior(3, draw(0))
    empty = without_objects(scenes)
    assert not empty.mask.any() and scenes.mask.any()
    assert empty.environment.keys() == scenes.environment.keys()
    assert len(world.renderer.render(empty)) == 3


class Shouting(FeatureExtractor, selectable=False):
    """Sees all but nothing in bytes that are no multiple of 17, as an abacus's are."""

    def forward(self, images: Tensor) -> Blocks:
        bytes_ = (255 * images[..., 0, 0]).round()
        return {"odd": 1000 * (bytes_ % 17 > 0).float(), "count": images[..., 0, 0]}


@pytest.mark.filterwarnings(
    "ignore:the kernel of block", "ignore:the score's deviation", "ignore:Found .* in eval mode"
)
def test_fit_warns_once_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner(abacus(), features=Shouting())
    data = images(model.world)
    monkeypatch.setattr(data.target, "preview", lambda n: torch.full((8, 10, 1, 1), 5, dtype=torch.uint8))
    with pytest.warns(UserWarning, match="nothing like the world: in the features, 8 of") as caught:
        trainer(tmp_path, 1).fit(model, datamodule=data)
    assert sum("nothing like" in str(one.message) for one in caught) == 1
