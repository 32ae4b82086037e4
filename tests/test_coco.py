"""COCO keypoints: everybody in an image, and the small folders derived from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import make_people_subset
import numpy as np
import pytest
import torch

from datasets import build_dataset, build_loader
from datasets.coco import CocoKeypoints
from datasets.evaluation import PeopleEvaluator
from datasets.skeleton import COCO
from datasets.transforms import EvaluationTransform, keep_size
from util.config import Config
from util.errors import MissingFileError, UserError

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
MINI = DATA / "coco_mini" / "annotations"
MINI_IMAGES = DATA / "refhuman_mini" / "images"
needs_mini = pytest.mark.skipif(
    not MINI.is_dir() or not MINI_IMAGES.is_dir(),
    reason=f"the real example data {MINI} and {MINI_IMAGES} are not on this machine",
)


def configuration(folder: Path, **changed) -> Config:
    cfg = Config.fromfile(ROOT / "config" / "uniphd.py")
    small = {
        "dataset": "coco",
        "coco_path": str(folder),
        "mask_head": False,
        "eval_max_side": 128,
        "train_short_sides": [64, 96],
        "train_max_side": 128,
        "crop_short_sides": [80],
        "crop_range": [40, 90],
        "num_workers": 0,
        "batch_size": 2,
        "eval_batch_size": 2,
    }
    cfg.merge_from_dict({**small, **changed})
    return cfg


def test_training_has_the_people_to_learn(coco_folder):
    folder = coco_folder()
    data = build_dataset(configuration(folder, augment=False), "train")
    assert (len(data), data.training, data.has_prompts) == (2, True, False)
    assert data.image_groups() == [[[0]], [[1]]]
    first, second = data[0].target, data[1].target
    assert (first["image_id"], second["image_id"]) == (1, 2)
    assert first["boxes"].shape == (2, 4) and first["keypoints"].shape == (2, 17, 3)
    assert first["labels"].tolist() == [1, 1] and first["area"].shape == (2,)
    # Neither the crowd, nor the person without keypoints, nor the box without a width
    assert second["boxes"].shape == (1, 4)
    assert torch.equal(second["boxes"][0], first["boxes"][0])
    assert not {"masks", "scribble", "caption"} & set(first)


def test_evaluation_has_all_images_also_without_people(coco_folder):
    data = build_dataset(configuration(coco_folder()), "val")
    loader = build_loader(configuration(Path()), data)
    targets = [target for _, targets in loader for target in targets]
    assert [target["image_id"] for target in targets] == [1, 2, 3, 4]
    assert [len(target["boxes"]) for target in targets] == [2, 1, 0, 0]
    nobody = targets[2]
    assert nobody["keypoints"].shape == (0, 17, 3) and nobody["area"].shape == (0,)
    # The ground truth knows the crowd and the people who are left out of the targets.
    assert [a["iscrowd"] for a in data.ground_truth()["annotations"]] == [0, 0, 0, 1, 0, 0, 0]
    assert isinstance(data.make_evaluator(), PeopleEvaluator)


def test_masks_only_where_a_model_makes_them(coco_folder):
    folder = coco_folder()
    with_masks = build_dataset(configuration(folder, mask_head=True), "val")
    assert [len(with_masks[i].target["masks"]) for i in range(4)] == [2, 1, 0, 0]
    assert with_masks[0].target["masks"].any(dim=(1, 2)).all()
    assert "masks" not in build_dataset(configuration(folder), "val")[0].target

    def remove(content, split):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    folder = coco_folder(change=remove)
    assert len(build_dataset(configuration(folder), "val")) == 4
    with pytest.raises(UserError, match="image id 1: 'segmentation' has to be a list of polygons"):
        build_dataset(configuration(folder, mask_head=True), "val")


def test_both_common_places_of_the_images(coco_folder):
    folder = coco_folder(images_folder="{split}2017")
    assert build_dataset(configuration(folder), "val")[0].image.shape == (3, 96, 128)


def test_crops_leave_those_who_are_in_the_image(coco_folder):
    data = build_dataset(configuration(coco_folder()), "train")
    counts = set()
    for epoch in range(40):
        data.set_epoch(epoch)
        target = data[0].target
        counts.add(len(target["boxes"]))
        assert target["keypoints"].shape[0] == len(target["area"]) == len(target["boxes"]) > 0
        assert (target["boxes"][:, 2:] > 0).all() and (target["area"] > 0).all()
    assert counts == {1, 2}


def test_evaluation_follows_the_shorter_side(coco_folder):
    folder = coco_folder()
    for side, longest, size in ((None, 64, (48, 64)), (72, 128, (72, 96)), (72, 64, (48, 64))):
        cfg = configuration(folder, eval_short_side=side, eval_max_side=longest)
        assert build_dataset(cfg, "val")[0].image.shape[-2:] == size


def broken(coco_folder, change, **more) -> str:
    """The error of a folder whose validation file is changed."""

    def change_validation(content, split):
        if split == "val":
            change(content)

    with pytest.raises(UserError) as caught:
        build_dataset(configuration(coco_folder(change=change_validation), **more), "val")
    assert "person_keypoints_val2017.json" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("bbox", [1, 2, 3], "'bbox' has to be"),
        ("bbox", [1, 2, -1, 5], "non-negative width"),
        ("area", None, "'area' has to be a non-negative number"),
        ("area", -1, "'area' has to be a non-negative number"),
        ("keypoints", None, "51 numbers"),
        ("keypoints", [0] * 42, "got 42 entries. Set skeleton=crowdpose for this file"),
    ],
)
def test_broken_annotations_are_named(coco_folder, key, value, expected):
    message = broken(coco_folder, lambda c: c["annotations"][2].update({key: value}))
    assert "image id 2" in message and expected in message


def test_skeleton_that_does_not_fit_is_named(coco_folder):
    message = broken(coco_folder, lambda c: None, skeleton="crowdpose")
    assert "got 51 entries. Set skeleton=coco for this file" in message


def test_wrong_files_and_folders(coco_folder, tmp_path):
    with pytest.raises(MissingFileError, match=r"person_keypoints_val2017.json does not exist"):
        build_dataset(configuration(tmp_path / "nowhere"), "val")
    folder = coco_folder()
    (folder / "images" / "val2017" / "val_3.png").unlink()
    with pytest.raises(MissingFileError, match="1 of 4 images are missing.*val_3.png"):
        build_dataset(configuration(folder), "val")
    message = broken(coco_folder, lambda c: c["images"].pop())
    assert "refers to image id 4" in message
    folder = coco_folder(change=lambda content, split: content["annotations"].clear())
    with pytest.raises(UserError, match="nobody with a labelled keypoint to train on"):
        build_dataset(configuration(folder), "train")
    assert len(build_dataset(configuration(folder), "val")) == 4


# --- subsets -------------------------------------------------------------------------------------


def make_subset(monkeypatch, capsys, *arguments) -> str:
    monkeypatch.setattr(sys, "argv", ["make_people_subset.py", *map(str, arguments)])
    status = make_people_subset.main()
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_coco_subset(coco_folder, tmp_path, monkeypatch, capsys):
    source, output = coco_folder(), tmp_path / "out"
    annotations = source / "annotations" / "person_keypoints_val2017.json"
    arguments = ["--input_annotations", annotations, "--images", source / "images" / "val2017"]
    arguments += ["--output", output, "--max_side", 64]
    said = make_subset(monkeypatch, capsys, "--format", "coco", *arguments)
    assert said.startswith("2 images, 6 annotations")
    train, val = (
        build_dataset(configuration(output, mask_head=True, augment=False), split)
        for split in ("train", "val")
    )
    assert (len(train), len(val)) == (2, 2)
    original = CocoKeypoints(
        source / "images" / "val2017", annotations, keep_size, training=False, with_masks=True
    )
    small, large = val.ground_truth(), original.ground_truth()
    assert (small["images"][0]["height"], small["images"][0]["width"]) == (48, 64)
    for ours, theirs in zip(small["annotations"], large["annotations"], strict=False):
        assert ours["bbox"] == pytest.approx([value / 2 for value in theirs["bbox"]], abs=0.01)
        assert ours["area"] == pytest.approx(theirs["area"] / 4)
        pose = np.reshape(theirs["keypoints"], (-1, 3)) * [0.5, 0.5, 1]
        np.testing.assert_allclose(np.reshape(ours["keypoints"], (-1, 3)), pose, atol=0.01)
    for i in range(2):
        # Finished samples have the same boxes, whatever the size of their images.
        assert torch.allclose(val[i].target["boxes"], original[i].target["boxes"], atol=1e-3)
        assert val[i].target["masks"].any(dim=(1, 2)).all()
    said = make_subset(monkeypatch, capsys, "--format", "coco", *arguments, "--count", 9)
    assert "Only 2 images have people" in said


def test_crowdpose_subset(coco_folder, tmp_path, monkeypatch, capsys):
    source, output = coco_folder(), tmp_path / "out"
    annotations = source / "annotations" / "person_keypoints_val2017.json"
    said = make_subset(
        monkeypatch,
        capsys,
        *("--format", "crowdpose", "--input_annotations", annotations, "--count", 1),
        *("--images", source / "images" / "val2017", "--output", output, "--max_side", 128),
    )
    assert said.startswith("1 images, 2 annotations")
    cfg = configuration(output, dataset="crowdpose", skeleton="crowdpose")
    val = build_dataset(cfg, "val")
    content = json.loads((output / "json" / "crowdpose_test.json").read_text())
    assert "area" not in content["annotations"][0]
    pose = np.reshape(content["annotations"][0]["keypoints"], (14, 3))
    whole = json.loads(annotations.read_text())["annotations"][0]
    coco = dict(zip(COCO.names, np.reshape(whole["keypoints"], (17, 3)), strict=True))
    ours = dict(zip(val.skeleton.names, pose, strict=True))
    assert ours["left_knee"].tolist() == coco["left_knee"].tolist()
    middle = (coco["left_shoulder"] + coco["right_shoulder"]) / 2
    assert ours["neck"].tolist() == pytest.approx(middle.tolist())
    face = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    head = np.mean([coco[name] for name in face], axis=0)
    assert ours["head"].tolist() == pytest.approx(head.tolist(), abs=0.01)
    assert content["images"][0]["crowdIndex"] == 0  # side by side
    assert build_dataset(cfg, "train")[0].target["keypoints"].shape[1:] == (14, 3)


def test_crowd_index_counts_other_peoples_keypoints_in_a_box():
    # Of 14 keypoints of the other, 7 are in the first box; none of the first's in the second.
    first = {"bbox": [0, 0, 10, 10], "keypoints": [20, 20, 2] * 10 + [0, 0, 0] * 4}
    second = {"bbox": [50, 50, 10, 10], "keypoints": [5, 5, 1] * 7 + [70, 5, 2] * 7}
    assert make_people_subset.crowd_index([first, second]) == pytest.approx((7 / 10 + 0) / 2)
    assert make_people_subset.crowd_index([first]) == 0


@needs_mini
@pytest.mark.parametrize(("split", "images", "people"), [("train", 26, 83), ("val", 29, 64)])
def test_real_images_load(split, images, people):
    data = CocoKeypoints(
        MINI_IMAGES,
        MINI / f"person_keypoints_{split}2017.json",
        EvaluationTransform(320, 240),
        training=True,
        with_masks=True,
    )
    assert len(data) == images
    targets = [data[i].target for i in range(images)]
    assert sum(len(target["boxes"]) for target in targets) == people
    for target in targets:
        height, width = target["size"].tolist()
        assert min(height, width) == 240 or max(height, width) == 320
        assert target["masks"].shape == (len(target["boxes"]), height, width)
        assert ((target["boxes"] >= 0) & (target["boxes"] <= 1)).all()
        assert (target["keypoints"][..., 2] > 0).any(dim=1).all()
