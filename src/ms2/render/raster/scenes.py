"""What the rasteriser is given beside meshes and cameras: instances, and the light that they stand in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class InstanceBatch:
    """At most n meshes placed in each of b scenes.

    Attributes:
        mesh: Number of the mesh in the library; -1 where a place is unused.
        transform: From the mesh's metres to the world's: an affine matrix, without a projection.
        colour: Colour of the paint, 0 to 1 as a screen shows it.
        labelled: For which instances areas and boxes are wanted. Ground and other things that nobody counts are
            better left out: what fills the image costs time. All if not given.
    """

    mesh: Int[Tensor, "b n"]
    transform: Float[Tensor, "b n 4 4"]
    colour: Float[Tensor, "b n 3"]
    labelled: Bool[Tensor, "b n"] | None = None

    def __len__(self) -> int:
        return len(self.mesh)

    @classmethod
    def upright(
        cls,
        mesh: Int[Tensor, "b n"],
        place: Float[Tensor, "b n 3"],
        yaw: Float[Tensor, "b n"],
        scale: Float[Tensor, "b n 3"],
        colour: Float[Tensor, "b n 3"],
        labelled: Bool[Tensor, "b n"] | None = None,
    ) -> "InstanceBatch":
        """Meshes that are stretched along their own axes, turned counter-clockwise around z, and moved.

        Args:
            mesh: Number of the mesh; -1 where a place is unused.
            place: Where the mesh's origin goes.
            yaw: Angle in radians.
            scale: Factors along x, y and z.
            colour: Colour of the paint.
            labelled: For which instances areas and boxes are wanted; all if not given.
        """
        # float32's own sine is rounded differently at different places of a tensor; pixels would depend on the batch
        cos, sin = yaw.double().cos().to(yaw.dtype), yaw.double().sin().to(yaw.dtype)
        x, y, z = scale.unbind(-1)
        zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
        rows = [cos * x, -sin * y, zero, place[..., 0], sin * x, cos * y, zero, place[..., 1]]
        rows += [zero, zero, z, place[..., 2], zero, zero, zero, one]
        return cls(mesh, torch.stack(rows, -1).unflatten(-1, (4, 4)), colour, labelled)


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
