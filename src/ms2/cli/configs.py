"""``ms2 configs``, and configurations by name on a command line."""

from typing import TYPE_CHECKING

import yaml

from ms2.core import configurations

if TYPE_CHECKING:
    from ms2.cli.commands import Command


def configs_command(command: "Command", argv: list[str]) -> None:
    """Print all configurations with a one-line description each, or the settings of one."""
    parser = command.parser()
    parser.add_argument("name", nargs="?", help="configuration to show, by name or as a file")
    name = parser.parse_args(argv).name
    if name is not None:
        print(yaml.safe_dump(configurations.load(name), sort_keys=False, default_flow_style=None), end="")
        return
    found = configurations.experiments()
    for title, path in found.items():
        print(f"{title:{max(map(len, found))}}  {configurations.first_comment(path)}")


def with_settings(words: list[str]) -> list[str]:
    """Replace the configurations on a command line by one YAML text: their settings, merged in order.

    The text comes first, so that settings on the command line take precedence wherever they stand.

    Args:
        words: Words of a command line, such as ``["--config", "multimnist_quick", "--name", "first"]``.

    Raises:
        UserError: If there is no such configuration.
    """
    others: list[str] = []
    names: list[str] = []
    remaining = iter(words)
    for word in remaining:
        key, equals, value = word.partition("=")
        if key == "-c" or (len(key) >= len("--co") and "--config".startswith(key)):
            names.append(value if equals else next(remaining, ""))
        else:
            others.append(word)
    if not names:
        return others
    return ["--config", yaml.safe_dump(configurations.load_all(names), sort_keys=False), *others]
