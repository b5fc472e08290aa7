"""The structure model's sampler and scorer as one would first write them: one scene at a time, a list as the stack."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ms2.grammar.grammar import Grammar
from ms2.models.networks.base import State
from ms2.models.structure import StructureModel

Place = tuple[int, int, int, int]
"""A non-terminal, the one that brought it in, how often in a row it has come back, and the item that it is part of."""


@torch.no_grad()
def sample(model: StructureModel, generator: torch.Generator) -> list[int]:
    """The rules of one derivation, drawn again until one ends within ``t_max`` steps."""
    rules = None
    while rules is None:
        rules = draw(model, generator)
    return rules


def draw(model: StructureModel, generator: torch.Generator) -> list[int] | None:
    """One try; None if it does not end in time."""
    latent = model.latents[int(torch.randint(len(model.latents), (1,), generator=generator))]
    state, rules, previous = initial_state(model, latent), [], model.grammar.num_rules
    stack = [start(model.grammar)]
    while stack and len(rules) < model.t_max:
        place = stack.pop()
        allowed = model.grammar.rules_of(model.grammar.nonterminals[place[0]])
        output, state = model.network.step(embed(model, previous, place)[None], state)
        probability = model.head(output[0])[allowed].softmax(0)
        previous = allowed[int(torch.multinomial(probability, 1, generator=generator))]
        rules.append(previous)
        stack += pushed(model.grammar, previous, place)
    return None if stack else rules


def score(model: StructureModel, rules: Sequence[int]) -> Tensor:
    """log q(T) of one derivation without padding, with gradients."""
    steps = list(walk(model.grammar, rules))
    inputs = torch.stack([embed(model, *step) for step in steps])[None]
    shut = torch.full((len(rules), model.grammar.num_rules), -math.inf)
    for row, (_, (symbol, *_)) in zip(shut, steps, strict=True):
        row[model.grammar.rules_of(model.grammar.nonterminals[symbol])] = 0
    found = []
    for latent in model.latents:
        output, _ = model.network.extend(inputs, initial_state(model, latent))
        log_p = (model.head(output[0]) + shut).log_softmax(-1)
        found.append(log_p[range(len(rules)), rules].sum())
    return torch.stack(found).logsumexp(0) - math.log(len(found))


def walk(grammar: Grammar, rules: Sequence[int]) -> Iterator[tuple[int, Place]]:
    """What the network sees before each step: the previous rule, and what it is to expand."""
    stack, previous = [start(grammar)], grammar.num_rules
    for rule in rules:
        place = stack.pop()
        yield previous, place
        stack += pushed(grammar, rule, place)
        previous = rule


def start(grammar: Grammar) -> Place:
    """Where every derivation starts."""
    return grammar.nonterminals.index(grammar.start), len(grammar.nonterminals), 0, 0


def pushed(grammar: Grammar, rule: int, place: Place) -> list[Place]:
    """The non-terminals of a rule, in the order in which they go onto the stack."""
    head, parent, position, item = place
    name = grammar.nonterminals[head]
    is_list = any(name in grammar.rules[k].rhs for k in grammar.rules_of(name))
    above = position if is_list else item
    symbols = [grammar.nonterminals.index(s) for s in reversed(grammar.rules[rule].rhs) if s in grammar.nonterminals]
    return [(s, parent, position + 1, item) if s == head else (s, head, 0, above) for s in symbols]


def embed(model: StructureModel, previous: int, place: Place) -> Tensor:
    """Input of a step."""
    embedded = model.embedding.weight[previous]
    for embedding, number in zip(model.context_embeddings, place, strict=False):
        embedded = embedded + embedding.weight[number]
    return embedded


def initial_state(model: StructureModel, latent: Tensor) -> State:
    """The network's state before the first step."""
    return model.network.initial_state(model.condition(latent)[None])
