"""Reading of YAML without surprises: no Python tags, no key given twice, and bounds on what a text may expand to."""

import re
from typing import Any

import yaml

from ms2.core.errors import UserError

MAX_CHARACTERS = 1_000_000
MAX_NODES = 20_000
"""Values of a text with all its aliases filled in."""
MAX_DEPTH = 100
"""Collections within each other."""


class YamlLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML loader without Python tags, which parses ``3e-3`` as a number (YAML 1.1 parses it as a string)."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Compose a mapping; refuse a key that is given twice, of which one would be lost.

        Raises:
            UserError: If a key is given twice.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, known = key.start_mark.line + 1, (key.tag, key.value)
            if known in lines:
                before = "before" if lines[known] == line else f"in line {lines[known]}"
                raise UserError(f"line {line} gives the key {key.value!r} again, given {before}: remove one of them")
            lines[known] = line
        return node


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        UserError: If it gives a key twice, or is too large or too deep, also by aliases of aliases.
        yaml.YAMLError: If it isn't YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"it has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    _check_extent(text)
    try:
        return yaml.load(text, YamlLoader)
    except (UserError, yaml.YAMLError):
        raise
    except Exception as error:  # whatever the constructors of dates and tags raise
        raise UserError(f"it holds a value that YAML does not allow: {error}") from error


def _check_extent(text: str) -> None:
    """Check the number of nodes with all aliases filled in, and their depth, while the text is parsed."""
    sizes: dict[str, int] = {}  # of what anchors stand for
    open_nodes: list[tuple[str | None, int]] = []  # anchors of the collections around, and nodes before them
    total = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise UserError(f"line {line}: the alias *{event.anchor} contains itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
            total += 1
        if total > MAX_NODES:
            raise UserError(f"line {line}: it has more than {MAX_NODES:,} values, aliases filled in")
        if len(open_nodes) > MAX_DEPTH:
            raise UserError(f"line {line}: more than {MAX_DEPTH} collections within each other")
