"""Engine on NVIDIA Warp, for CPU and CUDA."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from functools import partial
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import BatchSize, Bounds, PositiveFloat
from ms2.core.errors import UserError
from ms2.render.engines.warp.rasteriser import Rasteriser, RasterSettings
from ms2.render.engines.warp.runtime import load_warp
from ms2.render.scene3d.engine import Engine, InstanceLabels, RasterOutput
from ms2.render.scene3d.meshes import MeshLibrary
from ms2.render.scene3d.scene import Scene3D

SCENES_PER_PASS = {"cpu": 4, "cuda": 64}
"""Default number of scenes rendered at once: some megabytes each, which on a CPU should fit into its cache."""


class WarpEngine(Engine):
    """Rasterises triangles with NVIDIA Warp: textures, sun with shadows, sky, fog, reflections.

    A visibility buffer stores the nearest triangle of every sample; pixels are shaded afterwards, once per visible
    triangle. The same scene gives the same pixels, bit by bit, in any batch and process on one kind of device.

    Args:
        supersampling: Samples along each side of a pixel.
        shadow_size: Samples along each side of the shadow map; 0 disables shadows.
        shadow_distance: Distance in metres ahead of the camera that the shadow map covers.
        shadow_half_width: Maximum distance in metres to each side of the camera that the shadow map covers.
        near: Distance of the near plane in metres.
        scenes_per_pass: Number of scenes rendered at once, which bounds the memory; 4 on a CPU and 64 on a GPU by
            default.
    """

    def __init__(
        self,
        supersampling: Annotated[int, Bounds(ge=1, le=16)] = 2,
        shadow_size: Annotated[int, Bounds(ge=0, le=16384)] = 1024,
        shadow_distance: PositiveFloat = 60.0,
        shadow_half_width: PositiveFloat = 36.0,
        near: PositiveFloat = 0.2,
        scenes_per_pass: BatchSize | None = None,
    ) -> None:
        if shadow_size and shadow_size < 8:
            raise UserError(f"a shadow map of {shadow_size} samples is too small: use 0 for no shadows, or 512, say")
        self.raster_settings = RasterSettings(supersampling, shadow_size, shadow_distance, shadow_half_width, near)
        self.scenes_per_pass = scenes_per_pass
        self._runtime = load_warp()
        self._rasterisers: WeakKeyDictionary[MeshLibrary, dict[tuple[Any, ...], Rasteriser]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by settings: Warp's modules can be neither copied nor sent to another process."""
        return partial(type(self), **self.settings), ()

    @torch.no_grad()
    def render_batch(self, scene: Scene3D, size: tuple[int, int], labels: bool) -> RasterOutput:
        """Render scenes pass by pass, on a CPU by as many threads as Torch uses; arguments as in `Engine.render`."""
        return self._render(scene, size, labels, normals=False)

    @torch.no_grad()
    def render_normals(self, scene: Scene3D, size: tuple[int, int]) -> Float[Tensor, "b 3 h w"]:
        """Compute the normals of what is visible; arguments as in `Engine.render`."""
        normals = self._render(scene, size, labels=False, normals=True).normals
        assert normals is not None
        return normals

    def _render(self, scene: Scene3D, size: tuple[int, int], labels: bool, normals: bool) -> RasterOutput:
        device, (b, (height, width)) = scene.instances.mesh.device, (len(scene), size)
        rasteriser = self._rasteriser(scene.meshes, size, device)
        n = self.scenes_per_pass or SCENES_PER_PASS[device.type]
        output = RasterOutput(
            torch.empty(b, 3, height, width, device=device),
            torch.empty(b, height, width, dtype=torch.int32, device=device),
            torch.empty(b, height, width, device=device),
            None,
            torch.empty(b, 3, height, width, device=device) if normals else None,
        )

        def render(start: int) -> InstanceLabels | None:
            batches = scene.instances, scene.camera, scene.lighting, output
            placed, cameras, lights, part = (_scenes(batch, start, n) for batch in batches)
            # modes are those of a thread; and buffers made in inference mode could not be used outside of it
            with torch.inference_mode(False), torch.no_grad():
                return rasteriser.render(placed, cameras, lights, part, labels)

        passes = range(0, b, n)
        threads = min(torch.get_num_threads(), len(passes)) if device.type == "cpu" else 1
        with self._stream(device), ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
            found = list((pool.map if pool else map)(render, passes))
        return replace(output, labels=_concatenate(found))

    def _rasteriser(self, meshes: MeshLibrary, size: tuple[int, int], device: torch.device) -> Rasteriser:
        """Return the rasteriser of a library, image size and device; built once each."""
        known = self._rasterisers.setdefault(meshes, {})
        key = (*size, device)
        if key not in known:
            known[key] = Rasteriser(self._runtime, meshes, size, device, self.raster_settings)
        return known[key]

    def _stream(self, device: torch.device) -> AbstractContextManager[Any]:
        """Order Torch's and Warp's work on a GPU in one stream."""
        if device.type != "cuda":
            return nullcontext()
        warp = self._runtime.warp
        return warp.ScopedStream(warp.stream_from_torch(torch.cuda.current_stream(device)))


def _scenes(batch: Any, start: int, number: int) -> Any:
    """Select ``number`` scenes of a dataclass of tensors, from ``start`` on."""
    values = (getattr(batch, field.name) for field in fields(batch))
    return type(batch)(*(None if value is None else value[start : start + number] for value in values))


def _concatenate(passes: list[InstanceLabels | None]) -> InstanceLabels | None:
    """Concatenate the labels of several passes, if there are any."""
    found = [vars(labels).values() for labels in passes if labels is not None]
    return InstanceLabels(*(torch.cat(values) for values in zip(*found, strict=True))) if found else None
