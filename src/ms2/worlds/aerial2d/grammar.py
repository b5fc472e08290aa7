"""The grammar of Aerial 2D (section 4.2)."""

from ms2.grammar.grammar import Grammar


class Aerial2D(Grammar):
    """Grammar of Aerial 2D: roads, each with cars; K = 6 rules.

    A derivation with r roads has 2 + sum of (3 + their cars) steps.

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
