"""Checks of types and shapes in the first calls of each function in a test; later calls repeat what these show.

Without the limit, loops of many steps spend a third of their time in checks.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from beartype import BeartypeConf, beartype

CHECKED_CALLS = 30
"""Calls of a function that are checked in each test."""

# An int where a float is declared is right by PEP 484; plain beartype refuses it.
_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_calls: Counter[str] = Counter()
_unchecked: list[Any] = []


def check_first_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Type checker of jaxtyping's import hook, which passes functions with the names and types of those it checks."""
    check = _beartype(function)
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _calls[name] += 1
        if _calls[name] == 2 * CHECKED_CALLS:  # one for the arguments and one for the result
            _stop_checking(function)
        return check(*args, **kwargs)

    return counted


def check_again() -> None:
    """Check the first calls of all functions, as another test begins."""
    _calls.clear()
    while _unchecked:
        _unchecked.pop().__no_type_check__ = False


def _stop_checking(function: Callable[..., Any]) -> None:
    if function.__name__ == "__init__":  # without type checks it would have no type hints, which bounds are read from
        return
    try:
        found = attrgetter(function.__qualname__)(sys.modules[function.__module__])
    except AttributeError:  # one that is defined within another
        return
    found = getattr(found, "fget", getattr(found, "func", found))  # of a property
    found = getattr(found, "__func__", found)
    while found is not None and getattr(getattr(found, "__code__", None), "co_name", "") != "wrapped_fn":
        found = getattr(found, "__wrapped__", None)  # jaxtyping's function of that name, within other decorators
    if found is not None:
        found.__no_type_check__ = True
        _unchecked.append(found)
