"""``ms2 completion``: a script by which a shell completes commands, options and their values."""

import shlex
from collections.abc import Iterable
from inspect import isclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from ms2.core import configurations, registry
from ms2.core.parsing import parser_of
from ms2.core.registry import Plugin
from ms2.datasets.formats.base import format_names

if TYPE_CHECKING:
    from ms2.cli.commands import Command

SCRIPT = """\
# Completes commands, options and values of ms2, as they were when 'ms2 completion' wrote this.
{prologue}_ms2() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD - 1]}} words= i
    COMPREPLY=()
    for ((i = COMP_CWORD - 1; i > 1; i--)); do  # an option may take several values
        [[ ${{COMP_WORDS[i]}} != -* ]] || break
    done
    ((i < 2)) || option=${{COMP_WORDS[i]}}
    if ((COMP_CWORD == 1)); then
        words={commands}
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    elif [[ $option == -* ]]; then
        case ${{COMP_WORDS[1]}}:$option in
{values}
        esac
    else
        case ${{COMP_WORDS[1]}} in
{arguments}
        esac
    fi
    [[ -z $words ]] || COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _ms2 ms2
"""
"""Where there is no word to suggest, the shell completes names of files."""
PROLOGUE = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit -u && bashcompinit\n"}
"""What a shell has to load first: zsh runs the completions of bash."""


def completion_command(command: "Command", argv: list[str]) -> None:
    """Print the script for a shell."""
    parser = command.parser()
    parser.add_argument("shell", choices=[*PROLOGUE], help="shell that reads the script")
    print(script(parser.parse_args(argv).shell), end="")


def script(shell: str) -> str:
    """Write the script for a shell."""
    from ms2.cli.commands import COMMANDS

    options, values = [], []
    for name, command in COMMANDS.items():
        found = option_values(parser_of(lambda command=command: command.run([])))  # type: ignore[misc]
        options.append((name, found))
        values += [(f"{name}:{option}", words) for option, words in found.items() if words]
    return SCRIPT.format(
        prologue=PROLOGUE[shell],
        commands=_quoted(COMMANDS),
        options=_cases(options),
        values=_cases(values),
        arguments=_cases(arguments().items()),
    )


def arguments() -> dict[str, list[str]]:
    """Return what commands take without the name of an option, where it has a name of its own."""
    experiments, worlds = [*configurations.experiments()], [*configurations.worlds()]
    learned = [*configurations.learned_models()]
    grammars = [*registry.registered("grammars")]
    return {
        "generate": experiments + worlds + learned,
        "check": worlds + experiments,
        "probe": experiments,
        "distill": learned,
        "configs": experiments,
        "list": sorted(registry.KINDS),
        "lint": grammars,
        "completion": [*PROLOGUE],
    }


def option_values(parser: ArgumentParser) -> dict[str, list[str]]:
    """Return the options of a parser, each with the values that can be listed."""
    named = {"--config": [*configurations.experiments()], "--format": [*format_names()]}
    found: dict[str, list[str]] = {}
    for action in parser._actions:
        words = [str(one) for one in action.choices or ()] or listed(getattr(action, "_typehint", None))
        found |= {option: named.get(option, words) for option in action.option_strings if option.startswith("--")}
    return found


def listed(hint: Any) -> list[str]:
    """List the values of a type: true and false, those of a literal type, and names of plug-ins; empty for others."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(one) for one in get_args(hint)]
    if isclass(hint) and issubclass(hint, Plugin):
        return [*registry.registered(hint)]
    return [] if get_origin(hint) in (list, dict, tuple) else [word for one in get_args(hint) for word in listed(one)]


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _cases(cases: Iterable[tuple[str, Iterable[str]]]) -> str:
    return "\n".join(f"            {pattern}) words={_quoted(words)} ;;" for pattern, words in cases)
