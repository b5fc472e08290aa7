"""The configuration of a run that was made in Python."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ms2.core.settings import Configured
from ms2.features.base import FeatureExtractor
from ms2.models.parameters import ParameterModel
from ms2.models.structure import StructureModel
from ms2.targets.base import Target

LINKED: dict[type, set[str]] = {
    FeatureExtractor: {"channels", "classes", "attributes", "environment"},
    StructureModel: {"grammar"},
    ParameterModel: {"world"},
    Target: {"world"},
}
"""Arguments that a configuration does not give, by base class: the world determines them."""


def configuration(parts: Mapping[str, Any], trainer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of a run as a configuration, with which the command line opens the run.

    Args:
        parts: The run's objects by section.
        trainer: Arguments of Lightning's Trainer.
        folder: The run's folder.
    """
    shared = {"world", "seed", "features", "structure", "parameters"}
    sections = {name: _arguments(part, shared) for name, part in parts.items()}
    model = parts["model"].settings
    sections["model"] |= {name: _plain(model[name]) for name in ("features", "structure", "parameters")}
    for name in ("structure_learner", "parameter_learner", "turns"):
        if model[name] is not None:
            sections["model"][name] = _arguments(model[name])
    own = {"name": folder.name, "runs_dir": str(folder.parent), "seed_everything": model["seed"]}
    return own | {"world": _arguments(model["world"])} | sections | {"trainer": dict(trainer)}


def _arguments(thing: Configured, without: Collection[str] = ()) -> dict[str, Any]:
    return {name: _plain(value) for name, value in thing.settings.items() if name not in without}


def _plain(thing: Any) -> Any:
    if isinstance(thing, Configured):
        linked = [names for base, names in LINKED.items() if isinstance(thing, base)]
        path = f"{type(thing).__module__}.{type(thing).__qualname__}"
        return {"class_path": path, "init_args": _arguments(thing, set().union(*linked))}
    if isinstance(thing, Mapping):
        return {name: _plain(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_plain(value) for value in thing]
    return str(thing) if isinstance(thing, Path) else thing
