"""Findings of contracts, and how contracts call the parts of a world."""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from ms2.grammar.derivations import is_valid
from ms2.priors.parameters import ParameterPrior
from ms2.render.base import Rendering
from ms2.scene.batch import SceneBatch, scenes_from_derivations
from ms2.world import World


class Finding(NamedTuple):
    """A fault that a contract found.

    Attributes:
        where: Class and method, or attribute, to mend.
        expected: What the contract promises.
        found: What was found instead.
    """

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; found {self.found}"


RETURNED: dict[str, type] = {"render": Tensor, "render_labelled": Rendering}
"""What methods of renderers return; those of parameter priors return scenes."""
Findings = Iterator[Finding]
Contract = Callable[[World, Generator], Findings]
"""Checks a world with scenes that the generator draws. The first line of its docstring says what it checks."""


class BrokenPartError(Exception):
    """A part of a world raised an error, or returned what nothing further can be checked with.

    Args:
        finding: The fault.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


class NotCheckedError(Exception):
    """A contract can't be checked because another one is broken; the message names what it needs."""


class Outcome(NamedTuple):
    """What came of checking one contract.

    Attributes:
        name: Name of the contract.
        title: What it promises.
        findings: Faults; none where it is kept or was not checked.
        obstacle: Why it was not checked; empty where it was.
    """

    name: str
    title: str
    findings: tuple[Finding, ...]
    obstacle: str = ""

    @property
    def passed(self) -> bool:
        """Whether the contract was checked, and is kept."""
        return not self.findings and not self.obstacle


def check(contract: Contract, world: World, generator: Generator) -> Outcome:
    """Check one contract."""
    name, title = contract.__name__, (contract.__doc__ or "").strip().splitlines()[0]
    findings: list[Finding] = []
    obstacle = ""
    try:
        findings.extend(contract(world, generator))
    except BrokenPartError as error:
        findings.append(error.finding)
    except NotCheckedError as error:
        obstacle = "" if findings else str(error)
    except Exception as error:  # what a part returned breaks the check itself, such as a tensor of a wrong shape
        text = str(error).strip().partition("\n")[0]
        obstacle = f"a fault of the world led to {type(error).__name__}: {text}"
    return Outcome(name, title, tuple(findings), obstacle)


def place(part: object, member: str = "") -> str:
    """Name a class, and its method or attribute."""
    return f"{type(part).__name__}.{member}" if member else type(part).__name__


def call(part: object, method: str, *arguments: Any) -> Any:
    """Call a method of a part of a world.

    Raises:
        BrokenPartError: If it raises an error, or returns something of another type than its kind promises.
    """
    try:
        found = getattr(part, method)(*arguments)
    except (Exception, SystemExit) as error:  # whatever the part raises; to exit would look like success
        text = str(error).strip().partition("\n")[0]
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}{f': {text}' if text else ''} ({Path(frame.filename).name}:{frame.lineno})"
        raise BrokenPartError(Finding(place(part, method), "no error", what)) from error
    promised = RETURNED.get(method) or (SceneBatch if isinstance(part, ParameterPrior) else object)
    if not isinstance(found, promised):
        raise BrokenPartError(Finding(place(part, method), f"a {promised.__name__}", f"a {type(found).__name__}"))
    return found


def sample_structure(world: World, n: int, generator: Generator) -> SceneBatch:
    """Sample structures from the prior.

    Raises:
        BrokenPartError, NotCheckedError: If the structure prior is broken.
    """
    rules = call(world.structure_prior, "sample", world.grammar, n, generator)
    if not is_table(rules, n) or not bool(is_valid(world.grammar, rules).all()):
        raise NotCheckedError(f"{place(world.structure_prior, 'sample')} gives no valid derivations")
    return scenes_from_derivations(world.grammar, rules)


def sample_scenes(world: World, n: int, generator: Generator, renderable: bool = True) -> SceneBatch:
    """Sample scenes from the priors.

    Args:
        world: The world.
        n: Number of scenes.
        generator: Draws them.
        renderable: Whether they must have all that the renderer reads.

    Raises:
        BrokenPartError, NotCheckedError: If a prior is broken.
    """
    prior = world.parameter_prior
    scenes: SceneBatch = call(prior, "sample", sample_structure(world, n, generator), generator)
    if renderable and (lacking := missing(world, scenes)):
        raise NotCheckedError(f"{place(prior, 'sample')} draws no {', '.join(lacking)}")
    return scenes


def missing(world: World, scenes: SceneBatch) -> list[str]:
    """List the attributes that the renderer reads and the scenes lack."""
    pairs = ((world.renderer.attributes, scenes.attributes), (world.renderer.environment, scenes.environment))
    return [attribute.name for attributes, drawn in pairs for attribute in attributes if attribute.name not in drawn]


def is_table(rules: object, n: int) -> bool:
    """Return whether rules are n rows of whole numbers."""
    return isinstance(rules, Tensor) and rules.ndim == 2 and len(rules) == n and rules.dtype == torch.int64


def span(values: Tensor) -> str:
    """Format the range of values."""
    numbers = values.detach().double().flatten()
    if not len(numbers):
        return "nothing"
    broken = int((~numbers.isfinite()).sum())
    finite = numbers[numbers.isfinite()]
    found = f"values in {float(finite.min()):.6g} .. {float(finite.max()):.6g}" if len(finite) else "values"
    return f"{found}, {broken} of {len(numbers)} not finite" if broken else found


def within(values: Tensor, low: float, high: float, slack: float = 0.0) -> bool:
    """Return whether all values are between bounds; NaN is not.

    Args:
        values: The values.
        low: Lower bound.
        high: Upper bound.
        slack: By how much they may exceed them, as a fraction of the bounds' distance.
    """
    margin = slack * (high - low)
    return bool(((values >= low - margin) & (values <= high + margin)).all())
