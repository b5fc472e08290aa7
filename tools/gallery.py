"""Make the pictures of docs/gallery.md, each from what one command writes.

    python tools/gallery.py            # all of them
    python tools/gallery.py depth      # one

A picture shows what is in the data set's files: this program colours it, and renders nothing. trimesh reads GLB files,
usd-core USD. Where MS2_BLENDER is set, it names the program blender or a Python interpreter with bpy.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "images"
SCENE = 'ms2 generate driving3d --num_scenes 2 --seed 6 --world.renderer.size "[192, 640]"'
"""Beginning of the commands for streets; pictures show the set's second scene."""
STEM = "000001"
CITYSCAPES_COLOURS = {
    7: (128, 64, 128), 8: (244, 35, 232), 9: (250, 170, 160), 11: (70, 70, 70), 17: (153, 153, 153), 20: (220, 220, 0),
    21: (107, 142, 35), 22: (152, 251, 152), 23: (70, 130, 180), 24: (220, 20, 60), 25: (255, 0, 0), 26: (0, 0, 142),
    27: (0, 0, 70),
}  # fmt: skip
"""Cityscapes' own colours by label id."""
Pixels = np.ndarray[Any, Any]


def image(root: Path) -> Pixels:
    """Read the scene's image, float[h w 3]."""
    return np.asarray(Image.open(root / "images" / f"{STEM}.png").convert("RGB"), float)


def labels(root: Path) -> list[dict[str, Any]]:
    """Read COCO's annotations of the scene."""
    content = json.loads((root / "annotations" / "instances.json").read_text(encoding="utf-8"))
    return [one for one in content["annotations"] if one["image_id"] == int(STEM)]


def colour(i: int) -> Pixels:
    """Return a colour for a number, unlike those of its neighbours."""
    return 255 * np.array(colormaps["hsv"]((i * 0.618034) % 1.0)[:3])


def overlaid(root: Path, masks: Sequence[dict[str, Any]]) -> Pixels:
    """Colour masks over the image, with white outlines."""
    pixels = image(root) * 0.6
    for i, found in enumerate(masks):
        mask = coco_mask.decode(found).astype(bool)
        pixels[mask] = 0.35 * pixels[mask] + 0.65 * colour(i)
        inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        edge = mask.copy()
        edge[1:-1, 1:-1] &= ~inner
        pixels[edge] = 255
    return pixels


def instances(root: Path) -> Pixels:
    """Masks of visible parts."""
    return overlaid(root, [one["segmentation"] for one in labels(root)])


def amodal(root: Path) -> Pixels:
    """Masks of whole objects, the large ones first."""
    found = sorted(labels(root), key=lambda one: -one["amodal_bbox"][2] * one["amodal_bbox"][3])
    return overlaid(root, [one["amodal_segmentation"] for one in found if one["category_id"] in near(root)])


def near(root: Path) -> set[int]:
    """Categories whose whole masks are shown: vehicles and people."""
    content = json.loads((root / "annotations" / "instances.json").read_text(encoding="utf-8"))
    shown = ("car", "truck", "van", "pedestrian", "cyclist", "person", "bus")
    return {one["id"] for one in content["categories"] if one["name"].lower() in shown}


def boxes(root: Path) -> Pixels:
    """Boxes of visible parts, of the amodal whole dashed by another colour."""
    picture = Image.fromarray(image(root).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for one in labels(root):
        for name, line in (("amodal_bbox", (255, 255, 255)), ("bbox", tuple(colour(one["category_id"]).astype(int)))):
            x, y, w, h = one[name]
            draw.rectangle((x, y, x + w - 1, y + h - 1), outline=line)
    return np.asarray(picture)


def depth(root: Path) -> Pixels:
    """Depth, near bright, far dark, on a logarithmic scale; the sky black."""
    metres = np.asarray(Image.open(root / "depth" / f"{STEM}.png"), float) / 256
    scaled = 1 - np.log(metres.clip(3, 150) / 3) / np.log(50)
    return np.where(metres[..., None] > 0, 255 * colormaps["magma"](0.08 + 0.92 * scaled)[..., :3], 0)


def normals(root: Path) -> Pixels:
    """Normals as they are stored."""
    return np.asarray(Image.open(root / "normals" / f"{STEM}.png"))


def semantic(root: Path) -> Pixels:
    """Cityscapes' label ids in Cityscapes' colours."""
    (path,) = (root / "gtFine").rglob(f"*_{STEM}_000000_gtFine_labelIds.png")
    table = np.zeros((256, 3))
    for i, rgb in CITYSCAPES_COLOURS.items():
        table[i] = rgb
    return table[np.asarray(Image.open(path))]


def panoptic(root: Path) -> Pixels:
    """Segments, a colour each."""
    red, green, blue = np.moveaxis(np.asarray(Image.open(root / "panoptic" / f"{STEM}.png"), int), -1, 0)
    ids = red + 256 * green + 65536 * blue
    return np.stack([colour(i) * (0.5 + 0.5 * (i % 3) / 2) for i in range(int(ids.max()) + 1)])[ids]


def vertex_colours(part: Any) -> Pixels:
    """Return the colours of a mesh's vertices: of material, vertices and the texture's mean, which glTF multiplies."""
    material, given = part.visual.material, part.visual.vertex_attributes
    linear = np.ones((len(part.vertices), 3)) * np.asarray(material.baseColorFactor)[:3] / 255
    if "color" in given:
        stored = np.asarray(given["color"])[:, :3]
        linear = linear * stored / (np.iinfo(stored.dtype).max if stored.dtype.kind == "u" else 1)
    if material.baseColorTexture is not None:
        linear = linear * (np.asarray(material.baseColorTexture.convert("RGB"), float) / 255).mean((0, 1)) ** 2.2
    return 255 * linear ** (1 / 2.2)


def glb(root: Path) -> Pixels:
    """Triangles of the GLB file."""
    import trimesh

    scene = trimesh.load_scene(root / "glb" / f"{STEM}.glb")
    triangles, colours = [], []
    for node in scene.graph.nodes_geometry:  # a dump of the scene would lose colours of vertices
        matrix, name = scene.graph[node]
        part = scene.geometry[name]
        triangles.append(trimesh.transform_points(part.triangles.reshape(-1, 3), matrix).reshape(-1, 3, 3))
        colours.append(vertex_colours(part)[part.faces].mean(1))
    return painted(np.concatenate(triangles), np.concatenate(colours), np.array([-9.0, 10.0, 6.0]))


def usd(root: Path) -> Pixels:
    """Triangles of the USD file, whose axes are turned to those of GLB."""
    import trimesh
    from pxr import Usd, UsdGeom, UsdShade

    stage, places = Usd.Stage.Open(str(root / "usd" / f"{STEM}.usda")), UsdGeom.XformCache()
    triangles, colours = [], []
    for prim in stage.Traverse():
        if not prim.IsA(UsdGeom.Mesh):
            continue
        mesh, matrix = UsdGeom.Mesh(prim), np.array(places.GetLocalToWorldTransform(prim)).T
        faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
        x, y, z = trimesh.transform_points(np.array(mesh.GetPointsAttr().Get(), float), matrix).T
        triangles.append(np.stack([x, z, -y], -1)[faces])
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        texture = UsdShade.Shader(stage.GetPrimAtPath(material.GetPath().AppendChild("texture")))
        if texture:
            with Image.open(texture.GetInput("file").Get().resolvedPath) as picture:
                mean = (np.asarray(picture.convert("RGB"), float) / 255).mean((0, 1)) ** 2.2
            linear = np.tile(mean * texture.GetInput("scale").Get()[:3], (len(faces), 1))
        else:
            linear = np.array(mesh.GetDisplayColorAttr().Get(), float)
            linear = linear[faces].mean(1) if len(linear) == len(x) else np.tile(linear[0], (len(faces), 1))
        colours.append(255 * linear.clip(0, 1) ** (1 / 2.2))
    return painted(np.concatenate(triangles), np.concatenate(colours), np.array([9.0, 10.0, 6.0]))


def painted(triangles: Pixels, colours: Pixels, eye: Pixels) -> Pixels:
    """Paint triangles, lit from above, as seen from a place; y is up. First the ground by height, then far to near."""
    height, width = 288, 640
    forward = np.array([-eye[0] * 4 / 9, 0.0, -30.0]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, -np.cross(right, forward), forward])
    facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    facing /= np.linalg.norm(facing, axis=1, keepdims=True).clip(1e-12)
    corners = (triangles - eye) @ axes.T
    shade = 0.55 + 0.45 * np.abs(facing @ np.array([0.4, 0.8, 0.45]))
    ahead = (corners[..., 2] > 1).all(1) & (corners[..., 2].min(1) < 120)
    corners, rgb, distance = corners[ahead], (colours * shade[:, None])[ahead], corners[ahead][..., 2].mean(1)
    low = (triangles[..., 1].max(1) < 0.3)[ahead]
    order = np.where(low, triangles[ahead][..., 1].mean(1) - 1000, -distance).argsort(kind="stable")
    picture = Image.new("RGB", (2 * width, 2 * height), (190, 205, 220))
    draw = ImageDraw.Draw(picture)
    points = corners[..., :2] / corners[..., 2:] * 1.1 * width + [width, height]
    for i in order:
        draw.polygon([*map(tuple, points[i])], fill=tuple(rgb[i].astype(int)))
    return np.asarray(picture.resize((width, height)))


def boxes3d(root: Path) -> Pixels:
    """KITTI's 3D boxes of vehicles and people through its matrix P2, with a cross on the side that each heads to."""
    folder = root / "training"
    (line,) = [one for one in (folder / "calib" / f"{STEM}.txt").read_text().splitlines() if one.startswith("P2:")]
    projection = np.array(line.split()[1:], float).reshape(3, 4)
    picture = Image.fromarray(np.asarray(Image.open(folder / "image_2" / f"{STEM}.png").convert("RGB")))
    draw = ImageDraw.Draw(picture)
    for one in (folder / "label_2" / f"{STEM}.txt").read_text().splitlines():
        name, *values = one.split()
        height, width, length, x, y, z, turn = map(float, values[7:14])
        if name not in KITTI_CLASSES:
            continue
        along, up, across = np.meshgrid([0.5, -0.5], [0, -1], [0.5, -0.5], indexing="ij")
        corners = np.stack([along * length, up * height, across * width], -1).reshape(8, 3)
        cos, sin = np.cos(turn), np.sin(turn)
        corners = corners @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T + [x, y, z]
        seen = np.c_[corners, np.ones(8)] @ projection.T
        if seen[:, 2].min() < 0.5:
            continue
        points = [*map(tuple, seen[:, :2] / seen[:, 2:])]
        fill = tuple(colour(KITTI_CLASSES.index(name)).astype(int))
        edges = [(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
        for i, j in [*edges, (0, 3), (1, 2)]:
            draw.line((points[i], points[j]), fill=fill)
    return np.asarray(picture)


def sequence(root: Path) -> Pixels:
    """Frames of the second sequence in KITTI's tracking format, with boxes and tracks, one below the other."""
    folder, rows = root / "kitti_tracking" / "training", []
    labels = [one.split() for one in (folder / "label_02" / "0001.txt").read_text().splitlines()]
    for path in sorted((folder / "image_02" / "0001").glob("*.png"))[::SEQUENCE_STEP]:
        picture = Image.open(path).convert("RGB")
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
        for frame, track, _, _, _, _, x0, y0, x1, y1, *_ in labels:
            if int(frame) == int(path.stem) and int(track) >= 0:  # DontCare areas are no track
                fill = tuple(colour(int(track)).astype(int))
                left, upper, right, lower = map(float, (x0, y0, x1, y1))
                draw.rectangle((left, upper, right, lower), outline=fill)
                draw.text((left + 1, max(0, upper - 13)), track, fill=fill, font=font)
        rows.append(np.asarray(picture))
    return np.concatenate(rows)


def flow(root: Path) -> Pixels:
    """Optical flow from the second sequence's first frame, its direction as colour; black where it is not valid."""
    import torch
    from torchvision.datasets import KittiFlow
    from torchvision.utils import flow_to_image

    _, _, steps, valid = KittiFlow(str(root))[1]
    steps, valid = torch.from_numpy(steps * valid), torch.from_numpy(valid)
    limit = steps.norm(dim=0)[valid].quantile(0.98)
    scaled = steps / steps.norm(dim=0).clamp(min=limit)
    return (flow_to_image(scaled) * valid).permute(1, 2, 0).numpy()


def shapes(root: Path) -> Pixels:
    """Images of a set beside each other, with the boxes of objects, three times as large."""
    content = json.loads((root / "annotations" / "instances.json").read_text(encoding="utf-8"))
    pictures = []
    for one in sorted(content["images"], key=lambda one: one["id"]):
        path = root / "images" / Path(one["file_name"]).name
        size = (3 * one["width"], 3 * one["height"])
        picture = Image.open(path).convert("RGB").resize(size, Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(picture)
        for found in content["annotations"]:
            if found["image_id"] == one["id"]:
                x, y, w, h = (3 * value for value in found["bbox"])
                draw.rectangle((x, y, x + w - 1, y + h - 1), outline=tuple(colour(found["category_id"]).astype(int)))
        pictures.append(np.pad(np.asarray(picture), ((0, 0), (0, 4), (0, 0)), constant_values=255))
    return np.concatenate(pictures, 1)[:, :-4]


def sheet(root: Path) -> Pixels:
    """Read the contact sheet of meshes."""
    return np.asarray(Image.open(root.with_suffix(".png")).convert("RGB"), float)


KITTI_CLASSES = ("Car", "Truck", "Van", "Pedestrian", "Cyclist")
SEQUENCE_STEP = 5
"""Frames from one that is shown to the next."""
KINDS: dict[str, tuple[str, Callable[[Path], Pixels]]] = {
    "image": (f"{SCENE} --format coco", image),
    "boxes": (f"{SCENE} --format coco", boxes),
    "boxes3d": (f"{SCENE} --format kitti", boxes3d),
    "instances": (f"{SCENE} --format coco", instances),
    "amodal": (f"{SCENE} --format coco --maps amodal", amodal),
    "semantic": (f"{SCENE} --format cityscapes", semantic),
    "panoptic": (f"{SCENE} --format panoptic", panoptic),
    "depth": (f"{SCENE} --depth", depth),
    "normals": (f"{SCENE} --maps normals", normals),
    "sequence": (f"{SCENE} --frames 11 --fps 10 --format kittitracking", sequence),
    "flow": (f"{SCENE} --frames 2 --fps 10 --format kittiflow", flow),
    "blender": (f"{SCENE} --world.renderer.engine Blender", image),
    "glb": (f"{SCENE} --format glb", glb),
    "usd": (f"{SCENE} --format usd", usd),
    "assets": ("ms2 assets driving3d examples/meshes", sheet),
    "external": ("ms2 generate examples/external/shapes.yaml --num_scenes 6 --seed 6 --format coco", shapes),
}
"""Of each picture its command, but for the output, and what makes the picture."""


def command(kind: str) -> str:
    """Return the command that writes the data set of a picture, or the sheet."""
    return f"{KINDS[kind][0]} --output data/gallery_{kind}{'.png' if kind == 'assets' else ''}"


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for kind in args.kinds or KINDS:
            line = command(kind).replace("ms2 ", f"{sys.executable} -m ms2 ", 1)
            if kind == "blender" and "MS2_BLENDER" in os.environ:
                line += f" --world.renderer.engine.executable {shlex.quote(os.environ['MS2_BLENDER'])}"
            subprocess.run(line, shell=True, check=True, cwd=folder)
            pixels = KINDS[kind][1](Path(folder) / "data" / f"gallery_{kind}")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).quantize(128).save(
                PICTURES / f"gallery_{kind}.png", optimize=True
            )


if __name__ == "__main__":
    main()
