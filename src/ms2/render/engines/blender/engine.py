"""Engine that renders with Blender's path tracer Cycles; labels are the rasteriser's."""

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Bounds, NonNegativeInt, PositiveFloat
from ms2.render.engines.blender.exr import EXRImage
from ms2.render.engines.blender.process import SCRIPT, BlenderProcess
from ms2.render.engines.warp.engine import WarpEngine
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import Engine, RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import display_values
from ms2.render.scene3d.scene import Scene3D

CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
"""From the axes of Blender's cameras, x right, y up, z backward, to x right, y down, z forward."""
MAX_SAMPLES = 1 << 20


class Blender(Engine):
    """Renders images with Cycles, Blender's path tracer, in a process of its own; labels are those of `WarpEngine`.

    Meshes, materials, camera, sun, sky and haze are those that `WarpEngine` draws, and highlights are compressed alike.
    Cycles adds what a rasteriser leaves out: light that surfaces reflect onto each other, ambient occlusion, mirrors
    that show the street, penumbrae that widen with the distance. Images are the same, bit by bit, in any batch, on one
    machine with one version of Blender.

    Args:
        executable: The program ``blender`` (4.2 or later), or a Python interpreter with ``bpy``, whose name begins with
            ``python``.
        samples: Paths for each pixel.
        denoise: Whether to denoise images, by Open Image Denoise.
        bounces: How often light is reflected between surfaces.
        device: What Cycles computes with, ``cpu`` or a kind of GPU.
        timeout: Seconds for each scene, and for the start, after which Blender is killed.
        retries: How often Blender is started again for one scene, if it ends, times out or reports an error.
        rasteriser: Engine that computes labels; one with its default settings if not given.

    Attributes:
        cycles_seconds: Seconds that Cycles has taken so far, by its own clock.
    """

    def __init__(
        self,
        executable: str = "blender",
        samples: Annotated[int, Bounds(ge=1, le=MAX_SAMPLES)] = 32,
        denoise: bool = True,
        bounces: Annotated[int, Bounds(ge=0, le=1024)] = 3,
        device: Literal["cpu", "cuda", "optix", "hip", "oneapi", "metal"] = "cpu",
        timeout: PositiveFloat = 600.0,
        retries: NonNegativeInt = 2,
        rasteriser: WarpEngine | None = None,
    ) -> None:
        self.executable, self.timeout, self.retries = executable, timeout, retries
        self._request = {"samples": samples, "denoise": denoise, "bounces": bounces, "device": device}
        self._rasteriser = WarpEngine() if rasteriser is None else rasteriser
        self._process: BlenderProcess | None = None
        self.cycles_seconds = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by settings: another process gets a Blender of its own."""
        return partial(type(self), **self.settings), ()

    @property
    def source_files(self) -> Sequence[Path]:
        """Return what Blender runs, on which images depend."""
        return (SCRIPT,)

    @property
    def label_engine(self) -> Engine:
        """The engine that computes labels."""
        return self._rasteriser

    @torch.no_grad()
    def render_batch(self, scene: Scene3D, size: tuple[int, int], labels: bool) -> RasterOutput:
        """Render images one by one in Blender, and the rest by the rasteriser; arguments as in `Engine.render`."""
        drawn = self._rasteriser.render_batch(scene, size, labels)
        found = self._render(scene, size, index=False)
        images = [torch.stack([_channel(image, f"Combined.{name}") for name in "RGB"]) for image in found]
        return replace(drawn, image=display_values(torch.stack(images)).to(scene.instances.mesh.device))

    def render_normals(self, scene: Scene3D, size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
        """Compute normals by the rasteriser; arguments as in `Engine.render`."""
        return self._rasteriser.render_normals(scene, size)

    @torch.no_grad()
    def object_index(self, scene: Scene3D, size: tuple[int, int]) -> Int[Tensor, "b h w"]:
        """Render Cycles' object-index pass, of one path through each pixel's middle, to compare it with labels.

        Args:
            scene: The scenes.
            size: Height and width of an image in pixels.

        Returns:
            Index in its scene of the instance that each pixel shows; -1 for the sky.
        """
        found = self._render(scene, size, index=True)
        # the pass is called IndexOB before Blender 5.0
        return torch.stack([_channel(image, "Object Index.X", "IndexOB.X").round().int() - 1 for image in found])

    def close(self) -> None:
        """Stop Blender; it is started again when it is needed."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _render(self, scene: Scene3D, size: tuple[int, int], index: bool) -> list[EXRImage]:
        if self._process is None or self._process.owner != os.getpid():  # a forked process must not share pipes
            self._process = BlenderProcess(self.executable, self.timeout, self.retries)
        library, light = self._process.library(scene.meshes), scene.lighting
        found = []
        for i in range(len(scene)):
            placed = _placed(scene.instances, i)
            library.write(set(placed["meshes"]))
            request = {
                "library": str(library.path),
                **placed,
                "camera": _camera(scene.camera, i, self._rasteriser.raster_settings.near),
                "lighting": {item.name: getattr(light, item.name)[i].tolist() for item in fields(light)},
                "size": list(size),
                "index": index,
                "threads": torch.get_num_threads(),
            }
            found.append(self._process.render(request | self._request))
            self.cycles_seconds += _cycles_seconds(found[-1])
        return found


def _placed(instances: InstanceBatch, scene: int) -> dict[str, list[Any]]:
    """List a scene's used instances: index, mesh, matrix and colour in linear light."""
    (numbers,) = (instances.mesh[scene] >= 0).nonzero(as_tuple=True)
    return {
        "numbers": numbers.tolist(),
        "meshes": instances.mesh[scene][numbers].tolist(),
        "transforms": instances.transform[scene][numbers].tolist(),
        "colours": instances.colour[scene][numbers].square().tolist(),
    }


def _camera(camera: Camera, scene: int, near: float) -> dict[str, Any]:
    pose = np.eye(4)
    pose[:3] = camera.pose[scene].double().cpu().numpy()
    return {
        "focal": camera.focal[scene].tolist(),
        "centre": camera.centre[scene].tolist(),
        "matrix": (np.linalg.inv(pose) @ CAMERA_AXES).tolist(),
        "near": near,
    }


def _channel(image: EXRImage, *names: str) -> Float[Tensor, "h w"]:
    """Return the channel whose name ends in one of these."""
    return torch.from_numpy(next(values for key, values in image.channels.items() if key.endswith(names)))


def _cycles_seconds(image: EXRImage) -> float:
    """Return the time that Cycles notes in a file, such as ``01:02.34``, in seconds."""
    (text,) = [value for name, value in image.attributes.items() if name.endswith(".total_time")] or ["0"]
    return sum(float(part) * 60**power for power, part in enumerate(reversed(text.split(":"))))
