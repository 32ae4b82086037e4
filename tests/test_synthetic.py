"""The synthetic data set: annotations that agree with the pixels, captions that are true."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from datasets.refhuman import PromptedPersonDataset, RefHuman, collate, pair_entries
from datasets.skeleton import COCO
from datasets.synthetic import (
    SceneGenerator,
    SyntheticRefHuman,
    mask_to_polygons,
    mask_to_rle,
    scene_pairs,
)
from datasets.synthetic import captions as synthetic_captions
from datasets.synthetic import painter as synthetic_drawing
from datasets.synthetic.captions import HELD_OUT_COMBINATIONS
from datasets.synthetic.people import COLOURS, ScenePerson
from datasets.transforms import EvaluationTransform, swap_sides
from tools import make_synthetic
from util.command_line import run_program

ROOT = Path(__file__).resolve().parents[1]
SMALL = (96, 96)


def scenes(count: int, difficulty: float = 1.0, split: str = "train", size=(144, 144), seed=3):
    generator = SceneGenerator(seed, split, image_size=size, difficulty=difficulty)
    return [generator.scene(index) for index in range(count)]


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
    for mask in masks:
        height, width = mask.shape
        polygons = mask_to_polygons(mask)
        assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)
        encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        drawn = coco_mask.decode(encoded).astype(bool)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97
        encoded = coco_mask.frPyObjects(mask_to_rle(mask), height, width)
        assert np.array_equal(coco_mask.decode(encoded).astype(bool), mask)


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


def dataset(**settings) -> SyntheticRefHuman:
    defaults = dict(training=True, length=12, image_size=SMALL, seed=1)
    return SyntheticRefHuman(EvaluationTransform(96), **{**defaults, **settings})


def test_several_prompts_of_a_image():
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
    assert data.image_groups() == [range(i, i + 2) for i in range(0, 12, 2)]
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
        [dict(until_epoch=2), dict(until_epoch=2)],
    ):
        with pytest.raises(ValueError, match="curriculum"):
            dataset(curriculum=stages)
    assert isinstance(data, PromptedPersonDataset)


def test_difficulty_has_an_effect():
    easy, hard = scenes(40, 0.0), scenes(40, 1.0)

    def mean(measure, of) -> float:
        return float(np.mean([measure(scene) for scene in of]))

    def shared_colours(scene) -> float:
        tops = [person.appearance.top.colour for person in scene.people]
        return len(tops) - len(set(tops))

    def captions(of) -> list[synthetic_captions.Caption]:
        return [c for scene in of for i in scene.referable for c in scene.captions(i, 2)]

    assert mean(shared_colours, easy) == 0 < mean(shared_colours, hard)
    assert mean(lambda s: np.abs(np.diff(s.image.astype(int), axis=0)).mean(), easy) < mean(
        lambda s: np.abs(np.diff(s.image.astype(int), axis=0)).mean(), hard
    )
    assert mean(lambda s: np.mean([p.visible_fraction for p in s.people]), easy) > mean(
        lambda s: np.mean([p.visible_fraction for p in s.people]), hard
    )
    assert {c.kind for c in captions(easy)} == {"appearance", "action", "position"}
    assert {c.kind for c in captions(hard)} == set(synthetic_captions.KINDS)

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
        (dict(caption_kinds=["poem"]), "caption_kinds"),
        (dict(caption_kinds=[]), "caption_kinds"),
    ):
        with pytest.raises(ValueError, match=message):
            SceneGenerator(**{"seed": 0, **settings})
    with pytest.raises(ValueError, match="length"):
        dataset(length=0)
    # Nobody is as large as the image: the error says what to change.
    with pytest.raises(ValueError, match="min_area"):
        SceneGenerator(0, image_size=(48, 48), min_area=0.95).pair(0)


# --- captions: an independent reader --------------------------------------------------------------
# Reads the words, not the generator's claims, and decides with rules of its own who is meant.

_SYNONYMS = {
    "crimson": "red",
    "scarlet": "red",
    "violet": "purple",
    "jet-black": "black",
    "snow-white": "white",
    "rose-coloured": "pink",
    "grass-green": "green",
    "emerald": "green",
    "royal-blue": "blue",
    "lemon-yellow": "yellow",
    "bright-orange": "orange",
    "tangerine": "orange",
    "chocolate-brown": "brown",
}
_COLOUR = "|".join(sorted([*COLOURS, *_SYNONYMS], key=len, reverse=True))


def _colour(word: str | None) -> str | None:
    return _SYNONYMS.get(word, word)


_TOPS = {
    "t-shirt": "t-shirt",
    "tee": "t-shirt",
    "short-sleeved shirt": "t-shirt",
    "sweater": "sweater",
    "jumper": "sweater",
    "pullover": "sweater",
    "shirt": "t-shirt, sweater",
    "jacket": "jacket",
    "coat": "jacket",
    "top": "t-shirt, sweater, jacket",
    "dress": "dress",
    "gown": "dress",
    "frock": "dress",
}
_BOTTOMS = {
    "trousers": "trousers",
    "pants": "trousers",
    "slacks": "trousers",
    "jeans": "trousers",
    "short pants": "shorts",
    "shorts": "shorts",
    "skirt": "skirt",
}
_HATS = {
    "baseball cap": "cap",
    "cap": "cap",
    "beanie": "beanie",
    "woolly hat": "beanie",
    "bobble hat": "beanie",
    "sun hat": "brimmed hat",
    "wide-brimmed hat": "brimmed hat",
    "hat": "cap, beanie, brimmed hat",
}
_THINGS = {
    "balloon": "balloon",
    "umbrella": "umbrella",
    "parasol": "umbrella",
    "brolly": "umbrella",
    "shopping bag": "bag",
    "handbag": "bag",
    "bag": "bag",
    "ball": "ball",
    "flag": "flag",
    "banner": "flag",
}
_DOING = {
    "standing( up| upright| still)?": "standing",
    "walking|strolling|taking a walk|going for a walk|out walking": "walking",
    "running|jogging|sprinting|in a hurry|rushing": "running",
    "sitting( down| on a box)?|seated|having a seat": "sitting",
    "kicking( a ball)?|playing (football|soccer)": "kicking",
    "bending( over| down| forward)?|stooping": "bending",
    "crouching( down)?|squatting|down on the heels": "crouching",
    "jumping( up)?|leaping|up in the air": "jumping",
    "waving( hello| a hand| at us)?|greeting us|saying hi": "waving",
    "(raising|throwing) both arms( up)?|with both arms up|with raised arms|"
    "with hands in the air|cheering": "raised",
    "with (both )?hands on( the)? hips|holding both hips": "hips",
    "pointing( at something| sideways)?|showing the way": "pointing",
}
_FACING = {
    "facing the camera|facing us|facing forward|looking at (the camera|us)": ("viewer",),
    "facing away|seen from behind|turned away|looking away from us|with the back to the camera|"
    "whose face cannot be seen": ("away",),
    "facing left|looking to the left|turned to the left": ("left",),
    "facing right|looking to the right|turned to the right": ("right",),
    "seen from the side": ("left", "right"),
}
_NOUNS = {
    "man|guy|gentleman|fellow|bloke": ("man",),
    "woman|lady": ("woman",),
    "little boy|boy|lad": ("boy",),
    "little girl|girl": ("girl",),
    "child|kid|youngster": ("boy", "girl"),
    "person|one|figure|individual|human|character": ("man", "woman", "boy", "girl"),
}
_RELATIONS = (
    "on the left side of|to the left of|on the left of|left of",
    "on the right side of|to the right of|on the right of|right of",
    "side by side with|next to|beside|close to|near",
    "partly hidden behind|covered by|behind",
    "in front of",
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_PREFIXES = (
    "find|show me|point out|where is|look for|select|mark|it is|please find|can you see|locate|"
    "segment|i mean"
)
_FILLER = {
    "the",
    "a",
    "an",
    "that",
    "who",
    "is",
    "in",
    "wearing",
    "dressed",
    "with",
    "and",
    "has",
    "wears",
}


def any_of(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


class Reader:
    """Who of a scene's people a text may mean."""

    def __init__(self, people: list[ScenePerson], width: int) -> None:
        self.people, self.width = people, width
        self.order = sorted(range(len(people)), key=lambda i: people[i].centre_x)

    def meant(self, text: str) -> list[int]:
        text = re.sub(rf"^({_PREFIXES}) ", "", text)
        between = re.search(r" (in the middle between|in between|between) (the .*)$", text)
        if between:
            names = between.group(2).split(" and the ")
            # A description may hold an "and" of its own, but none before a "the".
            assert len(names) == 2, text
            first, second = (self.only(name) for name in names)
            low, high = sorted(self.people[i].centre_x for i in (first, second))
            return [
                i
                for i in self.described(text[: between.start()])
                if low < self.people[i].centre_x < high
            ]
        for number, words in enumerate(_RELATIONS):
            found = re.search(rf"^(.*?) (?<!from )({words}) (the .*)$", text)
            if found:
                anchor = self.people[self.only(found.group(3))]
                return [
                    i
                    for i in self.described(found.group(1))
                    if self.people[i] is not anchor and self.related(number, self.people[i], anchor)
                ]
        return self.described(text)

    def only(self, text: str) -> int:
        found = self.described(text)
        assert len(found) == 1, (text, found)
        return found[0]

    @staticmethod
    def related(number: int, me: ScenePerson, them: ScenePerson) -> bool:
        overlap = min(me.box[0] + me.box[2], them.box[0] + them.box[2]) - max(
            me.box[0], them.box[0]
        )
        return (
            me.centre_x < them.centre_x,
            me.centre_x > them.centre_x,
            abs(me.centre_x - them.centre_x) < 0.35 * (me.scale + them.scale),
            overlap > 0 and me.foot[1] < them.foot[1],
            overlap > 0 and me.foot[1] > them.foot[1],
        )[number]

    def described(self, text: str) -> list[int]:
        """Indices of the people for whom every word of a description is true."""
        true_for = set(range(len(self.people)))
        rest = f" {text} "

        def take(pattern: str, rule) -> None:
            nonlocal rest
            for found in re.finditer(rf"(?<= )(?:{pattern})(?= )", rest):
                true_for.intersection_update(i for i, p in enumerate(self.people) if rule(p, found))
            rest = re.sub(rf"(?<= )(?:{pattern})(?= )", "", rest)
            rest = re.sub(" +", " ", rest)

        def worn(item, kinds: str, colour: str | None, pattern: str | None = None) -> bool:
            return (
                item is not None
                and item.kind in kinds.split(", ")
                and colour in (None, item.colour)
                and (
                    pattern is None or {"st": "striped"}.get(pattern[:2], "dotted") == item.pattern
                )
            )

        start = "(?:with|wearing|who has|who wears)"
        take(
            "without a hat|with no hat|wearing no hat",
            lambda p, f: p.appearance.hat is None,
        )
        take(
            rf"{start} (?:an? )?(?:({_COLOUR}) )?({any_of(_HATS)})(?: on(?! the))?",
            lambda p, f: worn(p.appearance.hat, _HATS[f[2]], _colour(f[1])),
        )
        take(
            rf"(?:holding|with|carrying|who holds|who carries) an? (?:({_COLOUR}) )?"
            rf"({any_of(_THINGS)})",
            lambda p, f: worn(p.appearance.thing, _THINGS[f[2]], _colour(f[1])),
        )
        take(
            "(?:with|who has) (long|short) hair",
            lambda p, f: (
                p.appearance.hair_colour is not None and p.appearance.long_hair == (f[1] == "long")
            ),
        )
        hair = "black|brown|blond|red|gray"
        take(
            rf"({hair})-haired|(?:with|who has) ({hair}) hair|whose hair is ({hair})",
            lambda p, f: p.appearance.hair_colour == (f[1] or f[2] or f[3]),
        )
        take("bald", lambda p, f: p.appearance.hair_colour is None)
        take("bearded|with a beard|who has a beard", lambda p, f: p.appearance.beard)
        take("with glasses|wearing glasses|who wears glasses", lambda p, f: p.appearance.glasses)
        take(
            rf"(?:an? )?(?:({_COLOUR}) )?(?:(striped|stripy|stripey|dotted|spotted|polka-dot) )?"
            rf"({any_of(_TOPS)})",
            lambda p, f: worn(p.appearance.top, _TOPS[f[3]], _colour(f[1]), f[2]),
        )
        take(
            rf"(?:a )?(?:({_COLOUR}) )?({any_of(_BOTTOMS)})",
            lambda p, f: worn(p.appearance.bottom, _BOTTOMS[f[2]], _colour(f[1])),
        )
        take(
            "(walking|running) (?:to|towards) the (left|right)",
            lambda p, f: p.pose.action == f[1] and p.pose.facing == f[2],
        )
        take(
            "pointing (?:to|towards) the (left|right)",
            lambda p, f: p.pose.arms == "pointing" and pointing_side(p) == f[1],
        )
        for pattern, facing in _FACING.items():
            take(pattern, lambda p, f, facing=facing: p.pose.facing in facing)
        count = len(self.people)
        take(
            "(?:on the far|farthest to the) (left|right)|(left|right)most",
            lambda p, f: p.index == self.order[0 if (f[1] or f[2]) == "left" else -1],
        )
        take(
            rf"({any_of(_ORDINALS)}) from the (left|right)",
            lambda p, f: (
                self.order.index(p.index)
                == (_ORDINALS.index(f[1]) if f[2] == "left" else count - 1 - _ORDINALS.index(f[1]))
            ),
        )
        take(
            "(?:on|at) the (left|right)(?: side| half of the image)?",
            lambda p, f: (p.centre_x < self.width / 2) == (f[1] == "left"),
        )
        take(
            "in the (?:very )?(?:middle|center)",
            lambda p, f: count % 2 == 1 and self.order.index(p.index) == count // 2,
        )
        take(
            "in front|at the front|in the foreground|closest to the camera|nearest to us",
            lambda p, f: p.foot[1] == max(q.foot[1] for q in self.people),
        )
        take(
            "in the back|at the back|in the background|farthest from the camera|farthest away",
            lambda p, f: p.foot[1] == min(q.foot[1] for q in self.people),
        )
        take("in the picture|in the image|in the photo|in this scene", lambda p, f: count == 1)
        for pattern, doing in _DOING.items():
            take(pattern, lambda p, f, doing=doing: doing in (p.pose.action, p.pose.arms))
        for pattern, kinds in _NOUNS.items():
            take(pattern, lambda p, f, kinds=kinds: p.appearance.kind in kinds)
        take(
            rf"(?:(?:in|wearing|with|and) )?({_COLOUR})",
            lambda p, f: (
                p.appearance.top.colour == _colour(f[1])
                or (p.appearance.bottom and p.appearance.bottom.colour == _colour(f[1]))
            ),
        )
        assert set(rest.split()) <= _FILLER, f"{text!r}: does not understand {rest!r}"
        return sorted(true_for)


def pointing_side(person: ScenePerson) -> str:
    """Read from the image's geometry: on which side of the shoulder the raised hand is."""
    wrist, shoulder = (9, 5) if person.pose.active_side == 1 else (10, 6)
    keypoints = person.keypoints
    if keypoints[wrist, 2] == 0 or keypoints[shoulder, 2] == 0:
        return "unknown"
    return "left" if keypoints[wrist, 0] < keypoints[shoulder, 0] else "right"


def all_captions(difficulty: float, split: str, count: int):
    for scene in scenes(count, difficulty, split, size=SMALL, seed=11):
        for index in scene.referable:
            for caption in scene.captions(index, 3):
                yield scene, index, caption
            held_out = scene.held_out_caption(index)
            if held_out is not None:
                yield scene, index, held_out


@pytest.mark.parametrize(("difficulty", "split"), [(0.0, "train"), (1.0, "train"), (1.0, "val")])
def test_captions_are_true_of_exactly_one_person(difficulty, split):
    number = 0
    for scene, index, caption in all_captions(difficulty, split, 70):
        meant = Reader(scene.people, scene.image.shape[1]).meant(caption.text)
        assert meant == [index], caption.text
        number += 1
    assert number > 300


def mirrored(person: ScenePerson, width: int) -> ScenePerson:
    keypoints = person.keypoints[list(COCO.flip_permutation)].copy()
    keypoints[:, 0] = np.where(keypoints[:, 2] > 0, width - keypoints[:, 0], 0)
    x, y, w, h = person.box
    pose = dataclasses.replace(
        person.pose, yaw=-person.pose.yaw % 360, active_side=-person.pose.active_side
    )
    return dataclasses.replace(
        person,
        box=(width - x - w, y, w, h),
        keypoints=keypoints,
        pose=pose,
        foot=(width - person.foot[0], person.foot[1]),
    )


def test_captions_of_a_mirrored_image_stay_true_with_left_and_right_exchanged():
    changed = 0
    for scene, index, caption in all_captions(1.0, "train", 60):
        width = scene.image.shape[1]
        people = [mirrored(person, width) for person in scene.people]
        text = swap_sides(caption.text)
        changed += text != caption.text
        assert Reader(people, width).meant(text) == [index], text
    assert changed > 30


def combinations_in(text: str) -> set[tuple[str, str]]:
    """(colour, what has it) put together by the words of a description; see Reader.described."""
    found = set()
    families = dict.fromkeys(_TOPS, "top") | dict.fromkeys(("dress", "gown", "frock"), "dress")
    families |= dict.fromkeys(_BOTTOMS, "bottom") | dict.fromkeys(_HATS, "hat")
    families |= dict.fromkeys(_THINGS, "thing")
    pattern = "striped|stripy|stripey|dotted|spotted|polka-dot"
    for part in re.split(
        r" (?:of|behind|by|next to|beside|close to|near|with|between) (?=the )| and (?=the )", text
    ):
        tops = set()
        for match in re.finditer(
            rf"(?<![\w-])({_COLOUR}) (?:(?:{pattern}) )?({any_of(families)})(?![\w-])", part
        ):
            found.add((_colour(match[1]), families[match[2]]))
            if families[match[2]] in ("top", "dress"):
                tops.add(_colour(match[1]))
        for match in re.finditer(
            rf"(?:in|wearing|dressed in|with|and) ({_COLOUR})(?= and| [a-z]+ing|$| (?:on|who))",
            part,
        ):
            found.add((_colour(match[1]), "top"))
            tops.add(_colour(match[1]))
        for words, doing in _DOING.items():
            if re.search(rf"(?<![\w-])(?:{words})(?![\w-])", part):
                found |= {(top, doing) for top in tops}
    return found


def test_training_captions_never_use_held_out_combinations():
    combinations: dict[str, set] = {}
    for split in ("train", "val"):
        seen = combinations[split] = set()
        for scene, index, caption in all_captions(1.0, split, 120):
            assert isinstance(index, int) and scene.people
            mine = combinations_in(caption.text)
            seen |= mine
            if split == "train":
                assert not caption.held_out
                assert not mine & HELD_OUT_COMBINATIONS, caption.text
            elif mine & HELD_OUT_COMBINATIONS:
                assert caption.held_out, caption.text
    # The words themselves are all learnt.
    assert len(combinations["val"] & HELD_OUT_COMBINATIONS) > 15
    colours = {colour for colour, _ in combinations["train"]}
    families = {family for _, family in combinations["train"]}
    assert {c for c, _ in HELD_OUT_COMBINATIONS} <= colours
    assert {f for _, f in HELD_OUT_COMBINATIONS} <= families


def test_every_other_validation_pair_is_held_out_where_possible():
    data = dataset(training=False, length=40)
    held_out = [entry["held_out"] for entry in data.ground_truth()["images"]]
    assert np.mean(held_out[1::2]) > 0.6
    assert np.mean(held_out[::2]) < 0.5
    train = dataset(length=10)
    assert not any(entry["held_out"] for entry in train.ground_truth()["images"])


def test_captions_are_varied():
    texts = [caption.text for _, _, caption in all_captions(1.0, "train", 150)]
    assert len({word for text in texts for word in text.split()}) > 200
    assert len(set(texts)) > 0.8 * len(texts)
    tables = [
        value for name, value in vars(synthetic_captions).items() if re.match("_[A-Z_]+$", name)
    ]
    phrases = [
        phrase
        for table in tables
        for entry in (itertools.chain(table, table.values()) if isinstance(table, dict) else table)
        for phrase in ([entry] if isinstance(entry, str) else entry)
    ]
    assert len(" ".join(phrases).split()) >= 400


def test_the_tokenizer_knows_the_words():
    transformers = pytest.importorskip("transformers")
    folder = ROOT / "config" / "tiny_text_encoder"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    text = "the man in a red t-shirt"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 0 and ids[-1] == 2 and len(ids) == 2 + len(text.split())
    assert tokenizer("The Man in a RED t-shirt")["input_ids"] == ids
    strange = "Größe 你好 zebra-striped!"
    ids = tokenizer(strange)["input_ids"]
    assert 3 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == strange.lower()
    words = {w for _, _, caption in all_captions(1.0, "val", 60) for w in caption.text.split()}
    whole = [len(tokenizer(word)["input_ids"]) == 3 for word in sorted(words)]
    assert np.mean(whole) > 0.97
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)


# --- tools/make_synthetic.py ---------------------------------------------------------------------


def test_make_synthetic_writes_resumes_and_refuses(tmp_path):
    settings = dict(
        train=6,
        val=3,
        seed=1,
        image_size=[[96, 96], [96, 96]],
        num_people=[1, 3],
        difficulty=0.5,
        captions=2,
        format="png",
    )
    folder = tmp_path / "synthetic"
    make_synthetic.make(folder, settings, workers=2)
    data = RefHuman(
        folder / "images", folder / "RefHuman_train.json", EvaluationTransform(96), training=True
    )
    assert len(data) >= 6 and data[0].image.shape[0] == 3
    assert sorted(p.name for p in folder.iterdir()) == [
        "RefHuman_train.json",
        "RefHuman_val.json",
        "images",
    ]
    assert len(list((folder / "images").iterdir())) == 9
    assert data.ground_truth()["people"]

    # A run that was stopped: one part written, an image of the next missing.
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    other = tmp_path / "stopped"
    assert not make_synthetic.prepare_folder(other, settings)
    make_synthetic.write_part((other, "train", 0, 6, settings))
    with pytest.raises(ValueError, match="difficulty: there 0.5, asked for 0.9"):
        make_synthetic.make(other, {**settings, "difficulty": 0.9}, workers=1)
    stamp = (other / "images" / "train_00000000.png").stat().st_mtime_ns
    make_synthetic.make(other, settings, workers=1)
    assert {p.name: p.read_bytes() for p in other.iterdir() if p.is_file()} == before
    assert (other / "images" / "train_00000000.png").stat().st_mtime_ns == stamp

    # Complete: nothing to do with the same settings, refused with others.
    assert make_synthetic.prepare_folder(folder, settings)
    with pytest.raises(ValueError, match="another data set"):
        make_synthetic.prepare_folder(folder, {**settings, "seed": 2})


def test_make_synthetic_reports_bad_input(tmp_path, monkeypatch, capsys):
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["make_synthetic.py", *arguments])
        assert run_program(make_synthetic.main) == 2
        return capsys.readouterr().err

    (tmp_path / "mine").write_text("something of the user's")
    counts = ("--train", "1", "--val", "1")
    assert "is not empty" in run("--output", str(tmp_path), *counts)
    new = tmp_path / "new"
    assert "difficulty" in run("--output", str(new), *counts, "--difficulty", "3")
    assert "--val" in run("--output", str(new), "--train", "1", "--val", "0")
    assert not new.exists()


def test_labels_leave_room_for_everything():
    assert synthetic_drawing.THING < synthetic_drawing.PARTS_PER_PERSON
    people = SceneGenerator(0, image_size=(200, 300), num_people=(14, 14)).scene(0).people
    assert len(people) > 6
