"""Light and colours of an image as a whole."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ms2.core.bounds import PositiveFloat
from ms2.core.errors import UserError
from ms2.features.base import Blocks, FeatureExtractor


class ImageColours(FeatureExtractor):
    """Describes light and colours by averages over the image: block ``colours``.

    They are the mean brightness, its standard deviation, the standard deviation around the horizon, which haze lowers,
    and the mean saturation, all of an image of 24 x 78 cells, so that they do not depend on its size. Not in the paper.

    Args:
        horizon: Fractions of the height between which the horizon is.

    Raises:
        UserError: If the fractions are not ascending.
    """

    def __init__(self, horizon: tuple[PositiveFloat, PositiveFloat] = (0.3, 0.55)) -> None:
        super().__init__()
        if not horizon[0] < horizon[1] <= 1:
            raise UserError(f"ImageColours.horizon must be two fractions in ascending order, not {tuple(horizon)}")
        self.horizon = horizon

    def forward(self, images: Float[Tensor, "b c h w"]) -> Blocks:
        """Compute the block of four averages."""
        small = F.adaptive_avg_pool2d(images, (24, 78))
        bright = small.mean(1)
        band = bright[:, round(24 * self.horizon[0]) : max(1, round(24 * self.horizon[1]))]
        saturation = 1 - (small.amin(1) + 1e-3) / (small.amax(1) + 1e-3)  # black has none
        values = bright.mean((1, 2)), bright.std((1, 2)), band.std((1, 2)), saturation.mean((1, 2))
        return {"colours": torch.stack(values, 1)}
