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
from PIL import Image
from torch import Tensor, nn

import ms2
import ms2.worlds
from ms2.core.registry import KINDS, available
from ms2.core.settings import Configured, settings_of
from ms2.features.backbone import Backbone
from ms2.features.pretrained import PretrainedCounts
from ms2.grammar.derivations import is_valid
from ms2.metrics.statistics import StructureStatistic
from ms2.priors.structure import MixturePrior, StructurePrior
from ms2.render.base import Rendering
from ms2.render.engines.warp.engine import WarpEngine
from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch, scenes_from_derivations
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
    ],
}
LINKED = {"world", "grammar", "channels", "classes"}
"""Arguments that the program fills in."""
REQUIRED = {
    *(
        ("Grammar", "rules"),
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
        "rules": "Scene -> thing",
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
    given = {p.name: fill[p.name] for p in arguments(cls) if p.default is p.empty}
    if issubclass(cls, Backbone | PretrainedCounts):
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
def test_the_grammar_has_no_faults(world: World) -> None:
    assert [str(finding) for finding in world.grammar.lint() if finding.level == "error"] == []
    assert set(world.grammar.classes) <= world.grammar.reachable


@every_world
def test_prior_samples_are_finished_derivations_that_differ(world: World) -> None:
    rules = world.structure_prior.sample(world.grammar, 200, rng())
    assert is_valid(world.grammar, rules).all()
    assert len(rules.unique(dim=0)) > 10
    log_p = world.structure_prior.log_prob(world.grammar, rules)
    assert log_p is None or (log_p.isfinite().all() and (log_p <= 0).all())


@every_world
def test_the_prior_reaches_every_class(world: World) -> None:
    counts = scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 500, rng())).counts(
        len(world.grammar.classes)
    )
    assert (counts.sum(0) > 0).all()


@every_world
def test_parameters_are_what_the_renderer_reads_within_its_bounds(world: World) -> None:
    structure = scenes_from_derivations(world.grammar, world.structure_prior.sample(world.grammar, 100, rng()))
    scenes = world.parameter_prior.sample(structure, rng(1))
    scenery = scenes.classes >= len(world.grammar.classes)
    assert scenes.classes.max() < len(world.classes) and scenery.any() == bool(world.parameter_prior.scenery)
    own = [(row[mask & ~new].tolist()) for row, mask, new in zip(scenes.classes, scenes.mask, scenery, strict=True)]
    assert own == [row[row >= 0].tolist() for row in structure.classes]
    for attribute in world.renderer.environment:
        of_scenes = scenes.environment[attribute.name]
        assert of_scenes.shape == (100,) and ((of_scenes >= attribute.low) & (of_scenes <= attribute.high)).all()
    for attribute in world.renderer.attributes:
        values = scenes.attributes[attribute.name]
        assert values.shape == scenes.classes.shape
        assert (values[scenes.mask] >= attribute.low).all() and (values[scenes.mask] <= attribute.high).all()


def mutable_of(world: World) -> Iterator[tuple[str, Attribute, Attribute | None]]:
    """Whose attribute may be learned, that, and what the renderer says of it or of what is made of it, if it does."""
    for owner, attributes in world.parameter_prior.mutable.items():
        read = world.renderer.environment if owner == ENVIRONMENT else world.renderer.attributes
        for attribute in attributes:
            yield owner, attribute, next((a for a in read if a.name == world.renderer_attribute(attribute)), None)


def neighbours(world: World) -> list[Callable[[], World]]:
    """The worlds of its folder; of another package's, itself."""
    package, *inner = type(world.renderer).__module__.split(".")
    return WORLDS[inner[1]] if package == "ms2" else [lambda: world]


def owned(world: World, owner: str, scenes: SceneBatch) -> Tensor:
    """Which objects the owner of an attribute stands for: those of a class, or all of the grammar's."""
    names = world.grammar.classes if owner == EVERY else [owner]
    return torch.isin(scenes.classes, torch.tensor([world.classes.index(name) for name in names]))


@every_world
def test_what_may_be_learned_is_of_classes_that_there_are_and_drawn(world: World) -> None:
    somewhere = {
        (owner, attribute.name)
        for make_world in neighbours(world)
        for owner, attribute, reads in mutable_of(make_world())
        if reads is not None
    }
    listed = [(owner, attribute.name) for owner, attribute, _ in mutable_of(world)]
    assert {owner for owner, _ in listed} <= {*world.classes, EVERY, ENVIRONMENT}
    assert len(set(listed)) == len(listed) > 0
    assert set(listed) <= somewhere, "no setting of the renderer reads it"
    assert any(reads is not None for *_, reads in mutable_of(world))


@every_world
def test_priors_draw_within_the_bounds_of_what_may_be_learned(world: World) -> None:
    """Of what is relative, those of the difference to the parent's."""
    scenes = world.sample_prior(100, rng(2))
    for owner, attribute, reads in mutable_of(world):
        if owner == ENVIRONMENT:
            values = scenes.environment[attribute.name]
        else:
            values = scenes.value(attribute)[owned(world, owner, scenes)]
        assert len(values) > 10 and attribute.low < attribute.high
        slack = 1e-5 * (attribute.high - attribute.low)
        assert values.min() >= attribute.low - slack and values.max() <= attribute.high + slack
        if reads is not None:
            assert attribute.periodic == reads.periodic


@every_world
def test_what_is_learned_stays_within_the_renderers_bounds(world: World) -> None:
    """At either end of what may be learned, for relative attributes beside every parent that the prior draws."""
    scenes = world.sample_prior(100, rng(2))
    for owner, attribute, reads in mutable_of(world):
        if reads is None or attribute.name in world.parameter_prior.derived_attributes:
            continue
        least = most = torch.zeros(1)
        if attribute.relative:
            parent_values = scenes.parent_values(scenes.attributes[attribute.name])[scenes.parents >= 0]
            least, most = parent_values.min(), parent_values.max()
        slack = 1e-5 * (reads.high - reads.low)
        assert least + attribute.low >= reads.low - slack and most + attribute.high <= reads.high + slack, owner


@every_world
def test_what_the_prior_draws_is_arranged_already(world: World) -> None:
    """And what is arranged of any value of a mutable attribute stays within bounds."""
    scenes = world.sample_prior(100, rng(2))
    arranged, derived_attributes = (
        world.parameter_prior.derive_attributes(scenes),
        world.parameter_prior.derived_attributes,
    )
    assert derived_attributes.keys() <= {attribute.name for _, attribute, _ in mutable_of(world)}
    assert torch.equal(arranged.classes, scenes.classes) and torch.equal(arranged.parents, scenes.parents)
    for name, values in scenes.attributes.items():
        torch.testing.assert_close(arranged.attributes[name], values, atol=1e-3, rtol=1e-5)
    for owner, attribute, reads in mutable_of(world):
        if attribute.name not in derived_attributes:
            continue
        assert reads is not None and not attribute.relative
        own = owned(world, owner, scenes)
        part = torch.rand(scenes.classes.shape, generator=rng(3))
        for value in (torch.zeros_like(part), torch.ones_like(part), part):
            value = torch.where(own, attribute.low + (attribute.high - attribute.low) * value, 0.0)
            made = world.parameter_prior.derive_attributes(scenes.with_attributes(**{attribute.name: value}))
            found = made.attributes[reads.name][scenes.mask]
            assert (found >= reads.low).all() and (found <= reads.high).all()
            assert not torch.equal(found, scenes.attributes[reads.name][scenes.mask])


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
    """Of a sum of pixels with smooth weights, as those objects of a scene are moved of which something may be learned.

    Where one object begins to hide another there is a kink, for a few scenes also within a small step.
    """
    scenes, generator = world.sample_prior(24, rng(8)), rng(9)
    value = scenes.attributes[attribute.name]
    moved = [owned(world, owner, scenes) for owner in world.parameter_prior.mutable if owner != ENVIRONMENT]
    ahead = torch.randn(value.shape, generator=generator) * torch.stack(moved).any(0)
    small = torch.randn(24, world.renderer.channels, 4, 4, generator=generator)
    weights = nn.functional.interpolate(small, world.renderer.size, mode="bicubic")

    def total(values: Tensor) -> Tensor:
        image = world.renderer.render(scenes.with_attributes(**{attribute.name: values}))
        return (weights * image).double().sum((1, 2, 3))

    inner = value.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(inner).sum(), inner)
    assert not gradient[~scenes.mask].any()
    slope = (gradient * ahead).double().sum(1)
    step = 5e-4 * (attribute.high - attribute.low)
    with torch.no_grad():
        measured = (total(value + step * ahead) - total(value - step * ahead)) / (2 * step)
    assert measured.abs().max() > 1
    assert (slope - measured).norm() < 0.35 * measured.norm()


@every_world
def test_the_same_seed_gives_the_same_images(world: World) -> None:
    first, again, other = (world.renderer.render(world.sample_prior(6, rng(seed))) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_world
def test_images_have_the_declared_shape_and_range(world: World) -> None:
    image = world.images(world.structure_prior.sample(world.grammar, 8, rng()), rng())
    assert image.shape == (8, world.renderer.channels, *world.renderer.size)
    assert image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1
    assert image.flatten(1).std(1).max() > 0.01


@every_world
def test_rendering_leaves_the_scenes_as_they_are(world: World) -> None:
    scenes = world.sample_prior(4, rng())
    before = {name: values.clone() for name, values in vars(scenes).items() if isinstance(values, Tensor)}
    attributes = {name: values.clone() for name, values in scenes.attributes.items()}
    world.renderer.render_labelled(scenes)
    assert all(torch.equal(vars(scenes)[name], values) for name, values in before.items())
    assert set(scenes.attributes) == set(attributes)
    assert all(torch.equal(scenes.attributes[name], values) for name, values in attributes.items())


def each(scenes: SceneBatch) -> list[SceneBatch]:
    """The scenes one by one, each without the unused places after its objects."""
    found = []
    for i in range(len(scenes)):
        used = max(1, int(scenes.mask[i].sum()))
        attributes = {name: values[i : i + 1, :used] for name, values in scenes.attributes.items()}
        environment = {name: values[i : i + 1] for name, values in scenes.environment.items()}
        structure = (scenes.classes[i : i + 1, :used], scenes.parents[i : i + 1, :used])
        found.append(SceneBatch(*structure, attributes, environment))
    return found


@every_world
def test_a_batch_renders_like_its_scenes_one_by_one(world: World) -> None:
    scenes = world.sample_prior(7, rng(5))
    labels = world.renderer.render_labelled(scenes)
    for i, scene in enumerate(each(scenes)):
        alone, used = world.renderer.render_labelled(scene), scene.classes.shape[1]
        torch.testing.assert_close(world.renderer.render(scene)[0], labels.image[i], atol=1e-6, rtol=0)
        assert torch.equal(alone.instances[0], labels.instances[i])
        for name in ("boxes", "visible_boxes", "visibility"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(labels, name)[i, :used])


@every_world
def test_unused_places_are_not_read(world: World) -> None:
    scenes = world.sample_prior(7, rng(5))
    assert not scenes.mask.all()
    noise = {name: torch.where(scenes.mask, values, torch.nan) for name, values in scenes.attributes.items()}
    assert torch.equal(world.renderer.render(scenes.with_attributes(**noise)), world.renderer.render(scenes))


@every_world
def test_labels_belong_to_the_image(world: World) -> None:
    scenes = world.sample_prior(30, rng(6))
    labels = world.renderer.render_labelled(scenes)
    assert torch.equal(labels.image, world.renderer.render(scenes))
    assert torch.equal(labels.classes, scenes.classes)
    assert labels.instances.shape == (30, *world.renderer.size)
    for i in range(len(scenes)):
        assert set(labels.instances[i].unique().tolist()) <= {-1, *scenes.mask[i].nonzero()[:, 0].tolist()}
    check_boxes(labels, scenes.mask)


def check_boxes(labels: Rendering, used: Tensor) -> None:
    """Visible boxes are tight around the visible pixels, and inside the canvas and the amodal boxes.

    Where amodal boxes are finer than pixels, whole pixels reach out of them by less than one, and what fills less than
    half of every pixel belongs to none.
    """
    part = 0 if torch.equal(labels.boxes, labels.boxes.round()) else 1
    assert (
        not labels.boxes[~used].any() and not labels.visible_boxes[~used].any() and not labels.visibility[~used].any()
    )
    assert ((labels.visibility >= 0) & (labels.visibility <= 1)).all()
    assert (labels.boxes[..., :2] <= labels.boxes[..., 2:]).all()
    for i, j in used.nonzero().tolist():
        rows, columns = (labels.instances[i] == j).nonzero(as_tuple=True)
        visible, whole = labels.visible_boxes[i, j].tolist(), labels.boxes[i, j].tolist()
        assert (labels.visibility[i, j] > 0) >= (len(rows) > 0)
        assert part or (labels.visibility[i, j] > 0) == (len(rows) > 0)
        if not len(rows):
            assert visible == [0, 0, 0, 0]
            continue
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert visible == [edge.item() for edge in edges]
        assert all(w <= v + part for w, v in zip(whole[:2], visible[:2], strict=True))
        assert all(w >= v - part for w, v in zip(whole[2:], visible[2:], strict=True))


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
