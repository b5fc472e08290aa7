"""Rasteriser of one mesh library at one image size on one device: prepares buffers and launches the kernels."""

from collections import deque
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ms2.render.engines.warp.normals import VisibleTriangles, visible_normals
from ms2.render.engines.warp.packing import pack_meshes
from ms2.render.engines.warp.runtime import Runtime
from ms2.render.scene3d.camera import Camera
from ms2.render.scene3d.engine import InstanceLabels, RasterOutput
from ms2.render.scene3d.instances import InstanceBatch
from ms2.render.scene3d.lighting import Lighting
from ms2.render.scene3d.meshes import MeshLibrary

THREADS_PER_TRIANGLE = {"cpu": 1, "cuda": 16}
"""Threads that share a triangle's rows: on a GPU one thread would make all others wait for a triangle that fills the
image."""
MIN_SHADOW_HEIGHT = -2.5
"""Height relative to the camera, in metres, down to which the shadow map reaches."""


class RasterSettings(NamedTuple):
    """Settings of the rasteriser, as described in `ms2.render.engines.warp.engine.WarpEngine`."""

    supersampling: int
    shadow_size: int
    shadow_distance: float
    shadow_half_width: float
    near: float


class Buffers:
    """Memory that a thread renders to, reused from call to call.

    Args:
        device: Its device.
    """

    def __init__(self, device: torch.device) -> None:
        self._samples = torch.empty(0, dtype=torch.int64, device=device)
        self._depth, self._top = torch.empty(0, device=device), torch.empty(0, device=device)

    def visibility(self, number: int) -> Int[Tensor, " n"]:
        """Return a zeroed visibility buffer of at least ``number`` samples."""
        if len(self._samples) < number:
            self._samples = torch.empty(number, dtype=torch.int64, device=self._samples.device)
        self._samples[:number].zero_()
        return self._samples

    def visibility_tensor(self, scenes: int, height: int, width: int) -> Int[Tensor, "b H W"]:
        """Return the visibility buffer as it was filled, in rows of samples."""
        return self._samples[: scenes * height * width].view(scenes, height, width)

    def shadow_maps(self, number: int, blocks: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
        """Return depths of at least ``number`` samples and their bounds in ``blocks``: zeros, or as they were left."""
        if len(self._top) < max(1, blocks):
            self._depth = torch.zeros(max(1, number), device=self._depth.device)
            self._top = torch.zeros(max(1, blocks), device=self._top.device)
        return self._depth, self._top


class Rasteriser:
    """Renders batches of scenes with the meshes of one library.

    Args:
        runtime: Warp and the kernels.
        meshes: The library; its meshes are packed and copied to the device.
        size: Height and width of an image in pixels.
        device: Device to render on.
        settings: Settings of the rasteriser.
    """

    def __init__(
        self,
        runtime: Runtime,
        meshes: MeshLibrary,
        size: tuple[int, int],
        device: torch.device,
        settings: RasterSettings,
    ) -> None:
        self.warp, self._kernels, self._shading = runtime
        self.size, self.device, self.settings = size, device, settings
        packed = pack_meshes(meshes, device)
        self._meshes = self._fill(self._kernels.MeshData(), packed)
        self._meshes.texel = self._wrap(packed.texel, self.warp.uint32)
        for module in (self._kernels, self._shading):
            self.warp.load_module(module, device=str(device))  # here, as threads may start to render together
        self._free = deque[Buffers]()

    def render(
        self, instances: InstanceBatch, camera: Camera, lighting: Lighting, output: RasterOutput, labels: bool
    ) -> InstanceLabels | None:
        """Render b scenes at once to the tensors of ``output``, and compute their labels if ``labels``.

        Several threads may do so together. Other arguments as in `ms2.render.scene3d.engine.Engine.render`.
        """
        try:
            kept = self._free.pop()
        except IndexError:  # all are in use
            kept = Buffers(self.device)
        found = self._render(instances, camera, lighting, output, labels, kept)
        self._free.append(kept)
        return found

    def _render(
        self,
        instances: InstanceBatch,
        camera: Camera,
        lighting: Lighting,
        output: RasterOutput,
        labels: bool,
        kept: Buffers,
    ) -> InstanceLabels | None:
        k, (height, width) = self._kernels, self.size
        step, size = self.settings.supersampling, self.settings.shadow_size
        b, n = instances.mesh.shape
        tall, wide = height * step, width * step
        cameras, lights = self._camera_data(camera), self._light_data(lighting)
        placed, labelled = self._instance_data(instances, labels)
        buffers, counts = self._label_buffers(b * n), self._new(3, b * n, dtype=torch.int32)
        buffers.mask_words = self._wrap(counts[2])

        far, side = self.settings.shadow_distance, self.settings.shadow_half_width
        self._launch(k.fit_shadow_camera, b, cameras, lights, wide, size, far, side, MIN_SHADOW_HEIGHT)
        triangles = (self._wrap(counts[0]), self._wrap(counts[1]))
        transform_inputs = (self._meshes, cameras, lights, placed, buffers, wide, tall, size, *triangles)
        self._launch(k.transform_instances, b * n, *transform_inputs)
        first = counts.cumsum(1, dtype=torch.int32) - counts
        num_image, num_shadow, num_words = counts.sum(1).tolist()

        buffers.first_word = self._wrap(first[2])
        buffers.mask = self._wrap(self._new(num_words, dtype=torch.int32).zero_(), self.warp.uint32)
        threads = THREADS_PER_TRIANGLE[self.device.type]
        blocks = -(-size // self._kernels.SHADOW_BLOCK)
        shadow_depth, shadow_top = self._shadow_maps(kept, b, size, blocks)
        shadow_list = self._draw_list(counts[1], first[1], num_shadow)
        shadow_inputs = (self._meshes, placed, shadow_list, size, threads, shadow_depth, shadow_top)
        self._launch(k.draw_shadow_map, (num_shadow, threads), *shadow_inputs)
        samples = self._wrap(kept.visibility(b * tall * wide), self.warp.uint64)
        draw_list = self._draw_list(counts[0], first[0], num_image)
        setup = self._kernels.TriangleSetup()
        setup.corners = self._wrap(self._new(num_image, 4, dtype=torch.int32))
        setup.planes = self._wrap(self._new(4 * num_image, 4))
        image_inputs = (draw_list, setup, buffers, wide, tall, self.settings.near, threads, samples)
        self._launch(k.draw_triangles, (num_image, threads), self._meshes, lights, placed, *image_inputs)

        outputs = (self._wrap(tensor, plain=True) for tensor in (output.image, output.instances, output.depth))
        run = width if self.device.type == "cpu" else 1  # a thread's start takes a tenth of a pixel's time on a CPU
        self._launch(
            self._shading.resolve, b * height * width // run, self._meshes, cameras, lights, placed, draw_list, setup,
            buffers, width, height, run, step, size, labels, samples, shadow_depth, shadow_top, *outputs,
        )  # fmt: skip
        if output.normals is not None:
            keys = kept.visibility_tensor(b, tall, wide)
            drawn = self._visible_triangles(keys, draw_list, setup, placed)
            output.normals.copy_(visible_normals(drawn, output.instances, camera.pose[:, :, :3], n))
        return self._labels(buffers, labelled) if labels else None

    def _visible_triangles(
        self, keys: Int[Tensor, "b H W"], draw_list: Any, setup: Any, placed: Any
    ) -> VisibleTriangles:
        """Collect what the kernels have drawn, as tensors that share their memory."""
        tensor = self.warp.to_torch
        corners, vertex_normals = tensor(setup.corners), tensor(self._meshes.normal)[:, :3]
        planes = tensor(setup.planes).view(-1, 4, 4)
        return VisibleTriangles(
            keys, tensor(draw_list.instance), corners, planes, vertex_normals, tensor(placed.normal)
        )

    # -- inputs and outputs of the kernels -------------------------------------------------------------

    def _camera_data(self, camera: Camera) -> Any:
        """Convert cameras to the kernels' struct, in samples."""
        cameras = self._kernels.CameraData()
        cameras.focal = self._wrap(camera.focal * self.settings.supersampling)
        cameras.centre = self._wrap(camera.centre * self.settings.supersampling)
        cameras.pose = self._wrap(camera.pose)
        cameras.near = self.settings.near
        return cameras

    def _light_data(self, lighting: Lighting) -> Any:
        """Convert lighting to the kernels' struct, and allocate the shadow camera."""
        lights = self._fill(self._kernels.LightData(), lighting)
        lights.shadow_view = self._wrap(self._new(len(lighting), 3, 4))
        lights.shadow_filter = self._wrap(self._new(len(lighting), 4))
        lights.camera_position, lights.sun_direction = (self._wrap(self._new(len(lighting), 3)) for _ in range(2))
        return lights

    def _instance_data(self, instances: InstanceBatch, labels: bool) -> tuple[Any, Bool[Tensor, "b n"]]:
        """Convert instances to the kernels' struct; also return which of them are labelled."""
        wp, number = self.warp, instances.mesh.numel()
        labelled = instances.mesh >= 0
        if instances.labelled is not None:
            labelled = labelled & instances.labelled
        if not labels:
            labelled = torch.zeros_like(labelled)
        placed = self._kernels.InstanceData()
        placed.per_scene = instances.mesh.shape[1]
        placed.mesh = self._wrap(instances.mesh.to(torch.int32).flatten())
        placed.model = self._wrap(instances.transform.flatten(0, 1))
        placed.colour = self._wrap(instances.colour.flatten(0, 1))
        placed.labelled = self._wrap(labelled.flatten().to(torch.uint8), wp.uint8)
        placed.image, placed.shadow = (self._wrap(self._new(number, 3, 4)) for _ in range(2))
        placed.normal = self._wrap(self._new(number, 3, 3))
        return placed, labelled

    def _label_buffers(self, number: int) -> Any:
        """Allocate the labels of ``number`` instances, all but the masks."""
        buffers = self._kernels.LabelBuffers()
        buffers.extent = self._wrap(self._new(number, 4))
        buffers.window = self._wrap(self._new(number, 4, dtype=torch.int32))
        buffers.covered, buffers.visible = (self._wrap(self._new(number, dtype=torch.int32).zero_()) for _ in range(2))
        empty_box = torch.tensor([max(self.size), max(self.size), 0, 0], dtype=torch.int32, device=self.device)
        buffers.box = self._wrap(empty_box.repeat(number, 1), self.warp.int32)
        return buffers

    def _labels(self, buffers: Any, labelled: Bool[Tensor, "b n"]) -> InstanceLabels:
        """Convert label buffers to boxes and areas in pixels."""
        wp, shape, step = self.warp, labelled.shape, self.settings.supersampling

        def values(array: Any, *inner: int) -> Tensor:
            return wp.to_torch(array).view(*shape, *inner).float() * labelled.view(*shape, *(1 for _ in inner))

        boxes = values(buffers.box, 4)
        boxes = boxes * (boxes[..., 2:3] > 0)
        extents = torch.where(labelled[..., None], wp.to_torch(buffers.extent).view(*shape, 4), 0) / step
        return InstanceLabels(extents, values(buffers.covered) / step**2, boxes, values(buffers.visible) / step**2)

    def _draw_list(self, counts: Int[Tensor, " n"], first: Int[Tensor, " n"], total: int) -> Any:
        """List the instance of each of ``total`` triangles, of which instance i has ``counts[i]``."""
        draw_list = self._kernels.DrawList()
        instance = torch.repeat_interleave(counts, output_size=total) if total else counts.new_zeros(1)
        draw_list.instance, draw_list.first_triangle = self._wrap(instance.to(torch.int32)), self._wrap(first)
        return draw_list

    # -- Torch and Warp --------------------------------------------------------------------------------

    def _shadow_maps(self, kept: Buffers, number: int, size: int, blocks: int) -> tuple[Any, Any]:
        """Return cleared shadow maps, and bounds of the depths in their blocks."""
        depth, top = (self._wrap(tensor) for tensor in kept.shadow_maps(number * size**2, number * blocks**2))
        self._launch(self._kernels.clear_shadow_maps, number * blocks**2, size, depth, top)
        return depth, top

    def _new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _wrap(self, tensor: Tensor, dtype: Any = None, plain: bool = False) -> Any:
        """Wrap a tensor as a Warp array; of vectors or matrices if its inner shape is that of one, unless ``plain``."""
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

    def _fill(self, struct: Any, values: Any) -> Any:
        """Fill a kernel's struct from a dataclass of tensors with the same field names."""
        for item in fields(values):
            if item.name == "texel":  # unsigned, which Torch lacks; wrapped with its type by the caller
                continue
            setattr(struct, item.name, self._wrap(getattr(values, item.name)))
        return struct

    def _launch(self, kernel: Any, dim: int | tuple[int, ...], *inputs: Any) -> None:
        self.warp.launch(kernel, dim, inputs=inputs, device=str(self.device))
