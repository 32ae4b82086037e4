"""The synthetic data set: annotations that agree with the pixels, the same again, and settings."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from synthetic_scenes import SMALL, dataset, scenes
from torch.utils.data import DataLoader

from datasets.annotations import encode_segmentation
from datasets.refhuman import PromptedPersonDataset, pair_entries
from datasets.sample import collate
from datasets.skeleton import COCO
from datasets.synthetic import (
    KINDS,
    SceneGenerator,
    annotation,
    labels,
    mask_to_polygons,
    mask_to_rle,
    scene_pairs,
)
from datasets.synthetic import (
    generator as generator_module,
)
from datasets.synthetic.body import build_body
from datasets.synthetic.captions import Caption
from datasets.synthetic.painter import Figure
from datasets.synthetic.reading import read_keypoints
from datasets.synthetic.shapes import SHIFT, Capsule, Disc, Shape, fixed_corners
from util.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# --- annotations and pixels ----------------------------------------------------------------------


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_annotations_agree_with_the_masks(difficulty):
    seen = np.zeros(3, dtype=int)
    for scene in scenes(25, difficulty):
        height, width = scene.image.shape[:2]
        together = np.zeros((height, width), dtype=int)
        for person in scene.people:
            together += person.mask
            ys, xs = np.nonzero(person.mask)
            assert person.area == len(xs)
            assert person.box == (
                xs.min(),
                ys.min(),
                xs.max() + 1 - xs.min(),
                ys.max() + 1 - ys.min(),
            )
            assert 0 < person.visible_fraction <= 1
            for x, y, visibility in person.keypoints:
                seen[int(visibility)] += 1
                if visibility == 0:
                    assert x == y == 0
                else:
                    assert 0 <= x < width and 0 <= y < height
                if visibility == 2:
                    assert person.mask[round(float(y)), round(float(x))]
        assert together.max() <= 1  # a pixel shows one person at most
    assert (seen > 0).all()


def test_people_hide_each_other():
    fractions = [p.visible_fraction for scene in scenes(30) for p in scene.people]
    assert min(fractions) < 0.7 and np.mean(np.array(fractions) == 1) > 0.2
    hidden = sum((p.keypoints[:, 2] == 1).sum() for scene in scenes(30) for p in scene.people)
    assert hidden > 50


def test_left_keypoints_are_the_persons_own_left():
    toward = away = 0
    for scene in scenes(60, 1.0):
        for person in scene.people:
            left, right = person.keypoints[5], person.keypoints[6]
            if left[2] == 0 or right[2] == 0:
                continue
            if person.pose.facing == "viewer":
                assert left[0] > right[0]
                toward += 1
            elif person.pose.facing == "away":
                assert left[0] < right[0]
                assert person.keypoints[0, 2] < 2  # no nose on the back of the head
                away += 1
    assert toward > 20 and away > 5


def test_polygons_and_run_lengths_draw_the_mask():
    masks = [person.mask for scene in scenes(20) for person in scene.people]
    ring = np.zeros((30, 40), dtype=bool)
    ring[3:25, 5:35] = True
    ring[8:12, 10:14] = ring[8:20, 20:30] = False  # two holes
    ring[14:18, 22:28] = True  # an island in one of them
    corner = np.zeros((9, 9), dtype=bool)
    corner[:, 8] = corner[0] = True
    masks += [ring, corner, np.ones((5, 6), dtype=bool)]
    generator = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):  # pixels that touch at corners, holes everywhere
        masks += list(generator.random((30, 17, 23)) < share)
    for mask in masks:
        height, width = mask.shape
        polygons = mask_to_polygons(mask)
        assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
        encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        assert np.array_equal(coco_mask.decode(encoded).astype(bool), mask)
        encoded = coco_mask.frPyObjects(mask_to_rle(mask), height, width)
        assert np.array_equal(coco_mask.decode(encoded).astype(bool), mask)


@pytest.mark.parametrize("polygons", [True, False])
def test_scribbles_and_visible_keypoints_are_inside_the_stored_segmentation(polygons):
    people = 0
    for seed in (0, 1, 2):
        generator = SceneGenerator(seed, image_size=(128, 128))
        for index in range(40):
            scene = generator.scene(index)
            for person in scene.people:
                record = annotation(scene, person.index, 1, polygons=polygons)
                encoded = encode_segmentation(record["segmentation"], 128, 128, "here")
                stored = coco_mask.decode(encoded).astype(bool)
                scribbles = np.array(record["scribble"]).reshape(-1, 2)
                assert stored[scribbles[:, 1], scribbles[:, 0]].all(), (seed, index)
                for x, y, visibility in np.reshape(record["keypoints"], (-1, 3)).tolist():
                    if visibility == 2:
                        assert stored[round(y), round(x)], (seed, index, person.index)
                people += 1
    assert people > 300


def test_visibility_is_decided_where_the_annotation_puts_the_keypoint():
    # 20.5004 is in pixel 21, but the annotation says 20.5, which is in pixel 20.
    scene = SceneGenerator(0, num_people=(1, 1), difficulty=0.0).scene(0)
    person = scene.people[0]
    body = build_body(person.appearance, person.pose, 8.0)
    figure = Figure(body, person.appearance, person.pose, person.scale, person.foot, 0)
    figure.points["left_wrist"] = np.array((20.5004, 30.0, 0.0))
    wrist = COCO.names.index("left_wrist")
    for column, visibility in ((20, 2), (21, 1)):
        label_map = np.zeros((60, 60), dtype=np.uint8)
        label_map[30, column] = labels.person_label(0, labels.LEFT_FOREARM)
        x, y, found = read_keypoints(figure, label_map)[wrist]
        assert (x, y, found) == (20.5, 30, visibility)


def test_annotations_have_refhumans_form():
    generator = SceneGenerator(0, image_size=((96, 140), (100, 150)))
    content = {"images": [], "annotations": []}
    for index in range(8):
        scene, pairs = scene_pairs(generator, index, f"{index}.png")
        for entry, record in pairs:
            number = len(content["images"]) + 1
            content["images"].append({**entry, "id": number})
            content["annotations"].append({**record, "id": number, "image_id": number})
            scribbles = np.array(record["scribble"]).reshape(5, 12, 2)
            mask = scene.people[record["person_id"]].mask
            assert mask[scribbles[..., 1], scribbles[..., 0]].all()
            assert len(np.unique(scribbles.reshape(5, -1), axis=0)) > 1
    json.dumps(content)  # plain numbers only
    assert len(pair_entries(content, "here", ("text", "point", "scribble"))) > 8


# --- drawing -------------------------------------------------------------------------------------


def test_outlines_of_all_kinds_keep_their_order_and_places():
    triangle = np.array(((1.0, 2.0), (5.0, 2.0), (1.0, 7.5)))
    limb = Capsule(np.array((20.0, 30.0, 7.0)), np.array((20.0, 50.0, -7.0)), 3.0, 2.0)
    outlines = [limb, triangle, Disc(np.array((10.0, 12.0, 3.0)), 4.0, 0.5), triangle + 1, limb]
    corners = fixed_corners([Shape(outline, (0, 0, 0), None) for outline in outlines])
    pixels = [polygon / (1 << SHIFT) for polygon in corners]
    extents = [(*p.min(axis=0), *p.max(axis=0)) for p in pixels]  # left, top, right, bottom
    assert extents[0] == (17, 27, 23, 52) == extents[4]
    assert np.array_equal(pixels[1], triangle) and np.array_equal(pixels[3], triangle + 1)
    assert extents[2] == (6, 10, 14, 14)
    assert fixed_corners([]) == []


# --- the same again ------------------------------------------------------------------------------


def fingerprint(generator: SceneGenerator, index: int) -> bytes:
    image, entry, record, people = generator.pair(index)
    return image.tobytes() + json.dumps([entry, record, people]).encode()


def test_same_seed_same_bytes_and_others_differ():
    def prints(seed: int = 5, split: str = "train") -> list[bytes]:
        generator = SceneGenerator(seed, split, image_size=SMALL)
        return [fingerprint(generator, index) for index in range(6)]

    first = prints()
    assert first == prints()
    # Neither the order of the calls nor what was made before matters.
    generator = SceneGenerator(5, image_size=SMALL)
    assert [fingerprint(generator, index) for index in reversed(range(6))] == first[::-1]
    everything = first + prints(seed=6) + prints(split="val")
    assert len(set(everything)) == len(everything)


def test_same_bytes_in_another_process():
    code = (
        "import hashlib, json; from datasets.synthetic import SceneGenerator\n"
        "image, *rest = SceneGenerator(5, image_size=(96, 96)).pair(2)\n"
        "print(hashlib.sha256(image.tobytes() + json.dumps(rest).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    image, *rest = SceneGenerator(5, image_size=SMALL).pair(2)
    here = hashlib.sha256(image.tobytes() + json.dumps(rest).encode()).hexdigest()
    assert there == here


def test_the_prompts_of_an_image_share_its_scene(monkeypatch):
    data = dataset(prompts_per_image=2, num_people=(2, 3))
    drawn, draw = [], SceneGenerator.scene

    def counted(self, index, attempt=0):
        drawn.append((index, attempt))
        return draw(self, index, attempt)

    monkeypatch.setattr(SceneGenerator, "scene", counted)
    for i in range(12):
        data.load_pair(i)
    assert len({index for index, _ in drawn}) == 6
    assert len(drawn) == len(set(drawn))


def test_several_prompts_of_an_image():
    data = dataset(prompts_per_image=2, num_people=(2, 3), difficulty=0.0)
    pairs = [data.load_pair(i) for i in range(12)]
    different = 0
    for (image, first, one), (same, second, other) in zip(pairs[::2], pairs[1::2], strict=True):
        assert np.array_equal(image, same)
        assert first["id"] + 1 == second["id"]
        different += one["person_id"] != other["person_id"]
    assert different >= 5
    assert len({pair[1]["id"] for pair in pairs}) == 12
    assert len({pair[0].tobytes() for pair in pairs}) == 6
    assert data.image_groups() == [[[i], [i + 1]] for i in range(0, 12, 2)]
    data.set_epoch(1)
    assert not np.array_equal(data.load_pair(0)[0], pairs[0][0])
    assert data.load_pair(0)[1]["id"] == 13


def test_workers_never_repeat_each_other_and_do_not_matter():
    def images(workers: int, epoch: int) -> list[bytes]:
        data = dataset()
        data.set_epoch(epoch)
        loader = DataLoader(data, batch_size=4, num_workers=workers, collate_fn=collate)
        return [row.numpy().tobytes() for batch, _ in loader for row in batch.tensors]

    alone = images(0, 0)
    assert len(set(alone)) == 12
    assert images(2, 0) == alone
    assert not set(alone) & set(images(0, 1))


def test_samples_and_ground_truth_of_the_validation_split():
    data = dataset(training=False, length=6)
    truth = data.ground_truth()
    assert [entry["id"] for entry in truth["images"]] == list(range(1, 7))
    for index in range(6):
        image, target = data[index].image, data[index].target
        assert image.shape == (3, 96, 96) and image.dtype == torch.float32
        assert target["image_id"] == truth["images"][index]["id"]
        assert target["caption"] == truth["images"][index]["caption"]
        record = truth["annotations"][index]
        mine = [p for p in truth["people"] if p["file_name"] == truth["images"][index]["file_name"]]
        same = [p for p in mine if p["person_id"] == record["person_id"]]
        assert len(same) == 1 and same[0]["keypoints"] == record["keypoints"]
        assert int(target["masks"].sum()) == record["area"]
    data.set_epoch(3)
    assert data.ground_truth() == truth


def test_a_curriculum_changes_the_settings_epoch_by_epoch():
    data = dataset(
        difficulty=0.9,
        curriculum=[
            dict(until_epoch=1, difficulty=0.1, num_people=(2, 2)),
            dict(until_epoch=3, difficulty=0.5),
        ],
    )
    found = []
    for epoch in range(4):
        data.set_epoch(epoch)
        found.append((data.generator.difficulty, data.generator.num_people))
    assert found == [(0.1, (2, 2)), (0.5, (1, 6)), (0.5, (1, 6)), (0.9, (1, 6))]
    assert (
        dataset(
            training=False, curriculum=[dict(until_epoch=9, difficulty=0.0)]
        ).generator.difficulty
        == 1.0
    )
    for stages in (
        [dict(difficulty=0.1)],
        [dict(until_epoch=1, colour=3)],
        ["easy"],
        [dict(until_epoch=2), dict(until_epoch=2)],
    ):
        with pytest.raises(UserError, match="curriculum"):
            dataset(curriculum=stages)
    assert isinstance(data, PromptedPersonDataset)


def test_a_mixture_has_its_shares_in_every_epoch():
    shares = [
        dict(share=0.25, image_size=[48, 64], num_people=(1, 1)),
        dict(share=0.5, image_size=[64, 48]),
    ]
    stage = dict(until_epoch=1, image_size=[80, 80])
    settings = dict(length=60, image_size=[48, 48], difficulty=0.0, prompts_per_image=2)
    data = dataset(curriculum=[stage], mixture=shares, **settings)
    other = dataset(mixture=shares, **settings)
    for epoch, rest in ((0, (80, 80)), (1, (48, 48))):
        data.set_epoch(epoch)
        sizes = [data.load_pair(index)[0].shape[:2] for index in range(60)]
        assert sizes[::2] == sizes[1::2]  # of one image
        assert set(sizes) == {(48, 64), (64, 48), rest}
        assert 8 <= sizes.count((48, 64)) <= 24 and 20 <= sizes.count((64, 48)) <= 40
        truth = data.ground_truth()
        assert [(e["height"], e["width"]) for e in truth["images"]] == sizes
    # Which images are whose does not depend on the rest.
    of_share = [data.load_pair(i)[0] for i in range(60) if sizes[i] != rest]
    other.set_epoch(1)
    same = [other.load_pair(i)[0] for i in range(60) if sizes[i] != rest]
    assert all(np.array_equal(a, b) for a, b in zip(of_share, same, strict=True))
    held = dataset(training=False, mixture=shares, **settings)
    assert {held.load_pair(i)[0].shape[:2] for i in range(20)} == {(48, 48)}
    assert dataset(mixture=[dict(share=share) for share in (0.1, 0.2, 0.7)])
    for wrong in ([dict(share=0.7), dict(share=0.4)], [dict(share=-1)], [dict(difficulty=1)], [3]):
        with pytest.raises(UserError, match="mixture"):
            dataset(mixture=wrong)


def test_difficulty_has_an_effect():
    easy, hard = scenes(40, 0.0), scenes(40, 1.0)

    def mean(measure, of) -> float:
        return float(np.mean([measure(scene) for scene in of]))

    def shared_colours(scene) -> float:
        tops = [person.appearance.top.colour for person in scene.people]
        return len(tops) - len(set(tops))

    def captions(of) -> list[Caption]:
        return [c for scene in of for i in scene.referable for c in scene.captions(i, 2)]

    assert mean(shared_colours, easy) == 0 < mean(shared_colours, hard)
    assert mean(lambda s: np.abs(np.diff(s.image.astype(int), axis=0)).mean(), easy) < mean(
        lambda s: np.abs(np.diff(s.image.astype(int), axis=0)).mean(), hard
    )
    assert mean(lambda s: np.mean([p.visible_fraction for p in s.people]), easy) > mean(
        lambda s: np.mean([p.visible_fraction for p in s.people]), hard
    )
    assert {c.kind for c in captions(easy)} == {"appearance", "action", "position"}
    assert {c.kind for c in captions(hard)} == set(KINDS)

    def words(of) -> set[str]:
        return {word for caption in captions(of) for word in caption.text.split()}

    assert len(words(easy)) < 0.7 * len(words(hard))


def test_people_are_large_enough_to_be_learnt_from():
    areas, referable, everybody = [], 0, 0
    for scene in scenes(40, 0.5, size=(128, 128)):
        everybody += len(scene.people)
        referable += len(scene.referable)
        areas += [scene.people[i].area / scene.image[..., 0].size for i in scene.referable]
    assert min(areas) >= 0.02 and np.median(areas) > 0.04
    assert referable > 0.75 * everybody


@pytest.mark.parametrize("size", [(48, 640), (48, 2000), (640, 48), (2000, 48), (48, 48)])
def test_scenes_of_any_shape_end(size, monkeypatch):
    draw, turns = generator_module._draw, []

    def counted(*arguments):
        turns.append(1)
        assert len(turns) < 20, "does not end"
        return draw(*arguments)

    monkeypatch.setattr(generator_module, "_draw", counted)
    generator = SceneGenerator(0, image_size=size)
    for index in range(25):
        turns.clear()
        scene = generator.scene(index)
        assert scene.image.shape == (*size, 3)
        # Somebody is there, as large as the height allows.
        assert max(person.box[3] for person in scene.people) > 0.2 * size[0]


def test_nobody_to_show_is_an_error_that_names_the_settings(monkeypatch):
    monkeypatch.setattr(generator_module, "_MIN_AREA", 2.0)  # more than the whole image
    with pytest.raises(UserError, match=r"nobody is visible.*image_size.*num_people"):
        SceneGenerator(0, image_size=(48, 96)).scene(0)
    monkeypatch.undo()
    # People are there, but too small a share of so long an image to be referred to.
    with pytest.raises(UserError, match=r"lower min_area \(0.02\).*image_size"):
        SceneGenerator(0, image_size=(48, 2000)).pair(0)
    assert SceneGenerator(0, image_size=(48, 2000), min_area=0.0005).pair(0)[1]["caption"]


def test_settings_that_make_no_sense_are_refused():
    for settings, message in (
        (dict(split="test"), "split"),
        (dict(seed=-1), "seed"),
        (dict(image_size=(20, 96)), "image_size"),
        (dict(image_size=(96,)), "image_size"),
        (dict(image_size=((120, 96), 96)), "image_size"),
        (dict(num_people=(0, 3)), "num_people"),
        (dict(num_people=(3, 2)), "num_people"),
        (dict(difficulty=1.5), "difficulty"),
        (dict(image_size=96), "image_size"),
        (dict(image_size=(96, "wide")), "image_size"),
        (dict(num_people=3), "num_people"),
        (dict(difficulty="hard"), "difficulty"),
        (dict(min_area=-0.1), "min_area"),
        (dict(caption_kinds=["poem"]), "caption_kinds"),
        (dict(caption_kinds=[]), "caption_kinds"),
    ):
        with pytest.raises(UserError, match=message):
            SceneGenerator(**{"seed": 0, **settings})
    with pytest.raises(UserError, match="length"):
        dataset(length=0)
    # Nobody is as large as the image: the error says what to change.
    with pytest.raises(UserError, match="min_area"):
        SceneGenerator(0, image_size=(48, 48), min_area=0.95).pair(0)


def test_labels_leave_room_for_everything():
    assert labels.THING < labels.PARTS_PER_PERSON
    people = SceneGenerator(0, image_size=(200, 300), num_people=(14, 14)).scene(0).people
    assert len(people) > 6
