"""Rows and objects of several processes, gathered by plain torch.distributed."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from helpers import on_two_ranks

from ms2.core.distributed import Processes


def test_one_process_has_its_own_rows() -> None:
    processes, rows = Processes.current(), torch.arange(6).reshape(3, 2)
    assert (processes.rank, processes.world_size) == (0, 1)
    assert processes.gather(rows) is rows and processes.gather_equal(rows) is rows
    assert processes.gather_objects("a") == ["a"]
    assert processes.broadcast("a") == "a" and processes.local_indices(3).tolist() == [0, 1, 2]
    processes.barrier()


def exchanged() -> dict[str, Any]:
    """What each of two processes gets from the other."""
    dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=2)
    here = Processes.current()
    shapes = {"unequal": (3 - 2 * here.rank, 2), "some": (2 * here.rank,), "none": (0, 4)}
    found: dict[str, Any] = {name: here.gather(torch.full(shape, here.rank)) for name, shape in shapes.items()}
    found["equal"] = here.gather_equal(torch.full((2, 3), here.rank).T)
    found["grad"] = here.gather(torch.ones(1, requires_grad=True)).requires_grad
    found["objects"], found["first"] = here.gather_objects(f"from {here.rank}"), here.broadcast(f"from {here.rank}")
    found["own"] = here.local_indices(2)
    here.barrier()
    dist.destroy_process_group()
    return found


def test_two_processes_have_the_rows_of_both_in_order(tmp_path: Path) -> None:
    for rank, found in enumerate(on_two_ranks(exchanged, tmp_path)):
        assert found["unequal"].tolist() == [[0, 0]] * 3 + [[1, 1]]
        assert found["some"].tolist() == [1, 1] and found["none"].shape == (0, 4)
        assert found["equal"].tolist() == [[0, 0]] * 3 + [[1, 1]] * 3
        assert not found["grad"]
        assert found["objects"] == ["from 0", "from 1"] and found["first"] == "from 0"
        assert found["own"].tolist() == [2 * rank, 2 * rank + 1]
