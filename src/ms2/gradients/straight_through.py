"""Straight-through gradient, past the pixels."""

from ms2.gradients.pathwise import Pathwise


class StraightThrough(Pathwise):
    """As if features were what they read: through the scenes' own parameters, past the image.

    An extractor that was trained to read parameters off images follows them, give or take its errors, which for small
    objects change from pixel to pixel: the derivative through its pixels is then mostly that of its errors. For digits
    of 8 pixels, how far right they are read to be has a derivative of -0.9 by their place, with a deviation of 16
    through the image, and of none through what is read. Costs are those of the images all the same; what is neglected
    is that one object may hide another. It needs no derivative of the renderer, nor the time that one takes, and
    features that are a `AttributeExtractor`.
    """

    through_images = False
    straight_through = True
