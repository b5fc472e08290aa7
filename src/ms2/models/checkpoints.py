"""Load weights of models from checkpoints, and check the grammar that they were trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ms2.core.errors import UserError
from ms2.core.hashing import digest
from ms2.grammar.grammar import Grammar
from ms2.models.structure import StructureModel

STRUCTURE, PARAMETERS = "structure.", "parameter_model."
"""Prefixes of the names of each model's weights in a run's checkpoint."""


class CheckpointError(UserError):
    """A checkpoint can't be read, or was made for another model."""


def grammar_metadata(grammar: Grammar) -> dict[str, str]:
    """Return what identifies a grammar, to be stored with weights under the key ``grammar``."""
    return {"text": str(grammar), "fingerprint": grammar.fingerprint}


def check_grammar(checkpoint: Mapping[str, Any], grammar: Grammar) -> None:
    """Raise an error if a checkpoint was made with another grammar.

    Raises:
        CheckpointError: If the checkpoint's rules are not this grammar's.
    """
    theirs = checkpoint.get("grammar")
    theirs = theirs if isinstance(theirs, Mapping) else {}
    if theirs.get("fingerprint") != grammar.fingerprint:
        raise CheckpointError(
            "the checkpoint was trained with another grammar. Its rules:\n"
            f"{theirs.get('text', 'unknown')}\nThis world's rules:\n{grammar}\n"
            "Give the world it was trained with (the config.yaml beside it), or train anew."
        )


def load_structure(path: Path, structure: StructureModel) -> str:
    """Load the structure model's weights from a run's checkpoint.

    Returns:
        A hash of the weights.

    Raises:
        CheckpointError: If there is no such file, or it holds no structure model, or one of another grammar or size.
    """
    return load_model_weights(path, structure, STRUCTURE, structure.grammar)


def load_model_weights(path: Path, model: nn.Module, prefix: str, grammar: Grammar) -> str:
    """Load the weights of one model from a run's checkpoint.

    Args:
        path: The checkpoint.
        model: The model, whose weights are replaced.
        prefix: ``STRUCTURE`` or ``PARAMETERS``.
        grammar: The grammar that the checkpoint must have been trained with.

    Returns:
        A hash of the weights.

    Raises:
        CheckpointError: If there is no such file, or it holds no such model, or one of another grammar or size.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: run 'ms2 fit' first, or give another file")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        found = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f"{path} can't be read as a checkpoint of 'ms2 fit': {error}") from error
    check_grammar(checkpoint, grammar)
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds a {type(model).__name__} of another shape: {error}\nGive the settings that it was trained "
            "with, such as the config.yaml of its run."
        ) from error
    weights = sorted(model.state_dict().items())  # in full precision, whatever the checkpoint's is
    return digest(key.encode() + value.cpu().contiguous().numpy().tobytes() for key, value in weights)
