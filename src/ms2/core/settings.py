"""Settings of objects as plain data, and fingerprints of settings and source code."""

import ast
import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from ms2.core.bounds import check_arguments
from ms2.core.errors import UserError
from ms2.core.hashing import digest
from ms2.core.renamed import suggest_argument


class Configured:
    """Records the arguments that an object was made with, so that results can be found by their settings.

    Numbers are checked against the bounds that the annotations of ``__init__`` declare, see `ms2.core.bounds`.

    Attributes:
        settings: Arguments by name, with defaults filled in.

    Raises:
        UserError: If a number is out of bounds.
    """

    settings: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check and record the arguments, with defaults filled in."""
        self = super().__new__(cls)
        try:
            # object.__init__ has a signature that takes anything, but nothing is what it takes
            init = cls.__init__ if cls.__init__ is not object.__init__ else (lambda self: None)
            bound = _signature(init).bind(self, *args, **kwargs)
        except TypeError:  # unpickling makes objects without arguments; other wrong calls fail in __init__, readably
            check_argument_names(init, kwargs, cls.__name__)
            return self
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        check_arguments(init, arguments, cls.__name__)
        object.__setattr__(self, "settings", arguments)
        return self

    @property
    def source_files(self) -> Sequence[Path]:
        """Files that an object's results depend on as they do on its source code; none by default."""
        return ()


_signature = cache(inspect.signature)


class ArgumentNameError(UserError, TypeError):
    """A class was called with an argument that it does not have."""


def check_argument_names(function: Callable[..., Any], given: Collection[str], owner: str) -> None:
    """Check that a function has all arguments of some names.

    Args:
        function: The function, ``__init__`` of a class.
        given: Names of arguments.
        owner: Name of what the arguments configure.

    Raises:
        ArgumentNameError: If it hasn't; the message has the nearest name and all names.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [parameter.name for parameter in parameters]
    for name in given:
        if name not in names:
            raise ArgumentNameError(f"{owner} has no argument {name!r}. {suggest_argument(name, names)}")


def settings_of(thing: Any) -> Any:
    """Return settings as plain data: an object's class and arguments, and those of its arguments.

    Raises:
        TypeError: If something has neither settings nor a plain value.
    """
    if isinstance(thing, Configured):
        name = f"{type(thing).__module__}.{type(thing).__qualname__}"
        return {"class": name, **{key: settings_of(value) for key, value in thing.settings.items()}}
    if isinstance(thing, Mapping):
        return {str(key): settings_of(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [settings_of(value) for value in thing]
    if thing is None or isinstance(thing, (str, int, float, bool)):
        return thing
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"{thing!r} has no settings: derive its class from ms2.core.settings.Configured")


def setting_differences(ours: Any, theirs: Any, key: str) -> list[tuple[str, Any, Any]]:
    """List the settings in which two objects differ, by key.

    Args:
        ours: `settings_of` the one.
        theirs: `settings_of` the other.
        key: What they are the settings of.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("class") == theirs.get("class"):
        return [
            found
            for name in {**ours, **theirs}
            for found in setting_differences(ours.get(name), theirs.get(name), f"{key}.{name}")
        ]
    return [] if ours == theirs else [(key, ours, theirs)]


def fingerprint(*things: Any) -> str:
    """Return a hash of settings, equal for objects that were made with equal arguments."""
    return digest(json.dumps([settings_of(thing) for thing in things], sort_keys=True))


def source_fingerprint(*things: Any) -> str:
    """Return a hash of the source code of objects' classes, and of all that their modules import.

    What is cached for an object's settings is thus made anew when a plug-in, or one of its `source_files`, has been
    edited. Imports are followed within the package of a class and within ms2, whose `IGNORED_MODULES` have no influence
    on results.
    """
    modules: set[str] = set()
    files: list[Path] = []
    queue = list(things)
    while queue:
        thing = queue.pop()
        if isinstance(thing, Configured):
            files += thing.source_files
            modules |= {cls.__module__ for cls in type(thing).__mro__ if issubclass(cls, Configured)}
            queue += thing.settings.values()
        elif isinstance(thing, Mapping):
            queue += thing.values()
        elif isinstance(thing, (list, tuple)):
            queue += thing
    sources: list[bytes | str] = [_source(module) or module for module in sorted(_with_imports(modules))]
    return digest([*sources, *(path.read_bytes() for path in sorted(files))])


IGNORED_MODULES = {
    f"ms2.core.{name}"
    for name in ("bounds", "divergence", "errors", "files", "parsing", "paths", "registry", "settings")
}
"""Modules left out of source fingerprints: their code has no influence on results."""


def _with_imports(modules: set[str]) -> set[str]:
    """Modules, and those that they import, directly or not."""
    found: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module not in found | IGNORED_MODULES:
            found.add(module)
            queue += _imports(module)
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of the same package, or of ms2, that a module imports, at its top or within functions."""
    source = _source(module)
    if source is None:
        return ()
    near = (module.partition(".")[0], "ms2")
    found = {name for name in _imported(ast.parse(source), module) if name.partition(".")[0] in near}
    return tuple(sorted(found))


def _imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield the names of imported modules; of what a package re-exports, that of the module that defines it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module if _is_package(module) else module.rpartition(".")[0]
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else str(node.module)
            for alias in node.names:
                yield _definer(base, alias.name)
        elif isinstance(node, ast.expr):  # which holds no statements, and is most of a tree
            continue
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from _imported(node, module)


def _definer(module: str, name: str) -> str:
    """Return the module that defines ``name``, which is imported from a module or a package."""
    if not _is_package(module):
        return module
    if f"{module}.{name}" in sys.modules or (module in sys.modules and find_spec(f"{module}.{name}")):
        return f"{module}.{name}"
    return getattr(getattr(sys.modules.get(module), name, None), "__module__", None) or module


def _is_package(module: str) -> bool:
    return hasattr(sys.modules.get(module), "__path__")


def _source(module: str) -> str | None:
    """The source code of a module; None if it has no file, as a notebook's cells."""
    try:
        if module in sys.modules:
            return inspect.getsource(sys.modules[module])
        spec = find_spec(module)  # one that a function imports, which has not been called
        return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else None
    except (OSError, TypeError, ValueError, ImportError):
        return None
