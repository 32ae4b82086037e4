"""CrowdPose: 14 keypoints, areas from boxes, figures by how crowded the images are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import build_dataset
from datasets.crowdpose import CrowdPose
from datasets.evaluation import format_table
from datasets.skeleton import CROWDPOSE, SKELETONS, get_skeleton
from datasets.transforms import keep_size
from util.config import Config
from util.errors import UserError

ROOT = Path(__file__).parents[1]


def person(image_id: int, box: tuple[float, ...], labelled: int = 14) -> dict:
    """A person whose keypoints lie on the diagonal of the box."""
    x, y, width, height = box
    steps = np.linspace(0.1, 0.9, 14)
    keypoints = np.stack([x + width * steps, y + height * steps, np.full(14, 2.0)], axis=1)
    keypoints[labelled:] = 0
    return {"image_id": image_id, "bbox": list(box), "keypoints": keypoints.ravel().tolist()}


def write_crowdpose(folder: Path, crowd_indices=(0.1, 0.11, 0.8, 0.81)) -> Path:
    """Images of 60 x 80 pixels with two people each, by crowd index."""
    for name in ("images", "json"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, people = [], []
    for i, crowd_index in enumerate(crowd_indices, start=1):
        entry = {"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80}
        images.append(entry if crowd_index is None else {**entry, "crowdIndex": crowd_index})
        Image.new("RGB", (80, 60)).save(folder / "images" / f"{i}.jpg")
        people += [person(i, (2, 2, 40, 50)), person(i, (30, 10, 45, 48))]
    people.append(person(1, (5, 5, 10, 10), labelled=0))
    content = {"images": images, "annotations": people, "categories": [{"id": 1}]}
    for split in ("trainval", "test"):
        (folder / "json" / f"crowdpose_{split}.json").write_text(json.dumps(content))
    return folder


def configuration(folder: Path, **changed) -> Config:
    cfg = Config.fromfile(ROOT / "config" / "uniphd.py")
    cfg.merge_from_dict(
        {"dataset": "crowdpose", "skeleton": "crowdpose", "coco_path": str(folder), **changed}
    )
    return cfg


def results_of(truth: dict, moved: dict[int, float]) -> dict[int, dict]:
    """Everybody with keypoints, those of an image moved by so many pixels."""
    results = {}
    for image in truth["images"]:
        poses = [
            np.reshape(a["keypoints"], (14, 3)) + [moved.get(image["id"], 0), 0, 0]
            for a in truth["annotations"]
            if a["image_id"] == image["id"] and any(a["keypoints"])
        ]
        results[image["id"]] = {
            "scores": torch.full((len(poses),), 0.9),
            "labels": torch.ones(len(poses), dtype=torch.int64),
            "keypoints": torch.tensor(np.array(poses)).float(),
        }
    return results


def test_targets(tmp_path):
    folder = write_crowdpose(tmp_path)
    for split in ("train", "val"):
        cfg = configuration(folder, augment=False, eval_max_side=80)
        data = build_dataset(cfg, split)
        assert isinstance(data, CrowdPose) and len(data) == 4
        target = data[0].target
        assert target["keypoints"].shape == (2, 14, 3)
        # 0.53 of the box, as a share of the image
        expected = [0.53 * 40 * 50 / (60 * 80), 0.53 * 45 * 48 / (60 * 80)]
        assert target["area"].tolist() == pytest.approx(expected)
        assert "masks" not in target
    assert build_dataset(configuration(folder), "train")[0].target["keypoints"].shape[1] == 14


def test_figures_by_crowd_index(tmp_path):
    data = build_dataset(configuration(write_crowdpose(tmp_path)), "val")
    evaluator = data.make_evaluator()
    # Image 1 is easy, 2 and 3 are medium, 4 is hard; nobody in the last is found, half in between.
    results = results_of(data.ground_truth(), {2: 1000.0, 4: 1000.0})
    evaluator.update(list(results), list(results.values()))
    summary = evaluator.summarize()
    assert summary["keypoint_ap_easy"] == pytest.approx(1.0)
    assert summary["keypoint_ap_hard"] == 0
    assert 0 < summary["keypoint_ap_medium"] < 1
    assert 0 < summary["keypoint_ap"] < 1 and summary["num_samples"] == 4
    # No ears and no masks: neither PCKh nor areas' figures
    assert set(summary) == {
        *(f"keypoint_{name}" for name in ("ap", "ap50", "ap75", "ap_easy", "ap_medium", "ap_hard")),
        "num_samples",
    }
    table = format_table({"people": summary})
    assert "keypoint AP easy images" in table and "PCKh" not in table


def test_similarity_takes_the_area_from_the_box(tmp_path):
    data = build_dataset(configuration(write_crowdpose(tmp_path, (0.0,))), "val")
    evaluator = data.make_evaluator()
    # All keypoints moved by d: OKS is the mean over keypoints of exp(-d² / (2 · area · (2σ)²)).
    sigmas = np.array(CROWDPOSE.sigmas)
    distance = 3.0
    similarities = [
        np.exp(-(distance**2) / (2 * 0.53 * w * h * (2 * sigmas) ** 2)).mean()
        for w, h in ((40, 50), (45, 48))
    ]
    results = results_of(data.ground_truth(), {1: distance})
    evaluator.update(list(results), list(results.values()))
    thresholds = np.arange(0.5, 0.96, 0.05)
    both = np.mean([all(s >= t for s in similarities) for t in thresholds])
    assert 0 < both < 1 and max(similarities) - min(similarities) < 0.03
    assert evaluator.summarize()["keypoint_ap"] == pytest.approx(both, abs=0.06)


def test_an_image_without_crowd_index_is_named(tmp_path):
    cfg = configuration(write_crowdpose(tmp_path, (0.1, None)))
    with pytest.raises(UserError, match="crowdpose_test.json: image id 2 has no 'crowdIndex'"):
        build_dataset(cfg, "val")
    assert len(build_dataset(cfg, "train")) == 2  # which does not ask


def test_wrong_skeleton_is_named(tmp_path):
    folder = write_crowdpose(tmp_path)
    with pytest.raises(UserError, match=r"crowdpose_test.json: image id 1.*Set skeleton=crowdpose"):
        build_dataset(configuration(folder, skeleton="coco"), "val")
    with pytest.raises(UserError, match="Unknown skeleton 'crowd_pose'.*Did you mean 'crowdpose'"):
        get_skeleton("crowd_pose")


@pytest.mark.parametrize("name", SKELETONS)
def test_skeletons_are_whole(name):
    skeleton = get_skeleton(name)
    count = skeleton.num_keypoints
    assert len(skeleton.sigmas) == len(set(skeleton.names)) == count
    assert {point for limb in skeleton.limbs for point in limb} == set(range(count))
    for first, second in skeleton.flip_pairs:
        assert skeleton.names[first].removeprefix("left_") == skeleton.names[second].removeprefix(
            "right_"
        )
    paired = {point for pair in skeleton.flip_pairs for point in pair}
    sided = {i for i, n in enumerate(skeleton.names) if n.startswith(("left_", "right_"))}
    assert paired == sided


def test_sample_is_read_as_it_is_without_transform(tmp_path):
    folder = write_crowdpose(tmp_path)
    file = folder / "json" / "crowdpose_test.json"
    data = CrowdPose(folder / "images", file, keep_size, training=False, skeleton=CROWDPOSE)
    assert data[0].target["size"].tolist() == [60, 80]
