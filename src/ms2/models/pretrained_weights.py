"""Leave pretrained weights that nothing trains out of checkpoints, and fill them in again, checked by fingerprint."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ms2.features.base import FeatureExtractor, PretrainedWeights, weights_fingerprint
from ms2.models.checkpoints import SETTINGS, CheckpointError

LEFT_OUT = "pretrained"
"""Key, beside a checkpoint's weights, of what was left out of them."""


def leave_out(weights: dict[str, Any], module: nn.Module) -> dict[str, dict[str, str]]:
    """Remove pretrained weights from the weights of a module, unless they were changed since they were loaded.

    Args:
        weights: The module's weights by name, from which they are removed.
        module: The module, whose feature extractors say what is pretrained (`FeatureExtractor.pretrained`).

    Returns:
        Source and fingerprint of what was removed, by the name of the submodule, to be stored beside the weights.
    """
    found = {}
    for name, network, given in _pretrained(module):
        if weights_fingerprint(network) == given.fingerprint:
            found[name] = given._asdict()
            for key in network.state_dict():
                weights.pop(f"{name}.{key}", None)
    return found


def fill_in(weights: dict[str, Any], left_out: Any, module: nn.Module) -> None:
    """Add to weights by name what `leave_out` has removed, from the module that they are to be loaded into.

    Args:
        weights: The weights, to which the module's own are added.
        left_out: What `leave_out` returned; None where nothing was removed, as by earlier versions.
        module: The module.

    Raises:
        CheckpointError: If the module lacks such a submodule, or its weights are not those that were removed.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    sources = {name: given.source for name, _, given in _pretrained(module)}
    for name, theirs in (left_out or {}).items():
        if name not in modules:
            raise CheckpointError(f"the checkpoint is of another model: {name!r} is unknown to this model. {SETTINGS}")
        needed = PretrainedWeights(**theirs)
        found = weights_fingerprint(modules[name])
        if found != needed.fingerprint:
            raise CheckpointError(
                f"the pretrained weights of {name!r} are not those that the checkpoint was trained with, which does "
                f"not hold them: those were {needed.source} (sha256 {needed.fingerprint[:8]}), and these are "
                f"{sources.get(name, 'random')} (sha256 {found[:8]}). Put the file back that it was trained with, "
                "give it in the extractor's setting 'weights', or train anew"
            )
        weights |= {f"{name}.{key}": value for key, value in modules[name].state_dict().items()}


def _pretrained(module: nn.Module) -> Iterator[tuple[str, nn.Module, PretrainedWeights]]:
    """Iterate over the pretrained submodules of a module: name, submodule, and what was loaded into it."""
    for prefix, extractor in module.named_modules(remove_duplicate=False):
        if isinstance(extractor, FeatureExtractor):
            for name, given in extractor.pretrained.items():
                yield f"{prefix}.{name}" if prefix else name, extractor.get_submodule(name), given
