"""A data set's card: the Markdown of its README as HTML, and no HTML of its own.

Headings, paragraphs, lists, tables, block quotes, fenced code, and in a line code, bold, italics and links to the web.
Anything else, tags above all, is shown as the text that it is.
"""

import re
from collections.abc import Callable, Sequence

from ms2.report.markup import Html, element, fragment, table

SPANS: list[tuple[str, Callable[[re.Match[str]], Html]]] = [
    (r"`([^`]+)`", lambda m: element("code", m[1])),
    (r"!\[([^\]]*)\]\([^)]*\)", lambda m: Html()),  # an image is a file beside the card; the page shows samples itself
    (r"\[([^\]]+)\]\((https?://[^)\s]+)\)", lambda m: element("a", inline(m[1]), href=m[2], rel="noopener noreferrer")),
    (r"\[([^\]]+)\]\([^)\s]*\)", lambda m: inline(m[1])),  # files beside the card, which this page does not have
    (r"\*\*(.+?)\*\*", lambda m: element("strong", inline(m[1]))),
    (r"(?<![\w*])[*_](?=\S)(.+?)(?<=\S)[*_](?![\w*])", lambda m: element("em", inline(m[1]))),
]
SPAN = re.compile("|".join(f"({pattern})" for pattern, _ in SPANS))


def markdown(text: str, level: int = 3) -> Html:
    """The blocks of a text.

    Args:
        text: Markdown.
        level: Level of its largest headings on the page.
    """
    lines, blocks = text.replace("\r\n", "\n").expandtabs(4).split("\n"), []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        end = at + 1
        if fence := re.match(r"\s*(```+|~~~+)", lines[at]):
            while end < len(lines) and not lines[end].strip().startswith(fence[1]):
                end += 1
            blocks.append(element("pre", element("code", "\n".join(lines[at + 1 : end]))))
            end += 1
        elif heading := re.match(r"(#{1,6})\s+(.*?)\s*#*$", lines[at]):
            blocks.append(element(f"h{min(6, level - 1 + len(heading[1]))}", inline(heading[2])))
        elif re.fullmatch(r"\s*([-*_])(\s*\1){2,}\s*", lines[at]):
            blocks.append(element("hr"))
        else:
            while end < len(lines) and not _ends(lines[at], lines[end]):
                end += 1
            blocks.append(_block(lines[at:end], level))
        at = end
    return fragment(blocks)


def inline(text: str) -> Html:
    """One line, or several that make one paragraph."""
    parts: list[object] = []
    at = 0
    for found in SPAN.finditer(text):
        parts.append(text[at : found.start()])
        pattern, make = next((p, make) for p, make in SPANS if re.fullmatch(p, found[0], re.DOTALL))
        match = re.fullmatch(pattern, found[0], re.DOTALL)
        assert match is not None
        parts.append(make(match))
        at = found.end()
    return fragment(parts, text[at:])


def _ends(first: str, line: str) -> bool:
    """Whether a line does not belong to the block that began with ``first``."""
    if not line.strip() or re.match(r"#{1,6}\s|\s*(```|~~~)", line):
        return True
    if _item(first):
        return not (_item(line) or line.startswith("  "))
    return bool(_item(line)) or line.lstrip().startswith("|") != first.lstrip().startswith("|")


def _block(lines: Sequence[str], level: int) -> Html:
    if _item(lines[0]):
        return _list(lines)
    if lines[0].lstrip().startswith("|") and len(lines) > 1 and re.fullmatch(r"[\s|:-]+", lines[1]):
        rows = [_cells(line) for line in (lines[0], *lines[2:])]
        rows = [[*row, *[Html()] * (len(rows[0]) - len(row))][: len(rows[0])] for row in rows]
        return table(rows[0], rows[1:], numeric=False)
    if lines[0].lstrip().startswith(">"):
        return element("blockquote", markdown("\n".join(line.lstrip()[1:] for line in lines if line.strip()), level))
    return element("p", inline("\n".join(line.strip() for line in lines)))


def _item(line: str) -> re.Match[str] | None:
    return re.match(r"(\s*)([-*+]|\d+[.)])\s+(.*)", line)


def _list(lines: Sequence[str]) -> Html:
    """Items of one level; what stands further to the right is a list within the last of them, or its text."""
    first = _item(lines[0])
    assert first is not None
    items: list[tuple[list[str], list[str]]] = []
    for line in lines:
        found = _item(line)
        if found and len(found[1]) <= len(first[1]):
            items.append(([found[3]], []))
        elif found or items[-1][1]:
            items[-1][1].append(line)
        else:
            items[-1][0].append(line.strip())
    return element(
        "ul" if first[2] in "-*+" else "ol",
        [element("li", inline("\n".join(text)), _list(inner) if inner else None) for text, inner in items],
    )


def _cells(line: str) -> list[Html]:
    return [inline(cell.strip().replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
