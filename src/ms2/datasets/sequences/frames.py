"""Frames of sequences in blocks: what is sampled and rendered together, and where a frame belongs."""

from collections.abc import Sequence

import torch

from ms2.core.seeding import generator
from ms2.datasets.blocks import BLOCK_SIZE, Block, SceneBlocks
from ms2.datasets.plan import Plan
from ms2.datasets.records import FLOW_MAPS, Frame
from ms2.models.mixed_scene_model import MixedSceneModel
from ms2.models.scene_model import Sampler, SceneModel
from ms2.render.scene3d.renderer import Renderer3D
from ms2.scene.batch import SceneBatch


class SequenceBlocks(SceneBlocks):
    """Frames of scenes in motion. Scene s of a data set is that of image s of the set without frames and the same seed.

    Frame k of scene s is image s n + k, for n frames of each scene. A block has at most 32 frames of one scene. Frames
    depend on the seed, their scene's number, their own, and the frames per second.

    Args:
        plan: The data set's specification, with frames.
        model: Samples the scenes.
        samplers: Sample the derivations of each component.
        device: Device of the scenes.
    """

    def __init__(
        self,
        plan: Plan,
        model: SceneModel | MixedSceneModel,
        samplers: Sequence[Sampler],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(plan, model, samplers, device)
        assert plan.frames is not None
        self.num_frames = plan.frames
        self.per_scene = -(-self.num_frames // BLOCK_SIZE)
        self._scenes: tuple[int, Block] | None = None

    @property
    def numbers(self) -> range:
        """Numbers of the blocks."""
        return range(self.plan.num_scenes * self.per_scene)

    def indices(self, block: int) -> range:
        """Return the indices of the images in a block."""
        scene, part = divmod(block, self.per_scene)
        start, end = part * BLOCK_SIZE, min((part + 1) * BLOCK_SIZE, self.num_frames)
        return range(scene * self.num_frames + start, scene * self.num_frames + end)

    def check(self, scenes: SceneBatch) -> None:
        """Raise a `UserError` if the plan does not fit, given a few scenes.

        Raises:
            UserError: If scenes do not move, the camera has no room to drive, or flow was asked for of single frames.
        """
        super().check(scenes)
        draw = generator(self.plan.seed, "trial motion", device=scenes.classes.device)
        self.model.world.parameter_prior.animate(scenes[:1], self.num_frames, self.plan.fps, draw)

    def shown(self, missing: Sequence[int]) -> list[int]:
        """Add the frames after missing ones if flow was asked for, which leads to them."""
        flow = any(name in FLOW_MAPS for name in self.plan.maps)
        after = {i + 1 for i in missing if flow and not self._is_last(i)}
        return sorted({*missing, *after})

    def sample(self, block: int, wanted: Sequence[int]) -> Block:
        """Sample some of the frames of a block, and of the one after it.

        Raises:
            UserError: If scenes do not move, or the camera has no room to drive.
        """
        scene = block // self.per_scene
        rules, scenes, components, _, _ = self._sampled(scene // BLOCK_SIZE)
        i = scene % BLOCK_SIZE
        draw = generator(self.plan.seed, "motion", scene, device=torch.device(self.device))
        animate = self.model.world.parameter_prior.animate
        frames = animate(scenes[i : i + 1], self.num_frames, self.plan.fps, draw)
        chosen = torch.tensor([index - scene * self.num_frames for index in wanted], device=frames.classes.device)
        frames = frames[chosen]
        following = [None if self._is_last(i) or i + 1 not in wanted else wanted.index(i + 1) for i in wanted]
        described = self._described(wanted, self._poses(frames))
        number = len(wanted)
        return Block(rules[i : i + 1].expand(number, -1), frames, [components[i]] * number, described, following)

    def _sampled(self, block: int) -> Block:
        """Sample a block of scenes, which are those of several sequences."""
        if self._scenes is None or self._scenes[0] != block:
            self._scenes = block, self._sample_scenes(block)
        return self._scenes[1]

    def _poses(self, frames: SceneBatch) -> list[list[list[float]]]:
        renderer = self.model.world.renderer
        assert isinstance(renderer, Renderer3D)  # of all worlds that move
        found: list[list[list[float]]] = renderer.poses(frames).double().cpu().tolist()
        return found

    def _described(self, wanted: Sequence[int], poses: Sequence[Sequence[Sequence[float]]]) -> list[Frame]:
        described = []
        for index, pose in zip(wanted, poses, strict=True):
            scene, number = divmod(index, self.num_frames)
            described.append(Frame(scene, number, self.num_frames, number / self.plan.fps, pose))
        return described

    def _is_last(self, index: int) -> bool:
        return (index + 1) % self.num_frames == 0
