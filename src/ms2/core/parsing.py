"""Parsing of command lines and configurations, with errors that list the available names."""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from importlib import import_module
from typing import Any, NoReturn

import jsonargparse

from ms2.core.bounds import bounded_hints, problem
from ms2.core.errors import UserError
from ms2.core.explain import explain_error
from ms2.core.paths import expand_value, path_mark


def expand_paths(parser: jsonargparse.ArgumentParser, configuration: Any) -> None:
    """Fill in ``~`` and environment variables in the options of a command that are paths.

    Args:
        parser: The parser of the options.
        configuration: What it returned; changed in place.

    Raises:
        UserError: If a variable is not set.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if path_mark(hint) is not None and action.dest in configuration:
            configuration[action.dest] = expand_value(hint, configuration[action.dest])


class ParserReached(Exception):  # noqa: N818  # no error
    """Carries a parser out of the command that makes it, see `parser_of`.

    Attributes:
        parser: The parser.
    """

    def __init__(self, parser: jsonargparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


_asked_for: ContextVar[bool] = ContextVar("_asked_for", default=False)


def parser_of(command: Callable[[], Any]) -> jsonargparse.ArgumentParser:
    """Return the parser that a command makes, and run nothing of what comes after it.

    Args:
        command: Calls the command with any arguments.
    """
    token = _asked_for.set(True)
    try:
        command()
    except ParserReached as reached:
        return reached.parser
    finally:
        _asked_for.reset(token)
    raise TypeError("the command parses no arguments")


def hand_over(parser: jsonargparse.ArgumentParser) -> None:
    """End a command that was called by `parser_of`, which returns the parser; do nothing in any other."""
    if _asked_for.get():
        raise ParserReached(parser)


class ArgumentParser(jsonargparse.ArgumentParser):
    """Argument parser whose errors are the message alone: the usage is long, and --help shows it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with code 2."""
        if not self.exit_on_error:
            raise UserError(explain_error(message, self)) from ex
        self.exit(2, f"ms2: {explain_error(message, self)}\nAll options: {self.prog} --help\n")


class CommandParser(ArgumentParser):
    """Parser of a command's own options, which checks the numbers among them, and fills in the paths."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and check the options."""
        hand_over(self)
        configuration = super().parse_args(*args, **kwargs)
        check_bounds(self, configuration)
        expand_paths(self, configuration)
        return configuration


def check_bounds(parser: jsonargparse.ArgumentParser, configuration: Any) -> None:
    """Check all numbers of a configuration against the bounds that their types declare.

    Args:
        parser: The parser of the configuration.
        configuration: What it returned.

    Raises:
        UserError: If a number is out of bounds; the message names the setting as it is typed.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if hint is None or action.dest not in configuration:
            continue
        value = configuration[action.dest]
        several = isinstance(value, list) and action.nargs in ("+", "*")  # then the type is that of each of them
        for one in value if several else [value]:
            if one is None:  # where the parser lets it pass
                continue
            if found := problem(hint, one, action.dest) or next(_nested_problems(one, action.dest), None):
                raise UserError(found)


def _nested_problems(value: Any, key: str) -> Iterator[str]:
    """Yield what is wrong with the arguments of the classes that a setting names, and of those within them."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _nested_problems(item, f"{key}[{i}]")
    if isinstance(value, jsonargparse.Namespace):
        value = vars(value)
    if not isinstance(value, Mapping):
        return
    items, hints = value, {}
    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        items = value.get("init_args") or {}
        items = vars(items) if isinstance(items, jsonargparse.Namespace) else items
        hints = bounded_hints(getattr(import_module(module), name).__init__)
    for name, item in items.items():
        # what is filled in later, from another part, is None as yet; otherwise the parser refuses that
        if item is not None and name in hints and (found := problem(hints[name], item, f"{key}.{name}")):
            yield found
        yield from _nested_problems(item, f"{key}.{name}")


def get_nested(configuration: Any, *keys: str) -> Any:
    """Return a nested part of a configuration by the keys that lead to it; empty if there is none."""
    for key in keys:
        configuration = (configuration.get(key) or {}) if isinstance(configuration, dict) else {}
    return configuration
