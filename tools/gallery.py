"""Make the pictures of docs/gallery.md, each from a data set that one command writes.

    python tools/gallery.py            # all of them
    python tools/gallery.py depth      # one

A picture shows what is in the data set's files: this program colours it, and renders nothing. trimesh reads GLB files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

PICTURES = Path(__file__).parents[1] / "docs" / "images"
SCENE = 'ms2 generate driving3d --num_scenes 2 --seed 6 --world.renderer.size "[192, 640]"'
"""Beginning of each command; pictures show the set's second scene."""
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
    """Triangles of the GLB file, the far ones first, lit from above, from a place behind the camera and above it."""
    import trimesh

    scene = trimesh.load_scene(root / "glb" / f"{STEM}.glb")
    triangles, colours, facing = [], [], []
    for node in scene.graph.nodes_geometry:  # a dump of the scene would lose colours of vertices
        matrix, name = scene.graph[node]
        part = scene.geometry[name]
        triangles.append(trimesh.transform_points(part.triangles.reshape(-1, 3), matrix).reshape(-1, 3, 3))
        facing.append(part.face_normals @ matrix[:3, :3].T)
        colours.append(vertex_colours(part)[part.faces].mean(1))
    eye, (height, width) = np.array([-9.0, 10.0, 6.0]), (288, 640)
    forward = np.array([4.0, 0.0, -30.0]) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, -np.cross(right, forward), forward])
    corners = (np.concatenate(triangles) - eye) @ axes.T
    shade = 0.55 + 0.45 * np.abs(np.concatenate(facing) @ np.array([0.4, 0.8, 0.45]))
    ahead = (corners[..., 2] > 1).all(1) & (corners[..., 2].min(1) < 120)
    corners, rgb = corners[ahead], (np.concatenate(colours) * shade[:, None])[ahead]
    picture = Image.new("RGB", (2 * width, 2 * height), (190, 205, 220))
    draw = ImageDraw.Draw(picture)
    points = corners[..., :2] / corners[..., 2:] * 1.1 * width + [width, height]
    for i in corners[..., 2].mean(1).argsort()[::-1]:
        draw.polygon([*map(tuple, points[i])], fill=tuple(rgb[i].astype(int)))
    return np.asarray(picture.resize((width, height)))


KINDS: dict[str, tuple[str, Callable[[Path], Pixels]]] = {
    "image": ("--format coco", image),
    "boxes": ("--format coco", boxes),
    "instances": ("--format coco", instances),
    "amodal": ("--format coco --maps amodal", amodal),
    "semantic": ("--format cityscapes", semantic),
    "panoptic": ("--format panoptic", panoptic),
    "depth": ("--depth", depth),
    "normals": ("--maps normals", normals),
    "glb": ("--format glb", glb),
}
"""Of each picture the options that its command has, and what makes the picture."""


def command(kind: str) -> str:
    """Return the command that writes the data set of a picture."""
    return f"{SCENE} {KINDS[kind][0]} --output data/gallery_{kind}"


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds or KINDS:
            line = command(kind).replace("ms2 ", f"{sys.executable} -m ms2 ", 1)
            subprocess.run(line, shell=True, check=True, cwd=folder)
            pixels = KINDS[kind][1](Path(folder) / "data" / f"gallery_{kind}")
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).quantize(128).save(
                PICTURES / f"{kind}.png", optimize=True
            )


if __name__ == "__main__":
    main()
