"""Straight-through gradient: costs of the images' features, derivatives of features of the scenes' true attributes."""

from ms2.gradients.pathwise import Pathwise


class StraightThrough(Pathwise):
    """Straight-through gradient: costs use the features of images, derivatives those of the scenes' true attributes.

    An extractor that was trained to read attributes off images follows them up to errors, which for small objects
    change from pixel to pixel: the derivative through its pixels is then mostly that of its errors. For digits of
    8 pixels, the predicted column has a derivative of -0.9 by the true one, with a deviation of 16, through the image,
    and the derivative of the truth has no such noise. What is neglected is that one object may hide another. It needs
    no derivative of the renderer, nor the time to compute one, but features that are a `SceneFeatureExtractor`.

    Example:
        >>> learner = ParameterLearner(KDE({"columns": 0.01}), StraightThrough())  # doctest: +SKIP
    """

    through_images = False
    straight_through = True
