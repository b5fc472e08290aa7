"""Load weights of models from checkpoints, and check the grammar that they were trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ms2.core.errors import UserError
from ms2.core.files import read_tensors, reading
from ms2.core.hashing import digest
from ms2.grammar.grammar import Grammar
from ms2.models.structure import StructureModel

STRUCTURE, PARAMETERS = "structure.", "parameter_model."
"""Prefixes of the names of each model's weights in a run's checkpoint."""
CHECKPOINT = "a checkpoint of 'ms2 fit'"
REPAIR = "give another file, or delete it and run 'ms2 fit' again"
SETTINGS = "Give the settings that it was trained with, such as the config.yaml of its run."
"""Phrases of errors."""


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


def read_checkpoint(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read a run's checkpoint, tensors onto a device.

    Raises:
        CheckpointError: If there is no such file, or it is no checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: run 'ms2 fit' first, or give another file")
    with reading(path, CHECKPOINT, REPAIR, CheckpointError):
        found = read_tensors(path, device)
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise CheckpointError(f"{path} can't be read as {CHECKPOINT}: it holds something else; {REPAIR}")
    return found


def difference(weights: Mapping[str, Any], module: nn.Module) -> str | None:
    """Describe how weights by name differ from those that a module has; None if their names and shapes are equal."""
    own = module.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        return f"{name!r} is {'missing' if name in own else 'unknown to this model'}"
    for name, value in own.items():
        shape = list(getattr(weights[name], "shape", ()))
        if shape != list(value.shape):
            return f"{name!r} has the shape {shape}, but this model's has {list(value.shape)}"
    return None


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
    checkpoint = read_checkpoint(path)
    with reading(path, CHECKPOINT, REPAIR, CheckpointError):
        found = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    check_grammar(checkpoint, grammar)
    problem = difference(found, model)
    if problem is not None:
        raise CheckpointError(f"{path} holds a {type(model).__name__} of another shape: {problem}. {SETTINGS}")
    model.load_state_dict(found)
    weights = sorted(model.state_dict().items())  # in full precision, whatever the checkpoint's is
    return digest(key.encode() + value.cpu().contiguous().numpy().tobytes() for key, value in weights)
