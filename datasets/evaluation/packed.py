"""Results of many images as a few large arrays: no Python object per number, group or image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Piece:
    """Results of some images, as they travel.

    Attributes:
        numbers: [B] which images.
        counts: [B] how many rows each of them has.
        rows: name -> [sum of counts, ...], image after image.
        values: name -> [B, ...], one per image.
    """

    numbers: np.ndarray
    counts: np.ndarray
    rows: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]


class PackedResults:
    """For each of N images any number of rows, and single values.

    Args:
        num_images: N.
        rows: name -> (shape, dtype) of what every row has.
        values: name -> (shape, dtype) of what every image has once.
    """

    def __init__(
        self,
        num_images: int,
        rows: Mapping[str, tuple[tuple[int, ...], Any]],
        values: Mapping[str, tuple[tuple[int, ...], Any]],
    ) -> None:
        self.is_there = np.zeros(num_images, dtype=bool)
        self.values = {
            name: np.zeros((num_images, *shape), dtype) for name, (shape, dtype) in values.items()
        }
        self._start = np.zeros(num_images, dtype=np.int64)
        self._count = np.zeros(num_images, dtype=np.int64)
        self._columns = {
            name: np.empty((0, *shape), dtype) for name, (shape, dtype) in rows.items()
        }
        self._length = 0

    def put(self, piece: Piece) -> None:
        """Add images. One that is there already, or twice in the piece, is replaced."""
        ends = self._length + np.cumsum(piece.counts)
        self._make_room(int(ends[-1]) if len(ends) else self._length)
        for name, column in self._columns.items():
            column[self._length : self._length + len(piece.rows[name])] = piece.rows[name]
        for name, values in self.values.items():
            values[piece.numbers] = piece.values[name]
        self._start[piece.numbers] = ends - piece.counts
        self._count[piece.numbers] = piece.counts
        self.is_there[piece.numbers] = True
        self._length += int(piece.counts.sum())

    def rows(self, numbers: np.ndarray, *names: str) -> list[np.ndarray]:
        """Columns of the rows of some images [sum of their counts, ...], image after image."""
        counts = self._count[numbers]
        starts = self._start[numbers]
        before = np.cumsum(counts) - counts
        index = np.repeat(starts - before, counts) + np.arange(counts.sum())
        return [self._columns[name][index] for name in names]

    def counts(self, numbers: np.ndarray) -> np.ndarray:
        """How many rows some images have, int64."""
        return self._count[numbers]

    def pieces(self, images: int) -> Iterator[Piece]:
        """All that is there, `images` images at a time."""
        there = np.flatnonzero(self.is_there)
        for first in range(0, len(there), images):
            numbers = there[first : first + images]
            rows = self.rows(numbers, *self._columns)
            yield Piece(
                numbers,
                self.counts(numbers),
                dict(zip(self._columns, rows, strict=True)),
                {name: values[numbers] for name, values in self.values.items()},
            )

    def _make_room(self, length: int) -> None:
        for name, column in self._columns.items():
            if length > len(column):
                # Memory that is not written to yet costs nothing.
                grown = np.empty((max(length, 2 * len(column)), *column.shape[1:]), column.dtype)
                grown[: self._length] = column[: self._length]
                self._columns[name] = grown
