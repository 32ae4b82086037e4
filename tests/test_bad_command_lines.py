"""Nonsense on command lines: every program ends with status 2 and one message, whatever it is."""

from __future__ import annotations

import importlib
import json
import logging
import sys

import numpy as np
import pytest
import torch
from conftest import write_coco, write_refhuman
from launch import ROOT
from PIL import Image

import main
from util import checkpoint
from util.command_line import output_file, output_folder, run_program
from util.errors import UserError
from util.logging import LOGGER_NAME, MODELS_LOGGER_NAME

DIGITS = "9" * 400
BUILD = "--annotations {annotations} --images {empty} --workers 1"
WEIGHTS = str(ROOT / "weights" / "uniphd_tiny.safetensors")
TINY = str(ROOT / "config" / "uniphd_tiny.py")
# Programs whose `main` is run by `run_program` where the file is the program.
RUN_FROM_OUTSIDE = ("contact_sheet", "make_synthetic", "train_tokenizer")


@pytest.fixture(autouse=True)
def no_loggers_of_other_tests():
    """Which may write to a screen that is there no more."""
    for name in (LOGGER_NAME, MODELS_LOGGER_NAME):
        logging.getLogger(name).handlers.clear()


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Files and folders that command lines name with {braces}."""
    folder = tmp_path_factory.mktemp("things")
    things = {name: folder / name for name in ("file", "empty", "out")}
    things["file"].write_text("nothing of value")
    things["empty"].mkdir()
    things["image"] = folder / "image.png"
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(things["image"])
    things["link"] = folder / "link.png"
    things["link"].symlink_to(things["image"])
    things["below"] = things["file"] / "below"
    things["folder"] = folder / "folder.png"
    things["folder"].mkdir()
    things["refhuman"] = write_refhuman(folder / "refhuman", pairs={"train": 2, "val": 2})
    things["pairs"] = things["refhuman"] / "RefHuman_val.json"
    things["coco"] = write_coco(folder / "coco")
    coco_file = things["coco"] / "annotations" / "person_keypoints_val2017.json"
    things["annotations"] = coco_file
    things["no_json"] = folder / "no_json"
    things["no_json"].mkdir()
    (things["no_json"] / "RefHuman_train.json").write_text("{")
    (things["no_json"] / "RefHuman_val.json").write_text("{")
    things["bare"] = folder / "bare.pth"
    checkpoint.save(things["bare"], {"model": {"a": torch.full((2,), 1e6)}})
    things["large"] = folder / "large.pth"
    settings = {"model": "uniphd", "dataset": "refhuman"}
    checkpoint.save(things["large"], {"model": {"a": torch.full((2,), 1e6)}, "config": settings})
    things["odd"] = folder / "odd.pth"
    checkpoint.save(things["odd"], {"model": {"a": torch.ones(2)}, "config": {"lrs": 3}})
    things["no_log"] = folder / "no_log"
    things["no_log"].mkdir()
    (things["no_log"] / "log.txt").write_text('{"epoch": 0}\n')
    things["other_log"] = folder / "other_log"
    things["other_log"].mkdir()
    (things["other_log"] / "log.txt").write_text("3\n[]\n")
    things["foreign"] = folder / "foreign"
    for split in ("train", "val"):
        (things["foreign"]).mkdir(exist_ok=True)
        (things["foreign"] / f"RefHuman_{split}.json").write_text("[1]")
    things["unfinished"] = folder / "unfinished"
    (things["unfinished"] / "parts").mkdir(parents=True)
    (things["unfinished"] / "parts" / "settings.json").write_text("{")
    things["config"] = folder / "config.py"
    things["config"].write_text("lr = = 3")
    things["training"] = folder / "training"
    things["training"].mkdir()
    (things["training"] / "log.txt").write_text(json.dumps({"epoch": 0}) + "\n")
    return {name: str(path) for name, path in things.items()}


MAIN = [
    ("--device foo", "--device foo: unknown"),
    ("--device meta", "--device meta: unknown"),
    ("--device cpu:77", "--device cpu:77"),
    ("-c {empty}", "is a folder; name a Python file"),
    ("-c {out}", "does not exist"),
    ("-c {config}", "SyntaxError"),
    ("-c {bare}", "bare.pth cannot be read"),
    ("--options", "expected at least one argument"),
    ("--options lr", "expected KEY=VALUE, got 'lr'"),
    ("--options =3", "expected KEY=VALUE, got '=3'"),
    ("--options lr=[1", "--options lr: missing ']'"),
    ("--options lr=", "'lr' must be a number"),
    ("--options lr=fast", "'lr' must be a number"),
    (f"--options lr={DIGITS}", "'lr' must be a number"),
    (f"--options seed={DIGITS}", "'seed' must be a whole number"),
    ("--options .=3", "Unknown setting"),
    ("--options lr.x=3", "'lr' is no dictionary"),
    ("--options loss_weights=3", "'loss_weights' is a dictionary"),
    ("--options loss_weights.x=3", "Did you mean"),
    ("--options backbone_options.__class__=3", "cannot be the name"),
    ("--options epochs=0", "'epochs' must be a whole number of at least 1"),
    ("--options model=yolo", "Unknown model 'yolo'"),
    ("--options dataset=yolo", "Unknown dataset 'yolo'"),
    ("--options skeleton=yolo --dataset_file refhuman", "yolo"),
    ("--seed -1", "'seed' must be"),
    ("--seed x", "invalid int value"),
    (f"--seed {DIGITS}", "'seed' must be"),
    ("--num_workers -1", "'num_workers' must be"),
    ("--eval_trigger foo", "unknown kind of prompt 'foo'"),
    ("--train_trigger ,", "unknown kind of prompt ''"),
    ("--within_type star", "'within_type' must be"),
    ("--backbone resnet18", "--options backbone_options=None"),
    ("--dataset_file refhuman --coco_path {out}", "{out}"),
    ("--dataset_file coco --coco_path {file}", "{file}"),
    ("--dataset_file refhuman --coco_path {empty}", "{empty}"),
    ("--start_epoch 115", "starting with number 115"),
    ("--start_epoch -1", "starting with number -1"),
    (f"--start_epoch {DIGITS}", "nothing to train"),
    ("--start_epoch x", "invalid int value"),
    ("--save_images -1", "--save_images has to be at least 0"),
    ("--local_rank -1", "--local_rank has to be at least 0"),
    ("--eval --overwrite", "--overwrite belongs to a training"),
    ("--eval --start_epoch 3", "--start_epoch belongs to a training"),
    ("--eval --tracker wandb", "--tracker belongs to a training"),
    ("--tracker wandb,", "unknown tracker ''"),
    ("--tracker wnb", "unknown tracker 'wnb'; expected tensorboard, wandb, mlflow"),
    ("--finetune_ignore heads", "--finetune_ignore leaves out entries of a checkpoint"),
    ("--resume {bare} --pretrain_model_path {bare}", "both name the weights"),
    ("--resume {out}", "no such checkpoint file"),
    ("--resume {empty}", "no such checkpoint file"),
    ("--resume {file}", "truncated or not a PyTorch file"),
    ("--resume {bare}", "has no optimizer, epoch, step, record"),
    ("--resume {bare} --overwrite", "--resume continues what --overwrite would replace"),
    ("--pretrain_model_path {image}", "image.png: cannot be read as a checkpoint"),
    ("--output_dir {file}", "{file} is a file; name another folder"),
    ("--output_dir {below}", "{file} is a file; name another folder"),
    ("--output_dir {training}", "holds a training already"),
    ("--learning_rate 3", "unrecognized arguments"),
    ("surplus", "unrecognized arguments: surplus"),
]

IMAGE = "--image {image} --device cpu"
PREDICT = [
    ("", "required"),
    ("--image {image}", "one of the arguments"),
    (f"{IMAGE} --text a --point 1,1", "not allowed with"),
    (f"{IMAGE} --text a --device foo", "--device foo: unknown"),
    (f"{IMAGE} --text a --output {{image}}", "would overwrite the input"),
    (f"{IMAGE} --text a --output {{link}}", "would overwrite the input"),
    (f"{IMAGE} --text a --output {{folder}}", "is a folder; name a file"),
    (f"{IMAGE} --text a --output {{below}}.png", "{file} is a file"),
    (f"{IMAGE} --text a --output x.txt", "ends in .png or .jpg"),
    (f"{IMAGE} --text a --output x", "ends in .png or .jpg"),
    (f"{IMAGE} --text a --checkpoint {{out}}", "no such checkpoint file"),
    (f"{IMAGE} --text a --checkpoint {{file}}", "cannot be read as a checkpoint"),
    (f"{IMAGE} --text a --checkpoint {{bare}}", "no settings inside"),
    (f"{IMAGE} --text a --checkpoint {{odd}}", "Did you mean 'lr'"),
    (f"{IMAGE} --text a --options lr=3", "--options change the settings of --config_file"),
    (f"{IMAGE} --text a -c {{empty}}", "is a folder; name a Python file"),
    (f"{IMAGE} --text a -c {{config}}", "SyntaxError"),
    (f"{IMAGE} --text a -c {TINY} --options num_heads=5", "multiple of num_heads"),
    (f"{IMAGE} --text a -c {TINY} --options hidden_dim=96", "entries that do not fit the model"),
    ("--image {out} --text a", "{out}"),
    ("--image {empty} --text a", "{empty}"),
    ("--image {file} --text a", "{file}"),
]

TOOLS = {
    "export_checkpoint": [
        ("", "required"),
        ("{out} {out}.pth", "no such checkpoint file"),
        ("{file} {out}.pth", "cannot be read as a checkpoint"),
        ("{bare} {out}.pth", "holds no settings"),
        ("{odd} {out}.pth", "Did you mean 'lr'"),
        ("{large} {large}", "would overwrite the input"),
        ("{large} {out}.txt", "ends in .pth or .safetensors"),
        ("{large} {below}.pth", "{file} is a file"),
        ("{large} {out}.pth --half", "in 16 bits: 'a' has 2 of 2 values that are not finite"),
        ("{large} {out}.pth --published", "names that the published model has no"),
    ],
    "plot_log": [
        ("", "required"),
        ("{out}", "does not exist; give the output folder of a training"),
        ("{empty}", "does not exist; give the output folder of a training"),
        ("{image}", "image.png"),
        ("{file}", "holds no finished epoch"),
        ("{no_log}", "is not the log.txt of a training"),
        ("{other_log}", "is not the log.txt of a training"),
        ("{no_log} --output {folder}", "is a folder; name a file"),
        ("{no_log} --output {below}.png", "{file} is a file"),
        ("{no_log} --output x.txt", "ends in .png"),
    ],
    "probe_text": [
        ("", "required"),
        ("--checkpoint {out}", "no such checkpoint file"),
        ("--checkpoint {bare}", "no settings inside"),
        (f"--checkpoint {WEIGHTS} --length 0", "--length has to be at least 1"),
        (f"--checkpoint {WEIGHTS} --length x", "invalid int value"),
        (f"--checkpoint {WEIGHTS} --length {DIGITS}", "--length has to be at least 1"),
        (f"--checkpoint {WEIGHTS} --device foo", "--device foo: unknown"),
        (f"--checkpoint {WEIGHTS} --output {{empty}}", "is a folder; name a file"),
        (f"--checkpoint {WEIGHTS} --output {{below}}", "{file} is a file"),
    ],
    "compare_designs": [
        ("--output {file}", "{file} is a file"),
        ("--output {out} --config {out}9", "does not exist"),
        ("--output {out} --config {config}", "SyntaxError"),
        ("--output {out} --jobs 0", "--jobs has to be at least 1"),
        ("--output {out} --jobs x", "invalid int value"),
        ("--output {out} --seeds -1", "'seed' must be a whole number"),
        ("--output {out} --seeds x", "invalid int value"),
        ("--output {out} --designs cat", "invalid choice"),
        ("--output {out} --designs self-attention", "'UniPHD' has to be among them"),
        ("--output {out} --prompt text", "the task evaluates scribble, point"),
        ("--output {out} --options lr", "expected KEY=VALUE"),
        ("--output {out} --options lr=-1", "'lr' must be a number above 0"),
        ("--output {out} --options lrr=1", "lrr"),
    ],
    "contact_sheet": [
        ("", "required"),
        ("--output {out}.png --rows 0", "--rows has to be at least 1"),
        (f"--output {{out}}.png --columns -{DIGITS}", "--columns has to be at least 1"),
        ("--output {out}.png --side 0", "--side has to be at least 1"),
        ("--output {out}.png --start -1", "--start has to be at least 0"),
        ("--output {out}.png --seed -1", "seed must not be negative"),
        ("--output {out}.png --difficulty nan", "difficulty has to be within 0 and 1"),
        ("--output {out}.png --people 3 1", "num_people has to be"),
        ("--output {out}.png --image-size 0", "--image-size has to be at least 48"),
        (f"--output {{out}}.png --image-size {DIGITS}", "--image-size has to be at least 48"),
        (f"--output {{out}}.png --rows {DIGITS}", "--rows has to be at least 1"),
        (f"--output {{out}}.png --side {DIGITS}", "--side has to be at least 1"),
        (f"--output {{out}}.png --start {DIGITS}", "--start has to be at least 0"),
        ("--output {out}.txt", "ends in .png or .jpg"),
        ("--output {folder}", "is a folder; name a file"),
        ("--output {below}.png", "{file} is a file"),
        ("--output {out}.png --data {empty}", "--data has to be a RefHuman folder"),
        ("--output {out}.png --data {no_json}", "is not valid JSON"),
        ("--output {out}.png --images {out}", "--images has to be a folder"),
        ("--output {out}.png --images {empty}", "nothing to draw"),
        ("--output {out}.png --data {refhuman} --start 9", "nothing to draw"),
        ("--output {out}.png --split test", "invalid choice"),
    ],
    "browse_refhuman": [
        ("", "required"),
        ("{file} --images {empty}", "required"),
        ("{out} --images {empty} --output {out}", "{out} does not exist"),
        ("{file} --images {empty} --output {out}", "is not valid JSON"),
        ("{foreign}/RefHuman_val.json --images {empty} --output {out}", "not a RefHuman"),
        ("{annotations} --images {empty} --output {out}", "exactly one person per image entry"),
        ("{pairs} --images {out}2 --output {out}", "there is no such folder"),
        ("{pairs} --images {empty} --output {file}", "{file} is a file"),
        ("{pairs} --images {empty} --output {below}", "{file} is a file"),
        ("{pairs} --images {empty} --output {out} --predictions {out}3", "{out}3 does not exist"),
        ("{pairs} --images {empty} --output {out} --predictions {empty}", "{empty} does not"),
        ("{pairs} --images {empty} --output {out} --predictions {pairs}", "expected '[', got '{{"),
        ("{pairs} --images {empty} --output {out} --skeleton yolo", "invalid choice"),
        ("{pairs} --images {empty} --output {out} --skeleton crowdpose", "has to hold 42 numbers"),
    ],
    "make_subset": [
        ("", "required"),
        ("--input {out} --output {out}2", "does not exist; check --input"),
        ("--input {no_json} --output {out}", "is not valid JSON"),
        ("--input {refhuman} --output {refhuman}", "would overwrite --input"),
        ("--input {refhuman} --output {file} --images 1", "{file} is a file"),
        ("--input {refhuman} --output {out} --images 99", "Only 1 images"),
        ("--input {refhuman} --output {out} --images 0", "--images has to be at least 1"),
        ("--input {refhuman} --output {out} --min_people 0", "--min_people has to be at least 1"),
        ("--input {refhuman} --output {out} --max_side 0", "--max_side has to be at least 1"),
    ],
    "make_people_subset": [
        ("", "required"),
        ("--format yolo", "invalid choice"),
        ("--format coco --images {out} --output {out} --input_annotations {out}", "{out}"),
        ("--format coco --images {out} --output {out} --input_annotations {file}", "{file}"),
        (
            "--format coco --images {out} --output {coco} --input_annotations {annotations}",
            "holds the input",
        ),
        (
            "--format coco --images {out} --output {file} --input_annotations {annotations}",
            "{file} is a file",
        ),
        (
            "--format coco --images {coco}/images/val2017 --output {out}"
            " --input_annotations {annotations} --count 99",
            "Only 2 images have people",
        ),
        (
            "--format coco --images {out} --output {out} --input_annotations {annotations}"
            " --count 0",
            "--count has to be at least 1",
        ),
        (
            "--format coco --images {out} --output {out} --input_annotations {annotations}"
            " --max_side -5",
            "--max_side has to be at least 1",
        ),
    ],
    "check_refhuman": [
        ("", "required"),
        ("{out} --images {empty}", "does not exist; give an annotation file"),
        ("{empty} --images {empty}", "does not exist; give an annotation file"),
        ("{file} --images {empty}", "is not valid JSON"),
        ("{image} --images {empty}", "is not text in UTF-8"),
        ("{foreign}/RefHuman_val.json --images {empty}", "expected an object that begins with"),
        ("{annotations}", "required"),
        ("{annotations} --images {below}", "--images {below} is no folder"),
        ("{annotations} --images {file}", "--images {file} is no folder"),
        ("{annotations} --images {empty} --json {annotations}", "would overwrite the input"),
        ("{annotations} --images {empty} --fix {annotations}", "would overwrite the input"),
        ("{annotations} --images {empty} --fix {out}.txt", "ends in .json"),
        ("{annotations} --images {empty} --json {below}.json", "{file} is a file"),
        (
            "{annotations} --images {empty} --fix {out}.json",
            "nothing of the file would be left without a defect",
        ),
        ("{annotations} --images {empty} --workers 0", "--workers has to be at least 1"),
        ("{annotations} --images {empty} --workers x", "invalid int value"),
        ("{annotations} --images {empty} --skeleton cat", "invalid choice"),
        ("{annotations} --images {empty} --json {out}.json --fix {out}.json", "two files"),
    ],
    "dataset_stats": [
        ("", "required"),
        ("{annotations}", "required"),
        ("{out} --output {empty}", "does not exist; give an annotation file"),
        ("{file} --output {empty}", "is not valid JSON"),
        ("{foreign}/RefHuman_val.json --output {empty}", "expected an object that begins with"),
        ("{annotations} --output {file}", "{file} is a file"),
        ("{annotations} --output {below}", "{file} is a file"),
        ("{annotations} --output {empty} --skeleton crowdpose", "Set skeleton=coco"),
    ],
    "make_synthetic": [
        ("", "required"),
        ("--output {out} --train 0 --val 1", "--train has to be at least 1"),
        ("--output {out} --train 1 --val -1", "--val has to be at least 1"),
        ("--output {out} --train 1 --val 1 --captions 0", "--captions has to be at least 1"),
        ("--output {out} --train 1 --val 1 --workers 0", "--workers has to be at least 1"),
        ("--output {out} --train 1 --val 1 --seed -1", "seed must not be negative"),
        ("--output {out} --train 1 --val 1 --difficulty 2", "difficulty has to be within"),
        ("--output {out} --train 1 --val 1 --difficulty nan", "difficulty has to be within"),
        ("--output {out} --train 1 --val 1 --people 0 3", "num_people has to be"),
        ("--output {out} --train 1 --val 1 --image-size 8", "--image-size has to be at least 48"),
        (f"--output {{out}} --train {DIGITS} --val 1", "--train has to be at least 1"),
        (f"--output {{out}} --train 1 --val 1 --workers {DIGITS}", "--workers has to be"),
        ("--output {out} --train 1 --val 1 --image-size 64 48", "image_size"),
        ("--output {out} --train 1 --val 1 --image-size 64 64 64", "takes one number or two"),
        ("--output {out} --train 1 --val 1 --format gif", "invalid choice"),
        ("--output {file} --train 1 --val 1", "{file} is a file"),
        ("--output {refhuman} --train 1 --val 1", "holds another data set"),
        ("--output {no_json} --train 1 --val 1", "is not valid JSON"),
        ("--output {foreign} --train 1 --val 1", "expected a JSON object"),
        ("--output {unfinished} --train 1 --val 1", "is not valid JSON"),
        ("--output {coco} --train 1 --val 1", "is not empty and holds no synthetic data set"),
    ],
    "build_refhuman": [
        ("", "required"),
        (f"{BUILD} --split test --output {{out}}/a.json", "invalid choice"),
        (f"{BUILD} --split val --output {{out}}", "expected a name that ends in .json"),
        (f"{BUILD} --split val --output {{annotations}}", "would overwrite the input"),
        (f"{BUILD} --split val --output {{below}}.json", "{file} is a file"),
        (f"{BUILD} --split val --output {{out}}/a.json --workers 0", "--workers has to be"),
        (f"{BUILD} --split val --output {{out}}/a.json --seed -1", "--seed has to be"),
        (f"{BUILD} --split val --output {{out}}/a.json --seed {DIGITS}", "--seed has to be"),
        (f"{BUILD} --split val --output {{out}}/a.json --area 2", "--area has to be within"),
        (f"{BUILD} --split val --output {{out}}/a.json --area nan", "--area has to be within"),
        (f"{BUILD} --split val --output {{out}}/a.json --keypoints -1", "--keypoints has to be"),
        (f"{BUILD} --split val --output {{out}}/a.json --surrounding -1", "--surrounding has"),
        (f"{BUILD} --split val --output {{out}}/a.json --refs {{empty}}", "expected a folder with"),
        (
            f"{BUILD} --split val --output {{out}}/a.json --refs {{file}}",
            "cannot be read as a pick",
        ),
        (f"{BUILD} --split val --output {{out}}/a.json --ref_splits val", "give --refs"),
        (f"{BUILD} --split val --output {{out}}/a.json --captions {{file}}", "ends in .csv or"),
        (f"{BUILD} --split val --output {{out}}/a.json --captions {{out}}.csv", "does not exist"),
        (f"{BUILD} --split val --output {{out}}/a.json --exclude {{file}}", "is not valid JSON"),
        (f"{BUILD} --split val --output {{out}}/a.json --exclude {{out}}", "does not exist"),
        (f"{BUILD} --split val --output {{out}}/a.json --skeleton bird", "Unknown skeleton 'bird'"),
        (
            "--annotations {file} --images {empty} --split val --output {out}/a.json",
            "is not valid JSON",
        ),
        (
            "--annotations {out} --images {empty} --split val --output {out}/a.json",
            "does not exist",
        ),
        (
            "--annotations {annotations} --images {out}/no --split val --output {out}/a.json",
            "there is no such folder",
        ),
    ],
    "train_tokenizer": [
        ("", "required"),
        ("--output {file}", "{file} is a file"),
        ("--output {out} --scenes 0", "--scenes has to be at least 1"),
        ("--output {out} --vocabulary 3", "--vocabulary has to be at least 261"),
        ("--output {out} --seed -1 --scenes 1", "seed must not be negative"),
    ],
    "table": [
        ("", "required"),
        ("12 --runs {empty} --output {out}", "invalid choice: '12'"),
        ("2", "required"),
        ("2 --runs {out}9 --output {out}", "there is no such folder; give the one that holds"),
        ("2 --runs {file} --output {out}", "there is no such folder; give the one that holds"),
        ("2 --runs {empty} --output {file}", "{file} is a file"),
        ("2 --runs {empty} --output {below}", "{file} is a file"),
        ("2 --runs {empty} --output {out} --run x={empty}", "expected NAME=PATH, NAME one of uni"),
        ("2 --runs {empty} --output {out} --run uniphd", "expected NAME=PATH, NAME one of uni"),
        ("2 --runs {empty} --output {out} --run uniphd=", "expected NAME=PATH, NAME one of uni"),
        ("2 --runs {empty} --output {out} --run uniphd=a uniphd=b", "uniphd is named twice"),
        ("page --tables {empty} --output {file}", "no table01/table.json ... table11"),
        ("page --tables {out}9 --output {file}", "no table01/table.json ... table11"),
        ("given 2", "required"),
        ("given 12 {file}", "The paper's tables are 1 to 11; got 12"),
        ("given 1 {file}", "Table 1 needs no checkpoint"),
        ("given 4 {file} {file}", "2 files for table 4, which has text_only"),
        ("given 4 text_only={file} text_only={file}", "text_only is named twice"),
        ("given 4 {out}9", "no such file (for text_only)"),
        ("given 4 uniphd={file}", "no such file (for text_only)"),
        ("smoke_config {out}9 --output {out}.py", "does not exist"),
        ("smoke_config {config} --output {out}.py", "SyntaxError"),
        ("smoke_config {config} --output {config}", "would overwrite the input"),
        ("smoke_config {config} --output {out}.txt", "ends in .py"),
        ("smoke_coco {empty} --output {file}", "{file} is a file"),
        ("smoke_coco {empty} --output {out}", "{empty}"),
        ("smoke_coco {no_json} --output {out}", "is not valid JSON"),
        ("smoke_coco {foreign} --output {out}", "expected an object with the lists"),
    ],
    "soak": [
        ("--output {file} -- -c x", "{file} is a file"),
        ("--output {out} --kill_every 0 5 -- -c x", "--kill_every has to be at least 1"),
        ("--output {out} --kill_every 9 5 -- -c x", "--kill_every has to be at least 9.0"),
        ("--output {out} --kill_every 9 -- -c x", "expected 2 arguments"),
        ("--output {out}", "arguments"),
    ],
    "gpu_report": [
        ("--device foo --output_dir {out}", "--device foo: unknown"),
        ("--device cpu --output_dir {file}", "{file} is a file"),
        ("--device cpu --output_dir {out} --minutes nan", "--minutes has to be a number above 0"),
        ("--device cpu --output_dir {out} --minutes -1", "--minutes has to be a number above 0"),
        ("--device cpu --output_dir {out} --minutes x", "invalid float value"),
    ],
    "benchmark": [
        ("--what nothing", "unknown step 'nothing'"),
        ("--variants nothing", "unknown 'nothing'"),
        ("--device foo", "--device foo: unknown"),
        ("--rounds 0", "--rounds has to be at least 1"),
        ("--threads -1", "at least 0"),
        ("--seconds nan", "--seconds has to be a number"),
        ("--memory -1", "--memory has to be a number"),
        ("--batch_size 0", "--batch_size has to be at least 1"),
        ("--side 0", "--side takes"),
        ("--side 1 2 3", "--side takes"),
        ("-c {out}", "there is no"),
        ("-c {empty}", "there is no"),
        ("--options lr", "expected KEY=VALUE"),
        ("--against nothing", "nothing"),
        ("--output {empty}", "is a folder; name a file"),
        ("--markdown {below}", "{file} is a file"),
    ],
}

CASES = [("main", *case) for case in MAIN] + [("predict", *case) for case in PREDICT]
CASES += [(name, *case) for name, cases in TOOLS.items() for case in cases]


def run(monkeypatch, name, arguments):
    """The exit status of a program."""
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    try:
        return run_program(module.main) if name in RUN_FROM_OUTSIDE else module.main()
    except SystemExit as end:  # argparse
        return end.code


@pytest.mark.parametrize(
    ("name", "line", "words"), CASES, ids=[f"{name} {line[:60]}" for name, line, _ in CASES]
)
def test_nonsense(things, tmp_path, monkeypatch, capsys, name, line, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = line.format(**things).split()
    if name == "main":
        defaults = {"--device": "cpu", "--output_dir": str(tmp_path / "output"), "-c": TINY}
        for flag, value in defaults.items():
            if flag not in arguments:
                arguments = [flag, value, *arguments]
    before = {thing: path.read_bytes() for thing, path in files(things).items()}
    assert run(monkeypatch, name, arguments) == 2
    error = capsys.readouterr().err
    assert words.format(**things) in error
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert before == {thing: path.read_bytes() for thing, path in files(things).items()}


def files(things):
    """Files that no program may change."""
    paths = {name: ROOT / path for name, path in things.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def test_every_program_is_tried():
    programs = {
        path.stem
        for path in (*ROOT.glob("*.py"), *ROOT.glob("tools/*.py"))
        if "run_program(" in path.read_text()
    }
    assert programs == {name for name, *_ in CASES}


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_output_folder(tmp_path, monkeypatch, capsys, empty):
    """As an unset variable of a script leaves it."""
    monkeypatch.chdir(tmp_path)
    assert main.main(["-c", TINY, "--device", "cpu", "--output_dir", empty, "--eval"]) == 2
    assert "--output_dir is empty; name a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    """As root, who may write everywhere, the answer of the system is put in its place."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="--output_dir .*: the folder is not writable"):
        output_folder(tmp_path, "--output_dir")
    with pytest.raises(UserError, match=r"--output .*: the folder is not writable"):
        output_file(tmp_path / "x.png", "--output")


@pytest.mark.parametrize("path", ["a\0b", "a" * 300])
def test_folders_that_cannot_be_made(tmp_path, path):
    with pytest.raises(UserError, match="--output_dir .*: it cannot be made"):
        output_folder(f"{tmp_path}/{path}", "--output_dir")
