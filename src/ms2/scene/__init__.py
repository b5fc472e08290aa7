"""Scene graphs in batches; attributes and their bounds."""

from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.scene.graph import SceneGraph, derivation_from_graph, scene_graph

__all__ = [
    "ENVIRONMENT",
    "EVERY",
    "Attribute",
    "SceneBatch",
    "SceneGraph",
    "derivation_from_graph",
    "scene_graph",
    "scenes_from_derivations",
]
