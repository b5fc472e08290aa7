"""Read the Cityscapes format of a data set with cityscapesScripts, and compare it with the panoptic format beside it.

Run in an environment that has cityscapesscripts: python cityscapes_reader.py DATA_SET EMPTY_FOLDER
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic
from cityscapesscripts.evaluation.instances2dict import instances2dict
from cityscapesscripts.helpers.labels import id2label, name2label
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from PIL import Image

root, output = map(Path, sys.argv[1:])
NAMES = {"car": "car", "truck": "truck", "cyclist": "rider", "pedestrian": "person"}
"""Cityscapes' label of the classes whose instances it tells apart."""


def files(kind: str) -> list[Path]:
    """Return the maps of a kind, in the order of their images."""
    found = sorted(root.glob(f"gtFine/train/*/*_gtFine_{kind}.png"))
    assert found, f"no maps {kind}"
    return found


def check_instances() -> None:
    """Its own reading of instances finds the objects that the panoptic format has, each with its pixels."""
    truth = json.loads((root / "annotations" / "panoptic.json").read_text())
    names = {one["id"]: one["name"] for one in truth["categories"]}
    for path, one in zip(files("instanceIds"), truth["annotations"], strict=True):
        found = instances2dict([str(path)])[str(path)]
        for name, label in NAMES.items():
            assert name2label[label].hasInstances
            areas = Counter(thing["pixelCount"] for thing in found[label] if thing["instID"] >= 1000)
            assert areas == Counter(s["area"] for s in one["segments_info"] if names[s["category_id"]] == name), (
                path,
                name,
            )


def check_train_ids() -> None:
    """Ids for training are those that its own table gives."""
    for labels, train in zip(files("labelIds"), files("labelTrainIds"), strict=True):
        ids = np.asarray(Image.open(labels))
        table = np.array([max(id2label[i].trainId, -1) % 256 if i in id2label else 255 for i in range(256)])
        assert np.array_equal(np.asarray(Image.open(train)), table[ids])


def check_panoptic() -> None:
    """Its own panoptic maps, made of instances, score 1 against themselves in its own evaluation."""
    convert2panoptic(str(root / "gtFine"), str(output), useTrainId=False, setNames=["train"])
    maps, table = output / "cityscapes_panoptic_train", output / "cityscapes_panoptic_train.json"
    scores = evaluatePanoptic(str(table), str(maps), str(table), str(maps), str(output / "scores.json"))
    assert scores["All"]["pq"] == 1 and scores["Things"]["n"] and scores["Stuff"]["n"], scores["All"]


check_instances()
check_train_ids()
check_panoptic()
