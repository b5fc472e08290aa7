"""``ms2 list`` and ``ms2 lint``: plug-ins by name."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ms2.core import registry
from ms2.core.bounds import Dimension
from ms2.core.errors import UserError
from ms2.core.paths import UserPath

if TYPE_CHECKING:
    from ms2.cli.commands import Command

PACKAGES = (
    "ms2.datasets.formats",
    "ms2.features",
    "ms2.grammar",
    "ms2.gradients",
    "ms2.metrics",
    "ms2.models",
    "ms2.objectives",
    "ms2.priors",
    "ms2.render",
    "ms2.render.engines",
    "ms2.render.external",
    "ms2.targets",
)
"""Packages of ms2 that define plug-ins. Worlds are not among them: they have entry points, as other packages do."""


def load() -> None:
    """Import all plug-ins, so that they can be named."""
    for package in PACKAGES:
        import_module(package)
    registry.load_entry_points()


def list_command(command: "Command", argv: list[str]) -> None:
    """Print the plug-ins of some kinds, or of all, each with the first line of its docstring."""
    parser = command.parser()
    kinds_help = "kinds of plug-ins, such as renderers; all by default"
    parser.add_argument("kinds", nargs="*", type=str, default=[], metavar="KIND", help=kinds_help)
    kinds = parser.parse_args(argv).kinds
    load()
    for kind in kinds or sorted(registry.KINDS):
        found = registry.registered(kind)
        print(kind)
        for name, classes in found.items():
            for cls in classes:
                where = f" ({cls.__module__}; {len(classes)} have this name: rename one)" if len(classes) > 1 else ""
                print(f"  {name:18} {first_line(cls)}{where}")


def first_line(cls: type) -> str:
    """Return the first line of a class's docstring, or say that it has none."""
    text = cls.__doc__ if isinstance(cls.__doc__, str) else ""
    return next(iter(text.strip().splitlines()), "(no docstring)")


def lint_command(command: "Command", argv: list[str]) -> int:
    """Print a grammar's errors and warnings; return exit code 1 if there are errors."""
    parser = command.parser()
    grammar_help = "name of a grammar, or a text file with its rules"
    parser.add_argument("grammar", type=UserPath, metavar="NAME|FILE", help=grammar_help)
    parser.add_argument("t_max", nargs="?", type=Dimension, help="longest derivation that is planned for")
    args = parser.parse_args(argv)
    load()
    from ms2.grammar.analysis import format_steps
    from ms2.grammar.grammar import Grammar

    path = Path(args.grammar)
    grammar = Grammar(_read_grammar(path)) if _is_file(path) else _named_grammar(str(path))
    shortest, longest = map(format_steps, (grammar.shortest_derivation[grammar.start], grammar.longest_derivation))
    print(
        f"{grammar}\n{grammar.num_rules} rules; derivations take from {shortest} to {longest} steps; "
        f"objects: {', '.join(grammar.classes)}"
    )
    findings = grammar.lint(args.t_max)
    print(*findings or ["nothing suspicious"], sep="\n")
    return int(any(finding.level == "error" for finding in findings))


def _named_grammar(name: str) -> Any:
    cls = registry.look_up("grammars", name)
    if inspect.signature(cls).parameters.get("rules") is not None:
        raise UserError(f"{name} has no rules of its own: give a text file with rules, or the name of another grammar")
    return cls()


def _is_file(given: Path) -> bool:
    """Whether a grammar is given as a file, rather than by name.

    Raises:
        UserError: If it is the path of anything else, or of nothing.
    """
    if given.is_file():
        return True
    if given.suffix or len(given.parts) > 1:
        problem = f"{given} is not a file" if given.exists() else f"there is no file {given}"
        raise UserError(f"{problem}: give a text file with the rules of a grammar, or the name of a grammar")
    return False


def _read_grammar(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error
