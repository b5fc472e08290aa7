"""Explanations of a parser's errors: which setting is meant, which names there are, and which is nearest."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module

import jsonargparse

from ms2.core import configurations, registry
from ms2.core.errors import suggest
from ms2.core.renamed import new_setting, suggest_argument, suggest_class

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

FILLED_IN = {"world", "grammar"}
"""Arguments of plug-ins that the program fills in."""
PROBLEM = re.compile(r"Problem with given class_path '([\w.]+)':\s+(.*)")
"""What a parser says about the arguments of a class; of a class within a class, more than once."""
MAX_LISTED = 20
"""Settings of a section that are listed beside the nearest."""
TYPE_NAMES = {
    "bool": "true or false",
    "dict": "a dictionary",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "Sequence": "a list",
    "str": "a text",
    "tuple": "a list",
}
"""Types of settings, as a message calls them."""
MAX_SIMILAR = 4
"""Settings of an equal or similar name, elsewhere, that are offered."""


def explain_error(message: str, parser: jsonargparse.ArgumentParser | None = None) -> str:
    """Return a parser's message, with what is possible in place of what was given.

    Args:
        message: The message.
        parser: The parser, whose options are offered where one was misspelt.
    """
    for explain in EXPLANATIONS:
        explained = explain(message)
        if explained:
            return explained
    if without := re.match(r"argument --([\w.]+): expected one argument", message):
        actions = _options_parser(parser)[0]._actions if parser else ()
        boolean = any(a.dest == without[1] and getattr(a, "_typehint", None) is bool for a in actions)
        return f"--{without[1]} needs a value: --{without[1]} {'true or false' if boolean else 'VALUE'}"
    missing = re.match(r"the following arguments are required: ((?:\w+\.[\w., ]+)+)$", message)
    if missing and parser is not None and "config" in _settings(_options_parser(parser)[0]):
        return _missing_settings(missing[1].split(", "))
    unknown = re.match(r"unrecognized arguments: (.*)", message, re.DOTALL)
    if unknown and parser is not None:
        return f"{message}{_unknown_words(unknown[1].split(), parser)}"
    refused = re.search(r"(?:Group|Subcommand) '([\w.]+)' does not accept option '([\w.]+)'", message)
    refused = refused or re.search(r"(Option) '([\w.]+)' is not accepted", message)
    if refused and parser is not None:
        parser, command = _options_parser(parser, refused[1])
        prefix = "" if command or refused[1] == "Option" else f"{refused[1]}."
        return f"there is no setting {prefix}{refused[2]}{_nearest_setting(prefix + refused[2], parser)}"
    return message


def accepted_arguments(cls: type) -> list[str]:
    """Return the names of a class's arguments that can be given in a configuration, in order."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        names |= dict.fromkeys(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name not in FILLED_IN]


# -- plug-ins and their arguments ---------------------------------------------------------------------------


def _keys(message: str) -> str:
    """Return the setting that a message is about, from outside in: ``model.structure_learner.objective``."""
    keys: list[str] = []
    for key in re.findall(r'Parser key "([\w.]+)"', message):
        if not keys or key != keys[-1]:
            keys.append(key)
    return ".".join(keys)


def _within_class(message: str) -> str | None:
    """Explain the innermost problem with a class's arguments, which may itself have been explained before."""
    for found in PROBLEM.finditer(message):
        cls, problem, key = _import(found[1]), found[2].strip(), _keys(message[: found.start()])
        if cls is None:
            continue
        if unknown := re.match(r"(?:there is no setting|Option) '?(\w+)", problem):
            suggestion = suggest_argument(unknown[1], accepted_arguments(cls))
            return f"{key}: {cls.__name__} has no setting {unknown[1]!r}. {suggestion}"
        if missing := re.match(r"the following arguments are required: ([\w., ]+)", problem):
            names = missing[1].strip().split(", ")
            options = " ".join(f"--{key}.{name} ..." for name in names)
            return f"{key}: {cls.__name__} needs {' and '.join(names)}. Give {options}"
        if explained := re.match(r"([\w.]+)(: (?:No plug-in|\w+ has no setting|\w+ needs) .*)", problem):
            return f"{key}.{explained[1]}{explained[2]}"
    unnamed = re.search(r"^\W+there is no setting (\w.*)$", message, re.MULTILINE)
    key = _keys(message[: unnamed.start()]) if unnamed else ""
    return f"there is no setting {key}.{unnamed[1]}" if unnamed and key else None


def _misplaced(message: str) -> str | None:
    """Explain keys other than those that select a class and hold its arguments."""
    refused = "Not a valid subclass of" in message or "Expected an instantiatable class" in message
    found = re.search(r"(?:Got|Given) value: (\{.*\})", message) if refused else None
    try:
        given = ast.literal_eval(found[1]) if found else {}
    except (SyntaxError, ValueError):  # a value that is no literal
        return None
    others = [str(key) for key in given if key not in ("class_path", "init_args", "dict_kwargs")]
    if not others:
        return None
    where, listed, cls = _keys(message), ", ".join(others), given.get("class_path")
    if cls is None:
        return f"{where}: name a class with class_path, and give its arguments below init_args, not {listed}"
    return f"{where}: beside class_path there may only be init_args, not {listed}: arguments of {cls} belong there"


def _abstract(message: str) -> str | None:
    found = re.search(r"Expected an instantiatable class, but ([\w.]+) is abstract", message)
    cls = _import(found[1]) if found else None
    if cls is None:
        return None
    lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    return f"{_keys(message)}: {cls.__name__} can't be used before it defines {lacking}"


def _unknown_plugin(message: str) -> str | None:
    found = re.findall(r'(?:Parser key "|^--)(?:[\w.]+\.)?(\w+)(?:"|\.help:)', message)
    typed = re.search(r"Expected a dot import path string: ([\w.]+)", message)
    kind = next((PLUGIN_KINDS[key] for key in reversed(found) if key in PLUGIN_KINDS), None)
    if typed is None or kind is None:
        return None
    names = registry.registered(kind)
    if typed[1] in names:
        return None
    where = _keys(message) or message.partition(":")[0]
    return f"{where}: No plug-in among the {kind} is called {typed[1]!r}. {suggest_class(typed[1], names)}"


def _explain_type(message: str) -> str | None:
    """Return the parser's message about a plain value of a wrong type in one line; None for another message."""
    keys = re.findall(r'Parser key "([\w.]+)"', message)  # of classes within classes, from outside
    if keys and (explained := re.search(r"^\s*(?:- )?(\S+ must be .*)$", message, re.MULTILINE)):
        return ".".join([*keys, explained[1]])  # a parser of an inner class has explained it
    if keys and (sizes := re.search(r"Expected a tuple with (\d+) elements\. Got value: (.*)", message)):
        return f"{'.'.join(keys)} must be {sizes[1]} values, not {sizes[2]}"
    types = re.findall(r"Expected a <class '(?:collections\.abc\.)?(\w+)'>", message)
    expected = [name for name in types if name != "NoneType"]
    given = re.search(r"(?:Got|Given) value: (.*)", message)
    if not (keys and expected and given) or not set(expected) <= set(TYPE_NAMES):
        return None
    wanted = " or ".join(dict.fromkeys(TYPE_NAMES[name] for name in expected))
    return f"{'.'.join(keys)} must be {wanted}, not {given[1]}"


def _unknown_choice(message: str) -> str | None:
    found = re.match(r'Parser key "([\w.]+)":\s+Expected a typing.Literal\[(.*)\]. Got value: (.*)$', message)
    if found is None:
        return None
    names = [name.strip().strip("'") for name in found[2].split(",")]
    return f"{found[1]} can't be {found[3]!r}. {suggest(found[3], names)}"


def _unknown_file(message: str) -> str | None:
    found = re.search(r'Parser key "([\w.]+)":\s+Unable to load config [\'"](.*?)[\'"]', message)
    if found is None:
        return None
    return (
        f"--{found[1]} is a section of settings, not {found[2]!r}: give them one by one, as in --{found[1]}.NAME VALUE"
    )


def _not_imported(message: str) -> str | None:
    """Explain that a class of the user's own can't be imported."""
    for found in PROBLEM.finditer(message):
        module, _, name = found[1].rpartition(".")
        where, problem = _keys(message[: found.start()]), found[2].strip()
        if problem.startswith("No module named"):
            return (
                f"{where}: {problem}, which {found[1]!r} is to be imported from. Name a plug-in ('ms2 list'), or the "
                "folder that holds the module: PYTHONPATH=FOLDER ms2 ..."
            )
        if problem == f"module {module!r} has no attribute {name!r}":
            return f"{where}: module {module!r} has no class {name!r}. {suggest(name, _classes(module))}"
    return None


def _classes(module: str) -> list[str]:
    """Return the names of the classes that a module defines."""
    found = vars(import_module(module)).items()
    return [name for name, value in found if isinstance(value, type) and value.__module__ == module]


EXPLANATIONS = (
    _not_imported,
    _within_class,
    _misplaced,
    _abstract,
    _unknown_plugin,
    _unknown_choice,
    _unknown_file,
    _explain_type,
)
"""Functions that explain a message of one sort each, or return None; the first that does is taken."""


def _import(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name, None) if module else None
    return found if isinstance(found, type) else None


# -- options ------------------------------------------------------------------------------------------------


def _options_parser(parser: jsonargparse.ArgumentParser, name: str = "") -> tuple[jsonargparse.ArgumentParser, bool]:
    """Return the parser of a subcommand, by default any: all have the same settings; and whether ``name`` is one."""
    subcommands = getattr(parser, "_subcommands_action", None)
    if subcommands is None:
        return parser, False
    parsers = subcommands._name_parser_map
    return parsers.get(name) or next(iter(parsers.values())), name in parsers


def _settings(parser: jsonargparse.ArgumentParser) -> Iterator[str]:
    """Yield the dotted keys of a parser's options."""
    for action in parser._actions:
        if action.option_strings and not action.dest.endswith(".help") and action.dest != "help":
            yield action.dest


def _missing_settings(keys: list[str]) -> str:
    """Explain that settings of a run are missing, of which a configuration has all."""
    command = keys[0].partition(".")[0]
    names = ", ".join(key.removeprefix(f"{command}.") for key in keys)
    mine = "" if command == "fit" else " or that of a run: --config runs/NAME/config.yaml;"
    return (
        f"no value is given for {names}. Name a configuration that has them, such as --config multimnist_quick;{mine} "
        f"{suggest('', configurations.experiments())} One of your own may be based on these: base: multimnist_quick"
    )


def _unknown_words(words: list[str], parser: jsonargparse.ArgumentParser) -> str:
    """Explain words of a command line that belong to no option."""
    parser = _options_parser(parser)[0]
    option = next((word.partition("=")[0] for word in words if word.startswith("--")), None)
    if option is None:
        return f". Options begin with --: did you mean --config {words[0]}?" if "config" in _settings(parser) else ""
    return _nearest_setting(option.removeprefix("--"), parser, "--")


def _nearest_setting(key: str, parser: jsonargparse.ArgumentParser, dashes: str = "") -> str:
    """Return the end of a message about an unknown setting: what is near, and what there is beside it."""
    new = new_setting(key)
    if new is not None:
        return f". It is called {dashes}{new} now"
    settings = list(_settings(parser))
    prefix, _, leaf = key.rpartition(".")
    filled_in = {*FILLED_IN, "seed"}
    beside = [o for o in settings if o.rpartition(".")[0] == prefix and o.rpartition(".")[2] not in filled_in]
    renamed = suggest_argument(leaf, [one.rpartition(".")[2] for one in beside])
    if "now" in renamed.partition(".")[0]:
        return f". {renamed}"
    near = difflib.get_close_matches(leaf, [one.rpartition(".")[2] for one in beside], n=1)
    near = [f"{prefix}.{one}" if prefix else one for one in near]
    while key and not near:
        near = difflib.get_close_matches(key, settings, n=1, cutoff=0.75)
        key = key.rpartition(".")[0]
    same = [one for one in settings if one.rpartition(".")[2] == leaf and one not in near]
    guesses = _listed([*near, *same][:MAX_SIMILAR], dashes)
    guess = f". Did you mean {guesses}?" if guesses else ""
    if not beside or (guesses and (not near or len(beside) > MAX_LISTED)):
        return guess
    return f"{guess or '.'} {suggest('', [f'{dashes}{one}' for one in beside])}"


def _listed(names: Iterable[str], dashes: str) -> str:
    return " or ".join(f"{dashes}{name}" for name in names)
