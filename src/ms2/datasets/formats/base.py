"""Interface of data set formats."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from ms2.core.errors import UserError, suggest
from ms2.core.registry import Plugin, available
from ms2.datasets.folder import DataSetFolder
from ms2.datasets.plan import Plan
from ms2.datasets.records import ImageRecord
from ms2.world import World

Records = Callable[[], Iterable[ImageRecord]]
"""Iterates over the records of all images in order, anew with each call."""


class Format(Plugin, ABC, kind="formats"):
    """Files in which training scripts look for images and labels.

    All of them are made from the records: a format costs no rendering, and is written again after a crash.

    A class called ``YoloFormat`` is selected by ``--format yolo``.

    Attributes:
        maps: Names of the maps that the format is made from, which are rendered with the images.
    """

    maps: tuple[str, ...] = ()

    def check(self, plan: Plan) -> None:
        """Raise a `UserError` if the format does not support the plan."""

    def bind(self, world: World) -> None:
        """Remember what the format needs of the world that the images show; by default nothing.

        Raises:
            UserError: If the format does not support the world.
        """

    @abstractmethod
    def write(self, folder: DataSetFolder, plan: Plan, categories: tuple[str, ...], records: Records) -> None:
        """Write all files of the format.

        Args:
            folder: The data set's folder, with the images under ``images``.
            plan: The data set's specification.
            categories: The labelled classes, in order.
            records: The images' records.
        """

    @abstractmethod
    def usage(self) -> str:
        """Return how to load the format, for the data set's card: a line of Markdown and a few of Python."""


def format_names() -> dict[str, Any]:
    """Return the formats by the names that users select them by: of ``YoloFormat``, ``yolo``."""
    return {name.lower().removesuffix("format"): cls for name, cls in available("formats").items()}


def format_named(name: str) -> Format:
    """Create the format of a name, ignoring case.

    Raises:
        UserError: If there is none.
    """
    names = format_names()
    if name.lower() not in names:
        raise UserError(f"there is no format {name!r}. {suggest(name.lower(), names)}")
    made: Format = names[name.lower()]()
    return made
