"""Bounds of every numeric setting: each is declared, and what lies outside is refused in Python and when parsed."""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

import ms2
from ms2.cli import compare, generate
from ms2.cli.commands import COMMANDS
from ms2.cli.configs import with_settings
from ms2.cli.fit import CLI
from ms2.core.bounds import (
    Bounds,
    Dimension,
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    bounds_of,
    check_arguments,
    problem,
    type_hints,
)
from ms2.core.errors import UserError
from ms2.core.parsing import ArgumentParser, CommandParser, check_bounds
from ms2.core.settings import Configured
from ms2.datasets.plan import Plan
from ms2.evaluation.detectors.budget import DetectorBudget
from ms2.learning.structure_learner import StructureLearner
from ms2.models.opening import open_model
from ms2.objectives.kde import KDE

for module in pkgutil.walk_packages(ms2.__path__, "ms2."):
    if module.name != "ms2.__main__":  # importing it runs the program
        importlib.import_module(module.name)

UNBOUNDED: dict[str, str] = {}
"""Numeric settings that may have any value, infinity and NaN included: ``Class.setting``, and why."""


def configured_classes(base: type = Configured) -> Iterator[type]:
    """Every class of ms2 that records its settings."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("ms2."):
            yield cls
        yield from configured_classes(cls)


def leaves(hint: Any, wrap: Callable[[Any], Any] = lambda value: value) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """The numbers that a type hint describes, each with a function that puts a number in its place among valid ones."""
    args, origin = get_args(hint), get_origin(hint)
    if origin is Annotated or hint in (int, float):
        if args[:1] in ((), (int,), (float,)):
            yield hint, wrap
        else:
            yield from leaves(args[0], wrap)
    elif origin in (Union, UnionType):
        for one in args:
            yield from leaves(one, wrap)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from leaves(args[-1], lambda value: wrap({"a": value}))
    elif origin is tuple and args[-1] is not Ellipsis:
        for i, one in enumerate(args):
            others = [valid(other) for other in args]
            yield from leaves(one, lambda value, i=i, others=others: wrap((*others[:i], value, *others[i + 1 :])))
    elif isinstance(origin, type) and issubclass(origin, Collection):
        for one in args[:1]:
            yield from leaves(one, lambda value: wrap([value]))


def valid(hint: Any) -> Any:
    """A number within the bounds of a type hint; None for what is no number."""
    bounds = bounds_of(hint)
    if bounds is None:
        return None
    return next(value for value in (1, 0.5, 0.01, 2, 7, 10, 15, 20) if bounds.violated(value) is None)


def outside(hint: Any) -> list[int | float]:
    """Numbers outside the bounds of a type hint."""
    bounds = bounds_of(hint)
    assert bounds is not None
    is_int = get_args(hint)[0] is int
    numbers = [0, -1, 1, 2, 2**70] if is_int else [0.0, -1.0, 1.5, math.nan, math.inf, -math.inf, 1e300]
    return [value for value in numbers if bounds.violated(value)]


def invalid(hint: Any) -> list[Any]:
    """Numbers outside the bounds of a type hint, and values of a wrong type."""
    return [*outside(hint), True, "1", *([1.5] if get_args(hint)[0] is int else [])]


SETTINGS = sorted(
    {
        (cls, name)
        for cls in configured_classes()
        if cls.__init__ is not object.__init__
        for name, hint in type_hints(cls.__init__).items()
        if name in inspect.signature(cls.__init__).parameters and list(leaves(hint))
    },
    key=lambda setting: (setting[0].__module__, setting[0].__name__, setting[1]),
)
"""Every numeric setting: its class and its name."""


def test_all_settings_were_found() -> None:
    assert {(StructureLearner, "lr"), (KDE, "bandwidth")} < set(SETTINGS)
    assert len(SETTINGS) > 200


@pytest.mark.parametrize(("cls", "name"), SETTINGS, ids=[f"{cls.__name__}.{name}" for cls, name in SETTINGS])
def test_a_numeric_setting_declares_bounds_and_refuses_what_lies_outside(cls: type, name: str) -> None:
    if f"{cls.__name__}.{name}" in UNBOUNDED:
        return
    parameters, hints = inspect.signature(cls.__init__).parameters.values(), type_hints(cls.__init__)
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    others = {one: next((wrap(valid(leaf)) for leaf, wrap in leaves(hints.get(one))), None) for one in required}
    hint = hints[name]
    for leaf, wrap in leaves(hint):
        assert bounds_of(leaf), f"{cls.__name__}.{name} has numbers without bounds: annotate it as ms2.core.bounds says"
        assert problem(hint, wrap(valid(leaf)), name) is None
        for value in invalid(leaf):
            with pytest.raises(UserError, match=rf"^{cls.__name__}: {name}\S* must be .*, not ") as error:
                check_arguments(cls.__init__, others | {name: wrap(value)}, cls.__name__)
            if not inspect.isabstract(cls):
                with pytest.raises(UserError) as again:
                    cls.__new__(cls, **(others | {name: wrap(value)}))
                assert str(again.value) == str(error.value)


@pytest.mark.parametrize("cls", [Plan, DetectorBudget])
def test_the_numbers_of_plans_have_bounds(cls: type) -> None:
    numeric = {name: hint for name, hint in type_hints(cls).items() if list(leaves(hint))}
    assert len(numeric) >= 4
    for name, hint in numeric.items():
        for value in [value for leaf, _ in leaves(hint) for value in outside(leaf)]:
            with pytest.raises(UserError, match=rf": {name} must be .*, not "):
                cls(**{name: value})


def command_parser(name: str) -> CommandParser:
    """The parser of a command with options of its own, which does not exit."""
    parser = COMMANDS[name].parser()
    {"generate": generate.options, "compare": compare.options}[name](parser)
    parser.exit_on_error = False
    return parser


@pytest.mark.parametrize("name", ["generate", "compare"])
def test_numeric_options_of_commands_have_bounds(name: str) -> None:
    parser = command_parser(name)
    numeric = [
        (action.dest, leaf)
        for action in parser._actions
        for leaf, _ in leaves(getattr(action, "_typehint", None) or action.type)
    ]
    assert len(numeric) >= 5
    for option, leaf in numeric:
        assert bounds_of(leaf), option
        for value in outside(leaf):
            with pytest.raises(UserError, match=f"^{option} must be .*, not "):
                parser.parse_args(["runs/a", f"--{option}={value}"])


def test_the_longest_derivation_that_lint_plans_for_has_bounds() -> None:
    with pytest.raises(UserError, match=r"^t_max must be at least 1, not 0$"):
        COMMANDS["lint"].run(["MultiMNIST", "0"])


def test_a_seed_is_compared_once() -> None:
    with pytest.raises(UserError, match=r"^seeds are 1 2 1: the same one twice counts one result twice$"):
        COMMANDS["compare"].run(["runs/none", "--seeds", "1", "2", "1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--world.renderer.canvas_size=0"], "world.renderer.canvas_size must be at least 1, not 0"),
        (["--world.renderer.canvas_size=1.5"], "world.renderer.canvas_size must be a whole number, not 1.5"),
        (["--world.renderer.canvas_size=true"], "world.renderer.canvas_size must be a whole number, not True"),
        (["--world.structure_prior.max_digits=-1"], "world.structure_prior.max_digits must be at least 0, not -1"),
        (["--structure.max_tries=0"], "structure.max_tries must be at least 1, not 0"),
        (["--structure.seed=-1"], "structure.seed must be at least 0, not -1"),
        (["--structure.seed=1180591620717411303424"], "structure.seed must be at most 4294967295, not 1180591"),
        (["--structure.max_length={Digits: -1}"], "structure.max_length.Digits must be at least 0, not -1"),
        (["--structure.network=GRU", "--structure.network.hidden=0"], "structure.network.hidden must be at least 1"),
        (
            ["--world.parameter_prior.image_range=[0, .nan]"],
            "world.parameter_prior.image_range[1] must be finite, not nan",
        ),
    ],
)
def test_a_parsed_setting_out_of_bounds_is_named_as_it_is_typed(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        open_model("multimnist", arguments=arguments)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


TYPED = {
    "model.structure_learner.lr=-1": "model.structure_learner.lr must be greater than 0, not -1",
    "model.features.max_count=-1": "model.features.max_count must be at least 1, not -1",
    "model.structure_learner.objective.bandwidth={count: -1}": (
        "model.structure_learner.objective.bandwidth.count must be greater than 0, not -1"
    ),
    "extractor.batch_size=0": "extractor.batch_size must be at least 1, not 0",
    "checkpoint_every=0": "checkpoint_every must be at least 1, not 0",
}


# -- the check itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (PositiveInt, 0, "x must be at least 1, not 0"),
        (PositiveInt, 2**31, "x must be at most 2147483647, not 2147483648"),
        (PositiveInt, 2**200, "x must be at most 2147483647, not 2**201"),
        (PositiveInt, True, "x must be a whole number, not True"),
        (PositiveInt, 2.0, "x must be a whole number, not 2"),
        (PositiveInt, "2", "x must be a whole number, not '2'"),
        (PositiveInt | None, None, None),
        (PositiveInt | None, -1, "x must be at least 1, not -1"),
        (PositiveInt | None, "all", "x must be a whole number, not 'all'"),
        (PositiveFloat, 1e30, None),
        (PositiveFloat, 1e-30, None),
        (PositiveFloat, 1e-300, "x must be at least 1.2e-38, not 1e-300"),
        (PositiveFloat, -1.0, "x must be greater than 0, not -1"),
        (PositiveFloat, math.nan, "x must be finite, not nan"),
        (PositiveFloat, math.inf, "x must be finite, not inf"),
        (PositiveFloat, 1e300, "x must be at most 3.4e+38, not 1e+300"),
        (FiniteFloat, -math.inf, "x must be finite, not -inf"),
        (Fraction, 1.5, "x must be at most 1, not 1.5"),
        (Annotated[float, Bounds(lt=1)], 1, "x must be less than 1, not 1"),
        (Seed, 2**70, f"x must be at most 4294967295, not {2**70}"),
        (PositiveFloat | dict[str, PositiveFloat], {"a": 1, "b": 0}, "x.b must be greater than 0, not 0"),
        (PositiveFloat | dict[str, PositiveFloat], [1], "x must be a number, not [1]"),
        (dict[str, PositiveFloat] | None, 3, "x must be a dictionary, not 3"),
        (tuple[Dimension, Dimension], (1, 0), "x[1] must be at least 1, not 0"),
        (tuple[Dimension, Dimension], [1, 2, 3], "x must be 2 values, not [1, 2, 3]"),
        (tuple[NonNegativeFloat, ...], (1, 2, -3), "x[2] must be at least 0, not -3"),
        (list[Dimension], "12", "x must be a list, not '12'"),
        (list[list[Fraction]] | list[Fraction], [[0], [2]], "x[1][0] must be at most 1, not 2"),
        (list[list[Fraction]] | list[Fraction], [0, 2], "x[1] must be at most 1, not 2"),
        (list[list[Fraction]] | list[Fraction], [[0], [1]], None),
        (str | PositiveInt, "a", None),
        (int, -1, None),
    ],
)
def test_what_is_wrong_is_said(hint: Any, value: Any, said: str | None) -> None:
    assert problem(hint, value, "x") == said


def test_wrong_types_are_said_in_one_line() -> None:
    class Inner(Configured):
        def __init__(
            self,
            size: Dimension = 1,
            flag: bool = False,
            sides: tuple[Dimension, Dimension] = (1, 1),
            widths: PositiveFloat | dict[str, float] = 1,
        ) -> None: ...

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Inner, "part")
    for argument, said in (
        ("size=x", "part.size must be a whole number, not x"),
        ("flag=3", "part.flag must be true or false, not 3"),
        ("sides=[1]", r"part.sides must be 2 values, not \[1\]"),
        ("widths=x", "part.widths must be a number or a dictionary, not x"),
    ):
        with pytest.raises(UserError, match=f"^{said}$"):
            parser.parse_args([f"--part.{argument}"])


def test_settings_of_a_run_are_named_as_they_are_typed() -> None:
    class Check(CLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            words = with_settings(["--config", "multimnist_quick"])
            self.config = parser.parse_args(words)
            check_bounds(parser, self.config)
            for argument, said in TYPED.items():
                with pytest.raises(UserError) as error:
                    check_bounds(parser, parser.parse_args([*words, f"--{argument}"]))
                assert str(error.value) == said

        def instantiate_classes(self) -> None: ...

    Check([], run=False)


def test_the_help_says_the_bounds() -> None:
    assert "Annotated[int, >= 1]" in command_parser("generate").format_help()


def test_annotations_that_only_type_checkers_resolve_hide_no_others() -> None:
    class Part(Configured):
        def __init__(self, size: Dimension = 1, other: "Unknown | None" = None) -> None:  # type: ignore[name-defined]
            ...

    with pytest.raises(UserError, match=r"^Part: size must be at least 1, not 0$"):
        Part(0)


def test_a_configuration_is_checked_within_lists_of_classes() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objectives", type=list[KDE])
    values = "[{class_path: KDE}, {class_path: KDE, init_args: {bandwidth: {a: 0}}}]"
    with pytest.raises(UserError, match=r"^objectives\[1\]\.bandwidth\.a must be greater than 0, not 0$"):
        check_bounds(parser, parser.parse_args([f"--objectives={values}"]))
