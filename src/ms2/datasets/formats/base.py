"""The interface of data set formats."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin, available
from ms2.datasets.folder import SetFolder
from ms2.datasets.plan import Plan
from ms2.datasets.records import Record

Records = Callable[[], Iterable[Record]]
"""Reads the records of all images in their order, as often as it is called."""


class Format(Plugin, ABC, kind="formats"):
    """A layout of files in which training scripts look for images and labels.

    Everything is made from the records, so a format costs no rendering, and what a crash left undone is done again.
    """

    def check(self, plan: Plan) -> None:
        """Raise a `UserError` if what is planned can't be had in this format."""

    @abstractmethod
    def write(self, folder: SetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write all files of the format.

        Args:
            folder: Where to; images are there already, under ``images``.
            plan: What the data set holds.
            categories: Classes that are labelled, in order.
            records: The images' records.
        """

    @abstractmethod
    def usage(self) -> str:
        """How a training script reads it, for the data set's card: a line of Markdown and a few of Python."""


def format_named(name: str) -> Format:
    """The format of a name, however it is capitalised.

    Raises:
        UserError: If there is none.
    """
    names = {known.lower(): cls for known, cls in available("formats").items()}
    if name.lower() not in names:
        raise UserError(f"there is no format {name!r}. {suggest(name.lower(), names)}")
    made: Format = names[name.lower()]()
    return made


def _edges(box: Iterable[float]) -> str:
    x, y, w, h = box
    return f"{x:.2f} {y:.2f} {x + w:.2f} {y + h:.2f}"


def _stem(record: Record) -> str:
    return f"{record['provenance']['index']:06d}"
