"""GLB and USD: writers of the scenes themselves, for other renderers."""

from abc import abstractmethod
from collections.abc import Iterator

from ms2.core.errors import UserError
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.base import Format, Records
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord
from ms2.render.scene3d.export.glb_writer import GLBWriter
from ms2.render.scene3d.export.scene import ScenePlan, plan_scene
from ms2.render.scene3d.export.usd_writer import USDWriter, sky_picture
from ms2.render.scene3d.renderer import Renderer3D
from ms2.scene.records import from_record
from ms2.world import World


class SceneFormat(Format, selectable=False):
    """Base class of formats that hold 3D scenes, one file each."""

    world: World
    renderer: Renderer3D

    def bind(self, world: World) -> None:
        """Remember the world, whose renderer places the meshes.

        Raises:
            UserError: If its scenes are not in 3D.
        """
        if not isinstance(world.renderer, Renderer3D):
            name = type(self).__name__.removesuffix("Format").lower()
            raise UserError(
                f"the format {name} holds 3D scenes, but {type(world.renderer).__name__} draws flat ones: leave it out"
            )
        self.world, self.renderer = world, world.renderer

    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write one file for each scene."""
        self.write_scenes(folder, map(self._plan, records()))

    @abstractmethod
    def write_scenes(self, folder: DataSetFolder, scenes: Iterator[ScenePlan]) -> None:
        """Write the files of all scenes, given their descriptions."""

    def _plan(self, record: ImageRecord) -> ScenePlan:
        """Describe the scene of a record."""
        from ms2.datasets.rendering import check_renderable  # which imports the formats

        scenes = check_renderable(from_record(record.scene, self.world.classes), self.renderer)
        known = [{"attributes": dict(one.attributes)} for one in record.scene.objects]
        return plan_scene(self.renderer, scenes, self.world.classes, f"scene_{record.stem}", known)


class GLBFormat(SceneFormat):
    """Binary glTF 2.0: ``glb/NUMBER.glb``, each with all meshes and textures of its scene, in metres, y up."""

    def write_scenes(self, folder: DataSetFolder, scenes: Iterator[ScenePlan]) -> None:
        """Write one GLB file for each scene."""
        writer = GLBWriter()
        for scene in scenes:
            folder.write(f"glb/{scene.name.removeprefix('scene_')}.glb", writer.write(scene))

    def usage(self) -> str:
        """Return usage with trimesh."""
        return (
            "3D scenes in glTF, `glb/NUMBER.glb`; camera's intrinsics in its `extras`:\n\n"
            '```python\nimport trimesh\n\nscene = trimesh.load_scene("glb/000000.glb")  # metres, y up\n```'
        )


class USDFormat(SceneFormat):
    """OpenUSD: ``usd/NUMBER.usda`` for each scene, which refers to meshes in ``usd/assets.usdc``; metres, z up."""

    def bind(self, world: World) -> None:
        """Remember the world.

        Raises:
            UserError: If its scenes are not in 3D, or usd-core is not installed.
        """
        super().bind(world)
        self.writer = USDWriter()

    def write_scenes(self, folder: DataSetFolder, scenes: Iterator[ScenePlan]) -> None:
        """Write the scenes, then the library of the meshes that they use, with its textures."""
        for scene in scenes:
            number = scene.name.removeprefix("scene_")
            folder.write(f"usd/sky/{number}.png", sky_picture(scene))
            folder.write(f"usd/{number}.usda", self.writer.write(scene, f"sky/{number}.png"))
        for name, content in self.writer.write_library():
            folder.write(f"usd/{name}", content)

    def usage(self) -> str:
        """Return usage with usd-core."""
        return (
            "3D scenes in OpenUSD, `usd/NUMBER.usda` and `usd/assets.usdc`:\n\n"
            '```python\nfrom pxr import Usd\n\nstage = Usd.Stage.Open("usd/000000.usda")  # metres, z up\n```'
        )
