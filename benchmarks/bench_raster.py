"""Rasterising streets of about 40 objects at 416 x 128 with sun, shadows and 2 x 2 samples.

Goal: at most 25 ms for a scene with its labels.
"""

import pytest
import street
from measuring import Place, measure
from pytest_benchmark.fixture import BenchmarkFixture

from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.scene import Scene3D

SCENES = 8


@pytest.mark.benchmark(group="renderer")
@pytest.mark.parametrize("labelled", [False, True], ids=["images", "labelled"])
def test_rasterising_streets(labelled: bool, benchmark: BenchmarkFixture) -> None:
    engine, meshes, scenes = WarpEngine(), street.library(), street.scenes(SCENES, Place.device)
    objects = int(scenes[0].labelled[0].sum())
    title = f"rasterising {SCENES} streets of {objects} objects{', with labels' * labelled}"
    measure(
        benchmark, lambda: engine.render(Scene3D(meshes, *scenes), (128, 416), labels=labelled), title, SCENES, "scenes"
    )
