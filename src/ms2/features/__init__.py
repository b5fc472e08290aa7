"""Feature extractors: maps of images to the feature blocks in which they are compared."""

from ms2.features.backbone import Backbone, InceptionPool3
from ms2.features.base import (
    Blocks,
    CountingExtractor,
    CountPrediction,
    FeatureExtractor,
    PretrainedWeights,
    SceneFeatureExtractor,
    TrainedExtractor,
    state_bytes,
    weights_fingerprint,
)
from ms2.features.colours import ImageColours
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.features.detection.detector_counts import DetectorCounts
from ms2.features.detection.onnx_detector import OnnxDetector
from ms2.features.detection.torchvision_detector import TorchvisionDetector
from ms2.features.mixed_counts import MixedCounts
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import ResNet

__all__ = [
    "Backbone",
    "Blocks",
    "CountPrediction",
    "CountingExtractor",
    "DenseAttributes",
    "DenseCounts",
    "DetectorCounts",
    "FeatureExtractor",
    "ImageColours",
    "InceptionPool3",
    "MixedCounts",
    "OnnxDetector",
    "PretrainedCounts",
    "PretrainedWeights",
    "ResNet",
    "SceneFeatureExtractor",
    "TorchvisionDetector",
    "TrainedExtractor",
    "state_bytes",
    "weights_fingerprint",
]
