"""tools/check_refhuman.py: every planted defect is found, sound data have none, copies load."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_refhuman
import dataset_stats
import make_synthetic
import numpy as np
import pytest
from checking import shapes
from checking.cleaning import write_cleaned
from checking.content import ContentCheck
from checking.defects import KINDS
from checking.reading import AnnotationFile
from checking.shapes import distances
from conftest import write_coco, write_refhuman
from PIL import Image

from datasets import json_stream
from datasets.coco import CocoKeypoints
from datasets.refhuman import RefHuman
from datasets.skeleton import COCO
from datasets.transforms import keep_size
from util.errors import UserError

Content = dict[str, Any]

WIDTH, HEIGHT = 128, 96


def run(monkeypatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["check_refhuman.py", *map(str, arguments)])
    return check_refhuman.main()


def refhuman_file(folder: Path, change: Callable[[Content], Any] = lambda content: None) -> Path:
    """Six sound pairs of three images: the spoilt second one is of train_000.jpg."""

    def both(content: Content, split: str) -> None:
        fill_boxes(content)
        change(content)

    write_refhuman(folder, pairs={"train": 6}, change=both)
    return folder / "RefHuman_train.json"


def fill_boxes(content: Content) -> None:
    """Masks with all of the person's keypoints: as wide as the box, which ours are not."""
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotation["area"] = w * h


def check(monkeypatch, tmp_path: Path, file: Path, images: Path) -> tuple[int, Content]:
    """Exit status and JSON report."""
    report = tmp_path / "report.json"
    status = run(monkeypatch, file, "--images", images, "--json", report, "--workers", 1)
    return status, json.loads(report.read_text())


def set_annotation(**values: Any) -> Callable[[Content], None]:
    return lambda content: content["annotations"][1].update(values)


def set_image(**values: Any) -> Callable[[Content], None]:
    return lambda content: content["images"][1].update(values)


def moved_keypoint(x: float, y: float) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["annotations"][1]["keypoints"][:3] = [x, y, 2]

    return change


def exchange_masks(content: Content) -> None:
    first, second = content["annotations"][:2]
    first["segmentation"], second["segmentation"] = second["segmentation"], first["segmentation"]


def add_annotation(content: Content) -> None:
    content["annotations"].append({**content["annotations"][1], "id": 99})


def list_people(content: Content) -> None:
    content["people"] = [
        {**annotation, "file_name": image["file_name"]}
        for image, annotation in zip(content["images"], content["annotations"], strict=True)
    ]


def list_others(content: Content) -> None:
    list_people(content)
    del content["people"][1]


def list_broken(content: Content) -> None:
    list_people(content)
    content["people"].append({"file_name": "train_000.jpg", "bbox": [1, 2]})


# name -> (kinds that are found, ids of the image entries concerned, change)
PLANTED: dict[str, tuple[set[str], set[int | None], Callable[[Content], Any]]] = {
    "image entry without a name": ({"image_entry"}, {2}, set_image(file_name="")),
    "image id twice": ({"image_id", "annotation_entry"}, {1, 2}, set_image(id=1)),
    "sizes that differ": ({"image_sizes"}, {2}, set_image(width=120)),
    "annotation of nobody's image": (
        {"annotation_entry", "pair"},
        {77, 2},
        set_annotation(image_id=77),
    ),
    "annotation id twice": ({"annotation_id"}, {2}, set_annotation(id=1)),
    "two people in a pair": ({"pair"}, {2}, add_annotation),
    "nobody in a pair": ({"pair"}, {2}, lambda content: content["annotations"].pop(1)),
    "another category": ({"person"}, {2}, set_annotation(category_id=3)),
    "a crowd": ({"person"}, {2}, set_annotation(iscrowd=1)),
    "broken box": ({"bbox"}, {2}, set_annotation(bbox=[70, 10, -5, 76])),
    "broken area": ({"area"}, {2}, set_annotation(area=0)),
    "keypoints of another skeleton": ({"keypoints"}, {2}, set_annotation(keypoints=[0] * 42)),
    "broken polygon": ({"segmentation"}, {2}, set_annotation(segmentation=[[1, 2, 3]])),
    "broken RLE": (
        {"segmentation"},
        {2},
        set_annotation(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 6]}),
    ),
    "polygon without an area": (
        {"segmentation"},
        {2},
        set_annotation(segmentation=[[80, 40, 80, 40, 80, 40]]),
    ),
    "no segmentation": (
        {"segmentation"},
        {2},
        lambda content: content["annotations"][1].pop("segmentation"),
    ),
    "scribble of 11 points": ({"scribble"}, {2}, set_annotation(scribble=[80, 40] * 11)),
    "caption a number": ({"caption"}, {2}, set_image(caption=5)),
    "caption with half a letter": ({"caption"}, {2}, set_image(caption="a \ud83d man")),
    "caption invisible": ({"caption"}, {2}, set_image(caption="\u200b \u200e")),
    "caption blank": ({"prompt"}, {2}, set_image(caption=" \n")),
    "no scribble": ({"prompt"}, {2}, set_annotation(scribble=[])),
    "the same sentence": (
        {"same_sentence"},
        {2},
        set_image(caption="The  person on the LEFT side"),
    ),
    "the same sentence, written otherwise": (
        {"same_sentence"},
        {2},
        lambda content: (
            content["images"][0].update(caption="the man at the caf\u00e9"),
            content["images"][1].update(caption="the man at the cafe\u0301\u200b"),
        ),
    ),
    "people broken": ({"people"}, {None}, list_broken),
    "people no list": ({"people"}, {None}, lambda content: content.update(people={"a": 1})),
    "people incomplete": ({"people_lack"}, {2}, list_others),
    "wrong num_keypoints": ({"num_keypoints"}, {2}, set_annotation(num_keypoints=3)),
    "keypoint outside": ({"keypoints_outside"}, {2}, moved_keypoint(140, 20)),
    "keypoint in no mask": ({"keypoints_off_mask"}, {2}, moved_keypoint(5, 90)),
    "scribble beside": ({"scribble_off_mask"}, {2}, set_annotation(scribble=[5, 40] * 60)),
    "one point beside": (
        {"scribble_off_mask"},
        {2},
        set_annotation(scribble=[94, 48] * 59 + [50, 10]),
    ),
    "box of another": ({"box_off_mask"}, {2}, set_annotation(bbox=[71.68, 9.6, 20, 76.8])),
    "area of another": ({"area_off_mask"}, {2}, set_annotation(area=900)),
    "masks exchanged": (
        {"box_off_mask", "keypoints_off_mask", "scribble_off_mask"},
        {1, 2},
        exchange_masks,
    ),
    "image absent": ({"image_missing"}, {1}, lambda c: rename_all(c, "absent.jpg")),
}


def rename_all(content: Content, name: str) -> None:
    for image in content["images"][:2]:
        image["file_name"] = name


@pytest.mark.parametrize("name", PLANTED)
def test_planted_defects_are_found(monkeypatch, tmp_path, name):
    kinds, image_ids, change = PLANTED[name]
    file = refhuman_file(tmp_path / "data", change)
    status, report = check(monkeypatch, tmp_path, file, tmp_path / "data" / "images")
    assert status == 1
    assert set(report["counts"]) == kinds
    assert {defect["image_id"] for defect in report["defects"]} == image_ids
    assert report["form"] == "RefHuman"

    # The copy has none, and has everybody else.
    fixed = tmp_path / "fixed.json"
    images = tmp_path / "data" / "images"
    assert run(monkeypatch, file, "--images", images, "--fix", fixed, "--workers", 1) == 1
    assert run(monkeypatch, fixed, "--images", images, "--workers", 1) == 0
    kept = {image["id"] for image in json.loads(fixed.read_text())["images"]}
    assert {3, 4, 5, 6} <= kept
    assert not kept & (image_ids - {1})


def spoil_image(name: str, folder: Path) -> None:
    path = folder / "images" / "train_000.jpg"
    if name == "image_unreadable":
        path.write_bytes(path.read_bytes()[:700])
    elif name == "image_size":
        Image.open(path).resize((64, 48)).save(path)
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["image_unreadable", "image_size", "image_missing"])
def test_defects_of_images_are_found(monkeypatch, tmp_path, kind):
    file = refhuman_file(tmp_path / "data")
    spoil_image(kind, tmp_path / "data")
    status, report = check(monkeypatch, tmp_path, file, tmp_path / "data" / "images")
    assert (status, report["counts"]) == (1, {kind: 1})
    assert report["defects"][0]["image_id"] == 1
    fixed = tmp_path / "fixed.json"
    images = tmp_path / "data" / "images"
    assert run(monkeypatch, file, "--images", images, "--fix", fixed, "--workers", 1) == 1
    assert [image["id"] for image in json.loads(fixed.read_text())["images"]] == [3, 4, 5, 6]


def test_images_turned_by_exif(monkeypatch, tmp_path):
    """Fits as it is stored or as a viewer shows it, as in training; nothing else does."""
    file = refhuman_file(tmp_path / "data")
    path = tmp_path / "data" / "images" / "train_000.jpg"
    turned = Image.open(path).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(path, exif=exif)
    images = tmp_path / "data" / "images"
    assert check(monkeypatch, tmp_path, file, images)[0] == 0
    turned.save(path)
    assert check(monkeypatch, tmp_path, file, images)[1]["counts"] == {"image_size": 1}


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "P", "LA"])
def test_images_of_every_common_kind_are_sound(monkeypatch, tmp_path, mode):
    file = refhuman_file(tmp_path / "data")
    images = tmp_path / "data" / "images"
    form = {"CMYK": "JPEG"}.get(mode, "PNG")
    if mode == "I;16":
        image = Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, dtype=np.uint16))
    else:
        image = Image.open(images / "train_000.jpg").convert(mode)
    image.save(images / "train_000.jpg", format=form)
    assert check(monkeypatch, tmp_path, file, images)[0] == 0


def test_several_processes_find_the_same(monkeypatch, tmp_path):
    write_refhuman(
        tmp_path / "data", pairs={"train": 80}, change=lambda content, split: fill_boxes(content)
    )
    file, images = tmp_path / "data" / "RefHuman_train.json", tmp_path / "data" / "images"
    content = json.loads(file.read_text())
    for number in (1, 40, 79):
        content["annotations"][number]["area"] = 5
    file.write_text(json.dumps(content))
    reports = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.json"
        options = ("--images", images, "--json", output, "--workers", workers)
        assert run(monkeypatch, file, *options) == 1
        reports.append(output.read_text())
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["counts"] == {"area_off_mask": 3}


def test_the_text_groups_by_kind(monkeypatch, tmp_path, capsys):
    def change(content: Content) -> None:
        for annotation in content["annotations"]:
            annotation["num_keypoints"] = 3
        set_annotation(area=900)(content)

    file = refhuman_file(tmp_path / "data", change)
    assert run(monkeypatch, file, "--images", tmp_path / "data" / "images", "--workers", 1) == 1
    text = capsys.readouterr().out
    assert "num_keypoints: 6 ('num_keypoints' that are not" in text
    assert "  image ids 1, 2, 3, 4, 5, 6\n" in text
    assert "area_off_mask: 1 (" in text and text.endswith("7 defects\n")


@pytest.mark.parametrize("lacking", ["caption", "scribble"])
def test_a_file_without_text_or_scribbles_is_sound(monkeypatch, tmp_path, lacking):
    def change(content: Content) -> None:
        for entry in (*content["images"], *content["annotations"]):
            entry.pop(lacking, None)

    file = refhuman_file(tmp_path / "data", change)
    assert check(monkeypatch, tmp_path, file, tmp_path / "data" / "images")[0] == 0


# name -> (kinds that are found in COCO's form, change of annotation 1 or of the content)
COCO_PLANTED: dict[str, tuple[set[str], Callable[[Content], Any]]] = {
    "crowd as text": ({"person"}, lambda c: c["annotations"][0].update(iscrowd="yes")),
    "no segmentation": ({"segmentation"}, lambda c: c["annotations"][0].update(segmentation=[])),
    "annotation id twice": ({"annotation_id"}, lambda c: c["annotations"][0].update(id=2)),
    "image of nobody": ({"annotation_entry"}, lambda c: c["annotations"][0].update(image_id=9)),
    "wrong number": ({"num_keypoints"}, lambda c: c["annotations"][0].update(num_keypoints=0)),
    "area": ({"area_off_mask"}, lambda c: c["annotations"][0].update(area=9)),
}


def coco_file(folder: Path, change: Callable[[Content], Any]) -> Path:
    def both(content: Content, split: str) -> None:
        fill_boxes(content)
        del content["annotations"][5]  # a box without a width, a defect of its own
        change(content)

    write_coco(folder, change=both)
    return folder / "annotations" / "person_keypoints_val2017.json"


@pytest.mark.parametrize("name", COCO_PLANTED)
def test_coco_files(monkeypatch, tmp_path, name):
    kinds, change = COCO_PLANTED[name]
    images = tmp_path / "images" / "val2017"
    file = coco_file(tmp_path, lambda content: None)
    status, report = check(monkeypatch, tmp_path, file, images)
    assert (status, report["form"], report["counts"]) == (0, "COCO keypoints", {})

    file = coco_file(tmp_path, change)
    status, report = check(monkeypatch, tmp_path, file, images)
    assert status == 1 and set(report["counts"]) == kinds

    fixed = tmp_path / "fixed.json"
    assert run(monkeypatch, file, "--images", images, "--fix", fixed, "--workers", 1) == 1
    data = CocoKeypoints(images, fixed, keep_size, training=False, with_masks=True)
    assert len(data) == 4  # of an image the other people stay
    assert len(data.ground_truth()["annotations"]) == 5


def test_a_flat_box_is_found_in_coco(monkeypatch, tmp_path):
    write_coco(tmp_path, change=lambda content, split: fill_boxes(content))
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    report = check(monkeypatch, tmp_path, file, tmp_path / "images" / "val2017")[1]
    assert report["counts"] == {"bbox": 1, "area": 1, "segmentation": 1}
    assert {defect["annotation_id"] for defect in report["defects"]} == {6}


def test_every_kind_is_planted():
    planted = {kind for kinds, _, _ in PLANTED.values() for kind in kinds}
    assert planted | {"image_unreadable", "image_size"} == set(KINDS)


def test_nothing_is_written_where_nothing_would_be_left(monkeypatch, tmp_path, capsys):
    def change(content: Content) -> None:
        for annotation in content["annotations"]:
            annotation["area"] = 0

    file = refhuman_file(tmp_path / "data", change)
    fixed = tmp_path / "fixed.json"
    fixed.write_text("mine")
    options = ("--images", tmp_path / "data" / "images", "--fix", fixed, "--workers", 1)
    assert run(monkeypatch, file, *options) == 2
    assert "nothing of" in capsys.readouterr().err
    assert fixed.read_text() == "mine"


def test_what_is_left_out_is_said(monkeypatch, tmp_path, capsys):
    file = refhuman_file(tmp_path / "data", set_annotation(area=0))
    fixed, report = tmp_path / "fixed.json", tmp_path / "report.json"
    images = tmp_path / "data" / "images"
    run(monkeypatch, file, "--images", images, "--fix", fixed, "--json", report, "--workers", 1)
    text = capsys.readouterr().out
    assert "Left out of 'images': 1 of 6: 2\n" in text
    assert "Left out of 'annotations': 1 of 6: 2\n" in text
    assert json.loads(report.read_text())["left_out"] == [
        "Left out of 'images': 1 of 6: 2",
        "Left out of 'annotations': 1 of 6: 2",
    ]
    assert len(RefHuman(images, fixed, keep_size, training=False)) == 5


def test_a_copy_of_a_sound_file_is_the_same(monkeypatch, tmp_path):
    file = refhuman_file(tmp_path / "data", lambda c: (list_people(c), c.update(info={"a": [1]})))
    fixed = tmp_path / "fixed.json"
    images = tmp_path / "data" / "images"
    assert run(monkeypatch, file, "--images", images, "--fix", fixed, "--workers", 1) == 0
    assert json.loads(fixed.read_text()) == json.loads(file.read_text())


def test_a_list_of_annotations_before_the_images(monkeypatch, tmp_path):
    file = refhuman_file(tmp_path / "data", lambda c: (list_people(c), set_annotation(area=5)(c)))
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items()))))
    fixed, images = tmp_path / "fixed.json", tmp_path / "data" / "images"
    assert check(monkeypatch, tmp_path, file, images)[1]["counts"] == {"area_off_mask": 1}
    assert run(monkeypatch, file, "--images", images, "--fix", fixed, "--workers", 1) == 1
    kept = json.loads(fixed.read_text())
    assert list(kept) == list(reversed(content))
    assert [image["id"] for image in kept["images"]] == [1, 3, 4, 5, 6]


def test_captions_of_a_person_far_apart_share_what_is_found(monkeypatch, tmp_path):
    """Each is told, also where the first of them was checked long before."""
    monkeypatch.setattr(shapes, "_SHAPES_AT_A_TIME", 1)
    drawn = []
    decode = shapes.coco_mask.decode
    monkeypatch.setattr(shapes.coco_mask, "decode", lambda code: drawn.append(0) or decode(code))

    def change(content: Content) -> None:
        for sort in ("images", "annotations"):
            first, second = content[sort][0], content[sort][2]
            changes = {"id": 7, "caption": "he"} if sort == "images" else {"id": 7, "image_id": 7}
            content[sort].append({**first, **changes})
            changes = {"id": 8, "caption": "she"} if sort == "images" else {"id": 8, "image_id": 8}
            content[sort].append({**second, **changes})
        content["annotations"][2]["area"] = content["annotations"][7]["area"] = 9.0

    file = refhuman_file(tmp_path / "data", change)
    report = check(monkeypatch, tmp_path, file, tmp_path / "data" / "images")[1]
    assert [defect["image_id"] for defect in report["defects"]] == [3, 8]
    assert len(drawn) == 7  # of eight, one was drawn before and had no defect


def test_memory_does_not_grow_with_what_entries_hold(tmp_path, monkeypatch):
    """Neither check nor copy nor statistics hold them."""
    monkeypatch.setattr(json_stream, "_CHUNK", 10_000)

    def change(content: Content, split: str) -> None:
        fill_boxes(content)
        for annotation in content["annotations"]:
            annotation["note"] = "x" * 30_000
        content["annotations"][3]["area"] = -1

    write_refhuman(tmp_path / "data", pairs={"train": 100}, change=change)
    file = tmp_path / "data" / "RefHuman_train.json"
    tracemalloc.start()
    try:
        checked = ContentCheck(AnnotationFile(file), COCO)
        checked.read_images()
        assert sum(1 for _ in checked.shapes()) == 100
        write_cleaned(checked, checked.findings.defects, tmp_path / "fixed.json")
        with pytest.raises(UserError, match="'area'"):
            dataset_stats.count(AnnotationFile(file), COCO)
        assert dataset_stats.count(AnnotationFile(tmp_path / "fixed.json"), COCO).pairs == 99
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 < file.stat().st_size / 2
    finally:
        tracemalloc.stop()


def test_distances():
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[4, 5] = 1
    points = np.array([(5, 4), (4.6, 3.6), (8, 4), (5.9, 4.9), (2, 0), (5, 12)])
    assert np.allclose(distances(mask, points), [0, 0, 3, 0, 5, 5 + 3])


SYNTHETIC = dict(
    image_size=[[192, 192], [192, 192]],
    num_people=[1, 6],
    difficulty=1.0,
    captions=3,
    format="jpg",
)


def check_synthetic(folder: Path, seed: int, count: int) -> None:
    settings = {**SYNTHETIC, "train": count, "val": 2, "seed": seed}
    make_synthetic.make(folder, settings, workers=1)
    file = folder / "RefHuman_train.json"
    checked, defects = check_refhuman.check(file, folder / "images", COCO, 1)
    assert defects == []
    assert len(checked.images) == len(json.loads(file.read_text())["images"])


def test_synthetic_data_has_no_defect(tmp_path):
    check_synthetic(tmp_path / "few", seed=7, count=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_much_synthetic_data_has_no_defect(tmp_path, seed):
    check_synthetic(tmp_path / "many", seed=seed, count=2000)
