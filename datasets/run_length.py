"""COCO's run-length codes, decoded with care.

pycocotools trusts them: runs that add up to less than the image make it read memory that nobody
wrote to or search for ever, and an empty code ends the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from util.errors import shown

# More characters would make a number of over 32 bits.
_LONGEST_NUMBER = 7

_FIRST_CHARACTER = 48
_CONTINUES = 32  # bit of a character: the number goes on
_NEGATIVE = 16  # bit of a number's last character
_BITS = 5  # of a number in each character


def count_pixels(code: Mapping[str, Any], height: int, width: int) -> int:
    """Check a run-length code; nothing is drawn.

    Args:
        code: `size` [height, width] and `counts`: the lengths of the runs, first outside of the
            mask, down the columns; a list of them, or COCO's compressed form of it.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Pixels inside the mask.

    Raises:
        ValueError: another size, a compressed form that cannot be read, or runs that do not add up
            to height times width; the message says which.
    """
    size = code["size"]
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(
            f"its 'size' has to be [{height}, {width}] (height, width), got {shown(size)}"
        )
    counts = code["counts"]
    if isinstance(counts, list):
        return _inside_of_list(counts, height * width)
    if isinstance(counts, (str, bytes)):
        return _inside_of_compressed(counts, height * width)
    raise ValueError(f"its 'counts' have to be a list or a string, got {shown(counts)}")


def _inside_of_list(runs: list[Any], pixels: int) -> int:
    types = set(map(type, runs))
    wrong = [run for run in runs if type(run) not in (int, float)] if types - {int, float} else []
    if not wrong and float in types:
        wrong = [run for run in runs if type(run) is float and not run.is_integer()]
    if wrong:
        raise ValueError(f"its 'counts' have to be whole numbers, among them is {shown(wrong[0])}")
    # Extremes first: a sum with a number too large for a float would be an error of its own.
    _require_range(min(runs, default=0), max(runs, default=0), pixels)
    _require_sum(sum(runs), pixels)
    return int(sum(runs[1::2]))


def _inside_of_compressed(counts: str | bytes, pixels: int) -> int:
    text = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    characters = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if len(characters) and (characters.min() < 0 or characters.max() >= 2 * _CONTINUES):
        place = int(np.flatnonzero((characters < 0) | (characters >= 2 * _CONTINUES))[0])
        raise ValueError(
            f"its compressed 'counts' hold the byte {text[place : place + 1]!r} at place {place}, "
            f"which such a string never has"
        )
    ends = np.flatnonzero(characters < _CONTINUES)
    if not len(ends) or ends[-1] + 1 != len(characters):
        what = "end inside of a number" if len(characters) else "are empty"
        raise ValueError(f"its compressed 'counts' {what}")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("its compressed 'counts' hold a number of more than 32 bits")
    starts = ends + 1 - lengths
    places = np.arange(len(characters)) - np.repeat(starts, lengths)
    bits = (characters & (_CONTINUES - 1)) << (_BITS * places)
    runs = np.add.reduceat(bits, starts)
    runs -= ((characters[ends] & _NEGATIVE) > 0).astype(np.int64) << (_BITS * lengths)
    # From the fourth on, a number is the difference from the run before the last.
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    _require_range(int(runs.min()), int(runs.max()), pixels)
    _require_sum(int(runs.sum()), pixels)
    return int(runs[1::2].sum())


def _require_range(least: float, most: float, pixels: int) -> None:
    if least < 0:
        raise ValueError(f"its 'counts' hold a negative run, {shown(least)}")
    if most > pixels:
        raise ValueError(f"a run of {shown(most)} is longer than the image, {pixels} pixels")


def _require_sum(total: float, pixels: int) -> None:
    if total != pixels:
        raise ValueError(
            f"its runs add up to {total} pixels, but have to add up to height times width, {pixels}"
        )
