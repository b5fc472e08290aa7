"""Feature extractors: what images are compared by."""

from ms2.features.backbone import Backbone, InceptionPool3
from ms2.features.base import (
    AttributeExtractor,
    Blocks,
    CountPrediction,
    FeatureExtractor,
    TrainedExtractor,
    weight_bytes,
)
from ms2.features.dense import DenseCounts
from ms2.features.layout import DenseLayout
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import ResNet

__all__ = [
    "AttributeExtractor",
    "Backbone",
    "Blocks",
    "CountPrediction",
    "DenseCounts",
    "DenseLayout",
    "FeatureExtractor",
    "InceptionPool3",
    "PretrainedCounts",
    "ResNet",
    "TrainedExtractor",
    "weight_bytes",
]
