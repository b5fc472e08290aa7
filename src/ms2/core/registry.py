"""Registry of plug-ins: a subclass of a kind's base class is registered by its class name."""

import inspect
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ms2.core.errors import UserError, suggest
from ms2.core.settings import Configured

ENTRY_POINT_GROUP = "ms2.plugins"
"""Group of entry points under which packages declare plug-ins."""

KINDS: dict[str, type] = {}
"""Base class of each kind of plug-in, by the kind's name in the plural, as ``ms2 list`` shows it."""


_LOADED: set[EntryPoint] = set()


class UnknownPluginError(UserError, LookupError):
    """No plug-in of the kind asked for has that name."""


class NameClashError(UserError):
    """Several plug-ins of one kind share a name."""


class Plugin(Configured):
    """Base class of all plug-ins.

    A base class declares its kind, ``class Renderer(Plugin, kind="renderers")``; every concrete subclass
    that has been imported can then be named on the command line and in YAML by its class name. A class that only
    the program itself makes is declared with ``selectable=False``; its subclasses are selectable again.

    Attributes:
        selectable: Whether the class can be named in a configuration.
    """

    selectable = True

    def __init_subclass__(cls, kind: str | None = None, selectable: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.selectable = selectable
        if kind is not None:
            other = KINDS.setdefault(kind, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise NameClashError(
                    f"{cls.__module__}.{cls.__qualname__} declares the kind of plug-ins {kind!r}, as "
                    f"{other.__module__}.{other.__qualname__} does: derive from that, or give it another name"
                )
            KINDS[kind] = cls  # of a module that is imported again


def load_entry_points() -> None:
    """Import the modules that installed packages declare under the entry-point group ``ms2.plugins``.

    A package that can't be imported, or that ends the program when it is, is named in a warning and left out: a run may
    not need it. Further calls load what has been installed since.
    """
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry in _LOADED:
            continue
        _LOADED.add(entry)
        try:
            entry.load()
        except KeyboardInterrupt:  # Ctrl-C while it is imported
            raise
        except BaseException as error:  # whatever the package raises, also SystemExit
            warnings.warn(f"plug-in {entry.name!r} ({entry.value}) did not load: {error!r}", stacklevel=2)


def registered(kind: str | type) -> dict[str, list[type]]:
    """Return the concrete plug-ins of a kind by class name, in alphabetical order; several where a name clashes.

    Args:
        kind: The kind's name, or its base class.

    Raises:
        UnknownPluginError: If there is no such kind.
    """
    base = KINDS.get(kind) if isinstance(kind, str) else kind
    if base is None:
        raise UnknownPluginError(f"there is no kind of plug-in called {kind!r}. {suggest(str(kind), KINDS)}")
    found: dict[str, dict[tuple[str, str], type]] = {}
    queue = [base]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not inspect.isabstract(cls) and getattr(cls, "selectable", True):
            # a module that is imported again defines its classes again
            found.setdefault(cls.__name__, {}).setdefault((cls.__module__, cls.__qualname__), cls)
    return {name: list(classes.values()) for name, classes in sorted(found.items())}


def available(kind: str | type) -> dict[str, type]:
    """Return the concrete plug-ins of a kind by class name, in alphabetical order.

    Args:
        kind: The kind's name, or its base class.

    Raises:
        UnknownPluginError: If there is no such kind.
        NameClashError: If two classes of one kind share a name.
    """
    return {name: _only(kind, name, classes) for name, classes in registered(kind).items()}


def look_up(kind: str | type, name: str) -> type:
    """Return the plug-in of a kind with a name; other names may clash.

    Raises:
        UnknownPluginError: If there is none; the message has the nearest name and all names.
        NameClashError: If there are several.
    """
    names = registered(kind)
    if name not in names:
        title = kind if isinstance(kind, str) else kind.__name__
        raise UnknownPluginError(f"no plug-in among the {title} is called {name!r}. {suggest(name, names)}")
    return _only(kind, name, names[name])


def _only(kind: str | type, name: str, classes: list[type]) -> type:
    """Return the only class of a name."""
    if len(classes) > 1:
        base = KINDS[kind] if isinstance(kind, str) else kind
        modules = " and ".join(cls.__module__ for cls in classes)
        raise NameClashError(f"two {base.__name__} plug-ins are called {name!r}: {modules}. Rename one of them.")
    return classes[0]
