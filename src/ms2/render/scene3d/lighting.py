"""Lighting and atmosphere of a batch of 3D scenes."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Lighting:
    """Lighting and atmosphere of b scenes.

    Colours of sky and fog are display values in [0, 1]. Light intensities are linear: a surface that faces a sun of
    intensity 1, without ambient light, is displayed in its own colour. Intensities above 0.8 are compressed instead of
    clipped.

    Attributes:
        sun: Direction towards the sun, of any length.
        sun_colour: Intensity of the sun; zeros for none.
        ambient: Intensity of the light from above, that of the sky.
        bounce: Intensity of the light from below, reflected by the ground.
        fog: Extinction coefficient per metre: exp(-fog * distance) of the light passes.
        fog_colour: Colour of what is infinitely far away.
        horizon: Colour of the sky at the horizon.
        zenith: Colour of the sky overhead.
        softness: Half width of a shadow's penumbra in metres. A weak sun overhead with 0.5 m or more gives the shadows
            of a cloudy sky, without which cars seem to float.
    """

    sun: Float[Tensor, "b 3"]
    sun_colour: Float[Tensor, "b 3"]
    ambient: Float[Tensor, "b 3"]
    bounce: Float[Tensor, "b 3"]
    fog: Float[Tensor, " b"]
    fog_colour: Float[Tensor, "b 3"]
    horizon: Float[Tensor, "b 3"]
    zenith: Float[Tensor, "b 3"]
    softness: Float[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.sun)

    def to(self, device: torch.device) -> "Lighting":
        """Move to a device."""
        return Lighting(*(getattr(self, field.name).to(device) for field in fields(self)))

    @classmethod
    def daylight(cls, number: int, device: torch.device | str = "cpu") -> "Lighting":
        """Build a sunny afternoon with little haze, the same for ``number`` scenes."""
        each = _repeated(number, device)
        fog, softness = each(0.002)[:, 0], each(0.0)[:, 0]
        light = (each(-0.5, -0.4, 0.7), each(1.5, 1.4, 1.22), each(0.5, 0.56, 0.65), each(0.26, 0.25, 0.23))
        return cls(*light, fog, each(0.78, 0.84, 0.9), each(0.78, 0.84, 0.9), each(0.3, 0.5, 0.8), softness)

    @classmethod
    def overcast(cls, number: int, device: torch.device | str = "cpu") -> "Lighting":
        """Build an overcast day, the same for ``number`` scenes."""
        each = _repeated(number, device)
        fog, softness = each(0.006)[:, 0], each(0.4)[:, 0]
        light = (each(0.1, -0.1, 1.0), each(0.8, 0.82, 0.84), each(0.42, 0.43, 0.45), each(0.22, 0.22, 0.22))
        return cls(*light, fog, each(0.8, 0.82, 0.84), each(0.84, 0.86, 0.88), each(0.7, 0.74, 0.79), softness)


def display_values(light: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert linear light to display values in [0, 1]: compress highlights above 0.8, then take the square root.

    Args:
        light: Linear light, from 0 on.
    """
    light = light.clamp(min=0)
    return torch.where(light > 0.8, 1 - 0.2 * ((0.8 - light) * 5).exp(), light).sqrt()


def _repeated(number: int, device: torch.device | str) -> Callable[..., Float[Tensor, "b v"]]:
    """Return a function that repeats its arguments for each scene."""
    # filled there, as copies to a device wait for it
    return lambda *values: torch.stack([torch.full((number,), value, device=device) for value in values], 1)
