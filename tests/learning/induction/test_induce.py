"""Large sets take bounded time; classes that never meet; choices of classes."""

import time

import pytest
import torch

from ms2.learning.induction.induce import MAX_SEARCHED, choose_classes, induce
from ms2.learning.induction.object_table import InductionError, ObjectTable


def scattered(num_scenes: int, num_classes: int) -> ObjectTable:
    """Up to 15 objects in each scene, of classes with different frequencies, anywhere."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.arange(num_scenes).repeat_interleave(torch.randint(0, 16, (num_scenes,), generator=generator))
    weights = 1 / torch.arange(1, num_classes + 1).float()
    label = torch.multinomial(weights, len(scene), replacement=True, generator=generator)
    centre = torch.rand(len(scene), 2, generator=generator, dtype=torch.double)
    names = tuple(f"c{i}" for i in range(num_classes))
    boxes = torch.cat([centre - 0.05, centre + 0.05], 1)
    return ObjectTable(names, num_scenes, scene, label, torch.full_like(scene, -1), boxes)


def test_many_scenes_of_many_classes_take_the_time_that_they_may() -> None:
    start = time.process_time()
    found = induce(scattered(100_000, 20), seconds=2.0)
    assert time.process_time() - start < 40  # the search stops after a fit, and the account takes its own few seconds
    assert "The time was over" in found.account and f"{MAX_SEARCHED} scenes" in found.account
    assert "(20 in all)" in found.account


def test_classes_that_never_meet_are_kinds_of_scenes() -> None:
    scene = torch.arange(400).repeat_interleave(2)
    label = (scene % 2).long()
    found = induce(ObjectTable(("a", "b"), 400, scene, label, torch.full_like(scene, -1)))
    assert sorted(found.written.rules[1:]) == ["Scene1 -> b b", "Scene2 -> a a"] or sorted(found.written.rules[1:]) == [
        "Scene1 -> a a",
        "Scene2 -> b b",
    ]


def test_an_unknown_class_is_said() -> None:
    with pytest.raises(InductionError, match="the scenes have no class 'c9'"):
        choose_classes(scattered(10, 3), ["c9"])
