"""Fixed-seed numbers of distances and of average precision."""

from pathlib import Path
from typing import Any

import torch
from helpers import rng
from torch import Tensor

from ms2.metrics import (
    AttributeSample,
    attribute_noise_floor,
    compare_attributes,
    compare_histograms,
    compare_vectors,
    energy_distance,
    fid,
    histogram_noise_floor,
    kid,
    vector_noise_floor,
)
from ms2.metrics.average_precision import kitti_ap, mean_ap
from ms2.metrics.comparison import ComparisonResult, summarise


def distances(_: Path) -> dict[str, Any]:
    """Compute distances of fixed histograms, vectors, attributes and features."""
    ours = torch.randint(0, 5, (40,), generator=rng(1))
    theirs = torch.randint(0, 5, (30,), generator=rng(2)).clamp(min=1)
    table, target = (torch.nn.functional.one_hot(values).long() for values in (ours, theirs))
    x = torch.randint(0, 4, (25, 3), generator=rng(3)).float()
    y = torch.randint(0, 3, (20, 3), generator=rng(4)).float()
    angles, others = torch.rand(50, generator=rng(5)).double() * 180, torch.rand(40, generator=rng(6)).double() * 240
    samples = AttributeSample(angles, torch.arange(50) % 12, 14), AttributeSample(others, torch.arange(40) % 10, 11)
    a, b = torch.randn(30, 6, generator=rng(7)), torch.randn(24, 6, generator=rng(8)) * 1.2 + 0.3
    seeds = [
        ComparisonResult(0, {"prior": {"AP": 0.2}, "learned": {"AP": 0.3}}, {}),
        ComparisonResult(1, {"prior": {"AP": 0.3}, "learned": {"AP": 0.35}}, {}),
    ]
    return {
        "means over seeds": summarise(seeds),
        "histograms": compare_histograms(table, target, generator=rng()),
        "noise floor of histograms": histogram_noise_floor(target, 25, generator=rng()),
        "energy distance": energy_distance(x, y),
        "vectors": compare_vectors(x, y, generator=rng()),
        "noise floor of vectors": vector_noise_floor(y, 15, generator=rng()),
        "attributes": {
            kind: {
                "distance": compare_attributes(*samples, period, generator=rng()),
                "noise floor": attribute_noise_floor(samples[1], 20, period, generator=rng()),
            }
            for kind, period in (("line", None), ("circle", 360.0))
        },
        "FID": fid(a, b),
        "KID": kid(a, b),
    }


def average_precision(_: Path) -> dict[str, Any]:
    """Compute AP of fixed detections."""
    found, targets = _detections()
    kitti = {
        f"class {label}, {levels} levels": kitti_ap(
            found, targets, label, generator=rng(), interpolation=levels, resamples=50
        )
        for label, levels in ((1, "40"), (2, "11"))
    }
    mean = {
        f"{levels} levels, overlap {iou}": mean_ap(
            found, targets, ["car", "cyclist"], generator=rng(), iou=iou, interpolation=levels, resamples=50
        )
        for levels, iou in (("101", 0.5), ("area", 0.7))
    }
    return {"KITTI": kitti, "mean": mean}


def _detections(images: int = 8) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Make objects, and detections that are a little beside them, with two false alarms in each image."""
    draw, found, targets = rng(9), [], []
    for _ in range(images):
        corner, size = torch.rand(5, 2, generator=draw) * 200, 30 + torch.rand(5, 2, generator=draw) * 60
        boxes = torch.cat([corner, corner + size], 1)
        labels = torch.randint(1, 3, (5,), generator=draw)
        targets.append(
            {
                "boxes": boxes,
                "labels": labels,
                "height": size[:, 1],
                "occlusion": torch.randint(0, 3, (5,), generator=draw),
                "truncation": torch.rand(5, generator=draw) * 0.6,
                "scale": torch.tensor(1.0),
                "ignore": torch.rand(5, generator=draw) < 0.1,
            }
        )
        beside = boxes + torch.randn(5, 4, generator=draw) * 5
        alarms = torch.tensor([[10.0, 10.0, 70.0, 60.0], [200.0, 20.0, 260.0, 90.0]])
        found.append(
            {
                "boxes": torch.cat([beside, alarms]),
                "labels": torch.cat([labels, torch.tensor([1, 2])]),
                "scores": torch.rand(7, generator=draw),
            }
        )
    return found, targets
