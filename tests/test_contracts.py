"""What every plug-in and every world must keep to: documented settings, valid scenes, same images, sound labels."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
import torch
from onnx_files import write_reshaping
from PIL import Image
from torch import nn

import ms2
import ms2.worlds
from ms2.contracts import CONTRACTS, check
from ms2.contracts.gradients import slopes
from ms2.contracts.parameters import mutable_of, owned
from ms2.core.registry import KINDS, available
from ms2.core.seeding import generator
from ms2.core.settings import Configured, settings_of
from ms2.features.backbone import Backbone
from ms2.features.dense import DenseCounts
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.onnx_detector import OnnxDetector
from ms2.features.detection.torchvision_detector import TorchvisionDetector
from ms2.features.mixed_counts import MixedCounts
from ms2.features.pretrained import PretrainedCounts
from ms2.grammar.derivations import is_valid
from ms2.metrics.statistics import StructureStatistic
from ms2.priors.structure import MixturePrior, StructurePrior
from ms2.render.engines.warp.engine import WarpEngine
from ms2.scene.attributes import ENVIRONMENT, Attribute
from ms2.scene.batch import scenes_from_derivations
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import BusyFirstRoad, ScatteredCars, SpacedCars, UniformTraffic
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import RandomStreets, Rural, ScenarioPrior, SimpleStreets, Suburban, Urban
from ms2.worlds.driving3d.renderer import StreetView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import LinePlacement, NormalPlacement, RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

for module in pkgutil.walk_packages(ms2.__path__, "ms2."):
    if module.name != "ms2.__main__":  # importing it runs the program
        importlib.import_module(module.name)

WORLDS: dict[str, list[Callable[[], World]]] = {  # small ones, a few for each folder in ms2.worlds
    "multimnist": [
        lambda: World(MultiMNIST(), UniformDigits(4), UniformPlacement(), DigitCanvas(canvas_size=40, digit_size=12)),
        lambda: World(
            MultiMNIST(), RandomDigits(1), LinePlacement(), DigitCanvas(canvas_size=50, digit_size=9, rotation=True)
        ),
        lambda: World(MultiMNIST(), UniformDigits(9), UniformPlacement(180), DigitCanvas(30, 14, rotation=True)),
        lambda: World(
            MultiMNIST(),
            UniformDigits(3),
            NormalPlacement((0.2, 0.3), (1, 0.3), (170, 90)),
            DigitCanvas(26, 12, rotation=True),
        ),
    ],
    "aerial2d": [
        lambda: World(Aerial2D(), UniformTraffic(), ScatteredCars(), AerialView(canvas_size=64)),
        lambda: World(
            Aerial2D(),
            BusyFirstRoad(),
            SpacedCars(50, max_houses=4, max_trees=9),
            AerialView(canvas_size=80, extent=50),
        ),
    ],
    "driving3d": [
        lambda: World(
            Driving(),
            SimpleStreets(),
            StreetLayout(max_distance=30),
            StreetView((32, 104), engine=WarpEngine(shadow_size=128)),
        ),
        lambda: World(
            Driving(),
            MixturePrior([Rural(), Suburban(), Urban(), ScenarioPrior("Urban", dispersion=0), RandomStreets()]),
            StreetLayout(max_curvature=1 / 80),
            StreetView((48, 96), engine=WarpEngine(1, shadow_size=0)),
        ),
        lambda: World(
            Driving(),
            SimpleStreets(0, 4),
            StreetLayout(place_ranges={"parked": (0.5, 1.0)}, mesh_set="detailed"),
            StreetView((32, 104), mesh_set="detailed", metering=0.36, engine=WarpEngine(shadow_size=128)),
        ),
    ],
}
LINKED = {"world", "grammar", "channels", "classes"}
"""Arguments that the program fills in."""
REQUIRED = {
    *(
        ("DetectorCounts", "detector"),
        ("ExternalRenderer", "command"),
        ("Grammar", "rules"),
        ("HistogramPlacement", "ranges"),
        ("MixedCounts", "detected"),
        ("MixedCounts", "trained"),
        ("OnnxDetector", "file"),
        ("Folder", "root"),
        ("Kitti", "root"),
        ("Shards", "urls"),
        ("Synthetic", "structure_prior"),
        ("StructureVector", "child_class"),
        ("StructureVector", "parent_class"),
        ("MixturePrior", "priors"),
        ("ScenarioPrior", "scenario"),
    ),
    *(("AttributeValue", name) for name in ("attribute", "name")),
    *(("NeighbourGap", name) for name in ("object_class", "order_by", "name")),
    *(("ChildCount", name) for name in ("child_class", "parent_class", "parent_indices", "name")),
}
"""Arguments that only a person can fill in."""


def subclasses(base: type) -> Iterator[type]:
    for cls in base.__subclasses__():
        yield cls
        yield from subclasses(cls)


def ours(classes: list[type]) -> list[type]:
    """Those of the package; other tests make classes of their own."""
    return sorted({cls for cls in classes if cls.__module__.startswith("ms2.")}, key=lambda cls: cls.__qualname__)


PLUGINS = ours([cls for kind in KINDS for cls in available(kind).values()])
CONFIGURED = ours(list(subclasses(Configured)))
every_plugin = pytest.mark.parametrize("cls", PLUGINS, ids=lambda cls: cls.__name__)
every_world = pytest.mark.parametrize(
    "world", [pytest.param(make(), id=f"{name}-{i}") for name, row in WORLDS.items() for i, make in enumerate(row)]
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- plug-ins ---


def arguments(cls: type) -> list[inspect.Parameter]:
    """What the class's own or inherited __init__ takes by name."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def documented(cls: type) -> set[str]:
    """Names in the `Args:` section of the docstring."""
    params = docstring_parser.parse(inspect.getdoc(cls) or "", docstring_parser.DocstringStyle.GOOGLE).params
    return {p.arg_name for p in params if p.args[0] == "param" and p.description}


def author(cls: type) -> type:
    """The class that an inherited __init__ comes from."""
    return next(base for base in cls.__mro__ if "__init__" in vars(base))


def test_all_kinds_of_plugins_are_found_and_none_is_empty() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in Path(ms2.__path__[0]).rglob("*.py"))
    declared = set(re.findall(r'^class .*\bkind="(\w+)"\):', source, re.M))
    assert declared == {kind for kind, base in KINDS.items() if base.__module__.startswith("ms2.")}
    assert all(ours(list(available(kind).values())) for kind in declared)


@pytest.mark.parametrize("cls", CONFIGURED, ids=lambda cls: cls.__name__)
def test_every_class_and_every_argument_is_documented(cls: type) -> None:
    """An inherited __init__ may be described where it stands, where --help finds it."""
    assert (cls.__doc__ or "").strip(), "no docstring of its own"
    names = {p.name for p in arguments(cls)}
    if author(cls) is cls:
        assert documented(cls) == names
    elif author(cls).__module__.startswith("ms2."):
        assert documented(author(cls)) | documented(cls) == names


def test_the_check_of_documentation_finds_what_is_missing() -> None:
    class Undocumented:
        """One.

        Attributes:
            b: No argument.

        Args:
            a: Documented.
        """

        def __init__(self, a: int, b: int) -> None: ...

    assert documented(Undocumented) == {"a"}
    assert [p.name for p in arguments(Undocumented)] == ["a", "b"]


@every_plugin
def test_every_argument_has_a_default_or_is_linked(cls: type) -> None:
    bare = {p.name for p in arguments(cls) if p.default is p.empty}
    assert {name for name in bare - LINKED if (cls.__name__, name) not in REQUIRED} == set()


@every_plugin
def test_every_argument_has_a_type(cls: type) -> None:
    """The command line reads it."""
    assert all(p.annotation is not p.empty for p in arguments(cls))


def make(cls: type, folder: Path) -> Any:
    """A plug-in with default settings, and the least that it needs besides."""
    (folder / "training" / "image_2").mkdir(parents=True)
    (folder / "ImageSets").mkdir()
    (folder / "ImageSets" / "train.txt").write_text("000000\n")
    Image.new("L", (40, 40)).save(folder / "training" / "image_2" / "000000.png")
    (folder / "0.tar").touch()
    fill = {
        "channels": 1,
        "classes": list("0123456789"),
        "command": ["true"],
        "rules": "Scene -> thing",
        "ranges": {"a": {"x": (0.0, 1.0)}},
        "object_class": "a",
        "child_class": "a",
        "parent_class": "b",
        "parent_indices": [1],
        "attribute": "x",
        "order_by": "x",
        "name": "ab",
        "root": str(folder),
        "urls": str(folder / "0.tar"),
        "structure_prior": UniformDigits(),
        "priors": [UniformDigits()],
        "scenario": "Urban",
    }
    fill |= {"world": WORLDS["multimnist"][0](), "grammar": MultiMNIST()}
    if cls is OnnxDetector:
        fill["file"] = str(write_reshaping(folder / "rows.onnx", [0, -1, 85]))
    if cls in (DetectorCounts, MixedCounts):
        detector = TorchvisionDetector("ssdlite320_mobilenet_v3_large", None)
        fill |= {"classes": ["car"], "detector": detector, "detected": DetectorCounts(1, ["car"], detector)}
        fill["trained"] = DenseCounts(1, ["car"])
    given = {p.name: fill[p.name] for p in arguments(cls) if p.default is p.empty}
    if issubclass(cls, Backbone | PretrainedCounts | TorchvisionDetector):
        given["weights"] = None  # nothing is fetched here
    return cls(**given)


@every_plugin
def test_every_plugin_can_be_made_and_its_settings_written_down(cls: type, tmp_path: Path) -> None:
    settings = json.loads(json.dumps(settings_of(make(cls, tmp_path))))
    assert settings.pop("class") == f"{cls.__module__}.{cls.__qualname__}"
    assert {p.name for p in arguments(cls)} <= set(settings)


@every_plugin
def test_the_help_shows_every_argument_with_its_description(cls: type) -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    skip = {p.name for p in arguments(cls)} & LINKED
    parser.add_class_arguments(cls, "plugin", skip=skip)
    shown = {action.dest.removeprefix("plugin."): action.help for action in parser._actions}
    for name in {p.name for p in arguments(cls)} - skip:
        assert len(shown.get(name) or "") > 10, f"--help says nothing of {name}"


# --- worlds ---


def test_every_world_has_an_entry() -> None:
    folders = {m.name for m in pkgutil.iter_modules(ms2.worlds.__path__) if m.ispkg}
    assert folders == set(WORLDS), "add the new world to WORLDS in tests/test_contracts.py"


def members(prior: StructurePrior) -> list[StructurePrior]:
    """A prior, and those that it is mixed of."""
    return [prior, *(prior.priors if isinstance(prior, MixturePrior) else [])]


def test_every_part_of_every_world_is_tried_here() -> None:
    parts = {
        type(part)
        for row in WORLDS.values()
        for make_world in row
        for world in [make_world()]
        for part in (world.grammar, *members(world.structure_prior), world.parameter_prior, world.renderer)
    }
    of_worlds = {cls for cls in PLUGINS if cls.__module__.startswith("ms2.worlds.")}
    assert {cls.__name__ for cls in of_worlds - parts if not issubclass(cls, nn.Module | Statistic)} == set()


@every_world
@pytest.mark.parametrize("name", CONTRACTS)
def test_every_world_keeps_every_contract(world: World, name: str) -> None:
    """What each says, stands in its docstring; `tests/contracts` shows that it finds what is broken."""
    outcome = check(CONTRACTS[name], world, generator(0, "contracts", name))
    assert outcome.passed, "\n".join(map(str, outcome.findings)) or outcome.obstacle


@every_world
def test_what_contracts_are_checked_with_differs(world: World) -> None:
    """Or they would hold for want of anything to find."""
    rules = world.structure_prior.sample(world.grammar, 200, rng())
    assert is_valid(world.grammar, rules).all()
    assert len(rules.unique(dim=0)) > 10
    assert not world.sample_prior(8, rng(5)).mask.all(), "no unused entries"
    image = world.images(world.structure_prior.sample(world.grammar, 8, rng()), rng())
    assert image.flatten(1).std(1).max() > 0.01


@every_world
def test_the_prior_reaches_every_class(world: World) -> None:
    counts = scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 500, rng())).counts(
        len(world.grammar.classes)
    )
    assert (counts.sum(0) > 0).all()


def neighbours(world: World) -> list[Callable[[], World]]:
    """The worlds of its folder; of another package's, itself."""
    package, *inner = type(world.renderer).__module__.split(".")
    return WORLDS[inner[1]] if package == "ms2" else [lambda: world]


@every_world
def test_what_may_be_learned_is_drawn_by_some_setting_of_the_renderer(world: World) -> None:
    somewhere = {
        (owner, attribute.name)
        for make_world in neighbours(world)
        for owner, attribute, reads in mutable_of(make_world())
        if reads is not None
    }
    listed = [(owner, attribute.name) for owner, attribute, _ in mutable_of(world)]
    assert len(listed) > 0
    assert set(listed) <= somewhere, "no setting of the renderer reads it"
    assert any(reads is not None for *_, reads in mutable_of(world))


@every_world
def test_priors_draw_what_may_be_learned_many_times(world: World) -> None:
    scenes = world.sample_prior(100, rng(2))
    for owner, attribute, _ in mutable_of(world):
        drawn = scenes.environment if owner == ENVIRONMENT else scenes.attributes
        values = drawn[attribute.name]
        assert len(values if owner == ENVIRONMENT else values[owned(world, owner, scenes)]) > 10


@every_world
def test_what_images_are_differentiable_in_is_read(world: World) -> None:
    """By some setting of the renderer: digits that are not turned have no angle."""
    kind = type(world.renderer)
    alike = [made.renderer for made in (make() for make in neighbours(world)) if type(made.renderer) is kind]
    names = {attribute.name for renderer in alike for attribute in (*renderer.attributes, *renderer.environment)}
    assert world.renderer.differentiable <= names


DIFFERENTIABLE = [
    pytest.param(make_world(), attribute, id=f"{folder}-{i}-{attribute.name}")
    for folder, row in WORLDS.items()
    for i, make_world in enumerate(row)
    for attribute in make_world().renderer.attributes
    if attribute.name in make_world().renderer.differentiable
]


@pytest.mark.parametrize(("world", "attribute"), DIFFERENTIABLE)
def test_gradients_of_images_are_their_slopes(world: World, attribute: Attribute) -> None:
    slope, measured, stray = slopes(world, world.sample_prior(24, rng(10)), attribute, rng(9))
    assert not stray
    assert measured.abs().max() > 1
    assert slope is not None
    assert (slope - measured).norm() < 0.35 * measured.norm()


# --- statistics ---


@pytest.mark.parametrize("statistic", ours(list(available(StructureStatistic).values())), ids=lambda cls: cls.__name__)
@every_world
def test_statistics_have_a_row_per_scene_and_a_name_per_bin(statistic: type[StructureStatistic], world: World) -> None:
    scenes = scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 20, rng()))
    child, parent = world.grammar.classes[-1], world.grammar.classes[0]
    fill = {"child_class": child, "parent_class": parent, "parent_indices": [1, 2], "name": "these"}
    instance = statistic(**{p.name: fill[p.name] for p in arguments(statistic) if p.default is p.empty})
    table = instance.measure(scenes, world.grammar.classes)
    assert table.shape[0] == 20 and (table >= 0).all()
    assert table.any() or instance.name == "these"  # a world without parents has nobody to count by
    assert len(set(instance.bin_names(world.grammar.classes, table.shape[1]))) == table.shape[1]
    part = instance.measure(scenes[10:], world.grammar.classes)
    assert torch.equal(part, table[10:, : part.shape[1]]) and not table[10:, part.shape[1] :].any()
    assert instance.name and instance.title
