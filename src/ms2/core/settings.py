"""Settings of objects as plain data, and fingerprints of settings and code."""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
    raise TypeError(f"{thing!r} has no settings: derive its class from ms2.core.settings.Configured")


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
