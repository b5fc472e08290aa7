"""Fixed-seed numbers of the parts: priors, models, objectives, advantages, gradients and extractors."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from helpers import rng
from recording import rows_of, scenes_as_rows
from torch import Tensor

from ms2.features import (
    Backbone,
    DenseAttributes,
    DenseCounts,
    InceptionPool3,
    PretrainedCounts,
    ResNet,
    TrainedExtractor,
)
from ms2.gradients import (
    FiniteDifference,
    LeaveOneOut,
    MovingAverage,
    Normalised,
    Pathwise,
    ScoreFunction,
    StraightThrough,
)
from ms2.learning.parameter_learner import ParameterLearner
from ms2.models.conditional import Condition, ConditionalStructure, sample_prior_conditional
from ms2.models.networks import GRU, LSTM
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import SceneModel
from ms2.models.structure import StructureModel
from ms2.objectives import KDE, BatchMMD, ForwardKL, MMDWitness
from ms2.priors import MixturePrior
from ms2.scene import scenes_from_derivations
from ms2.world import World
from ms2.worlds.aerial2d import Aerial2D, AerialView, BusyFirstRoad, ScatteredCars, SpacedCars, UniformTraffic
from ms2.worlds.driving3d import Driving, RandomStreets, Rural, SimpleStreets, StreetLayout, Suburban, Urban
from ms2.worlds.multimnist import (
    DigitCanvas,
    LinePlacement,
    MultiMNIST,
    NormalPlacement,
    RandomDigits,
    UniformDigits,
    UniformPlacement,
)

DIGITS, CARS, STREETS = MultiMNIST(), Aerial2D(), Driving()
PRIORS = {
    "uniform digits": (DIGITS, lambda: UniformDigits(4)),
    "random digits": (DIGITS, lambda: RandomDigits(seed=13, max_digits=4)),
    "uniform traffic": (CARS, lambda: UniformTraffic(max_roads=3, max_cars=3)),
    "busy first road": (CARS, BusyFirstRoad),
    "simple streets": (STREETS, SimpleStreets),
    "simple streets with a tail": (STREETS, lambda: SimpleStreets(1, 2, tail_fraction=0.3)),
    "random streets": (STREETS, lambda: RandomStreets(seed=3)),
    "rural": (STREETS, Rural),
    "suburban": (STREETS, lambda: Suburban(mean_counts={"car": 2.0})),
    "urban": (STREETS, lambda: Urban(dispersion=0.0)),
    "mixture of streets": (STREETS, lambda: MixturePrior([Rural(), Suburban(), Urban()], [1.0, 2.0, 1.0])),
}
"""Structure priors by label, with their grammar."""
PARAMETER_PRIORS = {
    "uniform placement": ("uniform digits", lambda: UniformPlacement(max_angle=30.0)),
    "placement with rows": ("uniform digits", lambda: UniformPlacement(row_fraction=0.5)),
    "normal placement": ("uniform digits", lambda: NormalPlacement(x=(0.3, 0.1), angle=(20.0, 15.0))),
    "line placement": ("uniform digits", lambda: LinePlacement(image_range=(0.0, 0.5))),
    "scattered cars": ("uniform traffic", ScatteredCars),
    "spaced cars": ("uniform traffic", SpacedCars),
    "street": ("simple streets", StreetLayout),
    "street with objects off the street": (
        "suburban",
        lambda: StreetLayout(max_distance=40.0, cloud_range=(0.2, 0.4), off_street_fraction=0.4),
    ),
}
"""Parameter priors, with the structure prior of the scenes."""
STRUCTURE_MODELS = {
    "digits": (DIGITS, {"t_max": 16}),
    "digits without context": (DIGITS, {"t_max": 16, "context": False, "network": GRU}),
    "digits with three latents": (DIGITS, {"t_max": 16, "num_latents": 3}),
    "cars": (CARS, {"t_max": 30}),
    "cars with bounds": (CARS, {"t_max": 60, "max_length": {"Roads": 2, "Cars": 3}}),
    "streets": (STREETS, {"t_max": 60, "fixed_rule_weights": {"Scene": [1.0, 1.0, 2.0]}}),
}
"""Structure models, with their grammar and the settings of `StructureModel`."""
CONDITIONS = {
    "digits": [["3 >= 1"], ["3 + 5 == 2"]],
    "digits with three latents": [["7 <= 0"]],
    "cars": [["Road == 1", "car >= 2"]],
}
"""Conditions on the scenes of structure models."""
BLOCKS = {"counts": 5, "places": 3}
"""Feature blocks with their dimension, for objectives."""
OBJECTIVES = {
    "KDE": lambda: KDE(0.5),
    "KDE of the paper": lambda: KDE(1.0, leave_one_out=False),
    "KDE with a bandwidth for each block": lambda: KDE({"counts": 0.1, "places": 0.4}),
    "KDE of one block": lambda: KDE(0.3, blocks=["places"]),
    "KDE with relative bandwidth": lambda: KDE(0.5, relative_bandwidth=True),
    "MMD witness": lambda: MMDWitness(0.5),
    "forward KL": lambda: ForwardKL(0.5),
    "batch MMD": lambda: BatchMMD(0.5),
}
ADVANTAGES = {
    "leave one out": LeaveOneOut,
    "moving average": MovingAverage,
    "slow moving average": lambda: MovingAverage(0.99),
    "normalised": Normalised,
}
GRADIENTS = {
    "pathwise": (Pathwise, MMDWitness),
    "straight-through": (StraightThrough, KDE),
    "score function": (ScoreFunction, KDE),
    "score function, normalised": (lambda: ScoreFunction(Normalised()), ForwardKL),
    "finite differences": (lambda: FiniteDifference(step=0.1, directions=2), KDE),
}
"""Gradients of parameters, with an objective that goes with each."""
PLACE_BANDWIDTHS = {"columns": 0.05, "rows": 0.05}
"""Bandwidths of the blocks of `place_extractor`."""


def digit_world(max_digits: int = 3) -> World:
    return World(DIGITS, UniformDigits(max_digits), UniformPlacement(), DigitCanvas(canvas_size=24, digit_size=8))


def car_world() -> World:
    return World(CARS, UniformTraffic(max_roads=2, max_cars=2), ScatteredCars(), AerialView(canvas_size=40))


def place_extractor(world: World) -> DenseAttributes:
    """Return an extractor whose blocks are places of objects."""
    blocks = {"columns": ["column"], "rows": ["row"]}
    return DenseAttributes(
        world.renderer.channels,
        world.classes,
        world.mutable_attributes,
        world.mutable_environment,
        blocks,
        bins=6,
        widths=SLIM,
    )


SLIM = (4, 4, 4)
BY_ROAD = {
    "widths": SLIM,
    "max_count": {"Road": 3, "car": 8},
    "parents_per_class": {"car": 4},
    "pyramid_levels": 1,
    "count_threshold": {"car": 0.02},
}
EXTRACTORS: dict[str, tuple[Callable[[], World], Callable[[World], Any]]] = {
    "dense counts": (digit_world, lambda w: DenseCounts(1, w.classes, SLIM)),
    "dense counts by road": (car_world, lambda w: DenseCounts(3, w.classes, **BY_ROAD)),
    "dense layout": (digit_world, place_extractor),
    "ResNet": (digit_world, lambda w: ResNet(1, w.classes, widths=SLIM)),
    "ResNet with counts": (digit_world, lambda w: ResNet(1, w.classes, SLIM, pool="both", count_heads=True)),
    "pretrained counts": (car_world, lambda w: PretrainedCounts(3, w.classes, width=4, weights=None, max_count=30)),
    "backbone": (car_world, lambda w: Backbone("resnet18", "layer1", weights=None, size=(48, 48))),
    "Inception": (digit_world, lambda w: InceptionPool3("Conv2d_1a_3x3", weights=None)),
}
"""Feature extractors with random weights, and the world of their images."""


# --- priors and sampling ---


def structure_priors(_: Path) -> dict[str, Any]:
    """Sample derivations from every structure prior, and compute their log-probabilities."""
    found = {}
    for name, (grammar, make) in PRIORS.items():
        prior = make()
        rules = prior.sample(grammar, 8, rng())
        found[name] = {
            "derivations": rows_of(rules, grammar.num_rules),
            "log probabilities": prior.log_prob(grammar, rules),
        }
    return found


def parameter_priors(_: Path) -> dict[str, Any]:
    """Sample parameters from every parameter prior."""
    found = {}
    for name, (structure, make) in PARAMETER_PRIORS.items():
        (grammar, prior), parameters = PRIORS[structure], make()
        scenes = parameters.sample(scenes_from_derivations(grammar, prior().sample(grammar, 3, rng())), rng())
        found[name] = scenes_as_rows(scenes, (*grammar.classes, *parameters.scenery))
    return found


def structure_models(_: Path) -> dict[str, Any]:
    """Sample derivations from structure models of random weights, also under conditions, and score them."""
    found: dict[str, Any] = {}
    for name, (grammar, settings) in STRUCTURE_MODELS.items():
        torch.manual_seed(0)
        network = settings.get("network", LSTM)(8)
        model = StructureModel(grammar, **(settings | {"network": network}))
        drawn = model.sample(8, rng())
        # groups of symbols share the value and divide the gradient
        score = model.log_prob_and_entropy(drawn.rules, torch.arange(len(grammar.nonterminals) + 1) % 2)
        parts = score.group_log_prob.sum(0)
        gradients = [torch.autograd.grad(part, model.head.weight, retain_graph=True)[0] for part in parts]
        found[name] = {
            "derivations": rows_of(drawn.rules, grammar.num_rules),
            "rejections": drawn.rejections,
            "log probabilities": model.log_prob(drawn.rules),
            "entropies": score.entropy,
            "norms of the gradients of two groups": [gradient.norm() for gradient in gradients],
        }
        for texts in CONDITIONS.get(name, []):
            given = ConditionalStructure(model, [Condition.parse(text, grammar) for text in texts])
            drawn = given.sample(6, rng())
            found[name][" and ".join(texts)] = {
                "derivations": rows_of(drawn.rules, grammar.num_rules),
                "rejections": drawn.rejections,
                "bound": given.bound,
            }
    (grammar, prior), texts = PRIORS["uniform traffic"], ["car >= 2", "Road <= 2"]
    conditions = [Condition.parse(text, grammar) for text in texts]
    rules = sample_prior_conditional(prior(), grammar, conditions, 6, rng()).rules
    found["uniform traffic, " + " and ".join(texts)] = rows_of(rules, grammar.num_rules)
    return found


# --- the parts of learning ---


def blocks_of(n: int, seed: int, shift: float = 0.0) -> dict[str, Tensor]:
    """Draw features of n images."""
    draw = rng(seed)
    return {name: shift + torch.randn(n, width, generator=draw) for name, width in BLOCKS.items()}


def learning_parts(_: Path) -> dict[str, Any]:
    """Score fixed features by every objective, compute every advantage of scores, and every gradient's loss."""
    population, real = blocks_of(12, 1), blocks_of(12, 2, shift=0.4)
    own = torch.tensor([0, 3, 4, 11])
    some = {name: block[own] for name, block in population.items()}
    objectives = {}
    for name, make in OBJECTIVES.items():
        scores, sharpness = make().block_scores(some, population, own, real)
        objectives[name] = {"scores": scores, "sharpness": sharpness}
    advantages = {}
    for name, make in ADVANTAGES.items():
        advantage = make()
        advantages[name] = [advantage(torch.randn(6, generator=rng(seed)) + 2) for seed in range(3)]
    return {"objectives": objectives, "advantages": advantages, "gradients": dict(gradients())}


def gradients() -> Iterator[tuple[str, Any]]:
    """Compute the loss of a parameter model of digits by every gradient."""
    world = digit_world()
    for name, (gradient, objective) in GRADIENTS.items():
        torch.manual_seed(0)
        model, features = ParameterModel(world, hidden=8, num_layers=1, num_heads=2), place_extractor(world)
        real = {
            block: v.detach() for block, v in features(world.renderer.render(world.sample_prior(6, rng(1)))).items()
        }
        learner, scene_model = ParameterLearner(objective(PLACE_BANDWIDTHS), gradient()), SceneModel(world, None, model)
        loss, score, drawn = learner.surrogate(scene_model, features, world.sample_prior(6, rng()), real, rng(2))
        loss.backward()
        norms = {part: weights.grad.norm() for part, weights in model.named_parameters() if weights.grad is not None}
        yield (
            name,
            {
                "loss": loss,
                "scores": score,
                "log densities": model.log_prob(drawn.distribution, drawn.values),
                "norm of the gradient": torch.stack(list(norms.values())).norm(),
            },
        )


def features(_: Path) -> dict[str, Any]:
    """Compute features of images by every extractor."""
    found = {}
    for name, (make_world, make) in EXTRACTORS.items():
        world = make_world()
        torch.manual_seed(0)
        extractor = make(world).eval()
        scenes = world.sample_prior(3, rng(4))
        labels = world.renderer.render_labelled(scenes)
        with torch.no_grad():
            found[name] = {"blocks": {block: _narrow(values) for block, values in extractor(labels.image).items()}}
            if isinstance(extractor, TrainedExtractor):
                found[name]["loss"] = extractor.loss(labels.image, labels, scenes)
                prediction = extractor.predict_counts(labels.image)._asdict()
                found[name]["count prediction"] = {
                    what: value for what, value in prediction.items() if value is not None
                }
    return found


def _narrow(block: Tensor) -> Any:
    """Return a block, or of a wide one its first columns and two sums."""
    if block.shape[1] <= 12:
        return block
    return {"width": block.shape[1], "first": block[:, :6], "mean": block.mean(1), "norm": block.norm(dim=1)}
