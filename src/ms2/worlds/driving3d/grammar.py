"""Grammar of driving scenes (section 4.3; the paper did not publish its own)."""

from ms2.grammar.grammar import Grammar
from ms2.metrics.statistics import plural
from ms2.worlds.driving3d.declaration import OBJECTS, SCENARIOS


def list_symbol(name: str) -> str:
    """Return the list non-terminal of a class, such as ``Cars``."""
    return plural(name).capitalize()


class Driving(Grammar):
    """Grammar of driving scenes: one scenario, then a list of objects per class; K = 29 rules.

    A derivation with n objects has 14 + n steps. The scenario is an object, the parent of all others: it is not
    rendered, but the parameter prior chooses the street's cross-section by it. One model learns all scenarios with
    their frequencies; set the structure model's ``fixed_rule_weights`` to keep the frequencies fixed.
    """

    def __init__(self) -> None:
        lists = [list_symbol(name) for name in OBJECTS]
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
