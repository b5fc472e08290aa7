"""One scene as files of scenes describe it: named placements of meshes, a camera, a sun and a sky."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from ms2.render.scene3d.meshes import Mesh
from ms2.render.scene3d.renderer import Renderer3D
from ms2.scene.batch import SceneBatch

CAMERA_AXES = np.diag([1.0, -1.0, -1.0, 1.0])
"""From the axes of glTF's and USD's cameras, x right, y up, z backward, to x right, y down, z forward."""


@dataclass(frozen=True)
class Placement:
    """A mesh at a place.

    Attributes:
        name: Name of the object, or of the part of the street.
        group: ``objects`` or ``street``.
        mesh: Name of the mesh.
        transform: Matrix from the mesh's axes to the world's.
        colour: Colour of the instance as displayed.
        properties: What else is known of it, as JSON data.
    """

    name: str
    group: str
    mesh: str
    transform: Float[np.ndarray, "4 4"]
    colour: tuple[float, float, float]
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class ScenePlan:
    """One scene in axes x right, y forward, z up, in metres.

    Attributes:
        name: Name of the scene.
        meshes: The meshes by name.
        placements: The placed meshes.
        size: Height and width of the image in pixels.
        focal: Focal lengths along x and y in pixels.
        centre: Column and row of the principal point in pixels from the image's edges.
        camera: Matrix from the axes of glTF's and USD's cameras to the world's.
        lighting: Fields of `ms2.render.scene3d.lighting.Lighting`, as lists of numbers.
        processing: What the camera does to the image after it is rendered, see `Renderer3D.processing`.
    """

    name: str
    meshes: Mapping[str, Mesh]
    placements: Sequence[Placement]
    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    camera: Float[np.ndarray, "4 4"]
    lighting: Mapping[str, Any]
    processing: Mapping[str, float]

    @property
    def sun_rotation(self) -> Float[np.ndarray, "4 4"]:
        """Compute a rotation that turns the z axis, against which lights of glTF and USD shine, to the sun."""
        z = np.array(self.lighting["sun"], float)
        z /= np.linalg.norm(z)
        x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
        x /= np.linalg.norm(x)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
        return matrix

    @property
    def sun_illuminance(self) -> tuple[float, tuple[float, float, float]]:
        """Compute the sun's illuminance and its linear colour, at most 1.

        A surface that faces a sun of intensity 1 is displayed in its own colour; a matt one reflects 1 / pi of the
        illuminance in each direction.
        """
        colour = np.array(self.lighting["sun_colour"], float)
        strength = float(colour.max())
        red, green, blue = (colour / strength if strength else np.ones(3)).tolist()
        return math.pi * strength, (red, green, blue)


def plan_scene(
    renderer: Renderer3D, scenes: SceneBatch, classes: Sequence[str], name: str, properties: Sequence[Mapping[str, Any]]
) -> ScenePlan:
    """Describe one scene.

    Args:
        renderer: Renderer of its world.
        scenes: A batch of this scene alone.
        classes: Names of the world's classes.
        name: Name of the scene.
        properties: What is known of each object besides its class, as JSON data.
    """
    made = renderer.assemble(scenes)
    instances, number = made.instances, scenes.classes.shape[1]
    meshes = list(made.meshes.meshes)
    transforms, colours = instances.transform[0].double().cpu().numpy(), instances.colour[0].tolist()
    object_classes = scenes.classes[0].tolist()
    placements, count = [], dict.fromkeys(renderer.surfaces, 0)
    for i, mesh in enumerate(instances.mesh[0].tolist()):
        if mesh < 0:
            continue
        red, green, blue = colours[i]
        if i < number:
            class_name = classes[object_classes[i]]
            known = {"class": class_name, "index": i, **properties[i]}
            group, title = "objects", f"{class_name}_{i}"
        else:
            surface = renderer.surfaces[renderer.surface_of(meshes[mesh])]
            known, group, title = {"surface": surface}, "street", f"{surface}_{count[surface]}"
            count[surface] += 1
        placements.append(Placement(title, group, meshes[mesh], transforms[i], (red, green, blue), known))
    pose = np.eye(4)
    pose[:3] = made.camera.pose[0].double().cpu().numpy()
    (fx, fy), (cx, cy) = made.camera.focal[0].tolist(), made.camera.centre[0].tolist()
    light = {field.name: getattr(made.lighting, field.name)[0].tolist() for field in fields(made.lighting)}
    return ScenePlan(
        name,
        made.meshes.meshes,
        placements,
        renderer.size,
        (fx, fy),
        (cx, cy),
        np.linalg.inv(pose) @ CAMERA_AXES,
        light,
        {key: float(values[0]) for key, values in renderer.processing(scenes).items()},
    )
