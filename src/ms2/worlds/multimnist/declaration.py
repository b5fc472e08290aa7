"""Declaration of MultiMNIST: classes and attributes, from which grammar, priors and renderer derive their tables."""

import math

from ms2.scene.attributes import EVERY, Attribute

DIGITS = tuple(str(digit) for digit in range(10))
"""Classes, in order of their index."""
POSITION_ATTRIBUTES = (Attribute("x", 0, 1), Attribute("y", 0, 1))
"""Position of a digit as a fraction of the range in which it is fully on the canvas."""
ANGLE = Attribute("angle", -math.pi, math.pi, periodic=True)
"""Counter-clockwise rotation of a digit in radians."""
IMAGE_ATTRIBUTE = Attribute("example", 0, 1)
"""Selects one of the images of a digit's class."""
MUTABLE_ATTRIBUTES = {EVERY: (*POSITION_ATTRIBUTES, ANGLE)}
"""Attributes that may be learned; the angle only if the renderer rotates digits."""
