"""Settings: files with _base_, the rules of changing them, option values, writing."""

import argparse
import copy
import pickle
from pathlib import Path

import pytest

from util.config import Config, ConfigError, OptionsAction, parse_option_value

ROOT = Path(__file__).parents[1]


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.py"
    path.write_text(
        "import os\n"
        "lr = 1e-4\n"
        "epochs = 20\n"
        "amp = False\n"
        "name = 'base'\n"
        "pretrained = None\n"
        "triggers = ['text', 'point']\n"
        "sizes = (384, 600)\n"
        "pairs = [(1, 2), (3, 4)]\n"
        "weights = dict(mask=2.0, dice=5.0, inner=dict(low=1.0))\n"
        "backbone_options = {}\n"
        "_private = 3\n"
    )
    return path


def derive(base, text, name="derived.py"):
    path = base.parent / name
    path.write_text(f"_base_ = 'base.py'\n{text}\n")
    return path


def test_a_derived_file_changes_what_it_names_and_keeps_the_rest(base):
    config = Config.fromfile(derive(base, "lr = 2e-4\nweights = dict(mask=0)"))
    assert config.lr == 2e-4
    assert config.epochs == 20
    assert config.weights.to_dict() == {"mask": 0.0, "dice": 5.0, "inner": {"low": 1.0}}
    assert type(config.weights.mask) is float
    assert "_private" not in config and "os" not in config


def test_bases_are_relative_to_their_file_and_later_ones_win(base):
    folder = base.parent / "ablation"
    folder.mkdir()
    (base.parent / "extra.py").write_text("epochs = 3\nnote = 'extra'\n")
    (folder / "both.py").write_text("_base_ = ['../base.py', '../extra.py']\namp = True\n")
    config = Config.fromfile(folder / "both.py")
    assert (config.epochs, config.note, config.amp, config.name) == (3, "extra", True, "base")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"derived.py: Unknown setting 'epoch'. Did you mean 'epochs'\?"),
        ("weights = dict(msk=0.0)", r"'weights.msk'. Did you mean 'weights.mask'\?"),
        ("lr = 'fast'", "'lr' is of type float.*got 'fast' of type str"),
        ("lr = float('nan')", "'lr' must be a finite number"),
        ("pretrained = open", "'pretrained' is of type builtin_function_or_method"),
        ("lr = ", "derived.py cannot be read: SyntaxError"),
        ("weights = 3", "'weights' is a dictionary with the keys mask, dice, inner"),
    ],
)
def test_a_faulty_derived_file_is_refused(base, text, message):
    with pytest.raises(ConfigError, match=message):
        Config.fromfile(derive(base, text))


def test_missing_and_circular_bases(tmp_path):
    (tmp_path / "a.py").write_text("_base_ = 'b.py'")
    with pytest.raises(FileNotFoundError, match=r"b\.py \(a _base_ of .*a\.py\) does not exist"):
        Config.fromfile(tmp_path / "a.py")
    (tmp_path / "b.py").write_text("_base_ = 'a.py'")
    with pytest.raises(ConfigError, match=r"a\.py -> b\.py -> a\.py"):
        Config.fromfile(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epocs": 3}, r"Unknown setting 'epocs'. Did you mean 'epochs'\?"),
        ({"weights.dise": 1.0}, r"'weights.dise'. Did you mean 'weights.dice'\?"),
        ({"dice": 1.0}, r"Did you mean 'weights.dice'\?"),
        ({"lr.high": 1.0}, "'lr' is no dictionary"),
        ({"amp": 1}, "type bool.*got 1 of type int"),
        ({"epochs": True}, "type int.*got True of type bool"),
        ({"epochs": 2.5}, "type int.*got 2.5 of type float"),
        ({"name": 5}, "quote a string that looks like a number"),
        ({"triggers": [1]}, "'triggers'.*type str"),
        ({"lr": None}, "type float.*got None"),
        ({"pairs": None}, "type list.*got None"),
    ],
)
def test_refused_options_change_nothing(base, options, message):
    config = Config.fromfile(base)
    before = config.to_dict()
    with pytest.raises(ConfigError, match=message):
        config.merge_from_dict({"lr": 7.0, **options})
    assert config.to_dict() == before


def test_accepted_options(base):
    config = Config.fromfile(base)
    config.merge_from_dict(
        {
            "lr": 1,
            "name": None,
            "pretrained": "file.pth",
            "triggers": "scribble",
            "sizes": [1, 2],
            "weights.inner.low": 3,
            "backbone_options.depths": [2, 2],
        }
    )
    assert config.lr == 1.0 and type(config.lr) is float
    assert config.name is None
    assert config.pretrained == "file.pth"
    assert config.triggers == ["scribble"]
    assert config.sizes == (1, 2)
    assert config.weights.inner.low == 3.0
    assert config.backbone_options.depths == [2, 2]


def test_attributes_obey_the_same_rules(base):
    config = Config.fromfile(base)
    config.weights.mask = 1
    assert config["weights"]["mask"] == 1.0
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        config.epoch = 3
    with pytest.raises(AttributeError, match="Did you mean 'epochs'"):
        _ = config.epoch
    with pytest.raises(ConfigError, match="would hide Config.dump"):
        Config({"dump": 3})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("True", True),
        ("false", False),
        ("None", None),
        ("text", "text"),
        ("1,2,3", [1, 2, 3]),
        ("1,", [1]),
        ("text,point", ["text", "point"]),
        ("[a,b],[c]", [["a", "b"], ["c"]]),
        ("[[1, 2], [3]]", [[1, 2], [3]]),
        ("((1,2),(3,))", ((1, 2), (3,))),
        ("[]", []),
        ("", ""),
        ("'12'", "12"),
        ("'a,b',c", ["a,b", "c"]),
        ("2024_01", "2024_01"),
        ("don't", "don't"),
        ("runs/a=b", "runs/a=b"),
    ],
)
def test_option_values(text, value):
    parsed = parse_option_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[1,2", "1]", "(1,2]", "'a"])
def test_unmatched_brackets_and_quotes(text):
    with pytest.raises(ConfigError, match="unmatched|missing"):
        parse_option_value(text)


def test_options_on_the_command_line(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=OptionsAction, default={})
    arguments = parser.parse_args(["--options", "a=1,2", "b.c=x=y", "--options", "d=None"])
    assert arguments.options == {"a": [1, 2], "b.c": "x=y", "d": None}
    for faulty in ("lr", "=3", "a=[1"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--options", faulty])
        assert "--options" in capsys.readouterr().err


def test_dump_reads_back_equal(base, tmp_path):
    config = Config.fromfile(base)
    config.merge_from_dict({"name": "quote ' and \n newline", "backbone_options.depths": (1, 2)})
    config.dump(tmp_path / "run" / "config.py")
    again = Config.fromfile(tmp_path / "run" / "config.py")
    assert again.to_dict() == config.to_dict()
    again.merge_from_dict({"backbone_options.embed_dim": 8})  # still takes any key


def test_copies_are_independent(base):
    config = Config.fromfile(base)
    for copied in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), Config(config)):
        assert copied == config
        copied.weights.mask = 9.0
        copied.triggers.append("scribble")
        assert config.weights.mask == 2.0
        assert config.triggers == ["text", "point"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.py")), ids=lambda path: path.name)
def test_every_configuration_of_the_project_reads_and_round_trips(path, tmp_path):
    config = Config.fromfile(path)
    config.dump(tmp_path / "config.py")
    assert Config.fromfile(tmp_path / "config.py") == config
