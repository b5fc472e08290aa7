"""Open a scene model from a run, a checkpoint, a configuration or the name of a world."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from ms2.core import configurations, registry
from ms2.core.errors import UserError, suggest
from ms2.core.parsing import ArgumentParser, check_bounds, get_nested
from ms2.core.paths import OptionalPath, expand_path
from ms2.core.settings import fingerprint, source_fingerprint
from ms2.models.checkpoints import PARAMETERS, STRUCTURE, load_model_weights
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import LEARNED, Row, SceneModel
from ms2.models.structure import StructureModel
from ms2.world import World

LearnedOrPrior = Literal["learned", "prior"]


@dataclass(frozen=True)
class OpenedModel:
    """A scene model with what it was built from, which is enough to build it again in another process.

    Attributes:
        model: The scene model.
        name: Display name.
        settings: Settings of world and models as plain data, with defaults filled in.
        weights: File of the weights; None for the priors.
        weight_hashes: Hashes of the weights of structure model and parameter model; None where there is no model.
    """

    model: SceneModel
    name: str
    settings: dict[str, Any]
    weights: Path | None
    weight_hashes: tuple[str | None, str | None]

    @property
    def parts(self) -> tuple["OpenedModel", ...]:
        """The opened models that scenes are drawn from: this one alone, unlike those of an `OpenedMixture`."""
        return (self,)

    def fingerprints(self) -> dict[str, str | None]:
        """Compute hashes of everything that images depend on: equal hashes mean equal images."""
        world, (structure, parameters) = self.model.world, self.weight_hashes
        prior = world.structure_prior
        of_prior = None if structure is not None else fingerprint(source_fingerprint(prior), prior)
        drawn_by = [thing for thing in (world.parameter_prior, self.model.parameters) if thing is not None]
        return {
            "grammar": world.grammar.fingerprint,
            "checkpoint": structure,
            "structure_prior": of_prior,
            "parameter_prior": fingerprint(source_fingerprint(*drawn_by), *drawn_by, *filter(None, [parameters])),
            "renderer": fingerprint(source_fingerprint(world.renderer), world.renderer),
        }

    def description(self) -> dict[str, Any]:
        """Return what a data set's description says of where its scenes come from."""
        return {
            "source": self.name,
            "structure": "prior" if self.model.structure is None else "learned",
            "parameters": "prior" if self.model.parameters is None else "learned",
            "world": self.settings["world"],
            "model": None if self.model.structure is None else self.settings["structure"],
        }

    @property
    def recipe(self) -> Callable[[], "OpenedModel"]:
        """What builds the scene model again from settings and weights, in another process too."""
        return partial(build_model, self.settings, self.weights, self.name, self.model.learned)

    def rebuild(self) -> "OpenedModel":
        """Build the scene model again from settings and weights."""
        return self.recipe()


def open_model(
    source: str,
    structure: LearnedOrPrior | None = None,
    checkpoint: OptionalPath = None,
    arguments: list[str] | None = None,
    parameters: LearnedOrPrior | None = None,
) -> OpenedModel:
    """Open a scene model by the name or path of what it is stored in.

    Args:
        source: The folder of a run, a checkpoint in it, a configuration, or the name of a world or of a learned model
            that comes with one, such as ``multimnist_learned``.
        structure: ``learned`` or ``prior``; by default learned where there is a checkpoint, and the prior of a world or
            a configuration.
        checkpoint: File of weights, where ``source`` is a configuration.
        arguments: More settings as on a command line: ``["--world.renderer.canvas_size", "96"]``.
        parameters: ``learned`` or ``prior``; by default learned where the run has learned them.

    Raises:
        UserError: If there is no such source, or no checkpoint where a learned model is requested or the source is a
            run.
    """
    configuration, name, weights = find_configuration(source)
    weights = weights if checkpoint is None else expand_path(checkpoint)
    if structure is None and weights is None and _is_run(source):
        raise UserError(
            f"{source} has no checkpoint yet, so nothing learned can be drawn from it: go on with 'ms2 fit', or draw "
            f"from the prior with --structure prior (in Python, open {Path(source) / 'config.yaml'})"
        )
    if structure == "learned" and weights is None:
        shipped = source + configurations.LEARNED_SUFFIX
        instead = f"take {shipped}, " if shipped in configurations.learned_models() else ""
        raise UserError(
            f"{source} has no trained structure model: {instead}name the folder of a run, add --checkpoint FILE, or "
            "draw from the prior with --structure prior"
        )
    models = {key: get_nested(configuration, "model", key) for key in ("structure", "parameters")}
    if parameters == "learned" and (weights is None or not models["parameters"]):
        raise UserError(
            f"{source} has no trained parameter model: name the folder of a run that learned parameters (its "
            "configuration has model.parameters), or leave them to the prior with --parameters prior"
        )
    settings = {"world": configuration["world"]} | {key: model for key, model in models.items() if model}
    return build_model(settings, weights, name, Row(structure != "prior", parameters != "prior"), arguments)


def find_configuration(source: str) -> tuple[dict[str, Any], str, Path | None]:
    """Find the configuration of a source, its display name, and the weights beside it.

    Raises:
        UserError: If there is no such source, or its configuration has no world.
    """
    file, weights = _find_files(source)
    configuration = configurations.load(file)
    if not get_nested(configuration, "world"):
        example = configurations.worlds()["multimnist"]
        raise UserError(f"{file} describes no world: it has no section 'world'. See {example}")
    name = file.parent.name if file.name in ("config.yaml", "world.yaml") else file.stem
    return configuration, name, weights


def build_model(
    settings: dict[str, Any],
    weights: Path | None,
    name: str,
    row: Row = LEARNED,
    arguments: list[str] | None = None,
) -> OpenedModel:
    """Build a scene model from its settings.

    Args:
        settings: Settings of ``world``, and of ``structure`` and ``parameters`` where there are weights.
        weights: Checkpoint of a run; None builds the priors.
        name: Display name.
        row: Which learned models to use; the priors stand for the others.
        arguments: More settings as on a command line.

    Raises:
        UserError: If settings are wrong, or the weights are of another world.
    """
    plain, made = parse_settings(scene_model_parser(), settings, arguments)
    structure = made.structure.eval() if weights is not None and row.structure else None
    parameters = made.parameters.eval() if weights is not None and row.parameters and made.parameters else None
    grammar = made.world.grammar
    structure_hash, parameters_hash = (
        load_model_weights(weights, model, prefix, grammar) if weights and model else None
        for model, prefix in ((structure, STRUCTURE), (parameters, PARAMETERS))
    )
    model = SceneModel(made.world, structure, parameters)
    return OpenedModel(model, name, plain, weights, (structure_hash, parameters_hash))


def scene_model_parser(prog: str = "ms2 generate") -> ArgumentParser:
    """Build a parser of the settings of a world, its structure model and its parameter model."""
    registry.load_entry_points()  # worlds, whose classes the settings name
    parser = ArgumentParser(prog=prog)
    parser.add_class_arguments(World, "world")
    parser.add_subclass_arguments(StructureModel, "structure")
    parser.link_arguments("world", "structure.init_args.grammar", lambda world: world.grammar, apply_on="instantiate")
    parser.set_defaults({"structure": {"class_path": "ms2.models.structure.StructureModel"}})
    parser.add_argument("--parameters", type=ParameterModel | None)
    parser.link_arguments("world", "parameters.init_args.world", apply_on="instantiate")
    return parser


def parse_settings(
    parser: ArgumentParser, settings: dict[str, Any], arguments: list[str] | None = None
) -> tuple[dict[str, Any], Any]:
    """Fill in default settings, and instantiate the objects that they describe.

    Returns:
        All settings as plain data, and the objects by name.

    Raises:
        UserError: If settings are wrong.
    """
    parser.exit_on_error = False
    with warnings.catch_warnings():
        # jsonargparse 4.50 has new names for what 4.49 and Lightning 2.6 still call by these
        warnings.simplefilter("ignore", DeprecationWarning)
        # what a run's configuration links on instantiation is not among the structure model's own settings
        configuration = parser.parse_object(settings)
        if arguments:
            configuration = parser.parse_args(arguments, namespace=configuration)
        check_bounds(parser, configuration)
        plain = yaml.safe_load(parser.dump(configuration, skip_none=False, skip_link_targets=True))
        return plain, parser.instantiate_classes(configuration)


def _is_run(source: str) -> bool:
    """Whether a source is the folder of a run, rather than a file or a name."""
    return source not in configurations.worlds() and expand_path(source).is_dir()


def _find_files(source: str) -> tuple[Path, Path | None]:
    """Find the configuration file of a source, and the weights beside it."""
    worlds, experiments = configurations.worlds(), configurations.experiments()
    learned = configurations.learned_models()
    if source in worlds:
        return worlds[source], None
    path = learned[source] if source in learned else expand_path(source)
    if path.suffix == ".ckpt":
        for folder in path.absolute().parents[:2]:
            if (folder / "config.yaml").is_file():
                return folder / "config.yaml", path
        raise UserError(
            f"there is no config.yaml beside {path} with the settings of its world: name that configuration, and the "
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
        f"{suggest(source, {*worlds, *experiments, *learned})}"
    )
