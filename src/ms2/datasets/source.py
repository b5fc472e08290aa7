"""Where scenes come from: a trained run, a configuration, or one of the worlds that come along."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jaxtyping import Int
from torch import Tensor

import ms2.worlds
from ms2.checkpoints import load_structure
from ms2.conditions import Condition, Conditioned, sample_prior_given
from ms2.parsing import Parser, picked
from ms2.registry import UserError, code, fingerprint, suggest
from ms2.structure import StructureModel
from ms2.world import World

WORLDS = {file.parent.name: file for file in sorted(Path(ms2.worlds.__path__[0]).glob("*/world.yaml"))}
"""Configuration of each world that comes along, by name."""

Structure = Literal["learned", "prior"]
Sampler = Callable[[int, torch.Generator], Int[Tensor, "n t"]]


class Source:
    """Draws scenes: structures from a trained model or from a prior, parameters from the world's prior.

    Args:
        world: What may exist and how it looks.
        structure: The trained structure model; None draws from the world's structure prior.
        checkpoint: Hash of the model's weights; None where there is no model.
        configuration: The settings of world and model as plain data, from which `rebuild` makes them again.
        weights: File of the weights.
        name: What a person calls the source.
    """

    def __init__(
        self,
        world: World,
        structure: StructureModel | None,
        checkpoint: str | None,
        configuration: dict[str, Any],
        weights: Path | None,
        name: str,
    ) -> None:
        self.world, self.structure, self.checkpoint = world, structure, checkpoint
        self.configuration, self.weights, self.name = configuration, weights, name

    def sampler(self, conditions: Sequence[Condition] = ()) -> Sampler:
        """Draws derivations that meet all conditions, by their number and a generator.

        Raises:
            UserError: If the conditions can't be met; from the sampler, if they hardly ever are.
        """
        if self.structure is None:
            prior, grammar = self.world.prior, self.world.grammar
            return lambda n, generator: sample_prior_given(prior, grammar, conditions, n, generator)
        model = Conditioned(self.structure, conditions)
        return lambda n, generator: model.sample(n, generator).rules

    def to(self, device: torch.device) -> "Source":
        """The same on a device."""
        if self.structure is not None:
            self.structure.to(device)
        return self

    def hashes(self) -> dict[str, str | None]:
        """What scenes and images depend on: equal hashes mean equal images."""
        world = self.world
        return {
            "grammar": world.grammar.fingerprint,
            "checkpoint": self.checkpoint,
            "prior": None if self.structure is not None else fingerprint(code(world.prior), world.prior),
            "parameters": fingerprint(code(world.parameters), world.parameters),
            "renderer": fingerprint(code(world.renderer), world.renderer),
        }

    def rebuild(self) -> "Source":
        """The same source made anew, as other processes do."""
        return build(self.configuration, self.weights, self.name)


def parser(prog: str = "ms2 generate") -> Parser:
    """Reads a world, and the settings of its structure model."""
    made = Parser(prog=prog)
    made.add_class_arguments(World, "world")
    made.add_subclass_arguments(StructureModel, "structure")
    made.link_arguments("world", "structure.init_args.grammar", lambda world: world.grammar, apply_on="instantiate")
    made.set_defaults({"structure": {"class_path": "ms2.structure.StructureModel"}})
    return made


def open_source(
    source: str, structure: Structure | None = None, checkpoint: str | None = None, arguments: list[str] | None = None
) -> Source:
    """Find what a person names.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, or the name of a world.
        structure: ``learned`` or ``prior``; by default learned where there is a checkpoint.
        checkpoint: File of weights, where a configuration is named.
        arguments: More settings as on a command line: ``["--world.renderer.canvas", "96"]``.

    Raises:
        UserError: If there is no such thing, or no checkpoint where a learned structure is asked for.
    """
    found, name, weights = find(source)
    weights = Path(checkpoint) if checkpoint else weights
    if structure == "learned" and weights is None:
        raise UserError(
            f"{source} has no trained structure model: name the folder of a run, add --checkpoint FILE, or draw from "
            "the prior with --structure prior"
        )
    return build(_of_source(found), None if structure == "prior" else weights, name, arguments)


def find(source: str) -> tuple[dict[str, Any], str, Path | None]:
    """The configuration that a person names, what to call it, and the weights beside it.

    Raises:
        UserError: If there is no such thing.
    """
    file, weights = _find(source)
    try:
        found = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} can't be read as a configuration: {error}") from error
    if not isinstance(found, dict) or not picked(found, "world"):
        raise UserError(f"{file} describes no world: it has no section 'world'. See {WORLDS['multimnist']}")
    return found, file.parent.name if file.name in ("config.yaml", "world.yaml") else file.stem, weights


def _of_source(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a source is made of."""
    model = picked(found, "model", "structure")
    return {"world": found["world"]} | ({"structure": model} if model else {})


def build(given: dict[str, Any], weights: Path | None, name: str, arguments: list[str] | None = None) -> Source:
    """A source by its settings.

    Raises:
        UserError: If settings are wrong, or the weights are of another world.
    """
    plain, made = read(parser(), given, arguments)
    model, checkpoint = None, None
    if weights is not None:
        model = made.structure.eval()
        checkpoint = load_structure(weights, model)
    return Source(made.world, model, checkpoint, plain, weights, name)


def read(reader: Parser, given: dict[str, Any], arguments: list[str] | None = None) -> tuple[dict[str, Any], Any]:
    """Settings with all defaults filled in as plain data, and what they make.

    Raises:
        UserError: If settings are wrong.
    """
    reader.exit_on_error = False
    with warnings.catch_warnings():
        # jsonargparse 4.50 has new names for what 4.49 and Lightning 2.6 still call by these
        warnings.simplefilter("ignore", DeprecationWarning)
        # what a run's configuration links on instantiation is not among the structure model's own settings
        configuration = reader.parse_object(given)
        if arguments:
            configuration = reader.parse_args(arguments, namespace=configuration)
        plain = yaml.safe_load(reader.dump(configuration, skip_none=False, skip_link_targets=True))
        return plain, reader.instantiate_classes(configuration)


def _find(source: str) -> tuple[Path, Path | None]:
    """The configuration that a person names, and the weights beside it."""
    if source in WORLDS:
        return WORLDS[source], None
    path = Path(source).expanduser()
    if path.suffix == ".ckpt":
        for folder in path.absolute().parents[:2]:
            if (folder / "config.yaml").is_file():
                return folder / "config.yaml", path
        raise UserError(
            f"there is no config.yaml beside {path} that says which world it is of: name that configuration, and the "
            f"weights with --checkpoint {path}"
        )
    if path.is_file():
        return path, None
    if (path / "config.yaml").is_file():
        last = path / "checkpoints" / "last.ckpt"
        return path / "config.yaml", last if last.exists() else None
    if path.is_dir():
        raise UserError(f"{path} is not the folder of a run: it has no config.yaml. 'ms2 fit' makes such folders")
    raise UserError(
        f"{source} is neither a run's folder, nor a checkpoint, nor a configuration, nor a world. "
        f"{suggest(source, WORLDS)}"
    )
