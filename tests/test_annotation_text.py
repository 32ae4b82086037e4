"""The reader of annotation files returns what `json.loads` returns, and errors as it does."""

from __future__ import annotations

import gc
import json

import pytest
from conftest import write_refhuman

from datasets import refhuman
from datasets.annotation_text import collection_paused, parse
from datasets.refhuman import RefHuman
from datasets.transforms import keep_size
from util.errors import UserError

BODIES = [
    '"bbox": [1, 2.5], "caption": "a \\"id\\": 3"',
    '"bbox": [1, 2.5], "caption": "an id: 3"',
]
LISTS = [
    '{"id": 1, "image_id": 2, B}, {"id": 3, "image_id": 4, B}',
    '{"id": 1, "image_id": 2, B}, {"id": 3, "image_id": 4, "bbox": [1, true]}',
    '{"id": 1, "image_id": 2, B},{"id": 1.5, "image_id": 4, B}',
    '{"id": 1, "image_id": 2, B} ,\n {"id": 1e3, "image_id": 4, B}',
    '{"id": 1, "image_id": 2, B}, {"id": -0, "image_id": 12345678901234567890123, B}',
    '{B, "image_id": 2, "id": 1}, {B, "image_id": -2, "id": 7}, {B, "image_id": 3, "id": "7"}',
    '{"image_id": 2, B}, {"image_id": 3, B}',
    '{"id": 1, "image_id": 2, "x": {"id": 1}}, {"id": 5, "image_id": 2, "x": {"id": 1}}',
    '{"x": {"id": 1}, "image_id": 2}, {"x": {"id": 3}, "image_id": 2}',
    '{"id": 1, "id": 1, "image_id": 2}, {"id": 1, "id": 5, "image_id": 2}',
    '{"id": "1", "image_id": 2}, {"id": "4", "image_id": 2}',
    '{"id": 1, "x": "", "image_id": 2}, 5, null, [], {}',
    '{"x": {"image_id": 2}, "id": 2, "\\u0069mage_id": 2}, '
    '{"x": {"image_id": 3}, "id": 2, "\\u0069mage_id": 2}',
    '{"id": 1, "image_id": 2, "x": "}"}, {"id": 2, "image_id": 3, "x": "}"}, '
    '{"id": 2, "image_id": 3, "x": "} "}',
    '{"id": 1, "image_id": 2, "x": "{"}, {"id": 2, "image_id": 3, "x": "{"}',
    '{"id": 1, "image_id": 2, "\\u0069d": 1.0}, {"id": 2, "image_id": 3, "\\u0069d": 1.0}',
    '{"id": 1, "image_id": 2, "id": 4}, {"id": 2, "image_id": 2, "id": 4}',
    '{"id": 1, "image_id": 2, B}, {"id": 3, "image_id": 2}, 4, {"id": 5, "image_id": 6, B}, '
    '{"id": 7, "image_id": 8}, {"id": 9, "image_id": 1, "bbox": [1, 2.5]}',
    "",
    " ",
]


@pytest.mark.parametrize("entries", LISTS)
@pytest.mark.parametrize(
    "form",
    [
        '{"images": [1], "annotations": [%s], "z": {}}',
        ' {"annotations" :[%s]}\n',
        '[{"annotations": [%s]}]',
    ],
)
@pytest.mark.parametrize("body", BODIES)
def test_what_json_reads(entries, form, body):
    text = form % entries.replace("B", body)
    found = parse(text)
    assert repr(found) == repr(json.loads(text))  # equal, of the same types, in the same order


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}x", "5", '{"annotations": [', '{"annotations": [1,]}', '{"annotations": [1 2]}',
     '{"annotations" 5}', '{"a": 1,}', "{1: 2}", '{"annotations": [{"id": 1, "image_id": 2}, ]}',
     '{"annotations": [{"id": 1, "image_id": 2}, {"id": 01, "image_id": 2}]}',
     '{"annotations": [{"id": 1, "image_id": 2}, {"id": 1, "image_id": 2'],
)  # fmt: skip
def test_broken_texts(text):
    try:
        expected = json.loads(text)
    except ValueError as error:
        with pytest.raises(ValueError) as caught:
            parse(text)
        assert str(caught.value) == str(error)
    else:
        assert parse(text) == expected


def test_repetitions_share_what_they_have_in_common():
    """Wherever they are in the list."""
    first, other, second, third = parse(
        '{"annotations": [{"id": 1, "image_id": 1, "b": [1]}, {"id": 2, "image_id": 2, "b": [2]}, '
        '{"id": 3, "image_id": 3, "b": [1]}, {"b": [1], "image_id": 3, "id": 3}]}'
    )["annotations"]
    assert first["b"] is second["b"] and other["b"] == [2] and second["id"] == 3
    assert third["b"] is not first["b"] and list(third) == ["b", "image_id", "id"]


def test_collection_goes_on_afterwards():
    with pytest.raises(KeyError), collection_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def repeat(content, split):
    """Every person has three captions."""
    images, annotations = [], []
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        for _ in range(3):
            number = len(images) + 1
            images.append({**image, "id": number, "caption": f"sentence {number}"})
            annotations.append({**annotation, "id": number + 100, "image_id": number})
    content.update(images=images, annotations=annotations)


def test_repeated_annotations_come_back_whole(tmp_path):
    folder = write_refhuman(tmp_path / "data", pairs={"train": 6}, change=repeat)
    file = folder / "RefHuman_train.json"
    content = json.loads(file.read_text())
    data = RefHuman(folder / "images", file, keep_size, training=True)
    truth = data.ground_truth()
    assert repr(truth["annotations"]) == repr(content["annotations"])
    assert repr(truth["images"]) == repr(content["images"])
    assert data.load_pair(4)[1:] == (content["images"][4], content["annotations"][4])


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_person_is_checked_once(tmp_path, monkeypatch, is_shuffled):
    """However far the captions of a person are from each other."""
    checked = []

    def change(content, split):
        repeat(content, split)
        if is_shuffled:
            order = [number for first in range(3) for number in range(first, 18, 3)]
            content["images"] = [content["images"][number] for number in order]

    check = refhuman.check_segmentation
    monkeypatch.setattr(
        refhuman, "check_segmentation", lambda *given: checked.append(0) or check(*given)
    )
    folder = write_refhuman(tmp_path / "data", pairs={"train": 6}, change=change)
    file = folder / "RefHuman_train.json"
    data = RefHuman(folder / "images", file, keep_size, training=True)
    assert len(data) == 18 and len(checked) == 6
    content = json.loads(file.read_text())
    assert data.ground_truth()["images"] == content["images"]
    of_image = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    expected = [of_image[image["id"]] for image in content["images"]]
    assert data.ground_truth()["annotations"] == expected
    groups = {frozenset(map(frozenset, people)) for people in data.image_groups()}
    assert sorted(len(group) for people in groups for group in people) == [3] * 6


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_repetition_is_checked_against_its_own_image(tmp_path, number):
    """The same annotation in a smaller image is an error there."""

    def change(content, split):
        repeat(content, split)
        image = content["images"][number]
        image.update(file_name="train_001.jpg", width=20, height=20)
        del content["images"][3:], content["annotations"][3:]

    folder = write_refhuman(tmp_path / "data", pairs={"train": 6}, change=change)
    with pytest.raises(UserError, match=f"annotation id {number + 101} of image id {number + 1}:"):
        RefHuman(folder / "images", folder / "RefHuman_train.json", keep_size, training=True)
