"""Broken worlds: each fault is found, and named with the class and method to mend."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import abacus
from torch import Generator

from ms2.contracts import CONTRACTS, Outcome, check, check_first_batch, check_world
from ms2.contracts.base import sample_scenes
from ms2.contracts.checks import check_max_count, num_first_scenes
from ms2.contracts.gradients import slopes, wrong_fraction
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.features.base import TrainedExtractor
from ms2.features.dense import DenseCounts
from ms2.features.resnet import ResNet
from ms2.grammar.grammar import Grammar
from ms2.priors.parameters import ParameterPrior
from ms2.priors.structure import ListLengthPrior, StructurePrior
from ms2.render.base import Rendering
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import ScatteredCars
from ms2.worlds.aerial2d.renderer import AerialView
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits, UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas


def small(
    renderer: Any = None,
    structure_prior: StructurePrior | None = None,
    parameter_prior: ParameterPrior | None = None,
    grammar: Grammar | None = None,
) -> World:
    """A small world of digits, with one part replaced."""
    return World(
        grammar or MultiMNIST(),
        structure_prior or UniformDigits(4),
        parameter_prior or UniformPlacement(),
        renderer or DigitCanvas(40, 12),
    )


# --- renderers ---


class ByteCanvas(DigitCanvas, selectable=False):
    """Pixels in 0..255."""

    def render(self, scenes: SceneBatch) -> Any:
        return 255 * super().render(scenes)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        rendering = super().render_labelled(scenes)
        return replace(rendering, image=255 * rendering.image)


class DoubleCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        return super().render(scenes).double()


class TransposedCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        return super().render(scenes)[..., :-1]


class BlindCanvas(DigitCanvas, selectable=False):
    """NaN, as of a square root of a negative number."""

    def render(self, scenes: SceneBatch) -> Any:
        return super().render(scenes) / 0.0 * 0.0


class TwoFacedCanvas(DigitCanvas, selectable=False):
    """`render` unlike `render_labelled`."""

    def render(self, scenes: SceneBatch) -> Any:
        return 1 - super().render(scenes)


class NoisyCanvas(DigitCanvas, selectable=False):
    """Other images each time."""

    def render(self, scenes: SceneBatch) -> Any:
        image = super().render(scenes)
        return (image + 0.1 * torch.rand(image.shape)).clamp(0, 1)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        return replace(super().render_labelled(scenes), image=self.render(scenes))


class AveragingCanvas(DigitCanvas, selectable=False):
    """As bright as the whole batch allows."""

    def render(self, scenes: SceneBatch) -> Any:
        image = super().render(scenes)
        return image / (1 + image.mean())

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        return replace(super().render_labelled(scenes), image=self.render(scenes))


class GreedyCanvas(DigitCanvas, selectable=False):
    """Looks at unused entries."""

    def render(self, scenes: SceneBatch) -> Any:
        return (super().render(scenes) + scenes.attributes["x"].nan_to_num(1).mean(1)[:, None, None, None]).clamp(0, 1)


class MovingCanvas(DigitCanvas, selectable=False):
    """Changes the scenes that it is given."""

    def render(self, scenes: SceneBatch) -> Any:
        scenes.attributes["x"].mul_(0.9)
        return super().render(scenes)


class ConstantCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        return torch.zeros_like(super().render(scenes))


class CutCanvas(DigitCanvas, selectable=False):
    """Promises derivatives, but cuts the graph."""

    def render(self, scenes: SceneBatch) -> Any:
        return super().render(scenes).detach()


class SteepCanvas(DigitCanvas, selectable=False):
    """Derivatives of the wrong sign."""

    def render(self, scenes: SceneBatch) -> Any:
        image = super().render(scenes)
        return 2 * image.detach() - image


class CrashingCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        raise IndexError("index 4 is out of bounds")


class LeavingCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        raise SystemExit(0)


class ArrayCanvas(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        return super().render(scenes).numpy()


class UnlabelledCanvas(DigitCanvas, selectable=False):
    def render_labelled(self, scenes: SceneBatch) -> Any:
        return None


def relabelled(name: str, change: Callable[[Rendering], Any]) -> type[DigitCanvas]:
    """A canvas with one label changed."""

    class Relabelled(DigitCanvas, selectable=False):
        def render_labelled(self, scenes: SceneBatch) -> Rendering:
            rendering = super().render_labelled(scenes)
            object.__setattr__(rendering, name, change(rendering))  # past the type checks that tests run under
            return rendering

    return Relabelled


def transposed(labels: Rendering) -> Any:
    """Rows first."""
    return labels.boxes[..., [1, 0, 3, 2]]


BROKEN_RENDERERS = [
    (ByteCanvas, "images", "render: expected finite pixels in 0..1; found values in 0 .. 25"),
    (DoubleCanvas, "images", "render: expected float32 of shape [8, 1, 40, 40]; found torch.float64"),
    (TransposedCanvas, "images", "render: expected float32 of shape [8, 1, 40, 40]; found torch.float32 of shape"),
    (BlindCanvas, "images", "render: expected finite pixels in 0..1; found values, 12800 of 12800 not finite"),
    (TwoFacedCanvas, "same_image", "render_labelled: expected the images of TwoFacedCanvas.render; found pixels that"),
    (NoisyCanvas, "deterministic", "render: expected the same images for the same scenes; found pixels that differ"),
    (ConstantCanvas, "deterministic", "render: expected other images for 8 other scenes; found the same ones"),
    (AveragingCanvas, "batch_independent", "render: expected scene 0's image as in its batch; found pixels that"),
    (GreedyCanvas, "unused_not_read", "render: expected the same images whatever attributes unused entries"),
    (MovingCanvas, "scenes_unchanged", "render: expected scenes as they were; found changed classes, parents or attr"),
    (CutCanvas, "gradients", "render: expected a derivative with respect to 'x'; found none: the graph is cut"),
    (SteepCanvas, "gradients", "render: expected the derivative with respect to 'x' that finite differences show"),
    (ArrayCanvas, "images", "render: expected a Tensor; found a ndarray"),
    (UnlabelledCanvas, "labels", "render_labelled: expected a Rendering; found a NoneType"),
    (
        CrashingCanvas,
        "images",
        "render: expected no error; found IndexError: index 4 is out of bounds (test_checks.py:",
    ),
]
BROKEN_LABELS = [
    ("boxes", transposed, "boxes", "expected boxes that hold the visible pixels; found object 0 of image"),
    (
        "boxes",
        lambda labels: labels.boxes + 40 * (labels.boxes > 0),
        "boxes",
        "expected boxes x0, y0, x1, y1 with 0 <=",
    ),
    ("boxes", lambda labels: labels.boxes[..., [2, 3, 0, 1]], "boxes", "expected boxes x0, y0, x1, y1 with 0 <= x0"),
    ("boxes", lambda labels: labels.boxes[..., :3], "labels", "expected boxes of shape [24, 4, 4]; found [24, 4"),
    ("boxes", lambda labels: labels.boxes * torch.nan, "labels", "expected finite boxes; found values, "),
    ("corners", lambda labels: labels.corners + 1, "labels", "expected zeros as corners of unused entries; found"),
    ("visible_boxes", lambda labels: labels.boxes, "boxes", "expected visible_boxes around the visible pixels; found"),
    ("visibility", lambda labels: 100 * labels.visibility, "labels", "expected visibility in 0..1; found values in "),
    ("visibility", lambda labels: 0 * labels.visibility, "boxes", "expected a visibility above 0 where an object"),
    ("instances", lambda labels: labels.instances + 1, "labels", "expected instances that are indices of the"),
    ("classes", lambda labels: labels.classes.clamp(min=0), "labels", "expected the scenes' classes, indices of 0, 1"),
    ("classes", lambda labels: (labels.classes + 1) % 10, "labels", "expected the scenes' classes, indices of 0, 1"),
    ("parents", lambda labels: labels.parents + 1, "labels", "expected the scenes' parents; found others in 24 of 24"),
]


def outcome_of(world: World, name: str) -> Outcome:
    return check(CONTRACTS[name], world, generator(0, "contracts", name))


@pytest.mark.parametrize(("renderer", "name", "message"), BROKEN_RENDERERS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_renderer_is_found(renderer: type[DigitCanvas], name: str, message: str) -> None:
    findings = [str(finding) for finding in outcome_of(small(renderer(40, 12)), name).findings]
    assert any(finding.startswith(f"{renderer.__name__}.{message}") for finding in findings), findings


@pytest.mark.parametrize(("field", "change", "name", "message"), BROKEN_LABELS)
def test_a_broken_label_is_found(field: str, change: Callable[[Rendering], Any], name: str, message: str) -> None:
    findings = [str(one) for one in outcome_of(small(relabelled(field, change)(40, 12)), name).findings]
    assert any(finding.startswith(f"Relabelled.render_labelled: {message}") for finding in findings), findings


def test_scenes_of_many_cars_have_the_derivatives_that_are_declared() -> None:
    lengths = {"Roads": [0, 0, 0, 1.0], "Cars": [0.0] * 12 + [1.0]}  # 36 cars: often one begins to hide another
    world = World(Aerial2D(), ListLengthPrior(lengths), ScatteredCars(), AerialView(canvas_size=96))
    x = next(one for one in world.renderer.attributes if one.name == "x")
    draw = generator(2, "crowded")
    slope, measured, _ = slopes(world, sample_scenes(world, 24, draw), x, draw)
    assert slope is not None and wrong_fraction(slope, measured) < 0.3


# --- priors ---


class Unfinished(UniformDigits, selectable=False):
    """Derivations that end before their last symbol is expanded."""

    def sample(self, grammar: Grammar, n: int, generator: Generator) -> Any:
        return super().sample(grammar, n, generator)[:, :4]


class Foreign(UniformDigits, selectable=False):
    """Rules of another grammar."""

    def sample(self, grammar: Grammar, n: int, generator: Generator) -> Any:
        return super().sample(grammar, n, generator) + 20


class Floats(UniformDigits, selectable=False):
    def sample(self, grammar: Grammar, n: int, generator: Generator) -> Any:
        return super().sample(grammar, n, generator).float()


class OwnDice(UniformDigits, selectable=False):
    """Draws from the global generator."""

    def sample(self, grammar: Grammar, n: int, generator: Generator) -> Any:
        return super().sample(grammar, n, torch.Generator().manual_seed(int(torch.randint(10**6, ()))))


class Impossible(UniformDigits, selectable=False):
    """Says that what it draws has no probability."""

    def log_prob(self, grammar: Grammar, rules: Any) -> Any:
        return super().log_prob(grammar, rules) - torch.inf


class Overshoot(UniformPlacement, selectable=False):
    """Attributes out of the renderer's bounds."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        drawn = super().sample(scenes, generator)
        return drawn.with_attributes(x=3 * drawn.attributes["x"])


class Forgetful(UniformPlacement, selectable=False):
    """Lacks an attribute that the renderer reads."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        drawn = super().sample(scenes, generator)
        return replace(drawn, attributes={name: drawn.attributes[name] for name in ("x", "y")})


class Flat(UniformPlacement, selectable=False):
    """One value a scene, not one an object."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        drawn = super().sample(scenes, generator)
        drawn.attributes["x"] = drawn.attributes["x"][:, :1]  # past the type checks that tests run under
        return drawn


class Shuffling(UniformPlacement, selectable=False):
    """Changes classes."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        drawn = super().sample(scenes, generator)
        return replace(drawn, classes=torch.where(drawn.mask, (drawn.classes + 1) % 10, -1))


class Orphaned(UniformPlacement, selectable=False):
    """Parents that are no objects."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        return replace(super().sample(scenes, generator), parents=torch.full_like(scenes.parents, 99))


class Nothing(UniformPlacement, selectable=False):
    def sample(self, scenes: SceneBatch, generator: Generator) -> Any:
        return None


class OwnPlaces(UniformPlacement, selectable=False):
    """Draws from the global generator."""

    def sample(self, scenes: SceneBatch, generator: Generator) -> SceneBatch:
        drawn = super().sample(scenes, generator)
        return drawn.with_attributes(y=torch.rand(drawn.classes.shape))


class Misdeclared(UniformPlacement, selectable=False):
    mutable = {"*": (Attribute("x", 0, 1.5),), "digit": ()}  # noqa: RUF012


class Narrow(UniformPlacement, selectable=False):
    mutable = {"*": (Attribute("x", 0.4, 0.6),)}  # noqa: RUF012


class Wide(UniformPlacement, selectable=False):
    mutable = {"*": (Attribute("x", -1, 2),)}  # noqa: RUF012


BROKEN_PRIORS: list[tuple[StructurePrior | ParameterPrior, str, str]] = [
    (Unfinished(4), "derivations", "Unfinished.sample: expected finished derivations, padded with rule 13; found"),
    (Foreign(4), "derivations", "Foreign.sample: expected finished derivations, padded with rule 13; found 200 of 200"),
    (Floats(4), "derivations", "Floats.sample: expected int64 of shape [200, steps]; found torch.float32"),
    (Impossible(4), "derivations", "Impossible.log_prob: expected finite log-probabilities of its own samples"),
    (OwnDice(4), "deterministic", "OwnDice.sample: expected equal structures for generators of one seed; found other"),
    (Overshoot(), "attributes", "Overshoot.sample: expected 'x' in 0 .. 1 (DigitCanvas's bounds); found values"),
    (Flat(), "attributes", "Flat.sample: expected 'x' of shape [100, 4]; found [100, 1]"),
    (Forgetful(), "parts", "Forgetful.sample: expected the attribute 'example', which DigitCanvas reads; found x, y: "),
    (Shuffling(), "objects", "Shuffling.sample: expected the structure's objects in their order, of classes"),
    (Orphaned(), "objects", "Orphaned.sample: expected parents that are objects of the scene, or -1; found values"),
    (Nothing(), "objects", "Nothing.sample: expected a SceneBatch; found a NoneType"),
    (OwnPlaces(), "deterministic", "OwnPlaces.sample: expected equal attributes for generators of one seed; found"),
    (Misdeclared(), "mutable", "Misdeclared.mutable: expected owners among *, environment, 0, 1, "),
    (Narrow(), "mutable", "Narrow.sample: expected 'x' of * in 0.4 .. 0.6, where it may be learned; found values"),
    (Wide(), "mutable", "Wide.mutable: expected 'x' within DigitCanvas's bounds 0 .. 1; found -1 .. 2"),
]


@pytest.mark.parametrize(("prior", "name", "message"), BROKEN_PRIORS, ids=lambda x: type(x).__name__)
def test_a_broken_prior_is_found(prior: StructurePrior | ParameterPrior, name: str, message: str) -> None:
    of_structure = isinstance(prior, StructurePrior)
    world = small(structure_prior=prior) if of_structure else small(parameter_prior=prior)  # type: ignore[arg-type]
    findings = [str(finding) for finding in outcome_of(world, name).findings]
    assert any(finding.startswith(message) for finding in findings), findings


def test_a_grammar_with_a_class_that_nothing_derives_is_found() -> None:
    world = small(grammar=Grammar("Scene -> Digits\nDigits -> 0 Digits | ε\nLost -> 1"))
    (finding,) = (f for f in outcome_of(world, "grammar").findings if "no derivation of 1" in f.found)
    assert finding.where == "Grammar"


# --- all of a world ---


def test_a_value_that_breaks_the_check_itself_is_not_checked_and_says_why() -> None:
    outcome = outcome_of(small(parameter_prior=Flat()), "mutable")
    assert not outcome.passed and outcome.obstacle.startswith("a fault of the world led to IndexError: ")


def test_contracts_that_rely_on_a_broken_one_are_not_checked_and_say_why() -> None:
    outcomes = {outcome.name: outcome for outcome in check_world(small(structure_prior=Unfinished(4)))}
    assert list(outcomes) == list(CONTRACTS)
    assert outcomes["grammar"].passed and outcomes["derivations"].findings
    assert not outcomes["images"].passed and not outcomes["images"].findings
    assert outcomes["images"].obstacle == "Unfinished.sample gives no valid derivations"


def test_a_sound_world_passes_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    assert all(outcome.passed and outcome.title for outcome in check_world(small()))
    list(check_world(small(structure_prior=OwnDice(4))))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_world_without_pixels_keeps_what_concerns_it() -> None:
    assert {outcome.name for outcome in check_world(abacus()) if not outcome.passed} <= {"boxes", "labels"}


@pytest.mark.parametrize(
    "world",
    [small(structure_prior=UniformDigits(0)), small(structure_prior=UniformDigits(1)), small(DigitCanvas(1, 1))],
    ids=["no digits", "at most one", "a digit that fills the canvas"],
)
def test_worlds_that_leave_little_to_chance_are_sound(world: World) -> None:
    assert [outcome for outcome in check_world(world) if not outcome.passed] == []


def test_a_renderer_of_another_world_is_named() -> None:
    (finding, *_) = outcome_of(small(AerialView(canvas_size=40)), "parts").findings
    assert finding.where == "UniformPlacement.sample"
    assert "which AerialView reads" in finding.expected
    assert finding.found.endswith("UniformPlacement and AerialView may belong to different worlds")


# --- the first batch ---


FIRST = [
    *((small(cls(40, 12)), message) for cls, _, message in BROKEN_RENDERERS[:6]),
    (small(relabelled("boxes", transposed)(40, 12)), "expected boxes that hold the visible pixels"),
    (small(structure_prior=Unfinished(4)), "Unfinished.sample: expected finished derivations"),
    (small(parameter_prior=Orphaned()), "Orphaned.sample: expected parents that are objects"),
    (small(UnlabelledCanvas(40, 12)), "expected a Rendering; found a NoneType"),
    (small(parameter_prior=Overshoot()), "Overshoot.sample: expected 'x' in 0 .. 1"),
    (small(parameter_prior=Forgetful()), "Forgetful.sample: expected the attribute 'example'"),
    (small(AerialView(canvas_size=40)), "may belong to different worlds"),
    (small(CrashingCanvas(40, 12)), "CrashingCanvas.render: expected no error; found IndexError"),
    (small(LeavingCanvas(40, 12)), "LeavingCanvas.render: expected no error; found SystemExit: 0"),
]


@pytest.mark.parametrize(("world", "message"), FIRST)
def test_the_first_batch_shows_it(world: World, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_first_batch(world)
    assert message in str(error.value)
    assert str(error.value).startswith("a part of this world is broken. ") and "'ms2 check WORLD'" in str(error.value)


def test_a_sound_first_batch_is_returned() -> None:
    assert len(check_first_batch(small()).image) == num_first_scenes(small()) == 8
    assert num_first_scenes(small(DigitCanvas(800, 12))) == 2


class Refusing(DigitCanvas, selectable=False):
    def render(self, scenes: SceneBatch) -> Any:
        raise UserError("give another font")


def test_what_a_part_says_to_a_person_stays_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^give another font$"):
        check_first_batch(small(Refusing(40, 12)))


@pytest.mark.parametrize(
    "features",
    [DenseCounts(1, list("0123456789"), max_count=3), ResNet(1, list("0123456789"), count_heads=True, max_count=3)],
    ids=lambda features: type(features).__name__,
)
def test_counts_beyond_max_count_are_found_before_training(features: TrainedExtractor) -> None:
    (finding,) = check_max_count(features, small(), RandomDigits(1, 5)).findings
    assert finding.where == f"{type(features).__name__}.max_count"
    found = (
        "an image of the prior holds 5 objects, but" if isinstance(features, DenseCounts) else "an image of the prior "
    )
    assert finding.found.startswith(found)
    assert check_max_count(features, small(), UniformDigits(3)).passed
    assert check_max_count(ResNet(1, list("0123456789")), small()).passed, "no count heads"


def test_hidden_objects_do_not_count_where_they_are_not_labelled() -> None:
    """Digits as large as the canvas hide each other."""
    world = small(DigitCanvas(12, 12))
    names = list("0123456789")
    assert not check_max_count(DenseCounts(1, names, max_count=3), world).passed
    assert check_max_count(DenseCounts(1, names, max_count=3, min_visibility=0.9), world).passed
