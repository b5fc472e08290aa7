"""``ms2 schema``: a JSON Schema of configurations, by which editors complete and check them."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any, get_args, get_origin

from jsonargparse import ArgumentParser
from jsonargparse._completions_jsonschema import ParserJsonschema, anyof_schema

from ms2.core import configurations, registry
from ms2.core.bounds import Bounds, bounds_of
from ms2.core.parsing import parser_of
from ms2.core.registry import Plugin

if TYPE_CHECKING:
    from ms2.cli.commands import Command

Schema = dict[str, Any]
"""A JSON Schema, of the draft 2020-12."""
KEYWORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""JSON Schema's names of bounds."""


def schema_command(command: "Command", argv: list[str]) -> None:
    """Print the schema."""
    command.parser().parse_args(argv)
    from ms2.cli.commands import COMMANDS

    print(json.dumps(configuration_schema(parser_of(lambda: COMMANDS["fit"].run([]))), indent=1))


def configuration_schema(parser: ArgumentParser) -> Schema:
    """Describe configurations: the settings of a parser, of all plug-ins that are installed, and the key ``base``.

    No setting is required, as a configuration may have it from its base.

    Args:
        parser: The parser of ``ms2 fit``.
    """
    schema: Schema = without_required(PluginSchema().generate(parser))  # type: ignore[no-untyped-call]
    names = [*configurations.experiments(), "base", *(f"worlds/{name}" for name in configurations.worlds())]
    name = {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"[./]"}]}
    schema["properties"][configurations.BASES_KEY] = {
        "anyOf": [name, {"type": "array", "items": name}],
        "description": "Configurations that this one is merged on top of, by name or as files.",
    }
    return schema | {"title": "Configuration of ms2", "description": "Settings of a run, see 'ms2 fit --help'."}


class PluginSchema(ParserJsonschema):
    """Describes the settings of a parser: plug-ins by their short names too, and numbers with their bounds."""

    def typehint_schema(self, typehint: Any, action: Any) -> Schema:
        """Describe a value of a type; of bounded numbers also their bounds."""
        if (bounds := bounds_of(typehint)) is not None:
            schema: Schema = super().typehint_schema(get_args(typehint)[0], action)
            return schema | limits(bounds)
        found: Schema = super().typehint_schema(typehint, action)
        return found

    def class_ref(self, class_type: Any, action: Any, subclass: bool) -> Schema:
        """Describe an object of a class by reference; that of another package is not described."""
        if not (get_origin(class_type) or class_type).__module__.startswith("ms2."):
            return {}
        found: Schema = super().class_ref(class_type, action, subclass)
        return found

    def subclass_def(self, class_type: Any, action: Any) -> Schema:
        """Describe all that a setting accepts which is an object of a class.

        These are the name of a class, alone or with arguments, and arguments alone: for the class that the base of the
        configuration names, or the only one that there is.
        """
        classes = selectable(class_type)
        names = [cls.__name__ for cls in classes]
        other = {"type": "string", "pattern": r"\."}  # a dotted name, also of a module that is not imported here
        named = [self.class_path_schema(path_of(cls), action) for cls in classes]
        direct = [] if issubclass(class_type, Plugin) else [self.class_parser_schema(class_type, action)]
        own = {"properties": {"init_args": {"type": "object"}}, "additionalProperties": False, "minProperties": 1}
        return anyof_schema([{"enum": names}, other, *named, *direct, {"type": "object", **own}])

    def class_path_schema(self, class_path: str, action: Any) -> Schema:
        """Describe the name of a class with its arguments."""
        schema: Schema = super().class_path_schema(class_path, action)
        name = class_path.rpartition(".")[2]
        schema["properties"]["class_path"] = {"anyOf": [{"enum": [name]}, {"type": "string", "pattern": rf"\.{name}$"}]}
        return schema


def selectable(base: type) -> list[type]:
    """Return the classes that can be named where an object of a class is asked for, of modules that are still there."""
    classes = [cls for classes in registry.registered(base).values() for cls in classes]
    return [cls for cls in classes if getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls]


def path_of(cls: type) -> str:
    """Return the dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def limits(bounds: Bounds) -> Schema:
    """Describe bounds of numbers in JSON Schema's keywords."""
    return {KEYWORDS[key]: value for key, value in dataclasses.asdict(bounds).items() if value is not None}


def without_required(schema: Any) -> Any:
    """Drop the lists of required settings from a schema, but for the key that names a class."""
    if isinstance(schema, list):
        return [without_required(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: without_required(value) for key, value in schema.items() if key != "required"}
    return found | ({"required": ["class_path"]} if "class_path" in schema.get("required", ()) else {})
