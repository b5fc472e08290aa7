"""Per-image records: image file, provenance, scene graph and labels, to and from JSON.

A record is the contract between all that write labelled sets and all that read them. Boxes are x, y, width and height
in pixels, from edge to edge.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ms2.scene.records import Json, RecordError, SceneRecord

Box = Sequence[float]
"""x, y, width and height in pixels."""
FLOW_MAPS = ("flow_occ", "flow_noc")
"""Maps of motion to the next frame: of all points, and of those that are visible there, as KITTI has them."""
JSON_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,), float: (int, float), str: (str,), NoneType: (NoneType,), dict: (dict,), Mapping: (dict,),
    Sequence: (list,),
}  # fmt: skip
"""Types that JSON data has where a field of a record has one of these types."""


@dataclass(frozen=True)
class ImageFile:
    """The image file of a record.

    Attributes:
        file: Path in the data set.
        width: Width in pixels.
        height: Height in pixels.
        bytes: Size of the file.
        hash: BLAKE2b hash of its content.
        projection: The camera's 3 x 4 projection matrix, in 3D worlds.
    """

    file: str
    width: int
    height: int
    bytes: int
    hash: str
    projection: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class MapFile:
    """A file with a value for each pixel, such as the depth image of a record.

    Attributes:
        file: Path in the data set.
        bytes: Size of the file.
    """

    file: str
    bytes: int


@dataclass(frozen=True)
class Segment:
    """A segment of a panoptic map.

    Attributes:
        id: Its value in the map.
        category: Class of the object, or name of the surface.
        area: Number of pixels.
        bbox: Box around them.
        object: Index of the object in the scene graph; None for a surface.
    """

    id: int
    category: str
    area: int
    bbox: Box
    object: int | None = None


@dataclass(frozen=True)
class Frame:
    """Where an image is in a sequence.

    Attributes:
        sequence: Number of the sequence, that of its scene.
        frame: Number of the frame in it, from 0.
        num_frames: Number of frames of the sequence.
        time: Seconds since its first frame.
        pose: 3 x 4 matrix from the camera's axes, which 3D labels have, to the world's: x right, y ahead, z up, metres.
    """

    sequence: int
    frame: int
    num_frames: int
    time: float
    pose: Sequence[Sequence[float]]

    @property
    def is_last(self) -> bool:
        """Whether no frame follows."""
        return self.frame + 1 == self.num_frames


@dataclass(frozen=True)
class Provenance:
    """Everything that an image depends on.

    Attributes:
        index: Number of the image in the data set.
        block: Number of the block that it was sampled with.
        seed: Seed of the data set.
        ms2: Version of the package.
        device: Type of the device that rendered it.
        fingerprints: Hashes of grammar, weights, priors and renderer by name; null where there is none.
        run: Name of the run that the scene was drawn from, in a mixture of runs.
    """

    index: int
    block: int
    seed: int
    ms2: str
    device: str
    fingerprints: Mapping[str, str | None]
    run: str | None = None

    def to_json(self) -> Json:
        """Convert to JSON data, with the fingerprints beside the other fields."""
        return {
            "index": self.index,
            "block": self.block,
            "seed": self.seed,
            "ms2": self.ms2,
            **({} if self.run is None else {"run": self.run}),
            **self.fingerprints,
            "device": self.device,
        }

    @classmethod
    def from_json(cls, found: Json) -> "Provenance":
        """Build from JSON data."""
        rest = {name: value for name, value in found.items() if name not in cls.__dataclass_fields__}
        made: Provenance = _build(cls, {**found, "fingerprints": rest})
        return made


@dataclass(frozen=True, kw_only=True)
class ObjectLabel:
    """The label of one object.

    Attributes:
        object: Index of the object in the scene graph.
        category: Its category, the name of its class.
        bbox: Box of the visible pixels, exactly around the mask; None if none is visible.
        area: Number of visible pixels; None if none is visible.
        visibility: Visible fraction of its pixels.
        truncation: Fraction outside the image, in 3D worlds.
        box3d: Height, width and length in metres, x, y and z of the middle of the bottom in the camera's coordinates,
            and the yaw in radians, in 3D worlds.
        amodal_bbox: Box of the whole object, clipped to the image; None for hidden objects.
        segmentation: Mask of the visible pixels in COCO's compressed run-length encoding; None for hidden objects.
        amodal_segmentation: Mask of the whole object within the image, if written.
        occluded_by: Indices of the objects that hide some of its pixels, if written.
    """

    object: int
    category: str
    bbox: Box | None = None
    area: int | None = None
    visibility: float
    truncation: float | None = None
    box3d: Sequence[float] | None = None
    amodal_bbox: Box | None = None
    segmentation: Json | None = None
    amodal_segmentation: Json | None = None
    occluded_by: Sequence[int] | None = None

    def to_json(self) -> Json:
        """Convert to JSON data, without the fields that are None."""
        return _without_none(self)

    @classmethod
    def from_json(cls, found: Json) -> "ObjectLabel":
        """Build from JSON data."""
        label: ObjectLabel = _build(cls, found)
        for box, size in ((label.bbox, 4), (label.amodal_bbox, 4), (label.box3d, 7)):
            if box is None:
                continue
            numbers: Sequence[Any] = box  # whatever the file has
            if len(numbers) != size or not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers):
                raise ValueError(f"{box} are not {size} numbers")
            if size == 4 and (box[2] < 0 or box[3] < 0):
                raise ValueError(f"{box} is a box with a negative side")
        if label.segmentation is not None and not {"size", "counts"} <= label.segmentation.keys():
            raise ValueError(f"a mask has size and counts, not {', '.join(label.segmentation) or 'nothing'}")
        return label


@dataclass(frozen=True)
class ImageRecord:
    """Everything known about one image.

    Attributes:
        image: Its file.
        provenance: What it depends on.
        derivation: The rules of the scene's derivation.
        scene: The scene graph with every object's attributes.
        labels: Labels of the objects that are visible enough.
        hidden: Labels of the other objects of the labelled categories.
        depth: Its depth image, if written.
        maps: Its maps by their names, if written.
        segments: Segments of its panoptic map, if written.
        frame: Where it is in a sequence, if it is in one. An object's track is its index in the scene graph.
    """

    image: ImageFile
    provenance: Provenance
    derivation: Sequence[int]
    scene: SceneRecord
    labels: Sequence[ObjectLabel]
    hidden: Sequence[ObjectLabel]
    depth: MapFile | None = None
    maps: Mapping[str, MapFile] = field(default_factory=dict)
    segments: Sequence[Segment] | None = None
    frame: Frame | None = None

    @property
    def stem(self) -> str:
        """Name of the image's files without their suffix."""
        return f"{self.provenance.index:06d}"

    def to_json(self) -> Json:
        """Convert to JSON data."""
        found: Json = {
            "image": _without_none(self.image),
            "provenance": self.provenance.to_json(),
            "derivation": self.derivation,
            "scene": self.scene.to_json(),
            "labels": [label.to_json() for label in self.labels],
            "hidden": [label.to_json() for label in self.hidden],
        }
        if self.depth is not None:
            found["depth"] = _without_none(self.depth)
        if self.maps:
            found["maps"] = {name: _without_none(file) for name, file in self.maps.items()}
        if self.segments is not None:
            found["segments"] = [_without_none(segment) for segment in self.segments]
        if self.frame is not None:
            found["frame"] = _without_none(self.frame)
        return found

    @classmethod
    def from_json(cls, found: Json) -> "ImageRecord":
        """Build from JSON data.

        Raises:
            RecordError: If it is no record of an image.
        """
        try:
            return cls(
                image=_build(ImageFile, found["image"]),
                provenance=Provenance.from_json(found["provenance"]),
                derivation=found["derivation"],
                scene=SceneRecord.from_json(found["scene"]),
                labels=[ObjectLabel.from_json(label) for label in found["labels"]],
                hidden=[ObjectLabel.from_json(label) for label in found["hidden"]],
                depth=None if found.get("depth") is None else _build(MapFile, found["depth"]),
                maps={name: _build(MapFile, file) for name, file in found.get("maps", {}).items()},
                segments=[_build(Segment, one) for one in found["segments"]] if "segments" in found else None,
                frame=None if found.get("frame") is None else _build(Frame, found["frame"]),
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(f"this is no record of an image: {error!r}") from error


def _build(cls: Any, found: Json) -> Any:
    """Build a flat dataclass from JSON data; leave out keys that it has no field for.

    Raises:
        TypeError: If a field is missing, or a value has another type.
    """
    types = _json_types(cls)
    given = {name: found[name] for name in types if name in found}
    for name, value in given.items():
        if not isinstance(value, types[name]):
            raise TypeError(f"{name} is {value!r}")
    return cls(**given)


@cache
def _json_types(cls: type) -> dict[str, tuple[type, ...]]:
    """Types in JSON of the fields of a dataclass."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        found[name] = tuple(one for option in options for one in JSON_TYPES[get_origin(option) or option])
    return found


def _without_none(thing: Any) -> Json:
    return {name: value for name, value in vars(thing).items() if value is not None}
