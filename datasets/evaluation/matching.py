"""Who is found by which result: COCO's greedy assignment, for many images at once.

The same as `COCOeval.evaluateImg`, result for result, without its loops over images, area ranges,
thresholds and people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Similarities from which on a person counts as found; T of them.
THRESHOLDS = np.linspace(0.5, 0.95, 10)

# People's sizes that have figures of their own: least and greatest area, pixels²; A of them.
AREA_RANGES = {"all": (0.0, 1e5**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}

# How many results of an image count, the best ones.
MOST_RESULTS = {"keypoint": 20, "box": 100, "mask": 100}

# Verdicts are stored as bits: bit a * T + t is that of area range a and threshold t.
_BITS = np.arange(len(AREA_RANGES) * len(THRESHOLDS), dtype=np.uint32)
_BITS = (np.uint32(1) << _BITS).reshape(len(AREA_RANGES), len(THRESHOLDS))


@dataclass(frozen=True)
class Candidates:
    """The n results of one kind in an image, best first, and the G people there.

    Attributes:
        similarity: [n, G] float64.
        areas: [n] float64 of the results, pixels².
        true_areas: [G] float64.
        ignored: [G] bool, neither to be found nor wrong to find.
        crowd: [G] bool, may be found many times.
    """

    similarity: np.ndarray
    areas: np.ndarray
    true_areas: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray


def verdict_bit(area: int, threshold: int) -> np.uint32:
    """The bit of area range number `area` and threshold number `threshold` in a verdict."""
    return _BITS[area, threshold]


def outside(areas: np.ndarray) -> np.ndarray:
    """[A, n] bool: which areas [n] are not in each of the area ranges."""
    least, most = np.array(list(AREA_RANGES.values())).T[..., None]
    return (areas < least) | (areas > most)


def judge(images: Sequence[Candidates]) -> tuple[np.ndarray, np.ndarray]:
    """Which results find somebody, and which nobody.

    From the best result to the worst, each finds the most similar person who is not yet found, of
    equals the last one; an ignored person only where no other is similar enough.

    Args:
        images: B images.

    Returns:
        Two verdicts [sum of n] uint32, see `verdict_bit`: right, the result found a person who
        counts, and wrong, it found nobody and has a size that counts. Neither: it is left out.
    """
    counts = [len(image.areas) for image in images]
    most_results, most_people = max(counts, default=0), max(len(image.crowd) for image in images)
    # Padding: of similarity -1, hence never found
    similarity = np.full((most_results, len(images), max(most_people, 1)), -1.0)
    ignored = np.zeros((len(AREA_RANGES), 1, *similarity.shape[1:]), dtype=bool)
    crowd = np.zeros(similarity.shape[1:], dtype=bool)
    for i, image in enumerate(images):
        # People back to front: `argmax` takes the first of equals, COCO the last.
        people = len(image.crowd)
        similarity[: counts[i], i, :people] = image.similarity[:, ::-1]
        ignored[:, 0, i, :people] = (image.ignored | outside(image.true_areas))[:, ::-1]
        crowd[i, :people] = image.crowd[::-1]
    right, taken = _assign(similarity, ignored, crowd)

    real = np.arange(most_results) < np.array(counts)[:, None]  # [B, most results]
    areas = np.concatenate([image.areas for image in images])
    right, taken = right.T[real], taken.T[real]
    inside = (~outside(areas) * _BITS[:, :1]).sum(axis=0, dtype=np.uint32)
    every_threshold = np.uint32((1 << len(THRESHOLDS)) - 1)
    return right, inside * every_threshold & ~taken


def _assign(
    similarity: np.ndarray, ignored: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """See `judge`.

    Args:
        similarity: [n, B, G].
        ignored: [A, 1, B, G].
        crowd: [B, G].

    Returns:
        Verdicts [n, B] uint32: found somebody who counts, found anybody.
    """
    thresholds = THRESHOLDS[:, None, None]
    shape = (len(AREA_RANGES), len(THRESHOLDS), *crowd.shape)
    free = np.ones(shape, dtype=bool)
    right = np.zeros(similarity.shape[:2], dtype=np.uint32)
    taken = np.zeros_like(right)
    order = np.arange(shape[-1])
    for rank in np.flatnonzero((similarity >= THRESHOLDS[0]).any(axis=(1, 2))):
        open_to = free & (similarity[rank] >= thresholds)  # [A, T, B, G]
        regular = open_to & ~ignored
        chosen = np.where(regular.any(axis=-1, keepdims=True), regular, open_to)
        person = np.where(chosen, similarity[rank], -1).argmax(axis=-1)  # [A, T, B]
        chosen &= order == person[..., None]
        free &= ~chosen | crowd
        bits = _BITS[..., None]
        taken[rank] = (chosen.any(axis=-1) * bits).sum(axis=(0, 1), dtype=np.uint32)
        right[rank] = ((chosen & ~ignored).any(axis=-1) * bits).sum(axis=(0, 1), dtype=np.uint32)
    return right, taken
