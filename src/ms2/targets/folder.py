"""Target images from a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from ms2.core.bounds import PositiveInt
from ms2.core.errors import OnError
from ms2.core.images import Fit
from ms2.core.paths import UserPath
from ms2.targets.base import Target
from ms2.targets.image_folder import ImageFolder
from ms2.world import World


class Folder(Target):
    """Images in a folder and its subfolders.

    Args:
        world: The world; its renderer defines image size and channels.
        root: The folder.
        fit: For other aspect ratios: "crop" fills the size and crops, "pad" adds black bars, "stretch" distorts.
        on_error: How to handle unreadable files: "raise" or "skip" with a warning.
        limit: Use only the first n images; null for all.

    Example:
        >>> target = Folder(world, "photographs", limit=1000)
        >>> images = target.preview(4)
    """

    def __init__(
        self,
        world: World,
        root: UserPath,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        limit: PositiveInt | None = None,
    ) -> None:
        channels: Literal[1, 3] = 1 if world.renderer.channels == 1 else 3
        self.images = ImageFolder(root, world.renderer.size, channels, fit, on_error, limit)

    @property
    def files(self) -> list[Path]:  # type: ignore[override]
        """The images' files."""
        return self.images.paths

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> list[UInt8[Tensor, "c h w"]]:
        """Read several images from disk."""
        return [self.images[i] for i in indices]

    def fingerprint(self) -> str:
        """Compute a hash of names, sizes and times of the files."""
        return self.images.fingerprint()

    def verify(self) -> None:
        """Decode every file once; the images are kept, if they fit."""
        self.images.verify(self.kept.max_bytes)
        decoded, self.images.decoded = self.images.decoded, {}
        self.kept.add((i, decoded[path]) for i, path in enumerate(self.images.paths) if path in decoded)
