"""Distances of a generated data set to a target: of the structure of its scenes, and of its images (FID and KID)."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ms2.datasets.job import Job
from ms2.datasets.labelled_set import LabelledSet
from ms2.datasets.records import ObjectLabel
from ms2.evaluation.image_distances import ImageDistances
from ms2.metrics.fid import fid
from ms2.metrics.kid import kid
from ms2.metrics.statistics import StructureStatistic
from ms2.scene.batch import SceneBatch
from ms2.targets.base import Target
from ms2.targets.embedding import embed

IMAGES_PER_BATCH = 50
"""Images that are embedded together."""
SHORT_TITLES = {"tv": "TV", "energy": "energy distance"}
"""Titles of distances in tables."""
Features = Float[Tensor, "n d"]


def structure_distances(
    job: Job, truth: SceneBatch, annotated: bool, statistics: Sequence[StructureStatistic]
) -> dict[str, float]:
    """Compute each statistic's main distance to the truth of a target, which may be annotated, as ``count TV``."""
    class_names = job.source.model.world.grammar.classes
    scenes = record_scenes(job, annotated)
    found = {}
    for statistic in statistics:
        ours, theirs = (statistic.measure(some, class_names) for some in (scenes, truth))
        distances = statistic.compare(ours, theirs, generator=torch.Generator().manual_seed(0))
        name, interval = next(iter(distances.items()))
        found[f"{statistic.name} {SHORT_TITLES.get(name, name)}"] = interval.value
    return found


def record_scenes(job: Job, annotated: bool) -> SceneBatch:
    """Read the scenes of a data set: the grammar's objects; if ``annotated``, the labelled ones, without parents.

    Labelled objects that are lower than `Renderer.min_height` are left out.
    """
    world = job.source.model.world
    class_names, least = world.grammar.classes, world.renderer.min_height
    classes, parents = [], []
    for record in job.records():
        objects = [(one.class_name, one.parent) for one in record.scene.objects]
        if annotated:
            objects = [(one.category, -1) for one in record.labels if not least or _height(one) >= least]
        kept = [(class_names.index(name), parent) for name, parent in objects if name in class_names]
        classes.append(torch.tensor([number for number, _ in kept], dtype=torch.long))
        parents.append(torch.tensor([parent for _, parent in kept], dtype=torch.long))
    pad = torch.nn.utils.rnn.pad_sequence
    return SceneBatch(pad(classes, True, -1), pad(parents, True, -1))


def _height(label: ObjectLabel) -> float:
    return 0 if label.amodal_bbox is None else label.amodal_bbox[3]


def target_features(distances: ImageDistances, target: Target, device: str) -> Features:
    """Embed the target's images."""
    batches = target.batches(distances.batch_size, device, limit=distances.max_target_images)
    return distances.select_block(embed(distances.features, batches, "embedding the target", device))


def image_distances(
    distances: ImageDistances, data: LabelledSet, channels: int, target: Features, device: str
) -> dict[str, float]:
    """Compute ``FID`` and ``KID`` of a data set's images to the features of the target's."""
    blocks = embed(distances.features, _batches(data, channels), "embedding the data set", device)
    features = distances.select_block(blocks)
    return {"FID": fid(features, target), "KID": kid(features, target)}


def _batches(data: LabelledSet, channels: int) -> Iterator[tuple[Int[Tensor, " b"], UInt8[Tensor, "b c h w"]]]:
    for indices in torch.arange(len(data)).split(IMAGES_PER_BATCH):
        yield indices, torch.stack([data[i][0][:channels] for i in indices.tolist()])
