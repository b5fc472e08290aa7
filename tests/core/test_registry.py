"""Plug-ins register by subclassing and are found by name; every test has base classes of its own."""

import copy
import pickle
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from ms2.core import registry
from ms2.core.errors import UserError, suggest
from ms2.core.registry import (
    NameClashError,
    Plugin,
    UnknownPluginError,
    available,
    load_entry_points,
    look_up,
    registered,
)
from ms2.core.settings import Configured, fingerprint, settings_of
from ms2.grammar.grammar import Grammar
from ms2.priors.structure import ListLengthPrior


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """A table of kinds that no other test sees."""
    table: dict[str, type] = {}
    monkeypatch.setattr(registry, "KINDS", table)
    return table


def colours() -> type:
    """A fresh abstract base with two levels of subclasses."""

    class Colour(Plugin, ABC, kind="colours"):
        @abstractmethod
        def mix(self) -> None: ...

    class Amber(Colour):
        def mix(self) -> None: ...

    class Shade(Colour):
        """Still abstract."""

    class Blue(Shade):
        def mix(self) -> None: ...

    class DarkBlue(Blue): ...

    Colour.keep = (Amber, DarkBlue)  # a base holds its subclasses weakly
    return Colour


def named(name: str, base: type, module: str) -> type:
    return type(name, (base,), {"__module__": module, "__qualname__": name})


def test_a_base_class_declares_its_kind(kinds: dict[str, type]):
    base = colours()
    assert kinds == {"colours": base}


def test_subclasses_of_all_depths_are_available_in_alphabetical_order_without_abstract_ones():
    base = colours()
    assert list(available(base)) == ["Amber", "Blue", "DarkBlue"]
    assert available("colours") == available(base)
    assert all(name == cls.__name__ and issubclass(cls, base) for name, cls in available(base).items())


def test_a_class_reached_along_two_ways_is_no_clash():
    class Base(Plugin): ...

    class Left(Base): ...

    class Right(Base): ...

    class Both(Left, Right): ...

    assert available(Base) == {"Base": Base, "Both": Both, "Left": Left, "Right": Right}


def test_look_up_by_base_and_by_kind():
    base = colours()
    assert look_up(base, "Amber").__name__ == "Amber"
    assert look_up("colours", "Amber") is look_up(base, "Amber")


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    base = colours()
    message = "no plug-in among the colours is called 'blu'. Did you mean 'Blue'? Available: Amber, Blue, DarkBlue."
    with pytest.raises(UnknownPluginError) as error:
        look_up("colours", "blu")
    assert str(error.value) == message
    with pytest.raises(UnknownPluginError, match="no plug-in among the Colour is called 'blu'"):
        look_up(base, "blu")


def test_an_abstract_class_cannot_be_looked_up():
    colours()
    with pytest.raises(UnknownPluginError, match="is called 'Shade'"):
        look_up("colours", "Shade")


def test_what_only_the_program_makes_is_not_offered_but_its_subclasses_are():
    base = colours()

    class Mixed(base, selectable=False):
        def mix(self) -> None: ...

    class Grey(Mixed): ...

    assert list(available("colours")) == ["Amber", "Blue", "DarkBlue", "Grey"]
    assert Mixed().settings == {}, "the program can make it"
    with pytest.raises(UnknownPluginError, match="is called 'Mixed'"):
        look_up("colours", "Mixed")
    assert look_up("colours", "Grey") is Grey


def test_two_classes_of_one_name_are_no_clash_if_only_one_may_be_named():
    class Base(Plugin): ...

    room = named("Room", Base, "house")
    hidden = type("Room", (Base,), {"__module__": "hotel"}, selectable=False)
    assert look_up(Base, "Room") is room is not hidden


def test_an_unknown_kind_is_answered_with_the_nearest_and_all():
    base = colours()
    assert base

    class Shape(Plugin, kind="shapes"): ...

    with pytest.raises(UnknownPluginError) as error:
        look_up("color", "Amber")
    expected = "there is no kind of plug-in called 'color'. Did you mean 'colours'? Available: colours, shapes."
    assert str(error.value) == expected


@pytest.mark.parametrize("kind", [UserError, LookupError])
def test_an_unknown_plugin_is_an_error_of_the_user(kind: type[Exception]):
    with pytest.raises(kind):
        available("nothing")


def test_two_classes_of_one_name_are_an_error_that_names_their_modules():
    class Base(Plugin): ...

    one, two = named("Room", Base, "house"), named("Room", Base, "hotel")
    with pytest.raises(ValueError, match="two Base plug-ins are called 'Room'") as error:
        available(Base)
    assert one.__module__ in str(error.value)
    assert two.__module__ in str(error.value)
    assert str(error.value).endswith("Rename one of them.")


def test_a_clash_of_names_concerns_that_name_alone():
    class Base(Plugin, kind="bases"): ...

    one, two = named("Room", Base, "house"), named("Room", Base, "hotel")
    hall = named("Hall", Base, "house")
    assert look_up("bases", "Hall") is hall
    assert {name: set(classes) for name, classes in registered("bases").items()} == {
        "Base": {Base},
        "Hall": {hall},
        "Room": {one, two},
    }
    with pytest.raises(NameClashError, match=r"two Base plug-ins are called 'Room': (house and hotel|hotel and house)"):
        look_up("bases", "Room")
    assert issubclass(NameClashError, UserError)


def test_a_kind_is_declared_once():
    """Or the plug-ins of the first would be gone."""
    base = colours()
    with pytest.raises(NameClashError, match=r"Hue declares the kind of plug-ins 'colours', as .*Colour does: derive"):
        type("Hue", (Plugin,), {"__module__": "acme"}, kind="colours")
    assert list(available("colours")) == ["Amber", "Blue", "DarkBlue"] and {"colours": base} == registry.KINDS


def test_one_name_in_two_kinds_is_no_clash():
    class House(Plugin): ...

    class Hotel(Plugin): ...

    rooms = named("Room", House, "m"), named("Room", Hotel, "m")
    assert (look_up(House, "Room"), look_up(Hotel, "Room")) == rooms


def test_a_module_imported_again_is_no_clash():
    class Base(Plugin): ...

    rooms = [named("Room", Base, "house") for _ in range(2)]
    assert look_up(Base, "Room") in rooms


@pytest.mark.parametrize(
    ("name", "names", "text"),
    [
        ("road", ["Road", "Car"], "Did you mean 'Road'? Available: Car, Road."),
        ("Raod", ["Road", "Car"], "Did you mean 'Road'? Available: Car, Road."),
        ("xyz", ["Road", "Car"], "Available: Car, Road."),
        ("xyz", [], "Available: none."),
        ("Road", ["Road"], "Available: Road."),  # known, but not to be had here
    ],
)
def test_suggestion(name: str, names: list[str], text: str):
    assert suggest(name, names) == text


def test_suggestion_lists_names_that_differ_in_case_only():
    assert suggest("xyz", ["Digit", "digit"]) == "Available: Digit, digit."


def install(folder: Path, **modules: str) -> None:
    """Write modules, and a package's metadata that declares each as a plug-in under its name."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    info = folder / "ms2_test_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ms2-test-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ms2.plugins]\n" + "".join(f"{name} = {name}\n" for name in modules))


GOOD = "from ms2.core.registry import Plugin\nclass Base(Plugin): ...\nclass Room(Base): ...\n"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("import ms2_no_such_module", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("import sys\nsys.exit(3)", "SystemExit(3)"),
        ("raise SystemExit", "SystemExit()"),
        ("class Stop(BaseException): ...\nraise Stop('enough')", "Stop('enough')"),
        ("raise GeneratorExit", "GeneratorExit()"),
    ],
)
def test_a_broken_entry_point_is_named_in_a_warning_and_the_others_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, reason: str
):
    install(tmp_path, ms2_broken_plugin=broken, ms2_good_plugin=GOOD)
    monkeypatch.setattr("ms2.core.registry._LOADED", set())
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.warns(UserWarning) as caught:
            load_entry_points()
        (text,) = [str(w.message) for w in caught]
        assert text.startswith("plug-in 'ms2_broken_plugin' (ms2_broken_plugin) did not load: " + reason)
        assert list(available(sys.modules["ms2_good_plugin"].Base)) == ["Base", "Room"]
    finally:
        sys.modules.pop("ms2_good_plugin", None)


def test_ctrl_c_while_a_plugin_is_imported_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, ms2_slow_plugin="raise KeyboardInterrupt")
    monkeypatch.setattr("ms2.core.registry._LOADED", set())
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        load_entry_points()


def test_entry_points_of_other_groups_stay_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, ms2_foreign_plugin=GOOD)
    entries = tmp_path / "ms2_test_plugins-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text().replace("ms2.plugins", "ms2.other"))
    monkeypatch.syspath_prepend(str(tmp_path))
    load_entry_points()
    assert "ms2_foreign_plugin" not in sys.modules


# -- settings ----------------------------------------------------------------------------------------------


class Lamp(Configured):
    def __init__(self, watts: float, colour: str = "white", *, friends: Any = ()) -> None:
        self.brightness = 10 * watts


class Chandelier(Lamp):
    """Inherits how it is made."""


def test_settings_are_the_arguments_with_defaults():
    assert Lamp(3, friends=[1]).settings == {"watts": 3, "colour": "white", "friends": [1]}
    assert Chandelier(watts=2, colour="red").settings == {"watts": 2, "colour": "red", "friends": ()}


def test_what_takes_no_arguments_has_no_settings():
    class Stone(Configured): ...

    assert Stone().settings == {}


def test_a_wrong_call_fails_as_python_does():
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'watts'"):
        Lamp()  # type: ignore[call-arg]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_their_settings(duplicate: Any):
    lamp = duplicate(Lamp(3, "red"))
    assert lamp.settings == {"watts": 3, "colour": "red", "friends": ()}
    assert lamp.brightness == 30


def test_settings_as_plain_data_all_the_way_down():
    lamp = Lamp(3, friends={"left": Lamp(1.5), 2: (None, True, Path("a") / "b")})
    name = f"{__name__}.Lamp"
    assert settings_of(lamp) == {
        "class": name,
        "watts": 3,
        "colour": "white",
        "friends": {
            "left": {"class": name, "watts": 1.5, "colour": "white", "friends": []},
            "2": [None, True, "a/b"],
        },
    }


def test_what_has_no_settings_cannot_be_described():
    with pytest.raises(TypeError) as error:
        settings_of(Lamp(1, friends=[1j]))
    assert str(error.value) == "1j has no settings: derive its class from ms2.core.settings.Configured"


def test_fingerprints_are_equal_for_what_was_made_alike():
    def make(weight: float) -> list[object]:
        return [Grammar("S -> a | b"), ListLengthPrior(weights={"S": [1, weight]}), Lamp(watts=1)]

    assert fingerprint(*make(2)) == fingerprint(*make(2))
    different = [make(2), make(3), make(2)[::-1], make(2)[:2], [*make(2)[:2], Chandelier(1)], [*make(2)[:2], Lamp(2)]]
    assert len({fingerprint(*things) for things in different}) == len(different)
    assert fingerprint(Lamp(1)) == fingerprint(Lamp(colour="white", watts=1))
