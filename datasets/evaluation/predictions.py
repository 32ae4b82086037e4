"""Results that are kept for a file in COCO's results format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from datasets.evaluation.found import HAS, PERSON, Found
from datasets.evaluation.packed import PackedResults, Piece


class KeptPredictions:
    """All people found, packed: about 250 bytes each, and their masks' run-length codes.

    Args:
        image_ids: [N] int64 of the N samples' images, in which several may be of one image.
        sizes: [N, 2] int64 (height, width) of these images.
        num_keypoints: K.
    """

    def __init__(self, image_ids: np.ndarray, sizes: np.ndarray, num_keypoints: int) -> None:
        self._image_ids = image_ids
        self._sizes = sizes
        self._pose_shape = (num_keypoints, 3)
        self._people = PackedResults(
            len(image_ids),
            rows={
                "scores": ((), np.float32),
                "keypoints": (self._pose_shape, np.float32),
                "boxes": ((4,), np.float32),
                "code_lengths": ((), np.int32),
            },
            values=dict.fromkeys(HAS, ((), bool)),
        )
        self._codes = PackedResults(len(image_ids), rows={"bytes": ((), np.uint8)}, values={})

    def put(self, numbers: np.ndarray, found: Sequence[Found]) -> None:
        """Add the results of samples `numbers` [B]."""
        lengths = [[len(code) for code in f.codes or [b""] * len(f.scores)] for f in found]
        no_poses = [np.zeros((len(f.scores), *self._pose_shape)) for f in found]
        no_boxes = [np.zeros((len(f.scores), 4)) for f in found]
        rows = {
            "scores": np.concatenate([f.scores for f in found]),
            "keypoints": np.concatenate(
                [
                    none if f.keypoints is None else f.keypoints
                    for f, none in zip(found, no_poses, strict=True)
                ]
            ),
            "boxes": np.concatenate(
                [
                    none if f.boxes is None else f.corners()
                    for f, none in zip(found, no_boxes, strict=True)
                ]
            ),
            "code_lengths": np.concatenate(lengths),
        }
        values = {
            "has_keypoints": np.array([f.keypoints is not None for f in found]),
            "has_boxes": np.array([f.boxes is not None for f in found]),
            "has_masks": np.array([f.codes is not None for f in found]),
        }
        counts = np.array([len(f.scores) for f in found])
        self._people.put(Piece(numbers, counts, rows, values))
        codes = np.frombuffer(b"".join(b"".join(f.codes or []) for f in found), np.uint8)
        sizes = np.array([sum(of_image) for of_image in lengths])
        self._codes.put(Piece(numbers, sizes, {"bytes": codes}, {}))

    @property
    def parts(self) -> tuple[PackedResults, PackedResults]:
        """What travels between processes."""
        return self._people, self._codes

    def records(self) -> Iterator[dict[str, Any]]:
        """See `Evaluator.predictions`."""
        for number in np.flatnonzero(self._people.is_there):
            yield from self._records(number)

    def _records(self, number: int) -> Iterator[dict[str, Any]]:
        only = np.array([number])
        scores, keypoints, boxes, lengths = self._people.rows(
            only, "scores", "keypoints", "boxes", "code_lengths"
        )
        code = self._codes.rows(only, "bytes")[0].tobytes().decode("ascii")
        ends = np.cumsum(lengths).tolist()
        for i, score in enumerate(scores.tolist()):
            record = {
                "image_id": int(self._image_ids[number]),
                "category_id": PERSON,
                "score": score,
            }
            if self._people.values["has_boxes"][number]:
                record["bbox"] = boxes[i].tolist()
            if self._people.values["has_keypoints"][number]:
                record["keypoints"] = keypoints[i].ravel().tolist()
            if self._people.values["has_masks"][number]:
                counts = code[ends[i] - lengths[i] : ends[i]]
                size = self._sizes[number].tolist()
                record["segmentation"] = {"size": size, "counts": counts}
            yield record
