"""A prior that is too narrow: the reverse KL stays in the mode that it knows, the mode-covering score finds the other.

The prior draws 0 to 2 things, the target 1 or 7, half each; the feature is the number of things, known exactly. Prints
the total variation to the target for three seeds.

Usage: python experiments/mode_covering.py
"""

import torch
from torch import Tensor
from tqdm import tqdm

from ms2.gradients.advantages import Normalised
from ms2.grammar.grammar import Grammar
from ms2.models.networks.recurrent import LSTM
from ms2.models.structure import StructureModel
from ms2.objectives.base import Objective
from ms2.objectives.forward_kl import ForwardKL
from ms2.objectives.kde import KDE
from ms2.objectives.mmd import MMDWitness
from ms2.priors.structure import ListLengthPrior
from ms2.scene.batch import scenes_from_derivations

GRAMMAR = Grammar("Scene -> Things\nThings -> thing Things | ε")
PRIOR = ListLengthPrior(lengths={"Things": [1, 1, 1]})
TARGET = ListLengthPrior(lengths={"Things": [0, 1, 0, 0, 0, 0, 0, 1]})
OBJECTIVES: dict[str, type[Objective]] = {"KDE": KDE, "MMDWitness": MMDWitness, "ForwardKL": ForwardKL}
BATCH, STEPS, LR, BANDWIDTH = 128, 150, 0.01, 0.3


def count(rules: Tensor) -> dict[str, Tensor]:
    """The feature of derivations."""
    return {"count": scenes_from_derivations(GRAMMAR, rules).mask.sum(1, keepdim=True).float()}


def pretrained(seed: int, draw: torch.Generator) -> StructureModel:
    """A model of the prior."""
    torch.manual_seed(seed)
    model = StructureModel(GRAMMAR, t_max=40, network=LSTM(16))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        loss = -model.log_prob(PRIOR.sample(GRAMMAR, BATCH, draw)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def learn(model: StructureModel, objective: Objective, draw: torch.Generator) -> None:
    """REINFORCE with the objective's score."""
    optimizer, estimator, own = torch.optim.Adam(model.parameters(), LR), Normalised(), torch.arange(BATCH)
    for step in range(STEPS):
        rules = model.sample(BATCH, draw).rules
        features = count(rules)
        score, _ = objective(features, features, own, count(TARGET.sample(GRAMMAR, BATCH, draw)))
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        optimizer.zero_grad()
        (estimator(score) * model.log_prob(rules)).mean().backward()
        optimizer.step()


def distance(model: StructureModel, draw: torch.Generator) -> float:
    """Total variation between the number of things of 20,000 scenes and the target's."""
    found = count(model.sample(20_000, draw).rules)["count"][:, 0].long().bincount(minlength=8).float()
    target = torch.zeros_like(found).index_fill(0, torch.tensor([1, 7]), 0.5)
    return float((found / found.sum() - target).abs().sum() / 2)


def main() -> None:
    """Run all, then print the table."""
    rows = {name: list[float]() for name in ("before learning", *OBJECTIVES)}
    for seed in tqdm(range(3), "seeds"):
        for name, objective in OBJECTIVES.items():
            draw = torch.Generator().manual_seed(seed)
            model = pretrained(seed, draw)
            if name == "KDE":
                rows["before learning"].append(distance(model, draw))
            learn(model, objective(BANDWIDTH), draw)
            rows[name].append(distance(model, draw))
    print("| TV to the target | seed 0 | seed 1 | seed 2 |\n|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")


if __name__ == "__main__":
    main()
