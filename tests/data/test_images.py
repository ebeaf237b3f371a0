"""Any file a user may offer as an image is converted, or refused in one clear line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet._support.errors import CapsnetError
from capsnet.data.images import ImageInfo, check, read_image

GRADIENT = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header claims width × height."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.quick
def test_grey_image_unchanged(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT))
    pixels = read_image(path, (1, 4, 6))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), GRADIENT)
    assert check(path) == ImageInfo(6, 4, colour=False)


@pytest.mark.quick
def test_colour_channels_come_first_and_in_order(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.bmp", Image.new("RGB", (6, 4), (10, 20, 30)))
    assert check(path).colour
    pixels = read_image(path, (3, 4, 6))
    assert [int(c) for c in pixels.float().mean((1, 2))] == [10, 20, 30]
    assert pixels.is_contiguous()


def test_grey_and_colour_are_converted(tmp_path: Path) -> None:
    red = saved(tmp_path / "red.png", Image.new("RGB", (4, 4), (255, 0, 0)))
    assert read_image(red, (1, 4, 4)).unique().tolist() == [76]  # 0.299 · 255
    grey = saved(tmp_path / "grey.png", Image.fromarray(GRADIENT))
    assert np.array_equal(read_image(grey, (3, 4, 6)).numpy(), np.stack([GRADIENT] * 3))


@pytest.mark.quick
def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    small = read_image(saved(tmp_path / "a.png", Image.fromarray(stripes)), (1, 8, 8))
    assert 120 <= int(small.min()) <= int(small.max()) <= 135, "stripes of one pixel must blend to grey"
    assert read_image(tmp_path / "a.png", (3, 100, 30)).shape == (3, 100, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 2, 4))
    pixels = read_image(saved(tmp_path / "a.png", image.convert(mode)), (1, 4, 4))
    assert pixels[0, 0].tolist() == [0, 0, 255, 255]


@pytest.mark.quick
def test_16_bits_keep_the_upper_ones(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]] * 2, np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    assert read_image(path, (1, 2, 4))[0, 0].tolist() == [0, 1, 128, 255]
    assert not check(path).colour


@pytest.mark.quick
def test_palette_bilevel_and_cmyk(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    for name, image in (("p.gif", red.convert("P")), ("c.tiff", red.convert("CMYK"))):
        assert read_image(saved(tmp_path / name, image), (3, 4, 4))[:, 0, 0].tolist() == [255, 0, 0]
    bilevel = saved(tmp_path / "b.png", Image.fromarray(GRADIENT > 100))
    assert np.array_equal(read_image(bilevel, (1, 4, 6))[0].numpy(), (GRADIENT > 100) * np.uint8(255))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert read_image(path, (1, 4, 4)).unique().tolist() == [50]


@pytest.mark.quick
def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise by 90° to see it upright
    path = saved(tmp_path / "a.png", Image.fromarray(GRADIENT), exif=exif)
    assert check(path) == ImageInfo(4, 6, colour=False)
    assert np.array_equal(read_image(path, (1, 6, 4))[0].numpy(), np.rot90(GRADIENT, -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); delete"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (png(Image.new("L", (1, 1))), "only 1×1 pixels"),
        (
            huge_png(20_000, 20_000),
            "20000×20000, more than 64 million pixels; scale it down|more than 64 million",
        ),
        (huge_png(9_000, 9_000), "9000×9000, more than 64 million pixels; scale it down"),
        (huge_png(100, 100), "truncated or damaged"),
        (png(Image.effect_noise((90, 90), 50))[:2000], "truncated or damaged"),
        (png(Image.new("L", (9, 9)))[:20], "truncated or damaged|not an image"),
    ],
    ids=["empty", "text", "eps", "1x1", "bomb", "large", "lying", "truncated", "header-cut"],
)
def test_unreadable_images_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd\nname.png"
    path.write_bytes(content)
    with pytest.raises(CapsnetError, match=message) as caught:
        read_image(path, (1, 8, 8))
    assert "odd\\nname.png: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "no remedy"


@pytest.mark.parametrize("make", [lambda p: p, lambda p: (p.mkdir(), p)[1]], ids=["missing", "directory"])
def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(CapsnetError, match=r"no such file|cannot be read"):
        read_image(make(tmp_path / "x.png"), (1, 8, 8))


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.ones((4, 4), np.float32)))
    with pytest.raises(CapsnetError, match="floating-point pixels"):
        read_image(path, (1, 4, 4))
    path = saved(tmp_path / "b.tiff", Image.fromarray(np.full((4, 4), 70_000, np.int32)))
    with pytest.raises(CapsnetError, match="32-bit pixels"):
        read_image(path, (1, 4, 4))


def test_unsupported_channel_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="2 channels, and image files have 1 or 3"):
        read_image(saved(tmp_path / "a.png", Image.fromarray(GRADIENT)), (2, 4, 6))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_every_orientation_is_turned_in_every_way_of_saving(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "x", Image.fromarray(GRADIENT), format=kind, exif=exif)
    turned = {
        2: GRADIENT[:, ::-1],
        3: GRADIENT[::-1, ::-1],
        4: GRADIENT[::-1],
        5: GRADIENT.T,
        6: np.rot90(GRADIENT, -1),
        7: GRADIENT[::-1, ::-1].T,
        8: np.rot90(GRADIENT),
    }.get(orientation, GRADIENT)
    assert (check(path).height, check(path).width) == turned.shape
    assert read_image(path, (1, *turned.shape))[0].tolist() == turned.tolist()


def test_damaged_metadata_do_not_matter(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "a program"
    path = saved(tmp_path / "x.jpg", Image.fromarray(GRADIENT), exif=exif)
    whole, content = read_image(path, (1, 6, 4)), path.read_bytes()
    place = content.index(b"Exif") + 6
    for at in range(place + 8, place + 40):  # of the directory's entries
        for value in (0, 5, 255):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            assert read_image(path, (1, 6, 4)).shape == whole.shape


def test_a_palette_of_greys_has_no_colour(tmp_path: Path) -> None:
    grey = Image.fromarray(GRADIENT)
    assert not check(saved(tmp_path / "grey.gif", grey.convert("P"))).colour
    colours = Image.merge("RGB", (grey, grey, grey.point(lambda value: 255 - value)))
    assert check(saved(tmp_path / "colours.gif", colours.quantize())).colour
