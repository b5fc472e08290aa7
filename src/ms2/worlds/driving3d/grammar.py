"""The grammar of driving scenes (section 4.3; the paper never published its own)."""

from ms2.grammar.grammar import Grammar

SCENARIOS = ("Rural", "Suburban", "Urban")
"""What kind of place a scene is, after Structured Domain Randomisation (Prakash et al. 2019)."""
OBJECTS = (
    "car",
    "truck",
    "cyclist",
    "pedestrian",
    "tree",
    "bush",
    "house",
    "building",
    "sign",
    "light",
    "pole",
)
"""What stands in it; a class's list is its plural."""


def plural(name: str) -> str:
    """Name of the list of a class, such as ``Cars``."""
    return name.capitalize() + ("es" if name.endswith("sh") else "s")


class Driving(Grammar):
    """One scenario, and any number of each kind of object. K = 29 rules; n objects take 14 + n steps.

    The scenario is an object of its own, to which all others belong: it has no picture, but the parameter prior lays
    out the street by it. One model learns all scenarios, each in its own context, and their frequencies with them;
    fix those with the structure model's ``fixed`` where they are not to be learned.
    """

    def __init__(self) -> None:
        lists = [plural(name) for name in OBJECTS]
        super().__init__(
            "\n".join(
                [
                    f"Scene -> {' | '.join(SCENARIOS)}",
                    *(f"{scenario} -> Objects" for scenario in SCENARIOS),
                    f"Objects -> {' '.join(lists)}",
                    *(f"{many} -> {one} {many} | ε" for one, many in zip(OBJECTS, lists, strict=True)),
                ]
            ),
            renderable=[*SCENARIOS, *OBJECTS],
        )
