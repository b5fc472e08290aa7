"""Plain Python sampler and scorer of the structure model: one scene at a time, with a list as the stack."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ms2.grammar.grammar import Grammar
from ms2.models.networks.base import State
from ms2.models.structure import StructureModel

ContextTuple = tuple[int, int, int, int]
"""Number of a non-terminal, its parent, its position in its list, and the item of the enclosing list."""


@torch.no_grad()
def sample(model: StructureModel, generator: torch.Generator) -> list[int]:
    """Sample one derivation, rejecting those that do not end within ``t_max`` steps."""
    rules = None
    while rules is None:
        rules = draw(model, generator)
    return rules


def draw(model: StructureModel, generator: torch.Generator) -> list[int] | None:
    """Sample one derivation; return None if it does not end within ``t_max`` steps."""
    latent = model.latents[int(torch.randint(len(model.latents), (1,), generator=generator, device=generator.device))]
    state, rules, previous = initial_state(model, latent), [], model.grammar.num_rules
    stack = [start(model.grammar)]
    while stack and len(rules) < model.t_max:
        context = stack.pop()
        allowed = model.grammar.rules_of(model.grammar.nonterminals[context[0]])
        output, state = model.network.step(embed(model, previous, context)[None], state)
        probability = model.head(output[0])[allowed].softmax(0)
        previous = allowed[int(torch.multinomial(probability, 1, generator=generator))]
        rules.append(previous)
        stack += pushed(model.grammar, previous, context)
    return None if stack else rules


def score(model: StructureModel, rules: Sequence[int]) -> Tensor:
    """Compute log q(T) of one derivation without padding, with gradients."""
    steps = list(inputs_of(model.grammar, rules))
    inputs = torch.stack([embed(model, *step) for step in steps])[None]
    mask = torch.full((len(rules), model.grammar.num_rules), -math.inf)
    for row, (_, (symbol, *_)) in zip(mask, steps, strict=True):
        row[model.grammar.rules_of(model.grammar.nonterminals[symbol])] = 0
    found = []
    for latent in model.latents:
        output, _ = model.network.extend(inputs, initial_state(model, latent))
        log_p = (model.head(output[0]) + mask).log_softmax(-1)
        found.append(log_p[range(len(rules)), rules].sum())
    return torch.stack(found).logsumexp(0) - math.log(len(found))


def inputs_of(grammar: Grammar, rules: Sequence[int]) -> Iterator[tuple[int, ContextTuple]]:
    """Yield the network's input of each step: the previous rule, and the context."""
    stack, previous = [start(grammar)], grammar.num_rules
    for rule in rules:
        context = stack.pop()
        yield previous, context
        stack += pushed(grammar, rule, context)
        previous = rule


def start(grammar: Grammar) -> ContextTuple:
    """Return the context of the first step."""
    return grammar.nonterminals.index(grammar.start), len(grammar.nonterminals), 0, 0


def pushed(grammar: Grammar, rule: int, context: ContextTuple) -> list[ContextTuple]:
    """Return the contexts of a rule's non-terminals, in the order in which they are pushed onto the stack."""
    head, parent, position, item = context
    name = grammar.nonterminals[head]
    is_list = any(name in grammar.rules[k].rhs for k in grammar.rules_of(name))
    above = position if is_list else item
    symbols = [grammar.nonterminals.index(s) for s in reversed(grammar.rules[rule].rhs) if s in grammar.nonterminals]
    return [(s, parent, position + 1, item) if s == head else (s, head, 0, above) for s in symbols]


def embed(model: StructureModel, previous: int, context: ContextTuple) -> Tensor:
    """Embed the input of a step."""
    embedded = model.embedding.weight[previous]
    for embedding, number in zip(model.context_embeddings, context, strict=False):
        embedded = embedded + embedding.weight[number]
    return embedded


def initial_state(model: StructureModel, latent: Tensor) -> State:
    """Compute the network's state before the first step."""
    return model.network.initial_state(model.condition(latent)[None])
