"""Renderer that hands scenes to another program."""

import contextlib
import os
import shlex
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import orjson
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ms2.core.bounds import Dimension, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveWorkers
from ms2.core.errors import UserError
from ms2.core.images import Channels
from ms2.render.base import Renderer, Rendering
from ms2.render.external.answers import ObjectArrays, image_of, instances_of, labels_of
from ms2.render.external.program import Program, ProgramError
from ms2.scene.attributes import Attribute
from ms2.scene.batch import SceneBatch
from ms2.scene.records import to_record

Intervals = Mapping[str, tuple[FiniteFloat, FiniteFloat]]
"""Lower and upper bound of attributes by name."""


class ExternalRendererError(UserError):
    """The program of an `ExternalRenderer` failed on a scene, several times."""


class ExternalRenderer(Renderer):
    """Renders with another program, in whatever language, which is kept running and started again if it fails.

    The program reads a line of JSON for each scene: ``scene``, as in the records of data sets (``environment``, and
    ``objects`` with ``class``, ``parent`` and ``attributes``); ``width``, ``height`` and ``channels`` of the image;
    ``labels``, whether labels are wanted; and the files to write, ``image`` and ``instances``. It writes the image
    there (PNG, or whatever Pillow reads) and, if labels are wanted, the instances (grey, 8 or 16 bits: 0 for the
    background, 1 for the scene's first object, ...), and then answers with a line of JSON: ``{}``, or ``objects`` with
    ``box`` (x0, y0, x1, y1 of the whole object in pixels), ``pixels`` (their number if nothing occluded it) and
    ``corners`` (of its oriented box) of each object, each of which may be left out; or ``error`` with a text. The
    contents of both files may be in the answer instead, in base64. Other lines of its output are ignored. It ends when
    its input does.

    Its images must depend on the scene alone, which ``ms2 check`` checks. They have no derivatives: learn parameters
    with the gradients `ScoreFunction` or `FiniteDifference`.

    Args:
        command: The program and its arguments. Paths are relative to the folder in which ``ms2`` is started. The
            contents of files that are named count in the renderer's fingerprint, as source code does.
        classes: Names of the world's classes, in its order.
        attributes: Attributes of objects that the program reads, with their bounds.
        environment: Attributes of the scene as a whole that the program reads, with their bounds.
        size: Height and width of images in pixels.
        channels: 3 for red, green, blue; 1 for grey.
        timeout: Seconds for each scene, and for the program's start, after which it is killed.
        retries: How often the program is started again for one scene, if it ends, times out or reports an error.
        processes: Number of programs that render at the same time.
        licence: Licence of the images.

    Raises:
        UserError: If the command is empty, or bounds are not in order.
    """

    def __init__(
        self,
        command: Sequence[str],
        classes: Sequence[str],
        attributes: Intervals | None = None,
        environment: Intervals | None = None,
        size: tuple[Dimension, Dimension] = (128, 128),
        channels: Channels = 3,
        timeout: PositiveFloat = 60.0,
        retries: NonNegativeInt = 2,
        processes: PositiveWorkers = 1,
        licence: str = "Rendered by an external program, under the licences of its assets.",
    ) -> None:
        if isinstance(command, str) or not command:
            raise UserError(f"command has to be a list of the program and its arguments, not {command!r}")
        self.command, self.classes = list(map(str, command)), tuple(classes)
        self.attributes, self.environment = _attributes(attributes), _attributes(environment)
        self.size, self.channels, self.licence = (size[0], size[1]), channels, licence
        self._image_channels: Channels = channels
        self.timeout, self.retries, self.processes = timeout, retries, processes
        self._pool: _Pool | None = None

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise an error unless a world has the classes that the program is told.

        Args:
            classes: Names of the world's classes.

        Raises:
            UserError: If it has others.
        """
        if self.classes != tuple(classes):
            raise UserError(
                f"ExternalRenderer.classes are {', '.join(self.classes)}, but the world's are {', '.join(classes)}: "
                "name these, in this order"
            )

    @property
    def source_files(self) -> tuple[Path, ...]:
        """Files that the command names."""
        return tuple(path for path in map(Path, self.command) if path.is_file())

    def render(self, scenes: SceneBatch) -> Float[Tensor, "b c h w"]:
        """Render images without labels."""
        images = [found.image for found in self._render(scenes, False)]
        return torch.stack(images).to(scenes.classes.device) if images else self._no_image(scenes)

    def render_labelled(self, scenes: SceneBatch) -> Rendering:
        """Render images with labels."""
        found = self._render(scenes, True)
        shape, device = scenes.classes.shape, scenes.classes.device
        objects = ObjectArrays(
            torch.zeros(*shape, 4), torch.zeros(*shape, 4, 2), torch.zeros(*shape, 4), torch.zeros(shape)
        )
        instances = torch.full((len(scenes), *self.size), -1)
        for i, one in enumerate(found):
            entries = scenes.mask[i].cpu().nonzero()[:, 0]  # unused ones may stand between those of objects
            instances[i] = torch.cat([entries, torch.tensor([-1])])[one.instances]
            for all_rows, rows in zip(objects, one.objects, strict=True):
                all_rows[i, entries] = rows
        return Rendering(
            image=torch.stack([one.image for one in found]).to(device) if found else self._no_image(scenes),
            classes=scenes.classes,
            parents=scenes.parents,
            boxes=objects.boxes.to(device),
            corners=objects.corners.to(device),
            visible_boxes=objects.visible_boxes.to(device),
            instances=instances.to(device),
            visibility=objects.visibility.to(device),
        )

    def close(self) -> None:
        """Stop the programs; they are started again when they are needed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the running programs out."""
        return self.__dict__ | {"_pool": None}

    def _no_image(self, scenes: SceneBatch) -> Float[Tensor, "0 c h w"]:
        return torch.zeros(0, self.channels, *self.size, device=scenes.classes.device)

    @torch.no_grad()
    def _render(self, scenes: SceneBatch, labels: bool) -> "list[_Rendered]":
        if self._pool is None or self._pool.owner != os.getpid():  # a forked process must not share pipes
            self._pool = _Pool(self.command, self.timeout, self.processes)
        pool, compact = self._pool, scenes.compact().to(torch.device("cpu"))
        rows = [to_record(compact, i, self.classes).to_json() for i in range(len(compact))]
        return pool.map(lambda place, scene: self._render_scene(place, scene, labels), rows)

    def _render_scene(self, place: "_Place", scene: dict[str, Any], labels: bool) -> "_Rendered":
        image, instances = place.folder / "image.png", place.folder / "instances.png"
        height, width = self.size
        files = {"image": str(image), "instances": str(instances)}
        request = {"scene": scene, "width": width, "height": height, "channels": self.channels, "labels": labels}
        tries = self.retries + 1
        for failed in range(tries):
            for file in (image, instances):
                file.unlink(missing_ok=True)
            try:
                answer = place.program.ask(request | files)
            except ProgramError as error:
                place.program.stop()
                if failed + 1 < tries:
                    continue
                raise self._failure(error, request, f"after {tries} tries" if tries > 1 else "") from error
            except BaseException:  # such as Ctrl-C, after which an answer would be taken for that to the next scene
                place.program.stop()
                raise
            break
        try:
            pixels = image_of(answer, image, self._image_channels, self.size).float() / 255
            number = len(scene["objects"]) if labels else 0
            if not labels:
                return _Rendered(pixels, torch.full(self.size, -1), labels_of({}, torch.full(self.size, -1), 0))
            shown = instances_of(answer, instances, self.size, number)
            return _Rendered(pixels, shown, labels_of(answer, shown, number))
        except UserError as error:
            raise self._failure(error, request) from error

    def _failure(self, error: Exception, request: dict[str, Any], when: str = "") -> ExternalRendererError:
        """Keep the request in a folder, in which the program can be tried by hand."""
        folder = Path(tempfile.mkdtemp(prefix="ms2-failed-"))
        files = {name: str(folder / f"{name}.png") for name in ("image", "instances")}
        (folder / "scene.json").write_bytes(orjson.dumps(request | files, option=orjson.OPT_APPEND_NEWLINE))
        return ExternalRendererError(
            f"the external renderer failed{' ' if when else ''}{when}: {error}. Try it by hand: "
            f"{shlex.join(self.command)} < {folder / 'scene.json'}"
        )


def _attributes(bounds: Intervals | None) -> tuple[Attribute, ...]:
    for name, (low, high) in (bounds or {}).items():
        if not low < high:
            raise UserError(f"the bounds of {name} have to be a lower and a higher number, not {low:g} and {high:g}")
    return tuple(Attribute(name, low, high) for name, (low, high) in (bounds or {}).items())


# -- several programs ----------------------------------------------------------------------------------


class _Rendered(NamedTuple):
    """Image and labels of one scene, of which none are read if none are wanted."""

    image: Float[Tensor, "c h w"]
    instances: Int[Tensor, "h w"]
    objects: ObjectArrays


class _Place(NamedTuple):
    """A program, and the folder of the files that it writes."""

    program: Program
    folder: Path


class _Pool:
    """Programs that render at the same time.

    Args:
        command: The command of each.
        timeout: Seconds for each request.
        number: How many.
    """

    def __init__(self, command: Sequence[str], timeout: float, number: int) -> None:
        self.owner = os.getpid()
        root = Path(tempfile.mkdtemp(prefix="ms2-external-"))
        places = [_Place(Program(command, timeout), root / str(i)) for i in range(number)]
        self._free: SimpleQueue[_Place] = SimpleQueue()
        for place in places:
            place.folder.mkdir()
            self._free.put(place)
        self._number, self._threads = number, ThreadPoolExecutor(number)
        self.close = weakref.finalize(self, _close, self.owner, places, root)

    def map(self, render: Any, scenes: Sequence[Any]) -> list[_Rendered]:
        """Render scenes, each in a place that is free."""

        def one(scene: Any) -> _Rendered:
            with self._taken() as place:
                rendered: _Rendered = render(place, scene)
                return rendered

        return list(self._threads.map(one, scenes) if self._number > 1 else map(one, scenes))

    @contextlib.contextmanager
    def _taken(self) -> Iterator[_Place]:
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


def _close(owner: int, places: Sequence[_Place], root: Path) -> None:
    if owner == os.getpid():  # not in a fork, which shares them with the process that they belong to
        for place in places:
            place.program.stop()
        shutil.rmtree(root, ignore_errors=True)
