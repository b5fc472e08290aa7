"""Light and air of a batch of scenes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Environment:
    """Light and air of b scenes.

    Colours of things seen, sky and fog, are as a screen shows them. Lights are linear: what faces a sun of 1 under
    ambient light of 0 looks as its colour says. Light above 0.8 is compressed, as on film, so that it never quite burns
    out.

    Attributes:
        sun: Direction towards the sun, of any length.
        sun_colour: Its light; zeros for a cloudy day.
        ambient: Light from above, that of the sky.
        bounce: Light from below, that of the ground.
        fog: Share of light that is lost on each metre, near 0.
        fog_colour: Colour of what is infinitely far.
        horizon: Colour of the sky at the horizon.
        zenith: Colour of the sky overhead.
        softness: Metres from a shadow's edge to where it ends, on both sides. With a weak sun overhead and half a
            metre or more it gives a cloudy sky's shadows, without which cars seem to float.
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

    @classmethod
    def daylight(cls, number: int, device: torch.device | str = "cpu") -> "Environment":
        """Afternoons with little haze, all alike."""
        each = _repeated(number, device)
        fog, softness = each(0.002)[:, 0], each(0.0)[:, 0]
        light = (each(-0.5, -0.4, 0.7), each(1.5, 1.4, 1.22), each(0.5, 0.56, 0.65), each(0.26, 0.25, 0.23))
        return cls(*light, fog, each(0.78, 0.84, 0.9), each(0.78, 0.84, 0.9), each(0.3, 0.5, 0.8), softness)

    @classmethod
    def overcast(cls, number: int, device: torch.device | str = "cpu") -> "Environment":
        """Grey days, all alike."""
        each = _repeated(number, device)
        fog, softness = each(0.006)[:, 0], each(0.4)[:, 0]
        light = (each(0.1, -0.1, 1.0), each(0.8, 0.82, 0.84), each(0.42, 0.43, 0.45), each(0.22, 0.22, 0.22))
        return cls(*light, fog, each(0.8, 0.82, 0.84), each(0.84, 0.86, 0.88), each(0.7, 0.74, 0.79), softness)


def _repeated(number: int, device: torch.device | str) -> Callable[..., Float[Tensor, "b v"]]:
    """A function that repeats its arguments for each scene."""
    return lambda *values: torch.tensor(values, device=device).expand(number, -1).contiguous()
