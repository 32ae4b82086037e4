"""Evaluation without a model: plausible results of many pairs into an evaluator and to figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

UNIT = "pair and prompt"
DEFAULTS: dict[str, Any] = {
    "steps": "all",  # "update", "summarize", "predictions" (keep them, write the file), "all"
    "pairs": 480,
    "prompts": 3,
    "groups": 20,
    "masks": True,
    "height": 480,
    "width": 640,
    "batch_size": 24,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "update": {"steps": "update", "prompts": 1},
    "summarize": {"steps": "summarize", "prompts": 1, "pairs": 960},
    "predictions": {"steps": "predictions", "prompts": 1},
    "end-to-end": {},
    "end-to-end-10000": {"pairs": 10_000, "on_request": True},
}
OLDER = ("update", "summarize", "predictions", "end-to-end", "end-to-end-10000")

NUM_KEYPOINTS = 17
# So many images have results of their own; the others share them with other scores: masks of all
# pairs would not fit into memory.
DIFFERENT_IMAGES = 48


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round takes all results in, or makes the figures of results taken in before, or both."""
    generator = np.random.default_rng(0)
    people = [_person(options, generator) for _ in range(DIFFERENT_IMAGES)]
    pool = [_results(options, person, generator) for person in people]
    truth = _ground_truth(options, people)
    steps, units = options["steps"], options["pairs"] * options["prompts"]
    evaluators = _evaluators(truth, options)
    if steps == "summarize":
        _take_in(evaluators, options, pool)

    def one_round() -> int:
        made = evaluators if steps in ("update", "summarize") else _evaluators(truth, options)
        if steps != "summarize":
            _take_in(made, options, pool)
        for evaluator in made if steps != "update" else ():
            evaluator.synchronize()
            evaluator.summarize()
        if steps == "predictions":
            for evaluator in made:
                _write_predictions(evaluator)
        return units

    return one_round


def _evaluators(truth: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    """One per prompt."""
    from datasets import evaluation

    made = getattr(evaluation, "ReferringEvaluator", evaluation.Evaluator)
    evaluator = made(truth)
    if hasattr(evaluator, "fresh"):
        keep = options["steps"] == "predictions"
        return [evaluator.fresh(keep_predictions=keep) for _ in range(options["prompts"])]
    return [evaluator, *(made(truth) for _ in range(options["prompts"] - 1))]


def _take_in(evaluators: list[Any], options: dict[str, Any], pool: list[dict[str, Tensor]]) -> None:
    for image_ids, results in _batches(options, pool):
        for evaluator in evaluators:  # prompt after prompt, as in `engine.evaluate`
            evaluator.update(image_ids, results)


def _batches(
    options: dict[str, Any], pool: list[dict[str, Tensor]]
) -> Iterator[tuple[list[int], list[dict[str, Tensor]]]]:
    for first in range(0, options["pairs"], options["batch_size"]):
        image_ids = list(range(first, min(first + options["batch_size"], options["pairs"])))
        results = []
        for image_id in image_ids:
            result = pool[image_id % len(pool)]
            # Scores of different images differ, as those of a model.
            results.append({**result, "scores": result["scores"] - 1e-7 * image_id})
        yield image_ids, results


def _write_predictions(evaluator: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.json"
        try:
            from util.logging import write_json_list
        except ImportError:  # an older commit
            path.write_text(json.dumps(evaluator.predictions()))
        else:
            write_json_list(path, evaluator.predictions())


# --- people and what a model might make of them --------------------------------------------------


def _person(options: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """An annotation: a wavy outline, 17 keypoints in it, some not labelled."""
    height, width = options["height"], options["width"]
    w = generator.uniform(0.1, 0.45) * width
    h = generator.uniform(0.2, 0.8) * height
    x, y = generator.uniform(0, width - w), generator.uniform(0, height - h)
    keypoints = np.zeros((NUM_KEYPOINTS, 3))
    keypoints[:, :2] = np.rint([x, y] + generator.random((NUM_KEYPOINTS, 2)) * [w, h])
    keypoints[:, 2] = 2 * (generator.random(NUM_KEYPOINTS) < 0.7)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 0.4 + 0.1 * np.sin(5 * angles + generator.uniform(0, 6))
    outline = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.5
    polygon = ([x, y] + outline * [w, h]).clip(0, [width, height])
    return {
        "bbox": [float(x), float(y), float(w), float(h)],
        "area": float(0.5 * w * h),
        "segmentation": [polygon.round(2).ravel().tolist()],
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "iscrowd": 0,
        "category_id": 1,
    }


def _ground_truth(options: dict[str, Any], people: list[dict[str, Any]]) -> dict[str, Any]:
    """As RefHuman has it: four pairs an image file."""
    size = {"height": options["height"], "width": options["width"]}
    images = [{"id": i, "file_name": f"{i // 4}.jpg", **size} for i in range(options["pairs"])]
    # Every pair its own lists, as read from a file
    annotations = [
        {**json.loads(json.dumps(people[i % len(people)])), "id": i + 1, "image_id": i}
        for i in range(options["pairs"])
    ]
    categories = [{"id": 1, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _results(
    options: dict[str, Any], person: dict[str, Any], generator: np.random.Generator
) -> dict[str, Tensor]:
    """Groups about a person: the better the score, the less noise."""
    groups = options["groups"]
    x, y, w, h = person["bbox"]
    noise = np.sort(generator.random(groups) * generator.choice([0.05, 0.5], groups))
    shift = generator.normal(0, 1, (groups, 2)) * noise[:, None] * [w, h]
    keypoints = np.ones((groups, NUM_KEYPOINTS, 3))
    jitter = generator.normal(0, 0.3, (groups, NUM_KEYPOINTS, 2)) * noise[:, None, None] * w
    truth = np.reshape(person["keypoints"], (-1, 3))[:, :2]
    keypoints[..., :2] = truth + shift[:, None] + jitter
    values = {
        "scores": torch.tensor(0.99 - noise),
        "boxes": torch.tensor(np.array([x, y, x + w, y + h]) + np.tile(shift, 2)),
        "keypoints": torch.tensor(keypoints),
    }
    values = {name: value.float().to(options["device"]) for name, value in values.items()}
    values["labels"] = torch.ones(groups, dtype=torch.int64, device=options["device"])
    if options["masks"]:
        masks = np.zeros((groups, options["height"], options["width"]), dtype=np.uint8)
        outline = np.reshape(person["segmentation"][0], (-1, 2))
        for mask, offset in zip(masks, shift, strict=True):
            moved = outline + offset + generator.normal(0, 2, outline.shape)
            cv2.fillPoly(mask, [np.rint(moved).astype(np.int32)], 1)
        values["masks"] = torch.from_numpy(masks).bool().to(options["device"])
    return values
