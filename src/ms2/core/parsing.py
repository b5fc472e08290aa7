"""Parsing of command lines and configurations, with errors that list the available names."""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, NoReturn

import jsonargparse

from ms2.core import registry
from ms2.core.bounds import bounded_hints, problem
from ms2.core.errors import UserError, suggest

PLUGIN_KINDS = {
    "grammar": "grammars",
    "structure_prior": "structure_priors",
    "parameter_prior": "parameter_priors",
    "probe_priors": "parameter_priors",
    "renderer": "renderers",
    "engine": "engines",
    "network": "networks",
    "features": "features",
    "objective": "objectives",
    "advantage": "advantages",
    "statistics": "statistics",
    "attribute_statistics": "attribute_statistics",
    "gradient": "gradients",
    "target": "targets",
}
"""Kind of plug-in by the name of the setting that selects one."""


def explain_error(message: str) -> str:
    """Return the parser's message: in one line of a wrong type, with a list of plug-ins where one was misspelt."""
    found = re.search(r'Parser key "(?:[\w.]+\.)?(\w+)"', message)
    typed = re.search(r"Expected a dot import path string: ([\w.]+)", message)
    if found and typed and found[1] in PLUGIN_KINDS:
        kind = PLUGIN_KINDS[found[1]]
        names = registry.registered(kind)
        if typed[1] not in names:
            message += f"\nNo plug-in among the {kind} is called {typed[1]!r}. {suggest(typed[1], names)}"
    return _explain_type(message) or message


TYPE_NAMES = {
    "bool": "true or false",
    "dict": "a dictionary",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "str": "a text",
    "tuple": "a list",
}
"""Types of settings, as a message calls them."""


def _explain_type(message: str) -> str | None:
    """Return the parser's message about a plain value of a wrong type in one line; None for another message."""
    keys = re.findall(r'Parser key "([\w.]+)"', message)  # of classes within classes, from outside
    if keys and (explained := re.search(r"^\s*(?:- )?(\S+ must be .*)$", message, re.MULTILINE)):
        return ".".join([*keys, explained[1]])  # a parser of an inner class has explained it
    expected = [name for name in re.findall(r"Expected a <class '(\w+)'>", message) if name != "NoneType"]
    given = re.search(r"(?:Got|Given) value: (.*)", message)
    if not (keys and expected and given) or not set(expected) <= set(TYPE_NAMES):
        return None
    wanted = " or ".join(dict.fromkeys(TYPE_NAMES[name] for name in expected))
    return f"{'.'.join(keys)} must be {wanted}, not {given[1]}"


class ArgumentParser(jsonargparse.ArgumentParser):
    """Argument parser whose errors are the message alone: the usage is long, and --help shows it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with code 2."""
        if not self.exit_on_error:
            raise UserError(explain_error(message)) from ex
        self.exit(2, f"ms2: {explain_error(message)}\nAll options: {self.prog} --help\n")


class CommandParser(ArgumentParser):
    """Parser of a command's own options, which checks their numbers against the bounds of their types."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and check the options."""
        configuration = super().parse_args(*args, **kwargs)
        check_bounds(self, configuration)
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
