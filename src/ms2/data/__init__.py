"""Target images and the LightningDataModule that streams them."""

from ms2.data.images import ImageFolder
from ms2.data.module import TargetImages
from ms2.data.target import Folder, Synthetic, Target

__all__ = ["Folder", "ImageFolder", "Synthetic", "Target", "TargetImages"]
