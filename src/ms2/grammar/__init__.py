"""Scene grammars: symbols and rules, masks, linting, derivations (section 3.1)."""

from ms2.grammar.derivations import Context, Derivations, contexts, is_valid, lengths, pad
from ms2.grammar.grammar import Grammar, LintFinding
from ms2.grammar.rules import GrammarError, Rule, normalise_weights
from ms2.grammar.stack import DerivationStack
from ms2.grammar.tensors import GrammarTensors
from ms2.grammar.trees import DerivationTree, from_tree, to_tree

__all__ = [
    "Context",
    "DerivationStack",
    "DerivationTree",
    "Derivations",
    "Grammar",
    "GrammarError",
    "GrammarTensors",
    "LintFinding",
    "Rule",
    "contexts",
    "from_tree",
    "is_valid",
    "lengths",
    "normalise_weights",
    "pad",
    "to_tree",
]
