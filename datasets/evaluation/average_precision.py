"""COCO's average precision, from who was found: the figures of pycocotools, bit for bit."""

from __future__ import annotations

import numpy as np

from datasets.evaluation.matching import AREA_RANGES, THRESHOLDS, verdict_bit

RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(
    scores: np.ndarray, right: np.ndarray, wrong: np.ndarray, counts: np.ndarray
) -> dict[str, float]:
    """Average precision and recall of one kind of result.

    Args:
        scores: [n], in the order of image ids, in an image the best first: equal scores keep it.
        right: [n] of `matching.judge`.
        wrong: [n] of `matching.judge`.
        counts: [A] numbers of people to be found in each area range.

    Returns:
        `ap`, `ap50`, `ap75`, `apm`, `apl` and `ar` in [0, 1]; -1 without anybody to find.
    """
    precision, recall = precision_and_recall(scores, right, wrong, counts)
    areas, thresholds = list(AREA_RANGES), THRESHOLDS.round(2).tolist()

    def mean(values: np.ndarray) -> float:
        values = values[values > -1]
        return float(values.mean()) if values.size else -1.0

    everybody = precision[areas.index("all")]
    return {
        "ap": mean(everybody),
        "ap50": mean(everybody[thresholds.index(0.5)]),
        "ap75": mean(everybody[thresholds.index(0.75)]),
        "apm": mean(precision[areas.index("medium")]),
        "apl": mean(precision[areas.index("large")]),
        "ar": mean(recall[areas.index("all")]),
    }


def precision_and_recall(
    scores: np.ndarray, right: np.ndarray, wrong: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """See `average_precision` for the arguments.

    Returns:
        The best precision at or above each of 101 recalls [A, T, 101], and the recall of all
        results [A, T]; -1 without anybody to find.
    """
    order = np.argsort(-scores, kind="stable")
    right, wrong = right[order], wrong[order]
    precision = -np.ones((len(AREA_RANGES), len(THRESHOLDS), len(RECALLS)))
    recall = -np.ones((len(AREA_RANGES), len(THRESHOLDS)))
    for area in np.flatnonzero(counts):
        for threshold in range(len(THRESHOLDS)):
            bit = verdict_bit(area, threshold)
            # Between two right results precision falls and recall stays: only they matter.
            hits = np.flatnonzero(right & bit)
            misses = np.cumsum((wrong & bit) != 0)[hits].astype(np.float64)
            found = np.arange(1, len(hits) + 1, dtype=np.float64)
            best = found / (misses + found + np.spacing(1))
            best = np.maximum.accumulate(best[::-1])[::-1]
            first = np.searchsorted(found / counts[area], RECALLS, side="left")
            reached = first < len(hits)
            precision[area, threshold] = 0
            precision[area, threshold, reached] = best[first[reached]]
            recall[area, threshold] = len(hits) / counts[area]
    return precision, recall
