"""Settings that lie: configuration files, options and devices, beyond REFUSED of test_config.py."""

from __future__ import annotations

import os
import zipfile

import pytest
import torch
from launch import ROOT
from outcomes import refused

from models.backbones.build import build_backbone
from util.config import DECLARATIONS, Config, ConfigError
from util.devices import find_device
from util.option_values import parse_option_value

BASE = f"_base_ = {str(DECLARATIONS)!r}\n"


# --- configuration files -------------------------------------------------------------------------

FILES = {
    "a syntax error": (b"lr = = 3", "cannot be read: SyntaxError"),
    "half a bracket": (b"loss_weights = dict(", "cannot be read: SyntaxError"),
    "an indented line": (b"  lr = 3\n", "IndentationError"),
    "zero bytes": (b"lr = 1\0", "cannot be read"),
    "bytes that are no text": (b"lr = '\xff\xfe'", "cannot be read"),
    "an error": (b"lr = 1 / 0", "ZeroDivisionError"),
    "an unknown name": (b"lr = learning_rate", "NameError"),
    "an import that fails": (b"import nothing_of_this_name", "ModuleNotFoundError"),
    "an end of the program": (b"raise SystemExit(0)", "SystemExit"),
    "calls without end": (b"def _f():\n    _f()\n_f()", "RecursionError"),
    "a function": (b"def helper():\n    pass\n", ("'helper' is a function", "with '_'")),
    "a function for a number": (b"lr = lambda: 3", "'lr' is a function"),
    "a class for a number": (b"lr = float", "'lr' must be a number"),
    "a module for a name": (b"import os as backbone", "'backbone' must be text"),
    "a generator": (b"lr_drop_epochs = (i for i in (1, 2))", "'lr_drop_epochs[0]' must be"),
    "a set": (b"lr_drop_epochs = {1, 2}", "'lr_drop_epochs[0]' must be"),
    "a name of ours misspelt": (b"learning_rate = 3", "Unknown setting 'learning_rate'"),
    "a key misspelt": (b"loss_weights = dict(msk=1)", "Did you mean 'loss_weights.mask'"),
    "a type of its own": (b"lr: float = 3", "only a file without _base_ declares types"),
    "a base that is a number": (b"_base_ = 3", "must be a file name or a list of them; got 3"),
    "a base in a dictionary": (b"_base_ = {'a': 1}", "must be a file name or a list of them"),
    "a list of other bases": (b"_base_ = ['a.py', 1]", "must be a file name or a list of them"),
    "a base that is not there": (b"_base_ = 'nothing.py'", "nothing.py (a _base_ of"),
    "a base that is a folder": (b"_base_ = '.'", "is a folder"),
    "itself as its base": (b"_base_ = 'bad.py'", "name each other as _base_: bad.py -> bad.py"),
    "a number of 5000 digits": (b"seed = 10**5000", "'seed' must be"),
    "a tree without end": (b"backbone_options = a = {}\na['b'] = a", ".b.b.b.b' must be"),
}


@pytest.mark.parametrize("name", FILES)
def test_configuration_files(tmp_path, name):
    content, words = FILES[name]
    path = tmp_path / "bad.py"
    path.write_bytes(content if b"_base_" in content else BASE.encode() + content)
    refused(words, Config.fromfile, path)
    refused("bad.py", Config.fromfile, path)


def test_what_is_no_configuration_file(tmp_path):
    refused("is a folder; name a Python file", Config.fromfile, tmp_path)
    refused("does not exist", Config.fromfile, tmp_path / "nothing.py")
    with zipfile.ZipFile(tmp_path / "checkpoint.pth", "w") as archive:
        archive.writestr("__main__.py", "lr = 3")  # which Python would run
    refused("checkpoint.pth cannot be read", Config.fromfile, tmp_path / "checkpoint.pth")


def test_a_file_without_base_is_laid_over_the_declared_settings(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("lr = 3\nimport os\nclass Helper: pass\ndef _helper(): pass\n")
    assert Config.fromfile(path, base=DECLARATIONS).lr == 3
    path.write_text("learning_rate = 3\n")
    refused("'learning_rate'", Config.fromfile, path, base=DECLARATIONS)


# --- values --------------------------------------------------------------------------------------

# Several values of a setting are tried one by one, as on a command line.
VALUES = {
    "text_encoder": ["a\0b", "a" * 5000, "[]"],
    "coco_path": ["a\0b", "a" * 5000],
    "model": ["a" * 5000],
    "eval_prompts": ["1," * 2000, "a\0b,"],
    "select_results": ["l1," * 2000, "a\0b,", "[[l1]]"],
    "lr_drop_epochs": ["1," * 2000, "[[]]", "nan,", "1e3,"],
    "train_short_sides": ["64," * 2000, "[64,[64]]"],
    "backbone_options": ["[1]", "deep"],
    "backbone_options.depths": ["9" * 30 + ",", "1," * 2000, "a" * 5000],
    "backbone_options.embed_dim": ["9" * 300, "1e999"],
    "synthetic": ["None"],
    "synthetic.image_size": ["64", "64,64,64", "[64,[96,64]]", "[64,[64]]", "64,x"],
    "synthetic.num_people": ["3,1", "1", "0,3", "1,15"],
    "synthetic.curriculum": ["3", "[3]", "[[]]"],
    "synthetic.mixture": ["3", "[3]", "[[]]"],
    "lr": ["nan", "inf", "-inf", "1e999", "9" * 400, "[]", "''", "True"],
    "seed": ["9" * 400, "1e3", "''"],
    "match_costs.oks": ["nan", "-0.1", "9" * 400],
    "prompt_probabilities.text": ["nan", "-1", "[]"],
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    declared = Config.fromfile(DECLARATIONS)
    for text in VALUES[name]:
        config = Config(declared)
        refused(name.partition(".")[0], config.merge_from_dict, {name: parse_option_value(text)})
        assert config == declared


CONDITIONS = {
    "no prompt at all": ({"prompt_probabilities": None}, "must not be all zero"),
    "prompts that are never drawn": (
        {f"prompt_probabilities.{kind}": 0 for kind in ("text", "point", "scribble")},
        "must not be all zero",
    ),
    "no prompt to evaluate with": ({"eval_prompts": []}, "must name a kind of prompt"),
    "a selection beside prompts": (
        {"select_results": ["l1"]},
        ("needs a model without prompts", "model = 'uniphd'"),
    ),
    "a selection where nobody is referred to": (
        {"select_results": ["l1"], "model": "grouppose", "dataset": "coco"},
        ("pairs of an image and a person", "dataset = 'coco'"),
    ),
    "a selection for the results of a whole image": (
        {"select_results": [None], "model": "grouppose", "dataset": "coco_prompted"},
        ("pairs of an image and a person", "dataset = 'coco_prompted'"),
    ),
    "an encoder of billions": (
        {"hidden_dim": 4096, "feedforward_dim": 65536, "encoder_layers": 64},
        ("about 1e9 parameters", "encoder_layers = 64", "feedforward_dim = 65536"),
    ),
    "points without end": (
        {"hidden_dim": 4096, "num_heads": 256, "encoder_points": 64},
        ("about 1e9 parameters", "encoder_points = 64"),
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name):
    changes, words = CONDITIONS[name]
    config = Config.fromfile(DECLARATIONS)
    config.merge_from_dict(changes)
    refused(words, config.check)


def test_a_model_without_prompts_needs_no_probabilities():
    config = Config.fromfile(ROOT / "config" / "grouppose.py")
    config.merge_from_dict({"prompt_probabilities": None})
    config.check()


def test_the_largest_known_models_are_allowed():
    config = Config.fromfile(DECLARATIONS)
    config.merge_from_dict({"hidden_dim": 1024, "feedforward_dim": 8192, "encoder_layers": 12})
    config.check()


# --- the syntax of --options ---------------------------------------------------------------------

OPTIONS = {
    "[1,2": "missing ']'",
    "1]": "unmatched ']'",
    "((1)": "missing ')'",
    "(1,2]": "unmatched ']'",
    "'abc": 'missing "\'"',
    '"abc': "missing '\"'",
    "[" * 9 + "]" * 8: "missing ']'",
    r"'\x'": "not a string in quotes",
    "[" * 5000 + "]" * 5000: "more than 16 brackets inside each other",
    "[" * 17 + "]" * 17: "more than 16 brackets inside each other",
    "[" + "1," * 5000: "missing ']'",
}


@pytest.mark.parametrize("text", OPTIONS, ids=lambda text: f"{text[:10]}{len(text)}")
def test_option_syntax(text):
    with pytest.raises(ConfigError) as caught:
        parse_option_value(text)
    assert OPTIONS[text] in str(caught.value) and len(str(caught.value)) < 500


# --- backbones -----------------------------------------------------------------------------------

BACKBONES = {
    "a network that nobody knows": ("resnet5000", {}, "Unknown backbone 'resnet5000'"),
    "no name": ("", {}, "Unknown backbone ''"),
    "options of a Swin for a ResNet": (
        "resnet50",
        {"embed_dim": 24},
        ("apply to Swin only", "--options backbone_options=None"),
    ),
    "options that Swin lacks": ("swin_T_224_1k", {"embed": 24}, "does not know: embed"),
    "a hundred options that Swin lacks": (
        "swin_T_224_1k",
        {f"option{i:03d}" * 5: 1 for i in range(100)},
        "does not know: option000",
    ),
    "a width of terabytes": ("swin_T_224_1k", {"embed_dim": 2**40}, "embed_dim must be"),
    "a width that is True": ("swin_T_224_1k", {"embed_dim": True}, "embed_dim must be"),
    "blocks without end": ("swin_T_224_1k", {"depths": [1, 1, 1, 10**9]}, "depths must be four"),
    "too few blocks": ("swin_T_224_1k", {"depths": [1, 1, 1]}, "depths must be four"),
    "a stage without blocks": ("swin_T_224_1k", {"depths": [1, 1, 0, 1]}, "depths must be four"),
    "a window of gigabytes": ("swin_T_224_1k", {"window_size": 10**5}, "window_size must be"),
    "an MLP without end": ("swin_T_224_1k", {"mlp_ratio": 1e30}, "mlp_ratio must be a number"),
    "an MLP of nothing": ("swin_T_224_1k", {"mlp_ratio": 0}, "mlp_ratio must be a number"),
    "heads that do not divide": ("swin_T_224_1k", {"num_heads": [5, 5, 5, 5]}, "5 heads"),
    "a Swin that is wide and deep": (
        "swin_T_224_1k",
        {"embed_dim": 4096, "depths": [50] * 4},
        ("parameters; expected at most 1e+09", "Lower embed_dim or depths"),
    ),
}


def build(name, options):
    return build_backbone(
        name=name,
        options=options,
        pretrained=None,
        drop_path=0.0,
        use_checkpointing=False,
        freeze_norm=True,
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(name):
    backbone, options, words = BACKBONES[name]
    refused(words, build, backbone, options)


def test_the_remedy_for_the_options_of_another_backbone_works():
    cfg = Config.fromfile(ROOT / "config" / "uniphd_tiny.py", base=DECLARATIONS)
    cfg.merge_from_dict({"backbone": "resnet18"})
    refused("--options backbone_options=None", build, cfg.backbone, dict(cfg.backbone_options))
    cfg.merge_from_dict({"backbone_options": parse_option_value("None")})
    assert build(cfg.backbone, dict(cfg.backbone_options)).num_channels == (64, 128, 256, 512)


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["foo", "", "cpu:", "cpu:x", "meta", "xla", "cpu:99", "cuda:-1"])
def test_devices_that_are_none(name):
    refused(f"--device {name}: ", find_device, name)


def test_devices_that_this_machine_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refused("PyTorch sees no CUDA device here. Use --device cpu", find_device, "cuda")
    refused("PyTorch sees no CUDA device here", find_device, torch.device("cuda:1"))
    refused("--device mps: PyTorch sees no such device here", find_device, "mps")
    assert find_device() == find_device("cpu") == find_device(torch.device("cpu"))


def test_devices_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused("--device cuda:2: there are 2 of them here, counted from 0", find_device, "cuda:2")
    assert find_device() == torch.device("cuda") and find_device("cuda:1").index == 1


def test_a_path_that_is_not_utf8_remains_possible():
    """Linux has such names of files; Python writes them with lone surrogates."""
    config = Config.fromfile(DECLARATIONS)
    config.coco_path = os.fsdecode(b"data/\xff")
    assert os.fsencode(config.coco_path) == b"data/\xff"
