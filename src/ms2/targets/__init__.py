"""Target images, whose distribution the generated images are to match."""

from ms2.targets.base import Target
from ms2.targets.folder import Folder
from ms2.targets.image_folder import ImageFolder
from ms2.targets.kitti import Kitti
from ms2.targets.shards import Shards
from ms2.targets.synthetic import Synthetic

__all__ = ["Folder", "ImageFolder", "Kitti", "Shards", "Synthetic", "Target"]
