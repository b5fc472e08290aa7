"""Distances between distributions, with intervals and noise floors."""

from ms2.metrics.attribute_distances import attribute_noise_floor, compare_attributes, w1
from ms2.metrics.attributes import AttributeOf, AttributeStatistic, Gap, Measured
from ms2.metrics.fid import fid
from ms2.metrics.histograms import (
    compare,
    distribution,
    kl_divergence,
    noise_floor,
    one_hot_counts,
    total_variation,
    wasserstein,
)
from ms2.metrics.intervals import Interval, mean_interval
from ms2.metrics.kid import kid
from ms2.metrics.statistics import ChildCount, ClassFrequency, Joint, ObjectCount, Statistic
from ms2.metrics.vectors import compare_vectors, energy_distance, vector_noise_floor

__all__ = [
    "AttributeOf",
    "AttributeStatistic",
    "ChildCount",
    "ClassFrequency",
    "Gap",
    "Interval",
    "Joint",
    "Measured",
    "ObjectCount",
    "Statistic",
    "attribute_noise_floor",
    "compare",
    "compare_attributes",
    "compare_vectors",
    "distribution",
    "energy_distance",
    "fid",
    "kid",
    "kl_divergence",
    "mean_interval",
    "noise_floor",
    "one_hot_counts",
    "total_variation",
    "vector_noise_floor",
    "w1",
    "wasserstein",
]
