"""The command line: settings and flags, the whole way on a small data set, clear errors."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import write_refhuman
from launch import ROOT, run_python
from toy import ToyDataset

import main
import predict
from datasets import build_loader
from models import build_model
from util import checkpoint
from util.config import Config, ConfigError

TINY = str(ROOT / "config" / "uniphd_tiny.py")
WEIGHTS = ROOT / "weights" / "uniphd_tiny.safetensors"

# A model that trains in a moment.
SMALL = [
    "hidden_dim=64",
    "num_heads=4",
    "feedforward_dim=32",
    "encoder_layers=1",
    "decoder_layers=2",
    "num_groups=4",
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
    assert (cfg.backbone_pretrained, cfg.eval_prompts) == ("swin.pth", ["point", "text"])
    assert cfg.lr_drop_epochs == [3]


def test_settings_arrive_where_they_are_used(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(main.Trainer, "run", lambda trainer: seen.append(trainer))
    options = ["weight_decay=0.03", "lr=0.007", "clip_max_norm=0.7", "synthetic.val_length=2"]
    options += ["lr_warmup_steps=9", "lr_drop_epochs=3,5", "checkpoint_every=4", "eval_every=6"]
    options += ["checkpoint_steps=70", "checkpoint_minutes=1.5", "keep_checkpoints=5"]
    options += ["accumulation_steps=3", "ema_decay=0.75"]
    options += ["log_every=8", "epochs=11", "seed=12", "amp=False", "prompt_probabilities.text=0.9"]
    arguments = ["--output_dir", str(tmp_path), "--device", "cpu", "--start_epoch", "2"]
    arguments += ["--note", "hello", "--save_images", "3", "--save_predictions"]
    assert main.main([*arguments, "--eval_trigger", "point", "--options", *options]) == 0
    (trainer,) = seen
    optimization, evaluation = trainer.optimization, trainer.evaluation
    assert {g["weight_decay"] for g in optimization.optimizer.param_groups} == {0.03}
    assert 0.007 in {group["lr"] for group in optimization.optimizer.param_groups}
    assert (optimization.clip_max_norm, optimization.amp_dtype) == (0.7, None)
    schedule = optimization.schedule
    assert (schedule.warmup_steps, schedule.drop_epochs) == (9, (3, 5))
    assert (trainer.saving.every, trainer.saving.eval_every, trainer.log_every) == (4, 6, 8)
    assert (trainer.saving.steps, trainer.saving.minutes) == (70, 1.5)
    assert trainer.folder.keep_checkpoints == 5
    assert trainer.loader.batch_sampler.parts == 3
    trainer.average.update()
    with torch.no_grad():
        for averaged in trainer.average.model.parameters():
            averaged.zero_()
    trainer.average.update()
    weights = next(trainer.model.parameters())
    assert torch.allclose(next(trainer.average.model.parameters()), 0.25 * weights)
    assert (trainer.epochs, trainer.seed, trainer.note) == (11, 12, "hello")
    assert (trainer.prompts.seed, trainer.prompts.probabilities["text"]) == (12, 0.9)
    assert (evaluation.prompts, evaluation.num_images) == (("point",), 3)
    assert evaluation.save_predictions and evaluation.amp_dtype is None


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], ()),
        (["--save_log"], ("tensorboard",)),
        (["--tracker", "tensorboard"], ("tensorboard",)),
        (["--save_log", "--tracker", "wandb,tensorboard", "--tracker", "mlflow"],
         ("tensorboard", "wandb", "mlflow")),
    ],
)  # fmt: skip
def test_trackers_arrive(tmp_path, monkeypatch, flags, names):
    seen = []
    monkeypatch.setattr(main.Trainer, "run", lambda trainer: seen.append(trainer.folder.trackers))
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    arguments = ["--output_dir", str(tmp_path), "--device", "cpu", *flags]
    assert main.main([*arguments, "--options", "synthetic.val_length=2"]) == 0
    assert seen[0].names == names
    assert (tmp_path / "info.txt").is_file() == ("--save_log" in flags)


def test_settings_of_the_exchange_arrive(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(main, "GradientExchange", lambda model, **settings: seen.append(settings))
    monkeypatch.setattr(main.Trainer, "run", lambda trainer: None)
    arguments = ["--output_dir", str(tmp_path), "--device", "cpu", "--find_unused_params"]
    options = ["gradient_bucket_mb=3", "gradient_bfloat16=True", "synthetic.val_length=2"]
    assert main.main([*arguments, "--options", *options]) == 0
    assert seen == [{"bucket_mb": 3.0, "bfloat16": True, "find_unused_parameters": True}]


@pytest.mark.parametrize(
    ("flags", "dtype", "scaled"),
    [
        (["--amp", "--options", "synthetic.val_length=2"], torch.bfloat16, False),
        (["--options", "amp=bfloat16"], torch.bfloat16, False),
        (["--options", "amp=float16"], torch.float16, True),
        (["--options", "amp=False"], None, False),
    ],
)
def test_amp_is_for_training_and_evaluation(tmp_path, monkeypatch, flags, dtype, scaled):
    seen = []
    monkeypatch.setattr(main.Trainer, "run", lambda trainer: seen.append(trainer))
    assert main.main(["--output_dir", str(tmp_path), "--device", "cpu", *flags]) == 0
    assert seen[0].optimization.amp_dtype == seen[0].evaluation.amp_dtype == dtype
    assert seen[0].optimization.scaler.is_enabled() == scaled


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


@pytest.mark.parametrize(
    ("options", "training_batch", "evaluation_batch"),
    [
        (["batch_size=24"], 24, 24),  # the published command changes evaluation's batch
        (["batch_size=24", "eval_batch_size=3"], 24, 3),
        ([], 4, 4),
    ],
)
def test_batch_sizes(options, training_batch, evaluation_batch):
    paper = ["-c", str(ROOT / "config" / "uniphd.py"), "--options", "num_workers=0", *options]
    cfg = settings(*paper)
    for training, size in ((True, training_batch), (False, evaluation_batch)):
        loader = build_loader(cfg, ToyDataset(50, training=training))
        assert len(next(iter(loader.batch_sampler))) == size


def test_settings_that_do_not_go_together_are_refused_at_once(tmp_path, capsys):
    arguments = ["-c", TINY, "--output_dir", str(tmp_path / "run"), "--options", "pad_divisor=4"]
    assert main.main(arguments) == 2
    assert "with a mask_head, pad_divisor must be a multiple of 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["prompt_probabilities.tekst=1", "eval_prompts=tekst"])
def test_unknown_kinds_of_prompt_are_refused_at_once(tmp_path, capsys, option):
    arguments = ["-c", TINY, "--output_dir", str(tmp_path / "run"), "--options", option]
    assert main.main(arguments) == 2
    assert "Unknown kind of prompt 'tekst'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_settings_of_a_run_start_another(tmp_path):
    cfg = settings("--options", "lr=0.5", "prompt_probabilities.text=0")
    cfg.dump(tmp_path / "config.py")
    parser = main.build_parser()
    again = main.read_config(parser.parse_args(["-c", str(tmp_path / "config.py")]))
    assert again == cfg
    with pytest.raises(ConfigError, match="'epochs' must be a whole number of at least 1; got 0"):
        main.read_config(
            parser.parse_args(["-c", str(tmp_path / "config.py"), "--options", "epochs=0"])
        )


def test_options_win_over_train_trigger():
    option = "prompt_probabilities.point=0.5"
    limited = settings("--train_trigger", "text", "--options", option).prompt_probabilities
    assert (limited.scribble, limited.point) == (0.0, 0.5)


def test_triggers(capsys):
    parser = main.build_parser()
    assert parser.parse_args(["--eval_trigger", "all"]).eval_trigger == [
        "text",
        "point",
        "scribble",
    ]
    assert parser.parse_args(["--train_trigger", "point"]).train_trigger == ["point"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--train_trigger", "text,words"])
    assert "unknown kind of prompt 'words'; expected text" in capsys.readouterr().err


def test_both_spellings_of_save_images():
    for flag in ("--save_images", "--save_pictures"):
        assert main.build_parser().parse_args([flag, "3"]).save_images == 3


@pytest.mark.parametrize("further", [[], ["--amp"], ["--eval", "--resume", "X"]])
def test_the_published_command_of_group_pose_is_understood(further):
    command = "-c config/grouppose.py --backbone resnet50 --coco_path D"
    command += " --options num_body_points=14 epochs=80 lr_drop=70 --dataset_file=crowdpose"
    arguments = main.build_parser().parse_args([*command.split(), *further])
    assert (arguments.config_file, arguments.backbone) == ("config/grouppose.py", "resnet50")
    assert (arguments.coco_path, arguments.dataset_file) == ("D", "crowdpose")
    assert arguments.options == {"num_body_points": 14, "epochs": 80, "lr_drop": 70}
    assert (arguments.amp, arguments.eval) == ("--amp" in further, "--eval" in further)


@pytest.mark.parametrize("flag", ["--local_rank", "--local-rank"])
def test_both_spellings_of_local_rank(flag):
    assert main.build_parser().parse_args([f"{flag}=3"]).local_rank == 3


def test_parameters_without_gradient_are_looked_for_when_told():
    parser = main.build_parser()
    assert not parser.parse_args([]).find_unused_params
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
    assert "Steps of 3 samples: 1 batch(es) of 3, on 1 process(es) in 1 round(s); learning" in text
    assert any((output / "tensorboard").iterdir())
    (entry,) = json.loads((output / "run.json").read_text())
    assert (entry["mode"], entry["note"], entry["exit"]) == ("training", "hello", "finished")
    assert entry["settings"] == "config.py" and entry["resumes"] is None
    assert entry["end"] >= entry["start"] and entry["seconds"] > 0


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
    (entry,) = json.loads((tmp_path / "run_eval.json").read_text())
    assert (entry["mode"], entry["exit"]) == ("evaluation", "finished")
    assert (tmp_path / entry["settings"]).is_file()
    weights = entry["weights"]
    assert weights["file"] == str(output / "checkpoint.pth")
    assert weights["epochs_done"] == weights["epochs"] == 1
    state = checkpoint.load(output / "checkpoint.pth")["model"]
    assert 0.9 < entry["parameters"] / sum(value.numel() for value in state.values()) <= 1
    assert not (tmp_path / "run.json").exists()


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
    model, _, _ = build_model(cfg, start["model"], ["heads.class_heads"])
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
         "epochs=2", "eval_prompts=scribble"],
        processes=2,
    )  # fmt: skip
    for result in results:
        assert result.returncode == 0, result.stderr
    assert "2 process(es)" in results[0].stdout
    changes = "epochs: 1 -> 2; eval_prompts: ['text', 'scribble', 'point'] -> ['scribble']\n"
    saved_in = tmp_path / "checkpoint.pth"
    assert results[0].stdout.count(f"Settings differ from those of {saved_in}: {changes}") == 1
    assert "Steps done: 2" in results[0].stdout
    (entry,) = json.loads((tmp_path / "run.json").read_text())  # not one of each process
    assert (entry["resumes"], entry["processes"]) == (str(saved_in), 2)
    assert entry["batch"] == {
        "samples_per_step": 3, "batch_size": 3, "batches": 1, "processes": 2, "rounds": 1,
    }  # fmt: skip
    assert "main.py" in entry["command"] and "epochs=2" in entry["command"]
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


def files_of(folder):
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_used_output_folder_is_not_used_again_unless_told(trained, tmp_path, capsys):
    common, output = trained
    for name in ("checkpoint.pth", "checkpoint_best.pth", "log.txt", "config.py"):
        shutil.copy(output / name, tmp_path)
    before = files_of(tmp_path)
    arguments = [*common, "--output_dir", str(tmp_path)]
    options = ["--options", *SMALL, "eval_prompts=scribble"]
    assert main.main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} holds a training already (checkpoint.pth, checkpoint_best.pth" in error
    assert "--overwrite" in error and "--resume auto" in error
    # The new run fails before it has anything to save.
    assert main.main([*arguments, "--overwrite", *options, "within_type=star"]) == 2
    assert {**files_of(tmp_path), **before} == files_of(tmp_path)
    assert main.main([*arguments, "--eval", *options]) == 0
    assert {path: files_of(tmp_path)[path] for path in before} == before

    assert main.main([*arguments, "--overwrite", *options, "lr=0.003"]) == 0
    assert checkpoint.load(tmp_path / "checkpoint.pth")["config"]["lr"] == 0.003
    assert Config.fromfile(tmp_path / "config.py").lr == 0.003
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1


def test_a_loss_that_is_not_finite_ends_with_status_1_and_one_message(trained, tmp_path, capsys):
    common, _ = trained
    arguments = [*common, "--output_dir", str(tmp_path), "--options", *SMALL, "lr=1e30"]
    assert main.main([*arguments, "clip_max_norm=0", "amp=False", "batch_size=1"]) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert "Non-finite loss in epoch 0" in error and "lower learning rate" in error
    assert not (tmp_path / "checkpoint.pth").exists()


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
        (["--options", "eval_prompts=words"], "words"),
        (["--train_trigger", "text", "--options", "prompt_probabilities.text=0"], "all zero"),
        (["--options", "eval_prompts=[]"], "eval_prompts must name a kind of prompt; got"),
        (["--options", "select_results=l1"], "select_results needs a model without prompts"),
        (["--options", "epochs=0"], "'epochs' must be a whole number of at least 1"),
        (["--start_epoch", "999"], "starting with number 999"),
        (["--tracker", "wandb"], "pip install -r requirements-tracking.txt"),
        (["--resume", str(WEIGHTS), "--overwrite"], "--resume continues what --overwrite would"),
        (["--resume", str(WEIGHTS)], "--pretrain_model_path"),
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
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
    saved = checkpoint.load(tmp_path / "checkpoint.pth")
    (entry,) = json.loads((tmp_path / "run.json").read_text())
    assert re.match("Ended .* by SIGTERM: all of it is saved in", entry["exit"])
    assert "by SIGTERM: all of it is saved in" in error and "--resume auto" in error
    assert saved["within"] is None or saved["within"]["step"] >= 1
