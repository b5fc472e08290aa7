"""Plug-ins by name: a class is registered by subclassing the base class of its kind."""

import difflib
import hashlib
import inspect
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ENTRY_POINT_GROUP = "ms2.plugins"

KINDS: dict[str, type] = {}
"""Base class of every kind of plug-in, by the kind's name in the plural (``ms2 list`` shows them)."""


class UserError(ValueError):
    """Bad input. The message is for the person who gave it: what is wrong, what is possible, what to do next."""


class UnknownPluginError(UserError, LookupError):
    """No plug-in of the kind asked for has that name."""


class Configured:
    """Remembers the arguments that an object was made with, so that results can be found by their settings."""

    settings: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Note the arguments, with defaults filled in."""
        self = super().__new__(cls)
        try:
            # object.__init__ has a signature that takes anything, but nothing is what it takes
            init = cls.__init__ if cls.__init__ is not object.__init__ else (lambda self: None)
            bound = inspect.signature(init).bind(self, *args, **kwargs)
        except TypeError:  # unpickling makes objects without arguments; a wrong call fails in __init__, readably
            return self
        bound.apply_defaults()
        object.__setattr__(self, "settings", dict(list(bound.arguments.items())[1:]))
        return self


def describe(thing: Any) -> Any:
    """Settings as plain data: what an object is and was made with, all the way down.

    Raises:
        TypeError: If something has neither settings nor a plain value.
    """
    if isinstance(thing, Configured):
        name = f"{type(thing).__module__}.{type(thing).__qualname__}"
        return {"class": name, **{key: describe(value) for key, value in thing.settings.items()}}
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(value) for value in thing]
    if thing is None or isinstance(thing, (str, int, float, bool)):
        return thing
    if isinstance(thing, Path):
        return str(thing)
    raise TypeError(f"{thing!r} has no settings: derive its class from ms2.registry.Configured")


def fingerprint(*things: Any) -> str:
    """A hash of the settings of things, equal for things that were made alike."""
    text = json.dumps([describe(thing) for thing in things], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def code(*things: Any) -> str:
    """A hash of the source code that defines things and what they were made with.

    It covers the modules of their classes and base classes, so that what is kept for its settings is made anew when
    a plug-in has been edited; not the helpers that those modules import from elsewhere.
    """
    modules: set[str] = set()
    queue = list(things)
    while queue:
        thing = queue.pop()
        if isinstance(thing, Configured):
            modules |= {cls.__module__ for cls in type(thing).__mro__ if issubclass(cls, Configured)}
            queue += thing.settings.values()
        elif isinstance(thing, Mapping):
            queue += thing.values()
        elif isinstance(thing, (list, tuple)):
            queue += thing
    return hashlib.blake2b("".join(map(_source, sorted(modules))).encode(), digest_size=8).hexdigest()


def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # a notebook's cells, say
        return module


class Plugin(Configured):
    """Base of everything that is swapped by name.

    A base class declares its kind, ``class Renderer(Plugin, kind="renderers")``; every concrete subclass
    that has been imported can then be named on the command line and in YAML by its class name. A class that only
    the program makes is declared with ``typed=False``, and not offered to anyone; its subclasses are again.

    Attributes:
        typed: Whether a person may name the class.
    """

    typed = True

    def __init_subclass__(cls, kind: str | None = None, typed: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.typed = typed
        if kind is not None:
            KINDS[kind] = cls


def load_entry_points() -> None:
    """Import the modules that installed packages declare under the entry-point group ``ms2.plugins``.

    A package that fails to import is named in a warning and left out, so that it cannot stop a run
    which does not need it.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:  # whatever a stranger's module raises, the program goes on
            warnings.warn(f"plug-in {entry.name!r} ({entry.value}) did not load: {error!r}", stacklevel=2)


def available(kind: str | type) -> dict[str, type]:
    """Concrete plug-ins of a kind (its name or its base class) by class name, in alphabetical order.

    Raises:
        UnknownPluginError: If there is no such kind.
        ValueError: If two classes of one kind share a name.
    """
    base = KINDS.get(kind) if isinstance(kind, str) else kind
    if base is None:
        raise UnknownPluginError(f"there is no kind of plug-in called {kind!r}. {suggest(str(kind), KINDS)}")
    found: dict[str, type] = {}
    queue = [base]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if inspect.isabstract(cls) or not getattr(cls, "typed", True):
            continue
        other = found.setdefault(cls.__name__, cls)
        if other is not cls and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"two {base.__name__} plug-ins are called {cls.__name__!r}: {other.__module__} and {cls.__module__}. "
                "Rename one of them."
            )
    return dict(sorted(found.items()))


def look_up(kind: str | type, name: str) -> type:
    """The plug-in of a kind with that name.

    Raises:
        UnknownPluginError: If there is none; the message names the nearest and all the others.
    """
    names = available(kind)
    if name not in names:
        title = kind if isinstance(kind, str) else kind.__name__
        raise UnknownPluginError(f"no plug-in among the {title} is called {name!r}. {suggest(name, names)}")
    return names[name]


def suggest(name: str, names: Iterable[str]) -> str:
    """One line for someone who typed ``name``: the nearest of ``names``, and all of them."""
    names = sorted(names)
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f"Did you mean {lower[near[0]]!r}? " if near and lower[near[0]] != name else ""
    return f"{guess}Available: {', '.join(names) or 'none'}."
