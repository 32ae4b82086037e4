"""Where a page's images are and in which state; nothing decodes them but the browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from tqdm import tqdm

from util.errors import MissingFileError, UserError
from util.files import written_whole

# States of an image file; their places in this list are what the page gets.
STATES = ("fine", "missing", "unreadable", "wrong size")

_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # its values that swap height and width

# What Pillow raises for headers of damaged files, each format in its own way.
_HEADER_ERRORS = (OSError, SyntaxError, ValueError, LookupError, ArithmeticError, EOFError)


def look_at_images(
    folder: Path, entries: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[int]]:
    """Read the headers of images.

    A browser turns an image by its EXIF orientation. The project takes the stored pixels where
    they have the entry's size (`util.images.load_image`): what is drawn has to be turned then.

    Args:
        folder: of the images.
        entries: F entries, `file_name`, `height`, `width`.

    Returns:
        [F] states, indices into `STATES`; [F] EXIF orientations, 1 to 8, by which to turn what is
        drawn.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not folder.is_dir():
        raise MissingFileError(f"--images {folder}: there is no such folder; check the path.")
    looks = [
        _look(folder / entry["file_name"], entry["width"], entry["height"])
        for entry in tqdm(entries, desc="images", unit="image", disable=None, leave=False)
    ]
    return [STATES.index(state) for state, _ in looks], [turn for _, turn in looks]


def _look(path: Path, width: int, height: int) -> tuple[str, int]:
    if not path.is_file():
        return "missing", 1
    try:
        with Image.open(path) as image:
            stored, turn = image.size, image.getexif().get(_ORIENTATION, 1)
    except (*_HEADER_ERRORS, Image.DecompressionBombError):
        return "unreadable", 1
    turn = turn if turn in range(1, 9) else 1
    if stored == (width, height):
        return "fine", turn
    if turn in _TURNED and stored == (height, width):
        return "fine", 1
    return "wrong size", 1


def link_prefix(folder: Path, page_folder: Path) -> str:
    """What to put before a quoted file name for a link from the page into the image folder.

    Raises:
        UserError: there is no way from one to the other, as between two drives.
    """
    try:
        steps = os.path.relpath(folder.resolve(), page_folder.resolve())
    except ValueError as error:
        raise UserError(
            f"The page cannot link from {page_folder} to images in {folder} ({error}); give "
            f"--copy, or an --output on the same drive."
        ) from error
    return f"{quoted(steps)}/"


def quoted(path: str) -> str:
    """A path as a link has it; also for odd characters and names that are not UTF-8."""
    return quote(os.fsencode(path.replace(os.sep, "/")), safe="/")


def copy_images(folder: Path, names: Sequence[str], target: Path) -> None:
    """Copy image files, each whole or not at all.

    Raises:
        OSError: a file cannot be read, or the disk is full.
    """
    for name in tqdm(names, desc="copies", unit="image", disable=None, leave=False):
        with written_whole(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
