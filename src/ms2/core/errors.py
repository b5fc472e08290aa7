"""Errors about user input: what was given, what is possible, the nearest name, and what to do next."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Invalid user input; the message says what is wrong, what is possible, and what to do next.

    Example:
        >>> try:
        ...     ms2.load("multimnst")
        ... except UserError as error:
        ...     print(error)
        multimnst is neither ... Did you mean 'multimnist'? ...
    """


def suggest(name: str, names: Iterable[str]) -> str:
    """Format a suggestion: the name nearest to the one given, and all names that are possible."""
    names = sorted(names)
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f"Did you mean {lower[near[0]]!r}? " if near and lower[near[0]] != name else ""
    return f"{guess}Available: {', '.join(names) or 'none'}."
