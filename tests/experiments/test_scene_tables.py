"""Exact features: tables of scenes keep what worlds must keep to, and are counted without error."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
from scene_tables import ExactCounts, NoParameters, PooledKDE, SceneTable

from ms2.contracts import check_world
from ms2.core.errors import UserError
from ms2.core.seeding import generator
from ms2.objectives.kde import KDE
from ms2.scene.batch import SceneBatch
from ms2.world import World
from ms2.worlds.aerial2d.grammar import Aerial2D
from ms2.worlds.aerial2d.priors import UniformTraffic
from ms2.worlds.driving3d import Driving, RandomStreets
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import RandomDigits

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

WORLDS = {
    "multimnist": World(MultiMNIST(), RandomDigits(seed=20), NoParameters(), SceneTable(12)),
    "aerial2d": World(Aerial2D(), UniformTraffic(), NoParameters(), SceneTable(40)),
    "driving3d": World(Driving(), RandomStreets(seed=20), NoParameters(), SceneTable(160)),
}
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@every_world
def test_tables_keep_the_contracts(world: World) -> None:
    outcomes = list(check_world(world))
    assert outcomes and all(one.passed for one in outcomes), [str(f) for one in outcomes for f in one.findings]


def counted(scenes: SceneBatch, class_id: int, parent_number: int | None = None) -> list[int]:
    """Number of objects of a class in each scene, one by one; with a parent's number, of those below that parent."""
    found = []
    for classes, parents in zip(scenes.classes.tolist(), scenes.parents.tolist(), strict=True):
        number = 0
        for own, parent in zip(classes, parents, strict=True):
            if own == class_id and parent_number is not None:
                of_its_class = [i for i in range(len(classes)) if parent >= 0 and classes[i] == classes[parent]]
                number += of_its_class.index(parent) == parent_number
            else:
                number += own == class_id
        found.append(number)
    return found


@every_world
def test_every_class_is_counted_exactly(world: World) -> None:
    features = ExactCounts(1, world.classes, max_count=20)
    scenes = world.sample_prior(50, generator(0, "scenes"))
    blocks = features(world.renderer.render(scenes))
    for class_id in range(len(world.classes)):
        assert blocks["classes"][:, class_id].tolist() == counted(scenes, class_id)
    assert torch.equal(blocks["embedding"], blocks["classes"])
    assert blocks["count"].argmax(1).tolist() == scenes.mask.sum(1).clamp(max=20).tolist()


def test_cars_are_counted_by_road() -> None:
    world = WORLDS["aerial2d"]
    features = ExactCounts(1, world.classes, {"Road": 6, "car": 22}, {"car": 4}, count_kernel_std=1.0)
    scenes = world.sample_prior(200, generator(0, "scenes"))
    blocks = features(world.renderer.render(scenes))
    for road in range(4):
        number = counted(scenes, world.classes.index("car"), road)
        assert blocks[f"count_car_{road + 1}"].argmax(1).tolist() == number
        assert blocks["embedding"][:, features.counting.slots.names.index(f"car_{road + 1}")].tolist() == number
    assert blocks["count_Road"].argmax(1).tolist() == counted(scenes, world.classes.index("Road"))


@every_world
def test_bytes_lose_nothing(world: World) -> None:
    """Target images are kept as bytes."""
    features = ExactCounts(1, world.classes, max_count=20)
    images = world.renderer.render(world.sample_prior(50, generator(1, "scenes")))
    kept = (images * 255).round().to(torch.uint8).float() / 255
    assert torch.equal(features.numbers(kept), features.numbers(images))


def test_a_table_that_is_too_small_says_what_to_raise() -> None:
    scenes = WORLDS["multimnist"].sample_prior(50, generator(0, "scenes"))
    with pytest.raises(UserError, match=r"a scene holds \d+ objects, but its table only 3: raise renderer.max_objects"):
        SceneTable(3).render(scenes)
    with pytest.raises(UserError, match="max_objects must be less than 255, not 255"):
        SceneTable(255)


# --- samples that do not match ---


def drawn(n: int, key: str) -> dict[str, Tensor]:
    return {"count": torch.randn(n, 3, generator=generator(0, key))}


def log_density(point: Tensor, samples: Tensor, variance: float) -> float:
    """Log of a kernel density estimate, up to the kernel's constant, which both densities share."""
    kernel = torch.exp(-(samples - point).square().sum(1) / (2 * variance))
    return float(kernel.mean().log())


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_the_last_steps_are_pooled(leave_one_out: bool) -> None:
    objective = PooledKDE(0.5, leave_one_out=leave_one_out, num_steps=2)
    generated, own = drawn(6, "generated"), torch.arange(6)
    first, second, third = (drawn(6, key) for key in ("first", "second", "third"))
    objective(generated, generated, own, drawn(4, "check"))  # settings are tried on a few images, which are forgotten
    for real in (first, second, third):
        score, _ = objective(generated, generated, own, real)
    pooled, points = torch.cat([second["count"], third["count"]]), generated["count"]
    for j in range(6):
        others = torch.cat([points[:j], points[j + 1 :]]) if leave_one_out else points
        expected = log_density(points[j], others, 1.5) - log_density(points[j], pooled, 1.5)
        assert float(score[j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"leave_one_out": False}, {"relative_bandwidth": True}])
def test_one_step_is_what_kde_compares_with(settings: dict[str, Any]) -> None:
    objective, own = PooledKDE(0.5, **settings), torch.arange(6)
    for key in ("first", "second"):
        generated, real = drawn(6, f"generated {key}"), drawn(6, key)
        expected, sharpness = KDE(0.5, **settings)(generated, generated, own, real)
        score, sharp = objective(generated, generated, own, real)
        assert torch.equal(score, expected) and sharp == sharpness
