"""Synthetic captions: true of exactly one person, varied, and without held-out combinations."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_reader import Reader, combinations_in
from synthetic_scenes import SMALL, dataset, scenes

from datasets.skeleton import COCO
from datasets.synthetic.captions import HELD_OUT_COMBINATIONS, Describer, words
from datasets.synthetic.people import ScenePerson
from datasets.transforms import swap_sides

ROOT = Path(__file__).resolve().parents[1]


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
    keypoints[:, 0] = np.where(keypoints[:, 2] > 0, width - 1 - keypoints[:, 0], 0)
    x, y, w, h = person.box
    pose = dataclasses.replace(
        person.pose, yaw=-person.pose.yaw % 360, active_side=-person.pose.active_side
    )
    return dataclasses.replace(
        person,
        box=(width - x - w, y, w, h),
        keypoints=keypoints,
        pose=pose,
        foot=(width - 1 - person.foot[0], person.foot[1]),
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


def test_captions_of_long_rows_count_as_far_as_they_have_words():
    # Ten people side by side: the seventh from the left has no ordinal.
    (scene,) = scenes(1, 0.0, size=(96, 96))
    person = scene.people[0]
    people = [
        dataclasses.replace(person, index=i, box=(100 * i, 0, 30, 80), foot=(100.0 * i, 90.0))
        for i in range(10)
    ]
    describer = Describer(people, 1000, 96, 1.0, kinds=["position"])
    generator = np.random.default_rng(0)
    texts = [{c.text for c in describer.captions(i, 20, generator)} for i in range(10)]
    assert any("sixth from the left" in text for text in texts[5])
    assert not texts[6] & texts[5] and any("fourth from the right" in text for text in texts[6])


def test_captions_are_varied():
    texts = [caption.text for _, _, caption in all_captions(1.0, "train", 150)]
    assert len({word for text in texts for word in text.split()}) > 200
    assert len(set(texts)) > 0.8 * len(texts)
    tables = [
        value
        for name, value in vars(words).items()
        if re.fullmatch("[A-Z_]+", name) and isinstance(value, (dict, tuple))
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
    known = {w for _, _, caption in all_captions(1.0, "val", 60) for w in caption.text.split()}
    whole = [len(tokenizer(word)["input_ids"]) == 3 for word in sorted(known)]
    assert np.mean(whole) > 0.97
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == len(tokenizer)
