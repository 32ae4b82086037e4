"""Checkpoints that lie: every one is refused when it is read, with one message that says why."""

from __future__ import annotations

import copy
import json
import struct

import numpy as np
import pytest
import torch
from launch import ROOT
from outcomes import refused
from small_models import small_config, write_roberta

import main
import models
from models.backbones import swin
from models.backbones.weights import read_weights
from models.uniphd.predictor import Predictor
from util import checkpoint
from util.checkpoint_content import check_training
from util.config import Config

TINY = str(ROOT / "config" / "uniphd_tiny.py")


# --- safetensors ---------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
ONE = struct.pack("<f", 1.0)


def write_safetensors(path, header, data=ONE, length=None):
    """A file of this header: a dictionary, or bytes as they are; `length` as it claims to be."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def one_tensor(dtype="F32", shape=(1,), size=4):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}


SAFETENSORS = {
    "an empty header": ({}, b"", "no parameters"),
    "metadata alone": ({"__metadata__": {"format": "pt"}}, b"", "no parameters"),
    "a header that is no JSON": (b"hello", ONE, "not a safetensors file"),
    "a header of other bytes": (b"\xff\xfe{", ONE, "not a safetensors file"),
    "a header of brackets": (b"[" * 10**6, ONE, "not a safetensors file"),
    "metadata of numbers": ({"a": ENTRY, "__metadata__": {"epoch": 3}}, ONE, "not a safetensors"),
    "metadata in a list": ({"a": ENTRY, "__metadata__": [1]}, ONE, "not a safetensors file"),
    "a type that nobody knows": (one_tensor("F99"), ONE, "not a safetensors file"),
    "numbers of 8 bits": (one_tensor("F8_E4M3", (4,)), ONE, ("'a'", "float8", "16, 32 or 64")),
    "numbers of 4 bits": (one_tensor("F4", (8,)), ONE, ("'a'", "float4")),
    "complex numbers": (one_tensor("C64", size=8), 2 * ONE, ("'a'", "complex64")),
    "a shape of terabytes": (one_tensor(shape=(10**12,), size=4 * 10**12), ONE, "truncated"),
    "a shape beyond numbers": (one_tensor(shape=(2**62, 2**62)), ONE, "truncated"),
    "a negative shape": (one_tensor(shape=(-1,)), ONE, "truncated"),
    "data cut off": (one_tensor(), ONE[:2], "truncated"),
    "a NaN": (one_tensor(), struct.pack("<f", np.nan), ("'a' has 1 of 1", "not finite")),
    "an infinity": (
        one_tensor(shape=(2,), size=8),
        struct.pack("<ff", 1, -np.inf),
        ("'a' has 1 of 2", "earlier checkpoint"),
    ),
    "a NaN of 16 bits": (one_tensor("BF16", size=2), b"\xc0\x7f", "'a' has 1 of 1"),
    "settings that are text": (
        {"a": ENTRY, "__metadata__": {"config": "none"}},
        ONE,
        ("settings inside", "got 'none'"),
    ),
    "settings in a list": ({"a": ENTRY, "__metadata__": {"config": "[1]"}}, ONE, "got [1]"),
    "settings of brackets": (
        {"a": ENTRY, "__metadata__": {"config": "[" * 10**5 + "]" * 10**5}},
        ONE,
        "settings inside",
    ),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors(tmp_path, name):
    header, data, words = SAFETENSORS[name]
    path = write_safetensors(tmp_path / "bad.safetensors", header, data)
    assert "bad.safetensors" in refused(words, checkpoint.load, path)


@pytest.mark.parametrize("length", [0, 4, 8, 20, 60])
def test_truncated_safetensors(tmp_path, length):
    path = write_safetensors(tmp_path / "cut.safetensors", one_tensor())
    path.write_bytes(path.read_bytes()[:length])
    refused("cut.safetensors: truncated", checkpoint.load, path)


@pytest.mark.parametrize("length", [2**63, 10**9, 3])
def test_a_safetensors_header_of_another_length_than_it_says(tmp_path, length):
    path = write_safetensors(tmp_path / "cut.safetensors", one_tensor(), length=length)
    refused("cut.safetensors: truncated", checkpoint.load, path)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"format": "pt"}, {"format": "pt"}),  # as Hugging Face and timm write it
        ({"model": "resnet50"}, {}),
        ({"epoch": "9" * 5000}, {"epoch": "9" * 5000}),
        ({"epoch": "[" * 10**5}, {"epoch": "[" * 10**5}),
        ({str(i): "x" for i in range(5000)}, {str(i): "x" for i in range(5000)}),
    ],
    ids=["pt", "model", "digits", "brackets", "many"],
)
def test_metadata_of_others_does_not_get_in_the_way(tmp_path, metadata, expected):
    path = write_safetensors(tmp_path / "x.safetensors", {"a": ENTRY, "__metadata__": metadata})
    content = checkpoint.load(path)
    assert content.pop("model") == {"a": torch.ones(1)}
    assert content == expected
    assert read_weights(str(path)) == {"a": torch.ones(1)}


# --- weights -------------------------------------------------------------------------------------

STATES = {
    "no dictionary": (3, "'model' entry"),
    "a list": ([torch.ones(1)], "'model' entry"),
    "numbers for tensors": ({"a": 1.0}, "'model' entry with named tensors"),
    "a module's layers": ({"a": {"weight": torch.ones(1)}}, "'model' entry"),
    "nothing": ({}, "no parameters"),
    "whole numbers as names": ({0: torch.ones(1)}, ("names of weights must be text", "got 0")),
    "a NaN among many": (
        {"fine": torch.ones(3), "head.weight": torch.tensor([1.0, np.nan, np.inf, 2.0])},
        ("bad.pth", "'head.weight' has 2 of 4", "not finite"),
    ),
    "a NaN in half precision": ({"a": torch.tensor([np.nan]).half()}, "'a' has 1 of 1"),
    "complex numbers": ({"a": torch.ones(2, dtype=torch.complex64)}, ("'a'", "complex64")),
    "a sparse tensor": ({"a": torch.eye(3).to_sparse()}, ("'a'", "sparse")),
    "a tensor without numbers": ({"a": torch.ones(2, device="meta")}, ("'a'", "meta")),
    "one number a trillion times": ({"a": torch.ones(1).expand(10**12)}, "claims to be of shape"),
    "our names and the published": ({"transformer.x": torch.ones(1)}, "transformer.x"),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_weights(tmp_path, name):
    state, words = STATES[name]
    torch.save({"model": state}, tmp_path / "bad.pth")
    refused(words, checkpoint.load, tmp_path / "bad.pth")


@pytest.mark.parametrize("entry", ["model", "state_dict"])
def test_imagenet_weights_that_are_not_finite(tmp_path, entry):
    torch.save({entry: {"conv1.weight": torch.tensor([np.nan])}}, tmp_path / "bad.pth")
    refused(("bad.pth: 'conv1.weight' has 1 of 1"), read_weights, str(tmp_path / "bad.pth"))


@pytest.mark.parametrize(
    ("own", "given", "words"),
    [
        (torch.float32, torch.int64, "a: torch.int64, expected torch.float32"),
        (torch.float32, torch.bool, "a: torch.bool, expected torch.float32"),
        (torch.int64, torch.float32, "a: torch.float32, expected torch.int64"),
    ],
)
def test_weights_of_another_kind_of_number(own, given, words):
    module = torch.nn.Module()
    module.register_buffer("a", torch.ones(2, dtype=own))
    refused(words, checkpoint.load_weights, module, {"a": torch.ones(2, dtype=given)})


def test_parts_to_ignore_that_are_in_no_name():
    """A slip would otherwise load what was to stay at its initial values."""
    module = torch.nn.Linear(2, 1)
    words = ("--finetune_ignore 'class_embed'", "weight, bias")
    ignore = ["bias", "class_embed"]
    refused(words, checkpoint.load_weights, module, module.state_dict(), ignore)


@pytest.mark.parametrize("given", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_fit(given):
    module = torch.nn.Linear(2, 1, bias=False)
    checkpoint.load_weights(module, {"weight": torch.ones(1, 2, dtype=given)})
    assert module.weight.dtype == torch.float32 and bool((module.weight == 1).all())


# --- trainings to resume -------------------------------------------------------------------------


def training():
    """The checkpoint of a training of two parameters, one of which never had a gradient."""
    weights = {"a": torch.ones(2, 3), "b": torch.ones(4), "mean": torch.zeros(1)}
    group = {"lr": 1e-4, "name": "rest", "params": [0, 1], "param_names": ["a", "b"]}
    moments = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(2, 3)}
    moments["exp_avg_sq"] = torch.zeros(2, 3)
    return {
        "model": weights,
        "optimizer": {"state": {0: moments}, "param_groups": [group]},
        "scaler": {},
        "step": 7,
        "epoch": 1,
        "record": {"epoch": 1, "step": 7},
        "config": {},
    }


MEANS = {"sums": {"loss": 3.0}, "counts": {"loss": 2}}


def nan(tensor):
    tensor.view(-1)[0] = np.nan


TRAININGS = {
    "no optimizer": (lambda c: c.pop("optimizer"), ("no optimizer", "--pretrain_model_path")),
    "no epoch": (lambda c: c.pop("epoch"), "no epoch"),
    "no step and record": (lambda c: (c.pop("step"), c.pop("record")), "no step, record"),
    "an epoch as text": (lambda c: c.update(epoch="1"), ("'epoch'", "a number", "got '1'")),
    "a negative epoch": (lambda c: c.update(epoch=-2), "'epoch' has to be a number; got -2"),
    "a record of no epoch": (lambda c: c.update(epoch=-1), "'epoch' has to be that of its record"),
    "nothing finished": (lambda c: c.update(epoch=-1, record=None), "'within' has to be"),
    "an odd part of an epoch": (
        lambda c: c.update(within={"epoch": 2, "step": "3", "seconds": 1.0, "means": MEANS}),
        ("'within' has to be", "a number 'step'"),
    ),
    "means of nothing": (
        lambda c: c.update(within={"epoch": 2, "step": 3, "seconds": 1.0, "means": None}),
        "'within' has to be a dictionary with 'seconds' and 'means'",
    ),
    "batches of nothing": (
        lambda c: c.update(batches={"batch_size": 4, "parts": 0, "accumulation_steps": 1}),
        "'batches' has to be a dictionary with a number 'parts'",
    ),
    "averaged weights that are NaN": (
        lambda c: c.update(average={"steps": 7, "model": {"a": torch.full((2,), np.nan)}}),
        ("averaged weights", "not finite"),
    ),
    "half a step": (lambda c: c.update(step=0.5), "'step' has to be a number; got 0.5"),
    "True as a step": (lambda c: c.update(step=True), "'step'"),
    "a record in a list": (lambda c: c.update(record=[1]), "'record' has to be a dictionary"),
    "a scaler that is none": (lambda c: c.update(scaler=3), "'scaler' has to be a dictionary"),
    "an optimizer in a list": (lambda c: c.update(optimizer=[1]), "'state' and 'param_groups'"),
    "no state": (lambda c: c["optimizer"].pop("state"), "'state' and 'param_groups'"),
    "no groups": (lambda c: c["optimizer"].pop("param_groups"), "'state' and 'param_groups'"),
    "groups of nothing": (lambda c: c["optimizer"].update(param_groups=[]), "a list of groups"),
    "groups in text": (lambda c: c["optimizer"].update(param_groups="x"), "list its 'params'"),
    "a group without parameters": (
        lambda c: c["optimizer"]["param_groups"][0].pop("params"),
        "list its 'params'",
    ),
    "parameters by name": (
        lambda c: c["optimizer"]["param_groups"][0].update(params=["a", "b"]),
        "list its 'params'",
    ),
    "too few names": (
        lambda c: c["optimizer"]["param_groups"][0].update(param_names=["a"]),
        "name each of its 2 parameters",
    ),
    "a name that the model lacks": (
        lambda c: c["optimizer"]["param_groups"][0].update(param_names=["a", "c"]),
        ("that its model lacks", "'c'"),
    ),
    "the same number twice": (
        lambda c: c["optimizer"]["param_groups"][0].update(params=[0, 0]),
        "name a parameter twice",
    ),
    "an empty state after steps": (
        lambda c: c["optimizer"].update(state={}),
        "optimizer's state of 7 steps is empty",
    ),
    "a state by text": (
        lambda c: c["optimizer"].update(state={"0": {}}),
        "belong to the parameters of its groups",
    ),
    "a state of another parameter": (
        lambda c: c["optimizer"]["state"].update({9: {}}),
        "belong to the parameters of its groups",
    ),
    "a truncated entry": (
        lambda c: c["optimizer"]["state"][0].pop("exp_avg_sq"),
        "hold step, exp_avg, exp_avg_sq of a",
    ),
    "an entry that is none": (
        lambda c: c["optimizer"]["state"].update({0: None}),
        "hold step, exp_avg, exp_avg_sq of a",
    ),
    "moments of another shape": (
        lambda c: c["optimizer"]["state"][0].update(exp_avg=torch.zeros(3, 2)),
        ("exp_avg of a", "(2, 3)", "got (3, 2)"),
    ),
    "a step of two": (
        lambda c: c["optimizer"]["state"][0].update(step=torch.ones(2)),
        "the optimizer's step of a",
    ),
    "moments that are not finite": (
        lambda c: nan(c["optimizer"]["state"][0]["exp_avg"]),
        "the optimizer's exp_avg of a has 1 of 6 values that are not finite",
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_to_resume(name):
    spoil, words = TRAININGS[name]
    content = copy.deepcopy(training())
    spoil(content)
    assert "here.pth: the" in refused(words, check_training, content, "here.pth")


def test_trainings_that_can_be_resumed():
    check_training(training(), "here.pth")
    older = training()
    del older["scaler"], older["optimizer"]["param_groups"][0]["param_names"]
    check_training(older, "here.pth")
    untouched = training() | {"step": 0}
    untouched["optimizer"]["state"] = {}
    check_training(untouched, "here.pth")


def test_a_training_is_checked_before_anything_is_built(tmp_path, monkeypatch, capsys):
    """And weights alone can be evaluated."""
    monkeypatch.setattr(main, "build_model", None)
    content = training()
    del content["optimizer"]["state"]
    checkpoint.save(tmp_path / "bad.pth", content | {"config": {"model": "uniphd"}})
    command = ["-c", TINY, "--device", "cpu", "--output_dir", str(tmp_path / "output")]
    assert main.main([*command, "--resume", str(tmp_path / "bad.pth")]) == 2
    assert "'state' and 'param_groups'" in capsys.readouterr().err
    arguments = main.build_parser().parse_args(["--eval", "--resume", str(tmp_path / "bad.pth")])
    assert main.read_start(arguments, "uniphd")[1] is None


# --- stored settings -----------------------------------------------------------------------------


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


SETTINGS = {
    "a width of terabytes": ({"hidden_dim": 2**40}, "'hidden_dim' must be"),
    "layers without end": ({"decoder_layers": 10**9}, "'decoder_layers' must be"),
    "everything at its largest": (
        {"hidden_dim": 4096, "feedforward_dim": 65536, "encoder_layers": 64},
        ("less than about 1e9 parameters", "hidden_dim = 4096"),
    ),
    "groups without end": ({"num_groups": 10**12}, "'num_groups' must be"),
    "a Swin of terabytes": ({"backbone_options": {"embed_dim": 2**50}}, "embed_dim must be"),
    "a Swin that is wide and deep": (
        {"backbone_options": {"embed_dim": 4096, "depths": [90, 90, 90, 90]}},
        "a Swin of",
    ),
    "stages without end": (
        {"backbone_options": {"depths": [1, 1, 10**9, 1]}},
        "depths must be four",
    ),
    "a window of gigabytes": ({"backbone_options": {"window_size": 10**4}}, "window_size must be"),
    "a number of 400 digits": ({"backbone_options": {"embed_dim": 10**400}}, "embed_dim' must be"),
    "text for a number": ({"num_heads": "8"}, ("'num_heads' must be a whole number", "got '8'")),
    "a tensor for a number": ({"lr": torch.ones(100, 100)}, "'lr' must be a number"),
    "a tensor for a word": ({"within_type": torch.ones(3)}, "'within_type' must be"),
    "a tensor for what was retired": ({"mask_dim": torch.ones(3)}, "Unknown setting 'mask_dim'"),
    "bytes for a name": ({"backbone": b"swin"}, "'backbone' must be text"),
    "a list of lists": ({"lr_drop_epochs": nested(200)}, "'lr_drop_epochs[0]' must be"),
    "lists inside of lists": (
        {"backbone_options": {"depths": nested(200)}},
        "'backbone_options.depths' must be",
    ),
    "a list without end": ({"lr_drop_epochs": [1] * 10**4}, "'lr_drop_epochs' must be"),
    "a text without end": ({"text_encoder": "a" * 10**6}, "'text_encoder' must be text"),
    "a zero byte": ({"text_encoder": "a\0b"}, "'text_encoder' must be text"),
    "whole numbers as names": ({1: 2}, "Unknown setting '1'"),
    "whole numbers as names inside": ({"backbone_options": {1: 2}}, "cannot be the name"),
    "pairs as names": ({("lr", 1): 2}, "Unknown setting"),
    "a name without end": ({"x" * 10**5: 2}, "Unknown setting"),
    "a setting that nobody knows": ({"lrs": 1}, "Did you mean 'lr'"),
    "a list of settings": ([1], "settings inside"),
    "text": ("lr = 3", "settings inside"),
    "another model": ({"model": "grouppose"}, ("a checkpoint of the model 'grouppose'", ".py")),
    "a model that nobody knows": ({"model": "yolo"}, "a checkpoint of the model 'yolo'"),
    "a list of models": ({"model": ["uniphd"]}, "a checkpoint of the model ['uniphd']"),
    "settings that do not go together": ({"num_heads": 5}, "multiple of num_heads"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_stored_settings(tmp_path, monkeypatch, name):
    """Nothing is allocated: the message comes before the first module of the model."""
    settings, words = SETTINGS[name]
    monkeypatch.setattr(swin, "SwinTransformer", None)
    path = tmp_path / "bad.pth"
    if isinstance(settings, dict):
        settings = {"model": "uniphd", **settings}
    torch.save({"model": {"a": torch.ones(1)}, "config": settings}, path)
    assert "bad.pth" in refused(words, Predictor.from_checkpoint, path, "cpu")


def test_settings_that_a_checkpoint_lacks_are_taken_from_today(tmp_path, caplog):
    with caplog.at_level("INFO", logger="uniphd"):
        config = Config.from_stored({"lr": 3.0, "eval_triggers": ["text"]}, "old.pth")
    assert (config.lr, config.num_groups, config.eval_prompts) == (3.0, 20, ["text"])
    (message,) = [record.getMessage() for record in caplog.records]
    assert "old.pth: took today's values of" in message and " num_groups," in message
    assert " lr," not in message and "eval_prompts" not in message


def test_weights_without_settings_say_so_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "build_model", None)
    torch.save({"model": {"encoder.level_embedding": torch.ones(4, 64)}}, tmp_path / "bare.pth")
    words = ("bare.pth: there are no settings inside", "-c FILE")
    refused(words, Predictor.from_checkpoint, tmp_path / "bare.pth", "cpu")
    published = {"transformer.level_embed": torch.ones(4, 64)}
    torch.save({"model": published}, tmp_path / "published.pth")
    words = ("published.pth: there are no settings", "hidden_dim=256, not 64", "-c FILE")
    refused(words, Predictor.from_checkpoint, tmp_path / "published.pth", "cpu")


def test_settings_that_do_not_fit_the_weights_say_whose_they_are(tmp_path):
    cfg = small_config(write_roberta(tmp_path / "roberta"))
    path = tmp_path / "other.pth"
    weights = {"encoder.level_embedding": torch.ones(4, 32)}
    torch.save({"model": weights, "config": cfg.to_dict()}, path)
    words = ("other.pth: the model cannot be built with its own settings", "missing: ")
    refused(words, Predictor.from_checkpoint, path, "cpu")
    refused("built with the given settings", Predictor.from_checkpoint, path, "cpu", cfg)
    cfg.text_encoder = str(tmp_path / "nowhere")
    refused("Text encoder", Predictor.from_checkpoint, path, "cpu", cfg)
