"""Tests of the detailed set of meshes, its skyline and sky, and of the camera's exposure control."""

import numpy as np
import pytest
import torch
from helpers import rng
from street_geometry import depths

from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.meshes import MeshLibrary
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.worlds.driving3d.assets.ground import ground_meshes
from ms2.worlds.driving3d.assets.mesh_classes import mesh_classes
from ms2.worlds.driving3d.assets.skyline import DISTANCE, SKYLINES, make_skylines
from ms2.worlds.driving3d.declaration import OBJECT_CLASSES
from ms2.worlds.driving3d.grammar import Driving
from ms2.worlds.driving3d.layout import StreetLayout
from ms2.worlds.driving3d.priors import SimpleStreets
from ms2.worlds.driving3d.renderer import StreetView

GRAMMAR = Driving()
MORE = ("car", "pedestrian", "cyclist", "building")
SIZE = (64, 212)


def view(**settings: object) -> StreetView:
    return StreetView(SIZE, engine=WarpEngine(shadow_size=128), **settings)  # type: ignore[arg-type]


def some_streets(n: int = 6, seed: int = 0, **settings: object) -> SceneBatch:
    draw = rng(seed)
    rules = SimpleStreets().sample(GRAMMAR, n, draw)
    return StreetLayout(**settings).sample(scenes_from_derivations(GRAMMAR, rules), draw)  # type: ignore[arg-type]


def empty_street() -> SceneBatch:
    classes = torch.tensor([[GRAMMAR.classes.index("Rural")]])
    scenes = StreetLayout(max_curvature=0).sample(SceneBatch(classes, classes * 0 - 1), rng())
    # no haze, and no exposure or contrast that would hide a difference
    plain = {"haze": 0.0, "exposure": 1.0, "contrast": 1.0, "blur": 0.0, "clouds": 0.0, "saturation": 1.0}
    return scenes.with_environment(**{name: torch.tensor([value]) for name, value in plain.items()})


# --- meshes ---


def test_the_set_has_more_shapes_of_the_same_classes() -> None:
    plain, detailed = mesh_classes(), mesh_classes(mesh_set="detailed")
    assert list(plain) == list(detailed) and mesh_classes(mesh_set="plain") is not detailed
    for name in MORE:
        assert len(detailed[name].models) > 1.8 * len(plain[name].models), name


@pytest.mark.parametrize("name", [*MORE, "tree"])
def test_models_have_true_sizes_and_can_be_drawn(name: str) -> None:
    true, kind = OBJECT_CLASSES[name].true_size, mesh_classes(mesh_set="detailed")[name]
    for mesh, size in zip(kind.models, kind.sizes, strict=True):
        measured = size[1] if true.axis == "length" else size[2]
        assert 0.88 * true.minimum <= measured <= true.maximum
        assert mesh.vertices[:, 2].min() == pytest.approx(0, abs=1e-4)
        assert np.linalg.norm(mesh.normals, axis=1) == pytest.approx(1, abs=1e-4)
        a, b, c = mesh.vertices[mesh.triangles].swapaxes(0, 1)
        assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 1e-8
    assert len(MeshLibrary({str(i): mesh for i, mesh in enumerate(kind.models)})) == len(kind.models)


def test_cars_are_alike_left_and_right_and_face_along_y() -> None:
    for mesh in mesh_classes(mesh_set="detailed")["car"].models:
        places = (mesh.vertices * 200).round().astype(int)
        assert {tuple(place) for place in places * [-1, 1, 1]} == {tuple(place) for place in places}
        red = (mesh.colour[:, 0] > 0.4) & (mesh.colour[:, 1] < 0.1)
        bright = (mesh.colour.min(1) > 0.75) & (mesh.gloss > 0.55) & (mesh.paint == 0)
        assert mesh.vertices[red, 1].max() < -0.95 and mesh.vertices[bright, 1].min() > 0.95


def test_more_cars_are_black_grey_or_silver() -> None:
    def plain(palette: tuple[tuple[float, float, float], ...]) -> float:
        return float(np.mean([max(colour) - min(colour) < 0.06 and max(colour) < 0.8 for colour in palette]))

    few, many = (plain(mesh_classes(mesh_set=name)["car"].palette) for name in ("plain", "detailed"))
    assert many > few + 0.1 and many > 0.6


def test_ground_textures_have_more_pixels_and_less_contrast() -> None:
    for name in ("road_plain_0", "parking_0"):
        plain, detailed = (ground_meshes(flag)[name].textures[0].astype(float) for flag in (False, True))
        assert detailed[..., 0].size == 4 * plain[..., 0].size
        if name == "road_plain_0":  # without markings
            assert detailed.std() / detailed.mean() < 0.7 * plain.std() / plain.mean()


def test_nothing_stands_in_anything_with_the_set() -> None:
    scenes = some_streets(20, mesh_set="detailed")
    assert depths(scenes, "detailed").max() <= 1e-3


# --- skyline ---


def test_skylines_are_far_away_and_cast_no_shadow() -> None:
    meshes = make_skylines()
    assert len(meshes) == len(SKYLINES)
    for mesh in meshes:
        assert not mesh.casts_shadow
        ahead = mesh.vertices[np.abs(mesh.vertices[:, 0]) < 60]
        assert ahead[:, 1].min() > DISTANCE - 10  # behind everything that a layout places
        assert 5 < mesh.vertices[:, 2].max() < 30


def test_a_skyline_closes_the_horizon() -> None:
    scenes = empty_street()
    bare, closed = (view(mesh_set=name).render_labelled(scenes) for name in ("plain", "detailed"))
    sky, hidden = bare.depth.isinf(), ~closed.depth.isinf()
    just_above = sky[0].float().cumsum(0).flip(0).argmax(0)  # the lowest rows of the sky
    covered = (sky & hidden)[0].any(0)
    assert covered.float().mean() > 0.95 and (just_above >= 0).all()
    assert float((sky & hidden).float().sum() / sky.float().sum()) < 0.6  # sky is left above it


def test_a_skyline_is_no_object() -> None:
    scenes = empty_street()
    found = view(mesh_set="detailed").render_labelled(scenes)
    assert (found.instances == -1).all() and not found.visibility.any()


def test_the_sky_is_brighter_than_the_street() -> None:
    scenes = empty_street()
    for clouds in (0.0, 1.0):
        light = scenes.with_environment(clouds=torch.tensor([clouds]))
        found = view(mesh_set="detailed").render_labelled(light)
        sky = found.depth.isinf().unsqueeze(1).expand_as(found.image)
        assert found.image[sky].mean() > 1.5 * found.image[~sky].mean()


# --- exposure control ---


@pytest.mark.parametrize("level", [0.2, 0.36, 0.5])
def test_images_have_the_mean_that_is_metered(level: float) -> None:
    scenes = some_streets(8)
    one = dict.fromkeys(("exposure",), torch.ones(8)) | dict.fromkeys(("blur",), torch.zeros(8))
    scenes = scenes.with_environment(**one, saturation=torch.ones(8))
    free = view().render(scenes).mean((1, 2, 3))
    metered = view(metering=level).render(scenes).mean((1, 2, 3))
    # what is metered is the mean of regions, which is not that of the pixels after contrast
    assert (metered - level).abs().max() < 0.05 and (free - level).abs().max() > 0.1


def test_exposure_is_relative_to_what_is_metered_and_each_image_is_metered_alone() -> None:
    scenes = some_streets(4)
    camera = view(metering=0.36)
    dark, bright = (
        camera.render(scenes.with_environment(exposure=torch.full((4,), value))).mean((1, 2, 3)) for value in (0.8, 1.2)
    )
    assert (bright > dark + 0.05).all()
    together = camera.render(scenes)
    alone = torch.cat([camera.render(scenes[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_what_is_told_of_the_camera_s_processing_makes_the_image() -> None:
    """Linear light times the square of gain and exposure: so another renderer is exposed as ours."""
    scenes = some_streets(4).with_environment(saturation=torch.ones(4), blur=torch.zeros(4))
    camera = view(metering=0.36)
    told = camera.processing(scenes)
    raw = camera.engine.render(camera.assemble(scenes), SIZE, labels=False).image
    linear = raw.square() * (told["gain"] * told["exposure"])[:, None, None, None] ** 2
    expected = linear.sqrt().clamp(max=1) ** told["contrast"][:, None, None, None]
    assert torch.allclose(camera.render(scenes), expected, atol=1e-4)
    assert len(told["gain"].unique()) == 4 and (view().processing(scenes)["gain"] == 1).all()


def test_without_metering_images_are_as_they_were() -> None:
    scenes = some_streets(2)
    assert torch.equal(view().render(scenes), view(mesh_set="plain", metering=None).render(scenes))
    found = view(mesh_set="detailed").render_labelled(some_streets(2, mesh_set="detailed"))
    assert torch.equal(found.image, view(mesh_set="detailed").render(some_streets(2, mesh_set="detailed")))
