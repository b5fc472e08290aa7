"""Compares a street grammar induced from KITTI's labels with the best PCFG of the hand-written one, on held-out scenes.

Labels of the train split are mapped to the hand-written grammar's classes, as by the target. On 80 % of the scenes, a
grammar is induced, and the rule probabilities of the hand-written grammar are fitted by maximum likelihood (EM: a
scene's scenario is latent). Printed are nats per scene of the other 20 %. MS2_DATA names the folder that holds kitti/.

Usage: python experiments/street_grammar.py [SEED ...]
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ms2.datasets.formats.kitti_files import categories_by_type
from ms2.grammar.grammar import Grammar
from ms2.learning.induction.hypothesis import scene_place
from ms2.learning.induction.induce import induce
from ms2.learning.induction.object_table import ObjectTable
from ms2.learning.induction.sources import read_source
from ms2.priors.structure import ListLengthPrior
from ms2.worlds.driving3d.declaration import OBJECTS, SCENARIOS
from ms2.worlds.driving3d.grammar import Driving, list_symbol

ITERATIONS = 20
"""Iterations of EM."""


def read_labels() -> ObjectTable:
    """Read the labels with the classes of the hand-written grammar; parents are those that it knows: none."""
    labels = Path(os.environ["MS2_DATA"]) / "kitti" / "label_2_train_split_all.tar.gz"
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(labels) as archive:
            archive.extractall(folder, filter="data")
        table = read_source(Path(folder) / "label_2")
    counted = {kind.lower(): name for kind, name in categories_by_type(None).items()}
    names = [name for name in OBJECTS if name in counted.values()]
    new = torch.tensor([names.index(counted[name]) if name in counted else -1 for name in table.classes])
    kept = table.rows((new[table.label] >= 0).nonzero()[:, 0])
    return ObjectTable(tuple(names), table.num_scenes, kept.scene, new[kept.label], kept.parent, kept.boxes, True)


def derivations(grammar: Grammar, counts: Int[Tensor, "b c"], classes: tuple[str, ...]) -> Int[Tensor, "s b t"]:
    """Write the derivation of each scene in each scenario."""

    def number(head: str, first: str) -> int:
        """Number of the rule of a symbol whose right-hand side begins with another."""
        (found,) = (k for k in grammar.rules_of(head) if (grammar.rules[k].rhs or ("",))[0] == first)
        return found

    def one(scenario: str, row: list[int]) -> list[int]:
        steps = [number("Scene", scenario), number(scenario, "Objects"), *grammar.rules_of("Objects")]
        for name in OBJECTS:
            many = list_symbol(name)
            times = row[classes.index(name)] if name in classes else 0
            steps += [number(many, name)] * times + [number(many, "")]
        return steps

    found = [[one(scenario, row) for row in counts.tolist()] for scenario in SCENARIOS]
    longest = max(len(steps) for rows in found for steps in rows)
    return torch.tensor([[steps + [grammar.num_rules] * (longest - len(steps)) for steps in rows] for rows in found])


def fit_latent(grammar: Grammar, rules: Int[Tensor, "s b t"]) -> ListLengthPrior:
    """Fit rule probabilities by EM, where each scene has one of s derivations."""
    used = torch.nn.functional.one_hot(rules, grammar.num_rules + 1).sum(2)[..., :-1].double()
    share = torch.rand(rules.shape[:2], generator=torch.Generator().manual_seed(0)).double()
    for _ in range(ITERATIONS):
        share = share / share.sum(0)
        expected = (share[..., None] * used).sum((0, 1))
        weights = {name: expected[grammar.rules_of(name)].tolist() for name in grammar.nonterminals}
        prior = ListLengthPrior(weights={name: some for name, some in weights.items() if sum(some)})
        share = torch.stack([prior.log_prob(grammar, some) for some in rules]).double().softmax(0)
    return prior


def main(seeds: list[int]) -> None:
    """Print a line for each random split."""
    table, grammar = read_labels(), Driving()
    print(f"{table.num_scenes} scenes, classes {', '.join(table.classes)}; nats per held-out scene")
    for seed in seeds:
        order = torch.randperm(table.num_scenes, generator=torch.Generator().manual_seed(seed))
        cut = int(0.8 * table.num_scenes)
        train, held_out = table.select(order[:cut]), table.select(order[cut:])
        hypothesis = induce(train).hypothesis
        induced = -float(hypothesis.log_prob(held_out).mean())
        sides = [derivations(grammar, scene_place(side).counts, table.classes) for side in (train, held_out)]
        prior = fit_latent(grammar, sides[0])
        logs = torch.stack([prior.log_prob(grammar, rules) for rules in sides[1]])
        best = -float(logs.double().logsumexp(0).mean())
        print(f"seed {seed}: induced {induced:.3f} ({len(hypothesis.kinds)} kinds of scenes), best PCFG {best:.3f}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [0, 1, 2])
