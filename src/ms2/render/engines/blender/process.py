"""A Blender in a process of its own, which is started when it is needed, serves many scenes, and is started again."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ms2.core.errors import UserError
from ms2.core.hashing import digest
from ms2.render.engines.blender.exr import EXRImage, read_exr
from ms2.render.external.program import Program, ProgramError
from ms2.render.scene3d.meshes import Mesh, MeshLibrary

SCRIPT = Path(__file__).with_name("script.py")
"""What Blender runs."""
BLENDER_ARGUMENTS = ("--background", "--factory-startup", "--python-exit-code", "1", "--python")
"""Arguments of the program ``blender`` before the script; a Python interpreter needs none."""


class BlenderError(UserError):
    """Blender can't be started, or failed on a scene, several times."""


def blender_command(executable: str) -> list[str]:
    """Return the command that runs the script: of an interpreter, by its name, or else of Blender itself.

    Raises:
        BlenderError: If there is no such program.
    """
    found = shutil.which(os.path.expanduser(executable))
    if found is None:
        raise BlenderError(
            f"there is no program {executable!r}. Set the engine's executable to Blender (4.2 or later), or to a "
            "Python interpreter with bpy: python3.11 -m venv blender; blender/bin/pip install bpy; then "
            "blender/bin/python"
        )
    arguments = () if Path(found).name.startswith("python") else BLENDER_ARGUMENTS
    return [found, *arguments, str(SCRIPT)]


class BlenderProcess:
    """A running Blender, and the folder through which it gets meshes and returns images.

    Args:
        executable: The program ``blender``, or a Python interpreter with ``bpy``.
        timeout: Seconds for each scene, and for the start.
        retries: How often it is started again for one scene.
    """

    def __init__(self, executable: str, timeout: float, retries: int) -> None:
        self.owner, self.retries = os.getpid(), retries
        self._program = Program(blender_command(executable), timeout)
        self._root = Path(tempfile.mkdtemp(prefix="ms2-blender-"))
        self._libraries: weakref.WeakKeyDictionary[MeshLibrary, LibraryFolder] = weakref.WeakKeyDictionary()
        self._count = 0
        self.close = weakref.finalize(self, _close, self.owner, self._program, self._root)

    def library(self, meshes: MeshLibrary) -> "LibraryFolder":
        """Return the folder of a library."""
        if meshes not in self._libraries:
            self._count += 1
            self._libraries[meshes] = LibraryFolder(meshes, self._root / f"library_{self._count}")
        return self._libraries[meshes]

    def render(self, request: Mapping[str, Any]) -> EXRImage:
        """Render a scene.

        Args:
            request: The request that the script reads, without the file.

        Raises:
            BlenderError: If Blender fails, ends or does not answer in time, also after it was started again.
        """
        file = self._root / "image.exr"
        for failed in range(self.retries + 1):
            file.unlink(missing_ok=True)
            try:
                self._program.ask({**request, "file": str(file)})
                return read_exr(file.read_bytes())
            except (ProgramError, OSError, ValueError) as error:
                self._program.stop()
                if failed == self.retries:
                    tries = f" after {failed + 1} tries" if failed else ""
                    raise BlenderError(
                        f"Blender failed{tries}: {error}. It was started as: {' '.join(self._program.command)}"
                    ) from error
            except BaseException:  # such as Ctrl-C, after which an answer would be taken for that to the next scene
                self._program.stop()
                raise
        raise AssertionError("unreachable")


class LibraryFolder:
    """Meshes and textures of a library as files, which are written when a scene first needs them.

    Args:
        meshes: The library.
        path: Folder to create.
    """

    def __init__(self, meshes: MeshLibrary, path: Path) -> None:
        self.path = path
        self._meshes: list[Mesh] = list(meshes.meshes.values())
        self._written: set[int] = set()
        path.mkdir()

    def write(self, numbers: set[int]) -> None:
        """Write the meshes with these indices, unless they are there."""
        for number in numbers - self._written:
            self._write(number)
            self._written.add(number)

    def _write(self, number: int) -> None:
        mesh, surface = self._meshes[number], self._meshes[number].surface()
        textures = [self._texture(image) for image in mesh.textures]
        np.savez(
            self.path / f"{number}.npz",
            vertices=mesh.vertices.astype(np.float32),
            normals=mesh.normals.astype(np.float32),
            triangles=mesh.triangles.astype(np.int32),
            uv=surface.uv.astype(np.float32),
            colour=np.square(surface.colour, dtype=np.float32),  # linear light
            paint=surface.paint,
            gloss=surface.gloss,
            texture=surface.texture.astype(np.int64),
            textures=np.array([*textures, ""]),  # the last one is that of -1
            casts_shadow=mesh.casts_shadow,
        )

    def _texture(self, image: np.ndarray) -> str:
        """Write a texture unless it is there; return the file's name."""
        name = f"{digest(image.tobytes() + str(image.shape).encode())}.png"
        if not (self.path / name).exists():
            Image.fromarray(image).save(self.path / name, compress_level=1)
        return name


def _close(owner: int, program: Program, root: Path) -> None:
    if owner == os.getpid():  # not in a fork, which shares them with the process that they belong to
        program.stop()
        shutil.rmtree(root, ignore_errors=True)
