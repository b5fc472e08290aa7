"""Tables of a page as data; ``macros.html`` shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """A table cell.

    Attributes:
        text: The text.
        detail: Smaller text behind it, such as an interval.
    """

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column holds the row headers.

    Attributes:
        head: Column headers; all empty for a table without.
        rows: Cells of each row, as many as there are columns; plain strings are cells too.
        numeric: Whether all columns but the first hold numbers, which are aligned to the right.
        code: Whether all columns but the first are shown as code.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    numeric: bool = True
    code: bool = False

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, all cells as `Cell`."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]
