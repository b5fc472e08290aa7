"""``ms2 list`` and ``ms2 lint``: plug-ins by name."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ms2.core import registry

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
    "ms2.render.engines.warp",
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
        print(kind)
        for name, cls in registry.available(kind).items():
            print(f"  {name:18} {(cls.__doc__ or '').strip().splitlines()[0]}")


def lint_command(command: "Command", argv: list[str]) -> int:
    """Print a grammar's errors and warnings; return exit code 1 if there are errors."""
    parser = command.parser()
    parser.add_argument("grammar", metavar="NAME|FILE", help="name of a grammar, or a text file with its rules")
    parser.add_argument("t_max", nargs="?", type=int, help="longest derivation that is planned for")
    args = parser.parse_args(argv)
    load()
    from ms2.grammar.grammar import Grammar

    path = Path(args.grammar)
    grammar = Grammar(path.read_text()) if path.is_file() else registry.look_up("grammars", args.grammar)()
    print(
        f"{grammar}\n{grammar.num_rules} rules; derivations take from {grammar.shortest_derivation[grammar.start]:g} "
        f"to {grammar.longest_derivation:g} steps; objects: {', '.join(grammar.classes)}"
    )
    findings = grammar.lint(args.t_max)
    print(*findings or ["nothing suspicious"], sep="\n")
    return int(any(finding.level == "error" for finding in findings))
