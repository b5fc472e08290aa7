"""Panoptic and semantic maps, normals, amodal masks and depth: read by others, and compared with geometry."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import python_of, run_reader
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from test_datasets import SMALL, changed_files, small, tree
from torchmetrics.detection import PanopticQuality
from torchvision.datasets import Cityscapes

from ms2.core.errors import UserError
from ms2.datasets.formats.panoptic import CITYSCAPES_TRAIN_IDS, IGNORED, cityscapes_maps
from ms2.datasets.generate import generate
from ms2.datasets.job import Job
from ms2.datasets.labels import LabelArrays, LabelFilter, image_labels
from ms2.datasets.maps import DenseMaps, decode_ids, encode_ids
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord, Segment
from ms2.models.opening import open_model
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch
from ms2.scene.records import SceneObject, SceneRecord, from_record
from ms2.worlds.driving3d.declaration import OBJECTS
from ms2.worlds.driving3d.mesh_tables import load_mesh_tables
from ms2.worlds.driving3d.renderer import Rendering3D
from ms2.worlds.driving3d.surfaces import CITYSCAPES_IDS, OTHER_SURFACE, SURFACE_MESHES, SURFACES

pytestmark = [
    # pycocotools 2.0.11 decodes masks by NumPy's older protocol
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
NUMBER = 6
MAPS = ("panoptic", "normals", "amodal", "float_depth")
CITYSCAPES_NAMES = {
    "sky": "sky", "road": "road", "parking": "parking", "pavement": "sidewalk", "terrain": "terrain", "car": "car",
    "truck": "truck", "cyclist": "rider", "pedestrian": "person", "tree": "vegetation", "bush": "vegetation",
    "house": "building", "building": "building", "skyline": "static", "sign": "traffic sign",
    "light": "traffic light", "pole": "pole",
}  # fmt: skip


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Job:
    settings = [*SMALL["driving3d"], "--world.renderer.size", "[96, 312]"]
    plan = Plan(NUMBER, seed=2, depth=True, maps=MAPS[1:], formats=("coco", "panoptic", "cityscapes"))
    job = Job(open_model("driving3d", arguments=settings), plan, tmp_path_factory.mktemp("maps") / "set")
    assert generate(job, progress=False)
    return job


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(small("aerial2d"), Plan(3, formats=("panoptic",)), tmp_path_factory.mktemp("roads") / "set")
    assert generate(job, progress=False)
    return job


def record(job: Job, number: int) -> ImageRecord:
    return ImageRecord.from_json(json.loads((job.root / f"scenes/{number:06d}.json").read_text()))


def rendered(job: Job, number: int) -> Any:
    """The scene of a record, drawn again."""
    found = SceneRecord.from_json(json.loads((job.root / f"scenes/{number:06d}.json").read_text())["scene"])
    return job.world.renderer.render_labelled(from_record(found, job.world.classes))


def cars(job: Job, *places: tuple[float, float], pitch: float = 0.0) -> SceneBatch:
    """Cars that head away from the camera, at places x, y on a straight street."""
    street = dict(record(job, 0).scene.environment) | {"curve": 0.0, "offset": 0.0, "camera_yaw": 0.0, "pitch": pitch}
    plain = dict.fromkeys(("width", "length", "height"), 1.0) | {"yaw": 0.0, "model": 0.0, "colour": 0.5}
    objects = [SceneObject("Urban", -1, {"x": 0.0, "y": 0.0, **plain})]
    objects += [SceneObject("car", 0, {"x": x, "y": y, **plain}) for x, y in places]
    return from_record(SceneRecord(street, objects), job.world.classes)


def named(names: np.ndarray, table: dict[str, Any]) -> np.ndarray:
    """Replace each of the names by what a table has for it."""
    found, inverse = np.unique(names, return_inverse=True)
    return np.array([table[name] for name in found])[inverse].reshape(names.shape)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def surfaces_by_mesh(job: Job, rendering: Rendering, number: int) -> np.ndarray:
    """Name of the surface or class at each pixel, from the names of the meshes."""
    classes = [job.world.classes[i] for i in rendering.classes[0].tolist()]
    if not isinstance(rendering, Rendering3D):
        names = np.array([*classes, "background"])
        return names[rendering.instances[0].numpy()]
    scenes = from_record(record(job, number).scene, job.world.classes)
    library = list(load_mesh_tables(None, "raise").library.meshes)
    meshes = job.world.renderer.assemble(scenes).instances.mesh[0, len(classes) :].tolist()
    kinds = {word: name for name, words in SURFACE_MESHES.items() for word in words}
    ground = [kinds[library[mesh].split("_")[0]] for mesh in meshes]
    return np.array([*classes, *ground, "sky"])[rendering.drawn[0].numpy()]


@pytest.mark.parametrize("world", ["streets", "roads"])
def test_panoptic_maps_have_a_quality_of_one(world: str, request: pytest.FixtureRequest) -> None:
    """By torchmetrics, of what its format says against what was drawn; every pixel belongs to a segment."""
    job: Job = request.getfixturevalue(world)
    found = json.loads((job.root / "annotations/panoptic.json").read_text())
    categories = {one["id"]: one for one in found["categories"]}
    names = {one["name"]: i for i, one in categories.items()}
    things = {i for i, one in categories.items() if one["isthing"]}
    measure = PanopticQuality(things, {*categories} - things)
    for annotation in found["annotations"][:3]:
        number = annotation["image_id"]
        truth = rendered(job, number)
        category = named(surfaces_by_mesh(job, truth, number), names)
        colours = pixels(job.root / "panoptic" / annotation["file_name"]).astype(int)
        ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]  # as panopticapi's rgb2id
        read = np.zeros((2, *ids.shape), int)
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            read[:, mask] = [[segment["category_id"]], [segment["id"]]]
            rows, columns = mask.nonzero()
            x, y, width, height = segment["bbox"]
            assert segment["area"] == mask.sum()
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert (read[0] > 0).all()
        expected = np.stack([category, truth.instances[0].numpy() + 1])
        measure.update(torch.tensor(read).permute(1, 2, 0)[None], torch.tensor(expected).permute(1, 2, 0)[None])
    assert measure.compute() == 1
    assert [one["id"] for one in found["images"]] == [one["image_id"] for one in found["annotations"]]


def test_panoptic_and_instance_categories_have_the_same_ids(streets: Job) -> None:
    panoptic = json.loads((streets.root / "annotations/panoptic.json").read_text())["categories"]
    coco = COCO(streets.root / "annotations/instances.json")
    ids = {one["name"]: one["id"] for one in panoptic}
    assert all(ids[one["name"]] == one["id"] for one in coco.loadCats(coco.getCatIds()))
    assert [one["name"] for one in panoptic if not one["isthing"]] == list(SURFACES)


def test_surfaces_lie_where_the_street_has_them(streets: Job) -> None:
    """By depth: the road within its width at height 0, the pavement beside it, and the terrain beyond."""
    shares: dict[str, list[float]] = {}
    for number in range(NUMBER):
        truth, about = rendered(streets, number), record(streets, number)
        of = about.scene.environment
        depth = truth.depth[0].double().numpy()
        (fx, _, cx, tx), (_, fy, cy, ty), (_, _, _, tz) = truth.projection[0].double().numpy()
        row, column = np.indices(depth.shape)
        z = np.where(np.isinf(depth), 1e6, depth)
        right = ((column - cx) * z + cx * tz - tx) / fx  # pixel centres are at whole numbers
        down = ((row - cy) * z + cy * tz - ty) / fy
        # KITTI's reference camera, z - tz ahead, turned by pitch and yaw
        pitch, yaw, ahead = of["pitch"], of["camera_yaw"], z - tz
        up = ahead * math.sin(pitch) - down * math.cos(pitch) + of["camera_height"]
        level = ahead * math.cos(pitch) + down * math.sin(pitch)
        x = right * math.cos(yaw) - level * math.sin(yaw)
        y = right * math.sin(yaw) + level * math.cos(yaw)
        aside = x + of["offset"] - of["curve"] * np.maximum(y, 0) ** 2 / 2
        surfaces = truth.surfaces[0].numpy()
        near = depth < 25  # pixels of what is far are large
        inside = {
            "road": (np.abs(aside) < of["road_width"] / 2 + 0.1) & (np.abs(up) < 0.05),
            "parking": (np.abs(aside) > of["road_width"] / 2 - 0.1) & (np.abs(up) < 0.05),
            "pavement": (np.abs(aside) > of["road_width"] / 2 - 0.1) & (np.abs(up - 0.08) < 0.12),
            "terrain": (np.abs(aside) > of["road_width"] / 2 - 0.1) & (up < 0.2),
        }
        for name, right_place in inside.items():
            mask = near & (surfaces == SURFACES.index(name))
            if mask.sum() > 50:
                shares.setdefault(name, []).append(float(right_place[mask].mean()))
        assert np.array_equal(surfaces == 0, np.isinf(depth))  # the sky
        assert np.array_equal(surfaces == -1, truth.instances[0].numpy() >= 0)
    assert set(shares) == {*SURFACES} - {"sky", "skyline"}
    assert min(min(values) for values in shares.values()) > 0.97, shares


def test_every_ground_mesh_has_a_surface_and_everything_an_id() -> None:
    words = {word for listed in SURFACE_MESHES.values() for word in listed}
    library = load_mesh_tables(None, "raise", "detailed").library.meshes
    ground = [name for name in library if name.rsplit("_", 1)[0].removesuffix("_far") not in OBJECTS]
    ground = [name for name in ground if name.split("_")[0] not in OBJECTS]
    assert ground and {name.split("_")[0] for name in ground} == words
    assert set(CITYSCAPES_IDS) == {*SURFACES, *OBJECTS} and OTHER_SURFACE in SURFACES


# --- Cityscapes ---


def test_ids_are_those_of_torchvision_s_cityscapes() -> None:
    by_name = {one.name: one for one in Cityscapes.classes}
    assert {name: by_name[CITYSCAPES_NAMES[name]].id for name in CITYSCAPES_IDS} == CITYSCAPES_IDS
    expected = {one.id: one.train_id for one in Cityscapes.classes if one.train_id not in (IGNORED, -1)}
    assert expected == CITYSCAPES_TRAIN_IDS


def test_torchvision_reads_cityscapes(streets: Job) -> None:
    by_id = {one.id: one for one in Cityscapes.classes}
    class_names, train_ids = ({i: getattr(one, what) for i, one in by_id.items()} for what in ("name", "train_id"))
    data = Cityscapes(streets.root, "train", "fine", target_type=["semantic", "instance"])
    assert len(data) == NUMBER
    seen = 0
    for path in data.images:
        number = int(Path(path).name.split("_")[1])
        image, (semantic, instance) = data[data.images.index(path)]
        labels, instances = np.asarray(semantic), np.asarray(instance)
        truth = rendered(streets, number)
        names = surfaces_by_mesh(streets, truth, number)
        assert np.array_equal(named(labels, class_names), named(names, CITYSCAPES_NAMES))
        assert np.array_equal(np.asarray(image), pixels(streets.root / "images" / f"{number:06d}.png"))
        apart = instances >= 1000
        assert np.array_equal(instances[apart] // 1000, labels[apart])
        assert np.array_equal(apart, np.isin(labels, [i for i, one in by_id.items() if one.has_instances]))
        ids = truth.instances[0].numpy()
        pairs = {*zip(ids[apart].tolist(), instances[apart].tolist(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        seen += len(pairs)
        kept = pixels(Path(path.replace("leftImg8bit", "gtFine", 1).replace("_leftImg8bit", "_gtFine_labelTrainIds")))
        assert np.array_equal(kept, named(labels, train_ids) % 256)
    assert seen > 10


def test_cityscapes_own_scripts_agree(streets: Job, tmp_path: Path) -> None:
    """They find the same instances and ids, and their panoptic maps, made of ours, have a perfect score."""
    run_reader(python_of("cityscapes"), "cityscapes", streets.root, tmp_path)


def test_numbers_of_instances_begin_anew_in_each_class() -> None:
    segments = [Segment(i, name, 1, [0, 0, 1, 1], i) for i, name in enumerate(["car", "car", "pole", "pedestrian"], 1)]
    labels, instances = cityscapes_maps(np.array([[1, 2, 3, 4, 0]]), segments, CITYSCAPES_IDS)
    assert labels.tolist() == [[26, 26, 17, 24, 0]] and instances.tolist() == [[26000, 26001, 17, 24000, 0]]


# --- normals and depth ---


def test_normals_are_those_of_the_planes(streets: Job) -> None:
    """The road's is up, whatever the camera's pitch; none faces away; those of a wall are exact."""
    for pitch in (0.0, 0.1):
        scenes, view = cars(streets, (0.0, 12.0), pitch=pitch), streets.world.renderer
        normals, truth = view.normals(scenes)[0], view.render_labelled(scenes)
        road = truth.surfaces[0] == SURFACES.index("road")
        up = torch.tensor([0.0, -math.cos(pitch), math.sin(pitch)])
        assert (normals[:, road] - up[:, None]).abs().max() < 1e-5
        sky = truth.surfaces[0] == 0
        assert not normals[:, sky].any() and torch.allclose(normals[:, ~sky].norm(dim=0), torch.ones(1), atol=1e-5)
    found = pixels(streets.root / "normals/000000.png").astype(float) / 255 * 2 - 1
    expected = streets.world.renderer.normals(from_record(record(streets, 0).scene, streets.world.classes))[0]
    shown = expected.norm(dim=0).numpy() > 0
    assert np.abs(found[shown] - expected.permute(1, 2, 0).numpy()[shown]).max() <= 1 / 255 + 1e-6
    assert (pixels(streets.root / "normals/000000.png")[~shown] == 0).all() and (~shown).any()


def test_depth_in_floats_is_exact(streets: Job) -> None:
    """And the 16-bit image is the same, rounded to 1/256 m."""
    for number in range(NUMBER):
        exact = pixels(streets.root / f"float_depth/{number:06d}.tiff")
        assert exact.dtype == np.float32
        assert np.array_equal(exact, rendered(streets, number).depth[0].numpy()) and np.isinf(exact).any()
        rounded = pixels(streets.root / f"depth/{number:06d}.png").astype(float) / 256
        assert np.abs(rounded - exact)[rounded > 0].max() <= 0.5 / 256 + 1e-6


# --- amodal masks ---


def test_amodal_masks_are_those_without_the_others(streets: Job) -> None:
    """A car that another hides in part: its mask is that of the scene without the other."""
    places, view = [(0.0, 16.0), (1.2, 9.0), (6.0, 16.0)], streets.world.renderer
    scenes = cars(streets, *places)
    alone = view.amodal_depths(scenes, torch.tensor([[False, True, True, True]]))
    truth = view.render_labelled(scenes)
    assert 0.1 < float(truth.visibility[0, 1]) < 0.9 and float(truth.visibility[0, 2]) == 1
    for place, depth in zip(places, alone, strict=True):
        single = view.render_labelled(cars(streets, place))
        mask = single.instances[0] == 1
        # at the outline, what is behind may have more samples of a pixel than a car that is there with half of them
        assert not (mask & depth.isinf()).any() and (depth.isfinite() & ~mask).sum() <= 0.03 * mask.sum()
        assert (depth - single.depth[0])[mask].abs().max() < 1e-4


def test_coco_has_amodal_masks_and_what_hides_an_object(streets: Job) -> None:
    """pycocotools decodes them: they hold the visible masks, fill the amodal boxes, and others are in front."""
    coco = COCO(streets.root / "annotations/instances.json")
    hidden_in_part = filled = 0
    for one in coco.loadAnns(coco.getAnnIds()):
        whole = coco_mask.decode(one["amodal_segmentation"]).astype(bool)
        visible = coco.annToMask(one).astype(bool)
        assert not (visible & ~whole).any()
        x, y, width, height = coco_mask.toBbox(one["amodal_segmentation"])
        left, top, across, down = one["amodal_bbox"]
        assert x > left - 1 and y > top - 1 and x + width < left + across + 1 and y + height < top + down + 1
        fraction = visible.sum() / whole.sum()
        if whole.sum() > 200:
            # the fraction is one of samples, of which a pixel of thin leaves has few
            assert fraction == pytest.approx(one["visibility"], abs=0.1)
        if coco.cats[one["category_id"]]["name"] in ("car", "truck", "building"):  # posts may be thinner than a pixel
            filled += 1
            assert width > 0.9 * across - 2 and height > 0.9 * down - 2
        truth = rendered(streets, one["image_id"])
        in_front = {*truth.instances[0].numpy()[whole & ~visible].tolist()} - {-1}
        assert {*one["occluded_by"]} <= in_front and one["object"] not in one["occluded_by"]
        depth, y_of = truth.depth[0].numpy(), truth.boxes3d[0, :, 5]
        hidden_in_part += len(one["occluded_by"])
        for other in one["occluded_by"]:
            assert y_of[other] < y_of[one["object"]] + 12  # long ones may be nearer with another part
        assert np.isfinite(depth[visible]).all()
    assert hidden_in_part > 20 and filled > 10


def test_order_of_occlusion(streets: Job) -> None:
    """Of cars in a row, each is hidden by those before it, and none by itself or by what is behind it."""
    scenes, world = cars(streets, (0.0, 8.0), (0.8, 15.0), (1.6, 22.0), (-5.0, 15.0)), streets.world
    truth = world.renderer.render_labelled(scenes)
    labels, _ = image_labels(LabelArrays.from_rendering(truth), 0, world.classes, LabelFilter(("car",), 0.0, 1))
    (found,) = DenseMaps(world, ("amodal",)).render(scenes, truth, [labels])
    assert {label.object: label.occluded_by for label in found.labels} == {1: [], 2: [1], 3: [1, 2], 4: []}


# --- the data set ---


def test_lost_maps_are_made_again(streets: Job, tmp_path: Path) -> None:
    whole = tree(streets.root)
    copy = Job(streets.source, streets.plan, tmp_path / "copy")
    for name, content in whole.items():
        path = copy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (copy.root / "panoptic/000001.png").unlink()
    (copy.root / "normals/000003.png").write_bytes(b"")
    assert not copy.is_complete(0) and generate(copy, progress=False)
    assert changed_files(tree(copy.root), whole) == []


def test_records_survive_json(streets: Job) -> None:
    found = record(streets, 1)
    assert ImageRecord.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert set(found.maps) == {"panoptic", "normals", "float_depth"} and found.segments


def test_segments_have_room_for_many_objects() -> None:
    ids = np.array([[0, 255, 256, 65535, 65536, 2**24 - 1]])
    assert np.array_equal(decode_ids(encode_ids(ids)), ids)


@pytest.mark.parametrize(
    ("world", "plan", "message"),
    [
        ("driving3d", {"maps": ("normal",)}, "there is no map 'normal'. Did you mean 'normals'?"),
        ("aerial2d", {"maps": ("amodal",)}, "images of AerialView have no map 'amodal', which is of 3D scenes"),
        ("multimnist", {"formats": ("cityscapes",)}, "have no Cityscapes ids: use the format panoptic"),
        ("driving3d", {"formats": ("cityscapes",), "image": "jpeg"}, "the format cityscapes has PNG images"),
    ],
)
def test_what_a_world_lacks_is_said(world: str, plan: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Job(small(world), Plan(1, **plan), tmp_path)
    assert message in str(error.value)
