"""Cards of data sets: Markdown as HTML, without markup of their own."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import Node, make_set, page_of, parse

from ms2.report.card import render_card

CARD = """\
# Title with `code`

A paragraph of *two*
lines, **bold _and_ more**, a [link](https://example.org/a_b) and 2 * 3 * 4 snake_case_names.

## Lists

- one
- two, which
  goes on
  - inner `x`
  - inner
- three

1. first
2. second

> quoted *text*

```python
a = "<b>"

# no heading
```

---

Last one.
"""


def test_headings_paragraphs_lists_quotes_and_code() -> None:
    tree = parse(render_card(CARD))
    assert [(node.tag, node.text) for node in tree.all() if node.tag[0] == "h" and node.tag != "hr"] == [
        ("h3", "Title with code"), ("h4", "Lists"),
    ]  # fmt: skip
    assert [node.text for node in tree.all("em")] == ["two", "and", "text"]
    assert [node.text for node in tree.all("strong")] == ["bold and more"]
    [link] = tree.all("a")
    assert (link.text, link.attributes) == ("link", {"href": "https://example.org/a_b", "rel": "noopener noreferrer"})
    assert "2 * 3 * 4 snake_case_names" in tree.text
    outer, inner = tree.all("ul")
    items = [node for node in outer.children if isinstance(node, Node)]
    assert [node.text.split("\n")[0] for node in items] == ["one", "two, which", "three"]
    assert [node.text for node in inner.all("li")] == ["inner x", "inner"]
    assert [node.text for node in tree.all("ol")[0].all("li")] == ["first", "second"]
    assert tree.all("blockquote")[0].text.strip() == "quoted text"
    assert tree.all("pre")[0].text == 'a = "<b>"\n\n# no heading\n'
    assert len(tree.all("hr")) == 1 and tree.all("p")[-1].text == "Last one."


def test_tables_of_cards() -> None:
    tree = parse(render_card("before\n\n| a | b |\n|---|--:|\n| `x` | 1 \\| 2 |\n| **y** | |\n\nafter"))
    cells = [[cell.text for cell in row.all() if cell.tag in ("td", "th")] for row in tree.all("tr")]
    assert cells == [["a", "b"], ["x", "1 | 2"], ["y", ""]]
    assert len(tree.all("code")) == len(tree.all("strong")) == 1
    assert [node.text for node in tree.all("p")] == ["before", "after"]


def test_images_and_files_beside_the_card_are_left_out() -> None:
    tree = parse(render_card("![picture](sample.png) [file](scenes/1.json) [script](javascript:alert(1)) <b>bold</b>"))
    assert not tree.all("img") and not tree.all("a") and not tree.all("b")
    assert tree.text.split() == ["file", "[script](javascript:alert(1))", "<b>bold</b>"]


@given(st.text(alphabet="ab*_`[](){}<>#|-.1 \n\t>!~\\&\"'/:", max_size=80))
def test_no_card_can_bring_its_own_markup(text: str) -> None:
    """Every element is one of Markdown's own, every link goes to the web, and the words are still there."""
    tree = parse(render_card(text))
    allowed = {"p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "code", "pre", "em", "strong", "hr", "blockquote", "a",
               "table", "thead", "tbody", "tr", "th", "td", "div", "br", "span"}  # fmt: skip
    assert {node.tag for node in tree.all()} <= allowed
    for node in tree.all("a"):
        assert re.match(r"https?://", node.attributes["href"])
    if "[" not in text and "|" not in text and "~" not in text and "`" not in text:
        assert set(re.findall(r"[ab]+", text)) == set(re.findall(r"[ab]+", tree.text))


@pytest.mark.parametrize(
    "text", ["> " * 3000 + "x", "- " * 3000, "*_" * 3000 + "x" + "_*" * 3000, "[" * 5000, "`" * 5001]
)
def test_a_card_that_is_nested_too_deep_does_no_harm(tmp_path: Path, text: str) -> None:
    folder = make_set(tmp_path / "set", scenes=1)
    (folder / "README.md").write_text(text)
    began = time.process_time()
    render_card(text)
    assert time.process_time() - began < 3
    page_of(folder)
