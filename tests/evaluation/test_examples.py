"""Sample images with the labels of what is visible in them."""

import json
from pathlib import Path

import pytest
import torch
from helpers import images, structure
from PIL import Image

from ms2.evaluation.examples import images_by_row, render_examples, sample_examples, save_examples
from ms2.models.scene_model import SceneModel
from ms2.targets.folder import Folder
from ms2.world import World
from ms2.worlds.multimnist.grammar import MultiMNIST
from ms2.worlds.multimnist.priors import UniformDigits, UniformPlacement
from ms2.worlds.multimnist.renderer import DigitCanvas

CPU = torch.device("cpu")


def digit_world(digit_size: int = 12) -> World:
    return World(MultiMNIST(), UniformDigits(3), UniformPlacement(), DigitCanvas(48, digit_size))


def test_examples_have_the_boxes_of_their_instances() -> None:
    world = digit_world()
    model, data = SceneModel(world, structure()), images(world)
    found = sample_examples(model, data.target, 0, CPU, 5)
    assert {row: len(some) for row, some in found.items()} == {"prior": 5, "learned": 5, "target": 5}
    assert data.target.scenes is not None
    drawn = world.renderer.render_labelled(data.target.scenes[:5])
    torch.testing.assert_close(images_by_row(found)["target"], drawn.image)
    for i, one in enumerate(found["target"]):
        expected = []
        for k, number in enumerate(drawn.classes[i].tolist()):
            rows, columns = (drawn.instances[i] == k).nonzero(as_tuple=True)
            if number >= 0 and len(rows):
                (x, y), (right, bottom) = ([int(f(v)) for v in (columns, rows)] for f in (torch.min, torch.max))
                box = [x, y, right + 1 - x, bottom + 1 - y]
                expected.append((world.classes[number], box, float(drawn.visibility[i, k])))
        shown = [(label["category"], label["bbox"], label["visibility"]) for label in one.labels or ()]
        assert shown == [(name, box, pytest.approx(seen, abs=1e-3)) for name, box, seen in expected]
    assert sum(len(one.labels or ()) for some in found.values() for one in some) > 15
    again = sample_examples(model, data.target, 0, CPU, 5)
    assert [one.labels for one in again["learned"]] == [one.labels for one in found["learned"]]


def test_examples_of_the_target_are_rendered_in_the_world_that_they_come_from() -> None:
    """Digits of the target are larger than the model's."""
    hidden = digit_world(20)
    target = images(hidden).target
    found = sample_examples(SceneModel(digit_world(), structure()), target, 0, CPU, 5)
    torch.testing.assert_close(images_by_row(found)["target"], target.preview(5) / 255, atol=1 / 255, rtol=0)
    labels = render_examples(hidden, target.scenes[:5])
    assert [one.labels for one in found["target"]] == [one.labels for one in labels]
    assert any(one.labels for one in labels)


def test_images_of_a_folder_have_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("L", (48, 48), 60 * i).save(tmp_path / f"{i}.png")
    world = digit_world()
    found = sample_examples(SceneModel(world, structure()), Folder(world, tmp_path), 0, CPU, 16)
    assert [(one.labels, float(one.image.mean())) for one in found["target"]] == [
        (None, pytest.approx(60 * i / 255)) for i in range(3)
    ]


def test_examples_are_written_as_images_and_labels(tmp_path: Path) -> None:
    world = digit_world()
    found = sample_examples(SceneModel(world, structure()), images(world).target, 0, CPU, 2)
    save_examples(tmp_path / "examples", found)
    index = json.loads((tmp_path / "examples" / "examples.json").read_text())
    assert {row: [one["file"] for one in some] for row, some in index.items()} == {
        row: [f"{row}_00.png", f"{row}_01.png"] for row in found
    }
    assert index["target"][1]["labels"] == found["target"][1].labels
    with Image.open(tmp_path / "examples" / "prior_00.png") as image:
        assert image.size == (48, 48)
