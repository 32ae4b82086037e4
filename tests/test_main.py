"""The command line: settings and flags, the whole way on a small data set, clear errors."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import write_refhuman
from launch import ROOT, run_python

import main
import predict
from models import build_model
from util import checkpoint
from util.config import Config

TINY = str(ROOT / "config" / "uniphd_tiny.py")

# A model that trains in a moment.
SMALL = [
    "hidden_dim=64",
    "num_heads=4",
    "feedforward_dim=32",
    "encoder_layers=1",
    "decoder_layers=2",
    "num_groups=4",
    "mask_dim=16",
    "backbone_options.embed_dim=8",
    "backbone_options.num_heads=1,1,2,2",
    "eval_max_side=64",
    "batch_size=3",
    "prompts_per_image=1",
    "eval_batch_size=2",
    "num_workers=0",
    "lr_warmup_steps=0",
    "epochs=1",
]


def settings(*arguments):
    return main.read_config(main.build_parser().parse_args(["-c", TINY, *arguments]))


# --- flags ---------------------------------------------------------------------------------------


def test_flags_become_settings_and_options_win():
    cfg = settings(
        "--coco_path", "somewhere", "--dataset_file", "refhuman", "--no_mask",
        "--within_type", "self", "--freeze_text_encoder", "--seed", "5", "--num_workers", "7",
        "--amp", "--backbone", "resnet50", "--swin_pretrain_path", "swin.pth",
        "--eval_trigger", "point,text", "--options", "seed=6", "lr_drop_epochs=3,",
    )  # fmt: skip
    assert (cfg.coco_path, cfg.dataset, cfg.mask_head) == ("somewhere", "refhuman", False)
    assert (cfg.within_type, cfg.freeze_text_encoder, cfg.amp) == ("self", True, True)
    assert (cfg.seed, cfg.num_workers, cfg.backbone) == (6, 7, "resnet50")
    assert (cfg.backbone_pretrained, cfg.eval_triggers) == ("swin.pth", ["point", "text"])
    assert cfg.lr_drop_epochs == [3]


def test_the_optimizer_has_the_settings_rates(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        main.engine, "train", lambda *arguments, **_: seen.append((arguments[3], arguments[6]))
    )
    options = ["weight_decay=0.03", "lr=0.007", "clip_max_norm=0.7", "synthetic.val_length=2"]
    options += ["lr_warmup_steps=9", "checkpoint_every=4", "eval_every=6", "log_every=8"]
    arguments = ["--output_dir", str(tmp_path), "--device", "cpu", "--options", *options]
    assert main.main(arguments) == 0
    optimizer, training = seen[0]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.03}
    assert 0.007 in {group["lr"] for group in optimizer.param_groups}
    assert (training.clip_max_norm, training.schedule.warmup_steps) == (0.7, 9)
    assert (training.checkpoint_every, training.eval_every, training.log_every) == (4, 6, 8)


def test_without_flags_the_configuration_file_decides():
    assert settings() == Config.fromfile(TINY)


def test_train_trigger_limits_the_kinds():
    text = Config.fromfile(TINY).prompt_probabilities.text
    assert settings("--train_trigger", "text").prompt_probabilities.to_dict() == {
        "text": text,
        "scribble": 0.0,
        "point": 0.0,
    }
    limited = settings("--train_trigger", "scribble,point").prompt_probabilities
    kept = Config.fromfile(TINY).prompt_probabilities
    assert (limited.text, limited.scribble, limited.point) == (0.0, kept.scribble, kept.point)


def test_triggers():
    assert main.prompt_kinds("all") == ["text", "point", "scribble"]
    assert main.prompt_kinds("point") == ["point"]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown trigger 'words'; expected text"):
        main.prompt_kinds("text,words")


@pytest.mark.parametrize("flag", ["--local_rank", "--local-rank"])
def test_both_spellings_of_local_rank(flag):
    assert main.build_parser().parse_args([f"{flag}=3"]).local_rank == 3


def test_parameters_without_gradient_are_looked_for_unless_told_otherwise():
    parser = main.build_parser()
    assert parser.parse_args([]).find_unused_params
    assert parser.parse_args(["--find_unused_params"]).find_unused_params
    assert not parser.parse_args(["--no-find_unused_params"]).find_unused_params


# --- the whole way -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Flags of the data and model, and the output folder of one epoch with evaluation."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_refhuman(folder / "data", pairs={"train": 6, "val": 5})
    common = ["-c", TINY, "--dataset_file", "refhuman", "--coco_path", str(data)]
    common += ["--device", "cpu"]
    output = folder / "output"
    status = main.main(
        [*common, "--output_dir", str(output), "--save_log", "--note", "hello", "--options", *SMALL]
    )
    assert status == 0
    return common, output


def test_training_writes_settings_record_and_checkpoint(trained):
    _, output = trained
    cfg = Config.fromfile(output / "config.py")
    assert cfg.hidden_dim == 64
    saved = checkpoint.load(output / "checkpoint.pth")
    assert saved["config"] == cfg.to_dict()
    record = json.loads((output / "log.txt").read_text())
    assert record["note"] == "hello"
    assert set(record["eval"]) == {"text", "scribble", "point"}
    assert set(record["lr"]) == {"backbone", "text_encoder", "adjacency", "rest"}
    assert all(np.isfinite(value) for value in record["train"].values())
    text = (output / "info.txt").read_text()
    assert "keypoint AP" in text and "it/s" in text


def test_evaluation_of_the_checkpoint_repeats_the_metrics(trained, tmp_path, capsys):
    common, output = trained
    status = main.main(
        [*common, "--eval", "--resume", str(output / "checkpoint.pth"), "--output_dir",
         str(tmp_path), "--eval_trigger", "scribble", "--save_predictions", "--save_images", "2",
         "--options", *SMALL]
    )  # fmt: skip
    assert status == 0
    assert "keypoint AP" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "eval.json").read_text())
    assert metrics == {"scribble": json.loads((output / "eval.json").read_text())["scribble"]}
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert len(json.loads((tmp_path / "predictions_scribble.json").read_text())) == 5 * 4
    assert (tmp_path / "config_eval.py").is_file()


def test_the_published_layout_evaluates_without_any_other_weights(trained, tmp_path):
    common, output = trained
    state = checkpoint.load(output / "checkpoint.pth")["model"]
    published = {
        "model": {f"module.{k}": v for k, v in checkpoint.to_reference(state).items()},
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(published, tmp_path / "published.pth")
    status = main.main(
        [*common, "--eval", "--pretrain_model_path", str(tmp_path / "published.pth"),
         "--output_dir", str(tmp_path), "--eval_trigger", "text",
         # Neither the Swin file nor RoBERTa's weights are there.
         "--swin_pretrain_path", "missing.pth", "--options", *SMALL, "text_encoder_pretrained=True"]
    )  # fmt: skip
    assert status == 0
    metrics = json.loads((tmp_path / "eval.json").read_text())
    assert metrics == {"text": json.loads((output / "eval.json").read_text())["text"]}


@pytest.mark.slow
def test_the_published_model_at_full_size_evaluates(tmp_path):
    data = write_refhuman(tmp_path / "data", pairs={"val": 2}, size=(480, 640))
    # A folder with a tokenizer alone stands for roberta-base: the checkpoint has the weights.
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(ROOT / "config" / "tiny_text_encoder", tokenizer)
    (tokenizer / "config.json").unlink()
    cfg = Config.fromfile(ROOT / "config" / "uniphd.py")
    cfg.merge_from_dict({"text_encoder": str(tokenizer), "text_encoder_pretrained": False})
    model, _, _ = build_model(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == 184_031_828
    path = tmp_path / "published.pth"
    torch.save({"model": checkpoint.to_reference(model.state_dict())}, path)
    del model
    status = main.main(
        ["-c", str(ROOT / "config" / "uniphd.py"), "--coco_path", str(data), "--eval", "--resume",
         str(path), "--eval_trigger", "text", "--output_dir", str(tmp_path), "--device", "cpu",
         "--options", f"text_encoder={tokenizer}", "num_workers=0"]
    )  # fmt: skip
    path.unlink()  # pytest keeps the folders of three runs
    assert status == 0
    metrics = json.loads((tmp_path / "eval.json").read_text())["text"]
    assert metrics["num_samples"] == 2
    assert {"keypoint_ap", "mask_ap", "box_ap", "pckh", "oiou"} <= set(metrics)


def test_fine_tuning_leaves_out_what_it_is_told_to(trained, tmp_path):
    _, output = trained
    cfg = Config.fromfile(output / "config.py")
    start = checkpoint.load(output / "checkpoint.pth")
    torch.manual_seed(9)
    model, _, _ = main.build_with_weights(cfg, start, ["heads.class_heads"])
    torch.manual_seed(9)
    fresh, _, _ = build_model(cfg)
    for name, value in model.state_dict().items():
        expected = fresh.state_dict() if "heads.class_heads" in name else start["model"]
        assert torch.equal(value, expected[name]), name


def test_two_processes_train_and_resume(trained, tmp_path):
    common, output = trained
    (tmp_path / "checkpoint.pth").write_bytes((output / "checkpoint.pth").read_bytes())
    (tmp_path / "log.txt").write_bytes((output / "log.txt").read_bytes())
    results = run_python(
        ["main.py", *common, "--output_dir", tmp_path, "--resume", "auto", "--options", *SMALL,
         "epochs=2", "eval_triggers=scribble"],
        processes=2,
    )  # fmt: skip
    for result in results:
        assert result.returncode == 0, result.stderr
    assert "2 process(es)" in results[0].stdout
    assert "keypoint AP" not in results[1].stdout  # the main process alone reports
    records = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1]
    assert records[1]["eval"]["scribble"]["num_samples"] == 5
    assert checkpoint.load(tmp_path / "checkpoint.pth")["epoch"] == 1


def test_predict_writes_image_and_numbers(trained, tmp_path):
    common, output = trained
    image = next((output.parent / "data" / "images").iterdir())
    arguments = ["--checkpoint", str(output / "checkpoint.pth"), "--image", str(image)]
    arguments += ["--device", "cpu", "--output", str(tmp_path / "out" / "person.png")]
    assert predict.main([*arguments, "--scribble", "10,10,20,40,20,60"]) == 0
    record = json.loads((tmp_path / "out" / "person.json").read_text())
    assert record["prompt"] == {"scribble": [[10, 10], [20, 40], [20, 60]]}
    assert len(record["keypoints"]) == 17 and len(record["keypoints"]["left_wrist"]) == 3
    assert record["mask"]["size"] == [96, 128]
    assert (tmp_path / "out" / "person.png").stat().st_size > 1000
    assert predict.main([*arguments, "--text", "a person"]) == 0
    assert predict.main([*arguments, "--point", "500,20"]) == 2  # outside the image


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "config/nothing.py"], "config/nothing.py does not exist"),
        (["--options", "learning_rate=1"], "Unknown setting 'learning_rate'"),
        (["--options", "epoch=1"], "Did you mean 'epochs'?"),
        (["--coco_path", "/nowhere", "--dataset_file", "refhuman"], "/nowhere"),
        (["--dataset_file", "cooc"], "Unknown dataset 'cooc'"),
        (["--backbone", "swin_X"], "swin_X"),
        (["--within_type", "star"], "star"),
        (["--resume", "/nowhere.pth"], "/nowhere.pth: no such checkpoint file"),
        (["--resume", "a.pth", "--pretrain_model_path", "b.pth"], "both name the weights"),
        (["--options", "eval_triggers=words"], "words"),
        (["--train_trigger", "text", "--options", "prompt_probabilities.text=0"], "all zero"),
    ],
)
def test_user_errors_end_with_one_message(arguments, message, tmp_path, capsys):
    assert main.main(["--device", "cpu", "--output_dir", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error


def test_the_traceback_is_there_for_the_asking(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIPHD_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main.main(["-c", "config/nothing.py", "--output_dir", str(tmp_path)])


def test_an_error_in_a_loader_worker_loses_its_traceback(trained, tmp_path, capsys):
    common, output = trained
    data = write_refhuman(tmp_path / "data", pairs={"train": 2, "val": 2})
    image = data / "images" / "val_000.jpg"
    image.write_bytes(image.read_bytes()[:100])
    status = main.main(
        [*common, "--coco_path", str(data), "--eval", "--output_dir", str(tmp_path / "output"),
         "--options", *SMALL, "num_workers=1"]
    )  # fmt: skip
    assert status == 2
    error = capsys.readouterr().err
    assert str(image) in error
    assert "Traceback" not in error and "Caught" not in error


def test_sigterm_ends_a_training_in_order(trained, tmp_path):
    common, _ = trained
    process = subprocess.Popen(
        [sys.executable, "main.py", *common, "--output_dir", str(tmp_path), "--options", *SMALL,
         "epochs=1000", "eval_every=0"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 100
        while not (tmp_path / "checkpoint.pth").is_file() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, error
    assert "Traceback" not in error
    assert not list(tmp_path.glob(".*")) and not list(tmp_path.glob("*.tmp"))
    checkpoint.load(tmp_path / "checkpoint.pth")
