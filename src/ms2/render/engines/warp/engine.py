"""A batched rasteriser for triangles on NVIDIA Warp: pictures with sun and shadows, instance ids, depth and boxes."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.core.errors import UserError
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.light import Environment
from ms2.render.scene3d.meshes import MeshLibrary

if TYPE_CHECKING:
    from types import ModuleType
import contextlib
import os
import sys

import torch

PART = {"cpu": 4, "cuda": 64}
"""Scenes drawn at once: some megabytes each, which on a CPU should stay in its cache."""
SHARED_ROWS = {"cpu": 1, "cuda": 16}
"""Threads for each triangle: on a GPU a triangle that fills the image would keep all others waiting."""
DROP = -2.5
"""Metres below the camera down to which shadows fall."""


@dataclass(frozen=True)
class Labels:
    """What is known of each of n instances; zeros where there is none, or none was wanted.

    Attributes:
        extents: Boxes x0, y0, x1, y1 in pixels around the whole instance, hidden or not, also where it reaches out of
            the image. Of what lies behind the camera only the part before the near plane counts.
        areas: Pixels of the image that it would cover alone, in quarters of a pixel or whatever a sample is.
        visible_boxes: Boxes around the pixels that belong to it, from edge to edge.
        visible_areas: Pixels at which it is seen, in samples too; up to ``areas``.
    """

    extents: Float[Tensor, "b n 4"]
    areas: Float[Tensor, "b n"]
    visible_boxes: Float[Tensor, "b n 4"]
    visible_areas: Float[Tensor, "b n"]

    @property
    def visibility(self) -> Float[Tensor, "b n"]:
        """Share of each instance's pixels, within the image, that nothing hides."""
        return self.visible_areas / self.areas.clamp(min=1e-6)

    def boxes(self, size: tuple[int, int]) -> Float[Tensor, "b n 4"]:
        """Extents cut at the image's edges; zeros for what is wholly outside."""
        height, width = size
        limit = self.extents.new_tensor([width, height, width, height])
        boxes = self.extents.clamp(min=0).minimum(limit)
        inside = (boxes[..., 2:] > boxes[..., :2]).all(-1, keepdim=True)
        return boxes * inside

    def truncation(self, size: tuple[int, int]) -> Float[Tensor, "b n"]:
        """Share of each extent's area that lies outside of the image."""

        def area(boxes: Float[Tensor, "b n 4"]) -> Float[Tensor, "b n"]:
            return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])

        return torch.where(area(self.extents) > 0, 1 - area(self.boxes(size)) / area(self.extents), 0)


@dataclass(frozen=True)
class Raster:
    """Images of b scenes.

    Attributes:
        image: Red, green and blue in [0, 1].
        instances: Place in its scene of the instance that each pixel belongs to, or -1 for the sky.
        depth: Distance along the camera's axis in metres, infinite for the sky.
        labels: Areas and boxes, if they were asked for.
    """

    image: Float[Tensor, "b 3 h w"]
    instances: Int[Tensor, "b h w"]
    depth: Float[Tensor, "b h w"]
    labels: Labels | None


class WarpEngine:
    """Draws scenes of instances of a library's meshes, on the device that the library is on.

    A visibility buffer holds the nearest triangle of every sample; pixels are shaded afterwards, once for each triangle
    that they show. The same scene gives the same pixels, bit by bit, in whatever batch and process.

    Args:
        library: The meshes.
        size: Height and width of an image in pixels.
        supersampling: Samples along each side of a pixel.
        shadow_size: Samples along each side of the shadow map; 0 for no shadows.
        shadow_distance: Metres ahead of the camera in which shadows are cast.
        shadow_side: Metres to each side of the camera, at most, in which they are.
        near: Metres to the plane before which nothing is seen.
        part: Scenes that are drawn at once, which bounds the memory; a number that suits the device if not given.
    """

    def __init__(
        self,
        library: MeshLibrary,
        size: tuple[int, int] = (128, 416),
        supersampling: int = 2,
        shadow_size: int = 1024,
        shadow_distance: float = 60.0,
        shadow_side: float = 36.0,
        near: float = 0.2,
        part: int | None = None,
    ) -> None:
        if min(size) < 1:
            raise UserError(f"an image of {size[0]} x {size[1]} pixels cannot be drawn: both must be positive")
        if supersampling < 1:
            raise UserError(f"supersampling is {supersampling}; it must be at least 1, which means none")
        if shadow_size and shadow_size < 8:
            raise UserError(f"a shadow map of {shadow_size} samples is too small: take 0 for no shadows, or 512, say")
        self.library, self.size, self.supersampling, self.near = library, size, supersampling, near
        self.shadow_size, self.shadow_distance, self.shadow_side = shadow_size, shadow_distance, shadow_side
        self.device = library.arrays.position.device
        self.part = part or PART[self.device.type]
        self.warp, self._kernels, self._shading = load_warp()
        self._library = self._filled(self._kernels.Library(), library.arrays)
        self._library.texel = self._wrap(library.arrays.texel, self.warp.uint32)
        self._samples = torch.empty(0, dtype=torch.int64, device=self.device)
        self._shadows = torch.empty(0, dtype=torch.int32, device=self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are made anew: Warp's modules cannot be copied, nor sent to another process."""
        settings = (self.size, self.supersampling, self.shadow_size, self.shadow_distance, self.shadow_side, self.near)
        return type(self), (self.library, *settings, self.part)

    @torch.no_grad()
    def render(self, instances: InstanceBatch, camera: Camera, environment: Environment, labels: bool = True) -> Raster:
        """Draw scenes.

        Args:
            instances: What stands in them.
            camera: A camera for each.
            environment: Light for each.
            labels: Whether to measure areas and boxes as well.

        Raises:
            UserError: If there is no such mesh, numbers of scenes differ, or a matrix is not finite.
        """
        instances, camera, environment = (_on(batch, self.device) for batch in (instances, camera, environment))
        self._check(instances, camera, environment)
        with self._stream():
            parts = [
                self._draw(
                    _sliced(instances, start, self.part),
                    _sliced(camera, start, self.part),
                    _sliced(environment, start, self.part),
                    labels,
                )
                for start in range(0, len(instances), self.part)
            ]
        return parts[0] if len(parts) == 1 else _together(parts)

    def _check(self, instances: InstanceBatch, camera: Camera, environment: Environment) -> None:
        numbers = {"instances": len(instances), "camera": len(camera), "environment": len(environment)}
        if len(set(numbers.values())) > 1 or not len(instances):
            told = ", ".join(f"{name} for {number}" for name, number in numbers.items())
            raise UserError(f"all must be given for the same number of scenes, at least one; there are {told}")
        used = instances.mesh
        if used.numel() and (int(used.max()) >= len(self.library) or int(used.min()) < -1):
            wrong = used[(used >= len(self.library)) | (used < -1)][0]
            raise UserError(
                f"there is no mesh {int(wrong)}: the library has 0 to {len(self.library) - 1}, "
                "and -1 is an unused place"
            )
        for name, values in (("transform", instances.transform[used >= 0]), ("camera", camera.pose)):
            if not values.isfinite().all():
                raise UserError(f"a {name} matrix holds numbers that are not finite")
        if not (camera.focal > 0).all():
            raise UserError("a camera's focal length is not positive")
        length = environment.sun.norm(dim=1)
        if not ((length > 0) & length.isfinite()).all():
            raise UserError("the sun has no direction: it must be a vector of some length; without sun its colour is 0")

    def _draw(self, instances: InstanceBatch, camera: Camera, environment: Environment, labels: bool) -> Raster:
        """One part of a batch."""
        k, (height, width), step, size = self._kernels, self.size, self.supersampling, self.shadow_size
        b, n = instances.mesh.shape
        tall, wide = height * step, width * step
        cameras, lights = self._cameras(camera), self._lights(environment)
        placed, wanted = self._placed(instances, labels)
        measured, counts = self._measured(b * n), self._new(3, b * n, dtype=torch.int32)
        measured.words = self._wrap(counts[2])

        far, side = self.shadow_distance, self.shadow_side
        self._launch(k.look_from_sun, b, cameras, lights, wide, size, far, side, DROP)
        rows = (self._wrap(counts[0]), self._wrap(counts[1]))
        self._launch(k.place, b * n, self._library, cameras, lights, placed, measured, wide, tall, size, *rows)
        first = counts.cumsum(1, dtype=torch.int32) - counts
        drawn, shading, words = counts.sum(1).tolist()

        measured.first = self._wrap(first[2])
        measured.mask = self._wrap(self._new(words, dtype=torch.int32).zero_(), self.warp.uint32)
        shared = SHARED_ROWS[self.device.type]
        shadows = self._cleared("_shadows", b * size * size, self.warp.uint32)
        casting = self._listing(counts[1], first[1], shading)
        self._launch(k.draw_from_sun, (shading, shared), self._library, placed, casting, size, shared, shadows)
        samples = self._cleared("_samples", b * tall * wide, self.warp.uint64)
        listing = self._listing(counts[0], first[0], drawn)
        part = (wide, tall, self.near, shared, samples)
        self._launch(k.draw, (drawn, shared), self._library, placed, listing, measured, *part)

        raster = self._new(b, 3, height, width)
        ids, depth = self._new(b, height, width, dtype=torch.int32), self._new(b, height, width)
        outputs = (self._wrap(tensor, plain=True) for tensor in (raster, ids, depth))
        self._launch(
            self._shading.resolve, (b, height, width), self._library, cameras, lights, placed, listing, measured,
            width, height, step, size, labels, samples, shadows, *outputs,
        )  # fmt: skip
        return Raster(raster, ids, depth, self._labels(measured, wanted) if labels else None)

    def _cameras(self, camera: Camera) -> Any:
        """Cameras as the kernels take them."""
        cameras = self._kernels.Cameras()
        cameras.focal = self._wrap(camera.focal * self.supersampling)
        cameras.centre = self._wrap(camera.centre * self.supersampling)
        cameras.pose = self._wrap(camera.pose)
        cameras.near = self.near
        return cameras

    def _lights(self, environment: Environment) -> Any:
        """Light as the kernels take it, with room for the sun's view."""
        lights = self._filled(self._kernels.Lights(), environment)
        lights.view = self._wrap(self._new(len(environment), 3, 4))
        lights.eye, lights.to_sun = (self._wrap(self._new(len(environment), 3)) for _ in range(2))
        return lights

    def _placed(self, instances: InstanceBatch, labels: bool) -> tuple[Any, Bool[Tensor, "b n"]]:
        """Instances as the kernels take them, and for which of them labels are wanted."""
        wp, number = self.warp, instances.mesh.numel()
        wanted = instances.mesh >= 0
        if instances.labelled is not None:
            wanted = wanted & instances.labelled
        if not labels:
            wanted = torch.zeros_like(wanted)
        placed = self._kernels.Instances()
        placed.number = instances.mesh.shape[1]
        placed.mesh = self._wrap(instances.mesh.to(torch.int32).flatten())
        placed.model = self._wrap(instances.transform.flatten(0, 1))
        placed.colour = self._wrap(instances.colour.flatten(0, 1))
        placed.labelled = self._wrap(wanted.flatten().to(torch.uint8), wp.uint8)
        placed.image, placed.sun = (self._wrap(self._new(number, 3, 4)) for _ in range(2))
        placed.normal = self._wrap(self._new(number, 3, 3))
        return placed, wanted

    def _measured(self, number: int) -> Any:
        """Room for labels."""
        measured = self._kernels.Labels()
        measured.extent = self._wrap(self._new(number, 4))
        measured.window = self._wrap(self._new(number, 4, dtype=torch.int32))
        measured.alone, measured.seen = (self._wrap(self._new(number, dtype=torch.int32).zero_()) for _ in range(2))
        limits = torch.tensor([max(self.size), max(self.size), 0, 0], dtype=torch.int32, device=self.device)
        measured.box = self._wrap(limits.repeat(number, 1), self.warp.int32)
        return measured

    def _labels(self, measured: Any, wanted: Bool[Tensor, "b n"]) -> Labels:
        wp, shape, step = self.warp, wanted.shape, self.supersampling

        def of(array: Any, *more: int) -> Tensor:
            return wp.to_torch(array).view(*shape, *more).float() * wanted.view(*shape, *(1 for _ in more))

        boxes = of(measured.box, 4)
        boxes = boxes * (boxes[..., 2:3] > 0)
        extents = torch.where(wanted[..., None], wp.to_torch(measured.extent).view(*shape, 4), 0) / step
        return Labels(extents, of(measured.alone) / step**2, boxes, of(measured.seen) / step**2)

    def _listing(self, counts: Int[Tensor, " n"], first: Int[Tensor, " n"], total: int) -> Any:
        """So many triangles of each instance, one after another."""
        listing = self._kernels.Listing()
        instance = torch.repeat_interleave(counts, output_size=total) if total else counts.new_zeros(1)
        listing.instance, listing.first = self._wrap(instance.to(torch.int32)), self._wrap(first)
        return listing

    def _cleared(self, name: str, number: int, dtype: Any) -> Any:
        """A buffer of zeros that is kept from part to part."""
        buffer: Tensor = getattr(self, name)
        if len(buffer) < max(1, number):
            buffer = torch.empty(max(1, number), dtype=buffer.dtype, device=self.device)
            setattr(self, name, buffer)
        buffer[:number].zero_()
        return self._wrap(buffer, dtype)

    def _new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _wrap(self, tensor: Tensor, dtype: Any = None, plain: bool = False) -> Any:
        """A tensor as Warp's array, of vectors or matrices if the last sides have such a shape and it isn't plain."""
        wp = self.warp
        inner: dict[tuple[int, ...], Any] = {(2,): wp.vec2, (3,): wp.vec3, (4,): wp.vec4}
        inner |= {(3, 3): wp.mat33, (3, 4): self._kernels.mat34, (4, 4): wp.mat44}
        four: dict[tuple[int, ...], Any] = {(4,): wp.vec4i}
        if tensor.is_floating_point():
            tensor = tensor.float()
        if dtype is None and not plain:
            known = inner if tensor.is_floating_point() else four
            dtype = known.get(tuple(tensor.shape[1:]))
        return wp.from_torch(tensor.contiguous(), dtype, requires_grad=False)

    def _filled(self, struct: Any, values: Any) -> Any:
        """A kernel's struct with the tensors of a dataclass that has the same names."""
        for item in fields(values):
            if item.name == "texel":  # bits, which Warp knows as another type
                continue
            setattr(struct, item.name, self._wrap(getattr(values, item.name)))
        return struct

    def _launch(self, kernel: Any, dim: int | tuple[int, ...], *inputs: Any) -> None:
        self.warp.launch(kernel, dim, inputs=inputs, device=str(self.device))

    def _stream(self) -> contextlib.AbstractContextManager[Any]:
        """Torch's and Warp's work in one order."""
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return self.warp.ScopedStream(self.warp.stream_from_torch(torch.cuda.current_stream(self.device)))


def _on(batch: Any, device: torch.device) -> Any:
    """A dataclass of tensors on a device."""
    values = (getattr(batch, item.name) for item in fields(batch))
    return type(batch)(*(None if value is None else value.to(device) for value in values))


def _sliced(batch: Any, start: int, number: int) -> Any:
    """Some scenes of a dataclass of tensors."""
    values = (getattr(batch, item.name) for item in fields(batch))
    return type(batch)(*(None if value is None else value[start : start + number] for value in values))


def _together(parts: list[Any]) -> Any:
    """The parts of a batch as one."""
    found: list[Any] = []
    for item in fields(parts[0]):
        values = [getattr(part, item.name) for part in parts]
        if values[0] is None:
            found.append(None)
        else:
            found.append(torch.cat(values) if isinstance(values[0], Tensor) else _together(values))
    return type(parts[0])(*found)


def load_warp() -> tuple[Any, "ModuleType", "ModuleType"]:
    """Warp, without its banner, and the kernels; they are compiled when they first run, and kept in Warp's cache.

    Raises:
        UserError: If Warp is not installed.
    """
    try:
        import warp
    except ImportError as error:
        raise UserError(
            "drawing in 3D needs NVIDIA Warp, which is not installed. Try: pip install warp-lang (it needs no GPU)"
        ) from error
    level = warp.config.log_level
    warp.config.log_level = max(level, warp.LOG_WARNING)
    with contextlib.nullcontext() if torch.cuda.is_available() else _silent_stderr():
        warp.init()  # a second call does nothing
    from ms2.render.engines.warp import kernels, shading

    return warp, kernels, shading


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what C code writes to stderr: Warp's complaint that there is no CUDA driver, where nobody expects one."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
