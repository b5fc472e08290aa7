"""Croissant metadata of a data set: ``croissant.json``, with the properties of responsible AI.

The vocabularies are Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html) and Croissant RAI 1.0
(https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html). There is no ``datePublished``, as equal settings
give equal files.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ms2.core.hashing import sha256
from ms2.datasets.card import number_of_images, origin
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.formats.native import SUFFIX_BY_FORMAT
from ms2.datasets.labels import LabelFilter

Json = dict[str, Any]
FILE = "croissant.json"
COCO_FILE = "annotations/instances.json"
CHUNK = 1 << 20
"""Bytes of a file that are hashed at once."""
PROPERTIES = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
"""Terms of Croissant that its readers expect in the context."""
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in PROPERTIES},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def write_croissant(files: DataSetFolder, description: Json, label_filter: LabelFilter, licence: str) -> None:
    """Write ``croissant.json``.

    Args:
        files: The data set's folder, with all other files.
        description: The data set's description, as in ``dataset.json``.
        label_filter: Which objects are labelled.
        licence: Licence of the images.
    """
    coco = files.root / COCO_FILE
    there = "coco" in description["formats"] and coco.is_file()  # of a large set there are parts instead
    files.write_json(FILE, croissant(description, label_filter, licence, coco if there else None), indent=True)


def croissant(description: Json, label_filter: LabelFilter, licence: str, coco: Path | None = None) -> Json:
    """Return Croissant metadata as JSON-LD.

    Args:
        description: The data set's description, as in ``dataset.json``.
        label_filter: Which objects are labelled.
        licence: Licence of the images.
        coco: COCO's annotations, if there are any: their objects become a record set.
    """
    height, width = description["size"]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": re.sub(r"[^\w.-]+", "_", description["source"]),
        "description": f"{number_of_images(description)} synthetic images of {width} x {height} pixels with labels of "
        f"{', '.join(label_filter.categories)}, drawn from {origin(description)}.",
        "version": "1.0.0",
        "license": licence,
        "citeAs": "Devaranjan, Kar, Fidler: Meta-Sim2: Unsupervised Learning of Scene Structure for Synthetic Data "
        "Generation. ECCV 2020.",
        "isLiveDataset": False,
        **{f"rai:{name}": text for name, text in responsible_ai(description, label_filter).items()},
        "distribution": _distribution(description, coco),
        "recordSet": [_images(), _scenes(), *([] if coco is None else [_objects()])],
    }


def responsible_ai(description: Json, label_filter: LabelFilter) -> dict[str, str | list[str]]:
    """Return the properties of responsible AI by name: how the data came about, and what they are fit for."""
    learned = "learned" in (description["structure"], description["parameters"]) or "mix" in description
    tool = f"ms2 {description['ms2']}"
    return {
        "dataCollection": f"Rendered by {tool} from {origin(description)}, seed {description['seed']}. No photograph "
        "was taken, and no person was recorded.",
        "dataCollectionType": ["Software Collection"],
        "dataCollectionRawData": "scenes/*.json: the scene graph of each image with every attribute, from which the "
        "same version renders the image again.",
        "dataCollectionMissingData": "Objects that are too small or too occluded are not labelled; the records list "
        "them as hidden.",
        "dataAnnotationProtocol": f"Labels are computed from the scenes that are rendered, and checked against each "
        f"pixel's object. {label_filter}",
        "dataAnnotationPlatform": [tool],
        "machineAnnotationTools": [tool],
        "annotationsPerItem": "1",
        "annotatorDemographics": ["none: no person annotated"],
        "dataUseCases": ["Training and testing of detectors, segmentation and counting on images like the target's."],
        "dataBiases": [
            "Numbers and places of objects are those of a distribution that was learned from target images, with its "
            "errors, and of a prior made by hand where nothing was learned."
            if learned
            else "Numbers and places of objects are those of a prior made by hand."
        ],
        "dataLimitations": [
            "Synthetic images: textures, light and sensor differ from photographs, and classes that the world does "
            "not have never appear. Test on real images before use."
        ],
        "dataSocialImpact": "Saves the annotation of photographs. People in images, if any, are drawn from a few "
        "models, which do not represent the diversity of people.",
        "personalSensitiveInformation": ["none"],
        "dataReleaseMaintenancePlan": "None needed: dataset.json has all settings, from which the same version makes "
        "the set again.",
    }


def _distribution(description: Json, coco: Path | None) -> list[Json]:
    kind = description["image"]
    found = [
        _file_set("images", f"images/*.{SUFFIX_BY_FORMAT[kind]}", f"image/{kind}", "The images."),
        _file_set("scenes", "scenes/*.json", "application/json", "A record of each image: scene, labels, provenance."),
    ]
    if coco is not None:
        found.append(
            {
                "@type": "cr:FileObject",
                "@id": "instances",
                "name": "instances",
                "description": "Boxes and masks in COCO's format.",
                "contentUrl": COCO_FILE,
                "encodingFormat": "application/json",
                "sha256": sha256(_chunks(coco)),
            }
        )
    return found


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            yield part


def _file_set(name: str, files: str, kind: str, text: str) -> Json:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": text,
        "encodingFormat": kind,
        "includes": files,
    }


def _images() -> Json:
    """Describe the images by number; readers join them with the objects' ``image`` or the scenes' ``image``."""
    source = {"fileSet": {"@id": "images"}}
    number = {**source, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"(\d+)\."}}
    return _record_set(
        "samples",
        "The images by their number.",
        _field("samples/image", "sc:ImageObject", {**source, "extract": {"fileProperty": "content"}}, "The image."),
        _field("samples/number", "sc:Integer", number, "Its number."),
    )


def _scenes() -> Json:
    source = {"fileSet": {"@id": "scenes"}}
    return _record_set(
        "records",
        "What is known about each image.",
        *(
            _field(f"records/{name}", kind, {**source, "extract": {"jsonPath": path}}, text)
            for name, kind, path, text in (
                ("number", "sc:Integer", "$.provenance.index", "Number of the image."),
                ("file", "sc:Text", "$.image.file", "File of the image."),
                ("seed", "sc:Integer", "$.provenance.seed", "Seed of the data set."),
                ("renderer", "sc:Text", "$.provenance.renderer", "Fingerprint of the renderer."),
            )
        ),
    )


def _objects() -> Json:
    source = {"fileObject": {"@id": "instances"}}
    return _record_set(
        "objects",
        "The labelled objects of all images.",
        *(
            _field(f"objects/{name}", kind, {**source, "extract": {"jsonPath": f"$.annotations[*].{path}"}}, text)
            for name, kind, path, text in (
                ("image", "sc:Integer", "image_id", "Number of the image."),
                ("category", "sc:Integer", "category_id", "Number of the category, from 1."),
                ("box", "cr:BoundingBox", "bbox", "x, y, width and height of the visible part in pixels."),
                ("area", "sc:Integer", "area", "Number of visible pixels."),
                ("visibility", "sc:Float", "visibility", "Visible fraction of the object."),
            )
        ),
    )


def _record_set(name: str, text: str, *fields: Json) -> Json:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": text, "field": list(fields)}


def _field(name: str, kind: str, source: Json, text: str) -> Json:
    return {"@type": "cr:Field", "@id": name, "name": name, "description": text, "dataType": kind, "source": source}
