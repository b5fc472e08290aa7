"""The learner alone: hidden streets learned from numbers that are known without error, in place of what is read.

Usage: python experiments/exact_numbers.py [SEED ...]

What is left is what learning adds to the errors of reading: total variation to each hidden distribution, over eleven
classes. Nothing is rendered. Prior, model, learning rate, batch and steps of learning are those of driving_quick; all
of the target is learned from, and the channel, which is exact, is measured once.
"""

import copy
import json
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ms2.core.seeding import generator
from ms2.features.dense import DenseCounts
from ms2.gradients.advantages import Normalised
from ms2.learning.count_likelihood import CountLikelihood, StepsDone
from ms2.learning.structure_learner import StructureLearner
from ms2.metrics.histograms import total_variation
from ms2.models.scene_model import SceneModel
from ms2.models.structure import StructureModel
from ms2.priors.structure import StructurePrior
from ms2.scene.batch import scenes_from_derivations
from ms2.world import World
from ms2.worlds.driving3d import Driving, RandomStreets, SimpleStreets, StreetLayout, StreetView
from ms2.worlds.driving3d.declaration import OBJECTS
from ms2.worlds.driving3d.grammar import list_symbol

CLASSES = [name for name in OBJECTS if name in Driving().classes]
NUM_TARGET, NUM_SCENES, NUM_STEPS, BATCH_SIZE, LR = 2000, 10_000, 240, 512, 5e-3
KEPT = Path(__file__).parent.parent / "results" / "exact_numbers.json"


def main() -> None:
    """Learn each hidden distribution, print a line of each, and keep them beside those of other seeds."""
    seeds = [int(word) for word in sys.argv[1:]] or list(range(10))
    world = World(Driving(), SimpleStreets(), StreetLayout(), StreetView(size=(48, 156)))
    wide = SimpleStreets(0, 7)
    features = DenseCounts(3, world.classes, (1, 1, 1), max_count=dict.fromkeys(CLASSES, 8))
    channel = features.channel
    assert channel is not None

    def numbers(rules: torch.Tensor) -> torch.Tensor:
        scenes = scenes_from_derivations(world.grammar, rules)
        return channel.sums(features.slots.counts(scenes.classes, scenes.parents))

    def drawn(prior: StructurePrior, n: int, *keys: int | str) -> torch.Tensor:
        return numbers(prior.sample(world.grammar, n, generator(*keys)))

    known = drawn(wide, 8000, 0, "known")
    channel.measure(known.float(), known, known, generator(0, "channel"))
    pretrained = pretrain(StructureModel(world.grammar, t_max=112), wide)
    places = [channel.names.index(f"count_{name}") for name in CLASSES]
    rows = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for seed in seeds:
        start, structure, prior = time.perf_counter(), copy.deepcopy(pretrained), RandomStreets(seed=seed)
        learner = StructureLearner(
            None,
            Normalised(),
            credit_assignment={f"count_{name}": [list_symbol(name)] for name in CLASSES},
            likelihood=CountLikelihood([f"count_{name}" for name in CLASSES], held_out=0),
        )
        model, real = SceneModel(world, structure), {"readings": torch.zeros(BATCH_SIZE, 1)}
        target = drawn(prior, NUM_TARGET, seed, "target").float()
        assert learner.likelihood is not None
        learner.likelihood.prepare(model, features, target, StepsDone(0, 0), seed)
        optimizer = torch.optim.Adam(structure.parameters(), LR)
        for step in tqdm(range(NUM_STEPS), f"hidden distribution {seed}", leave=False):
            optimizer.param_groups[0]["lr"] = LR * (1 - step / NUM_STEPS)
            loss, _ = learner.loss(model, features, real, generator(seed, "training", step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            learned = numbers(structure.sample(NUM_SCENES, generator(seed, "scenes")).rules)
        hidden = drawn(prior, NUM_SCENES, seed, "hidden")
        rows[str(seed)] = {
            name: float(total_variation(histogram(learned[:, place]), histogram(hidden[:, place])))
            for name, place in zip(CLASSES, places, strict=True)
        }
        values = rows[str(seed)].values()
        print(f"{seed}: mean {sum(values) / len(values):.3f}, largest {max(values):.3f}", end="")
        print(f" ({time.perf_counter() - start:.0f} s)", flush=True)
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def pretrain(structure: StructureModel, prior: StructurePrior, num_steps: int = 400) -> StructureModel:
    """Fit a structure model to a prior by maximum likelihood, as the stage `Pretraining` does."""
    optimizer = torch.optim.Adam(structure.parameters(), LR)
    for step in tqdm(range(num_steps), "pretraining", leave=False):
        optimizer.param_groups[0]["lr"] = LR * (1 - step / num_steps)
        loss = -structure.log_prob(prior.sample(structure.grammar, 256, generator(0, "pretraining", step))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return structure


def histogram(numbers: torch.Tensor) -> torch.Tensor:
    """Return the share of each number."""
    return numbers.bincount(minlength=16) / len(numbers)


if __name__ == "__main__":
    main()
