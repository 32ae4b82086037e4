"""Results in COCO's format, as `main.py --eval --save_predictions` writes them, read as a stream.

A results file of a whole evaluation holds every group of every image and may be larger than the
memory; of each image only the highest-scoring result is kept, the one that is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from datasets.evaluation.found import PERSON
from datasets.run_length import count_pixels
from datasets.skeleton import Skeleton
from datasets.values import are_numbers, is_number
from util.errors import MissingFileError, UserError, shown

_CHUNK = 2**20  # characters that are read at a time
_LONGEST = 2**25  # characters of one value; a mask of the largest image has fewer


def read_best(
    path: Path, sizes: Mapping[int, tuple[int, int]], skeleton: Skeleton
) -> dict[int, dict[str, Any]]:
    """The highest-scoring result of every image; of equal scores the first.

    Args:
        path: a JSON list of objects `image_id`, `category_id`, `score`, `keypoints` and, where the
            model makes them, `bbox` [x, y, width, height] and `segmentation` (RLE).
        sizes: image id -> (height, width) of the ground truth.
        skeleton: keypoint definition, K keypoints.

    Returns:
        image id -> its result. Images without one are absent.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is no such list, or a result is broken or of an image that is not in `sizes`.
    """
    best: dict[int, dict[str, Any]] = {}
    for number, result in enumerate(read_list(path)):
        where = f"{path}: result {number}"
        if not isinstance(result, dict) or not {"image_id", "score", "keypoints"} <= set(result):
            raise UserError(
                f"{where} has to be an object with 'image_id', 'score' and 'keypoints', got "
                f"{shown(result)}. Give a file that main.py --eval --save_predictions wrote."
            )
        if result.get("category_id", PERSON) != PERSON:
            continue
        image_id, score = result["image_id"], result["score"]
        if type(image_id) is not int or image_id not in sizes:
            raise UserError(
                f"{where} is of image id {shown(image_id)}, which the ground truth does not have; "
                f"give the annotation file that was evaluated."
            )
        if not is_number(score):
            raise UserError(f"{where}: 'score' has to be a number, got {shown(score)}.")
        if image_id not in best or score > best[image_id]["score"]:
            _check_result(result, sizes[image_id], skeleton, f"{where} (image id {image_id})")
            best[image_id] = result
    return best


def read_list(path: Path) -> Iterator[Any]:
    """The values of a JSON list, one by one: in memory are one of them and a piece of the file.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a JSON list in UTF-8, or a value of it is huge.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} does not exist; main.py --eval --save_predictions writes such a file."
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _Scanner(file).values()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}).") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to hold results.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not a JSON list of results ({error.msg}); write it again with main.py "
            f"--eval --save_predictions."
        ) from error


class _Scanner:
    """Finds one value after the other in a file that holds a JSON list."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._place = "", 0
        self._decoder = json.JSONDecoder()

    def values(self) -> Iterator[Any]:
        """Raises json.JSONDecodeError where the file is not such a list."""
        self._expect("[")
        if self._next() == "]":
            return
        while True:
            yield self._value()
            if self._expect(",]") == "]":
                return

    def _next(self) -> str:
        """The next character that is no space; it is not taken."""
        while True:
            while self._place < len(self._text):
                if not self._text[self._place].isspace():
                    return self._text[self._place]
                self._place += 1
            if not self._read_on():
                raise json.JSONDecodeError("it ends inside of the list", "", 0)

    def _expect(self, characters: str) -> str:
        found = self._next()
        if found not in characters:
            expected = " or ".join(characters)
            raise json.JSONDecodeError(f"expected {expected}, got {found!r}", "", 0)
        self._place += 1
        return found

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
                if end < len(self._text):  # else a number might go on
                    self._place = end
                    return value
                reason = "it ends inside of the list"
            except ValueError as error:  # not kept: it would hold on to the text
                reason = str(error).partition(": line")[0]
            if len(self._text) - self._place > _LONGEST or not self._read_on():
                raise json.JSONDecodeError(reason, "", 0)

    def _read_on(self) -> bool:
        """Read as much again as is left, and a piece at least; False at the end of the file."""
        left = self._text[self._place :]
        more = self._file.read(max(_CHUNK, len(left)))
        self._text, self._place = left + more, 0
        return bool(more)


def _check_result(
    result: Mapping[str, Any], size: tuple[int, int], skeleton: Skeleton, where: str
) -> None:
    """Raises UserError where a result's parts cannot be drawn."""
    keypoints = result["keypoints"]
    expected = 3 * skeleton.num_keypoints
    if not are_numbers(keypoints) or len(keypoints) != expected:
        got = f"{len(keypoints)} entries" if isinstance(keypoints, list) else shown(keypoints)
        raise UserError(
            f"{where}: 'keypoints' has to hold {expected} finite numbers (x, y, confidence of "
            f"{skeleton.num_keypoints} keypoints), got {got}."
        )
    box = result.get("bbox", [0, 0, 0, 0])
    if not are_numbers(box) or len(box) != 4:
        raise UserError(f"{where}: 'bbox' has to be [x, y, width, height], got {shown(box)}.")
    if "segmentation" in result:
        code = result["segmentation"]
        if not isinstance(code, dict) or not {"size", "counts"} <= set(code):
            raise UserError(f"{where}: 'segmentation' has to be an RLE, got {shown(code)}.")
        try:
            count_pixels(code, *size)
        except ValueError as error:
            raise UserError(f"{where}: the RLE in 'segmentation' is broken: {error}.") from error
