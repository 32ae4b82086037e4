"""COCO with a prompt for everybody: samples, and the results of an image together (Table 3)."""

from __future__ import annotations

import copy
import gc
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ROOT
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval
from test_average_precision import (
    KINDS,
    adversarial_results,
    adversarial_truth,
    arrays_of,
    pycocotools_arrays,
)
from test_coco import MINI, MINI_IMAGES, configuration, needs_mini

import main
from datasets import build_dataset
from datasets.annotation_text import collection_paused
from datasets.annotations import read_annotation_file
from datasets.coco_prompted import CocoPrompted
from datasets.evaluation import PeopleEvaluator, PromptedPeopleEvaluator, ReferringEvaluator
from datasets.evaluation import evaluator as evaluator_module
from datasets.transforms import EvaluationTransform, keep_size
from util.config import Config
from util.errors import UserError
from util.logging import read_json_lines


def prompted_configuration(folder: Path, **changed) -> Config:
    defaults = {
        "dataset": "coco_prompted",
        "mask_head": True,
        "prompt_probabilities.text": 0.0,
        "eval_prompts": ["point", "scribble"],
    }
    return configuration(folder, **{**defaults, **changed})


# --- samples -------------------------------------------------------------------------------------


def test_samples_are_people_with_keypoints_and_a_mask(coco_folder, log_lines):
    folder = coco_folder()
    for split in ("train", "val"):
        data = build_dataset(prompted_configuration(folder, augment=False), split)
        assert isinstance(data, CocoPrompted) and data.has_prompts
        # Two people of image 1, one of image 2; every sample is known by its annotation's id.
        targets = [data[i].target for i in range(len(data))]
        assert [target["image_id"] for target in targets] == [1, 2, 3]
        assert data.image_groups() == [[[0], [1]], [[2]]]
        for target in targets:
            assert target["boxes"].shape == (1, 4) and target["labels"].tolist() == [1]
            assert target["masks"].shape[0] == 1 and target["scribble"].shape == (12, 2)
            assert "caption" not in target
        assert targets[0]["orig_size"].tolist() == [96, 128]
        assert not torch.equal(targets[0]["boxes"], targets[1]["boxes"])
        assert torch.equal(targets[0]["boxes"], targets[2]["boxes"])
        name = f"person_keypoints_{split}2017.json"
        expected = (
            "3 people to prompt for; left out: 1 crowd regions, 2 without a labelled keypoint, "
            "1 without a mask"
        )
        assert log_lines[-1].endswith(f"{name}: {expected}")


def test_people_without_a_mask_are_told_and_still_to_be_found(coco_folder, log_lines):
    def change(content, split):
        first, second, third = content["annotations"][:3]
        del first["segmentation"]
        second["segmentation"] = []
        third["segmentation"] = [[5, 5, 5, 5, 5, 5]]
        third["area"] = 0
        content["annotations"].append({**copy.deepcopy(content["annotations"][-1]), "id": 99})
        content["annotations"][-1]["keypoints"] = [30, 30, 2] * 17

    data = build_dataset(prompted_configuration(coco_folder(change=change)), "val")
    assert [data[i].target["image_id"] for i in range(len(data))] == [99]
    assert log_lines[-1].endswith(
        "1 crowd regions, 2 without a labelled keypoint, 4 without a mask"
    )
    evaluator = data.make_evaluator()
    evaluator.update([99], [ground_truth_result(data.ground_truth(), 99)])
    summary = evaluator.summarize()
    # Of five with labelled keypoints one is found: recall 0 to 0.20.  Masks: of those prompted for.
    assert summary["keypoint_ap"] == pytest.approx(21 / 101)
    assert summary["mask_ap"] == pytest.approx(1) and summary["box_ap"] == pytest.approx(1)

    def nobody(content, split):
        for annotation in content["annotations"]:
            annotation["segmentation"] = None

    with pytest.raises(UserError, match="nobody with a labelled keypoint and a mask"):
        build_dataset(prompted_configuration(coco_folder(change=nobody)), "train")


def scribbles_of(data: CocoPrompted) -> list[torch.Tensor]:
    return [data[i].target["scribble"] for i in range(len(data))]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]


def test_evaluation_draws_from_seed_and_annotation_id(coco_folder):
    folder = coco_folder()
    first = scribbles_of(build_dataset(prompted_configuration(folder), "val"))
    data = build_dataset(prompted_configuration(folder), "val")
    data.set_epoch(3)
    assert all(same(first, scribbles_of(data)))
    other = scribbles_of(build_dataset(prompted_configuration(folder, seed=1), "val"))
    assert not any(same(first, other))
    # The people of samples 0 and 2 are of one shape, but not one person.
    assert not torch.equal(first[0], first[2])

    def without_the_first(content, split):
        del content["annotations"][0]

    fewer = build_dataset(prompted_configuration(coco_folder(change=without_the_first)), "val")
    assert all(same(first[1:], scribbles_of(fewer)))


def test_training_draws_from_seed_epoch_and_index(coco_folder):
    folder = coco_folder()
    data, again, seeded = (
        build_dataset(prompted_configuration(folder, augment=False, seed=seed), "train")
        for seed in (0, 0, 1)
    )
    first = scribbles_of(data)
    assert all(same(first, scribbles_of(again)))
    assert not any(same(first, scribbles_of(seeded)))
    data.set_epoch(1)
    assert not any(same(first, scribbles_of(data)))


def assert_on_mask(target: dict) -> None:
    x, y = target["scribble"].round().long().unbind(-1)
    assert target["masks"][0, y, x].all()


def test_scribbles_lie_inside_masks(coco_folder):
    folder = coco_folder()
    images, file = folder / "images" / "val2017", folder / "annotations"
    for seed in range(20):
        data = CocoPrompted(
            images,
            file / "person_keypoints_val2017.json",
            keep_size,
            training=False,
            prompts=["scribble"],
            seed=seed,
        )
        for i in range(len(data)):
            assert_on_mask(data[i].target)


@needs_mini
def test_scribbles_lie_inside_masks_of_real_people():
    file = MINI / "person_keypoints_train2017.json"
    data = CocoPrompted(MINI_IMAGES, file, keep_size, training=True, prompts=["point", "scribble"])
    assert len(data) == 83
    for i in range(len(data)):
        assert_on_mask(data[i].target)


def test_text_prompts_are_refused(coco_folder):
    folder = coco_folder()
    for split, changed in (
        ("train", {"prompt_probabilities.text": 0.5}),
        ("val", {"eval_prompts": ["point", "text"]}),
    ):
        with pytest.raises(UserError) as caught:
            build_dataset(prompted_configuration(folder, **changed), split)
        message = str(caught.value)
        assert "has no 'caption', which text prompts need; on COCO train with" in message
        assert "--eval_trigger point,scribble" in message
        other = "val" if split == "train" else "train"
        assert len(build_dataset(prompted_configuration(folder, **changed), other)) == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("id", "seven", "'id' has to be an integer, from which the person's prompt is drawn"),
        ("segmentation", [[1, 2, 3]], "polygon 0 of 'segmentation' is broken"),
        ("segmentation", {"size": [96, 128], "counts": [5]}, "RLE in 'segmentation' is broken"),
        ("bbox", [1, 2, 3], "'bbox' has to be"),
        ("keypoints", [0] * 42, "Set skeleton=crowdpose for this file"),
        ("category_id", 2, "'category_id' has to be 1, a person"),
    ],
)
def test_broken_annotations_are_named(coco_folder, key, value, expected):
    def change(content, split):
        content["annotations"][2][key] = value

    with pytest.raises(UserError) as caught:
        build_dataset(prompted_configuration(coco_folder(change=change)), "val")
    assert "image id 2" in str(caught.value) and expected in str(caught.value)


def test_the_collector_rests_while_a_file_is_read(coco_folder):
    file = coco_folder() / "annotations" / "person_keypoints_val2017.json"
    for is_on in (True, False):
        (gc.enable if is_on else gc.disable)()
        try:
            with collection_paused():
                assert not gc.isenabled()
            with pytest.raises(UserError), collection_paused():
                read_annotation_file(file.parent / "nowhere.json", "")
            assert read_annotation_file(file, "")["images"] and gc.isenabled() == is_on
        finally:
            gc.enable()


# --- the protocol --------------------------------------------------------------------------------


def result(people: list[tuple[float, np.ndarray]]) -> dict[str, torch.Tensor]:
    """A postprocessor's result of poses [17, 2] with their scores."""
    poses = np.array([pose for _, pose in people]).reshape(-1, 17, 2)
    keypoints = np.concatenate([poses, np.ones((len(people), 17, 1))], axis=-1)
    return {
        "scores": torch.tensor([score for score, _ in people]),
        "keypoints": torch.from_numpy(keypoints).float(),
    }


def hand_worked_truth() -> tuple[dict, dict[int, np.ndarray]]:
    """Two images; 11 and 21 are of medium size, 12 is large, 22 is a crowd, 23 not labelled."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in (1, 2)]
    boxes = {
        11: (10, 10, 40, 50),
        12: (300, 50, 100, 100),
        21: (20, 20, 50, 60),
        22: (400, 300, 100, 100),
        23: (200, 20, 30, 30),
    }
    generator = np.random.default_rng(0)
    annotations, poses = [], {}
    for annotation_id, (x, y, w, h) in boxes.items():
        labelled = annotation_id < 22
        poses[annotation_id] = generator.random((17, 2)) * (w, h) + (x, y)
        keypoints = np.concatenate([poses[annotation_id], np.full((17, 1), 2.0)], axis=1)
        annotations.append(
            {
                "id": annotation_id,
                "image_id": annotation_id // 10,
                "category_id": 1,
                "iscrowd": int(annotation_id == 22),
                "bbox": [x, y, w, h],
                "area": w * h,
                "keypoints": keypoints.ravel().tolist() if labelled else [0] * 51,
                "num_keypoints": 17 * labelled,
            }
        )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1}]}, poses


def test_a_hand_worked_example():
    truth, poses = hand_worked_truth()
    far = poses[21] + (0, 300)
    results = {
        11: result([(0.9, poses[12])]),  # each prompt finds the other person
        12: result([(0.8, poses[11]), (0.6, poses[11])]),  # and one of them twice
        21: result([(0.95, poses[22]), (0.7, far)]),  # somebody of the crowd, and nobody
    }
    evaluator = PromptedPeopleEvaluator(truth, list(results))
    evaluator.update(list(results), list(results.values()))
    summary = evaluator.summarize()
    # The best pose lies in a crowd region and is left out.  Then: right, right, wrong, wrong, of
    # three people: precision 1 at the recalls 0, 0.01 ... 0.66, and 0 above.
    assert summary["keypoint_ap"] == pytest.approx(67 / 101)
    assert summary["keypoint_ap50"] == summary["keypoint_ap75"] == pytest.approx(67 / 101)
    # Medium: of two people one is found, by the best of the poses that count: recall 0 to 0.50.
    assert summary["keypoint_apm"] == pytest.approx(51 / 101)
    assert summary["keypoint_apl"] == pytest.approx(1)
    assert summary["keypoint_ar"] == pytest.approx(2 / 3)
    assert summary["num_samples"] == 3 and "box_ap" not in summary and "mask_ap" not in summary

    # One by one, as on RefHuman, nobody was found by whom the prompt meant.
    alone = ReferringEvaluator(one_by_one(truth, results))
    alone.update(list(results), list(results.values()))
    assert alone.summarize()["keypoint_ap"] == 0


def one_by_one(truth: dict, prompted) -> dict:
    """COCO's ground truth in RefHuman's form: an image entry for each of the prompted people."""
    images = {image["id"]: image for image in truth["images"]}
    people = [a for a in truth["annotations"] if a["id"] in prompted]
    return {
        "images": [{**images[a["image_id"]], "id": a["id"]} for a in people],
        "annotations": [{**a, "image_id": a["id"]} for a in people],
    }


def ground_truth_result(truth: dict, annotation_id: int) -> dict[str, torch.Tensor]:
    person = next(a for a in truth["annotations"] if a["id"] == annotation_id)
    image = next(i for i in truth["images"] if i["id"] == person["image_id"])
    code = person["segmentation"]
    if isinstance(code, list):
        code = coco_mask.merge(coco_mask.frPyObjects(code, image["height"], image["width"]))
    elif isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, image["height"], image["width"])
    x, y, w, h = person["bbox"]
    return {
        **result([(0.5, np.reshape(person["keypoints"], (17, 3))[:, :2])]),
        "boxes": torch.tensor([[x, y, x + w, y + h]]).float(),
        "masks": torch.from_numpy(coco_mask.decode(code))[None].bool(),
    }


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=needs_mini)])
def test_the_truth_has_full_marks_under_both_protocols(coco_folder, real):
    # A labelled person who cannot be prompted for is still to be found, so that one is taken out.
    folder = None if real else coco_folder(change=lambda c, split: c["annotations"].pop(5))
    data = CocoPrompted(
        MINI_IMAGES if real else folder / "images" / "val2017",
        (MINI if real else folder / "annotations") / "person_keypoints_val2017.json",
        EvaluationTransform(64),
        training=False,
        prompts=["point", "scribble"],
    )
    truth = data.ground_truth()
    ids = [data[i].target["image_id"] for i in range(len(data))]
    results = [ground_truth_result(truth, annotation_id) for annotation_id in ids]
    together = data.make_evaluator()
    assert isinstance(together, PromptedPeopleEvaluator)
    alone = ReferringEvaluator(one_by_one(truth, ids))
    for evaluator in (together, alone):
        for start in range(0, len(ids), 5):
            evaluator.update(ids[start : start + 5], results[start : start + 5])
        summary = evaluator.summarize()
        for kind in KINDS:
            for figure in ("ap", "ap50", "ap75", "apm", "apl"):
                # Without anybody of the size there is no figure.
                assert summary[f"{kind}_{figure}"] in (-1, pytest.approx(1)), (kind, figure)
            assert summary[f"{kind}_ap"] == pytest.approx(1)


class IgnoringEvaluation(COCOeval):
    """pycocotools' own evaluation, which in addition ignores some people."""

    ignored_ids: frozenset = frozenset()

    def _prepare(self):
        super()._prepare()
        for people in self._gts.values():
            for person in people:
                person["ignore"] = person["ignore"] or person["id"] in self.ignored_ids


def pycocotools_figures(
    truth: dict, records: list[dict], kind: str, ignored: frozenset
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [T, 101, A] and recall [T, A] of everybody, the medium and the large."""
    ignoring = type("Ignoring", (IgnoringEvaluation,), {"ignored_ids": ignored})
    return pycocotools_arrays(truth, records, kind, ignoring)


def random_prompts(seed: int) -> tuple[dict, dict[int, dict]]:
    """A ground truth that is awkward in every way, and results of prompts for some of its people.

    Sets of several people per image, crowds, people twice, equal scores.
    """
    generator = np.random.default_rng(seed)
    truth = adversarial_truth(generator)
    images = {image["id"]: image for image in truth["images"]}
    results = {}
    for person in truth["annotations"]:
        if person["iscrowd"] or not person["num_keypoints"] or generator.random() < 0.2:
            continue
        company = [a for a in truth["annotations"] if a["image_id"] == person["image_id"]]
        scene = {"images": [images[person["image_id"]]], "annotations": company}
        (results[person["id"]],) = adversarial_results(scene, generator)
    return truth, results


def in_batches(evaluator: PeopleEvaluator, results: dict[int, dict], seed: int) -> None:
    """Give an evaluator the results in random order and batches."""
    generator = np.random.default_rng(seed)
    ids = generator.permutation(list(results)).tolist()
    while ids:
        size = int(generator.integers(1, 5))
        batch, ids = ids[:size], ids[size:]
        evaluator.update(batch, [results[i] for i in batch])


@pytest.mark.parametrize("seed", range(12))
def test_precision_and_recall_are_pycocotools_own(seed):
    truth, results = random_prompts(seed)
    evaluator = PromptedPeopleEvaluator(truth, list(results), keep_predictions=True)
    in_batches(evaluator, results, seed)
    summary = evaluator.summarize()
    assert summary["num_samples"] == len(results)
    records = list(evaluator.predictions())
    if not records:
        assert summary["keypoint_ap"] in (0, -1)
        return
    image_of = {a["id"]: a["image_id"] for a in truth["annotations"]}
    assert {r["image_id"] for r in records} <= {image_of[i] for i in results}
    unprompted = frozenset(a["id"] for a in truth["annotations"] if a["id"] not in results)
    for kind in KINDS:
        ignored = frozenset() if kind == "keypoint" else unprompted
        expected = pycocotools_figures(truth, records, kind, ignored)
        for ours, theirs in zip(arrays_of(evaluator, kind), expected, strict=True):
            assert (ours == theirs).all(), kind


def test_the_random_sets_are_awkward_enough():
    """Several prompts for an image, equal scores of different prompts, more than 20 poses."""
    several = ties = many = 0
    for seed in range(12):
        truth, results = random_prompts(seed)
        scores: dict[int, list[list[float]]] = {}
        for person in truth["annotations"]:
            if person["id"] in results:
                of_image = scores.setdefault(person["image_id"], [])
                of_image.append(results[person["id"]]["scores"].tolist())
        several += any(len(of_image) > 1 for of_image in scores.values())
        many += any(sum(map(len, of_image)) > 20 for of_image in scores.values())
        ties += any(
            len(of_image) > 1 and set(of_image[0]) & set(of_image[1])
            for of_image in scores.values()
        )
    assert several >= 6 and many >= 6 and ties >= 3


def test_processes_share_the_people_of_an_image(monkeypatch):
    truth, results = max((random_prompts(seed) for seed in range(4)), key=lambda pair: len(pair[1]))
    assert len(results) > 4
    alone = PromptedPeopleEvaluator(truth, list(results), keep_predictions=True)
    in_batches(alone, results, seed=0)
    expected = alone.summarize()
    first, second = (alone.fresh(keep_predictions=True) for _ in range(2))
    for number, annotation_id in enumerate(results):
        (first, second)[number % 2].update([annotation_id], [results[annotation_id]])
    with pytest.raises(ValueError, match="prompted people have no results"):
        first.summarize()
    parts = (*second._parts(), *second._kept.parts)
    sent = iter([list(part.pieces(2)) for part in parts])
    monkeypatch.setattr(evaluator_module, "gather_in_pieces", lambda own: next(sent))
    first.synchronize()
    assert first.summarize() == expected
    assert list(first.predictions()) == list(alone.predictions())
    monkeypatch.setattr(evaluator_module, "gather_in_pieces", lambda own: [])
    monkeypatch.setattr(evaluator_module, "is_main_process", lambda: False)
    second.synchronize()
    assert not second._found.is_there.any()


def test_results_given_again_replace_earlier_ones():
    truth, poses = hand_worked_truth()
    evaluator = PromptedPeopleEvaluator(truth, [11, 12, 21])
    evaluator.update([11, 12], [result([(0.9, poses[12])])] * 2)
    evaluator.update([11, 12], [result([(0.9, poses[i])]) for i in (11, 12)])
    evaluator.update([21], [result([])])
    for _ in range(2):
        assert evaluator.summarize()["keypoint_ap"] == pytest.approx(67 / 101)
    with pytest.raises(ValueError, match="Annotation id 22 is not of a person with a prompt"):
        evaluator.update([22], [result([])])


# --- the whole way -------------------------------------------------------------------------------

SMALL = [
    "hidden_dim=64", "num_heads=4", "feedforward_dim=32", "encoder_layers=1", "decoder_layers=2",
    "num_groups=4", "backbone_options.embed_dim=8", "backbone_options.num_heads=1,1,2,2",
    "eval_max_side=64", "batch_size=2", "eval_batch_size=2", "num_workers=0", "lr_warmup_steps=0",
    "epochs=1", "prompts_per_image=1", "dataset=coco_prompted", "prompt_probabilities.text=0",
    "eval_prompts=point,scribble",
]  # fmt: skip


def test_training_and_evaluation_by_configuration_alone(coco_folder, tmp_path):
    output = tmp_path / "out"
    common = ["-c", str(ROOT / "config" / "uniphd_tiny.py"), "--coco_path", str(coco_folder())]
    common += ["--device", "cpu", "--output_dir", str(output), "--save_predictions"]
    assert main.main([*common, "--options", *SMALL]) == 0
    record = read_json_lines(output / "log.txt")[0]
    assert record["step"] == 2 and math.isfinite(record["train"]["loss"])
    assert "loss_text" not in record["train"]
    assert list(record["eval"]) == ["point", "scribble"]
    figures = {f"keypoint_{name}" for name in ("ap", "ap50", "ap75", "apm", "apl")}
    assert figures | {"mask_ap", "box_ap"} <= set(record["eval"]["point"])
    assert record["eval"]["point"]["num_samples"] == 3
    written = json.loads((output / "predictions_point.json").read_text())
    # Four groups of each of three people, under the ids of their images
    assert [r["image_id"] for r in written] == [1] * 8 + [2] * 4

    resume = ["--eval", "--resume", str(output / "checkpoint.pth")]
    again = ["eval_batch_size=3", "eval_prompts=scribble"]
    assert main.main([*common, *resume, "--options", *SMALL, *again]) == 0
    assert list(json.loads((output / "eval.json").read_text())) == ["scribble"]


def test_the_configuration_of_the_tables():
    cfg = Config.fromfile(ROOT / "config" / "uniphd_coco.py")
    assert cfg.dataset == "coco_prompted"
    assert cfg.prompt_probabilities == {"text": 0.0, "scribble": 0.5, "point": 0.5}
    assert cfg.eval_prompts == ["point", "scribble"]
    published = Config.fromfile(ROOT / "config" / "uniphd.py")
    changed = {name for name in published if published[name] != cfg[name]}
    assert changed == {"dataset", "coco_path", "prompt_probabilities", "eval_prompts"}
