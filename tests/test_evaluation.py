"""Metrics against values worked out by hand."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from launch import run_python
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoIndex
from pycocotools.cocoeval import COCOeval

from datasets.evaluation import PeopleEvaluator, ReferringEvaluator, format_table
from datasets.evaluation import evaluator as evaluator_module
from datasets.skeleton import COCO
from util.errors import UserError

HEIGHT, WIDTH = 100, 200


def truth_entry(image_id, box=(20, 10, 80, 80), file_name=None, **changed):
    """Image entry and annotation of a person whose mask is its box (x, y, width, height)."""
    x, y, w, h = box
    keypoints = np.full((17, 3), 2.0)
    keypoints[:, 0] = x + w * np.linspace(0.1, 0.9, 17)
    keypoints[:, 1] = y + h * np.linspace(0.9, 0.1, 17)
    # A head of 10 pixels
    keypoints[3, :2], keypoints[4, :2] = (x + 20, y + 10), (x + 30, y + 10)
    image = {
        "id": image_id,
        "file_name": file_name or f"{image_id}.jpg",
        "height": HEIGHT,
        "width": WIDTH,
    }
    annotation = {
        "id": image_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": list(box),
        "area": float(w * h),
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        "keypoints": keypoints.ravel().tolist(),
        **changed,
    }
    return image, annotation


def ground_truth(*entries, **more):
    return {
        "images": [image for image, _ in entries],
        "annotations": [annotation for _, annotation in entries],
        "categories": [{"id": 1, "name": "person"}],
        **more,
    }


def result_of(*groups):
    """Results of groups (score, box xywh, keypoints [17, 3] or annotation to copy)."""
    boxes, keypoints, masks = [], [], []
    for _, (x, y, w, h), pose in groups:
        if isinstance(pose, dict):
            pose = np.array(pose["keypoints"]).reshape(17, 3)
        boxes.append([x, y, x + w, y + h])
        keypoints.append(pose)
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[y : y + h, x : x + w] = True
        masks.append(mask)
    return {
        "scores": torch.tensor([group[0] for group in groups]),
        "labels": torch.ones(len(groups), dtype=torch.int64),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "keypoints": torch.tensor(np.array(keypoints), dtype=torch.float32).reshape(-1, 17, 3),
        "masks": torch.from_numpy(np.array(masks).reshape(-1, HEIGHT, WIDTH)),
    }


def moved(annotation, by, only=slice(None)):
    pose = np.array(annotation["keypoints"]).reshape(17, 3).copy()
    pose[only, 0] += by
    return pose


def perfect_summary(count=4):
    entries = [truth_entry(i) for i in range(count)]
    evaluator = ReferringEvaluator(ground_truth(*entries))
    for image, annotation in entries:
        evaluator.update([image["id"]], [result_of((0.9, (20, 10, 80, 80), annotation))])
    return evaluator.summarize()


def test_perfect_predictions():
    summary = perfect_summary()  # image id 0 included: pycocotools would lose annotation id 0
    for key in ("keypoint_ap", "box_ap", "mask_ap", "keypoint_ap75", "box_apm", "pckh"):
        assert summary[key] == pytest.approx(1.0), key
    for key in ("oiou", "miou", "precision@0.5", "precision@0.9", "found"):
        assert summary[key] == 1.0, key
    assert summary["num_samples"] == 4
    # 80 x 80 = 6400 square pixels is "medium"; nobody is large, nobody shares an image.
    assert summary["box_apl"] == summary["identity_accuracy"] == -1
    assert summary["identity_count"] == 0


def test_average_precision_of_a_worked_example():
    # Scores 0.9 (right), 0.8 (wrong), 0.7 (right); two people. Precision is 1 up to recall 0.5 and
    # 2/3 after it: over the 101 recall levels, 51 x 1 and 50 x 2/3.
    first, second = truth_entry(1), truth_entry(2)
    evaluator = ReferringEvaluator(ground_truth(first, second))
    far = (110, 10, 80, 80)
    evaluator.update([1], [result_of((0.9, (20, 10, 80, 80), first[1]))])
    evaluator.update(
        [2],
        [
            result_of(
                (0.8, far, moved(second[1], 90)),
                (0.7, (20, 10, 80, 80), second[1]),
            )
        ],
    )
    summary = evaluator.summarize()
    expected = (51 + 50 * 2 / 3) / 101
    for kind in ("keypoint", "box", "mask"):
        assert summary[f"{kind}_ap"] == pytest.approx(expected), kind
    # From the best group of each: one right, one with no overlap.
    assert summary["miou"] == summary["precision@0.5"] == summary["found"] == 0.5
    assert summary["oiou"] == pytest.approx(6400 / (6400 + 2 * 6400))


def test_overlap_thresholds_and_means():
    # Box and mask 80 x 60 of 80 x 80: IoU 0.75. AP counts thresholds 0.5 ... 0.75, 6 of 10.
    image, annotation = truth_entry(1)
    small = truth_entry(2, box=(20, 10, 40, 40))
    evaluator = ReferringEvaluator(ground_truth((image, annotation), small))
    evaluator.update([1], [result_of((0.9, (20, 10, 80, 60), annotation))])
    evaluator.update([2], [result_of((0.9, (20, 10, 40, 40), small[1]))])
    summary = evaluator.summarize()
    assert summary["miou"] == pytest.approx((0.75 + 1) / 2)
    assert summary["oiou"] == pytest.approx((4800 + 1600) / (6400 + 1600))
    assert [summary[f"precision@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)] == [1, 1, 1, 0.5, 0.5]
    # Equal scores are ranked by image: the first is right up to IoU 0.75; above it, precision is
    # 1/2 up to the recall of 0.5.
    expected = (6 * 1.0 + 4 * (51 * 0.5 / 101)) / 10
    assert summary["box_ap"] == pytest.approx(expected)
    assert summary["mask_ap75"] == pytest.approx(1.0)


def test_keypoint_similarity_of_a_worked_example():
    # All keypoints but the nose unlabelled; the nose is off by d with OKS = exp(-d² / 2 s² (2σ)²).
    image, annotation = truth_entry(1)
    keypoints = np.zeros((17, 3))
    keypoints[0] = (60, 50, 2)
    annotation["keypoints"] = keypoints.ravel().tolist()
    for target, hits in ((0.92, 9), (0.62, 3), (0.48, 0)):
        distance = math.sqrt(-math.log(target) * 2 * 6400) * 2 * COCO.sigmas[0]
        evaluator = ReferringEvaluator(ground_truth((image, annotation)))
        evaluator.update([1], [result_of((0.9, (20, 10, 80, 80), moved(annotation, distance)))])
        summary = evaluator.summarize()
        assert summary["keypoint_ap"] == pytest.approx(hits / 10)
        assert summary["found"] == (hits > 0)
        assert summary["pckh"] == -1  # no ears


def test_pckh_of_a_worked_example():
    # Head size 10: within 5 pixels is right. Image 1: 4 of 17 off by 5.5, one by 4.5. Image 2 lacks
    # an ear and is left out. Image 3: one keypoint unlabelled, nine of 16 off.
    first, second, third = (truth_entry(i) for i in (1, 2, 3))
    second[1]["keypoints"][4 * 3 + 2] = 0
    third[1]["keypoints"][0:3] = [0, 0, 0]
    evaluator = ReferringEvaluator(ground_truth(first, second, third))
    pose = moved(first[1], 5.5, slice(5, 9))
    pose[10, 0] += 4.5
    box = (20, 10, 80, 80)
    # A better pose with a lower score must not count.
    evaluator.update([1], [result_of((0.4, box, first[1]), (0.6, box, pose))])
    evaluator.update([2], [result_of((0.6, box, moved(second[1], 50)))])
    evaluator.update([3], [result_of((0.6, box, moved(third[1], 50, slice(8, 17))))])
    assert evaluator.summarize()["pckh"] == pytest.approx((13 + 7) / (17 + 16))


def two_people(**more):
    left = truth_entry(1, box=(10, 10, 70, 80), file_name="both.jpg")
    right = truth_entry(2, box=(110, 10, 70, 80), file_name="both.jpg")
    again = truth_entry(3, box=(110, 10, 70, 80), file_name="both.jpg")
    alone = truth_entry(4)
    return left, right, again, alone, ground_truth(left, right, again, alone, **more)


def test_identity_accuracy_with_derived_people():
    left, right, again, alone, truth = two_people()
    evaluator = ReferringEvaluator(truth)
    box = (10, 10, 70, 80)
    evaluator.update([1], [result_of((0.9, box, right[1]), (0.1, box, left[1]))])  # the other one
    evaluator.update([2], [result_of((0.9, box, moved(right[1], 2)))])
    evaluator.update([3], [result_of((0.9, box, moved(right[1], 10_000)))])  # nobody: a tie at 0
    evaluator.update([4], [result_of((0.9, box, alone[1]))])
    summary = evaluator.summarize()
    assert summary["identity_count"] == 3
    assert summary["identity_accuracy"] == pytest.approx(1 / 3)
    assert summary["identity_chance"] == pytest.approx(1 / 2)  # the repeated person counts once
    assert summary["found"] == pytest.approx(2 / 4)


def test_identity_accuracy_with_listed_people():
    left, right, again, alone, truth = two_people()
    people = []
    for person_id, entry in enumerate((left, right, truth_entry(9, box=(60, 10, 40, 30)), alone)):
        people.append(
            {
                "file_name": "both.jpg" if person_id < 3 else "4.jpg",
                "person_id": person_id,
                **{key: entry[1][key] for key in ("bbox", "area", "keypoints")},
            }
        )
    unseen = {**people[0], "person_id": 7, "keypoints": [0] * 51}
    truth["people"] = [*people, unseen]
    for annotation, person_id in zip(truth["annotations"], (0, 1, 1, 3), strict=True):
        annotation["person_id"] = person_id
    evaluator = ReferringEvaluator(truth)
    for image, annotation in (left, right, again, alone):
        evaluator.update([image["id"]], [result_of((0.9, (10, 10, 70, 80), annotation))])
    summary = evaluator.summarize()
    assert summary["identity_accuracy"] == 1
    assert summary["identity_chance"] == pytest.approx(1 / 3)  # who has no keypoints is no rival

    truth["people"] = people[1:]
    with pytest.raises(ValueError, match="image id 1 is not among the 'people' of both.jpg"):
        ReferringEvaluator(truth)
    del people[2]["area"]
    with pytest.raises(ValueError, match="entry of 'people' lacks area"):
        ReferringEvaluator(truth)


def test_results_without_masks_or_groups():
    first, second = truth_entry(1), truth_entry(2)
    evaluator = ReferringEvaluator(ground_truth(first, second))
    result = result_of((0.9, (20, 10, 80, 80), first[1]))
    evaluator.update([1], [{key: value for key, value in result.items() if key != "masks"}])
    evaluator.update([2], [result_of()])
    summary = evaluator.summarize()
    assert "mask_ap" not in summary and "miou" not in summary
    assert summary["box_ap"] == pytest.approx(51 / 101)
    assert summary["pckh"] == 0.5 and summary["found"] == 0.5
    assert "mask AP" not in format_table({"text": summary})

    evaluator = ReferringEvaluator(ground_truth(first))
    evaluator.update([1], [result_of()])
    summary = evaluator.summarize()
    assert summary["mask_ap"] == summary["box_ap"] == summary["oiou"] == summary["pckh"] == 0


def test_processes_merge_without_counting_twice(monkeypatch):
    entries = [truth_entry(i) for i in range(1, 6)]
    truth = ground_truth(*entries)
    noise = np.random.default_rng(0).normal(0, 6, (6, 17, 3))
    results = {
        image["id"]: result_of(
            (0.5 + 0.1 * image["id"], (20, 10, 80, 70), moved(annotation, noise[image["id"], :, 0]))
        )
        for image, annotation in entries
    }
    alone = ReferringEvaluator(truth, keep_predictions=True)
    alone.update(list(results), list(results.values()))

    # Ids 2 and 5 come from both processes.
    shares = []
    for ids in ((1, 2, 5), (2, 3, 4, 5)):
        shares.append(alone.fresh(keep_predictions=True))
        shares[-1].update(ids, [results[i] for i in ids])
        shares[-1].update(ids[:1], [results[ids[0]]])
    with pytest.raises(ValueError, match="2 of 5 image entries have no results"):
        shares[0].summarize()
    # As the second process sends it, two images at a time
    parts = [shares[1]._judged, *shares[1]._kept.parts]
    pieces = iter([copy.deepcopy(list(part.pieces(2))) for part in parts])
    monkeypatch.setattr(evaluator_module, "gather_in_pieces", lambda own: next(pieces))
    shares[0].synchronize()
    assert shares[0].summarize() == alone.summarize()
    assert list(shares[0].predictions()) == list(alone.predictions())
    # Masks travel to the main process only, and no other holds them afterwards.
    monkeypatch.setattr(evaluator_module, "gather_in_pieces", lambda own: [])
    monkeypatch.setattr(evaluator_module, "is_main_process", lambda: False)
    shares[1].synchronize()
    assert list(shares[1].predictions()) == []


def test_predictions_are_coco_results_in_json():
    image, annotation = truth_entry(1)
    evaluator = ReferringEvaluator(ground_truth((image, annotation)), keep_predictions=True)
    evaluator.update(
        [1], [result_of((0.9, (20, 10, 80, 60), annotation), (0.1, (0, 0, 5, 5), annotation))]
    )
    records = json.loads(json.dumps(list(evaluator.predictions())))
    assert len(records) == 2
    assert records[0]["bbox"] == [20, 10, 80, 60]
    assert records[0]["keypoints"] == pytest.approx(annotation["keypoints"], abs=1e-4)
    assert records[0]["category_id"] == 1 and records[0]["score"] == pytest.approx(0.9)
    mask = coco_mask.decode(records[0]["segmentation"])
    assert mask.shape == (HEIGHT, WIDTH) and mask[10:70, 20:100].all() and mask.sum() == 4800
    json.dumps(evaluator.summarize(), allow_nan=False)


def test_ground_truth_and_results_stay_untouched(capsys):
    image, annotation = truth_entry(1)
    truth = ground_truth((image, annotation))
    before = copy.deepcopy(truth)
    evaluator = ReferringEvaluator(truth)
    evaluator.update([1], [result_of((0.9, (20, 10, 80, 80), annotation))])
    assert evaluator.summarize() == evaluator.summarize()
    assert truth == before
    assert capsys.readouterr().out == ""


def kept_bytes(evaluator):
    """Bytes of the arrays that an evaluator holds of its results."""
    parts = [evaluator._judged, *(evaluator._kept.parts if evaluator._kept else ())]
    pieces = [piece for part in parts for piece in part.pieces(1000)]
    return sum(
        array.nbytes for p in pieces for array in (*p.rows.values(), *p.values.values(), p.counts)
    )


def test_memory_holds_neither_pixels_nor_results():
    entries = [truth_entry(i) for i in range(10)]
    result = result_of(*[(0.9, (20, 10, 80, 80), entries[0][1])] * 20)
    sizes = []
    for keep_predictions in (False, True):
        evaluator = ReferringEvaluator(ground_truth(*entries), keep_predictions=keep_predictions)
        for image_id in range(10):
            evaluator.update([image_id], [result])
        sizes.append(kept_bytes(evaluator) / 10)
    assert sizes[0] < 20 * 28 + 64  # of each result a score and six verdicts
    assert sizes[0] + 20 * 220 < sizes[1] < 20 * HEIGHT * WIDTH / 20

    with pytest.raises(ValueError, match="not kept"):
        ReferringEvaluator(ground_truth(*entries)).predictions()


def test_results_travel_once_and_masks_stay(monkeypatch):
    entries = [truth_entry(i) for i in range(3)]
    truth = ground_truth(*entries)
    results = [result_of(*[(0.9, (20, 10, 80, 60), a)] * 4) for _, a in entries]
    transfers, drawn = [], []
    to_cpu, decode = torch.Tensor.cpu, coco_mask.decode
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: (transfers.append(t.numel()), to_cpu(t))[1])
    monkeypatch.setattr(coco_mask, "decode", lambda code: (drawn.append(1), decode(code))[1])
    first = ReferringEvaluator(truth)
    for evaluator in (first, first.fresh()):  # two prompts
        evaluator.update([0, 1, 2], results)
    # Score, label, 17 keypoints, box and two numbers of pixels of each; the masks are only counted.
    assert transfers == [3 * 4 * (1 + 1 + 51 + 4 + 2)] * 2
    assert len(drawn) == 3  # the true masks, for both prompts together
    first.fresh(keep_predictions=True).update([0, 1, 2], results)
    assert transfers[2:] == [4 * HEIGHT * WIDTH] * 3 + transfers[:1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_results_on_a_gpu_have_the_same_figures():
    truth = crowded_truth(0)
    results = crowded_results(truth, 1, with_masks=True)
    summaries, predictions = [], []
    for device in ("cpu", "cuda"):
        evaluator = PeopleEvaluator(truth, keep_predictions=True)
        moved_results = [{k: v.to(device) for k, v in r.items()} for r in results.values()]
        evaluator.update(list(results), moved_results)
        summaries.append(evaluator.summarize())
        predictions.append(list(evaluator.predictions()))
    assert summaries[0] == summaries[1]
    assert predictions[0] == predictions[1]


def test_fresh_evaluators_share_nothing_but_the_ground_truth():
    image, annotation = truth_entry(1)
    first = ReferringEvaluator(ground_truth((image, annotation)))
    first.update([1], [result_of((0.9, (20, 10, 80, 80), annotation))])
    second = first.fresh()
    with pytest.raises(ValueError, match="1 of 1 image entries have no results"):
        second.summarize()
    second.update([1], [result_of((0.9, (110, 10, 80, 80), moved(annotation, 90)))])
    assert first.summarize()["keypoint_ap"] == pytest.approx(1.0)
    assert second.summarize()["keypoint_ap"] == 0


@pytest.mark.parametrize("key", ["scores", "keypoints", "boxes"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_results_that_are_not_finite_are_refused(key, value):
    entries = [truth_entry(i) for i in (3, 4)]
    evaluator = ReferringEvaluator(ground_truth(*entries))
    results = [result_of((0.9, (20, 10, 80, 80), annotation)) for _, annotation in entries]
    results[1][key].view(-1)[0] = value
    with pytest.raises(UserError, match=f"not finite numbers: {key} of image ids 4"):
        evaluator.update([3, 4], results)


def test_mask_logits_that_are_not_finite_are_refused():
    # A mask of NaN is an empty one; only the sum of its logits tells.
    entries = [truth_entry(i) for i in (3, 4)]
    evaluator = ReferringEvaluator(ground_truth(*entries))
    results = [result_of((0.9, (20, 10, 80, 80), annotation)) for _, annotation in entries]
    for result, total in zip(results, (5.0, math.nan), strict=True):
        result["mask_sums"] = torch.full((len(result["scores"]),), total)
    with pytest.raises(UserError, match="not finite numbers: masks of image ids 4"):
        evaluator.update([3, 4], results)


def test_bad_results_are_named():
    image, annotation = truth_entry(5)
    evaluator = ReferringEvaluator(ground_truth((image, annotation)))
    result = result_of((0.9, (20, 10, 80, 80), annotation))
    with pytest.raises(ValueError, match="Image id 6 is not in the ground truth"):
        evaluator.update([6], [result])
    with pytest.raises(ValueError, match=r"Image id 5: result 'masks' has shape \(1, 50, 200\)"):
        evaluator.update([5], [{**result, "masks": result["masks"][:, :50]}])
    with pytest.raises(ValueError, match="1 image ids for 0 results"):
        evaluator.update([5], [])
    with pytest.raises(ValueError, match="image id 5 has several"):
        ReferringEvaluator({"images": [image], "annotations": [annotation, annotation]})
    with pytest.raises(ValueError, match="Image id 5 has no annotation"):
        ReferringEvaluator({"images": [image], "annotations": []})
    del annotation["segmentation"]
    with pytest.raises(UserError, match="not every annotation has a 'segmentation'"):
        ReferringEvaluator(ground_truth((image, annotation))).update([5], [result])


def test_table():
    summary = perfect_summary(2)
    table = format_table({"text": summary, "point": {**summary, "keypoint_ap": 0.1234}})
    lines = table.splitlines()
    assert lines[0].split()[-2:] == ["text", "point"]
    row = next(line for line in lines if line.startswith("keypoint AP "))
    assert row.split()[-2:] == ["100.00", "12.34"]
    assert next(line for line in lines if "large" in line).split()[-1] == "-"
    assert len({len(line) for line in lines}) == 1


def test_table_prints_whatever_is_there():
    lines = format_table({"people": {"keypoint_ap": 0.5, "hand_ap": 0.25, "num_hands": 3}})
    rows = [line.rsplit(maxsplit=1) for line in lines.splitlines()[2:]]
    assert rows == [["keypoint AP", "50.00"], ["hand_ap", "25.00"], ["num_hands", "3"]]


# --- many people ---------------------------------------------------------------------------------


def crowded_truth(seed: int) -> dict:
    """Images with none to seven people of all sizes, crowd regions, people without keypoints."""
    generator = np.random.default_rng(seed)
    images, annotations = [], []
    for image_id in range(12):  # image id 0 included
        height, width = generator.integers(150, 400, 2).tolist()
        images.append({"id": image_id, "file_name": "", "height": height, "width": width})
        for _ in range(generator.integers(0, 8)):
            w, h = generator.uniform(8, 0.7 * width), generator.uniform(8, 0.7 * height)
            x, y = generator.uniform(0, width - w), generator.uniform(0, height - h)
            keypoints = np.zeros((17, 3))
            keypoints[:, 0] = x + generator.random(17) * w
            keypoints[:, 1] = y + generator.random(17) * h
            keypoints[:, 2] = generator.integers(0, 3, 17) * (generator.random() < 0.8)
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            is_crowd = bool(generator.random() < 0.15)
            if is_crowd:
                keypoints[:] = 0
            code = coco_mask.merge(coco_mask.frPyObjects([polygon], height, width))
            crowd = {"size": [height, width], "counts": code["counts"].decode()}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": int(is_crowd),
                    "bbox": [x, y, w, h],
                    "area": w * h * 0.6,
                    "segmentation": crowd if is_crowd else [polygon],
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
    categories = [{"id": 1, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def crowded_results(truth: dict, seed: int, with_masks: bool = False) -> dict[int, dict]:
    """Up to 40 results per image: people found roughly, doubled, invented; scores with ties."""
    generator = np.random.default_rng(seed)
    results = {}
    for image in truth["images"]:
        people = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        count = int(generator.integers(0, 40))
        poses, boxes = np.zeros((count, 17, 3)), np.zeros((count, 4))
        masks = np.zeros((count, image["height"], image["width"]), dtype=bool)
        for i in range(count):
            x, y, w, h = 10, 10, 60, 80
            poses[i, :, :2] = generator.random((17, 2)) * [image["width"], image["height"]]
            if people and generator.random() < 0.7:
                person = people[generator.integers(len(people))]
                x, y, w, h = person["bbox"]
                noise = generator.normal(0, 0.02 * np.sqrt(w * h), (17, 2))
                poses[i, :, :2] = np.reshape(person["keypoints"], (17, 3))[:, :2] + noise
            boxes[i] = np.array([x, y, x + w, y + h]) + generator.normal(0, 0.05 * w, 4)
            x0, y0, x1, y1 = np.rint(boxes[i]).astype(int).clip(0)
            masks[i, y0:y1, x0:x1] = True
        results[image["id"]] = {
            "scores": torch.tensor(generator.integers(1, 9, count) / 10).float(),
            "labels": torch.tensor(generator.random(count) < 0.9).long(),
            "keypoints": torch.tensor(poses).float(),
            "boxes": torch.tensor(boxes).float(),
        }
        if with_masks:
            results[image["id"]]["masks"] = torch.from_numpy(masks)
    return results


def ordinary_coco_figures(
    truth: dict, records: list[dict], coco_type: str, key: str
) -> list[float]:
    """The first numbers that pycocotools prints for a results file."""
    index = CocoIndex()
    index.dataset = copy.deepcopy(truth)
    index.createIndex()
    kept = ("image_id", "category_id", "score", key)
    detections = index.loadRes([{name: record[name] for name in kept} for record in records])
    evaluation = COCOeval(index, detections, coco_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = evaluation.stats.tolist()
    return stats[:6] if coco_type == "keypoints" else [*stats[:3], *stats[4:6], stats[8]]


@pytest.mark.parametrize("seed", range(6))
def test_figures_of_many_people_are_pycocotools_own(seed):
    truth = crowded_truth(seed)
    assert any(annotation["iscrowd"] for annotation in truth["annotations"])
    evaluator = PeopleEvaluator(truth, keep_predictions=True)
    results = crowded_results(truth, seed + 100, with_masks=seed < 2)
    evaluator.update(list(results), list(results.values()))
    summary = evaluator.summarize()
    records = json.loads(json.dumps(list(evaluator.predictions())))
    assert len(records) == sum(int(result["labels"].sum()) for result in results.values())
    kinds = {"keypoint": ("keypoints", "keypoints"), "box": ("bbox", "bbox")}
    if seed < 2:
        kinds["mask"] = ("segm", "segmentation")
    figures = ("ap", "ap50", "ap75", "apm", "apl", "ar")
    for kind, (coco_type, key) in kinds.items():
        ours = [summary[f"{kind}_{name}"] for name in figures]
        assert ours == ordinary_coco_figures(truth, records, coco_type, key), kind
        assert 0 < summary[f"{kind}_ap"] < 1
    assert ("mask_ap" in summary) == (seed < 2)
    assert summary["num_samples"] == 12


def test_subsets_of_images_are_judged_alone():
    truth = crowded_truth(0)
    results = crowded_results(truth, 1)
    subsets = {"few": [0, 3, 5], "none": []}
    evaluator = PeopleEvaluator(truth, subsets=subsets)
    evaluator.update(list(results), list(results.values()))
    summary = evaluator.summarize()
    alone = {
        "images": [truth["images"][i] for i in subsets["few"]],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in subsets["few"]],
    }
    few = PeopleEvaluator(alone)
    few.update(subsets["few"], [results[i] for i in subsets["few"]])
    assert summary["keypoint_ap_few"] == few.summarize()["keypoint_ap"] > 0
    assert summary["keypoint_ap_none"] == -1
    assert "keypoint_apm" not in summary


def test_only_people_count():
    truth = crowded_truth(0)
    results = crowded_results(truth, 1)
    people = {
        i: {key: value[result["labels"] == 1] for key, value in result.items()}
        for i, result in results.items()
    }
    summaries = []
    for given in (results, people):
        evaluator = PeopleEvaluator(truth)
        evaluator.update(list(given), list(given.values()))
        summaries.append(evaluator.summarize())
    assert summaries[0] == summaries[1]
    assert sum(len(r["labels"]) for r in people.values()) < sum(
        len(r["labels"]) for r in results.values()
    )


def test_poses_alone_and_images_without_people():
    truth = crowded_truth(0)
    results = crowded_results(truth, 1)
    poses = [{key: r[key] for key in ("scores", "labels", "keypoints")} for r in results.values()]
    evaluator = PeopleEvaluator(truth, keep_predictions=True)
    evaluator.update(list(results), poses)
    summary = evaluator.summarize()
    assert "box_ap" not in summary and "mask_ap" not in summary and summary["keypoint_ap"] > 0
    assert "bbox" not in next(evaluator.predictions())

    nobody = PeopleEvaluator({"images": truth["images"], "annotations": []})
    nobody.update(list(results), poses)
    assert nobody.summarize()["keypoint_ap"] == -1
    with pytest.raises(ValueError, match="12 of 12 image entries have no results"):
        PeopleEvaluator(truth).summarize()


TWO_PROCESSES = """
import sys
sys.path.insert(0, "tests")
from test_evaluation import crowded_results, crowded_truth
from datasets.evaluation import PeopleEvaluator
from util import distributed

distributed.initialize("cpu")
truth = crowded_truth(0)
results = crowded_results(truth, 1, with_masks=True)
alone = PeopleEvaluator(truth, keep_predictions=True)
alone.update(list(results), list(results.values()))
share = PeopleEvaluator(truth, keep_predictions=True)
# Uneven shares, one image twice
rank = distributed.rank()
ids = [i for i in results if i % 3 == rank or (i % 3 == 2 and rank == 0)] + [0]
share.update(ids, [results[i] for i in ids])
share.synchronize()
if distributed.is_main_process():
    assert share.summarize() == alone.summarize()
    assert list(share.predictions()) == list(alone.predictions())
else:
    assert list(share.predictions()) == []
distributed.shutdown()
"""


def test_two_processes_count_every_image_once():
    for result in run_python(["-c", TWO_PROCESSES], processes=2, timeout=400):
        assert result.returncode == 0, result.stderr


def test_results_without_labels_are_all_people():
    image, annotation = truth_entry(1)
    result = result_of((0.9, (20, 10, 80, 80), annotation))
    del result["labels"]
    evaluator = ReferringEvaluator(ground_truth((image, annotation)))
    evaluator.update([1], [result])
    assert evaluator.summarize()["keypoint_ap"] == pytest.approx(1.0)
