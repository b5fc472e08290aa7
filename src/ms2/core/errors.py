"""Errors about user input: what was given, what is possible, the nearest name, and what to do next."""

import difflib
import errno
from collections.abc import Iterable, Sequence
from typing import Literal

MAX_LISTED = 10
"""Items that a message lists: unreadable files, or the file types found instead of images."""
OnError = Literal["raise", "skip"]
"""How to handle faulty items of a data set: stop with an error, or leave them out with a warning."""


class UserError(ValueError):
    """Invalid user input; the message says what is wrong, what is possible, and what to do next.

    Example:
        >>> try:
        ...     ms2.load("multimnst")
        ... except UserError as error:
        ...     print(error)
        multimnst is neither ... Did you mean 'multimnist'? ...
    """

    exit_code = 2
    """Exit code of a command that ends with it."""


class DivergenceError(UserError):
    """Training has diverged, or its scenes do not end any more; scripts tell it from bad input by its exit code."""

    exit_code = 3


def suggest(name: str, names: Iterable[str]) -> str:
    """Format a suggestion: the name nearest to the one given, and all names that are possible."""
    names = sorted(names)
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f"Did you mean {lower[near[0]]!r}? " if near and lower[near[0]] != name else ""
    return f"{guess}Available: {', '.join(names) or 'none'}."


def missing_extra(what: str, package: str, extra: str) -> UserError:
    """Make the error of a part whose package is not installed, as it belongs to one of ms2's extras.

    Args:
        what: The part, as it was asked for.
        package: The package that it needs.
        extra: The extra of ms2 that installs the package.

    Returns:
        The error, which the caller raises from the ImportError.
    """
    return UserError(f"{what} needs {package}, which is not installed. Try: pip install 'ms2[{extra}]'")


def format_examples(message: str, items: Sequence[object]) -> str:
    """Format a message with the first few items that it is about."""
    more = [f"and {len(items) - MAX_LISTED} more"] if len(items) > MAX_LISTED else []
    return "\n  ".join([f"{message}:", *map(str, items[:MAX_LISTED]), *more])


OS_ADVICE = {
    errno.ENOSPC: "make room there, then give the same command again; what is finished is kept",
    errno.EDQUOT: "make room there, then give the same command again; what is finished is kept",
    errno.EFBIG: "files may not be that large there: give another path",
    errno.EACCES: "give another path, or ask for permission (chmod)",
    errno.EPERM: "give another path, or ask for permission (chmod)",
    errno.EROFS: "give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.ENOMEM: "use smaller batches or images, or fewer workers",
}
"""What to do about errors of the operating system."""


def explain_os_error(error: OSError) -> str:
    """Return what went wrong with which file, and what to do."""
    what = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    advice = OS_ADVICE.get(error.errno or 0)
    return f"{where}{what}{f'; {advice}' if advice else ''}"
