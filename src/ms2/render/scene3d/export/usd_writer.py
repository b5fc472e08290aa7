"""Writing of scenes as OpenUSD: a library of meshes and materials, and light files that refer to it."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ms2.core.errors import missing_extra
from ms2.core.images import encode
from ms2.render.scene3d.export.parts import MeshPart, split_mesh
from ms2.render.scene3d.export.scene import Placement, ScenePlan
from ms2.render.scene3d.meshes import Mesh

LIBRARY = "assets.usdc"
"""Name of the library's file, beside the scenes."""
APERTURE = 36.0
"""Width of the camera's film in tenths of a unit, as USD counts; only its ratio to the focal length matters."""
SKY_ROWS = 64
"""Rows of a sky's picture, from the zenith down to the nadir."""


class USDWriter:
    """Writes scenes as USD layers that refer to one library of meshes; axes are x right, y forward, z up, in metres.

    Materials are UsdPreviewSurface, which cannot multiply a texture with colours of vertices: a textured part has their
    mean.

    Raises:
        UserError: If usd-core is not installed.
    """

    def __init__(self) -> None:
        try:
            import pxr
        except ImportError as error:
            raise missing_extra("the format usd", "usd-core", extra="usd") from error
        self._pxr = pxr
        self._parts: dict[str, list[MeshPart]] = {}  # of each mesh that a scene has used

    # -- scenes ----------------------------------------------------------------------------------------

    def write(self, scene: ScenePlan, sky: str) -> str:
        """Convert a scene to the text of a layer.

        Args:
            scene: The scene.
            sky: Path of the picture of its sky, beside the layer.
        """
        from pxr import Sdf, UsdGeom

        layer = Sdf.Layer.CreateAnonymous(".usda")
        stage = self._stage(layer)
        root = UsdGeom.Xform.Define(stage, "/Scene")
        stage.SetDefaultPrim(root.GetPrim())
        root.GetPrim().SetCustomDataByKey("name", scene.name)
        _annotate(root.GetPrim(), {"lighting": scene.lighting, "processing": scene.processing})
        for group in dict.fromkeys(placed.group for placed in scene.placements):
            UsdGeom.Scope.Define(stage, f"/Scene/{group}")
        for placed in scene.placements:
            self._place(stage, scene.meshes, placed)
        self._camera(stage, scene)
        self._lights(stage, scene, sky)
        del stage  # it would look for the library, which is written last
        for placed in scene.placements:
            prim = layer.GetPrimAtPath(Sdf.Path(f"/Scene/{placed.group}/{placed.name}"))
            prim.referenceList.Prepend(Sdf.Reference(f"./{LIBRARY}", f"/Assets/{placed.mesh}"))
        text: str = layer.ExportToString()
        return text

    def _stage(self, layer: Any) -> Any:
        from pxr import Usd, UsdGeom

        stage = Usd.Stage.Open(layer)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        return stage

    def _place(self, stage: Any, meshes: Mapping[str, Mesh], placed: Placement) -> None:
        """Place a mesh, and colour its painted parts."""
        from pxr import Sdf, UsdGeom

        if placed.mesh not in self._parts:
            self._parts[placed.mesh] = split_mesh(meshes[placed.mesh])
        path = f"/Scene/{placed.group}/{placed.name}"
        node = UsdGeom.Xform.Define(stage, path)
        node.AddTransformOp().Set(self._matrix(placed.transform))
        _annotate(node.GetPrim(), placed.properties)
        for part in self._parts[placed.mesh]:
            if not part.is_painted:
                continue
            colour = part.linear_colour(placed.colour)
            if part.texture is not None:
                mean = colour.mean(0).tolist()
                texture = stage.OverridePrim(f"{path}/Looks/{part.name}/texture")
                texture.CreateAttribute("inputs:scale", Sdf.ValueTypeNames.Float4).Set((*mean, 1.0))
            else:
                mesh = stage.OverridePrim(f"{path}/{part.name}")
                UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
                    "displayColor", Sdf.ValueTypeNames.Color3fArray, _interpolation(part)
                ).Set(self._vectors(colour))

    def _camera(self, stage: Any, scene: ScenePlan) -> None:
        """Define the camera; film offsets hold the principal point."""
        from pxr import Gf, UsdGeom

        camera = UsdGeom.Camera.Define(stage, "/Scene/camera")
        camera.AddTransformOp().Set(self._matrix(scene.camera))
        (height, width), (fx, fy), (cx, cy) = scene.size, scene.focal, scene.centre
        focal = APERTURE * fx / width
        camera.CreateProjectionAttr(UsdGeom.Tokens.perspective)
        camera.CreateFocalLengthAttr(focal)
        camera.CreateHorizontalApertureAttr(APERTURE)
        camera.CreateVerticalApertureAttr(focal * height / fy)
        camera.CreateHorizontalApertureOffsetAttr(focal * (width / 2 - cx) / fx)
        camera.CreateVerticalApertureOffsetAttr(focal * (cy - height / 2) / fy)
        camera.CreateClippingRangeAttr(Gf.Vec2f(0.1, 10000.0))
        _annotate(camera.GetPrim(), {"width": width, "height": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy})

    def _lights(self, stage: Any, scene: ScenePlan, sky: str) -> None:
        """Define the sun, and a dome of the sky's picture."""
        from pxr import Gf, UsdGeom, UsdLux

        sun = UsdLux.DistantLight.Define(stage, "/Scene/sun")
        intensity, colour = scene.sun_illuminance
        sun.CreateIntensityAttr(intensity)
        sun.CreateColorAttr(Gf.Vec3f(*colour))
        sun.CreateAngleAttr(0.53)
        sun.CreateNormalizeAttr(True)  # the intensity is that on a surface, whatever the angle
        UsdGeom.Xformable(sun).AddTransformOp().Set(self._matrix(scene.sun_rotation))
        dome = UsdLux.DomeLight.Define(stage, "/Scene/sky")
        dome.CreateTextureFileAttr(f"./{sky}")
        dome.CreateTextureFormatAttr(UsdLux.Tokens.latlong)
        UsdGeom.Xformable(dome).AddRotateXOp().Set(90.0)  # a dome's pole is its y axis

    # -- the library -----------------------------------------------------------------------------------

    def write_library(self) -> Iterator[tuple[str, bytes]]:
        """Write the meshes that the scenes written so far use, with their textures: names and contents of files."""
        from pxr import Sdf, UsdGeom

        layer = Sdf.Layer.CreateAnonymous(".usda")
        stage = self._stage(layer)
        stage.SetDefaultPrim(UsdGeom.Scope.Define(stage, "/Assets").GetPrim())
        names: dict[bytes, str] = {}  # of each texture by its content
        for mesh, parts in sorted(self._parts.items()):
            UsdGeom.Xform.Define(stage, f"/Assets/{mesh}")
            for part in parts:
                texture = None
                if part.texture is not None:
                    png = part.png()
                    if png not in names:
                        names[png] = f"textures/{hashlib.blake2b(png, digest_size=16).hexdigest()}.png"
                        yield names[png], png
                    texture = names[png]
                self._part(stage, f"/Assets/{mesh}", part, texture)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / LIBRARY  # only a file can be binary
            layer.Export(str(path))
            yield LIBRARY, path.read_bytes()

    def _part(self, stage: Any, asset: str, part: MeshPart, texture: str | None) -> None:
        """Define a part of a mesh with its material."""
        from pxr import Sdf, UsdGeom, UsdShade, Vt

        mesh = UsdGeom.Mesh.Define(stage, f"{asset}/{part.name}")
        mesh.CreatePointsAttr(self._vectors(part.vertices))
        mesh.CreateExtentAttr(self._vectors(np.stack([part.vertices.min(0), part.vertices.max(0)])))
        mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(part.triangles), 3, np.int32)))
        mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(part.triangles).reshape(-1)))
        mesh.CreateNormalsAttr(self._vectors(part.normals))
        mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        mesh.CreateDoubleSidedAttr(True)
        colour = part.linear_colour((1.0, 1.0, 1.0))
        primvars = UsdGeom.PrimvarsAPI(mesh)
        primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, _interpolation(part)).Set(
            self._vectors(colour)
        )
        if part.uv is not None:
            uv = Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(part.uv, np.float32))
            primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex).Set(uv)
        material = self._material(stage, f"{asset}/Looks/{part.name}", part, texture, colour.mean(0))
        UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)

    def _material(
        self, stage: Any, path: str, part: MeshPart, texture: str | None, mean: Float[np.ndarray, "3"]
    ) -> Any:
        """Define a material: a texture times a colour, or the colours of the vertices."""
        from pxr import Sdf, UsdShade

        types = Sdf.ValueTypeNames
        material = UsdShade.Material.Define(stage, path)
        surface = _shader(stage, f"{path}/surface", "UsdPreviewSurface")
        surface.CreateInput("roughness", types.Float).Set(part.roughness)
        surface.CreateInput("metallic", types.Float).Set(0.0)
        material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
        colour = surface.CreateInput("diffuseColor", types.Color3f)
        if texture is None:
            reader = _shader(stage, f"{path}/colour", "UsdPrimvarReader_float3")
            reader.CreateInput("varname", types.String).Set("displayColor")
            colour.ConnectToSource(reader.CreateOutput("result", types.Float3))
            return material
        reader = _shader(stage, f"{path}/st", "UsdPrimvarReader_float2")
        reader.CreateInput("varname", types.String).Set("st")
        image = _shader(stage, f"{path}/texture", "UsdUVTexture")
        image.CreateInput("file", types.Asset).Set(f"./{texture}")
        image.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
        image.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
        for wrap in ("wrapS", "wrapT"):
            image.CreateInput(wrap, types.Token).Set("repeat")
        image.CreateInput("scale", types.Float4).Set((*mean.tolist(), 1.0))
        colour.ConnectToSource(image.CreateOutput("rgb", types.Float3))
        return material

    # -- values ----------------------------------------------------------------------------------------

    def _vectors(self, values: Float[np.ndarray, "v 3"]) -> Any:
        return self._pxr.Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(values, np.float32))

    def _matrix(self, matrix: Float[np.ndarray, "4 4"]) -> Any:
        """Convert a matrix to USD's, which multiplies rows of coordinates."""
        return self._pxr.Gf.Matrix4d(matrix.T.tolist())


def sky_picture(scene: ScenePlan) -> bytes:
    """Draw the sky as a picture in latitude and longitude (PNG), as the engine does, without the sun; grey below."""
    up = np.cos((np.arange(SKY_ROWS) + 0.5) / SKY_ROWS * np.pi)[:, None]  # of directions from the zenith down
    low, high = np.array(scene.lighting["horizon"]), np.array(scene.lighting["zenith"])
    ground = np.sqrt(np.array(scene.lighting["bounce"]).clip(0, 1))
    colour = np.where(up > 0, high + (low - high) * (1 - up.clip(0, 1)) ** 4, ground)
    pixels: UInt8[np.ndarray, "h w 3"] = (colour.clip(0, 1) * 255).round().astype(np.uint8)[:, None].repeat(8, 1)
    return encode(pixels, "png")


def _shader(stage: Any, path: str, kind: str) -> Any:
    from pxr import UsdShade

    shader = UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(kind)
    return shader


def _interpolation(part: MeshPart) -> str:
    return "constant" if part.is_uniform else "vertex"


def _annotate(prim: Any, properties: Mapping[str, Any]) -> None:
    """Store properties as custom data."""
    for name, value in properties.items():
        if isinstance(value, Mapping):
            _annotate_nested(prim, name, value)
        else:
            prim.SetCustomDataByKey(f"ms2:{name}", value)


def _annotate_nested(prim: Any, name: str, values: Mapping[str, Any]) -> None:
    from pxr import Vt

    for key, value in values.items():
        prim.SetCustomDataByKey(f"ms2:{name}:{key}", Vt.DoubleArray(value) if isinstance(value, list) else value)
