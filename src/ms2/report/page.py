"""The page itself: sections under a title, with style and script inside, so that one file is all there is."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ms2
from ms2.report.markup import Html, element, fragment

STYLE, SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        title: Its heading, and its name in the list of sections.
        content: What it holds; empty for a section that is left out.
    """

    title: str
    content: Html


def page(kind: str, title: str, lead: Html, sections: Sequence[Section]) -> str:
    """The whole document.

    The browser is told to load nothing and to run no script but the page's own (Content Security Policy).

    Args:
        kind: What is reported on, above the title.
        title: Name of the run or the data set.
        lead: What stands below the title.
        sections: What follows.
    """
    kept = [section for section in sections if section.content]
    names = [section.title.lower().replace(" ", "-") for section in kept]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{title} · ms2 {kind}"),
        element("style", Html(STYLE)),
    )
    links = [element("a", s.title, href=f"#{name}") for s, name in zip(kept, names, strict=True)]
    body = element(
        "body",
        element("header", element("p", kind, class_="kind"), element("h1", title), lead),
        element("nav", links, aria_label="sections"),
        element(
            "main",
            [
                element("section", element("h2", s.title, id=f"{name}-title"), s.content, id=name,
                        aria_labelledby=f"{name}-title")
                for s, name in zip(kept, names, strict=True)
            ],
        ),
        element("footer", f"Written by ms2 {ms2.__version__} (ms2 report)."),
        element("div", id="tip", role="tooltip", hidden=True),
        element("script", Html(SCRIPT)),
    )  # fmt: skip
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def chips(items: Sequence[tuple[str, object]]) -> Html:
    """Short facts in a row."""
    shown = [element("div", element("dt", name), element("dd", value)) for name, value in items if value is not None]
    return element("dl", shown, class_="chips")


def commands(lines: Mapping[str, str]) -> Html:
    """Commands by what they do."""
    return fragment(
        [
            element("div", element("p", what, class_="note"), element("pre", element("code", line)))
            for what, line in lines.items()
        ]
    )
