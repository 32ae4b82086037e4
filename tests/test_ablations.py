"""Every ablation changes what it names, and nothing else; all train and evaluate."""

from __future__ import annotations

import json
import runpy
import shutil

import export_checkpoint
import numpy as np
import pytest
import torch
from benchmarks.plain import PlainUniPHD
from conftest import person_annotation, write_refhuman
from small_models import (
    REPOSITORY,
    SIZES,
    SMALL,
    all_prompts,
    random_batch,
    random_targets,
    small_config,
    small_model,
    write_roberta,
)

import main
import predict as predict_program
from datasets.evaluation import PeopleEvaluator, PromptedPeopleEvaluator, ReferringEvaluator
from models import build_model
from models.uniphd.predictor import Predictor
from models.uniphd.query_init import LearnedQueries
from util import checkpoint
from util.config import Config
from util.errors import UserError

CONFIG = REPOSITORY / "config"
ABLATIONS = sorted((CONFIG / "ablation").glob("*.py"))
RIVALS = [CONFIG / "uni_grouppose.py", CONFIG / "uni_edpose.py"]


def settings_of(path):
    """What a configuration file changes."""
    values = runpy.run_path(str(path))
    return {name: value for name, value in values.items() if not name.startswith("_")}


def shapes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The model that all others are compared with, in evaluation mode."""
    return small_model(tmp_path_factory.mktemp("base"))[0].eval()


def like(base, folder, **changes):
    """A model with these settings and the base model's weights, where it has such."""
    model = small_model(folder, **changes)[0].eval()
    known = base.state_dict()
    same = {
        name: known[name]
        for name, value in model.state_dict().items()
        if name in known and known[name].shape == value.shape
    }
    model.load_state_dict(same, strict=False)
    return model


def predict(model, kind="scribble", targets=None):
    with torch.inference_mode():
        return model(random_batch(), all_prompts()[kind], targets)


# --- what the switches change --------------------------------------------------------------------


def test_no_pose_head(base, tmp_path):
    model = like(base, tmp_path, pose_head=False)
    gone = {name for name in shapes(base) if "visibility_heads" in name}
    gone |= {
        name for name in shapes(base) if name.startswith("decoder") and "keypoint_head" in name
    }
    assert len(gone) == 3 * (2 + 6)
    assert shapes(model) == {n: s for n, s in shapes(base).items() if n not in gone}

    outputs, expected = predict(model), predict(base)
    for layer in (outputs, *outputs["aux_outputs"]):
        assert not {"pred_keypoints", "pred_keypoints_visi"} & layer.keys()
    # The encoder's proposals are the same, and so is what the first layer makes of them.
    for name in ("pred_logits", "pred_keypoints"):
        assert outputs["encoder_outputs"][name].equal(expected["encoder_outputs"][name])
    for name in ("pred_logits", "pred_boxes"):
        assert outputs["aux_outputs"][0][name].equal(expected["aux_outputs"][0][name])
        assert not outputs["aux_outputs"][1][name].equal(expected["aux_outputs"][1][name])


def test_without_a_pose_head_references_stay(tmp_path):
    model = small_model(tmp_path, pose_head=False)[0].eval()
    seen = []
    for layer in model.decoder.layers:
        layer.register_forward_hook(lambda _, arguments, output: seen.append((arguments, output)))
    outputs = predict(model)
    first = outputs["encoder_outputs"]["pred_keypoints"]
    assert len(seen) == 3
    for (_, references, *_), output in seen:
        assert references.equal(first) and output.next_references.equal(first)


def test_losses_without_a_pose_head(tmp_path):
    model, criterion, postprocessor = small_model(tmp_path, pose_head=False)
    outputs = model.eval()(random_batch(), all_prompts()["text"], random_targets())
    losses = criterion(outputs, random_targets())
    assert set(losses) == set(criterion.weights)
    assert {name for name in losses if "keypoints" in name or "oks" in name} == {
        "loss_keypoints_enc",
        "loss_oks_enc",
    }
    assert {"loss_bbox", "loss_giou_0", "loss_ce_1", "loss_mask"} < set(losses)
    sizes = torch.tensor(SIZES)
    assert set(postprocessor(predict(model), sizes, sizes)[0]) == {
        "scores", "labels", "boxes", "masks", "mask_sums",
    }  # fmt: skip


def test_no_mask_head(base, tmp_path):
    model = like(base, tmp_path, mask_head=False)
    gone = {name for name in shapes(base) if name.startswith("mask_head.")}
    # The norm of C2, which the mask head alone looks at.
    gone |= {"backbone.body.norm0.weight", "backbone.body.norm0.bias"}
    assert shapes(model) == {n: s for n, s in shapes(base).items() if n not in gone}
    outputs, expected = predict(model), predict(base)
    assert outputs.keys() == expected.keys() - {"pred_masks", "pred_masks_low", "mask_groups"}
    for name in ("pred_logits", "pred_boxes", "pred_keypoints", "pred_keypoints_visi"):
        assert outputs[name].equal(expected[name])


@pytest.mark.parametrize(
    ("within_type", "parts"),
    [
        ("self", ["within_attention.adjacency"]),
        (
            "none",
            [
                "within_attention.adjacency",
                "within_attention.attention.in_proj_weight",
                "within_attention.attention.in_proj_bias",
                "within_attention.attention.out_proj.weight",
                "within_attention.attention.out_proj.bias",
                "within_norm.weight",
                "within_norm.bias",
            ],
        ),
    ],
)
def test_attention_within_a_group(base, tmp_path, within_type, parts):
    model = like(base, tmp_path, within_type=within_type)
    gone = {f"decoder.layers.{layer}.{part}" for layer in range(3) for part in parts}
    assert gone < shapes(base).keys()
    assert shapes(model) == {n: s for n, s in shapes(base).items() if n not in gone}
    outputs, expected = predict(model), predict(base)
    assert outputs["encoder_outputs"]["pred_logits"].equal(
        expected["encoder_outputs"]["pred_logits"]
    )
    assert not outputs["aux_outputs"][0]["pred_logits"].equal(
        expected["aux_outputs"][0]["pred_logits"]
    )


@pytest.mark.parametrize(("within_type", "reaches"), [("graph", True), ("none", False)])
def test_what_a_keypoint_query_learns_of_another(tmp_path, within_type, reaches):
    """In a layer without attention within groups, queries of other types are not seen."""
    layer = small_model(tmp_path, within_type=within_type)[0].eval().decoder.layers[0]
    model = small_model(tmp_path)[0].eval()
    with torch.inference_mode():
        memory = model.encoder(model.input_projection(*_features(model)))
        queries = torch.randn(2, 5, 18, 32)
        references = torch.rand(2, 5, 17, 2)
        positions = torch.zeros(2, 5, 18, 32)
        centers = references.mean(2, keepdim=True)
        points = torch.cat([centers, references], 2)[:, :, :, None].expand(-1, -1, -1, 4, -1)
        before = layer.attend(queries, positions, points, memory)
        changed = queries.clone()
        changed[:, :, 3] += 1.0
        after = layer.attend(changed, positions, points, memory)
    differs = (before - after).abs().amax((0, 1, 3)) > 1e-6
    assert differs[3] and differs[4:].all() == reaches and differs[:3].all() == reaches


def _features(model):
    batch = random_batch()
    return model.encode_image(batch)[1:], batch.mask


def test_no_query_initialisation(base, tmp_path):
    model = like(base, tmp_path, query_init="learned")
    own, known = shapes(model), shapes(base)
    gone = {
        name
        for name in known
        if name.startswith("query_init.")
        or name.startswith("prompt_encoder.sentence_projection.")
        or name.startswith("prompt_encoder.pixel_summary_projection.")
        or ".pooler." in name
    }
    learned = {
        "query_init.instance_embedding.weight": (5, 32),
        "query_init.keypoint_embedding.weight": (17, 32),
        "query_init.reference_logits": (5, 17, 2),
    }
    assert own == {n: s for n, s in known.items() if n not in gone} | learned
    outputs = predict(model)
    assert "encoder_outputs" not in outputs
    assert outputs["pred_keypoints"].shape == (2, 5, 17, 2)


def test_learned_groups_are_the_same_for_every_image_and_prompt():
    torch.manual_seed(0)
    queries = LearnedQueries(embed_dim=32, num_keypoints=17, num_groups=5)
    memory = type("Memory", (), {"tokens": torch.zeros(3, 8, 32)})()
    groups = queries(memory, None)
    assert groups.instance_queries.shape == (3, 5, 32)
    assert groups.keypoint_queries.shape == (3, 5, 17, 32)
    assert groups.references.shape == (3, 5, 17, 2)
    for values in (groups.instance_queries, groups.keypoint_queries, groups.references):
        assert values[0].equal(values[1]) and values[0].equal(values[2])
    assert groups.keypoint_queries[0, 0].equal(groups.keypoint_queries[0, 4])
    # The points of a group start together, groups in different places.
    first = groups.references[0]
    assert first.equal(first[:, :1].expand_as(first)) and len(first[:, 0].unique(dim=0)) == 5
    assert ((first > 0) & (first < 1)).all() and first.requires_grad and groups.proposals is None


def test_losses_without_query_initialisation(tmp_path):
    model, criterion, _ = small_model(tmp_path, query_init="learned")
    outputs = model.eval()(random_batch(), all_prompts()["text"], random_targets())
    assert outputs["matching"].groups.shape == (3, 2, 1)
    assert outputs["matching"].final[0].equal(outputs["matching"].groups[2])
    assert outputs["mask_groups"].equal(outputs["matching"].groups[2])
    losses = criterion(outputs, random_targets())
    assert set(losses) == set(criterion.weights)
    assert not any(name.endswith("_enc") for name in losses) and "loss_oks_1" in losses


@pytest.mark.parametrize("num_groups", [3, 8])
def test_groups(base, tmp_path, num_groups):
    model = like(base, tmp_path, num_groups=num_groups)
    assert shapes(model) == shapes(base)
    outputs, expected = predict(model), predict(base)
    assert outputs["pred_keypoints"].shape == (2, num_groups, 17, 2)
    few = min(num_groups, 5)
    logits = [values["encoder_outputs"]["pred_logits"][:, :few] for values in (outputs, expected)]
    assert logits[0].equal(logits[1])  # the best proposals come first


def test_more_encoder_layers(base, tmp_path):
    model = small_model(tmp_path, encoder_layers=3)[0]
    added = {name: shape for name, shape in shapes(model).items() if name not in shapes(base)}
    assert shapes(model) == shapes(base) | added
    assert added and all(name.startswith("encoder.layers.2.") for name in added)


def test_width_384_of_eight_heads(tmp_path):
    """Nothing assumes a width of 256 or heads of 32 features."""
    folder = write_roberta(tmp_path / "r")
    cfg = small_config(folder, hidden_dim=384, num_heads=8, decoder_layers=2, num_groups=3)
    model, criterion, _ = build_model(cfg)
    assert model.encoder.layers[0].self_attention.value_proj.out_features // 8 == 48
    outputs = model.train()(random_batch(), all_prompts()["text"], random_targets())
    losses = criterion(outputs, random_targets())
    criterion.total(losses).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    wrong = {
        name: shape
        for name, shape in shapes(model).items()
        if 256 in shape
        and not name.startswith(("backbone.", "prompt_encoder."))
        # of encoder and decoder, heads x levels x points: 128 weights and 256 coordinates
        and "sampling_offsets" not in name
        and not name.startswith("mask_head.")
    }
    assert wrong == {}


# --- all of them ---------------------------------------------------------------------------------

VARIANTS = {
    "no_pose_head": {"pose_head": False},
    "no_mask_head": {"mask_head": False},
    "no_global_dependency": {"within_type": "none"},
    "self_attention": {"within_type": "self"},
    "no_query_initialisation": {"query_init": "learned"},
    "neither": {"query_init": "learned", "pose_head": False},
    "grouppose": {"decoder": "grouppose"},
    "grouppose_no_pose_head": {"decoder": "grouppose", "pose_head": False},
    "edpose": {"decoder": "edpose", "human_layers": 1},
    "edpose_2": {"decoder": "edpose", "human_layers": 2, "num_human_queries": 9},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_trained_parameter_gets_a_gradient(tmp_path, name):
    settings = {**VARIANTS[name], "prompt_dropout": 0.0, "backbone_drop_path": 0.0}
    model, criterion, _ = small_model(tmp_path, **settings)
    model.train()
    trained = set()
    for kind in ("text", "scribble"):
        model.zero_grad()
        outputs = model(random_batch(), all_prompts()[kind], random_targets())
        losses = criterion(outputs, random_targets())
        assert set(losses) == set(criterion.weights)
        criterion.total(losses).backward()
        got = {
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
        # Between processes, only what `prompt_parameters` names may be without one.
        prompt = {id(parameter) for parameter in model.prompt_parameters()}
        assert {n for n, p in model.named_parameters() if id(p) not in prompt} <= got
        trained |= got
    assert {name for name, _ in model.named_parameters()} == trained


# --- the configurations --------------------------------------------------------------------------

# What each file changes, and no more.
CHANGES = {
    "no_pose_head": {"pose_head": False},
    "no_mask_head": {"mask_head": False},
    "no_global_dependency": {"within_type": "none"},
    "self_attention": {"within_type": "self"},
    "no_query_initialisation": {"query_init": "learned"},
    "groups_5": {"num_groups": 5},
    "groups_10": {"num_groups": 10},
    "encoder_layers_more": {"encoder_layers": 9},
    "hidden_dim_384": {"hidden_dim": 384},
    "text_only": {
        "prompt_probabilities": {"text": 1.0, "scribble": 0.0, "point": 0.0},
        "eval_prompts": ["text"],
    },
    "positional_only": {
        "prompt_probabilities": {"text": 0.0, "scribble": 0.5, "point": 0.5},
        "eval_prompts": ["point", "scribble"],
    },
    "swin_T_224_1k": {"backbone": "swin_T_224_1k"},
    "swin_B_224_22k": {"backbone": "swin_B_224_22k"},
    "swin_B_384_22k": {"backbone": "swin_B_384_22k"},
    "swin_L_224_22k": {"backbone": "swin_L_224_22k"},
    "swin_L_384_22k": {"backbone": "swin_L_384_22k"},
    "uni_grouppose": {"decoder": "grouppose"},
    "uni_edpose": {"decoder": "edpose"},
}
# Keypoint, box and mask figures that there are none of.
LACKING = {
    "no_pose_head": ("keypoint", "pckh", "found", "identity"),
    "no_mask_head": ("mask", "oiou"),
}

# Small, with both stages of ED-Pose's decoder; `groups_10` has its ten.
TINY = {
    **SMALL,
    "backbone_options": {key: SMALL["backbone_options"][key] for key in ("depths", "num_heads")}
    | {"embed_dim": 8},
    "text_encoder_pretrained": False,
    "encoder_layers": 1,
    "decoder_layers": 4,
    "eval_max_side": 64,
    "augment": False,
    "batch_size": 2,
    "num_workers": 0,
    "epochs": 1,
    "checkpoint_every": 0,
    "lr": 1e-3,
}


def test_every_configuration_is_here():
    assert {path.stem for path in ABLATIONS + RIVALS} == set(CHANGES)


@pytest.mark.parametrize("path", ABLATIONS + RIVALS, ids=lambda path: path.stem)
def test_a_configuration_changes_what_it_names(path):
    cfg = Config.fromfile(path)
    cfg.check()
    expected = Config.fromfile(CONFIG / "uniphd.py")
    expected.merge_from_dict(CHANGES[path.stem])
    assert cfg == expected
    assert settings_of(path).keys() == CHANGES[path.stem].keys()
    assert runpy.run_path(str(path))["__doc__"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A RefHuman folder of six pairs to train with and two to evaluate, and a text encoder."""
    folder = tmp_path_factory.mktemp("data")
    refhuman = write_refhuman(folder / "refhuman", pairs={"train": 4, "val": 2}, size=(48, 64))
    return refhuman, write_roberta(folder / "roberta")


@pytest.mark.parametrize("path", ABLATIONS + RIVALS, ids=lambda path: path.stem)
def test_a_configuration_trains_two_steps_and_evaluates(path, data, tmp_path):
    refhuman, text_encoder = data
    changes = CHANGES[path.stem]
    tiny = {name: value for name, value in TINY.items() if name not in changes}
    if path.stem == "hidden_dim_384":
        tiny["num_heads"] = 8  # the paper's
    options = [f"{name}={json.dumps(value)}" for name, value in _flat(tiny)]
    status = main.main(
        ["-c", str(path), "--coco_path", str(refhuman), "--output_dir", str(tmp_path / "out"),
         "--device", "cpu", "--save_predictions", "--save_images", "1",
         "--options", f"text_encoder={text_encoder}", *options]
    )  # fmt: skip
    assert status == 0
    record = json.loads((tmp_path / "out" / "log.txt").read_text())
    assert record["step"] == 2
    assert all(abs(value) < float("inf") for value in record["train"].values())
    kinds = changes.get("eval_prompts", ["text", "scribble", "point"])
    assert list(record["eval"]) == kinds
    for figures in record["eval"].values():
        for start in ("keypoint", "box", "mask", "pckh", "oiou", "found", "identity"):
            is_there = any(name.startswith(start) for name in figures)
            assert is_there == (start not in LACKING.get(path.stem, ())), start
        assert figures["num_samples"] == 2
    predictions = json.loads((tmp_path / "out" / f"predictions_{kinds[0]}.json").read_text())
    assert all(("keypoints" in p) == (path.stem != "no_pose_head") for p in predictions)
    assert all(("segmentation" in p) == (path.stem != "no_mask_head") for p in predictions)
    assert list((tmp_path / "out" / "images").iterdir())


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# --- with the rest of the project ----------------------------------------------------------------


def test_predictions_without_a_pose_head(tmp_path):
    model, _, postprocessor = small_model(tmp_path, pose_head=False)
    predictor = Predictor(model, postprocessor, max_side=96, divisor=16)
    predictor.set_image(np.zeros((48, 64, 3), dtype=np.uint8))
    prediction = predictor.predict(point=(20, 20))
    assert prediction.keypoints is None and prediction.mask.shape == (48, 64)
    record = predict_program.to_json(prediction, "a.jpg", {"point": [20, 20]})
    assert set(record) == {"image", "prompt", "score", "box", "mask"}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_checkpoint_is_exported_and_read(tmp_path, name):
    cfg = small_config(write_roberta(tmp_path / "r"), **VARIANTS[name])
    torch.manual_seed(0)
    model, *_ = build_model(cfg)
    path, small = tmp_path / "checkpoint.pth", tmp_path / "small.safetensors"
    checkpoint.save(path, {"model": model.state_dict(), "config": cfg.to_dict()})
    export_checkpoint.export(path, small, half=False, published=False)
    read = Predictor.from_checkpoint(small, device="cpu").model
    assert read.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert read.state_dict()[key].equal(value), key
    own_names = {"no_query_initialisation", "neither", "grouppose", "grouppose_no_pose_head"}
    if name in own_names or name.startswith("edpose"):
        with pytest.raises(UserError, match="names that the published model has no counterpart of"):
            export_checkpoint.export(path, tmp_path / "p.pth", half=False, published=True)


@pytest.mark.parametrize("name", ["no_pose_head", "no_query_initialisation", "edpose"])
def test_the_plain_form_of_the_benchmark_is_the_published_models(tmp_path, name):
    model = small_model(tmp_path, **VARIANTS[name])[0]
    with pytest.raises(UserError, match="plain form .* proposals and keypoints"):
        PlainUniPHD(model, None)


PERSON = person_annotation((10, 5, 40, 50), 1, 0)
GROUND_TRUTH = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 64, "width": 96}],
    "annotations": [PERSON],
}


@pytest.mark.parametrize(
    "evaluator",
    [
        ReferringEvaluator(GROUND_TRUTH, keep_predictions=True),
        PeopleEvaluator(GROUND_TRUTH, keep_predictions=True),
        PeopleEvaluator(GROUND_TRUTH, subsets={"easy": [1]}, keep_predictions=True),
        PromptedPeopleEvaluator(GROUND_TRUTH, [1], keep_predictions=True),
    ],
    ids=["referring", "people", "subsets", "prompted"],
)
def test_evaluation_without_keypoints(evaluator):
    """Figures of boxes and masks alone; the right box is found."""
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[0, 5:55, 10:50] = True
    result = {
        "scores": torch.tensor([0.9]),
        "boxes": torch.tensor([[10.0, 5.0, 50.0, 55.0]]),
        "masks": mask,
    }
    evaluator.update([1], [result])
    evaluator.synchronize()
    summary = evaluator.summarize()
    assert summary["box_ap50"] == pytest.approx(1) and summary["mask_ap50"] == pytest.approx(1)
    assert not any(name.startswith(("keypoint", "pckh", "found", "identity")) for name in summary)
    (record,) = evaluator.predictions()
    assert record["bbox"] == [10.0, 5.0, 40.0, 50.0] and "keypoints" not in record


# --- at full size --------------------------------------------------------------------------------

# Table 2, in millions.
PUBLISHED = {"uniphd": 184.0, "uni_grouppose": 177.7, "uni_edpose": 175.7}


@pytest.fixture(scope="module")
def roberta_base(tmp_path_factory):
    """A tokenizer alone: what stands for roberta-base without weights."""
    folder = tmp_path_factory.mktemp("roberta") / "base"
    shutil.copytree(CONFIG / "tiny_text_encoder", folder)
    (folder / "config.json").unlink()
    return str(folder)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_table_2(name, roberta_base):
    cfg = Config.fromfile(CONFIG / f"{name}.py")
    cfg.merge_from_dict({"text_encoder": roberta_base, "text_encoder_pretrained": False})
    with torch.device("meta"):
        model, *_ = build_model(cfg)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 1) == PUBLISHED[name]
    if name == "uni_edpose":
        assert count == 175_654_294
        assert count - model.query_init.query_embedding.weight.numel() == 175_649_174
