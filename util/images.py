"""Images: reading files of any common kind into 8-bit RGB, and what networks expect of them."""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from util.errors import MissingFileError, UserError

# Mean and standard deviation of ImageNet's RGB values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A small file can claim to hold any number of pixels; Pillow reads no more than these.
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

# What Pillow raises for damaged files, each format in its own way: broken PNG chunks are a
# SyntaxError, broken headers of others a ValueError or struct.error ...
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError),
    *(LookupError, ArithmeticError, struct.error, zlib.error, cv2.error),
)


class ImageSizeError(UserError):
    """An image of another size than the one that was asked for."""


def load_image(
    source: str | os.PathLike[str] | BinaryIO | Image.Image,
    size: tuple[int, int] | None = None,
    least: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read an image as 8-bit RGB.

    Grey, palette, CMYK and 16-bit images are converted, transparency is dropped. An EXIF
    orientation is followed when `size` is None: the image is then what a viewer shows. With
    `size`, coordinates were annotated on an image of that size: the stored pixels are taken as
    they are if they have it, and turned by the EXIF orientation only if that gives it. (Where both
    do, as with a half turn, the stored pixels win, as in the published code.)

    Args:
        source: path, open binary file or PIL image.
        size: (height, width) that the image has to have, in pixels.
        least: (height, width); with `size`, a JPEG may be decoded at a half, a quarter or an
            eighth of its height and width (rounded up), but not below `least`: a draft, faster.

    Returns:
        [h, w, 3] uint8 RGB, a writable array of its own.

    Raises:
        MissingFileError: the file does not exist.
        ImageSizeError: not of the wanted size, as it is stored or turned by EXIF.
        UserError: not an image, truncated, or of unknown pixel format.
    """
    is_path = isinstance(source, (str, os.PathLike))
    name = str(source) if is_path else "that was given"
    try:
        if isinstance(source, Image.Image):
            return _to_array(source, name, size, least)
        # From twice `least` on, Pillow can do with a part of the decoding.
        is_whole = size and (not least or min(size[0] // least[0], size[1] // least[1]) < 2)
        if is_whole and is_path:
            pixels = _decode_plain_jpeg(source, size)
            if pixels is not None:
                return pixels
        with Image.open(source) as image:
            return _to_array(image, name, size, least)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        if is_path and os.path.getsize(source) == 0:
            raise UserError(f"Image {name} is empty (0 bytes); fetch it again.") from error
        raise UserError(
            f"Image {name} is not an image that Pillow can read; give a JPEG, PNG or similar file."
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"Image {name} has more than {MAX_PIXELS} pixels, which are not read; reduce it."
        ) from error
    except _DECODING_ERRORS as error:
        if is_path and not os.path.isfile(source):  # asked only now: it takes time
            raise MissingFileError(f"Image {name} does not exist; check the path.") from error
        raise UserError(f"Image {name} cannot be read ({error}); fetch it again.") from error


def _to_array(
    image: Image.Image,
    name: str,
    size: tuple[int, int] | None,
    least: tuple[int, int] | None,
) -> np.ndarray:
    """Orient and convert an open image; arguments and result as in `load_image`."""
    if not (image.width and image.height):
        raise UserError(f"Image {name} has no pixels; give another one.")
    if size is None:
        image = ImageOps.exif_transpose(image)
    elif (image.height, image.width) != tuple(size):
        turned = ImageOps.exif_transpose(image)
        if (turned.height, turned.width) != tuple(size):
            raise ImageSizeError(
                f"Image {name} is {image.width}x{image.height} pixels (width x height), "
                f"its entry says {size[1]}x{size[0]}; use the image file or the annotation "
                f"file that belongs to the other."
            )
        image = turned
    elif least is not None:
        image.draft(None, (least[1], least[0]))  # of JPEG files; others stay as they are
    if image.mode == "F":
        raise UserError(
            f"Image {name} has floating-point pixels, whose range is not defined; "
            f"convert it to 8 or 16 bits."
        )
    if image.mode.startswith("I"):
        return _sixteen_bit_grey_to_rgb(np.asarray(image), name)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_plain_jpeg(path: str | os.PathLike[str], size: tuple[int, int]) -> np.ndarray | None:
    """Pixels [h, w, 3] uint8 RGB of the commonest JPEGs: Pillow's, in less time by OpenCV.

    OpenCV passes over an error that Pillow reports: a marker where there should be pixels. The
    file is therefore looked through before.

    Args:
        path: of the file.
        size: (height, width) that it has to have.

    Returns:
        None where it is to be left to Pillow: no baseline JPEG in colour, damaged, another size.
    """
    content = np.fromfile(path, dtype=np.uint8)
    place, frame = 2, None
    while (head := content[place : place + 10].tolist())[:2] != [0xFF, 0xDA]:  # start of the scan
        if len(head) < 10 or head[0] != 0xFF:
            return None
        if 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
            # Kind of frame, bits, height, width, channels
            frame = (head[1], head[4], 256 * head[5] + head[6], 256 * head[7] + head[8], head[9])
        place += 2 + 256 * head[2] + head[3]
    if frame not in ((0xC0, 8, *size, 3), (0xC1, 8, *size, 3)):
        return None
    marks = np.flatnonzero(content[place + 2 : -1] == 0xFF)
    kinds = content[place + 3 :][marks]
    allowed = (kinds == 0) | ((kinds >= 0xD0) & (kinds <= 0xD7))  # no marker, or a restart
    if not allowed[:-1].all() or kinds[-1:].tolist() != [0xD9]:  # the end
        return None
    return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _sixteen_bit_grey_to_rgb(grey: np.ndarray, name: str) -> np.ndarray:
    """Grey values 0..65535 [h, w] -> [h, w, 3] uint8; Pillow's own conversion would clip at 255."""
    if grey.min() < 0 or grey.max() > 65535:
        raise UserError(
            f"Image {name} has grey values from {grey.min()} to {grey.max()}; expected at most "
            f"16 bits (0 to 65535)."
        )
    eight_bit = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(eight_bit[:, :, None], 3, axis=2)


def png_name(name: str, taken: set[str]) -> str:
    """The name of an image's copy as PNG: `b.png` of `a/b.jpg`, or `b_2.png` if that is taken.

    Args:
        name: of the image.
        taken: names that are; the new one is added.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0] or name.rpartition("/")[2]
    number, found = 1, f"{stem}.png"
    while found in taken:
        number += 1
        found = f"{stem}_{number}.png"
    taken.add(found)
    return found


def size_for_longer_side(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the given longer side and the same shape."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def size_for_shorter_side(
    height: int, width: int, side: int, max_side: int | None = None
) -> tuple[int, int]:
    """(height, width) with the given shorter side, less where the longer would exceed max_side."""
    scale = side / min(height, width)
    if max_side is not None:
        scale = min(scale, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def evaluation_size(
    height: int, width: int, max_side: int, short_side: int | None
) -> tuple[int, int]:
    """(height, width) in which a model sees an image outside of training.

    Args:
        height, width: of the image, in pixels.
        max_side: longer side; with `short_side`, the longest that the longer may be.
        short_side: shorter side; None: the longer side is `max_side`.
    """
    if short_side is None:
        return size_for_longer_side(height, width, max_side)
    return size_for_shorter_side(height, width, short_side, max_side)
