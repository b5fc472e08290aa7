"""The table of commands, and the program ``ms2``."""

import atexit
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import ms2
from ms2.core.errors import UserError, explain_os_error, suggest
from ms2.core.process_variables import check_process_variables

if TYPE_CHECKING:
    from ms2.core.parsing import CommandParser


class Command(NamedTuple):
    """A subcommand of ``ms2``: its name, help, example and function.

    Attributes:
        name: The command.
        help: What it does, in one line.
        example: A command line that works.
        function: Where it is, ``module:function``; imported when it is called, and called with the command and the
            words after its name. What it returns, if anything, is the exit code.
    """

    name: str
    help: str
    example: str
    function: str

    def parser(self) -> "CommandParser":
        """A parser for the command's options, whose help says what it does and shows the example."""
        from ms2.core.parsing import CommandParser

        return CommandParser(prog=f"ms2 {self.name}", description=f"{self.help}.", epilog=f"Example: {self.example}")

    def run(self, argv: Sequence[str]) -> int | None:
        """Run the command with its arguments; return the exit code, if any."""
        module, _, function = self.function.partition(":")
        code: int | None = getattr(_imported(module), function)(self, list(argv))
        return code


def _imported(name: str) -> ModuleType:
    """Return a module of the program, imported without garbage collection, which took a fifth of the time.

    What is imported stays, so later collections need not look at it either. Where a program has imported torch before
    it calls `main`, its own garbage is there too: then nothing changes.
    """
    if "torch" in sys.modules or not gc.isenabled():
        return import_module(name)
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()
        # objects of compiled modules, such as Triton's, are reported as leaked if they are not collected at the end
        atexit.register(gc.unfreeze)


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "fit",
            "Learn the structure of scenes; stages that have been trained with the same settings are reused",
            "ms2 fit --config multimnist_quick --trainer.max_steps 100",
            "ms2.cli.fit:lightning_command",
        ),
        Command(
            "validate",
            "Measure a run's last checkpoint as it is measured while it learns",
            "ms2 validate --config runs/multimnist_quick/config.yaml",
            "ms2.cli.fit:lightning_command",
        ),
        Command(
            "test",
            "Measure a run's last checkpoint, and write metrics.json and summary.png",
            "ms2 test --config runs/multimnist_quick/config.yaml",
            "ms2.cli.fit:lightning_command",
        ),
        Command(
            "predict",
            "Sample images from a run's last checkpoint",
            "ms2 predict --config runs/multimnist_quick/config.yaml",
            "ms2.cli.fit:lightning_command",
        ),
        Command(
            "generate",
            "Generate a labelled data set from a run, a configuration or a world",
            "ms2 generate runs/multimnist_quick --num_scenes 1000 --format coco yolo",
            "ms2.cli.generate:generate_command",
        ),
        Command(
            "render",
            "Render an image of a data set again, to the byte",
            "ms2 render --provenance data/multimnist/scenes/000000.json",
            "ms2.cli.generate:render_command",
        ),
        Command(
            "new",
            "Write the package of a new world, with grammar, priors, renderer, configuration and tests",
            "ms2 new rooms",
            "ms2.cli.new:new_command",
        ),
        Command(
            "check",
            "Check a world: shapes, ranges, determinism, labels, derivatives; draw labelled samples of it",
            "ms2 check multimnist --output samples.png",
            "ms2.cli.check:check_command",
        ),
        Command(
            "assets",
            "Check a folder of one's own meshes: scale, front, ground, counts, licence; draw a sheet of them",
            "ms2 assets driving3d my_meshes --output sheet.png",
            "ms2.cli.assets:assets_command",
        ),
        Command(
            "probe",
            "Choose from which score and height a detector's boxes count, by renders alone",
            "ms2 probe mine.yaml --num_images 400",
            "ms2.cli.probe:probe_command",
        ),
        Command(
            "induce",
            "Learn a grammar and its structure prior from labelled scenes",
            "ms2 induce annotations.json --output my_world",
            "ms2.cli.induce:induce_command",
        ),
        Command(
            "distill",
            "Write what a structure model has learned as tables of list lengths, the fewest within a stated loss",
            "ms2 distill runs/aerial2d_quick --output distilled --loss 0.05",
            "ms2.cli.induce:distill_command",
        ),
        Command(
            "compare",
            "Train detectors on data of the prior and of a run with the same budget, and test both on the run's target",
            "ms2 compare runs/multimnist_quick --num_train_images 500 --train_steps 300",
            "ms2.cli.compare:compare_command",
        ),
        Command(
            "report",
            "Write one HTML page about a run or a data set, which needs no network",
            "ms2 report runs/multimnist_quick",
            "ms2.cli.report:report_command",
        ),
        Command(
            "configs",
            "List the configurations that come with the program, or show one with its bases merged in",
            "ms2 configs multimnist_quick",
            "ms2.cli.configs:configs_command",
        ),
        Command(
            "schema",
            "Print a JSON Schema of configurations, by which editors complete and check them",
            "ms2 schema",
            "ms2.cli.schema:schema_command",
        ),
        Command(
            "completion",
            "Print a script by which bash or zsh completes commands, options and values",
            "ms2 completion bash",
            "ms2.cli.completion:completion_command",
        ),
        Command(
            "list",
            "List the plug-ins that can be named in a configuration",
            "ms2 list objectives",
            "ms2.cli.plugins:list_command",
        ),
        Command(
            "lint",
            "Check a grammar, given by name or as a text file, for what is wrong or suspicious",
            "ms2 lint MultiMNIST",
            "ms2.cli.plugins:lint_command",
        ),
    )
}
"""All commands by name, in the order in which ``ms2 --help`` shows them."""


def usage() -> str:
    """What ``ms2 --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Learn the structure of scenes from images without labels (Meta-Sim2).",
            "",
            "Usage: ms2 COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "Options and an example of each: ms2 COMMAND --help. The version: ms2 --version.",
            "",
            "All settings of a configuration can be given on the command line too, and take precedence:",
            "  ms2 fit --config multimnist_quick --model.structure_learner.objective MMDWitness",
            "Those of a plug-in: ms2 fit --model.features.help ResNet",
        ]
    )


def _run(name: str, rest: list[str]) -> int | None:
    """Run a command by its name; return its exit code."""
    if name in ("-h", "--help", "help"):
        print(usage())
        return None
    if name in ("-V", "--version"):
        print(f"ms2 {ms2.__version__}")
        return None
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}. {suggest(name, COMMANDS)}")
    check_process_variables()
    return COMMANDS[name].run(rest)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends it with one readable message and exit code 2, divergence with 3."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack ε, and a name of a file may be no text
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if args is None else args)
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    try:
        code = _run(name, rest)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read what is printed has gone, as in 'ms2 list | head -1'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("ms2: interrupted (Ctrl-C)", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except OSError as error:
        print(f"ms2: {explain_os_error(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):  # jsonargparse wraps those of optional parts
            cause = cause.__cause__
        if cause is None:
            raise
        print(f"ms2: {cause}", file=sys.stderr)
        sys.exit(cause.exit_code)
    if code:
        sys.exit(code)
