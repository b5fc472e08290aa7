"""Folders of images of any origin: what is found, how each kind is read, and what is said of those that cannot be."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from PIL import Image
from torch.utils.data import DataLoader

from ms2.core import images as module
from ms2.core.errors import UserError
from ms2.core.images import ImageError, read_image
from ms2.targets.image_folder import ImageFolder, _check_choice


def save(path: Path, colour=(10, 20, 30), size=(6, 4), **options) -> Path:
    """A plain image of a colour; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def names(folder: ImageFolder) -> list[str]:
    return [path.relative_to(folder.root).as_posix() for path in folder.paths]


# What is found


def test_finds_common_extensions_in_any_case_in_sorted_order_at_any_depth(tmp_path):
    wanted = [f"{i:02}{ext}" for i, ext in enumerate(module.IMAGE_SUFFIXES)]
    wanted += ["B.PNG", "a.JpG", "b/deep/er/x.png", "b/y.png", "c.x.png"]
    for name in reversed(wanted):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("notes.txt", "png", "x.png.bak", "movie.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert names(ImageFolder(tmp_path)) == wanted
    assert {"png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"} == {
        ext[1:] for ext in module.IMAGE_SUFFIXES
    }


def test_hidden_files_and_folders_are_skipped_but_a_hidden_root_is_not(tmp_path):
    root = tmp_path / ".cache" / "images"
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "b/.hidden/deep/a.png"):
        save(root / name)
    assert names(ImageFolder(root)) == ["a.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    save(tmp_path / "elsewhere" / "e.png")
    root = tmp_path / "top" / "root"
    save(root / "sub" / "a.png")
    save(tmp_path / "top" / "outside.png")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "self").symlink_to(root)
    (root / "sub" / "up").symlink_to(tmp_path / "top")
    (root / "sub" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "sub")
    (root / "linked.png").symlink_to(root / "sub" / "a.png")
    assert names(ImageFolder(root)) == ["link/e.png", "linked.png", "sub/a.png"]  # each real folder once


def test_a_link_to_itself_is_a_bad_file(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError, match=r"loop\.png: not a file, or a link to a missing one"):
        ImageFolder(tmp_path).verify()


def test_limit_keeps_the_first(tmp_path):
    for name in "cab":
        save(tmp_path / f"{name}.png")
    assert names(ImageFolder(tmp_path, limit=2)) == ["a.png", "b.png"]
    assert names(ImageFolder(tmp_path, limit=99)) == ["a.png", "b.png", "c.png"]


def test_root_may_be_text_relative_or_start_with_a_tilde(tmp_path, monkeypatch):
    save(tmp_path / "in" / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = ImageFolder("in")
    assert ImageFolder("~/in").paths == folder.paths == [tmp_path / "in" / "a.png"]
    monkeypatch.chdir("/")
    assert folder[0].shape == (3, 4, 6)


# What is said when nothing is found


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ("kiti/training", "Did you mean {}/kitti/training?"),
        ("kitti/Trainin", "Did you mean {}/kitti/training?"),
        ("KITTI/training/depth", "Did you mean {}/kitti/training?"),
        ("kitti/zzz", "The part that exists is {}/kitti."),
    ],
)
def test_a_missing_folder_names_the_nearest(tmp_path, asked, advice):
    (tmp_path / "kitti" / "training").mkdir(parents=True)
    (tmp_path / "kiti").touch()  # a file is no answer
    with pytest.raises(ImageError) as caught:
        ImageFolder(tmp_path / asked)
    assert str(caught.value) == f"{tmp_path / asked}: no such folder. {advice.format(tmp_path)}"


def test_a_file_is_not_a_folder(tmp_path):
    path = save(tmp_path / "a.png")
    with pytest.raises(ImageError) as caught:
        ImageFolder(path)
    assert str(caught.value) == f"{path}: is a file, and root must be a folder. Did you mean {tmp_path}?"


def test_a_folder_without_images_names_what_it_holds(tmp_path):
    with pytest.raises(ImageError, match=r"no images: .* found nothing"):
        ImageFolder(tmp_path)
    for name in ("a.mp4", "b.MP4", "sub/c.txt", "README", ".d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ImageError) as caught:
        ImageFolder(tmp_path)
    message = str(caught.value)
    assert "found 2 .mp4, " in message and "1 .txt" in message and "1 (no extension)" in message
    assert all(extension in message for extension in module.IMAGE_SUFFIXES)
    assert str(tmp_path) in message


def test_images_of_kinds_that_are_not_read_are_named_with_their_number(tmp_path):
    for name in ("a.png", "b.heic", "c/d.AVIF", "e.jxl", ".f.heic", "g.txt"):
        save(tmp_path / name) if name == "a.png" else (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ImageError) as caught:
        ImageFolder(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}: 3 of 4 images are of kinds that are not read:" and len(lines) == 5
    assert lines[1].endswith("b.heic: HEIC files are not read; convert it to PNG or JPEG")
    with pytest.warns(UserWarning, match=r"(?s)left out, 3 of 4 images .*d\.AVIF.*e\.jxl"):
        assert names(ImageFolder(tmp_path, on_error="skip")) == ["a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"found .*1 \.heic.*HEIC files are not read; convert it to PNG or JPEG"):
        ImageFolder(tmp_path)


def test_an_empty_variable_is_not_the_current_folder(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTHING", "")
    for root in ("", "$NOTHING", " ", "${NOTHING}"):
        with pytest.raises(UserError, match="is empty"):
            ImageFolder(root)
    assert names(ImageFolder(".")) == ["a.png"]


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_impossible_sizes_are_refused(tmp_path, size):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"^ImageFolder: size\[\d\] must be at least 1, not (0|-1)$"):
        ImageFolder(tmp_path, size)


@pytest.mark.parametrize(
    "arguments",
    [
        {"fit": "crup"},
        {"on_error": "skipp"},
        {"channels": 4},
        {"size": (1.5, 2)},
        {"size": (1, 2, 3)},
        {"size": 5},
    ],
)
def test_arguments_of_no_kind_are_refused_at_once(tmp_path, arguments):
    save(tmp_path / "a.png")
    (name,) = arguments
    # Where jaxtyping checks types it speaks first.
    with pytest.raises((UserError, TypeCheckError), match=name):
        ImageFolder(tmp_path, **arguments)


def test_a_wrong_choice_names_the_nearest_and_the_rest():
    with pytest.raises(
        UserError, match=r"fit cannot be 'crup'\. Did you mean 'crop'\? Available: crop, pad, stretch\."
    ):
        _check_choice("fit", "crup", ("stretch", "crop", "pad"))


def test_impossible_limit_and_empty_root_are_refused(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(UserError, match="limit must be at least 1, not 0"):
        ImageFolder(tmp_path, limit=0)
    with pytest.raises(UserError, match="root is empty"):
        ImageFolder("")


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that holds a.png and a folder `shut` that cannot be listed, even by root."""
    save(tmp_path / "a.png")
    save(tmp_path / "shut" / "b.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return tmp_path


def test_a_subfolder_that_cannot_be_listed_is_not_passed_over_in_silence(locked):
    with pytest.raises(ImageError, match=r"1 folders cannot be listed:\n  .*shut: no permission to read it"):
        ImageFolder(locked)
    with pytest.warns(UserWarning, match=r"left out, 1 folders cannot be listed"):
        folder = ImageFolder(locked, on_error="skip")
    assert names(folder) == ["a.png"]


# How each kind is read


def pixels(path: Path, channels=3) -> list:
    """The pixels of an image one row high, each a value or a list of three."""
    tensor = read_image(path, channels)
    assert tensor.dtype == torch.uint8 and tensor.shape[:2] == (channels, 1) and tensor.is_contiguous()
    return tensor[:, 0].T.tolist()


def strip(mode: str, *values) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


def test_layout_is_channel_row_column(tmp_path):
    array = noise(5, 7, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 5, 7) and image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0), array)
    assert np.array_equal(read_image(str(tmp_path / "a.png"), 1)[0], Image.fromarray(array).convert("L"))


PALETTE = strip("P", 0, 1, 2)
PALETTE.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 200])


@pytest.mark.parametrize(
    ("image", "name", "options", "expected"),
    [
        (strip("1", 0, 1), "a.png", {}, [[0] * 3, [255] * 3]),
        (strip("L", 0, 7, 255), "a.png", {}, [[0] * 3, [7] * 3, [255] * 3]),
        (strip("L", 7, 9), "a.png", {"transparency": 7}, [[0] * 3, [9] * 3]),
        (strip("LA", (200, 255), (200, 128), (200, 0)), "a.png", {}, [[200] * 3, [100] * 3, [0] * 3]),
        (PALETTE, "a.png", {}, [[255, 0, 0], [0, 255, 0], [0, 0, 200]]),
        (PALETTE, "a.png", {"transparency": 1}, [[255, 0, 0], [0, 0, 0], [0, 0, 200]]),
        (PALETTE, "a.png", {"transparency": b"\xff\x00\x80"}, [[255, 0, 0], [0, 0, 0], [0, 0, 100]]),
        (PALETTE, "a.gif", {"transparency": 1}, [[255, 0, 0], [0, 0, 0], [0, 0, 200]]),
        (strip("RGB", (1, 2, 3), (9, 8, 7)), "a.bmp", {}, [[1, 2, 3], [9, 8, 7]]),
        (strip("RGB", (1, 2, 3), (9, 8, 7)), "a.ppm", {}, [[1, 2, 3], [9, 8, 7]]),
        (strip("RGB", (1, 2, 3), (9, 8, 7)), "a.webp", {"lossless": True}, [[1, 2, 3], [9, 8, 7]]),
        (strip("RGB", (1, 2, 3), (9, 8, 7)), "a.png", {"transparency": (9, 8, 7)}, [[1, 2, 3], [0, 0, 0]]),
        (strip("RGBA", (200, 100, 50, 255), (200, 100, 50, 128)), "a.png", {}, [[200, 100, 50], [100, 50, 25]]),
        (strip("RGBA", (255, 255, 255, 0)), "a.tif", {}, [[0, 0, 0]]),
        (
            strip("CMYK", (0, 255, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0)),
            "a.tiff",
            {},
            [[255, 0, 255], [0] * 3, [255] * 3],
        ),
    ],
)
def test_modes(tmp_path, image, name, options, expected):
    image.save(tmp_path / name, **options)
    assert pixels(tmp_path / name) == expected
    grey = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in expected]
    assert np.abs(np.array(pixels(tmp_path / name, 1))[:, 0] - grey).max() <= 1


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 1), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert (torch.tensor(pixels(tmp_path / "a.jpg")) - torch.tensor([255, 0, 0])).abs().max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_16_bit_grey_is_scaled_not_clipped(tmp_path, name, channels):
    array = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(array).save(tmp_path / name)
    expected = (array.astype(int) + 128) // 257
    image = read_image(tmp_path / name, channels)
    assert image.shape == (channels, 256, 256)
    assert all(np.array_equal(channel, expected) for channel in image)


def test_floats_have_white_at_1(tmp_path):
    # 1.001 is white too: it rounds to the same level, and resampled images overshoot as little.
    Image.fromarray(np.array([[0, 0.5, 1, 1.001, 0.2]], np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif", 1) == [[0], [128], [255], [255], [51]]


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        ([0, 200], np.float32, r"0 to 200, outside 0 \(black\) to 1 \(white\)"),
        ([-0.5, 1], np.float32, r"-0.5 to 1, outside"),
        ([0, np.nan], np.float32, r"nan"),
        ([0, 70000], np.int32, r"0 to 70000, outside 0 \(black\) to 65535 \(white\)"),
    ],
)
def test_values_of_unknown_white_are_refused_rather_than_clipped(tmp_path, values, kind, reason):
    Image.fromarray(np.array([values], kind)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=reason):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, name, orientation):
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16] = 255  # the upper left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).convert("RGB").save(tmp_path / name, exif=exif)
    image = read_image(tmp_path / name, 1)
    assert image.shape == (1, 32, 48)
    assert np.array_equal(image[0] > 127, upright > 127)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (2, 1), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 3
        assert pixels(tmp_path / name) == [[255, 0, 0]] * 2


def test_content_decides_not_the_extension(tmp_path):
    Image.new("RGB", (2, 1), "red").save(tmp_path / "a.png", format="BMP")
    assert pixels(tmp_path / "a.png") == [[255, 0, 0]] * 2


# What is said of those that cannot be read


def truncated(path: Path, share: float = 0.5) -> Path:
    Image.fromarray(noise(64, 64, 3)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def reason(path: Path) -> str:
    """Why the image cannot be read; the message must be the path and the reason."""
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert caught.value.path == path
    return caught.value.reason


@pytest.mark.parametrize("extension", module.IMAGE_SUFFIXES)
def test_truncated_files(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    if extension == ".pgm":
        path.write_bytes(b"P5 64 64 255\n" + bytes(1000))
    else:
        truncated(path)
    assert "truncated" in reason(path) or (extension == ".webp" and "decoder" in reason(path))


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_text("<html>404 not found</html>")
    assert reason(tmp_path / "a.png") == "not an image that Pillow can read"
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "the file is empty (0 bytes)"
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name in ("link.png", "missing.png", ""):
        assert reason(tmp_path / name) == "not a file, or a link to a missing one"


def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in reason(tmp_path / "pipe.png")


@pytest.mark.parametrize("loud", [True, False])
@pytest.mark.parametrize(("limit", "good"), [(24, True), (23, False), (13, False), (11, False), (None, True)])
def test_decompression_bombs(tmp_path, monkeypatch, limit, good, loud):
    path = save(tmp_path / "a.png", size=(6, 4))  # 24 pixels; Pillow itself refuses from twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if loud else "ignore")
        if good:
            assert read_image(path).shape == (3, 4, 6)
        else:
            assert f"limit of {limit} pixels, so it could be a decompression bomb" in reason(path)


def test_no_permission(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    assert reason(path) == "no permission to read it"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"]), st.data())
def test_damaged_files_raise_nothing_but_image_errors(tmp_path_factory, kind, data):
    path = tmp_path_factory.mktemp("damage") / "a.png"
    Image.fromarray(noise(8, 8, 3)).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
        except ImageError as error:
            assert error.reason
        else:
            assert image.dtype == torch.uint8 and image.shape[0] == 3


def test_the_error_survives_pickling(tmp_path):
    error = ImageError(tmp_path / "a.png", "no good")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ImageError and isinstance(copy, UserError)
    assert (copy.path, copy.reason, str(copy)) == (error.path, "no good", f"{tmp_path / 'a.png'}: no good")


# Verification


def spoiled(root: Path, bad: int = 1, good: int = 2) -> Path:
    for i in range(good):
        save(root / f"good{i:02}.png")
    for i in range(bad):
        truncated(root / f"bad{i:02}.png")
    return root


def test_verify_passes_good_images_and_keeps_them(tmp_path):
    folder = ImageFolder(spoiled(tmp_path, bad=0))
    assert folder.verify() == [] and len(folder) == 2


def test_opening_decodes_nothing(tmp_path, monkeypatch):
    spoiled(tmp_path)
    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("an image was opened"))
    assert len(ImageFolder(tmp_path)) == 3


def test_verify_names_the_bad_and_the_way_out(tmp_path):
    folder = ImageFolder(spoiled(tmp_path))
    with pytest.raises(ImageError) as caught:
        folder.verify()
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{tmp_path}: 1 of 3 images cannot be read:"
    assert lines[1].startswith(f"  {tmp_path}/bad00.png: image file is truncated")
    assert lines[2:] == ["Repair or remove them, or leave them out with `on_error: skip`."]
    assert len(folder) == 3


def test_verify_names_ten_at_most(tmp_path):
    spoiled(tmp_path, bad=13)
    with pytest.raises(ImageError) as caught:
        ImageFolder(tmp_path).verify()
    message = str(caught.value)
    assert message.count("bad") == 10 and "bad09" in message and "\n  and 3 more\n" in message


def test_skip_warns_and_leaves_the_bad_out(tmp_path):
    folder = ImageFolder(spoiled(tmp_path, bad=2), on_error="skip")
    with pytest.raises(ImageError):
        folder[0]
    with pytest.warns(UserWarning, match=r"(?s)left out, 2 of 4 images cannot be read:.*bad00.*bad01.*truncated"):
        bad = folder.verify()
    assert [error.path for error in bad] == [tmp_path / "bad00.png", tmp_path / "bad01.png"]
    assert all(error.__traceback__ is error.__cause__ is None for error in bad)  # they would keep the pixels alive
    assert names(folder) == ["good00.png", "good01.png"]
    assert folder.verify() == []  # and says nothing, or the warning would be an error here


def test_skip_does_not_leave_an_empty_folder(tmp_path):
    folder = ImageFolder(spoiled(tmp_path, bad=2, good=0), on_error="skip")
    with pytest.warns(UserWarning), pytest.raises(ImageError, match=r"no image is left; none of the 2 can be read"):
        folder.verify()


# Geometry


def dot(path: Path, width: int, height: int) -> Path:
    """A white square of 8 pixels in the middle of grey."""
    array = np.full((height, width), 100, np.uint8)
    array[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    Image.fromarray(array).save(path)
    return path


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Row and column of the middle of the white."""
    rows, columns = torch.nonzero(image[0] > 180, as_tuple=True)
    return rows.float().mean().item(), columns.float().mean().item()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (64, 64)])
@pytest.mark.parametrize("size", [(32, 32), (24, 48), (64, 40)])
def test_a_centred_dot_stays_centred(tmp_path, fit, shape, size):
    image = read_image(dot(tmp_path / "a.png", *shape), 1, size, fit)
    assert image.shape == (1, *size)
    assert centre(image) == pytest.approx(((size[0] - 1) / 2, (size[1] - 1) / 2), abs=0.51)


def thirds(path: Path) -> Path:
    """Red, green and blue beside each other, 96 by 32 pixels."""
    array = np.zeros((32, 96, 3), np.uint8)
    for i in range(3):
        array[:, 32 * i : 32 * (i + 1), i] = 255
    Image.fromarray(array).save(path)
    return path


def test_crop_cuts_the_sides_and_covers_the_frame(tmp_path):
    folder = ImageFolder(thirds(tmp_path / "a.png").parent, size=(16, 16))
    assert torch.equal(folder[0][:, :, 1:-1], torch.tensor([0, 255, 0]).byte()[:, None, None].expand(3, 16, 14))


def test_pad_keeps_all_between_black_bars(tmp_path):
    image = ImageFolder(thirds(tmp_path / "a.png").parent, size=(48, 48), fit="pad")[0]
    assert not image[:, :16].any() and not image[:, 32:].any()
    assert (image[:, 16:32].amax(0) > 120).all()
    assert image[:, 24, [4, 24, 44]].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_pad_puts_bars_beside_tall_images(tmp_path):
    image = read_image(save(tmp_path / "a.png", (200, 200, 200), (10, 40)), 1, (40, 20), "pad")[0]
    assert not image[:, :5].any() and not image[:, 15:].any() and (image[:, 5:15] == 200).all()


def test_stretch_keeps_all_and_fills_the_frame(tmp_path):
    image = ImageFolder(thirds(tmp_path / "a.png").parent, size=(48, 48), fit="stretch")[0]
    assert (image.amax(0) > 120).all()
    assert image[:, 0, [4, 24, 44]].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_an_image_of_the_right_size_is_left_alone(tmp_path, fit):
    array = noise(9, 7, 3)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 3, (9, 7), fit).permute(1, 2, 0), array)


def test_shrinking_averages_instead_of_picking(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 1, (8, 8)).float()
    assert (image - 127.5).abs().max() < 4


sides = st.integers(1, 60) | st.sampled_from([1, 997])


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(["stretch", "crop", "pad"]))
def test_any_image_fits_any_frame(height, width, tall, wide, fit):
    image = module._fit(Image.new("L", (width, height), 200), (tall, wide), fit)
    assert image.size == (wide, tall)
    lit = np.asarray(image) > 0
    assert lit.any() and (fit == "pad" or lit.all())


def test_without_a_size_each_image_keeps_its_own(tmp_path):
    save(tmp_path / "a.png", size=(6, 4))
    save(tmp_path / "b.png", size=(3, 9))
    folder = ImageFolder(tmp_path)
    assert [tuple(image.shape) for image in folder] == [(3, 4, 6), (3, 9, 3)]
    assert ImageFolder(tmp_path, channels=1)[-1].shape == (1, 9, 3)


# The fingerprint


def test_fingerprint_follows_the_files(tmp_path):
    path = save(tmp_path / "in" / "a.png")
    save(tmp_path / "in" / "b.png")
    os.utime(path, ns=(10**18, 10**18))

    def fingerprint(root="in", **arguments):
        return ImageFolder(tmp_path / root, **arguments).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    seen = {first, fingerprint(limit=1)}
    seen |= {fingerprint(size=(4, 4)), fingerprint(channels=1), fingerprint(fit="pad")}
    os.utime(path, ns=(10**18, 10**18 + 1))
    seen.add(fingerprint())
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(10**18, 10**18))
    seen.add(fingerprint())
    path.rename(path.with_name("c.png"))
    seen.add(last := fingerprint())
    assert len(seen) == 8
    (tmp_path / "in").rename(tmp_path / "moved")
    assert fingerprint("moved") == last


def test_fingerprint_of_strange_and_missing_files(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    before = ImageFolder(tmp_path).fingerprint()
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    assert ImageFolder(tmp_path).fingerprint() != before


def test_fingerprint_follows_what_is_skipped(tmp_path):
    folder = ImageFolder(spoiled(tmp_path), on_error="skip")
    before = folder.fingerprint()
    with pytest.warns(UserWarning):
        folder.verify()
    assert folder.fingerprint() != before


# In use


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork in newer Pythons
def test_workers_load_batches_and_carry_the_error_across(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", (i, 0, 0), size=(8 + i, 8))
    loader = DataLoader(ImageFolder(tmp_path, size=(8, 8)), batch_size=2, num_workers=2)
    first, second = loader
    assert first.shape == (2, 3, 8, 8) and first.dtype == torch.uint8
    assert torch.cat([first, second])[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    truncated(tmp_path / "2.png")
    with pytest.raises(ImageError, match=r"(?s)DataLoader worker process.*2\.png: image file is truncated") as caught:
        list(loader)
    # Tracebacks hold the loader in cycles, and collecting those would wait 5 s for each worker.
    caught.value.with_traceback(None)
    del caught


KITTI = Path(os.environ.get("MS2_DATA", "")) / "kitti" / "training" / "image_2"


@pytest.mark.skipif(not os.environ.get("MS2_DATA"), reason="MS2_DATA names no folder of data sets")
def test_kitti_frames():
    folder = ImageFolder(KITTI, size=(64, 208), limit=3)
    assert folder.paths[0].suffix == ".png"
    assert folder.verify() == []
    frames = torch.stack(list(folder)).float()
    assert frames.shape == (3, 3, 64, 208)
    assert (frames.std(dim=(1, 2, 3)) > 20).all()
    height, width = read_image(folder.paths[0]).shape[1:]
    assert 2.5 < width / height < 4


# --- images unlike the renderer's ---


def folder_of(tmp_path: Path, *sizes: tuple[int, int]) -> Path:
    """A folder of grey images with these widths and heights."""
    for number, size in enumerate(sizes):
        Image.new("L", size, 100).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("fit", "happens"),
    [("crop", "up to 75% of an image is cropped"), ("pad", "black bars fill up to 75%"), ("stretch", "are distorted")],
)
def test_images_of_another_aspect_are_told_with_what_becomes_of_them(tmp_path: Path, fit: Any, happens: str) -> None:
    folder = folder_of(tmp_path, (64, 64), (128, 64), (256, 64))
    images = ImageFolder(folder, (32, 32), fit=fit)
    with pytest.warns(UserWarning, match=rf"2 of 3 images have another aspect .* 2\.png \(256 x 64\).*{happens}"):
        assert images.verify() == []
    assert len(images) == 3


def test_images_smaller_than_the_renderers_are_told(tmp_path: Path) -> None:
    images = ImageFolder(folder_of(tmp_path, (64, 64), (16, 16)), (32, 32))
    with pytest.warns(UserWarning, match=r"1 of 2 images are smaller .* such as 1\.png \(16 x 16\)"):
        images.verify()


def test_images_like_the_renderers_raise_no_warning(tmp_path: Path) -> None:
    assert ImageFolder(folder_of(tmp_path, (64, 64), (32, 32), (66, 65)), (32, 32)).verify() == []
