"""HTML from Python calls: text is escaped wherever it is put in, so nothing that data says can become markup."""

import html
from collections.abc import Iterable, Sequence

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}
"""Elements that hold nothing and have no end."""


class Html(str):
    """Markup. Every other string is text."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: object) -> Html:
    """One element.

    Args:
        tag: Its name.
        content: What it holds: `Html` as it is, lists of contents, nothing for None, and all else as escaped text.
        attributes: Its attributes, ``class_`` for ``class`` and ``data_tip`` for ``data-tip``. True stands for one
            without a value, None and False for none.
    """
    opened = [tag]
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            opened.append(name)
        elif value is not None and value is not False:
            opened.append(f'{name}="{html.escape(_text(value))}"')
    start = f"<{' '.join(opened)}>"
    return Html(start if tag in VOID else f"{start}{fragment(*content)}</{tag}>")


def fragment(*content: object) -> Html:
    """Contents one after the other, escaped where they are not `Html`."""
    parts = []
    for part in content:
        if isinstance(part, Html):
            parts.append(str(part))
        elif isinstance(part, (list, tuple)):
            parts.append(str(fragment(*part)))
        elif part is not None:
            parts.append(html.escape(_text(part)))
    return Html("".join(parts))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], numeric: bool = True) -> Html:
    """A table that scrolls sideways where it is too wide; the first column names the rows.

    Args:
        head: Names of the columns.
        rows: Cells of each row, as many as there are columns.
        numeric: Whether all other columns hold numbers, which stand to the right.
    """
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]]) for row in rows
    ]
    names = element("tr", [element("th", name, scope="col") for name in head])
    inner = [element("thead", names) if any(head) else None, element("tbody", body)]
    return element("div", element("table", inner, class_="numbers" if numeric else None), class_="scroll")


def details(summary: object, *content: object, opened: bool = False) -> Html:
    """Something that is folded away under a line of text."""
    return element("details", element("summary", summary), content, open=opened)


def _text(value: object) -> str:
    """Numbers short, everything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
