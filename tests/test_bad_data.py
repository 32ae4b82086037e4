"""Annotation files, images and prompts that lie: one clear error each, when they are read.

Each line of a table spoils something small and valid, and names words that the error has to have;
what is odd but right is in tables of its own and has to be taken.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import person_annotation, write_coco, write_refhuman
from PIL import Image
from pycocotools import mask as coco_mask
from test_crowdpose import person as crowdpose_person
from torch.utils.data import DataLoader

from datasets.annotations import encode_segmentation, read_annotation_file
from datasets.coco import CocoKeypoints
from datasets.crowdpose import CrowdPose
from datasets.prompts import PROMPT_KINDS, get_kind
from datasets.refhuman import RefHuman
from datasets.sample import collate
from datasets.skeleton import COCO, CROWDPOSE
from datasets.transforms import keep_size
from util.command_line import error_message
from util.errors import MissingFileError, UserError
from util.images import load_image

HEIGHT, WIDTH = 96, 128

# The RefHuman file has 3 pairs; lines spoil the second, image id 2, annotation id 2.
SPOILT = "image id 2"

DEEP = json.loads("[" * 400 + "]" * 400)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A valid folder of each form; tests write annotation files of their own beside it."""
    root = tmp_path_factory.mktemp("data")
    crowdpose = root / "crowdpose"
    crowdpose.mkdir()
    Image.new("RGB", (80, 60)).save(crowdpose / "1.jpg")
    return {
        "refhuman": write_refhuman(root / "refhuman", pairs={"train": 3}),
        "coco": write_coco(root / "coco"),
        "crowdpose": crowdpose,
    }


def refhuman_content(folders) -> dict[str, Any]:
    return json.loads((folders["refhuman"] / "RefHuman_train.json").read_text())


def open_refhuman(folders, file: Path, prompts=None, training=False) -> RefHuman:
    images = folders["refhuman"] / "images"
    return RefHuman(images, file, keep_size, training=training, prompts=prompts)


def rejected(make: Callable[[], Any]) -> str:
    """The message of the UserError: one short paragraph of plain text."""
    with pytest.raises(UserError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700, message
    message.encode("utf-8")
    return message


# --- annotation files: what they are -------------------------------------------------------------

FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n ", "is empty"),
    "cut off": (b'{"images": [', "not valid JSON"),
    "two values": (b"{} {}", "not valid JSON"),
    "not text": (b"\xff\xd8\xff\xe0", "not text in UTF-8"),
    "latin 1": ('{"images": "é"}'.encode("latin-1"), "not text in UTF-8"),
    "utf-16": ('{"images": []}'.encode("utf-16"), "not text in UTF-8"),
    "list at the top": (b"[]", "not a RefHuman annotation file: expected an object"),
    "number at the top": (b"1", "not a RefHuman annotation file"),
    "null at the top": (b"null", "not a RefHuman annotation file"),
    "no annotations": (b'{"images": [{"id": 1}]}', "the lists 'images' and 'annotations'"),
    "no image entries": (b'{"images": [], "annotations": []}', "no image entries"),
    "object of images": (b'{"images": {}, "annotations": []}', "lists 'images'"),
    "too deep": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "thousands of digits": (b'{"images": ' + b"9" * 5000 + b"}", "not valid JSON"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(folders, tmp_path, name):
    content, words = FILES[name]
    (tmp_path / "people.json").write_bytes(content)
    message = rejected(lambda: open_refhuman(folders, tmp_path / "people.json"))
    assert "people.json" in message and words in message


# --- RefHuman ------------------------------------------------------------------------------------

HUGE = 10**400

# Runs of a mask of 96 x 128 pixels: the rows 10 to 29 of the columns 20 to 49.
_MASK = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
_MASK[10:30, 20:50] = 1
_CODE = coco_mask.encode(np.asfortranarray(_MASK))["counts"].decode()
_RUNS = [20 * HEIGHT + 10, *[20, HEIGHT - 20] * 29, 20, (WIDTH - 49) * HEIGHT - 30]


def rle(counts: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"size": list(size) if isinstance(size, tuple) else size, "counts": counts}


def keypoint(x: Any, y: Any, visibility: Any) -> list[Any]:
    """A valid pose whose nose is replaced."""
    pose = person_annotation((70.0, 10.0, 40.0, 70.0), 2, 1)["keypoints"]
    return [x, y, visibility, *pose[3:]]


def pose_at(x: float, y: float) -> list[Any]:
    return [x, y, 2] * 17


def scribbles(x: Any = 90, y: Any = 40) -> list[Any]:
    return [90, 40] * 59 + [x, y]


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


# name -> (key of the annotation, value, words of the error)
ANNOTATIONS: dict[str, tuple[str, Any, str]] = {
    # image ids, ids, categories
    "image id in a list": ("image_id", [2], "refers to image id [2], which 'images' does not have"),
    "image id as text": ("image_id", "2", "refers to image id '2'"),
    "image id as a fraction": ("image_id", 2.0, "refers to image id 2.0"),
    "image id true": ("image_id", True, "refers to image id True"),
    "image id null": ("image_id", None, "refers to image id None"),
    "image id of 400 digits": ("image_id", HUGE, "refers to image id 1000"),
    "image id of nobody": ("image_id", 77, "refers to image id 77"),
    "annotation id twice": ("id", 1, "annotation id 1 occurs twice, for image ids 1 and 2"),
    "annotation id in a list": ("id", [2], "has the 'id' [2]; expected an integer"),
    "annotation id null": ("id", None, "has the 'id' None"),
    "another category": ("category_id", 18, "'category_id' has to be 1, a person, got 18"),
    "category as text": ("category_id", "person", "'category_id' has to be 1"),
    "category null": ("category_id", None, "'category_id' has to be 1"),
    "category true": ("category_id", True, "'category_id' has to be 1"),
    "crowd": ("iscrowd", 1, "'iscrowd' has to be 0, since a prompt means a single person"),
    "crowd 2": ("iscrowd", 2, "'iscrowd' has to be 0 (a person) or 1 (a crowd), got 2"),
    "crowd as text": ("iscrowd", "0", "'iscrowd' has to be 0 (a person) or 1"),
    "crowd null": ("iscrowd", None, "'iscrowd' has to be 0 (a person) or 1"),
    # boxes
    "box as text": ("bbox", "1,2,3,4", "'bbox' has to be [x, y, width, height]"),
    "box of texts": ("bbox", ["1", "2", "3", "4"], "'bbox' has to be [x, y, width, height]"),
    "box of lists": ("bbox", [[1], [2], [3], [4]], "'bbox' has to be [x, y, width, height]"),
    "box with NaN": ("bbox", [1, math.nan, 5, 5], "'bbox' has to be [x, y, width, height]"),
    "box with infinity": ("bbox", [1, 2, math.inf, 5], "'bbox' has to be"),
    "box with true": ("bbox", [True, 2, 5, 5], "'bbox' has to be"),
    "box of 400 digits": ("bbox", [1, 2, HUGE, 5], "'bbox' has to be"),
    "box of 1e308": ("bbox", [1e308, 2, 1e308, 5], "'bbox' has to be"),
    "box of 5 numbers": ("bbox", [1, 2, 3, 4, 5], "'bbox' has to be"),
    "box of negative height": ("bbox", [1, 2, 3, -4], "positive width and height"),
    "box to the right": ("bbox", [128, 2, 30, 40], "'bbox' has to lie in the image at least in"),
    "box above": ("bbox", [5, -60, 30, 60], "'bbox' has to lie in the image at least in part"),
    "box of a larger image": ("bbox", [5, 5, 300, 20], "'bbox' may reach at most 128 pixels"),
    "box that is deep": ("bbox", DEEP, "'bbox' has to be"),
    # areas
    "area missing": ("area", None, "'area' has to be a positive number, got None"),
    "area zero": ("area", 0, "'area' has to be a positive number, got 0"),
    "area negative": ("area", -5.5, "'area' has to be a positive number, got -5.5"),
    "area as text": ("area", "9", "'area' has to be a positive number, got '9'"),
    "area true": ("area", True, "'area' has to be a positive number, got True"),
    "area infinite": ("area", math.inf, "'area' has to be a positive number, got inf"),
    "area of 400 digits": ("area", HUGE, "'area' has to be a positive number"),
    "area above the image's": ("area", 12500, "'area' has to be at most that of the image"),
    # keypoints
    "keypoints of CrowdPose": ("keypoints", [1, 1, 2] * 14, "Set skeleton=crowdpose"),
    "keypoints nested": ("keypoints", [[5, 5, 2]] * 17, "has to hold 51 numbers"),
    "keypoint as text": (
        "keypoints",
        keypoint("5", 5, 2),
        "51 numbers (x, y, visibility of 17 key",
    ),
    "keypoint null": ("keypoints", keypoint(None, 5, 2), "got None"),
    "keypoint NaN": ("keypoints", keypoint(math.nan, 5, 2), "got nan"),
    "keypoint of 1e308": ("keypoints", keypoint(1e308, 5, 0), "got 1e+308"),
    "keypoint of 400 digits": ("keypoints", keypoint(HUGE, 5, 0), "has to hold 51 numbers"),
    "visibility 3": ("keypoints", keypoint(5, 5, 3), "visibility of 0, 1 or 2 for the nose, got 3"),
    "visibility -1": ("keypoints", keypoint(5, 5, -1), "0, 1 or 2 for the nose, got -1"),
    "visibility a share": ("keypoints", keypoint(5, 5, 0.9), "0, 1 or 2 for the nose, got 0.9"),
    "visibility true": ("keypoints", keypoint(5, 5, True), "got True"),
    "labelled keypoint far away": ("keypoints", keypoint(9000, 5, 1), "(9000, 5) for the nose"),
    "all keypoints outside": ("keypoints", pose_at(140, 40), "has to have a labelled keypoint in"),
    # polygons
    "segmentation missing": ("segmentation", None, "has to be a list of polygons"),
    "segmentation as text": ("segmentation", "1,2,3", "has to be a list of polygons"),
    "polygon as text": ("segmentation", ["1,2,3,4,5,6"], "polygon 0 of 'segmentation' is broken"),
    "polygon not in a list": (
        "segmentation",
        square(5, 5, 9),
        "polygon 0 of 'segmentation' is brok",
    ),
    "polygon nested": ("segmentation", [[[5, 5], [9, 5], [9, 9]]], "polygon 0 of 'segmentation'"),
    "polygon with null": ("segmentation", [[1, 2, 3, None, 5, 6]], "polygon 0 of 'segmentation'"),
    "polygon with true": ("segmentation", [[1, 2, 3, True, 5, 6]], "polygon 0 of 'segmentation'"),
    "polygon with NaN": ("segmentation", [[1, 2, math.nan, 4, 5, 6]], "finite coordinates"),
    "polygon of 400 digits": ("segmentation", [[1, 2, HUGE, 4, 5, 6]], "polygon 0 of 'segm"),
    "polygon of 7 numbers": ("segmentation", [[1, 2, 3, 4, 5, 6, 7]], "an even number"),
    "polygon empty": ("segmentation", [square(5, 5, 9), []], "polygon 1 of 'segmentation' is"),
    "polygon of one place": (
        "segmentation",
        [[5, 5] * 4],
        "at least one pixel of the image inside",
    ),
    "polygon on a line": ("segmentation", [[5, 5, 9, 9, 7, 7]], "at least one pixel of the image"),
    "polygon outside": (
        "segmentation",
        [square(140, 5, 30)],
        "has to lie in the image at least in",
    ),
    "polygon round a corner": (
        "segmentation",
        [[-20, -5, -5, -20, 2, -20, -20, 2]],
        "at least one pixel of the image inside",
    ),
    "polygon of a larger image": ("segmentation", [[5, 5, 900, 5, 9, 90]], "polygon 0 from (5, 5)"),
    # run-length codes
    "RLE with too few runs": ("segmentation", rle(_RUNS[:-1]), "its runs add up to"),
    "RLE with too many runs": ("segmentation", rle([*_RUNS, 1]), "its runs add up to"),
    "RLE without runs": ("segmentation", rle([]), "its runs add up to 0 pixels"),
    "RLE of nothing": ("segmentation", rle([HEIGHT * WIDTH]), "at least one pixel of the image"),
    "RLE with a negative run": ("segmentation", rle([-5, *_RUNS, 5]), "a negative run, -5"),
    "RLE with half a pixel": ("segmentation", rle([0.5, 0.5, *_RUNS[1:]]), "whole numbers"),
    "RLE with NaN": ("segmentation", rle([math.nan, 5]), "whole numbers, among them is nan"),
    "RLE with true": ("segmentation", rle([True, 5]), "whole numbers, among them is True"),
    "RLE with text": ("segmentation", rle(["5", 5]), "whole numbers, among them is '5'"),
    "RLE of 400 digits": ("segmentation", rle([HUGE, 5]), "is longer than the image, 12288 pixels"),
    "RLE of nested runs": ("segmentation", rle([_RUNS]), "whole numbers"),
    "RLE of a number": ("segmentation", rle(5), "have to be a list or a string, got 5"),
    "RLE of null": ("segmentation", rle(None), "have to be a list or a string, got None"),
    "RLE without counts": ("segmentation", {"size": [96, 128]}, "without 'size' and 'counts'"),
    "RLE without size": ("segmentation", {"counts": _RUNS}, "without 'size' and 'counts'"),
    "RLE of another size": ("segmentation", rle(_RUNS, (96, 127)), "'size' has to be [96, 128]"),
    "RLE of turned size": ("segmentation", rle(_CODE, (128, 96)), "'size' has to be [96, 128]"),
    "RLE of size text": ("segmentation", rle(_CODE, "96x128"), "'size' has to be [96, 128]"),
    "RLE of size null": ("segmentation", rle(_CODE, None), "'size' has to be [96, 128]"),
    "RLE of three sizes": ("segmentation", rle(_CODE, (96, 128, 1)), "'size' has to be [96, 128]"),
    "code empty": ("segmentation", rle(""), "compressed 'counts' are empty"),
    "code cut short": ("segmentation", rle(_CODE[:-1]), "in 'segmentation' is broken"),
    "code too long": ("segmentation", rle(_CODE + "1"), "its runs add up to"),
    "code ends in a number": ("segmentation", rle(_CODE + "o"), "end inside of a number"),
    "code with a space": ("segmentation", rle(" " + _CODE), "hold the byte b' ' at place 0"),
    "code not ASCII": ("segmentation", rle(_CODE + "é"), "hold the byte b'\\xc3'"),
    "code of half a letter": ("segmentation", rle(_CODE + "\ud800"), "hold the byte b'\\xed'"),
    "code with a huge run": ("segmentation", rle("ooooooo0"), "a number of more than 32 bits"),
    "code with a negative run": ("segmentation", rle("O" + _CODE), "a negative run, -1"),
    # scribbles
    "scribble of one point": ("scribble", [5, 5], "has to hold scribbles of 12 points"),
    "scribble of 11 points": ("scribble", [5, 5] * 11, "has to hold scribbles of 12 points"),
    "scribble as text": ("scribble", "5,5", "has to hold scribbles of 12 points"),
    "scribble zero": ("scribble", 0, "has to hold scribbles of 12 points"),
    "scribble with NaN": ("scribble", scribbles(math.nan), "24 finite numbers each"),
    "scribble with null": ("scribble", scribbles(None), "24 finite numbers each"),
    "scribble with true": ("scribble", scribbles(True), "24 finite numbers each"),
    "scribble of texts": ("scribble", ["5"] * 24, "24 finite numbers each"),
    "scribble of 400 digits": ("scribble", scribbles(HUGE), "24 finite numbers each"),
    "scribble uneven": ("scribble", [[[5, 5]] * 12, [[5, 5]] * 11], "24 finite numbers each"),
    "scribble by coordinate": ("scribble", [[[5] * 12, [6] * 12]], "24 finite numbers each"),
    "scribble outside": ("scribble", [140, 40] * 60, "(140, 40) for point 0 of scribble 0"),
    "scribble point outside": (
        "scribble",
        scribbles(90, -7),
        "(90, -7) for point 11 of scribble 4",
    ),
    "scribble deep": ("scribble", DEEP, "has to hold scribbles of 12 points"),
}

# name -> (key of the image entry, value, words of the error)
IMAGE_ENTRIES: dict[str, tuple[str, Any, str]] = {
    "id as text": ("id", "two", "'id' has to be an integer of 64 bits, got 'two'"),
    "id as a fraction": ("id", 2.5, "'id' has to be an integer of 64 bits, got 2.5"),
    "id in a list": ("id", [2], "'id' has to be an integer of 64 bits, got [2]"),
    "id true": ("id", True, "'id' has to be an integer of 64 bits, got True"),
    "id of 400 digits": ("id", HUGE, "'id' has to be an integer of 64 bits"),
    "id twice": ("id", 1, "image id 1 occurs twice"),
    "file name empty": ("file_name", "", "'file_name' is missing or not a string"),
    "file name a number": ("file_name", 5, "'file_name' is missing or not a string, got 5"),
    "file name absolute": ("file_name", "/etc/passwd", "the name of a file in the image folder"),
    "file name leaves": ("file_name", "../images/train_000.jpg", "the name of a file in the image"),
    "file name leaves inside": ("file_name", "a/../../b.jpg", "the name of a file in the image"),
    "file name with a zero": ("file_name", "a\0.jpg", "the name of a file in the image folder"),
    "file name of half letters": ("file_name", "\ud800.jpg", "'file_name' holds half a character"),
    "file name too long": ("file_name", "a" * 400, "1 of 3 images are missing"),
    "file name a folder": ("file_name", ".", "1 of 3 images are missing"),
    "file absent": ("file_name", "absent.jpg", "1 of 3 images are missing"),
    "height zero": ("height", 0, "'height' has to be a positive number of pixels, got 0"),
    "height negative": ("height", -96, "'height' has to be a positive number of pixels, got -96"),
    "height a fraction": ("height", 96.5, "'height' has to be a positive number of pixels"),
    "width true": ("width", True, "'width' has to be a positive number of pixels, got True"),
    "width of 400 digits": ("width", HUGE, "'width' has to be a positive number of pixels"),
    "width of a bomb": ("width", 10**7, "images of more than 178956970 pixels are not read"),
    "width of another entry": (
        "width",
        120,
        "'train_000.jpg' is said to have 'height' and 'width'",
    ),
    "caption empty": ("caption", "", "has no 'caption', which text prompts need"),
    "caption blank": ("caption", " \n\t", "has no 'caption', which text prompts need"),
    "caption null": ("caption", None, "has no 'caption', which text prompts need"),
    "caption a number": ("caption", 5, "'caption' has to be a string, got 5"),
    "caption a list": ("caption", ["a", "b"], "'caption' has to be a string, got ['a', 'b']"),
    "caption with half a letter": ("caption", "a \ud83d man", "'caption' holds half a character"),
    "nested too deeply": ("extra", json.loads("[" * 900 + "]" * 900), "hundreds of levels deep"),
}


def open_spoilt(folders, tmp_path, part: str, key: str, value: Any) -> str:
    content = refhuman_content(folders)
    content[part][1][key] = value
    file = tmp_path / "people.json"
    file.write_text(json.dumps(content))
    message = rejected(lambda: open_refhuman(folders, file))
    assert "people.json" in message or "missing in" in message or "levels deep" in message
    return message


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_that_lie(folders, tmp_path, name):
    key, value, words = ANNOTATIONS[name]
    message = open_spoilt(folders, tmp_path, "annotations", key, value)
    assert words in message
    if key != "image_id":
        assert SPOILT in message or "image ids 1 and 2" in message
    if key not in ("image_id", "id"):
        assert "annotation id 2" in message and key in message


@pytest.mark.parametrize("name", IMAGE_ENTRIES)
def test_image_entries_that_lie(folders, tmp_path, name):
    key, value, words = IMAGE_ENTRIES[name]
    assert words in open_spoilt(folders, tmp_path, "images", key, value)


# name -> (change of the content, words of the error)
CONTENTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "image entry a number": (
        lambda c: c["images"].append(5),
        "entry 3 of 'images' has to be an obj",
    ),
    "image entry without id": (lambda c: c["images"][1].pop("id"), "entry 1 of 'images' has to be"),
    "annotation a number": (
        lambda c: c["annotations"].append(5),
        "entry 3 of 'annotations' has to",
    ),
    "annotation missing": (lambda c: c["annotations"].pop(1), "image id 2 has 0 annotations"),
    "annotation twice": (
        lambda c: c["annotations"].append(c["annotations"][1]),
        "image id 2 has 2 annotations",
    ),
    "people no list": (lambda c: c.update(people={"a": 1}), "'people' has to be a list"),
    "people of numbers": (
        lambda c: c.update(people=[1]),
        "entry 0 of 'people' has to be an object",
    ),
    "people without file": (lambda c: c.update(people=[{}]), "'file_name' of its image, got {}"),
    "people without box": (
        lambda c: c.update(people=[{"file_name": "train_000.jpg"}]),
        "entry 0 of 'people' ('train_000.jpg'): 'bbox' has to be",
    ),
    "people without area": (
        lambda c: c.update(people=[{"file_name": "train_000.jpg", "bbox": [1, 2, 3, 4]}]),
        "entry 0 of 'people' ('train_000.jpg'): 'area' has to be",
    ),
    "people with a visibility of 3": (
        lambda c: c.update(
            people=[
                {
                    "file_name": "train_000.jpg",
                    "bbox": [1, 2, 3, 4],
                    "area": 5,
                    "keypoints": keypoint(5, 5, 3),
                }
            ]
        ),
        "entry 0 of 'people' ('train_000.jpg'): 'keypoints' has to have a visibility of 0, 1 or 2",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_that_lie(folders, tmp_path, name):
    change, words = CONTENTS[name]
    content = refhuman_content(folders)
    change(content)
    (tmp_path / "people.json").write_text(json.dumps(content))
    message = rejected(lambda: open_refhuman(folders, tmp_path / "people.json"))
    assert words in message and "people.json" in message


def test_the_people_have_to_include_who_is_meant(folders, tmp_path):
    content = refhuman_content(folders)
    content["people"] = [
        {**annotation, "file_name": "train_000.jpg"} for annotation in content["annotations"][:1]
    ]
    (tmp_path / "people.json").write_text(json.dumps(content))
    data = open_refhuman(folders, tmp_path / "people.json")
    message = rejected(data.make_evaluator)  # which is made before the first epoch
    assert "person of image id 2 is not among the 'people' of train_000.jpg" in message


# --- COCO and CrowdPose --------------------------------------------------------------------------

# name -> (changes of annotation 1, a person of image id 1, words of the error)
COCO_ANNOTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "another category": ({"category_id": 3}, "'category_id' has to be 1"),
    "crowd as text": ({"iscrowd": "yes"}, "'iscrowd' has to be 0 (a person) or 1 (a crowd)"),
    "crowd a share": ({"iscrowd": 0.5}, "'iscrowd' has to be 0 (a person) or 1 (a crowd)"),
    "box outside": ({"bbox": [-50, 5, 40, 40]}, "'bbox' has to lie in the image at least in part"),
    "flat box outside": ({"bbox": [500, 5, 0, 40]}, "'bbox' has to lie in the image at least"),
    "area infinite": ({"area": math.inf}, "'area' has to be a non-negative number"),
    "visibility 7": ({"keypoints": keypoint(5, 5, 7)}, "visibility of 0, 1 or 2 for the nose"),
    "keypoints outside": ({"keypoints": pose_at(5, -30)}, "labelled keypoint in the image"),
    "polygon outside": ({"segmentation": [square(5, 120, 9)]}, "has to lie in the image at least"),
    "RLE too short": ({"segmentation": rle([5, 6])}, "its runs add up to 11 pixels"),
    "RLE empty": ({"segmentation": rle("")}, "compressed 'counts' are empty"),
    "id twice": ({"id": 2}, "annotation id 2 occurs twice, for image ids 1 and 1"),
}


@pytest.mark.parametrize("name", COCO_ANNOTATIONS)
def test_coco_annotations_that_lie(folders, tmp_path, name):
    change, words = COCO_ANNOTATIONS[name]
    content = read_annotation_file(
        folders["coco"] / "annotations" / "person_keypoints_val2017.json", ""
    )
    content["annotations"][0].update(change)
    (tmp_path / "people.json").write_text(json.dumps(content))
    images = folders["coco"] / "images" / "val2017"

    def make():
        return CocoKeypoints(
            images, tmp_path / "people.json", keep_size, training=False, with_masks=True
        )

    message = rejected(make)
    assert words in message and "people.json" in message and "image id" in message


@pytest.mark.parametrize("index", [None, "0.5", math.nan, -0.1, True, [0.5]], ids=str)
def test_crowd_indices_that_lie(folders, tmp_path, index):
    entry = {"id": 1, "file_name": "1.jpg", "height": 60, "width": 80, "crowdIndex": index}
    content = {"images": [entry], "annotations": [crowdpose_person(1, (2, 2, 40, 50))]}
    (tmp_path / "people.json").write_text(json.dumps(content))

    def make():
        file = tmp_path / "people.json"
        return CrowdPose(folders["crowdpose"], file, keep_size, training=False, skeleton=CROWDPOSE)

    assert "image id 1 has no 'crowdIndex'" in rejected(make)


# --- what is odd but right -----------------------------------------------------------------------

# name -> changes of the second annotation and image entry
ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no category": ({"category_id": ...}, {}),
    "no crowd": ({"iscrowd": ...}, {}),
    "crowd false": ({"iscrowd": False}, {}),
    "no annotation id": ({"id": ...}, {}),
    "annotation id a name": ({"id": "second"}, {}),
    "negative ids": ({"id": -3, "image_id": -2}, {"id": -2}),
    "largest id": ({"image_id": 2**63 - 1}, {"id": 2**63 - 1}),
    "box over the edge": ({"bbox": [100.5, -0.01, 27.9, 96.02]}, {}),
    "box over everything": ({"bbox": [-60, -40, 250, 200]}, {}),
    "whole numbers as fractions": ({"bbox": [71.0, 9.0, 46.0, 76.0], "area": 1.0}, {}),
    "area of the whole image": ({"area": 96 * 128}, {}),
    "visibility 2.0": ({"keypoints": keypoint(80, 20, 2.0)}, {}),
    "keypoint over the edge": ({"keypoints": keypoint(130.5, 20, 1)}, {}),
    "unlabelled keypoint far away": ({"keypoints": keypoint(-9999, -9999, 0)}, {}),
    "nobody labelled": ({"keypoints": [0] * 51}, {}),
    "polygon over the edge": ({"segmentation": [square(110, 70, 30)]}, {}),
    "second polygon outside": ({"segmentation": [square(80, 20, 30), square(130, 20, 9)]}, {}),
    "polygon of a pixel": ({"segmentation": [square(80, 20, 1)]}, {}),
    "RLE compressed": ({"segmentation": rle(_CODE)}, {}),
    "RLE of runs": ({"segmentation": rle(_RUNS)}, {}),
    "RLE of fractions": ({"segmentation": rle([float(run) for run in _RUNS])}, {}),
    "RLE of everything": ({"segmentation": rle([0, HEIGHT * WIDTH])}, {}),
    "RLE with empty runs": ({"segmentation": rle([0, 0, *_RUNS, 0, 0])}, {}),
    "one scribble": ({"scribble": [80, 40] * 12}, {}),
    "scribbles by point": ({"scribble": [[80, 40]] * 60}, {}),
    "scribbles by scribble": ({"scribble": [[80, 40] * 12] * 5}, {}),
    "scribble on the edge": ({"scribble": [128, 96] * 60}, {}),
    "caption of emojis": ({}, {"caption": "der Mann im grünen Mantel 🧥"}),
    "caption of a page": ({}, {"caption": "a man and " * 500}),
    "other keys": ({"extra": DEEP}, {"license": None, "held_out": False}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_right_annotations(folders, tmp_path, name):
    content = refhuman_content(folders)
    for part, changes in zip(("annotations", "images"), ODD[name], strict=True):
        content[part][1].update(changes)
        for key in (key for key, value in changes.items() if value is ...):
            del content[part][1][key]
    (tmp_path / "people.json").write_text(json.dumps(content))
    data = open_refhuman(folders, tmp_path / "people.json")
    target = data[1].target
    assert target["masks"].any() and all(
        value.isfinite().all() for key, value in target.items() if hasattr(value, "isfinite")
    )
    if "segmentation" in ODD[name][0] and "size" in ODD[name][0]["segmentation"]:
        drawn = coco_mask.decode(
            encode_segmentation(content["annotations"][1]["segmentation"], HEIGHT, WIDTH, "")
        )
        everything = name == "RLE of everything"
        assert np.array_equal(drawn, np.ones_like(_MASK) if everything else _MASK)
    data.make_evaluator()


def test_odd_but_right_files(folders, tmp_path):
    content = refhuman_content(folders)
    file = tmp_path / "people.json"
    text = json.dumps(content, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    for prefix in ("", "\ufeff", "\n\n"):
        file.write_bytes((prefix + text).encode("utf-8"))
        assert len(open_refhuman(folders, file)) == 3
    # Without text prompts captions may be missing or empty.
    for entry, caption in zip(content["images"], ("", None, "  "), strict=True):
        entry["caption"] = caption
    # People of other images, and none at all
    stranger = {"file_name": "elsewhere.jpg", "bbox": "unknown"}
    for people in ([stranger], None):
        file.write_text(json.dumps({**content, "people": people}))
        data = open_refhuman(folders, file, prompts=("point", "scribble"))
        assert data.ground_truth().get("people", []) == []
    # Files in folders below
    below = folders["refhuman"] / "images" / "below"
    below.mkdir(exist_ok=True)
    (below / "a..b.jpg").write_bytes(
        (folders["refhuman"] / "images" / "train_001.jpg").read_bytes()
    )
    content["images"][2]["file_name"] = "below/a..b.jpg"
    file.write_text(json.dumps(content))
    assert open_refhuman(folders, file, prompts=())[2].image.shape == (3, 96, 128)


def test_run_length_codes_of_random_masks_are_taken():
    generator = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        for _ in range(8):
            height, width = (int(side) for side in generator.integers(1, 70, 2))
            mask = (generator.random((height, width)) < share).astype(np.uint8)
            code = coco_mask.encode(np.asfortranarray(mask))
            text = {**code, "counts": code["counts"].decode()}
            lengths = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2])))
            runs = [0, *lengths.tolist()] if mask[0, 0] else lengths.tolist()
            for given in (code, text, {**code, "counts": runs}):
                drawn = encode_segmentation(given, height, width, "")
                assert np.array_equal(coco_mask.decode(drawn), mask)


@pytest.mark.parametrize("counts", [[], [5], _RUNS[:-1], [*_RUNS, 7], "", "o", _CODE[:-2], [-1, 1]])
def test_broken_run_length_codes_never_reach_pycocotools(counts):
    message = rejected(lambda: encode_segmentation(rle(counts), HEIGHT, WIDTH, "image id 9"))
    assert "image id 9" in message and "96x128" in message


# --- images --------------------------------------------------------------------------------------


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file that claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def encoded(image: Image.Image, file_format: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def spoilt_middle(content: bytes) -> bytes:
    """Marks of no meaning where there should be pixels."""
    place = len(content) // 2
    return content[:place] + b"\xff\xc1\xff\xc2" * 8 + content[place + 32 :]


# name -> (content of the image file, words of the error)
IMAGES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "is empty (0 bytes)"),
    "text": (b"<html>404</html>", "is not an image that Pillow can read"),
    "zeros": (bytes(5000), "is not an image that Pillow can read"),
    "half a JPEG": (half(encoded(noise(), "JPEG")), "cannot be read"),
    "JPEG without an end": (encoded(noise(), "JPEG")[:-200], "cannot be read"),
    "spoilt JPEG": (spoilt_middle(encoded(noise(), "JPEG")), "cannot be read"),
    "head of a JPEG": (encoded(noise(), "JPEG")[:20], "is not an image that Pillow can read"),
    "half a PNG": (half(encoded(noise(), "PNG")), "cannot be read"),
    "spoilt PNG": (spoilt_middle(encoded(noise(), "PNG")), "cannot be read"),
    "PNG without pixels": (png(WIDTH, HEIGHT), "cannot be read"),
    "head of a PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\x05IHDR", "cannot be read"),
    "half a GIF": (half(encoded(noise("P"), "GIF")), "cannot be read"),
    "half a TIFF": (half(encoded(noise(), "TIFF")), "cannot be read"),
    "half a WebP": (half(encoded(noise(), "WEBP")), "image"),
    "spoilt PPM": (b"P6 1x8 96 255 ", "cannot be read"),
    "bomb": (png(30_000, 30_000), "has more than 178956970 pixels"),
    "larger": (encoded(noise(size=(256, 192)), "JPEG"), "is 256x192 pixels (width x height), its"),
    "turned": (encoded(noise(size=(96, 128)), "JPEG"), "is 96x128 pixels (width x height), its"),
    "1x1": (encoded(noise(size=(1, 1)), "PNG"), "is 1x1 pixels"),
    "floating point": (
        encoded(Image.fromarray(np.ones((HEIGHT, WIDTH), dtype=np.float32)), "TIFF"),
        "has floating-point pixels",
    ),
    "32 bits": (
        encoded(Image.fromarray(np.full((HEIGHT, WIDTH), 70_000, dtype=np.int32)), "TIFF"),
        "has grey values from 70000",
    ),
}


@pytest.fixture
def with_image(folders, tmp_path) -> Callable[[bytes], RefHuman]:
    """A data set of two pairs whose image has the given content."""

    def make(content: bytes) -> RefHuman:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / "spoilt.jpg").write_bytes(content)
        pairs = refhuman_content(folders)
        for part in ("images", "annotations"):
            pairs[part] = pairs[part][:2]
        for entry in pairs["images"]:
            entry["file_name"] = "spoilt.jpg"
        (tmp_path / "people.json").write_text(json.dumps(pairs))
        return RefHuman(tmp_path / "images", tmp_path / "people.json", keep_size, training=False)

    return make


@pytest.mark.filterwarnings("ignore:Image size .* exceeds limit")
@pytest.mark.parametrize("name", IMAGES)
def test_images_that_lie(with_image, name):
    content, words = IMAGES[name]
    data = with_image(content)
    message = rejected(lambda: data[1])
    assert words in message and SPOILT in message and "spoilt.jpg" in message


GREY16 = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
TURNED = Image.Exif()
TURNED[0x0112] = 6

ODD_IMAGES: dict[str, bytes] = {
    "grey": encoded(noise("L"), "JPEG"),
    "CMYK": encoded(noise("CMYK"), "JPEG"),
    "progressive": encoded(noise(), "JPEG", progressive=True),
    "grey of 16 bits": encoded(Image.fromarray(GREY16), "PNG"),
    "grey and transparent": encoded(noise("LA"), "PNG"),
    "colour and transparent": encoded(noise("RGBA"), "PNG"),
    "palette": encoded(noise("P"), "PNG"),
    "transparent palette": encoded(noise("P"), "PNG", transparency=3),
    "palette of many transparencies": encoded(noise("P"), "PNG", transparency=bytes(range(256))),
    "black and white": encoded(noise("1"), "PNG"),
    "moving": encoded(noise("P"), "GIF", save_all=True, append_images=[noise("P")] * 3),
    "TIFF of several": encoded(noise(), "TIFF", save_all=True, append_images=[noise("L")]),
    "WebP": encoded(noise(), "WEBP"),
    "BMP": encoded(noise(), "BMP"),
    "turned by EXIF": encoded(noise(size=(HEIGHT, WIDTH)), "JPEG", exif=TURNED),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_but_right_images(with_image, name):
    image = with_image(ODD_IMAGES[name])[1].image
    assert image.shape == (3, HEIGHT, WIDTH) and image.isfinite().all() and image.std() > 0.1


def test_a_single_pixel_is_an_image():
    content = encoded(noise(size=(1, 1)), "PNG")
    assert load_image(io.BytesIO(content)).shape == (1, 1, 3)
    assert "no pixels" in rejected(lambda: load_image(Image.new("RGB", (0, 5))))
    assert "cannot be read" in rejected(
        lambda: load_image(Image.open(io.BytesIO(half(encoded(noise(), "JPEG")))))
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_is_one_message(with_image, workers):
    data = with_image(encoded(noise(), "JPEG"))
    loader = DataLoader(data, batch_size=1, num_workers=workers, collate_fn=collate)
    assert len(list(loader)) == 2
    (data.images_folder / "spoilt.jpg").unlink()
    with pytest.raises(MissingFileError) as caught:
        list(loader)
    path = data.images_folder / "spoilt.jpg"
    assert error_message(caught.value) == (
        f"image id 1: Image {path} does not exist; check the path."
    )


# --- prompts -------------------------------------------------------------------------------------

# kind, what a user gives for an image of 90 x 60 pixels, words of the error
PROMPTS: list[tuple[str, Any, str]] = [
    ("point", (math.inf, 2), "finite numbers; got (inf, 2)"),
    ("point", (1e308, 2), "leaves the image"),
    ("point", (HUGE, 2), "Expected a point (x, y) of finite numbers"),
    ("point", (True, False), "Expected a point (x, y)"),
    ("point", (None, 2), "Expected a point (x, y)"),
    ("point", ("1", "2"), "Expected a point (x, y)"),
    ("point", "12", "Expected a point (x, y)"),
    ("point", [[1, 2]], "Expected a point (x, y)"),
    ("point", [], "Expected a point (x, y)"),
    ("point", 5, "Expected a point (x, y)"),
    ("point", {"x": 1, "y": 2}, "Expected a point (x, y)"),
    ("point", (1j, 2), "Expected a point (x, y)"),
    ("point", (-0.5, 2), "leaves the image, which is 90 pixels wide and 60 high"),
    ("point", (2, 60.5), "leaves the image"),
    ("scribble", [], "Expected a scribble [P, 2] with P >= 2"),
    ("scribble", [1, 2, 3, 4], "Expected a scribble [P, 2]"),
    ("scribble", [[1, 2], [3]], "Expected a scribble [P, 2]"),
    ("scribble", [[1, 2, 3], [4, 5, 6]], "Expected a scribble [P, 2]"),
    ("scribble", [[1, 2], [3, math.nan]], "Expected a scribble [P, 2] with P >= 2 of finite"),
    ("scribble", [[1, 2], [91, 5]], "leaves the image"),
    ("scribble", np.full((5000, 2), -1.0), "leaves the image"),
    ("text", 5, "has to be a sentence, got 5"),
    ("text", ["the man"], "has to be a sentence, got ['the man']"),
    ("text", b"the man", "has to be a sentence"),
    ("text", "", "is empty"),
    ("text", "\t\n", "is empty"),
    ("text", "the \udcff man", "holds half a character"),
]


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_prompts_that_lie(number):
    kind, value, words = PROMPTS[number]
    assert words in rejected(lambda: get_kind(kind).from_user(value, 60, 90))


ODD_PROMPTS: list[tuple[str, Any]] = [
    ("point", (0, 0)),
    ("point", (90, 60)),
    ("point", np.array([3, 4], dtype=np.int16)),
    ("scribble", [[5, 5], [5, 5]]),
    ("scribble", np.zeros((5000, 2))),
    ("text", "a"),
    ("text", "🧥 " * 5000),
]


@pytest.mark.parametrize("number", range(len(ODD_PROMPTS)))
def test_odd_but_right_prompts(number):
    kind, value = ODD_PROMPTS[number]
    prompt = get_kind(kind).from_user(value, 60, 90)
    assert len(prompt) == 1
    if kind != "text":
        assert prompt.points.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("point", text) for text in ("", "5", "1,2,3", "1;2", "a,b", "nan,1", "1,inf", "1,")),
        *(("scribble", text) for text in ("1,2", "1,2,3", "1,2,3,nan", "1,2,3,1e999", "x")),
    ],
)
def test_command_line_prompts_that_lie(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        PROMPT_KINDS[kind].parse(text)


def test_reading_checks_and_mends_nothing(folders, tmp_path):
    content = refhuman_content(folders)
    before = copy.deepcopy(content)
    (tmp_path / "people.json").write_text(json.dumps(content))
    truth = open_refhuman(folders, tmp_path / "people.json").ground_truth()
    assert truth["annotations"] == before["annotations"] and truth["images"] == before["images"]
    assert COCO.num_keypoints * 3 == len(truth["annotations"][0]["keypoints"])
