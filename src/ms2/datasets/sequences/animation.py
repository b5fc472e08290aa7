"""Animated picture of a sequence, with the track of each object, for the data set's card."""

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile

from PIL import Image, ImageDraw, ImageFont

from ms2.datasets.folder import DataSetFolder
from ms2.datasets.records import ImageRecord, ObjectLabel

ANIMATION = "sequence.gif"
"""File of the animation in a data set."""
MAX_FRAMES, MAX_WIDTH = 30, 416
"""Largest number of frames, and largest width in pixels: GIF is large."""
NUM_COLOURS = 64
MIN_HEIGHT = 6
"""Height of a box in pixels of the picture from which it has its track's number."""


def first_sequence(
    files: DataSetFolder, categories: Sequence[str], records: Callable[[], Iterable[ImageRecord]]
) -> bytes:
    """Draw the first sequence of a data set as GIF, with boxes, and the number of each object's track.

    Args:
        files: The data set's folder.
        categories: The labelled classes, some of which move.
        records: Iterates over the records of the data set.
    """
    shown = list(islice(takewhile(_is_of_first, records()), MAX_FRAMES))
    tracks = moving_tracks(shown)
    pictures = [draw_tracks(files, record, tracks) for record in shown]
    palette = pictures[len(pictures) // 2].quantize(NUM_COLOURS)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [record.frame.time for record in shown if record.frame is not None]
    milliseconds = round(1000 * times[1]) if len(times) > 1 else 1000
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return out.getvalue()


def moving_tracks(records: Sequence[ImageRecord]) -> set[int]:
    """Return the tracks of a sequence that move: indices of objects whose position changes."""
    first, *others = (record.scene.objects for record in records)
    places = [{name: value for name, value in one.attributes.items() if name in ("x", "y")} for one in first]
    return {i for objects in others for i, one in enumerate(objects) if places[i].items() - one.attributes.items()}


def draw_tracks(files: DataSetFolder, record: ImageRecord, tracks: set[int]) -> Image.Image:
    """Draw the boxes of some tracks on a frame, each with its number, in a colour of its own."""
    with Image.open(files.root / record.image.file) as image:
        picture = image.convert("RGB")
    scale = min(1.0, MAX_WIDTH / picture.width)
    if scale < 1:
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(9)
    for label in record.labels:
        if label.object in tracks and label.bbox is not None:
            x, y, w, h = (value * scale for value in label.bbox)
            draw.rectangle((x, y, x + w - 1, y + h - 1), outline=track_colour(label))
            if h >= MIN_HEIGHT:
                draw.text((x + 1, max(0.0, y - 10)), str(label.object), fill=track_colour(label), font=font)
    return picture


def track_colour(label: ObjectLabel) -> str:
    """Return a colour for a track; those of successive numbers differ."""
    return f"hsl({label.object * 137 % 360}, 100%, 60%)"


def _is_of_first(record: ImageRecord) -> bool:
    return record.frame is not None and record.frame.sequence == 0
