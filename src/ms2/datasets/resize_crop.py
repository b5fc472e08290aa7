"""Transform boxes as images are when they are resized to cover a frame and cropped at the centre."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


class ResizeCrop:
    """Resize of an image until it covers a frame, and a crop around its centre.

    Args:
        image_size: Height and width of the image.
        size: Height and width of the frame; None keeps the image's.

    Attributes:
        scale: Pixels of the result per pixel of the image.
    """

    def __init__(self, image_size: tuple[int, int], size: tuple[int, int] | None) -> None:
        self.size = size or image_size
        self.scale = max(new / old for new, old in zip(self.size, image_size, strict=True))
        self.top, self.left = ((old - new / self.scale) / 2 for new, old in zip(self.size, image_size, strict=True))

    def transform_box(self, box: Box) -> Box:
        """Transform a box of the image; it may exceed the frame."""
        x0, y0, x1, y1 = box
        return (
            (x0 - self.left) * self.scale,
            (y0 - self.top) * self.scale,
            (x1 - self.left) * self.scale,
            (y1 - self.top) * self.scale,
        )

    def clip_box(self, box: Box) -> Box:
        """Clip a transformed box to the frame; negative sides mean no overlap."""
        height, width = self.size
        return max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)


def box_area(box: Box) -> float:
    """Compute the area of a box; 0 if a side is negative."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
