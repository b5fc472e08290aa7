"""Extension of griffe, which reads docstrings for the site: show their examples as code."""

import re
import textwrap
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Reads the section ``Example:`` as griffe reads ``Examples:``, and what follows two colons as a block of code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"::\n\n((?: +\S.*\n?|\n(?= ))+)", _fenced, text)


def _fenced(found: re.Match[str]) -> str:
    """Return an indented block as a fenced one, at the indentation that the text has."""
    code = textwrap.dedent(found[1]).strip("\n")
    return f":\n\n```text\n{code}\n```\n\n"
