"""Grammar of MultiMNIST (section 4.1)."""

from ms2.grammar.grammar import Grammar
from ms2.worlds.multimnist.declaration import DIGITS


class MultiMNIST(Grammar):
    """Grammar of MultiMNIST: a list of digits; K = 13 rules. A derivation with n digits has 2 + 2 n steps."""

    def __init__(self) -> None:
        super().__init__(
            f"""
            Scene  -> bg Digits
            Digits -> Digit Digits | ε
            Digit  -> {" | ".join(DIGITS)}
            """,
            renderable=list(DIGITS),
        )
