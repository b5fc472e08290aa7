"""Scene graphs in batches; attributes and their bounds."""

from ms2.scene.attributes import ENVIRONMENT, EVERY, Attribute
from ms2.scene.batch import SceneBatch, scenes_of
from ms2.scene.graph import SceneGraph, derivation_of, graph_of

__all__ = ["ENVIRONMENT", "EVERY", "Attribute", "SceneBatch", "SceneGraph", "derivation_of", "graph_of", "scenes_of"]
