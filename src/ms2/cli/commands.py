"""The table of commands."""

import logging
import signal
import sys
import warnings
from pathlib import Path

from pytorch_lightning.cli import ArgsType
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ms2.cli.compare import compare_command
from ms2.cli.fit import CLI
from ms2.cli.generate import generate_command, render_command
from ms2.cli.report import report_command
from ms2.core import configurations, registry
from ms2.core.errors import UserError
from ms2.grammar.grammar import Grammar

COMMANDS = {
    "generate": generate_command,
    "render": render_command,
    "compare": compare_command,
    "report": report_command,
}
"""Commands that are not Lightning's."""

USAGE = """\
ms2 learns the structure of scenes from images without labels (Meta-Sim2).

  ms2 fit --config NAME       learn; stages that are done already are reused
  ms2 validate --config NAME  distance of a checkpoint's structure to the target's
  ms2 test --config NAME      the same, leaving metrics.json and summary.png
  ms2 predict --config NAME   images of a checkpoint's scenes
  ms2 generate SOURCE         a labelled data set from a run, a configuration, or a world
  ms2 render --provenance F   one of its images again, to the byte
  ms2 report FOLDER           one page of a run or a data set
  ms2 compare RUN             what its data is worth to a detector, beside the prior's
  ms2 configs                 the configurations that can be named after --config
  ms2 list [KIND]             the plug-ins that can be named in a configuration
  ms2 lint NAME|FILE [T_MAX]  what is suspicious about a grammar

Every setting of a configuration can be given on the command line too, and wins:
  ms2 fit --config multimnist_quick --model.objective MMDWitness --model.lr 1e-3
All of them: ms2 fit --help, and ms2 fit --model.features.help ResNet for those of a plug-in.
"""


def list_configurations() -> None:
    """Print the configurations that can be named, with what each is for."""
    for name, path in configurations.experiments().items():
        print(f"  {name:22} {configurations.first_comment(path)}")


def list_plugins(kinds: list[str]) -> None:
    """Print the plug-ins of some kinds, or of all, with what each is."""
    for kind in kinds or sorted(registry.KINDS):
        print(kind)
        for name, cls in registry.available(kind).items():
            print(f"  {name:18} {(cls.__doc__ or '').strip().splitlines()[0]}")


def lint(what: str, t_max: int | None = None) -> int:
    """Print what is suspicious about a grammar, given by name or as a text file; 1 if it can't be used."""
    path = Path(what)
    grammar = Grammar(path.read_text()) if path.is_file() else registry.look_up("grammars", what)()
    print(
        f"{grammar}\n{grammar.num_rules} rules; derivations take from {grammar.shortest[grammar.start]:g} "
        f"to {grammar.longest:g} steps; objects: {', '.join(grammar.classes)}"
    )
    findings = grammar.lint(t_max)
    print(*findings or ["nothing suspicious"], sep="\n")
    return int(any(finding.level == "error" for finding in findings))


def _quieten() -> None:
    """Leave out what Lightning says of hardware that is not there, of other products, and of our frozen extractor."""
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r"Found \d+ module\(s\) in eval mode",
        "The '.*' does not have many workers",
        "Checkpoint directory .* exists and is not empty",  # that of a run that goes on
        "The dirpath has changed from",  # a checkpoint of another run was given
        r".isinstance\(treespec, LeafSpec\). is deprecated",
    ):
        warnings.filterwarnings("ignore", message)


def main(args: ArgsType = None) -> None:
    """Run the command line; bad input ends it with one readable message."""
    argv = sys.argv[1:] if args is None else list(args)
    registry.load_entry_points()
    _quieten()
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(USAGE)
        elif argv[0] in COMMANDS:
            COMMANDS[argv[0]](argv[1:])
        elif argv[0] == "configs":
            list_configurations()
        elif argv[0] == "list":
            list_plugins(argv[1:])
        elif argv[0] == "lint" and 2 <= len(argv) <= 3:
            sys.exit(lint(argv[1], int(argv[2]) if len(argv) > 2 else None))
        else:
            CLI(argv)
    except SIGTERMException:  # of itself it ends with exit code 0, as if all were done
        print("ms2: asked to stop (SIGTERM); the same command goes on where it was", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):  # jsonargparse wraps those of optional parts
            cause = cause.__cause__
        if cause is None:
            raise
        print(f"ms2: {cause}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
