"""Scene grammars: symbols and rules, masks, lint, derivations (section 3.1)."""

from ms2.grammar.derivations import Context, Derivations, DerivationStack, contexts, lengths, pad, valid
from ms2.grammar.grammar import Finding, Grammar, GrammarError, Rule, Tables, rule_weights
from ms2.grammar.trees import Tree, from_tree, to_tree

__all__ = [
    "Context",
    "DerivationStack",
    "Derivations",
    "Finding",
    "Grammar",
    "GrammarError",
    "Rule",
    "Tables",
    "Tree",
    "contexts",
    "from_tree",
    "lengths",
    "pad",
    "rule_weights",
    "to_tree",
    "valid",
]
