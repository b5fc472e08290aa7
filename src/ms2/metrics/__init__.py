"""Distances between distributions, with intervals and noise floors."""

from ms2.metrics.attribute_distances import AttributeSample, attribute_noise_floor, attribute_w1, compare_attributes
from ms2.metrics.attributes import AttributeStatistic, AttributeValue, NeighbourGap
from ms2.metrics.base import Statistic
from ms2.metrics.fid import fid
from ms2.metrics.histograms import (
    compare_histograms,
    distribution,
    histogram_noise_floor,
    kl_divergence,
    one_hot_counts,
    total_variation,
    wasserstein,
)
from ms2.metrics.intervals import Interval, mean_interval
from ms2.metrics.kid import kid
from ms2.metrics.statistics import ChildCount, ClassFrequency, ObjectCount, StructureStatistic, StructureVector
from ms2.metrics.vectors import compare_vectors, energy_distance, vector_noise_floor

__all__ = [
    "AttributeSample",
    "AttributeStatistic",
    "AttributeValue",
    "ChildCount",
    "ClassFrequency",
    "Interval",
    "NeighbourGap",
    "ObjectCount",
    "Statistic",
    "StructureStatistic",
    "StructureVector",
    "attribute_noise_floor",
    "attribute_w1",
    "compare_attributes",
    "compare_histograms",
    "compare_vectors",
    "distribution",
    "energy_distance",
    "fid",
    "histogram_noise_floor",
    "kid",
    "kl_divergence",
    "mean_interval",
    "one_hot_counts",
    "total_variation",
    "vector_noise_floor",
    "wasserstein",
]
