"""What a checkpoint says of the grammar that its weights speak, and the structure model in it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ms2.grammar import Grammar
from ms2.registry import UserError
from ms2.structure import StructureModel

PREFIX = "structure."
"""What the names of the structure model's weights begin with."""


class CheckpointError(UserError):
    """A checkpoint that can't be read, or belongs to something else."""


def note_grammar(grammar: Grammar) -> dict[str, str]:
    """What to keep of a grammar beside weights."""
    return {"text": str(grammar), "fingerprint": grammar.fingerprint}


def check_grammar(checkpoint: Mapping[str, Any], grammar: Grammar) -> None:
    """Refuse the weights of another grammar.

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
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: run 'ms2 fit' first, or give another file")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        weights = {k[len(PREFIX) :]: v for k, v in checkpoint["state_dict"].items() if k.startswith(PREFIX)}
    except Exception as error:  # whatever a broken file makes of the unpickler
        raise CheckpointError(f"{path} can't be read as a checkpoint of 'ms2 fit': {error}") from error
    check_grammar(checkpoint, structure.grammar)
    try:
        structure.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds a structure model of another shape: {error}\nGive the settings that it was trained with, "
            "such as the config.yaml of its run."
        ) from error
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(structure.state_dict().items()):  # in full precision, whatever the checkpoint's is
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
