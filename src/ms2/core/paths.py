"""Paths that users type: the type of settings and options that are paths, and the function that fills them in.

A setting or option that is a path is annotated with `UserPath`. It is kept as typed, so that a configuration can be
used on another machine, and filled in by `expand_path` where it is used.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ms2.core.errors import UserError

MAX_NESTED_VARIABLES = 20
"""How often values of variables that name further variables are filled in."""


@dataclass(frozen=True)
class IsPath:
    """Metadata of types whose values are paths.

    Attributes:
        words: Values that are no paths, such as ``imagenet`` where weights are a file otherwise.
    """

    words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show what ``--help`` shows."""
        return "path"


UserPath = Annotated[str | Path, IsPath()]
"""Path in which ``~``, ``~user``, ``$X`` and ``${X}`` are filled in."""
OptionalPath = Annotated[str | Path | None, IsPath()]
"""Path, or None. A union of `UserPath` and None would parse ``null`` as the name of a file."""
Weights = Annotated[str | Path | None, IsPath(("imagenet",))]
"""Path of a file of weights, ``imagenet``, or None for random ones."""


def expand_path(path: str | Path) -> Path:
    """Return a path with ``~``, ``~user`` and environment variables such as ``$MS2_DATA`` or ``${MS2_DATA}`` filled in.

    Values of variables may hold ``~`` and other variables.

    Raises:
        UserError: If a variable is not set, a user is unknown, or the path is empty.
    """
    given, text = str(path), str(path)
    if "\0" in text:
        raise UserError(f"{text!r} is no path: it has a null byte")
    for _ in range(MAX_NESTED_VARIABLES):
        text, number = re.subn(r"\$(?:\{([^}]*)\}|([A-Za-z_]\w*))", lambda found: _value(found, given), text)
        if not number:
            break
    else:
        raise UserError(f"{given}: the environment variables in it name each other without end")
    if not text.strip():
        raise UserError(f"the path {given!r} is empty: give a file or a folder, or '.' for the current folder.")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = re.split(r"[/\\]", expanded)[0]
        if user == "~":
            raise UserError(f"{given}: the home folder is not known; set the environment variable HOME")
        raise UserError(f"{given}: there is no user {user[1:]!r}. If a name begins with '~', write ./{expanded}")
    found = Path(expanded)
    return found.absolute() if str(found).startswith("~") else found  # of ./~a, which may be filled in again


def _value(found: re.Match[str], path: str) -> str:
    """Return the value of a variable that was found in a path."""
    name = found[1] if found[1] is not None else found[2]
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UserError(f"{path}: {found[0]} names no environment variable; write ${{NAME}}")
    if name not in os.environ:
        raise UserError(f"{path} needs the environment variable {name}, which is not set. Try: export {name}=FOLDER")
    return os.environ[name]


def path_mark(hint: Any) -> IsPath | None:
    """Return the mark of a type hint whose values are paths, or of the part of it that is; None for another."""
    if get_origin(hint) is Annotated:
        return next((mark for mark in get_args(hint)[1:] if isinstance(mark, IsPath)), None) or path_mark(
            get_args(hint)[0]
        )
    if get_origin(hint) in (Union, UnionType, list, tuple):
        return next(filter(None, map(path_mark, get_args(hint))), None)
    return None


def expand_value(hint: Any, value: Any) -> Any:
    """Return a value with its paths filled in, if its type hint says that it holds paths.

    Args:
        hint: Type hint of the value.
        value: The value: a path, several, or None.

    Raises:
        UserError: As `expand_path`.
    """
    mark = path_mark(hint)
    if mark is None or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [expand_value(hint, one) for one in value]
    return value if value in mark.words else expand_path(value)
