"""Average precision, number by number the same as pycocotools'."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoIndex
from pycocotools.cocoeval import COCOeval

from datasets.evaluation import PeopleEvaluator
from datasets.evaluation.average_precision import precision_and_recall
from datasets.evaluation.matching import outside
from datasets.evaluation.similarity import encode_masks, keypoint_similarity
from datasets.skeleton import COCO

KINDS = {
    "keypoint": ("keypoints", "keypoints"),
    "box": ("bbox", "bbox"),
    "mask": ("segm", "segmentation"),
}
HEIGHT, WIDTH = 120, 160

# Small, medium and large; the borders of the area ranges belong to both sides.
AREAS = (0, 1e-3, 1023.9999, 1024, 1024.0001, 3000, 9215.9, 9216, 9216.5, 40000, 1e10, 1.1e10)
SIZES = ((32, 32), (96, 96), (31, 33), (64, 16), (16, 64), (100, 100), (0, 10), (5, 7), (40, 80))


def adversarial_truth(generator: np.random.Generator) -> dict:
    """Few images, all that is awkward: equal people, crowds, nobody, nothing labelled."""
    count = int(generator.integers(1, 7))
    ids = generator.choice(1000, count, replace=False).tolist()
    images = [{"id": i, "file_name": "", "height": HEIGHT, "width": WIDTH} for i in ids]
    annotations = []
    for image_id in ids:
        for _ in range(int(generator.choice([0, 1, 1, 2, 3, 8, 25]))):
            w, h = SIZES[generator.integers(len(SIZES))]
            x, y = generator.integers(0, 60, 2).tolist()
            keypoints = np.zeros((17, 3))
            keypoints[:, :2] = generator.integers(0, 100, (17, 2))
            if generator.random() < 0.8:
                keypoints[:, 2] = generator.integers(0, 3, 17) * (
                    generator.random(17) < generator.choice([0.1, 0.5, 1.0])
                )
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            mask[y : y + h, x : x + w] = generator.random() < 0.95  # else empty
            code = coco_mask.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": int(generator.random() < 0.2),
                    "bbox": [x, y, w, h] if generator.random() < 0.7 else [x + 0.1, y + 0.7, w, h],
                    "area": float(generator.choice(AREAS)),
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()},
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
            if generator.random() < 0.2:  # the same person once more
                annotations.append(copy.deepcopy(annotations[-1]))
    for annotation_id, annotation in enumerate(annotations, start=1):
        annotation["id"] = annotation_id
    order = generator.permutation(len(annotations))
    categories = [{"id": 1, "name": "person"}]
    return {
        "images": images,
        "annotations": [annotations[i] for i in order],
        "categories": categories,
    }


def adversarial_results(truth: dict, generator: np.random.Generator) -> list[dict]:
    """None to 130 results an image: exact, half right and wrong ones; many equal scores."""
    results = []
    levels = int(generator.choice([1, 2, 5, 1000]))
    for image in truth["images"]:
        people = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        count = int(generator.choice([0, 1, 5, 20, 21, 60, 130]))
        keypoints = generator.integers(0, 100, (count, 17, 3)).astype(np.float64)
        boxes = np.zeros((count, 4))
        masks = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
        for i in range(count):
            x, y = generator.integers(0, 60, 2).tolist()
            w, h = SIZES[generator.integers(len(SIZES))]
            if people and generator.random() < 0.8:
                person = people[generator.integers(len(people))]
                x, y, w, h = person["bbox"]
                w, h = w * generator.choice([0.5, 0.75, 1, 1, 1.1]), h * generator.choice([1, 0.9])
                noise = generator.normal(0, 1, (17, 2)) * generator.choice([0, 1, 5, 20])
                keypoints[i, :, :2] = np.reshape(person["keypoints"], (17, 3))[:, :2] + noise
            boxes[i] = [x, y, x + w, y + h]
            masks[i, int(y) : int(y + h), int(x) : int(x + w)] = True
        results.append(
            {
                "scores": torch.tensor(generator.integers(0, levels, count) / levels).float(),
                "keypoints": torch.tensor(keypoints).float(),
                "boxes": torch.tensor(boxes).float(),
                "masks": torch.from_numpy(masks),
            }
        )
    return results


def pycocotools_arrays(
    truth: dict, records: list[dict], kind: str, evaluation_type: type[COCOeval] = COCOeval
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, 101, A] and recall [T, A] of everybody, the medium and the large."""
    coco_type, key = KINDS[kind]
    index = CocoIndex()
    index.dataset = copy.deepcopy(truth)
    kept = ("image_id", "category_id", "score", key)
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
        detections = index.loadRes([{name: record[name] for name in kept} for record in records])
        evaluation = evaluation_type(index, detections, coco_type)
        evaluation.evaluate()
        evaluation.accumulate()
    areas = [evaluation.params.areaRngLbl.index(name) for name in ("all", "medium", "large")]
    precision = evaluation.eval["precision"][:, :, 0, areas, -1]
    return precision, evaluation.eval["recall"][:, 0, areas, -1]


@pytest.mark.parametrize("seed", range(40))
def test_precision_and_recall_are_pycocotools_own(seed):
    generator = np.random.default_rng(seed)
    truth = adversarial_truth(generator)
    results = adversarial_results(truth, generator)
    image_ids = [image["id"] for image in truth["images"]]
    evaluator = PeopleEvaluator(truth, keep_predictions=True)
    batch = int(generator.integers(1, 4))
    for start in range(0, len(results), batch):
        evaluator.update(image_ids[start : start + batch], results[start : start + batch])
    records = list(evaluator.predictions())
    if not records:
        assert evaluator.summarize()["keypoint_ap"] in (0, -1)
        return
    for kind in KINDS:
        expected = pycocotools_arrays(truth, records, kind)
        for ours, theirs in zip(arrays_of(evaluator, kind), expected, strict=True):
            assert (ours == theirs).all(), kind


def arrays_of(evaluator: PeopleEvaluator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """What an evaluator's figures are means of, laid out as in pycocotools."""
    names = ("scores", f"{kind}_right", f"{kind}_wrong")
    rows = evaluator._judged.rows(evaluator._by_id, *names)
    counted = ~(evaluator._ignored[kind] | outside(evaluator._truth.areas))
    precision, recall = precision_and_recall(*rows, counted.sum(axis=1))
    return np.moveaxis(precision, 0, -1), recall.T


def test_the_random_cases_are_awkward_enough():
    """Over all seeds: ties that decide, people found up to every threshold, every kind of size."""
    truths = [adversarial_truth(np.random.default_rng(seed)) for seed in range(40)]
    annotations = [a for truth in truths for a in truth["annotations"]]
    assert {a["area"] for a in annotations} == set(AREAS)
    assert any(a["num_keypoints"] == 0 and not a["iscrowd"] for a in annotations)
    assert any(a["iscrowd"] and a["num_keypoints"] for a in annotations)
    assert {a["num_keypoints"] for a in annotations} >= set(range(14))
    assert any(not truth["annotations"] for truth in truths)


@pytest.mark.parametrize("labelled", range(18))
def test_similarity_of_poses_is_pycocotools_own(labelled):
    generator = np.random.default_rng(labelled)
    keypoints = np.zeros((17, 3))
    keypoints[:, :2] = generator.random((17, 2)) * 300
    keypoints[generator.permutation(17)[:labelled], 2] = 2
    truth = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": (generator.random(4) * 200).tolist(),
        "area": float(generator.random() * 9000),
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": labelled,
        "iscrowd": 0,
    }
    noise = generator.normal(0, 1, (20, 17, 2)) * generator.choice([0.1, 10, 100], (20, 1, 1))
    found = keypoints[:, :2] + noise
    detections = [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 1,
            "keypoints": np.concatenate([pose, np.ones((17, 1))], axis=1).ravel().tolist(),
            "score": 1 - i / 20,
            "area": 1.0,
        }
        for i, pose in enumerate(found)
    ]
    indices = []
    for entries in ([truth], detections):
        index = CocoIndex()
        index.dataset = {
            "images": [{"id": 1}],
            "annotations": entries,
            "categories": [{"id": 1}],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            index.createIndex()
        indices.append(index)
    evaluation = COCOeval(*indices, "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(COCO.sigmas)  # its own differ in the last bit
    evaluation._prepare()
    ours = keypoint_similarity(
        found,
        keypoints[None],
        np.array([truth["bbox"]]),
        np.array([truth["area"]]),
        np.array(COCO.sigmas),
    )
    assert (ours == evaluation.computeOks(1, 1)).all()


@pytest.mark.parametrize("shape", [(0, 30, 40), (3, 1, 1), (5, 37, 53), (2, 64, 128)])
def test_codes_of_masks_are_pycocotools_own(shape):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(shape, generator=generator) < torch.rand(shape[0], 1, 1, generator=generator)
    expected = [coco_mask.encode(np.asfortranarray(m.numpy().view(np.uint8))) for m in masks]
    assert encode_masks(masks) == [code["counts"] for code in expected]
    # Not side by side in memory either
    turned = masks.transpose(1, 2)
    expected = [coco_mask.encode(np.asfortranarray(m.numpy().view(np.uint8))) for m in turned]
    assert encode_masks(turned) == [code["counts"] for code in expected]
