"""The grammar of Aerial 2D (section 4.2)."""

from ms2.grammar.grammar import Grammar


class Aerial2D(Grammar):
    """Any number of roads with any number of cars on each. K = 6 rules; r roads take 2 + sum of (3 + their cars) steps.

    A road has no terminal of its own: the non-terminal is the object, and its cars are its children.
    """

    def __init__(self) -> None:
        super().__init__(
            """
            Scene -> Roads
            Roads -> Road Roads | ε
            Road  -> Cars
            Cars  -> car Cars | ε
            """,
            renderable=["Road", "car"],
        )
