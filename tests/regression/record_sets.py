"""Fixed-seed numbers of rendered streets with labels, and of generated data sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from helpers import ms2, rng
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ms2.priors import MixturePrior
from ms2.render.engines.warp import WarpEngine
from ms2.world import World
from ms2.worlds.driving3d import Driving, Rural, StreetLayout, StreetView, Suburban, Urban

WORLDS = {
    "multimnist": ["multimnist", "--world.renderer.canvas_size", "40", "--world.renderer.digit_size", "12"],
    "aerial2d": ["aerial2d", "--world.renderer.canvas_size", "64"],
    "driving3d": [
        "driving3d",
        "--world.renderer.size",
        "[64, 208]",
        "--world.renderer.init_args.engine.init_args.shadow_size",
        "256",
    ],
}
"""Arguments of `ms2 generate` that name a world."""
DERIVATION = "derivation"
"""Key of the derivation in the record of an image."""


def street_world() -> World:
    view = StreetView(size=(64, 208), engine=WarpEngine(shadow_size=256))
    return World(Driving(), MixturePrior([Rural(), Suburban(), Urban()]), StreetLayout(), view)


def generate(root: Path, arguments: Sequence[str], *formats: str) -> None:
    """Generate three images of a world or a run."""
    more = ["--output", str(root), "--num_scenes", "3", "--seed", "5", "--workers", "1", "--device", "cpu"]
    ms2(["generate", *arguments, *more, "--format", *formats])


def driving(_: Path) -> dict[str, Any]:
    """Render streets with labels."""
    world = street_world()
    scenes = world.sample_prior(3, rng(4))
    rendered = world.renderer.render_labelled(scenes)
    found = []
    for i in range(len(scenes)):
        # a pixel more or less, as other processors draw, is a large part of a small or hidden object
        pixels = torch.stack([(rendered.instances[i] == k).sum() for k in range(rendered.classes.shape[1])])
        seen = (rendered.visibility[i] > 0.3) & (pixels >= 40)
        found.append(
            {
                "objects": scenes.mask[i].sum(),
                "clearly seen": [world.classes[number] for number in rendered.classes[i][seen].tolist()],
                "boxes": rendered.boxes[i][seen],
                "visible boxes": rendered.visible_boxes[i][seen],
                "boxes in 3D": rendered.boxes3d[i][seen],
                "visibility": rendered.visibility[i][seen],
                "truncation": rendered.truncation[i][seen],
                "share of the sky": rendered.depth[i].isinf().float().mean(),
                "mean depth": rendered.depth[i][rendered.depth[i].isfinite()].mean(),
                "mean pixel": rendered.image[i].mean((1, 2)),
            }
        )
    return {"scenes": found, "projection": rendered.projection[0]}


def data_sets(folder: Path) -> dict[str, Any]:
    """Generate a few labelled images of every world."""
    found = {}
    for name, arguments in WORLDS.items():
        generate(folder / name, arguments, "coco", "kitti", "yolo")
        found[name] = describe(folder / name)
    return found


def describe(root: Path) -> dict[str, Any]:
    """List the files of a data set and the labels in each format."""
    found: dict[str, Any] = {
        "files": sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()),
        "headings of the card": [
            line for line in (root / "README.md").read_text().splitlines() if line.startswith("#")
        ],
        "derivations": [json.loads(path.read_text())[DERIVATION] for path in sorted((root / "scenes").iterdir())],
        "mean pixel": [_pixels(path).mean() for path in sorted((root / "images").iterdir())],
    }
    coco = json.loads((root / "annotations" / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found["COCO"] = {
        "categories": names,
        "images": [[image["id"], image["file_name"], image["width"], image["height"]] for image in coco["images"]],
        "objects": [[one["image_id"], names[one["category_id"]]] for one in coco["annotations"]],
        "boxes": [[float(value) for value in one["bbox"]] for one in coco["annotations"]],
        "areas": [float(one["area"]) for one in coco["annotations"]],
        "visibility": [float(one["visibility"]) for one in coco["annotations"]],
        "other keys": sorted({key for one in coco["annotations"] for key in one}),
    }
    if (root / "training").exists():
        lines = _lines(root / "training" / "label_2")
        found["KITTI"] = {
            "objects": [[image, line[0], int(line[2])] for image, line in lines],
            "truncation": [float(line[1]) for _, line in lines],
            "boxes": [[float(word) for word in line[4:8]] for _, line in lines],
            "boxes in 3D": [[float(word) for word in (line[3], *line[8:])] for _, line in lines],
        }
    if (root / "labels").exists():
        lines = _lines(root / "labels")
        found["YOLO"] = {
            "settings": (root / "data.yaml").read_text().splitlines(),
            "objects": [[image, int(line[0])] for image, line in lines],
            "shares": [[float(word) for word in line[1:]] for _, line in lines],
        }
    return found


def _pixels(path: Path) -> Tensor:
    return pil_to_tensor(Image.open(path)).float() / 255


def _lines(folder: Path) -> list[tuple[str, list[str]]]:
    """List the words of all lines of a folder's files, each with the file's name."""
    return [(path.stem, line.split()) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
