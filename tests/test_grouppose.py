"""Group Pose as a model: outputs, losses, results, checkpoints. Its numbers: test_parity.py."""

from __future__ import annotations

import json
import math

import export_checkpoint
import pytest
import small_models
import torch
from small_models import REPOSITORY, SIZES, random_batch

import main
from models import build_model
from util import checkpoint
from util.config import Config
from util.logging import read_json_lines
from util.nested_tensor import NestedTensor

SMALL = {**small_models.SMALL, "backbone": "swin_T_224_1k", "num_groups": 6, "num_results": 4}


def build(**changes):
    """(model, criterion, postprocessor), weights random with a fixed seed and none of them zero."""
    cfg = Config.fromfile(REPOSITORY / "config" / "grouppose.py")
    cfg.merge_from_dict({**SMALL, **changes})
    torch.manual_seed(0)
    built = build_model(cfg)
    for parameter in built[0].parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter.shape[-1] ** 0.5)
    return built


def targets(counts=(3, 0)):
    """Several people, and none."""
    generator = torch.Generator().manual_seed(5)
    return [
        {
            "boxes": torch.full((count, 4), 0.4),
            "labels": torch.ones(count, dtype=torch.int64),
            "keypoints": torch.cat(
                [torch.rand(count, 17, 2, generator=generator), torch.ones(count, 17, 1)], dim=-1
            ),
            "area": torch.full((count,), 0.1),
            "image_id": index,
        }
        for index, count in enumerate(counts)
    ]


def test_outputs_and_results():
    model, _, postprocessor = build()
    with torch.inference_mode():
        outputs = model.eval()(random_batch())
    assert outputs["pred_logits"].shape == (2, 6, 2)
    assert outputs["pred_keypoints"].shape == (2, 6, 17, 2)
    assert len(outputs["aux_outputs"]) == 2 and "matching" not in outputs
    sizes = torch.tensor(SIZES)
    results = postprocessor(outputs, 2 * sizes, sizes)
    assert [len(result["scores"]) for result in results] == [4, 4]
    best = outputs["pred_logits"][0].sigmoid().flatten().topk(4)
    assert results[0]["labels"].tolist() == (best.indices % 2).tolist()
    group = best.indices[0] // 2
    height, width = SIZES[0]
    expected = outputs["pred_keypoints"][0, group] * torch.tensor([2.0 * width, 2.0 * height])
    torch.testing.assert_close(results[0]["keypoints"][0, :, :2], expected)
    assert results[0]["keypoints"][0, :, 2].tolist() == pytest.approx([0.7310586] * 17)
    with pytest.raises(ValueError, match="takes no prompts"):
        model(random_batch(), "the man on the left")


def test_every_parameter_gets_a_gradient_from_images_with_many_people_and_none():
    model, criterion, _ = build()
    outputs = model.train()(random_batch(), targets=targets())
    losses = criterion(outputs, targets())
    assert set(losses) == set(criterion.weights)
    # Three decoder layers and the proposals, three losses each; no boxes, masks, visibility.
    assert len(losses) == 4 * 3 and "loss_oks_enc" in losses
    criterion.total(losses).backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or parameter.grad.abs().sum() == 0
    ]
    assert without == []
    assert outputs["matching"].matched.sum(-1).tolist() == [[3, 0]] * 4


def test_a_batch_without_people_trains():
    model, criterion, _ = build()
    outputs = model.train()(random_batch(), targets=targets((0, 0)))
    losses = criterion(outputs, targets((0, 0)))
    criterion.total(losses).backward()
    assert losses["loss_ce"] > 0 and losses["loss_keypoints"] == 0


def test_features_are_computed_once():
    model, *_ = build()
    model.eval()
    batch = random_batch()
    with torch.inference_mode():
        features = model.encode_image(batch)
        empty = NestedTensor(torch.zeros_like(batch.tensors), batch.mask)
        kept = model(empty, features=features)
        torch.testing.assert_close(kept["pred_keypoints"], model(batch)["pred_keypoints"])


def test_fourteen_keypoints():
    model, *_ = build(skeleton="crowdpose")
    with torch.inference_mode():
        assert model.eval()(random_batch())["pred_keypoints"].shape == (2, 6, 14, 2)


def test_published_checkpoints_round_trip(tmp_path):
    model, *_ = build()
    published = checkpoint.to_reference(model.state_dict(), model="grouppose")
    assert "transformer.instance_embedding.weight" in published
    assert "transformer.decoder.layers.2.within_attn.in_proj_weight" in published
    path = tmp_path / "published.pth"
    torch.save({"model": published}, path)
    loaded = checkpoint.load(path, model="grouppose")
    assert loaded["published"] == "grouppose"
    assert loaded["model"].keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="checkpoint of the model 'grouppose', .* builds 'uniphd'"):
        checkpoint.load(path, model="uniphd")


def test_a_training_is_exported_under_the_published_names(tmp_path):
    model, *_ = build()
    settings = {"model": "grouppose"}
    checkpoint.save(tmp_path / "own.pth", {"model": model.state_dict(), "config": settings})
    export_checkpoint.export(tmp_path / "own.pth", tmp_path / "out.pth", False, published=True)
    loaded = checkpoint.load(tmp_path / "out.pth")
    assert loaded["published"] == "grouppose"
    assert loaded["model"].keys() == model.state_dict().keys()


def test_resnet_names_are_torchvisions(tmp_path):
    model, *_ = build(backbone="resnet50", backbone_options=None)
    published = checkpoint.to_reference(model.state_dict(), model="grouppose")
    assert "backbone.0.body.layer3.5.conv2.weight" in published
    assert "backbone.0.body.bn1.running_mean" in published
    back = checkpoint.from_reference(published, model="grouppose")
    assert back.keys() == model.state_dict().keys()


# --- the command line ----------------------------------------------------------------------------


PUBLISHED = "-c config/grouppose.py --coco_path D"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("", {"backbone": "resnet50", "dataset": "coco", "skeleton": "coco", "epochs": 60}),
        (
            "--backbone swin_L_384_22k --swin_pretrain_path W --options num_body_points=14"
            " epochs=80 lr_drop=70 --dataset_file=crowdpose",
            {
                "backbone": "swin_L_384_22k",
                "backbone_pretrained": "W",
                "dataset": "crowdpose",
                "skeleton": "crowdpose",
                "epochs": 80,
                "lr_drop_epochs": [70],
            },
        ),
    ],
)
def test_the_published_commands_mean_what_they_say(monkeypatch, command, expected):
    monkeypatch.chdir(REPOSITORY)
    arguments = main.build_parser().parse_args([*PUBLISHED.split(), *command.split()])
    cfg = main.read_config(arguments)
    assert {name: cfg[name] for name in expected} == expected
    assert (cfg.num_groups, cfg.num_results, cfg.pad_divisor) == (100, 50, 1)
    assert (cfg.eval_short_side, cfg.eval_max_side, cfg.train_max_side) == (800, 1333, 1333)


@pytest.mark.parametrize("backbone", ["swin_T_224_1k", "resnet50"])
def test_it_trains_and_evaluates_on_many_people(coco_folder, tmp_path, backbone):
    options = [f"{name}={value}" for name, value in SMALL.items() if isinstance(value, int)]
    options += ["eval_short_side=64", "eval_max_side=96", "train_short_sides=64,", "num_workers=0"]
    options += ["crop_short_sides=80,", "crop_range=40,90", "epochs=1", "batch_size=2"]
    if backbone.startswith("swin"):
        options += ["backbone_options.embed_dim=16", "backbone_options.depths=1,1,1,1"]
        options += ["backbone_options.num_heads=1,2,4,8"]
    common = ["-c", str(REPOSITORY / "config" / "grouppose.py"), "--backbone", backbone]
    common += ["--coco_path", str(coco_folder()), "--device", "cpu"]
    common += ["--output_dir", str(tmp_path), "--options", *options]
    assert main.main([*common, "--save_images", "1"]) == 0
    record = read_json_lines(tmp_path / "log.txt")[0]
    assert record["step"] == 1 and math.isfinite(record["train"]["loss_oks_enc"])
    assert record["eval"]["people"]["num_samples"] == 4
    assert {"keypoint_ap", "keypoint_apm", "keypoint_apl"} <= set(record["eval"]["people"])
    assert len(list((tmp_path / "images").glob("*_people.png"))) == 1
    resume = ["--eval", "--resume", str(tmp_path / "checkpoint.pth")]
    assert main.main([*common[:-1], options[-1], *options[:-1], *resume]) == 0
    again = json.loads((tmp_path / "eval.json").read_text())
    assert again == record["eval"]


def test_a_random_backbone_that_is_frozen_in_part_is_warned_of(caplog):
    with caplog.at_level("WARNING", logger="models"):
        model, *_ = build(backbone="resnet50", backbone_options=None)
        assert "resnet50 starts from random weights" in caplog.text
        caplog.clear()
        cfg = Config.fromfile(REPOSITORY / "config" / "grouppose.py")
        cfg.merge_from_dict({**SMALL, "backbone": "resnet50", "backbone_options": None})
        build_model(cfg, model.state_dict())
        build()  # all of a Swin trains
    assert caplog.text == ""


def test_a_model_with_prompts_needs_data_with_prompts(coco_folder, tmp_path, capsys):
    arguments = ["-c", str(REPOSITORY / "config" / "uniphd_tiny.py"), "--dataset_file", "coco"]
    arguments += ["--coco_path", str(coco_folder()), "--output_dir", str(tmp_path)]
    assert main.main([*arguments, "--device", "cpu"]) == 2
    assert "prompts" in capsys.readouterr().err
