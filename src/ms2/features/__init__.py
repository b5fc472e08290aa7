"""Feature extractors: what images are compared by."""

from ms2.features.backbone import Backbone, InceptionPool3
from ms2.features.base import Blocks, FeatureExtractor, Reading, ReadingExtractor, TrainedExtractor, weight_bytes
from ms2.features.dense import DenseCounts
from ms2.features.layout import DenseLayout
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import ResNet

__all__ = [
    "Backbone",
    "Blocks",
    "DenseCounts",
    "DenseLayout",
    "FeatureExtractor",
    "InceptionPool3",
    "PretrainedCounts",
    "Reading",
    "ReadingExtractor",
    "ResNet",
    "TrainedExtractor",
    "weight_bytes",
]
