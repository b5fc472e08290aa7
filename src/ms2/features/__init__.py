"""Feature extractors: maps of images to the feature blocks in which they are compared."""

from ms2.features.backbone import Backbone, InceptionPool3
from ms2.features.base import (
    Blocks,
    CountPrediction,
    FeatureExtractor,
    PretrainedWeights,
    SceneFeatureExtractor,
    TrainedExtractor,
    state_bytes,
    weights_fingerprint,
)
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import ResNet

__all__ = [
    "Backbone",
    "Blocks",
    "CountPrediction",
    "DenseAttributes",
    "DenseCounts",
    "FeatureExtractor",
    "InceptionPool3",
    "PretrainedCounts",
    "PretrainedWeights",
    "ResNet",
    "SceneFeatureExtractor",
    "TrainedExtractor",
    "state_bytes",
    "weights_fingerprint",
]
