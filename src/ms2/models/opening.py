"""Where scenes come from: a trained run, a configuration, or one of the worlds that come along."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from jaxtyping import Int
from torch import Tensor

from ms2.core import configurations, registry
from ms2.core.errors import UserError, suggest
from ms2.core.parsing import Parser, picked
from ms2.core.settings import code, fingerprint
from ms2.models.checkpoints import PARAMETERS, STRUCTURE, load_part
from ms2.models.conditional.condition import Condition
from ms2.models.conditional.sampling import Conditioned, sample_prior_given
from ms2.models.parameters import LearnedParameters, ParameterModel
from ms2.models.structure import StructureModel
from ms2.world import World

Which = Literal["learned", "prior"]
Sampler = Callable[[int, torch.Generator], Int[Tensor, "n t"]]


class Learned(NamedTuple):
    """Which parts of a trained run are used; the prior stands for the others."""

    structure: bool = True
    parameters: bool = True


class Source:
    """Draws scenes: structures from a trained model or from a prior, parameters likewise.

    Args:
        world: What may exist and how it looks, with learned parameters where these are used.
        structure: The trained structure model; None draws from the world's structure prior.
        parameters: The trained parameter model; None draws from the parameter prior.
        checkpoint: Hashes of the two models' weights; None where there is no model.
        configuration: The settings of world and models as plain data, from which `rebuild` makes them again.
        weights: File of the weights.
        name: What a person calls the source.
    """

    def __init__(
        self,
        world: World,
        structure: StructureModel | None,
        parameters: ParameterModel | None,
        checkpoint: tuple[str | None, str | None],
        configuration: dict[str, Any],
        weights: Path | None,
        name: str,
    ) -> None:
        self.world, self.structure, self.parameters, self.checkpoint = world, structure, parameters, checkpoint
        self.configuration, self.weights, self.name = configuration, weights, name

    def sampler(self, conditions: Sequence[Condition] = ()) -> Sampler:
        """Draws derivations that meet all conditions, by their number and a generator.

        Raises:
            UserError: If the conditions can't be met; from the sampler, if they hardly ever are.
        """
        if self.structure is None:
            prior, grammar = self.world.structure_prior, self.world.grammar
            return lambda n, generator: sample_prior_given(prior, grammar, conditions, n, generator).rules
        model = Conditioned(self.structure, conditions)
        return lambda n, generator: model.sample(n, generator).rules

    def to(self, device: torch.device) -> "Source":
        """The same on a device."""
        for model in (self.structure, self.parameters):
            if model is not None:
                model.to(device)
        return self

    def hashes(self) -> dict[str, str | None]:
        """What scenes and images depend on: equal hashes mean equal images."""
        world = self.world
        return {
            "grammar": world.grammar.fingerprint,
            "checkpoint": self.checkpoint[0],
            "structure_prior": None
            if self.structure is not None
            else fingerprint(code(world.structure_prior), world.structure_prior),
            "parameter_prior": fingerprint(
                code(world.parameter_prior), world.parameter_prior, *filter(None, self.checkpoint[1:])
            ),
            "renderer": fingerprint(code(world.renderer), world.renderer),
        }

    def rebuild(self) -> "Source":
        """The same source made anew, as other processes do."""
        return build(self.configuration, self.weights, self.name, self.learned)

    @property
    def learned(self) -> Learned:
        """Which parts are learned."""
        return Learned(self.structure is not None, self.parameters is not None)


def parser(prog: str = "ms2 generate") -> Parser:
    """Reads a world, and the settings of its structure and parameter models."""
    registry.load_entry_points()  # the worlds, whose classes are named here
    made = Parser(prog=prog)
    made.add_class_arguments(World, "world")
    made.add_subclass_arguments(StructureModel, "structure")
    made.link_arguments("world", "structure.init_args.grammar", lambda world: world.grammar, apply_on="instantiate")
    made.set_defaults({"structure": {"class_path": "ms2.models.structure.StructureModel"}})
    made.add_argument("--parameters", type=ParameterModel | None)
    made.link_arguments("world", "parameters.init_args.world", apply_on="instantiate")
    return made


def open_source(
    source: str,
    structure: Which | None = None,
    checkpoint: str | None = None,
    arguments: list[str] | None = None,
    parameters: Which | None = None,
) -> Source:
    """Find what a person names.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, or the name of a world.
        structure: ``learned`` or ``prior``; by default learned where there is a checkpoint.
        checkpoint: File of weights, where a configuration is named.
        arguments: More settings as on a command line: ``["--world.renderer.canvas_size", "96"]``.
        parameters: ``learned`` or ``prior``; by default learned where they were.

    Raises:
        UserError: If there is no such thing, or no checkpoint where something learned is asked for.
    """
    found, name, weights = find(source)
    weights = Path(checkpoint) if checkpoint else weights
    if structure == "learned" and weights is None:
        raise UserError(
            f"{source} has no trained structure model: name the folder of a run, add --checkpoint FILE, or draw from "
            "the prior with --structure prior"
        )
    given = _of_source(found)
    if parameters == "learned" and (weights is None or not given.get("parameters")):
        raise UserError(
            f"{source} has no trained parameter model: name the folder of a run that learned parameters (its "
            "configuration has model.parameters), or leave them to the prior with --parameters prior"
        )
    learned = Learned(structure != "prior", parameters != "prior")
    return build(given, weights, name, learned, arguments)


def find(source: str) -> tuple[dict[str, Any], str, Path | None]:
    """The configuration that a person names, what to call it, and the weights beside it.

    Raises:
        UserError: If there is no such thing.
    """
    file, weights = _find(source)
    found = configurations.load(file)
    if not picked(found, "world"):
        example = configurations.worlds()["multimnist"]
        raise UserError(f"{file} describes no world: it has no section 'world'. See {example}")
    return found, file.parent.name if file.name in ("config.yaml", "world.yaml") else file.stem, weights


def _of_source(found: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a source is made of."""
    models = {key: picked(found, "model", key) for key in ("structure", "parameters")}
    return {"world": found["world"]} | {key: model for key, model in models.items() if model}


def build(
    given: dict[str, Any],
    weights: Path | None,
    name: str,
    learned: Learned = Learned(),  # noqa: B008 - a tuple
    arguments: list[str] | None = None,
) -> Source:
    """A source by its settings; without weights, of the priors alone.

    Raises:
        UserError: If settings are wrong, or the weights are of another world.
    """
    plain, made = read(parser(), given, arguments)
    world, grammar = made.world, made.world.grammar
    structure = made.structure.eval() if weights is not None and learned.structure else None
    parameters = made.parameters.eval() if weights is not None and learned.parameters and made.parameters else None
    parts = ((structure, STRUCTURE), (parameters, PARAMETERS))
    hashes = [load_part(weights, part, which, grammar) if weights and part else None for part, which in parts]
    if parameters is not None:
        world = World(
            grammar, world.structure_prior, LearnedParameters(world.parameter_prior, parameters), world.renderer
        )
    return Source(world, structure, parameters, (hashes[0], hashes[1]), plain, weights, name)


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
    worlds, experiments = configurations.worlds(), configurations.experiments()
    if source in worlds:
        return worlds[source], None
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
    if source in experiments:
        return experiments[source], None
    raise UserError(
        f"{source} is neither a run's folder, nor a checkpoint, nor a configuration, nor a world. "
        f"{suggest(source, [*worlds, *experiments])}"
    )
