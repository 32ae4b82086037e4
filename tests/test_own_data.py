"""Own data: README's worked example word by word, the CSV's forms, and another skeleton."""

from __future__ import annotations

import json
import re
import shlex
import sys

import build_refhuman
import numpy as np
import pytest
from conftest import POSE
from launch import ROOT
from people_files import SIZE, write_images
from PIL import Image
from pycocotools import mask as coco_mask

import main
from datasets.building.own_data import CsvFile
from datasets.refhuman import RefHuman
from datasets.skeleton import SKELETONS, Skeleton
from datasets.transforms import keep_size
from util.errors import UserError

SMALL = [
    *("epochs=1", "batch_size=2", "prompts_per_image=1", "share_image_features=False"),
    *("lr_drop_epochs=[]", "num_workers=0", "amp=False", "eval_batch_size=2"),
]


def readme_section():
    """The blocks of code of README's section "Your own images", by their language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"\n### Your own images\n(.*?)\n##+ ", text, re.DOTALL)[1]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def commands(block):
    """The command lines of a block, as lists of words without `python`."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.strip()]


def run(monkeypatch, words):
    program, *arguments = words
    monkeypatch.setattr(sys, "argv", words)
    if program == "tools/build_refhuman.py":
        return build_refhuman.main()
    assert program == "main.py"
    return main.main([*arguments, *([] if "--options" in arguments else ["--options"]), *SMALL])


def test_the_readmes_example_word_by_word(tmp_path, monkeypatch):
    """From two images and a CSV to a trained model; only the training is made shorter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").symlink_to(ROOT / "config")
    blocks = readme_section()
    (csv_text,) = [block for language, block in blocks if language == "csv"]
    folder = tmp_path / "data" / "mine"
    write_images(folder / "images", ["beach.jpg", "park.jpg", "lake.jpg", "wood.jpg"])
    (folder / "masks").mkdir()
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[5:55, 60:90] = 255
    Image.fromarray(mask).save(folder / "masks" / "park_2.png")
    (folder / "train.csv").write_text(csv_text, encoding="utf-8")
    # Images of val.csv would be kept out of the training set.
    other = csv_text.replace("beach.jpg", "lake.jpg").replace("park.jpg", "wood.jpg")
    (folder / "val.csv").write_text(other, encoding="utf-8")
    lines = [words for language, block in blocks if language == "bash" for words in commands(block)]
    assert [words[0] for words in lines] == ["tools/build_refhuman.py"] * 2 + ["main.py"]
    for words in lines:
        assert run(monkeypatch, words) == 0
    content = json.loads((folder / "RefHuman_train.json").read_text())
    captions = [image.get("caption") for image in content["images"]]
    assert captions == [
        "the woman in the red coat",
        "woman on the left, waving",
        "the boy with a ball",
    ]
    ids = [annotation["person_id"] for annotation in content["annotations"]]
    assert ids[0] == ids[1] != ids[2]
    log = (tmp_path / "outputs" / "mine" / "log.txt").read_text().splitlines()
    assert np.isfinite(json.loads(log[-1])["train"]["loss"])


# --- the CSV -------------------------------------------------------------------------------------

HEADER = "file_name,keypoints,mask,box,caption,person\n"
POLYGON = "10 10 30 10 30 40 10 40"


def keypoints(count=17):
    return " ".join(f"{20 + i % 5} {20 + i} 2" for i in range(count))


def survey(folder, rows, header=HEADER):
    write_images(folder / "images", ["a.jpg"])
    (folder / "a.csv").write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    source = CsvFile(folder / "a.csv", folder / "images")
    return source, source.survey()


def test_lines_of_one_person(tmp_path):
    """By the column `person`, or else by all but the caption."""
    rows = [
        f'a.jpg,{keypoints()},{POLYGON},,"one, two",',
        f"a.jpg,{keypoints()},{POLYGON},,again,",
        f"a.jpg,{keypoints()},{POLYGON},10 10 20 30,another,",
        f"a.jpg,{keypoints()},{POLYGON},,x,7",
        f"a.jpg,{keypoints()},60 10 70 10 70 20,,y,7",
    ]
    source, found = survey(tmp_path, rows)
    assert list(found.people) == [2, 4, 5]  # the numbers of their lines
    assert source.captions() == [(2, "one, two"), (2, "again"), (4, "another"), (5, "x"), (5, "y")]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_kind_of_png(tmp_path, mode):
    inside = np.zeros(SIZE, dtype=bool)
    inside[10:40, 20:50] = True
    grey = Image.fromarray(inside.astype(np.uint8))  # 1 is enough
    if mode == "P":
        image = Image.fromarray(inside.astype(np.uint8), "P")
        image.putpalette([0] * 768)  # only the colour's number counts
    elif mode == "1":
        image = Image.fromarray(inside)
    elif mode == "I;16":
        image = Image.fromarray(inside.astype(np.uint16))
    else:
        image = grey.convert(mode)
    image.save(tmp_path / "m.png")
    source, found = survey(tmp_path, [f"a.jpg,{keypoints()},m.png,,,"])
    (annotation,) = source.annotations()
    code = {**annotation["segmentation"], "counts": annotation["segmentation"]["counts"].encode()}
    assert np.array_equal(coco_mask.decode(code), inside)
    assert found.people[2].area == inside.sum()


def test_an_image_that_exif_turns(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    pixels = np.zeros((*SIZE[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "b.jpg", exif=exif)
    _, found = survey(tmp_path, [f"b.jpg,{keypoints()},{POLYGON},,,"])
    (entry,) = found.images.values()
    assert (entry["height"], entry["width"]) == SIZE  # as a viewer shows it


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("file_name,mask\n", "a.jpg,", "first line has to name the columns"),
        ("file_name,keypoints,mask,colour\n", "a.jpg,1,2,3", "first line has to name"),
        ("file_name,keypoints,mask,mask\n", "a.jpg,1,2,3", "each once"),
        (HEADER, "a.jpg,1 2 2", "line 2 has 2 cells, the first line 6"),
        (HEADER, ",1 2 2,1,,,", "line 2: 'file_name' is empty"),
        (HEADER, f"b.jpg,1 2 2,{POLYGON},,,", "line 2: image .*b.jpg does not exist"),
        (HEADER, f"../a.csv,1 2 2,{POLYGON},,,", "line 2: image .*a.csv does not exist"),
        (HEADER, f"a.jpg,1 2,{POLYGON},,,", "line 2: 'keypoints' has to hold"),
        (HEADER, f"a.jpg,1 2 x,{POLYGON},,,", "line 2: 'keypoints': expected numbers"),
        (HEADER, f"a.jpg,1 2 nan,{POLYGON},,,", "line 2: 'keypoints': numbers have to be finite"),
        (HEADER, "a.jpg,1 2 2,1 2 3,,,", "line 2: polygon 0 of 'segmentation' is broken"),
        (HEADER, "a.jpg,1 2 2,no.png,,,", "line 2: 'mask': .*no.png does not exist"),
        (HEADER, "a.jpg,1 2 2,small.png,,,", "small.png has 3x2 pixels"),
        (HEADER, "a.jpg,1 2 2,broken.png,,,", "broken.png cannot be read"),
    ],
)
def test_broken_lines(tmp_path, header, row, words):
    Image.fromarray(np.ones((2, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(UserError, match=words):
        survey(tmp_path, [row], header)


# --- another skeleton ----------------------------------------------------------------------------

BIRD = Skeleton(
    names=("beak", "left_wing", "right_wing", "tail"),
    flip_pairs=((1, 2),),
    sigmas=(0.03, 0.08, 0.08, 0.06),
    limbs=((0, 1), (0, 2), (1, 3), (2, 3)),
    head_pair=None,
)


def test_another_skeleton_needs_its_definition_only(tmp_path, monkeypatch):
    """Built, trained and evaluated; nothing else of the project is changed."""
    monkeypatch.setitem(SKELETONS, "bird", BIRD)
    monkeypatch.chdir(ROOT)
    places = np.rint(POSE[[0, 5, 6, 12]] * (30, 40) + (10, 10)).astype(int)
    points = " ".join(f"{x} {y} 2" for x, y in places)
    rows = [f"a.jpg,{points},{POLYGON},,a bird {i},{i}" for i in range(4)]
    survey(tmp_path, rows)
    for split in ("train", "val"):
        words = (
            f"tools/build_refhuman.py --annotations {tmp_path}/a.csv --split {split} --workers 1"
        )
        words += (
            f" --images {tmp_path}/images --output {tmp_path}/RefHuman_{split}.json --everybody"
        )
        assert run(monkeypatch, [*words.split(), "--skeleton", "bird"]) == 0
    dataset = RefHuman(
        tmp_path / "images",
        tmp_path / "RefHuman_train.json",
        keep_size,
        training=True,
        skeleton=BIRD,
    )
    assert dataset[0].target["keypoints"].shape == (1, 4, 3)
    words = f"main.py -c config/uniphd_tiny.py --device cpu --output_dir {tmp_path}/run --options"
    words += f" dataset=refhuman coco_path={tmp_path} skeleton=bird"
    assert run(monkeypatch, words.split()) == 0
    assert "keypoint_ap" in (tmp_path / "run" / "eval.json").read_text()


def test_the_wrong_skeleton_is_named(tmp_path, monkeypatch, capsys):
    survey(tmp_path, [f"a.jpg,{keypoints(14)},{POLYGON},,a bird,"])
    words = f"tools/build_refhuman.py --annotations {tmp_path}/a.csv --split val --workers 1"
    words += f" --images {tmp_path}/images --output {tmp_path}/out.json"
    assert run(monkeypatch, words.split()) == 2
    assert "Set skeleton=crowdpose for this file" in capsys.readouterr().err
