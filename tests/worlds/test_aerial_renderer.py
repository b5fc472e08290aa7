"""The renderer of Aerial 2D against brute force and scenes whose image is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ms2.core.errors import UserError
from ms2.render.base import Rendering
from ms2.render.compositing.sprites import mask_boxes
from ms2.scene.batch import SceneBatch
from ms2.worlds.aerial2d.assets import GROUND_TEXTURES, ROAD_LANE_COUNTS, make_grounds, procedural_sprites
from ms2.worlds.aerial2d.declaration import AERIAL_CLASSES
from ms2.worlds.aerial2d.renderer import AerialView

ROAD, CAR, HOUSE, TREE = range(4)
NAMES = ("x", "y", "angle", "length", "width", "model", "colour")
VIEW = AerialView()


def scene(*objects: tuple[float, ...], **environment: float) -> SceneBatch:
    """One scene of objects: class, then attributes in the order of `NAMES`, of which the last two may be left out."""
    table = torch.tensor([[*thing, *[0.5] * (8 - len(thing))] for thing in objects]).view(1, -1, 8)
    of = {"ground": 0.15, "ground_x": 0.0, "ground_y": 0.0, "sun": -0.8, "light": 1.0, **environment}
    classes = table[..., 0].long()
    attributes = {name: table[..., 1 + i].clone() for i, name in enumerate(NAMES)}
    return SceneBatch(classes, torch.full_like(classes, -1), attributes, {k: torch.tensor([v]) for k, v in of.items()})


def crowd(b: int = 5, n: int = 30, seed: int = 0) -> SceneBatch:
    """Scenes full of all kinds of objects, lying over one another and over the edge, with unused entries between."""
    draw = torch.rand(7, b, n, generator=torch.Generator().manual_seed(seed))
    classes = (draw[0] * 5).long() - 1
    size = torch.tensor([[60, 7], [4.5, 1.9], [12, 9], [6, 6], [1, 1]])[classes] * (0.7 + 0.6 * draw[1][..., None])
    values = (draw[2] * 64, draw[3] * 64, (draw[4] * 2 - 1) * math.pi, size[..., 0], size[..., 1], draw[5], draw[6])
    rest = torch.rand(5, b, generator=torch.Generator().manual_seed(seed + 1))
    environment = dict(zip(("ground", "ground_x", "ground_y"), rest[:3], strict=True))
    environment |= {"sun": (rest[3] * 2 - 1) * math.pi, "light": 0.7 + 0.4 * rest[4]}
    parents = torch.full_like(classes, -1)
    return SceneBatch(classes, parents, dict(zip(NAMES, values, strict=True)), environment)


def alone(scenes: SceneBatch, place: int) -> SceneBatch:
    """Only one object of each scene."""
    keep = torch.arange(scenes.classes.shape[1]) == place
    classes = torch.where(keep, scenes.classes, -1)
    return SceneBatch(classes, scenes.parents, scenes.attributes, scenes.environment)


# --- images ---


@pytest.mark.parametrize("labelled", [False, True])
def test_an_image_does_not_depend_on_its_batch(labelled: bool) -> None:
    scenes = crowd(20)

    def images(part: SceneBatch) -> Tensor:
        return VIEW.render_labelled(part).image if labelled else VIEW.render(part)

    whole = images(scenes)
    assert whole.shape == (20, 3, 128, 128) and whole.dtype == torch.float32
    assert whole.min() >= 0 and whole.max() <= 1
    for part in (slice(3, 5), slice(0, 1), slice(15, 20)):
        assert torch.equal(images(scenes[part]), whole[part])


def test_images_and_labels_come_from_one_drawing() -> None:
    scenes = crowd()
    assert torch.equal(VIEW.render(scenes), VIEW.render_labelled(scenes).image)


def test_labels_do_not_depend_on_the_batch() -> None:
    scenes = crowd(20)
    whole, part = VIEW.render_labelled(scenes), VIEW.render_labelled(scenes[14:18])
    for name, values in vars(part).items():
        assert torch.equal(values, getattr(whole, name)[14:18]), name


def test_unused_entries_are_not_read() -> None:
    scenes = crowd()
    noise = {name: torch.where(scenes.mask, v, torch.nan) for name, v in scenes.attributes.items()}
    clean, noisy = VIEW.render_labelled(scenes), VIEW.render_labelled(scenes.with_attributes(**noise))
    assert all(torch.equal(values, getattr(noisy, name)) for name, values in vars(clean).items())


@pytest.mark.parametrize("number", [0, 1, 3])
def test_scenes_without_objects_show_the_ground(number: int) -> None:
    environment = {name: torch.full((number,), 0.5) for name in ("ground", "ground_x", "ground_y", "sun", "light")}
    nothing = torch.full((number, 2), -1)
    scenes = SceneBatch(nothing, nothing, {name: torch.zeros(number, 2) for name in NAMES}, environment)
    labels = VIEW.render_labelled(scenes)
    assert labels.image.shape == (number, 3, 128, 128)
    assert (labels.instances == -1).all() and not labels.boxes.any() and not labels.visibility.any()
    ground = make_grounds(128, 64.0)[len(GROUND_TEXTURES) // 2, :, 128:, 128:]
    for image in labels.image:
        torch.testing.assert_close(image, ground * 0.5)


def test_grounds_repeat_without_a_seam() -> None:
    """Steps across the edge are no greater than those within."""
    for texture in make_grounds(128, 64.0):
        for axis in (1, 2):
            within = texture.diff(dim=axis).abs().mean((0, 3 - axis))
            across = (texture.select(axis, 0) - texture.select(axis, -1)).abs().mean()
            assert across <= 1.2 * within.max()


def test_a_moved_car_takes_its_pixels_along() -> None:
    """Whole pixels further, on a ground that moves with it."""
    near, far = scene((CAR, 20, 30, 0.4, 4.5, 1.9)), scene((CAR, 25, 32, 0.4, 4.5, 1.9), ground_x=-10 / 256 + 1)
    far = far.with_environment(ground_y=torch.tensor([1 - 4 / 256]))
    first, second = VIEW.render_labelled(near), VIEW.render_labelled(far)
    torch.testing.assert_close(first.image[..., 40:80, 20:60], second.image[..., 44:84, 30:70], atol=1e-4, rtol=0)
    assert torch.equal(first.instances[..., 40:80, 20:60], second.instances[..., 44:84, 30:70])
    assert torch.equal(first.boxes + torch.tensor([10.0, 4, 10, 4]), second.boxes)


def test_the_light_is_a_factor() -> None:
    bright, dim = (
        VIEW.render(scene((CAR, 32, 32, 0.0, 4.5, 1.9))),
        VIEW.render(scene((CAR, 32, 32, 0.0, 4.5, 1.9), light=0.7)),
    )
    inside = bright < 1  # nothing that was cut off
    torch.testing.assert_close(dim[inside], 0.7 * bright[inside])


@pytest.mark.parametrize(("sun", "dark", "lit"), [(0.0, 26, -26), (math.pi, -26, 26)])
def test_shadows_fall_away_from_the_sun(sun: float, dark: int, lit: int) -> None:
    empty, full = (
        VIEW.render(scene((CAR, -50, 0, 0, 1, 1), sun=sun)),
        VIEW.render(scene((HOUSE, 32, 32, 0.0, 24, 12), sun=sun)),
    )
    loss = (empty - full)[0, :, 60:68].mean((0, 1))
    assert loss[64 + dark] > 0.05
    assert loss[64 + lit] == pytest.approx(0, abs=1e-6)


def test_higher_things_throw_shadows_on_lower_ones_only() -> None:
    car, house = (CAR, 32, 32, 0.0, 4.5, 1.9), (HOUSE, 32, 26, 0.0, 12, 9)
    with_house, without = VIEW.render(scene(car, house, sun=-math.pi / 2)), VIEW.render(scene(car, sun=-math.pi / 2))
    assert (without - with_house)[0, :, 62:66, 60:68].mean() > 0.02
    # its own kind does not, and cars are too low
    beside = VIEW.render(scene(house, (CAR, 32, 31, 0.0, 12, 1), sun=math.pi / 2))
    assert torch.equal(beside[..., 45:58, 56:72], VIEW.render(scene(house, sun=math.pi / 2))[..., 45:58, 56:72])


def test_a_heading_shows() -> None:
    """Lamps are white in front and red behind."""
    view = AerialView(canvas_size=512)
    ahead = view.render(scene((CAR, 32, 32, 0.0, 4.5, 1.9, 0.0, 0.0)))[0]
    back, front = ahead[:, 248:264, 239:242], ahead[:, 248:264, 271:274]
    assert (back[0] - back[1]).max() > 0.4 and (front[0] - front[1]).max() < 0.2
    turned = view.render(scene((CAR, 32, 32, math.pi / 2, 4.5, 1.9, 0.0, 0.0)))[0]
    torch.testing.assert_close(
        turned[:, 240:272, 250:262], ahead.rot90(1, (1, 2))[:, 240:272, 250:262], atol=0.02, rtol=0
    )


def test_houses_turn_their_lit_side_to_the_sun() -> None:
    """At every angle of theirs the sunny side is the lighter one."""
    for angle in (0.0, math.pi):
        for sun, sign in ((-math.pi / 2, 1), (math.pi / 2, -1)):  # the shadow falls downwards, then upwards
            image = VIEW.render(scene((HOUSE, 32, 32, angle, 12, 9, 0.0, 0.4), sun=sun))[0].mean(0)
            assert sign * (image[58:62, 56:72].mean() - image[66:70, 56:72].mean()) > 0.05


def test_roads_cross_the_whole_image_whatever_their_length() -> None:
    for angle in (0.0, 0.7, math.pi / 2, -2.0):
        for x in (1.0, 63.0):
            long, short = (VIEW.render_labelled(scene((ROAD, x, 30, angle, size, 7))) for size in (80, 0.5))
            assert torch.equal(long.instances, short.instances)
            share = (long.instances == 0).float().mean()
            assert share > 0.01
    level = VIEW.render_labelled(scene((ROAD, 10, 32, 0.0, 5, 7))).instances[0]
    assert (level[57:71] == 0).all() and (level[:57] == -1).all() and (level[71:] == -1).all()


def test_no_lines_where_roads_cross() -> None:
    view = AerialView(canvas_size=512)
    one = view.render(scene((ROAD, 32, 32, 0.0, 9, 7)))[0, 0, 232:280, 232:280]
    both = view.render(scene((ROAD, 32, 32, math.pi / 2, 9, 7), (ROAD, 32, 32, 0.0, 9, 7)))[0, 0, 232:280, 232:280]
    assert one.max() > 0.85 and both.max() < 0.75


def test_wider_roads_have_more_lanes() -> None:
    assert len(procedural_sprites("Road", 4.0)) == len(ROAD_LANE_COUNTS)
    lines = []
    for width in (3, 7, 14, 20):
        image = AerialView(canvas_size=512).render(scene((ROAD, 32, 32, math.pi / 2, 9, width)))[0].mean(0)
        marked = (image.amax(0) > 0.75).int()  # columns with a line or a dash
        lines.append(int((marked.diff() == 1).sum()))
    assert lines[0] == 0 and lines[1] == 3
    assert lines[1] < lines[2] < lines[3]


# --- labels ---


def brute(view: AerialView, scenes: SceneBatch) -> tuple[Tensor, Tensor]:
    """Masks of objects drawn one by one, and what is uppermost at each pixel by level and order."""
    masks = []
    for place in range(scenes.classes.shape[1]):
        masks.append(view.render_labelled(alone(scenes, place)).instances == place)
    mask = torch.stack(masks, 1)
    level = torch.tensor([*(AERIAL_CLASSES[name].level for name in view.classes), -1])[scenes.classes]
    order = torch.where(scenes.mask, level * 100 + torch.arange(scenes.classes.shape[1]), -1)
    best = torch.where(mask, order[..., None, None], -1).amax(1)
    return mask, torch.where(best >= 0, best % 100, -1)


def test_labels_agree_with_objects_drawn_one_by_one() -> None:
    scenes = crowd(4)
    labels = VIEW.render_labelled(scenes)
    mask, instances = brute(VIEW, scenes)
    assert torch.equal(labels.instances, instances)
    seen = mask & (instances[:, None] == torch.arange(mask.shape[1])[:, None, None])
    for found, wanted in ((labels.boxes, mask), (labels.visible_boxes, seen)):
        assert torch.equal(found.flatten(0, 1), mask_boxes(wanted.flatten(0, 1)))
    share = seen.sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
    torch.testing.assert_close(labels.visibility, share)
    assert 0 < int((share == 0).sum()) < share.numel()


@pytest.mark.parametrize("kind", [CAR, HOUSE, TREE])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.5])
def test_an_object_fills_its_box(kind: int, angle: float) -> None:
    """Its mask's box is that of its corners, but for rounded corners and a crown's ragged outline."""
    size = {CAR: (4.5, 1.9), HOUSE: (12, 9), TREE: (7, 7)}[kind]
    labels = VIEW.render_labelled(scene((kind, 30, 33, 0.0 if kind == TREE else angle, *size)))
    corners, box = labels.corners[0, 0], labels.boxes[0, 0]
    wanted = torch.cat([corners.amin(0), corners.amax(0)])
    assert (box - wanted).abs().max() <= 1.5
    assert labels.visibility[0, 0] == 1


def test_corners_are_those_computed_by_hand() -> None:
    labels = VIEW.render_labelled(scene((CAR, 10, 20, 0.0, 4, 2), (HOUSE, 40, 30, math.pi / 2, 12, 8)))
    right = [[24, 38], [24, 42], [16, 42], [16, 38]]  # front left, front right, rear right, rear left; 2 pixels a metre
    up = [[72, 48], [88, 48], [88, 72], [72, 72]]
    torch.testing.assert_close(labels.corners[0], torch.tensor([right, up]).float(), atol=1e-4, rtol=0)


def test_what_a_house_covers_is_not_seen() -> None:
    labels = VIEW.render_labelled(scene((CAR, 30, 30, 0.3, 4.5, 1.9), (HOUSE, 30, 30, 0.0, 12, 9)))
    assert labels.visibility.tolist() == [[0, 1]]
    assert not labels.visible_boxes[0, 0].any() and labels.boxes[0, 0].any()
    assert labels.instances.unique().tolist() == [-1, 1]


def test_what_lies_outside_is_not_there() -> None:
    outside = scene((CAR, 80, 30, 0.3, 4.5, 1.9), (TREE, 32, -20, 0.0, 5, 5), (HOUSE, 0, 32, 0.0, 12, 9))
    labels = VIEW.render_labelled(outside)
    assert not labels.boxes[0, :2].any() and not labels.visibility[0, :2].any()
    assert labels.boxes[0, 2].tolist() == [0, 55, 12, 73]
    assert labels.visibility[0, 2] == 1
    assert labels.corners[0, 0].any()


def test_parents_and_classes_are_passed_on() -> None:
    scenes = crowd(2)
    labels: Rendering = VIEW.render_labelled(scenes)
    assert torch.equal(labels.parents, scenes.parents) and torch.equal(labels.classes, scenes.classes)


# --- gradients ---


@pytest.mark.parametrize("name", ["x", "y", "angle", "length", "width"])
@pytest.mark.parametrize("kind", [CAR, HOUSE])
def test_gradients_agree_with_finite_differences(name: str, kind: int) -> None:
    """Of the squared difference from an image with the object elsewhere."""
    size = (4.5, 1.9) if kind == CAR else (12, 9)
    there = VIEW.render(scene((kind, 30.4, 30.3, 0.5, size[0] * 1.1, size[1] * 1.1)))
    here = scene((kind, 30.0, 30.0, 0.4, *size))

    def loss(value: Tensor) -> Tensor:
        return (VIEW.render(here.with_attributes(**{name: value})) - there).square().sum()

    value = here.attributes[name].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(value), value)
    with torch.no_grad():
        step = 0.04 if name != "angle" else 0.01
        slope = (loss(value + step) - loss(value - step)) / (2 * step)
    assert gradient.item() == pytest.approx(slope.item(), rel=0.3)


def test_descent_moves_a_house_to_where_it_belongs() -> None:
    there = VIEW.render(scene((HOUSE, 31.0, 30.0, 0.3, 12, 9)))
    here = scene((HOUSE, 30.0, 30.0, 0.3, 12, 9))
    x = here.attributes["x"].clone().requires_grad_()
    for step in range(40):
        loss = (VIEW.render(here.with_attributes(x=x)) - there).square().sum()
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x - 0.1 * 0.9**step * gradient.sign()).detach().requires_grad_()
    assert x.item() == pytest.approx(31, abs=0.02)


# --- settings ---


def test_an_unknown_class_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="cannot render a 'hose'\\. Did you mean 'house'\\? Available: Road, car, "):
        AerialView(classes=("Road", "hose"))


@pytest.mark.parametrize("settings", [{"canvas_size": 0}, {"extent": 0.0}])
def test_an_image_has_a_size(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"(canvas_size must be at least 1|extent must be greater than 0), not 0"):
        AerialView(**settings)


def test_classes_may_come_in_any_order_and_number() -> None:
    view = AerialView(classes=("tree", "truck"))
    labels = view.render_labelled(scene((1, 20, 30, 0.0, 10, 2.5, 0.9), (0, 40, 30, 0.0, 6, 6)))
    usual = VIEW.render_labelled(scene((TREE, 40, 30, 0.0, 6, 6)))
    assert torch.equal(labels.instances == 1, usual.instances == 0)
    assert (labels.boxes[0, 0] - torch.tensor([30.0, 57.5, 50, 62.5])).abs().max() <= 1


def saved(folder: Path, name: str, mode: str = "RGBA", colour: tuple[int, ...] = (255, 0, 255, 255)) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (40, 20), colour).save(path)
    return path


def test_a_folder_of_sprites_replaces_procedural_ones(tmp_path: Path) -> None:
    sprite = np.zeros((20, 40, 4), np.uint8)
    sprite[:, :20], sprite[:, 20:] = (255, 0, 255, 255), (0, 255, 0, 255)
    (tmp_path / "car").mkdir()
    Image.fromarray(sprite).save(tmp_path / "car" / "a.png")
    saved(tmp_path, "ground/b.jpg", "RGB", (0, 0, 255))
    view = AerialView(assets=str(tmp_path))
    image = view.render(scene((CAR, 32, 32, 0.0, 8, 4), (HOUSE, 10, 10, 0.0, 12, 9)))[0]
    torch.testing.assert_close(image[:, 64, 59], torch.tensor([1.0, 0, 1]), atol=0.01, rtol=0)
    torch.testing.assert_close(image[:, 64, 69], torch.tensor([0.0, 1, 0]), atol=0.01, rtol=0)
    torch.testing.assert_close(image[:, 120, 120], torch.tensor([0.0, 0, 1]), atol=0.02, rtol=0)
    drawn_house = VIEW.render(scene((HOUSE, 10, 10, 0.0, 12, 9)))[0]
    torch.testing.assert_close(image[:, 14:26, 10:30], drawn_house[:, 14:26, 10:30], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no subfolders"),
        (["cars/a.png"], "Did you mean 'car'\\? Available: car, ground, house, tree, truck"),
        (["car/notes.txt"], "holds no images"),
        (["car/a.png!broken"], "a.png cannot be read as an image .* or remove it"),
        (["car/a.png!RGB"], "a.png has no transparency: pixels outside of the car"),
        (["car/a.png!clear"], "a.png is fully transparent"),
        (["ground/a.png!broken"], "a.png cannot be read as an image"),
    ],
)
def test_a_folder_that_is_of_no_use_is_named(files: list[str], message: str, tmp_path: Path) -> None:
    for file in files:
        name, _, fault = file.partition("!")
        if fault == "RGB":
            saved(tmp_path, name, "RGB", (1, 2, 3))
        elif fault == "clear":
            saved(tmp_path, name, "RGBA", (1, 2, 3, 0))
        elif name.endswith(".png") and not fault:
            saved(tmp_path, name)
        else:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("no image")
    with pytest.raises(UserError, match=message):
        AerialView(assets=str(tmp_path))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no assets folder .*nowhere.* procedural sprites"):
        AerialView(assets=str(tmp_path / "nowhere"))
