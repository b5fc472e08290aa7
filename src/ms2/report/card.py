"""Rendering of a data set's Markdown card as HTML."""

import re
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

HEADING_LEVEL = 3
"""Level of a card's largest headings on the page."""


class CardRenderer(RendererHTML):
    """HTML of Markdown tokens, without images, and with links to the web only.

    Images are files beside the card, and so are relative links; the page has neither.
    """

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Leave out an image."""
        return ""

    def heading_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Open a heading, which is smaller than those of the page."""
        return f"<{self._heading(tokens[idx])}>"

    def heading_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Close a heading."""
        return f"</{self._heading(tokens[idx])}>\n"

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Open a table that scrolls sideways if it is too wide."""
        return '<div class="scroll" tabindex="0"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Close a table."""
        return "</table></div>\n"

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Open a link to the web; keep the text alone of any other."""
        target = str(tokens[idx].attrGet("href") or "")
        if not re.match(r"https?://", target):
            return "<span>"
        tokens[idx].attrSet("rel", "noopener noreferrer")
        return self.renderToken(tokens, idx, options, env)

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
        """Close a link."""
        depth = 0
        for token in reversed(tokens[: idx + 1]):
            depth += token.nesting if token.type in ("link_open", "link_close") else 0
            if depth == 0:
                break
        return "</a>" if re.match(r"https?://", str(token.attrGet("href") or "")) else "</span>"

    def _heading(self, token: Token) -> str:
        return f"h{min(6, HEADING_LEVEL - 1 + int(token.tag[1:]))}"


def render_card(text: str) -> Markup:
    """Convert Markdown (CommonMark and tables) to HTML; HTML in the text is escaped."""
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=CardRenderer).enable("table")
    return Markup(parser.render(text))
