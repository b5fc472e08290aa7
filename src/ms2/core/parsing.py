"""Parsing of command lines and configurations, with errors that list the available names."""

import re
from typing import Any, NoReturn

import jsonargparse

from ms2.core import registry
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
    """Return the parser's message, with a list of plug-ins where one was misspelt."""
    found = re.search(r'Parser key "(?:[\w.]+\.)?(\w+)"', message)
    typed = re.search(r"Expected a dot import path string: ([\w.]+)", message)
    if found and typed and found[1] in PLUGIN_KINDS:
        kind = PLUGIN_KINDS[found[1]]
        names = registry.available(kind)
        if typed[1] not in names:
            message += f"\nNo plug-in among the {kind} is called {typed[1]!r}. {suggest(typed[1], names)}"
    return message


class ArgumentParser(jsonargparse.ArgumentParser):
    """Argument parser whose errors are the message alone: the usage is long, and --help shows it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with code 2."""
        if not self.exit_on_error:
            raise UserError(explain_error(message)) from ex
        self.exit(2, f"ms2: {explain_error(message)}\nAll options: {self.prog} --help\n")


def get_nested(configuration: Any, *keys: str) -> Any:
    """Return a nested part of a configuration by the keys that lead to it; empty if there is none."""
    for key in keys:
        configuration = (configuration.get(key) or {}) if isinstance(configuration, dict) else {}
    return configuration
