"""Target images and the LightningDataModule that streams them."""

from ms2.data.images import ImageFolder
from ms2.data.kitti import Kitti
from ms2.data.module import TargetImages
from ms2.data.shards import Shards
from ms2.data.target import Folder, Synthetic, Target

__all__ = ["Folder", "ImageFolder", "Kitti", "Shards", "Synthetic", "Target", "TargetImages"]
