"""The grammar of MultiMNIST (section 4.1)."""

from ms2.grammar.grammar import Grammar


class MultiMNIST(Grammar):
    """Any number of digits on a background. K = 13 rules; n digits take 2 + 2 n steps."""

    def __init__(self) -> None:
        super().__init__(
            """
            Scene  -> bg Digits
            Digits -> Digit Digits | ε
            Digit  -> 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9
            """,
            renderable=[str(digit) for digit in range(10)],
        )
