"""Configurations in layers: YAML files that name their bases, found by name and merged into one set of settings.

A file names its bases in the key ``base``, one or a list; what it says itself is merged on top of them, in order::

    # MultiMNIST at the paper's size.
    base: [base, worlds/multimnist]
    name: multimnist
    data: {batch_size: 512}

A name stands for a file of the folder ``configs``, with or without ``experiments/`` before it; anything that ends in
``.yaml`` is a path, in ``base`` relative to the file that names it.
"""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from ms2.core.errors import UserError, suggest
from ms2.core.paths import expand_path
from ms2.core.registry import ENTRY_POINT_GROUP
from ms2.core.yaml_files import load_yaml

BASES_KEY = "base"
"""Key under which a configuration names what it is based on."""
LEARNED_SUFFIX = "_learned"
"""What the name of a world's learned model ends in: ``multimnist_learned``."""
PERMISSIONS = ("allow_pipe",)
"""Settings that take effect on the command line only, as configurations may come from others."""
MAX_BASES = 50
"""How many configurations may be based on each other in a row."""


def folder() -> Path:
    """Return the folder of the configurations that come with the program.

    A wheel carries them inside the package; a checkout, also one installed with ``pip install -e``, has them in the
    folder ``configs`` at its top, and nowhere else.
    """
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def experiments() -> dict[str, Path]:
    """Return the configurations of whole runs, by name."""
    return {path.stem: path for path in sorted((folder() / "experiments").glob("*.yaml"))}


def worlds() -> dict[str, Path]:
    """Return the configurations of worlds by name: those of ms2, and the ``world.yaml`` of installed plug-ins."""
    found = {path.stem: path for path in sorted((folder() / "worlds").glob("*.yaml"))}
    for name, place in _plugin_folders():
        if name not in found and (place / "world.yaml").is_file():
            found[name] = place / "world.yaml"
    return found


def learned_models() -> dict[str, Path]:
    """Return the folders of the learned models that come with worlds, by name: ``multimnist_learned``, ...

    The learned model of a world is in the package of its plug-in, in a folder of the model's name, which has the form
    of a run's folder. ``tools/learned_models.py`` makes it from a finished run.
    """
    found: dict[str, Path] = {}
    for world, place in sorted(_plugin_folders()):
        name = world + LEARNED_SUFFIX
        if (place / name / "config.yaml").is_file():
            found.setdefault(name, place / name)
    return found


def learned_name(world: str) -> str:
    """Return the name of the learned model that comes with a world.

    Args:
        world: Name of the world.

    Raises:
        UserError: If there is no such world, or no learned model comes with it.
    """
    models = learned_models()
    with_model = [name.removesuffix(LEARNED_SUFFIX) for name in models]
    if world + LEARNED_SUFFIX in models:
        return world + LEARNED_SUFFIX
    if world in models:
        raise UserError(f"{world} is learned already: leave out --learned")
    if world in worlds():
        raise UserError(
            f"no learned model comes with the world {world}: learn one with 'ms2 fit', and name the folder of that "
            f"run. {suggest(world, with_model)}"
        )
    raise UserError(
        f"{world} is not the name of a world, and --learned draws from the learned model that comes with one: leave "
        f"out --learned for a run, or name the world. {suggest(world, with_model)}"
    )


def _plugin_folders() -> Iterator[tuple[str, Path]]:
    """Yield the name of each plug-in's entry point, and the folder of its module, which is not imported."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        package = find_spec(entry.module.partition(".")[0])  # the packages above a module would be imported
        for place in (package and package.submodule_search_locations) or ():
            yield entry.name, Path(place, *entry.module.split(".")[1:])


def find(name: str, relative_to: Path | None = None) -> Path:
    """Find the file of a configuration.

    Args:
        name: The name of a configuration, or the path of a file.
        relative_to: Folder that paths are relative to; the working directory by default.

    Raises:
        UserError: If there is none; the message has the nearest name and all names.
    """
    if not name.strip():
        raise UserError(
            f"there is no configuration called {name!r}: give a name or a file. {suggest('', experiments())}"
        )
    path = (relative_to or Path()) / expand_path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UserError(f"there is no configuration file {path}. Names that need no file: {', '.join(experiments())}")
    for place in (folder() / "experiments", folder()):
        file = place / f"{name}.yaml"
        if file.is_file():
            return file
    kind, _, world = name.rpartition("/")
    if kind == "worlds" and world in worlds():
        return worlds()[world]
    names = {f"worlds/{world}" for world in worlds()} if kind == "worlds" else set(experiments())
    if path.is_dir():
        inside = f": its settings are in {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise UserError(f"{path} is a folder, not a configuration{inside}. {suggest(name, names)}")
    raise UserError(f"there is no configuration called {name!r}. {suggest(name, names)}")


def read(path: Path) -> dict[str, Any]:
    """Read the settings of a file itself, without those of its bases.

    Raises:
        UserError: If it can't be read, or is not a mapping from names to settings.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as a configuration: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} is no configuration: it must hold settings by name, such as 'name: first'")
    return content


def load(name: str | Path) -> dict[str, Any]:
    """Read all settings of a configuration: those of its bases, with its own merged on top.

    What only the command line may give is left out.

    Raises:
        UserError: If it or a base can't be found or read, or is based on itself.
    """
    found: dict[str, Any] = _without_permissions(_load(find(str(name)), (), {}))
    return found


def _without_permissions(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {key: _without_permissions(value) for key, value in settings.items() if key not in PERMISSIONS}
    return [_without_permissions(value) for value in settings] if isinstance(settings, list) else settings


def load_all(names: Iterable[str | Path]) -> dict[str, Any]:
    """Read several configurations and merge them in order."""
    found: dict[str, Any] = {}
    for name in names:
        found = merge(found, load(name))
    return found


def _load(path: Path, above: tuple[Path, ...], known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Read a configuration below others; ``known`` holds those that have been read, as bases may share bases."""
    place = path.resolve()
    if place in above:
        raise UserError(f"{path} is based on itself: {' > '.join(p.name for p in (*above, path))}")
    if len(above) >= MAX_BASES:
        raise UserError(f"{path}: more than {MAX_BASES} configurations are based on each other")
    if place not in known:
        own = read(path)
        bases = own.pop(BASES_KEY, None) or []
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise UserError(
                f"{path}: {BASES_KEY} must be the name of a configuration, or a list of names, not {bases!r}"
            )
        found: dict[str, Any] = {}
        for base in bases:
            found = merge(found, _load(find(base, path.parent), (*above, place), known))
        known[place] = merge(found, own)
    return known[place]


def merge(below: Any, above: Any) -> Any:
    """Merge settings on top of others.

    Mappings are merged key by key; lists and single values are replaced. Where another class is named, the arguments
    of the one below are dropped: they belong to that class.
    """
    if not isinstance(above, Mapping):
        return {**below, "class_path": above} if _same_class(below, above) else above
    if isinstance(below, str) and "class_path" not in above and "init_args" in above:
        below = {"class_path": below}
    if not isinstance(below, Mapping) or ("class_path" in above and not _same_class(below, above["class_path"])):
        return dict(above)
    return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}


def _same_class(below: Any, name: Any) -> bool:
    """Whether settings are those of the class with a name, which may be short or dotted."""
    known = below.get("class_path") if isinstance(below, Mapping) else None
    return isinstance(name, str) and isinstance(known, str) and known.rpartition(".")[2] == name.rpartition(".")[2]


def first_comment(path: Path) -> str:
    """Return the first line of a configuration, which says what it is for."""
    with path.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")
