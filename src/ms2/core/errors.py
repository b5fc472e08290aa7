"""Errors for the person who typed: what was given, what is possible, the nearest name, the next action."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is for the person who gave it: what is wrong, what is possible, what to do next."""


def suggest(name: str, names: Iterable[str]) -> str:
    """One line for someone who typed ``name``: the nearest of ``names``, and all of them."""
    names = sorted(names)
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    guess = f"Did you mean {lower[near[0]]!r}? " if near and lower[near[0]] != name else ""
    return f"{guess}Available: {', '.join(names) or 'none'}."
