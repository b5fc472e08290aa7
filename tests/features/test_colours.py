"""Light and colours of an image: averages that are known of plain images."""

import pytest
import torch

from ms2.core.errors import UserError
from ms2.features.colours import ImageColours


def test_colours_are_those_of_the_image_at_any_size() -> None:
    colours = ImageColours()
    grey = torch.full((1, 3, 48, 156), 0.25)
    assert torch.allclose(colours(grey)["colours"], torch.tensor([[0.25, 0, 0, 0]]), atol=1e-5)
    red = torch.zeros(1, 3, 48, 156)
    red[:, 0, :, :78] = 0.6  # the left half: brightness 0.2 and 0, saturation 1 and 0
    found = colours(red)["colours"]
    assert torch.allclose(found, torch.tensor([[0.1, 0.1, 0.1, 0.5]]), atol=2e-3)
    larger = torch.nn.functional.interpolate(red, scale_factor=2)
    assert torch.allclose(colours(larger)["colours"], found, atol=1e-5)


def test_the_horizon_lies_between_two_fractions() -> None:
    with pytest.raises(UserError, match="ascending"):
        ImageColours((0.5, 0.4))
