"""Meta-Sim2: unsupervised learning of scene structure and parameters for synthetic data generation.

The names below are imported when they are first used, so that ``import ms2`` takes no time::

    import ms2

    world = ms2.load("multimnist").world
    result = ms2.fit(world, ms2.Folder(world, "photographs"))
    result.figure
    ms2.generate(result, "data", num_scenes=1000, formats=["coco"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ms2.cli.api import FitResult, fit, generate, load
    from ms2.cli.stream import stream
    from ms2.core.errors import UserError
    from ms2.core.images import image_grid
    from ms2.core.seeding import generator
    from ms2.evaluation.callbacks import Validation
    from ms2.evaluation.evaluation import Evaluation
    from ms2.features.backbone import Backbone
    from ms2.features.base import FeatureExtractor
    from ms2.features.dense import DenseCounts
    from ms2.features.dense_attributes import DenseAttributes
    from ms2.gradients.advantages import MovingAverage, Normalised
    from ms2.gradients.pathwise import Pathwise
    from ms2.gradients.straight_through import StraightThrough
    from ms2.grammar.grammar import Grammar
    from ms2.learning.autoencoding import Autoencoding
    from ms2.learning.data import TargetImages
    from ms2.learning.extractor import ExtractorTraining
    from ms2.learning.metasim2 import MetaSim2
    from ms2.learning.parameter_learner import ParameterLearner
    from ms2.learning.pretraining import Pretraining
    from ms2.learning.structure_learner import StructureLearner
    from ms2.learning.turns import Turns
    from ms2.metrics.attributes import AttributeValue
    from ms2.models.networks.recurrent import LSTM
    from ms2.models.parameters import ParameterModel
    from ms2.models.scene_model import SceneModel
    from ms2.models.structure import StructureModel
    from ms2.objectives.kde import KDE
    from ms2.objectives.mmd import MMDWitness
    from ms2.priors.parameters import ParameterPrior, sample_uniform
    from ms2.priors.structure import ListLengthPrior
    from ms2.render.base import Renderer, Rendering
    from ms2.render.compositing.sprites import mask_boxes, rectangle_corners
    from ms2.scene.attributes import Attribute
    from ms2.scene.batch import SceneBatch
    from ms2.targets.folder import Folder
    from ms2.targets.synthetic import Synthetic
    from ms2.world import World

__version__ = "0.1.0"

PUBLIC = {
    "cli.api": ["FitResult", "fit", "generate", "load"],
    "cli.stream": ["stream"],
    "core.errors": ["UserError"],
    "core.images": ["image_grid"],
    "core.seeding": ["generator"],
    "evaluation.callbacks": ["Validation"],
    "evaluation.evaluation": ["Evaluation"],
    "features.backbone": ["Backbone"],
    "features.base": ["FeatureExtractor"],
    "features.dense": ["DenseCounts"],
    "features.dense_attributes": ["DenseAttributes"],
    "gradients.advantages": ["MovingAverage", "Normalised"],
    "gradients.pathwise": ["Pathwise"],
    "gradients.straight_through": ["StraightThrough"],
    "grammar.grammar": ["Grammar"],
    "learning.autoencoding": ["Autoencoding"],
    "learning.data": ["TargetImages"],
    "learning.extractor": ["ExtractorTraining"],
    "learning.metasim2": ["MetaSim2"],
    "learning.parameter_learner": ["ParameterLearner"],
    "learning.pretraining": ["Pretraining"],
    "learning.structure_learner": ["StructureLearner"],
    "learning.turns": ["Turns"],
    "metrics.attributes": ["AttributeValue"],
    "models.networks.recurrent": ["LSTM"],
    "models.parameters": ["ParameterModel"],
    "models.scene_model": ["SceneModel"],
    "models.structure": ["StructureModel"],
    "objectives.kde": ["KDE"],
    "objectives.mmd": ["MMDWitness"],
    "priors.parameters": ["ParameterPrior", "sample_uniform"],
    "priors.structure": ["ListLengthPrior"],
    "render.base": ["Renderer", "Rendering"],
    "render.compositing.sprites": ["mask_boxes", "rectangle_corners"],
    "scene.attributes": ["Attribute"],
    "scene.batch": ["SceneBatch"],
    "targets.folder": ["Folder"],
    "targets.synthetic": ["Synthetic"],
    "world": ["World"],
}
"""Public names by the module that defines them."""
_MODULES = {name: f"{__name__}.{module}" for module, names in PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ms2' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    """List the public names, for completion in notebooks."""
    return sorted([*globals(), *_MODULES])
