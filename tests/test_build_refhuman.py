"""RefHuman files from COCO keypoints: who is in them, what they are called, and that they load."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tracemalloc

import build_refhuman
import cv2
import numpy as np
import pytest
from people_files import (
    SIZE,
    person,
    reference,
    unlabelled,
    write_images,
    write_people,
    write_refs,
)
from PIL import Image
from pycocotools import mask as coco_mask

from datasets.building import build as building
from datasets.building.texts import cleaned_caption, read_captions, read_refs
from datasets.refhuman import RefHuman
from datasets.scribble import draw_scribbles
from datasets.transforms import keep_size
from util.errors import UserError
from util.processes import in_order


def run(monkeypatch, file, *more, split="train", output="out.json", status=0, workers=1):
    """Build from `file`; the written content, its summary, and the output's path."""
    output = file.parent / output
    line = ["--annotations", file, "--images", file.parent / "images", "--split", split]
    line += ["--output", output, "--workers", workers, *more]
    monkeypatch.setattr(sys, "argv", ["build_refhuman.py", *map(str, line)])
    assert build_refhuman.main() == status
    if status:
        return None, None, output
    summary = output.with_name(f"{output.stem}_summary.json")
    return json.loads(output.read_text()), json.loads(summary.read_text()), output


def written(content):
    """Ids of the people in a file's pairs, in their order, each once."""
    return list(dict.fromkeys(a["person_id"] for a in content["annotations"]))


def reasons(summary):
    return {reason: entry["count"] for reason, entry in summary["left_out"].items()}


def load(output, folder, **more):
    return RefHuman(folder / "images", output, keep_size, training=True, **more)


def crowd(image_id, number=900):
    height, width = SIZE
    code = {"size": [height, width], "counts": [0, height * width]}
    return person(number, image_id, segmentation=code, iscrowd=1)


# --- who -----------------------------------------------------------------------------------------


def four(image_id, first, **changes):
    """Four people of an image; the changes are those of the first."""
    people = [person(first + i, image_id, left=5.0 + 15 * i) for i in range(4)]
    return [{**people[0], **changes}, *people[1:]]


def test_the_papers_training_people(tmp_path, monkeypatch):
    """At least three others, eight labelled keypoints, 2 % of the image."""
    pixels = SIZE[0] * SIZE[1]
    people = [
        *four(1, 10, area=0.02 * pixels),
        *four(2, 20, area=0.0199 * pixels),
        unlabelled(person(30, 3), 8),
        unlabelled(person(31, 3), 7),
        *(person(32 + i, 3) for i in range(2)),
        *(person(40 + i, 4) for i in range(3)),  # two others, and a crowd
        crowd(4),
    ]
    content, summary, output = run(monkeypatch, write_people(tmp_path, people))
    assert written(content) == [10, 11, 12, 13, 21, 22, 23, 30, 32, 33]
    assert reasons(summary) == {
        "person: a crowd region": 1,
        "person: area below 2 % of the image": 1,
        "person: fewer than 3 other people in the image": 3,
        "person: fewer than 8 labelled keypoints": 1,
    }
    assert summary["written"] == {"images": 3, "people": 10, "pairs": 10}
    # Everybody in those images, also who was not taken
    assert sorted(p["person_id"] for p in content["people"]) == [
        *(10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33)
    ]
    assert len(load(output, tmp_path, prompts=("point", "scribble"))) == 10


def test_the_papers_validation_people(tmp_path, monkeypatch):
    """A labelled keypoint, 1 % of the image."""
    pixels = SIZE[0] * SIZE[1]
    people = [
        unlabelled(person(1, 1, area=0.01 * pixels), 1),
        unlabelled(person(2, 1), 0),
        person(3, 2, area=0.0099 * pixels),
    ]
    content, _, _ = run(monkeypatch, write_people(tmp_path, people), split="val")
    assert written(content) == [1]


@pytest.mark.parametrize(
    ("option", "number"), [("--surrounding", 2), ("--keypoints", 7), ("--area", 0.001)]
)
def test_every_rule_is_an_option(tmp_path, monkeypatch, option, number):
    people = [*four(1, 10, area=10.0), *(person(20 + i, 2) for i in range(3))]
    people += [unlabelled(person(30, 3), 7), *(person(31 + i, 3) for i in range(3))]
    file = write_people(tmp_path, people)
    before, _, _ = run(monkeypatch, file)
    after, _, _ = run(monkeypatch, file, option, number)
    more = {"--surrounding": {20, 21, 22}, "--keypoints": {30}, "--area": {10}}[option]
    assert set(written(after)) == set(written(before)) | more
    everybody, _, _ = run(monkeypatch, file, "--everybody")
    assert len(written(everybody)) == 11


def test_validation_images_are_kept_out(tmp_path, monkeypatch, capsys):
    """By the file beside that is called val, or by those that are named, in any form."""
    file = write_people(tmp_path, [*four(1, 10), *four(2, 20)], "people_train.json")
    write_people(tmp_path, [person(5, 1)], "people_val.json")
    content, summary, output = run(monkeypatch, file)
    assert written(content) == [20, 21, 22, 23]
    assert reasons(summary) == {"person: of an excluded image": 4}
    assert "people_val.json are excluded" in capsys.readouterr().out
    # A RefHuman file numbers its pairs anew: images are told apart by their names.
    second = write_people(tmp_path, four(2, 20), "second.json")
    _, _, refhuman = run(monkeypatch, second, output="refhuman.json")
    content, _, _ = run(monkeypatch, file, "--exclude", refhuman)
    assert written(content) == [10, 11, 12, 13]
    assert [a["id"] for a in json.loads(refhuman.read_text())["images"]] == [1, 2, 3, 4]


# --- what they are called ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2])
def test_references_of_python_2(tmp_path, monkeypatch, protocol):
    """People besides the rules, sentences of all files once, and every reason for leaving out."""
    people = [*four(1, 10), person(20, 2), unlabelled(person(21, 2), 0), person(30, 3)]
    file = write_people(tmp_path, people, "people_train.json")
    write_people(tmp_path, [person(1, 9), person(30, 3)], "people_val.json")
    entries = [
        reference(1, 10, 1, "man in white", "left caf\xe9 guy", split="testA"),
        reference(2, 20, 2, "woman", "woman"),
        reference(3, 21, 2, "nobody can see him"),
        reference(4, 30, 3, "in validation"),
        reference(5, 77, 2, "unknown person"),
        reference(6, 50, 88, "unknown image"),
        reference(7, 60, 2, "a dog", category_id=18),
        reference(8, 11, 2, "of another image"),
        reference(9, 12, 1, "  "),
    ]
    refs = write_refs(tmp_path / "refcoco", entries, protocol=protocol)
    more = [reference(1, 10, 1, "man in white", "number 10")]
    more_refs = write_refs(tmp_path / "refcocog", more, "refs(umd).p", protocol)
    content, summary, output = run(monkeypatch, file, "--refs", refs, more_refs)
    pairs = zip(content["annotations"], content["images"], strict=True)
    assert [(a["person_id"], image["caption"]) for a, image in pairs] == [
        (10, "man in white"),
        (10, "left caf\xe9 guy"),
        (10, "number 10"),
        (20, "woman"),
    ]
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4]
    assert [image["file_name"] for image in content["images"]][-1] == "000000000002.jpg"
    assert reasons(summary) == {
        "expression: empty": 1,
        "person: fewer than 1 labelled keypoints": 1,
        "person: of an excluded image": 1,
        "person: without text": 3,
        "reference: its person is in another image": 1,
        "reference: not of a person": 1,
        "reference: of an excluded image": 1,
        "reference: people_train.json does not have its image": 1,
        "reference: people_train.json has no such person": 1,
    }
    assert (
        "88" in summary["left_out"]["reference: people_train.json does not have its image"]["ids"]
    )
    assert len(load(output, tmp_path)) == 4  # with all kinds of prompt
    content, _, _ = run(monkeypatch, file, "--refs", refs, "--ref_splits", "testA")
    assert written(content) == [10]
    # In validation references give texts and nobody besides.
    content, _, _ = run(monkeypatch, file, "--refs", refs, "--surrounding", 3, split="val")
    assert written(content) == [10]
    content, _, _ = run(monkeypatch, file, "--refs", refs, "--keep_without_text")
    assert written(content) == [10, 11, 12, 13, 20]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_references_of_python_3(tmp_path, protocol):
    entries = [reference(1, 10, 1, "a man", "caf\xe9 guy"), reference(2, 2**40, 2, "b")]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(entries, protocol))
    first, second = read_refs(tmp_path / "refs(unc).p")
    assert first.sentences == ("a man", "caf\xe9 guy") and second.annotation_id == 2**40


class Hostile:
    """Would make a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_by_name_and_not_run(tmp_path, monkeypatch, capsys, protocol):
    entries = [reference(1, 10, 1, "a"), Hostile(tmp_path / "hacked")]
    file = tmp_path / "refs(unc).p"
    file.write_bytes(pickle.dumps(entries, protocol))
    run(monkeypatch, write_people(tmp_path, four(1, 10)), "--refs", tmp_path, status=2)
    error = capsys.readouterr().err
    assert "refs(unc).p wants to run" in error and ".mkdir" in error
    assert not (tmp_path / "hacked").exists() and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a pickled list"),
        (b"(lp1\n", "cannot be read as a pickled list"),
        (b"garbage", "cannot be read as a pickled list"),
        (pickle.dumps({"a": 1}), "expected a pickled list of references"),
        (pickle.dumps([3]), "entry 0 has to be a dict, got 3"),
        (pickle.dumps([{**reference(1, 2, 3, "a"), "ann_id": "2"}]), "'ann_id' has to be an int"),
        (pickle.dumps([{**reference(1, 2, 3, "a"), "split": None}]), "'split' has to be a text"),
        (pickle.dumps([{**reference(1, 2, 3), "sentences": 5}]), "'sentences' has to be"),
        (pickle.dumps([{**reference(1, 2, 3), "sentences": ["a"]}]), "'sentences' has to be"),
        (b"cos\nsystem\n.", r"wants to run os.system"),
        (b"Pabc\n.", "asks for the outside object 'abc'"),
    ],
)
def test_broken_references(tmp_path, content, words):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(UserError, match=words):
        list(read_refs(tmp_path / "refs.p"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'annotation_id,caption\n1,a man\n2,"b, c"\n1,a boy\n'),
        ("a.csv", '\ufeff1,a man\r\n\r\n2,"b, c"\r\n1,a boy'),
        ("a.json", '[[1, "a man"], ["2", "b, c"], [1, "a boy"]]'),
        ("a.json", '{"1": ["a man", "a boy"], "2": "b, c"}'),
    ],
)
def test_captions_of_every_form(tmp_path, monkeypatch, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert sorted(read_captions(tmp_path / name)) == [(1, "a boy"), (1, "a man"), (2, "b, c")]
    file = write_people(tmp_path, [person(1, 1), person(2, 1, left=50.0)])
    content, _, _ = run(monkeypatch, file, "--captions", tmp_path / name, split="val")
    assert [image["caption"] for image in content["images"]] == ["a man", "a boy", "b, c"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "id,caption\n1,a,b\n", "line 2: expected an annotation id and a caption"),
        ("a.csv", "1,a\nx,b\n", "line 2"),
        ("a.csv", "1\n", "line 1"),
        ("a.csv", '1,"a\n', "is not a CSV"),
        ("a.csv", "1,\xff", "is not a CSV in UTF-8"),
        ("a.json", "3", "expected a list or an object"),
        ("a.json", '[[1, "a"], [1]]', "entry 1: expected"),
        ("a.json", '{"x": "a"}', "entry 0: expected"),
        ("a.json", "[[1, 2]]", "entry 0: expected"),
        ("a.txt", "", "ends in .csv or .json"),
    ],
)
def test_broken_captions(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=words):
        read_captions(tmp_path / name)


def test_odd_captions():
    assert cleaned_caption(" two\tlines\n\x00of\u00a0it ") == "two lines of it"
    assert cleaned_caption("cafe\u0301 \U0001f600") == "caf\u00e9 \U0001f600"
    for text in ("", " \n", "\x07", "\u200b"):
        with pytest.raises(ValueError, match="empty"):
            cleaned_caption(text)
    with pytest.raises(ValueError, match="half a character"):
        cleaned_caption("\ud800")


# --- scribbles -----------------------------------------------------------------------------------


def test_scribbles_follow_from_seed_and_id_alone(tmp_path, monkeypatch):
    people = [person(i + 1, i // 4 + 1, left=5.0 + 15 * (i % 4)) for i in range(24)]
    file = write_people(tmp_path, people)
    monkeypatch.setattr(building, "PART_SIZE", 5)
    content, _, output = run(monkeypatch, file)
    alone = output.read_bytes()
    run(monkeypatch, file, output="two.json", workers=2)
    assert (tmp_path / "two.json").read_bytes() == alone
    other, _, _ = run(monkeypatch, file, "--seed", 1)
    ours = {a["person_id"]: a["scribble"] for a in content["annotations"]}
    assert all(a["scribble"] != ours[a["person_id"]] for a in other["annotations"])
    # Neither do they depend on who else is there.
    fewer, _, _ = run(monkeypatch, write_people(tmp_path, people[4:8]))
    assert all(a["scribble"] == ours[a["person_id"]] for a in fewer["annotations"])
    for annotation in content["annotations"]:
        points = np.array(annotation["scribble"]).reshape(5, 12, 2)
        code = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], *SIZE))
        assert coco_mask.decode(code)[points[..., 1], points[..., 0]].all()
        assert len({scribble.tobytes() for scribble in points}) > 1


def random_shapes():
    """Masks as annotators leave them, and worse: blobs, lines, dust, rings, torn ones."""
    generator = np.random.default_rng(7)
    for number in range(120):
        height, width = generator.integers(1, 90, 2)
        canvas = np.zeros((height, width), dtype=np.uint8)
        kind = number % 6

        def point(height=height, width=width):
            return int(generator.integers(width)), int(generator.integers(height))

        if kind == 0:  # thin lines
            for _ in range(generator.integers(1, 5)):
                cv2.line(canvas, point(), point(), 1, 1)
        elif kind == 1:  # a few pixels
            canvas.ravel()[generator.integers(canvas.size, size=generator.integers(1, 5))] = 1
        elif kind == 2:  # dust
            canvas[:] = generator.random(canvas.shape) < 0.05
        elif kind == 3:  # polygons that cross themselves
            corners = np.array([point() for _ in range(8)])
            cv2.fillPoly(canvas, [corners], 1)
        elif kind == 4:  # rings
            cv2.circle(canvas, point(), int(generator.integers(1, 40)), 1, 2)
        else:  # torn by stripes of what is in front
            canvas[:] = 1
            canvas[:: int(generator.integers(2, 6))] = 0
            canvas[:, :: int(generator.integers(2, 6))] = 0
        canvas.ravel()[generator.integers(canvas.size)] = 1
        yield canvas > 0


def test_every_point_lies_in_its_mask():
    for number, mask in enumerate(random_shapes()):
        points = draw_scribbles(mask, np.random.default_rng(number), 5).astype(int)
        assert points.shape == (5, 12, 2)
        assert mask[points[..., 1], points[..., 0]].all(), number


# --- bad input -----------------------------------------------------------------------------------


def test_broken_people_are_left_out_by_id_and_the_rest_loads(tmp_path, monkeypatch):
    height, width = SIZE
    flat = [10.0, 10.0, 20.0, 10.0, 30.0, 10.0]
    rle = {"size": [height, width], "counts": [60 * 10, 60 * 5, 60 * 85]}
    torn = {"size": [height, width], "counts": [60 * 10, 60 * 5]}
    people = [
        person(1, 1),
        person(2, 1, segmentation=rle, bbox=[10, 0, 5, 60], area=300),
        person(3, 1, segmentation=[flat]),
        person(4, 1, segmentation=[]),
        person(5, 1, segmentation=torn),
        person(6, 1, segmentation=[[1.0, 2.0, 3.0, 4.0]]),
        person(7, 1, bbox=[5, 5, -1, 5]),
        person(8, 1, keypoints=[1, 2, 2]),
        person(9, 1, keypoints=None),
        person(10, 1, bbox=[0, 0, 0, 0], area=0),
        person("x", 1),
        person(1, 1, left=40.0),
        crowd(1),
    ]
    file = write_people(tmp_path, people)
    content = json.loads(file.read_text())
    content["annotations"].append(person(11, 77))
    file.write_text(json.dumps(content))
    content, summary, output = run(monkeypatch, file, "--everybody")
    assert written(content) == [1, 2, 10]
    left_out = summary["left_out"]
    assert set(left_out["person: has no mask"]["ids"]) == {"4"}
    broken = left_out["person: broken"]["ids"]
    assert set(broken) == {"3", "5", "6", "7", "8"}
    assert "polygon 0 of 'segmentation' is broken" in broken["6"]
    assert "runs add up to" in broken["5"]
    assert set(left_out["person: without whole keypoints"]["ids"]) == {"9"}
    assert set(left_out["person: without an integer id"]["ids"]) == {"'x'"}
    assert set(left_out["person: id occurs twice; the first one counts"]["ids"]) == {"1"}
    assert set(left_out["person: of an image that 'images' does not have"]["ids"]) == {"11"}
    dataset = load(output, tmp_path, prompts=("scribble",))
    assert len(dataset) == 3
    # What a tool exported as zeros is the mask's.
    tenth = next(a for a in content["annotations"] if a["person_id"] == 10)
    assert tenth["area"] > 800 and tenth["bbox"][2] > 30
    content, _, output = run(monkeypatch, file, "--everybody", "--box_masks")
    assert written(content) == [1, 2, 4, 10]
    assert len(load(output, tmp_path, prompts=("scribble",))) == 4


def test_images_of_every_kind(tmp_path, monkeypatch):
    """Grey, CMYK, 16 bits and turned by EXIF are used; broken, missing, of another size are not."""
    height, width = SIZE
    file = write_people(tmp_path, [person(i, i) for i in range(1, 9)])
    images = tmp_path / "images"
    content = json.loads(file.read_text())
    for entry, suffix in zip(content["images"], [*["jpg"] * 2, "png", *["jpg"] * 5], strict=True):
        entry["file_name"] = f"{entry['id']}.{suffix}"
    file.write_text(json.dumps(content))
    grey = np.full((height, width), 100, dtype=np.uint8)
    Image.fromarray(grey).save(images / "1.jpg")
    Image.fromarray(grey).convert("CMYK").save(images / "2.jpg")
    Image.fromarray(grey.astype(np.uint16) * 257).save(images / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey.T.copy()).save(images / "4.jpg", exif=exif)
    (images / "5.jpg").write_bytes((images / "1.jpg").read_bytes()[:300])
    (images / "6.jpg").write_bytes(b"")
    Image.fromarray(grey[:30]).save(images / "7.jpg")
    content, summary, output = run(monkeypatch, file, split="val")
    assert written(content) == [1, 2, 3, 4]
    unusable = summary["left_out"]["image: cannot be used"]["ids"]
    assert set(unusable) == {"5", "6", "7", "8"}
    assert "is empty" in unusable["6"] and "does not exist" in unusable["8"]
    assert "100x30 pixels" in unusable["7"]
    assert reasons(summary)["person: of an image that cannot be used"] == 4
    dataset = load(output, tmp_path, prompts=("point",))
    assert [dataset[i].image.shape[-2:] for i in range(4)] == [SIZE] * 4


def test_nobody_is_left(tmp_path, monkeypatch, capsys):
    file = write_people(tmp_path, [person(1, 1)])
    run(monkeypatch, file, status=2)
    error = capsys.readouterr().err
    assert "1 x person: fewer than 3 other people" in error and "--everybody" in error
    assert not (tmp_path / "out.json").exists()
    run(monkeypatch, file, "--everybody")  # as the message says; nothing is in its way


# --- interruptions -------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    people = [person(i + 1, i // 4 + 1, left=5.0 + 15 * (i % 4)) for i in range(24)]
    file = write_people(tmp_path, people)
    monkeypatch.setattr(building, "PART_SIZE", 5)
    _, _, output = run(monkeypatch, file, output="whole.json")
    make, made = building.make_people, []

    def make_two(part):
        if len(made) == 2:
            raise OSError(28, "No space left on device", str(part.file))
        made.append(part)
        return make(part)

    monkeypatch.setattr(building, "make_people", make_two)
    _, _, resumed = run(monkeypatch, file, status=2)
    parts = tmp_path / "out.json.parts"
    assert not resumed.exists() and len(list(parts.glob("people_*"))) == 2
    (parts / ".77.people_000002.jsonl").write_text("half")  # of a process that was killed
    run(monkeypatch, file, "--seed", 1, status=2)  # is not mixed with another seed
    assert len(list(parts.glob("people_*"))) == 2
    again = []
    monkeypatch.setattr(building, "make_people", lambda part: again.append(part) or make(part))
    run(monkeypatch, file)
    assert len(again) == 3 and not parts.exists()
    assert resumed.read_bytes() == output.read_bytes()


def test_a_worker_that_is_killed():
    with pytest.raises(UserError, match="lower --workers"):
        list(in_order(_die, [3], 2))


def _die(task):
    os._exit(1)


# --- reading ---


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r" + (2**28).to_bytes(4, "little") + b".",  # a number of the memo
        b"\x80\x05\x96" + (2**28).to_bytes(8, "little") + b".",  # the length of a bytearray
        b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",  # of bytes
    ],
)
def test_a_pickle_gets_no_more_memory_than_it_fills(tmp_path, content):
    file = tmp_path / "refs(unc).p"
    file.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(UserError):
        assert list(read_refs(file)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_exports_of_annotation_tools(tmp_path, monkeypatch):
    """Another category number, keypoints by other names in another order, paths of elsewhere."""
    height, width = SIZE
    names = build_refhuman.SKELETONS["coco"].names
    order = np.random.default_rng(0).permutation(17)
    annotation = person(0, 0, category_id=0)
    keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
    annotation["keypoints"] = keypoints[order].ravel().tolist()
    tools_names = [names[i].replace("_", " ").title() for i in order]
    categories = [
        {"id": 0, "name": "Person", "keypoints": tools_names},
        {"id": 4, "name": "dog"},
    ]
    file = write_people(tmp_path, [annotation, person(5, 0, category_id=4)], categories=categories)
    content = json.loads(file.read_text())
    content["images"] = [
        {"id": 0, "file_name": "..\\..\\upload\\1\\a.png", "height": 60.0, "width": 100}
    ]
    file.write_text(json.dumps(content))
    write_images(tmp_path / "images", ["a.png"])
    content, summary, _ = run(monkeypatch, file, "--everybody")
    assert np.array_equal(
        np.array(content["annotations"][0]["keypoints"]).reshape(17, 3), keypoints
    )
    assert content["images"][0]["file_name"] == "a.png"
    assert reasons(summary) == {"annotation: not of a person": 1}
    categories[0]["name"], categories[1]["keypoints"] = "who", ["nose"]
    write_people(tmp_path, [annotation], categories=categories)
    run(monkeypatch, file, "--everybody", status=2)
