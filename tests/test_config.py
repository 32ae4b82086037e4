"""Settings: files with _base_, types, the rules of changing them, option values, writing."""

import argparse
import copy
import pickle
import runpy
from pathlib import Path

import pytest

from util import checkpoint
from util.config import (
    DECLARATIONS,
    Config,
    ConfigError,
    OptionsAction,
    _annotations,
    parse_option_value,
)
from util.errors import UserError
from util.setting_types import ListOf, Number, OrNone, OrRange, Table

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
        ("lr = 'fast'", "derived.py: Setting 'lr' must be a number; got 'fast'"),
        ("lr = float('nan')", "'lr' must be a number; got nan"),
        ("pretrained = open", "'pretrained' must be None, bool, int.*got <built-in function open>"),
        ("epochs: int = 3", "only a file without _base_ declares types: .*epochs"),
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


def deep_list(levels):
    return [deep_list(levels - 1)] if levels else []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epocs": 3}, r"Unknown setting 'epocs'. Did you mean 'epochs'\?"),
        ({"weights.dise": 1.0}, r"'weights.dise'. Did you mean 'weights.dice'\?"),
        ({"dice": 1.0}, r"Did you mean 'weights.dice'\?"),
        ({"lr.high": 1.0}, "'lr' is no dictionary"),
        ({"amp": 1}, "'amp' must be True or False; got 1"),
        ({"epochs": True}, "'epochs' must be a whole number; got True"),
        ({"epochs": 2.5}, "'epochs' must be a whole number; got 2.5"),
        ({"epochs": 10**5000}, "must be a whole number; got a huge int"),
        ({"lr": 10**400}, "'lr' must be a number; got 1000.*[.]{3}"),
        ({"name": 5}, "'name' must be text .in quotes where it looks like something else"),
        ({"triggers": [1]}, r"'triggers\[0\]' must be text"),
        ({"lr": None}, "'lr' must be a number; got None"),
        ({"pairs": None}, r"'pairs\[0\]\[0\]' must be a whole number; got None"),
        ({3: 1}, "Unknown setting '3'"),
        ({"backbone_options.copy": 1}, "'backbone_options.copy' cannot be the name of a setting"),
        ({"backbone_options._x": 1}, "cannot be the name"),
        ({"backbone_options": {"a": deep_list(40)}}, "'backbone_options.a' must be None, bool"),
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
    assert config.sizes == [1, 2]
    assert config.weights.inner.low == 3.0
    assert config.backbone_options.depths == [2, 2]


def test_attributes_obey_the_same_rules(base):
    config = Config.fromfile(base)
    config.weights.mask = 1
    assert config["weights"]["mask"] == 1.0
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        config.epoch = 3
    with pytest.raises(ConfigError, match="'weights.mask' must be a number; got 'heavy'"):
        config.weights.mask = "heavy"
    with pytest.raises(ConfigError, match="Did you mean 'weights.mask'"):
        config.weights.update(msk=2)
    with pytest.raises(AttributeError, match="Did you mean 'epochs'"):
        _ = config.epoch
    with pytest.raises(KeyError, match="Did you mean 'weights.mask'"):
        _ = config.weights["msk"]
    assert "epoch" not in config and config.get("epoch") is None and not hasattr(config, "epoch")
    with pytest.raises(ConfigError, match="'dump' cannot be the name of a setting"):
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


@pytest.mark.parametrize("text", ["[1,2", "1]", "(1,2]", "'a", "'a'b'", r"'C:\x'"])
def test_unmatched_brackets_and_quotes(text):
    with pytest.raises(ConfigError, match="unmatched|missing|not a string in quotes"):
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
    changes = {"name": "quote ' and \n newline \udc80", "backbone_options.depths": (1, 2)}
    config.merge_from_dict({**changes, "weights.mask": 1e-300})
    path = tmp_path / "run" / "config.py"
    config.dump(path)
    assert [file.name for file in path.parent.iterdir()] == ["config.py"]
    assert max(map(len, path.read_text().splitlines())) <= 100
    assert Config.fromfile(path) == config == Config.fromfile(path, base=base)
    again = Config.fromfile(path, base=base)
    again.merge_from_dict({"backbone_options.embed_dim": 8})  # still takes any key


def test_copies_are_independent(base):
    config = Config.fromfile(base)
    for copied in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), Config(config)):
        assert copied == config and type(copied.weights) is Config
        with pytest.raises(ConfigError, match="'weights.mask' must be a number"):
            copied.weights.mask = "heavy"
        copied.weights.mask = 9.0
        copied.triggers.append("scribble")
        assert config.weights.mask == 2.0
        assert config.triggers == ["text", "point"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.py")), ids=lambda path: path.name)
def test_every_configuration_of_the_project_reads_and_round_trips(path, tmp_path):
    config = Config.fromfile(path)
    config.dump(tmp_path / "config.py")
    assert Config.fromfile(tmp_path / "config.py") == config


# --- declared types ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def declared():
    return Config.fromfile(DECLARATIONS)


# As on a command line; several in a row are one value each.
REFUSED = {
    "model": ["1", "None"],
    "skeleton": ["17", "None"],
    "backbone": ["5", "None"],
    "backbone_options": ["3"],
    "backbone_pretrained": ["7"],
    "backbone_drop_path": ["2.0", "-0.1", "1.0"],
    "backbone_checkpointing": ["1", "maybe"],
    "backbone_freeze_norm": ["1"],
    "text_encoder": ["None"],
    "text_encoder_pretrained": ["yes"],
    "freeze_text_encoder": ["0"],
    "hidden_dim": ["0", "-32", "256.0", "1000000"],
    "num_heads": ["0", "-1"],
    "feedforward_dim": ["0"],
    "encoder_layers": ["0"],
    "encoder_points": ["0"],
    "encoder_checkpointing": ["1"],
    "decoder_checkpointing": ["1"],
    "mask_head_checkpointing": ["1"],
    "text_encoder_checkpointing": ["1"],
    "decoder_layers": ["0", "-3", "100000"],
    "decoder_points": ["0"],
    "dropout": ["1.0", "-0.5", "much"],
    "prompt_dropout": ["1.5"],
    "num_groups": ["0", "-1", "2.5", "many", "None", "True", "1,2"],
    "num_results": ["0", "2.5"],
    "decoder": ["detr"],
    "human_layers": ["0", "1.5"],
    "num_human_queries": ["0", "many"],
    "within_type": ["star"],
    "query_init": ["random"],
    "pose_head": ["1"],
    "mask_head": ["1"],
    "compile": ["on", "True"],
    "match_costs": ["2"],
    "match_costs.ce": ["-1", "None"],
    "loss_weights": ["[1]"],
    "loss_weights.dice_low": ["-0.1", "1e999"],
    "focal_alpha": ["-0.25", "1.5"],
    "focal_gamma": ["-2", "x"],
    "dataset": ["1"],
    "coco_path": ["None"],
    "pad_divisor": ["0", "-16", "16.0"],
    "pad_sides": ["0", "64,big"],
    "eval_max_side": ["0", "-5", "8", "1000000"],
    "eval_short_side": ["0", "31", "1,2"],
    "train_short_sides": ["[]", "0", "480,big", "480,-1"],
    "train_max_side": ["0"],
    "crop_short_sides": ["[]", "400,0"],
    "crop_range": ["600,384", "384", "384,500,600", "0,600", "a,b"],
    "flip_probability": ["1.1", "-0.1"],
    "augment": ["2"],
    "drop_cropped_keypoints": ["None"],
    "draft_decoding": ["None"],
    "prompts_per_image": ["0"],
    "share_image_features": ["1"],
    "num_workers": ["-1", "1.5"],
    "synthetic.train_length": ["0"],
    "synthetic.val_length": ["-1"],
    "synthetic.image_size": ["0,0", "192", "192,[300,200]", "192,[300,200,100]", "47,192"],
    "synthetic.num_people": ["0,1", "6,1", "1", "1,100"],
    "synthetic.difficulty": ["1.5", "-1"],
    "synthetic.caption_kinds": ["[]", "1"],
    "synthetic.min_area": ["2"],
    "synthetic.curriculum": ["1"],
    "synthetic.mixture": ["1"],
    "prompt_probabilities": ["0.5"],
    "prompt_probabilities.text": ["-0.1", "often"],
    "prompt_probabilities.box": ["-1"],
    "batch_size": ["0", "-4"],
    "epochs": ["0", "-1", "1e2"],
    "lr": ["abc", "0", "-1e-4", "None", "1e999"],
    "lr_backbone": ["-1"],
    "lr_text_encoder": ["-1"],
    "lr_adjacency": ["-1"],
    "lr_drop_epochs": ["0", "-3", "11,x"],
    "lr_warmup_steps": ["-1"],
    "weight_decay": ["-1"],
    "clip_max_norm": ["-0.1"],
    "amp": ["1", "float64", "None"],
    "gradient_bucket_mb": ["0", "-1", "5000"],
    "gradient_bfloat16": ["1"],
    "seed": ["-1", "9223372036854775808"],
    "accumulation_steps": ["0", "-1"],
    "ema_decay": ["-0.1", "1"],
    "checkpoint_every": ["-1"],
    "checkpoint_steps": ["-1"],
    "checkpoint_minutes": ["-1"],
    "keep_checkpoints": ["0", "-1"],
    "eval_every": ["-1"],
    "eval_prompts": ["1", "None"],
    "select_results": ["1", "l1,0.3"],
    "eval_batch_size": ["0", "-1"],
    "log_every": ["0", "-1"],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in REFUSED.items() for text in texts]
)
def test_a_wrong_value_is_one_clear_error(declared, name, text):
    config = Config(declared)
    value = parse_option_value(text)
    with pytest.raises(UserError) as error:
        config.merge_from_dict({name: value})
    message = str(error.value)
    assert message.startswith(f"Setting '{name}") and "; got " in message
    assert "must be" in message or "is a dictionary" in message
    assert config == declared


def test_every_setting_has_a_type_with_a_range_and_refuses_something(declared, tmp_path):
    annotated = _annotations(runpy.run_path(str(DECLARATIONS)))
    assert set(annotated) == set(declared)
    assert {name.partition(".")[0] for name in REFUSED} == set(declared)

    def numbers(setting_type):
        if isinstance(setting_type, Number):
            yield setting_type
        elif isinstance(setting_type, ListOf | OrNone | OrRange):
            yield from numbers(setting_type.inner)
        elif isinstance(setting_type, Table):
            for inner in (*setting_type.types.values(), setting_type.others):
                yield from numbers(inner)

    for name, setting_type in annotated.items():
        for number in numbers(setting_type):
            assert number.least is not None or number.above is not None, name


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        ([{"image_size": [64, 64]}], "until_epoch has to be there"),
        ([{"until_epoch": 3, "size": 64}], "with some of the keys until_epoch, image_size"),
        ([{"until_epoch": 3, "difficulty": 2}], r"'synthetic.curriculum\[0\].difficulty' must be"),
        (
            [{"until_epoch": 0}],
            r"\[0\].until_epoch' must be a whole number of at least 1",
        ),
    ],
)
def test_a_wrong_stage_of_the_curriculum(declared, curriculum, message):
    with pytest.raises(ConfigError, match=message):
        Config(declared).merge_from_dict({"synthetic.curriculum": curriculum})


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ([{"difficulty": 0.3}], "share has to be there"),
        ([{"share": 0.3, "until_epoch": 2}], "with some of the keys share, image_size"),
        ([{"share": 1.5}], r"'synthetic.mixture\[0\].share' must be"),
    ],
)
def test_a_wrong_share_of_the_mixture(declared, mixture, message):
    with pytest.raises(ConfigError, match=message):
        Config(declared).merge_from_dict({"synthetic.mixture": mixture})


def test_what_settings_take_beside_their_defaults(declared):
    config = Config(declared)
    stage = {"until_epoch": 3, "image_size": [64, [64, 96]], "difficulty": 0}
    config.merge_from_dict(
        {
            "prompt_probabilities.box": 1,  # a kind that a program registers
            "backbone_options.depths": [1, 1, 2, 1],
            "lr_drop_epochs": [],
            "eval_batch_size": 3,
            "seed": 0,
            "clip_max_norm": 0,
            "synthetic.curriculum": [stage],
            "synthetic.caption_kinds": "action",
        }
    )
    assert config.prompt_probabilities == {"text": 0.5, "scribble": 0.25, "point": 0.25, "box": 1.0}
    assert config.synthetic.curriculum == [stage]
    stage["image_size"][1][0] = 1
    assert config.synthetic.curriculum[0]["image_size"] == [64, [64, 96]]
    assert config.synthetic.caption_kinds == ["action"]
    assert (config.eval_batch_size, config.clip_max_norm, config.lr_drop_epochs) == (3, 0.0, [])
    with pytest.raises(ConfigError, match="Did you mean 'loss_weights.mask'"):
        config.loss_weights.masks = 1.0


def test_types_travel_with_derived_files_and_copies(tmp_path):
    (tmp_path / "mine.py").write_text(f"_base_ = {str(DECLARATIONS)!r}\nnum_groups = 7\n")
    (tmp_path / "bad.py").write_text("_base_ = 'mine.py'\nnum_groups = 0\n")
    message = "bad.py: Setting 'num_groups' must be a whole number of at least 1 and at most 10000"
    with pytest.raises(ConfigError, match=message + "; got 0"):
        Config.fromfile(tmp_path / "bad.py")
    config = Config.fromfile(tmp_path / "mine.py")
    for copied in (config, copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        with pytest.raises(ConfigError, match="'num_groups' must be a whole number"):
            copied.num_groups = -1
        with pytest.raises(ConfigError, match="'loss_weights.ce' must be a number of at least 0"):
            copied.loss_weights.ce = -1
        copied.hidden_dim = 100
        with pytest.raises(ConfigError, match="hidden_dim"):
            copied.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: float = 1e-4", "'lr' must be declared with a type of util.setting_types"),
        ("lr: Number()", "'lr' must be declared with a type of util.setting_types and with a valu"),
        ("lr: Number(above=0) = 0.0", "base.py: Setting 'lr' must be a number above 0; got 0.0"),
    ],
)
def test_a_wrong_declaration(tmp_path, text, message):
    path = tmp_path / "base.py"
    path.write_text(f"from util.setting_types import Number\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        Config.fromfile(path)


def test_annotations_of_python_3_14():
    assert _annotations({"__annotate__": lambda form: {"lr": form}}) == {"lr": 1}
    assert _annotations({"__annotations__": {"lr": 2}}) == {"lr": 2}
    assert _annotations({}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "hidden_dim must be a multiple of num_heads; got .* 256, num_heads = 5"),
        ({"hidden_dim": 40}, "hidden_dim must be a multiple of 32; got hidden_dim = 40."),
        ({"pad_divisor": 4}, "mask_head, pad_divisor must be a multiple of 8; .* pad_divisor = 4"),
        ({"pad_divisor": 12}, "pad_divisor = 12"),
        ({"dataset": "synthetic", "skeleton": "crowdpose"}, "synthetic people have COCO's"),
        ({"decoder": "grouppose", "within_type": "self"}, "only the pose_centric decoder has a"),
        ({"pose_head": False, "within_type": "none"}, "keypoint queries need a within_type"),
        ({"model": "grouppose", "mask_head": False, "pose_head": False}, "only model uniphd has"),
        ({"decoder": "edpose", "query_init": "learned"}, "decoder edpose has pose_head = True"),
        ({"decoder": "edpose", "decoder_layers": 2}, "more decoder_layers than human_layers"),
        ({"num_human_queries": 19}, "at least num_groups; got .* 19, num_groups = 20"),
        ({"decoder": "edpose", "num_human_queries": 30}, None),
        ({"pad_divisor": 8}, None),
        ({"pad_divisor": 1, "mask_head": False}, None),
    ],
)
def test_conditions_between_settings(declared, changes, message):
    config = Config(declared)
    config.merge_from_dict(changes)
    if message is None:
        config.check()
        return
    with pytest.raises(ConfigError, match=message):
        config.check()


# --- other names and stored settings -------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "setting", "result"),
    [
        ("lr_drop", 70, "lr_drop_epochs", [70]),
        ("num_body_points", 14, "skeleton", "crowdpose"),
        ("num_body_points", 17, "skeleton", "coco"),
        ("prompts_per_picture", 2, "prompts_per_image", 2),
        ("eval_triggers", ["text"], "eval_prompts", ["text"]),
    ],
)
def test_other_names_of_settings(declared, tmp_path, option, value, setting, result):
    config = Config(declared)
    config.merge_from_dict({option: value})
    assert config[setting] == result and option not in config
    path = tmp_path / "derived.py"
    path.write_text(f"_base_ = {str(DECLARATIONS)!r}\n{option} = {value!r}\n")
    assert Config.fromfile(path) == config == Config.from_stored({option: value}, "old.pth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_body_points": 15}, "Setting 'num_body_points' must be 17 or 14; got 15"),
        ({"num_body_points": [14]}, "must be 17 or 14"),
        ({"lr_drop": "late"}, r"'lr_drop_epochs\[0\]' must be a whole number"),
        ({"mask_dim": 8}, "Unknown setting 'mask_dim'"),
    ],
)
def test_wrong_values_under_other_names(declared, options, message):
    with pytest.raises(ConfigError, match=message):
        Config(declared).merge_from_dict(options)


def test_stored_settings_are_laid_over_those_of_today(declared):
    old = declared.to_dict()
    del old["eval_prompts"], old["log_every"]
    old |= {"mask_dim": 16, "eval_triggers": ["point"], "lr": 3}
    config = Config.from_stored(old, "old.pth")
    assert (config.eval_prompts, config.log_every, config.lr) == (["point"], 20, 3.0)
    assert set(config) == set(declared)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrs": 1}, "old.pth: Unknown setting 'lrs'. Did you mean 'lr'"),
        ({"num_groups": 10**9}, "old.pth: Setting 'num_groups' must be"),
        ({1: 2}, "old.pth: Unknown setting '1'"),
        ([1], r"old.pth: expected settings by name; got \[1\]"),
        (None, "old.pth: expected settings"),
    ],
)
def test_wrong_stored_settings_name_their_file(values, message):
    with pytest.raises(UserError, match=message):
        Config.from_stored(values, "old.pth")


def test_a_file_without_base_can_be_laid_over_the_declared_settings(tmp_path, declared):
    path = tmp_path / "config.py"  # as an earlier version wrote it
    path.write_text("lr = 1\neval_triggers = ['text']\nmask_dim = 16\n")
    config = Config.fromfile(path, base=DECLARATIONS)
    assert (config.lr, config.eval_prompts, config.epochs) == (1.0, ["text"], declared.epochs)
    assert Config.fromfile(DECLARATIONS, base=DECLARATIONS) == declared


def test_the_settings_of_the_kept_checkpoint_are_understood():
    path = DECLARATIONS.parents[1] / "weights" / "uniphd_tiny.safetensors"
    stored = checkpoint.load(path)["config"]
    config = Config.from_stored(stored, path)
    assert config.eval_batch_size == stored["eval_batch_size"]
    assert config.prompts_per_image == stored.get(
        "prompts_per_image", stored.get("prompts_per_picture")
    )
    config.check()


def test_none_empties_a_dictionary_that_takes_any_key():
    """So that another backbone can be chosen where the file names options of its own."""
    cfg = Config.fromfile(ROOT / "config" / "uniphd_tiny.py", base=DECLARATIONS)
    assert cfg.backbone_options.embed_dim == 24
    cfg.merge_from_dict({"backbone": "resnet18", "backbone_options": None})
    assert cfg.backbone_options.to_dict() == {}
    cfg.merge_from_dict({"backbone_options.window_size": 4})
    assert cfg.backbone_options.to_dict() == {"window_size": 4}
    with pytest.raises(ConfigError, match="'match_costs' is a dictionary"):
        cfg.merge_from_dict({"match_costs": None})
