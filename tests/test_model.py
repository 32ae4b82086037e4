"""The model as a whole and its modules against slow, literal formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_models import (
    SIZES,
    all_prompts,
    random_batch,
    random_images,
    random_targets,
    small_config,
    small_model,
    write_roberta,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.sample import Sample, collate
from models import build_model, build_parameter_groups
from models.grouppose.decoder import GroupPoseDecoderLayer
from models.layers.encoder import EncoderMemory, LevelLayout
from models.layers.position_encoding import encode_map, encode_points, encode_words
from models.uniphd.mask_head import DynamicMaskHead
from models.uniphd.matcher import People
from models.uniphd.prompt_encoder import PointPrompt, ScribblePrompt, TextPrompt
from models.uniphd.query_init import make_proposals
from util.nested_tensor import NestedTensor

KINDS = ("text", "scribble", "point")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


def assert_masks_close(masks, expected):
    """Within 1e-4 of the largest logit; random weights make logits of several hundred."""
    scale = expected.abs().max()
    torch.testing.assert_close(masks / scale, expected / scale, atol=1e-4, rtol=0)


# --- the whole model ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_output_contract(built, kind):
    model = built[0].eval()
    with torch.inference_mode():
        outputs = model(random_batch(), all_prompts()[kind])
    shapes = {
        "pred_logits": (2, 5, 2),
        "pred_boxes": (2, 5, 4),
        "pred_keypoints": (2, 5, 17, 2),
        "pred_keypoints_visi": (2, 5, 17),
    }
    for layer in (outputs, *outputs["aux_outputs"]):
        assert {name: tuple(layer[name].shape) for name in shapes} == shapes
    assert len(outputs["aux_outputs"]) == 2
    assert outputs["pred_masks"].shape == (2, 5, 96, 96)
    assert outputs["pred_masks_low"].shape == (2, 5, 48, 48)
    assert outputs["mask_groups"].tolist() == [list(range(5))] * 2
    assert outputs["encoder_outputs"]["pred_keypoints"].shape == (2, 5, 17, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_its_neighbours(built, kind):
    model = built[0].eval()
    batch, prompts = random_batch(), all_prompts()[kind]
    with torch.inference_mode():
        together = model(batch, prompts)
        for i in range(2):
            alone = NestedTensor(batch.tensors[i : i + 1], batch.mask[i : i + 1])
            if kind == "text":
                prompt = TextPrompt(prompts.captions[i : i + 1])
            else:
                prompt = type(prompts)(prompts.points[i : i + 1])
            separate = model(alone, prompt)
            for name in ("pred_logits", "pred_boxes", "pred_keypoints", "pred_keypoints_visi"):
                torch.testing.assert_close(
                    separate[name][0], together[name][i], atol=1e-4, rtol=0, msg=name
                )
            assert_masks_close(separate["pred_masks"][0], together["pred_masks"][i])


def test_padding_does_not_leak_into_encoder_and_proposals(built):
    """Whatever lies in the padding, and however much of it: the valid tokens do not see it.

    The published model lets padding in elsewhere: Swin's windows, GroupNorm's statistics, the
    decoder's position encoding (reference x valid ratio) and the mask's convolutions. Those numbers
    are reproduced (test_parity.py), so the model as a whole cannot be independent of padding.
    """
    model = copy.deepcopy(built[0]).eval()
    # Proposals that do not count get logit 0, so that none of them is among the best.
    torch.nn.init.zeros_(model.query_init.memory_projection.bias)
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 12), (4, 6), (2, 4), (1, 2))
    alone, padded = [], []
    for height, width in shapes:
        tensor = torch.randn(1, 32, height, width, generator=generator)
        alone.append(NestedTensor(tensor, torch.zeros(1, height, width, dtype=torch.bool)))
        larger = torch.full((1, 32, 2 * height, 3 * width), 7.0)
        larger[..., :height, :width] = tensor
        mask = torch.ones(1, 2 * height, 3 * width, dtype=torch.bool)
        mask[:, :height, :width] = False
        padded.append(NestedTensor(larger, mask))
    query = torch.randn(1, 32, generator=generator)
    with torch.inference_mode():
        small, large = model.encoder(alone), model.encoder(padded)
        torch.testing.assert_close(
            large.tokens[~large.layout.padding_mask], small.tokens[0], atol=1e-4, rtol=0
        )
        small, large = model.query_init(small, query), model.query_init(large, query)
    torch.testing.assert_close(large.references, small.references, atol=1e-4, rtol=0)
    logits = (queries.proposals["pred_logits"] for queries in (large, small))
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def test_targets_choose_the_mask(built):
    model = built[0].eval()
    prompt = all_prompts()["scribble"]
    with torch.inference_mode():
        every = model(random_batch(), prompt)
        one = model(random_batch(), prompt, random_targets())
    matched, _ = one["matching"].final
    assert one["mask_groups"].tolist() == matched.tolist()
    rows = torch.arange(2)
    assert_masks_close(one["pred_masks"][:, 0], every["pred_masks"][rows, matched[:, 0]])


def test_features_serve_several_prompts(built):
    model = built[0].eval()
    with torch.inference_mode():
        features = model.encode_image(random_batch())
        for prompt in all_prompts().values():
            kept = model(random_batch(), prompt, features=features)
            fresh = model(random_batch(), prompt)
            torch.testing.assert_close(kept["pred_keypoints"], fresh["pred_keypoints"])


@pytest.mark.parametrize(
    "changes", [{"within_type": "graph"}, {"within_type": "self"}, {"decoder": "grouppose"}]
)
def test_every_parameter_gets_a_gradient(tmp_path, changes):
    model, criterion, _ = small_model(tmp_path, **changes, prompt_dropout=0.0)
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
        other = "positional_attention" if kind == "text" else "text_attention"
        assert not any(other in name for name in got)
        trained |= got
    expected = {name for name, _ in model.named_parameters()}
    # Words, positions and the padding embedding that no caption used stay without one.
    assert expected - trained == set()
    has_adjacency = any(name.endswith(".adjacency") for name in expected)
    assert has_adjacency == (changes.get("within_type") == "graph")


@pytest.mark.parametrize("size", [(1, 1), (17, 130), (255, 33)])
def test_odd_image_sizes(built, size):
    model = built[0].eval()
    batch = NestedTensor.from_list([torch.randn(3, *size), torch.randn(3, 64, 64)])
    with torch.inference_mode():
        outputs = model(batch, PointPrompt(torch.zeros(2, 1, 2)))
    assert outputs["pred_masks"].shape[-2:] == batch.mask.shape[-2:]
    assert all(torch.isfinite(outputs[name]).all() for name in ("pred_keypoints", "pred_masks"))


PARTS = ("backbone", "text_encoder", "encoder", "decoder", "mask_head")


class Recomputed:
    """Counts what a training step computes again in its backward pass."""

    def __init__(self, monkeypatch):
        self.count = 0
        original = torch.utils.checkpoint.checkpoint

        def checkpoint(*arguments, **options):
            self.count += 1
            assert options["use_reentrant"] is False
            return original(*arguments, **options)

        for name in (
            "backbones.swin",
            "layers.encoder",
            "layers.group_decoder",
            "uniphd.prompt_encoder",
            "uniphd.uniphd",
        ):
            monkeypatch.setattr(f"models.{name}.checkpoint", checkpoint)


def step_in_float64(folder, **settings):
    """Gradients of a step with words, whatever is dropped out, and the activations it keeps."""
    model, *_ = small_model(folder, **settings)
    model = model.double().train()
    kept = 0

    def keep(tensor):
        nonlocal kept
        kept += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
        return tensor

    batch = random_batch()
    batch = NestedTensor(batch.tensors.double(), batch.mask)
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(batch, all_prompts()["text"], random_targets())
    total = sum(outputs[key].sin().mean() for key in ("pred_logits", "pred_keypoints"))
    (total + outputs["pred_masks"].sin().mean()).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize(
    ("part", "recomputed"), list(zip(PARTS, (5, 1, 2, 3, 1), strict=True)), ids=PARTS
)
def test_activation_checkpointing_changes_nothing_but_memory(
    tmp_path, monkeypatch, part, recomputed
):
    calls = Recomputed(monkeypatch)
    settings = {"prompt_dropout": 0.1, "backbone_drop_path": 0.2, "dropout": 0.1}
    gradients, kept = step_in_float64(tmp_path, **settings)
    assert calls.count == 0
    same, kept_then = step_in_float64(tmp_path, **settings, **{f"{part}_checkpointing": True})
    assert calls.count == recomputed  # Swin blocks, RoBERTa, encoder and decoder layers, mask head
    assert kept_then < kept
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-12, atol=1e-14)


def test_nothing_is_recomputed_in_evaluation(tmp_path, monkeypatch):
    calls = Recomputed(monkeypatch)
    model, *_ = small_model(tmp_path, **{f"{part}_checkpointing": True for part in PARTS})
    for prompt in all_prompts().values():
        model.eval()(random_batch(), prompt)
    assert calls.count == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_near_full_precision(tmp_path, dtype):
    model, criterion, _ = small_model(tmp_path, prompt_dropout=0.0, backbone_drop_path=0.0)
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            outputs = model.train()(random_batch(), all_prompts()["scribble"], random_targets())
        losses.append(criterion.total(criterion(outputs, random_targets())))
    losses[1].backward()
    assert losses[0] != losses[1]
    torch.testing.assert_close(*losses, rtol=0.1, atol=0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_mask_head(tmp_path):
    model, criterion, postprocessor = small_model(tmp_path, mask_head=False)
    outputs = model.eval()(random_batch(), all_prompts()["text"], random_targets())
    assert "pred_masks" not in outputs
    assert not any(
        "mask" in name or "dice" in name for name in criterion(outputs, random_targets())
    )
    sizes = torch.tensor(SIZES)
    assert "masks" not in postprocessor(outputs, sizes, sizes)[0]


# --- settings ------------------------------------------------------------------------------------


def test_parameter_groups_have_the_recipes_rates(tmp_path):
    cfg = small_config(write_roberta(tmp_path / "r"), lr=1.0, lr_backbone=2.0)
    cfg.merge_from_dict({"lr_text_encoder": 3.0, "lr_adjacency": 4.0})
    model, *_ = build_model(cfg)
    groups = build_parameter_groups(model, cfg)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == sum(1 for _ in model.parameters())
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            expected = 2.0
        elif name.startswith("prompt_encoder.text_backbone."):
            expected = 3.0
        elif name.endswith("adjacency"):
            expected = 4.0
        else:
            expected = 1.0
        assert rates[id(parameter)] == expected, name


SETTINGS_AND_EFFECTS = {
    "hidden_dim": (64, lambda m, c: m.query_init.class_head.in_features),
    "num_heads": (2, lambda m, c: m.encoder.layers[0].self_attention.num_heads),
    "feedforward_dim": (
        40,
        lambda m, c: m.encoder.layers[0].feed_forward.linear1.out_features,
    ),
    "encoder_layers": (1, lambda m, c: len(m.encoder.layers)),
    "encoder_points": (2, lambda m, c: m.encoder.layers[0].self_attention.num_points),
    "decoder_layers": (2, lambda m, c: len(m.decoder.layers)),
    "decoder_points": (3, lambda m, c: m.decoder.layers[0].cross_attention.num_points),
    "dropout": (0.3, lambda m, c: m.decoder.layers[0].cross_feed_forward.dropout.p),
    "prompt_dropout": (0.4, lambda m, c: m.prompt_encoder.word_projection[2].p),
    "backbone_drop_path": (
        0.5,
        lambda m, c: m.backbone.body.layers[3].blocks[0].drop_path.p,
    ),
    "num_groups": (7, lambda m, c: m.query_init.num_groups),
    "focal_alpha": (0.5, lambda m, c: c.focal_alpha),
    "focal_gamma": (1.0, lambda m, c: c.focal_gamma),
    "loss_weights__giou": (9.0, lambda m, c: c.weights["loss_giou_0"]),
    "match_costs__oks": (8.0, lambda m, c: m.matcher.costs["oks"]),
}


@pytest.mark.parametrize("name", SETTINGS_AND_EFFECTS)
def test_every_model_setting_arrives(tmp_path, name):
    value, read = SETTINGS_AND_EFFECTS[name]
    cfg = small_config(write_roberta(tmp_path / "r"), **{name: value})
    model, criterion, _ = build_model(cfg)
    assert read(model, criterion) == value


@pytest.mark.parametrize(("num_results", "expected"), [(None, 5), (3, 3), (10, 10)])
def test_number_of_results(tmp_path, num_results, expected):
    model, _, postprocessor = small_model(tmp_path, num_results=num_results)
    with torch.inference_mode():
        outputs = model.eval()(random_batch(), all_prompts()["point"])
    sizes = torch.tensor(SIZES)
    assert [len(r["scores"]) for r in postprocessor(outputs, sizes, sizes)] == [expected] * 2


def test_focal_settings_reach_the_matching(tmp_path):
    costs = []
    for gamma in (0.0, 2.0):
        model, *_ = small_model(tmp_path, focal_gamma=gamma)
        costs.append(model.matcher._class_cost(torch.ones(1, 5)))
    assert not torch.allclose(*costs)


def test_frozen_text_encoder(tmp_path):
    cfg = small_config(write_roberta(tmp_path / "r"), freeze_text_encoder=True)
    model, *_ = build_model(cfg)
    groups = {group["name"] for group in build_parameter_groups(model, cfg)}
    assert groups == {"backbone", "rest", "adjacency"}
    assert not any(p.requires_grad for p in model.prompt_encoder.text_backbone.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"within_type": "gcn"}, "'within_type' must be 'graph' or 'self'"),
        ({"backbone": "swin_X"}, "Unknown backbone 'swin_X'"),
        ({"backbone": "resnet18"}, "backbone_options .* apply to Swin only"),
        ({"backbone_options__windows": 3}, "a setting that Swin does not know"),
        ({"num_heads": 5}, "hidden_dim must be a multiple of num_heads"),
        ({"hidden_dim": 40}, "hidden_dim must be a multiple of 32"),
        ({"decoder": "detr"}, "'decoder' must be"),
        ({"pad_divisor": 4}, "with a mask_head, pad_divisor must be a multiple of 8"),
        ({"model": "unipose"}, "Unknown model 'unipose'; expected one of uniphd, grouppose"),
        ({"skeleton": "hand"}, "Unknown skeleton 'hand'"),
        ({"text_encoder": "no/such folder"}, "neither a local folder"),
    ],
)
def test_settings_that_cannot_be(tmp_path, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        build_model(small_config(**{"text_encoder": write_roberta(tmp_path / "r"), **changes}))


def test_weights_of_the_text_encoder(tmp_path):
    folder = write_roberta(tmp_path / "r")
    model, *_ = build_model(small_config(folder))
    with pytest.raises(OSError, match="has no weights"):
        build_model(small_config(folder, text_encoder_pretrained=True))
    torch.nn.init.constant_(model.prompt_encoder.text_backbone.pooler.dense.bias, 0.25)
    model.prompt_encoder.text_backbone.save_pretrained(folder)
    loaded, *_ = build_model(small_config(folder, text_encoder_pretrained=True))
    own = model.prompt_encoder.text_backbone.state_dict()
    torch.testing.assert_close(dict(loaded.prompt_encoder.text_backbone.state_dict()), dict(own))


def test_tokenizer_alone_is_enough_for_a_full_checkpoint(tmp_path):
    folder = write_roberta(tmp_path / "r")
    (tmp_path / "r" / "config.json").unlink()
    model, *_ = build_model(small_config(folder))
    config = model.prompt_encoder.text_backbone.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (768, 12, 50265)


def test_long_captions_are_cut(built):
    model = built[0].eval()
    with torch.inference_mode():
        encoded = model.prompt_encoder.encode_text(["red " * 200, "red"], torch.device("cpu"))
    assert encoded.features.shape[1] == 30


def test_wrong_prompts(built):
    model = built[0].eval()
    with pytest.raises(TypeError, match=r"TextPrompt, PointPrompt, ScribblePrompt .* got str"):
        model(random_batch(), "a man")
    with pytest.raises(ValueError, match="Got 1 prompts for 2 images"):
        model(random_batch(), TextPrompt(["a man"]))
    with pytest.raises(ValueError, match=r"shape \[B, P, 2\]"):
        model(random_batch(), PointPrompt(torch.zeros(2, 2)))


# --- modules against other implementations --------------------------------------------------------


def test_map_encoding_literally():
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[:, :, 3] = True
    encoded = encode_map(mask, 8)
    y, x, dim = 2, 1, 4
    for axis, (count, last) in enumerate(((y + 1, 3), (x + 1, 3))):
        angle = count / (last + 1e-6) * 2 * math.pi
        for i in range(dim):
            wave = angle / 20 ** (2 * (i // 2) / dim)
            expected = math.cos(wave) if i % 2 else math.sin(wave)
            assert encoded[0, axis * dim + i, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_point_and_word_encodings_literally():
    encoded = encode_points(torch.tensor([0.25, 0.75]), 8)
    for axis, value in enumerate((0.75, 0.25)):  # y before x
        for i in range(4):
            wave = value * 2 * math.pi / 10000 ** (2 * (i // 2) / 4)
            expected = math.cos(wave) if i % 2 else math.sin(wave)
            assert encoded[axis * 4 + i].item() == pytest.approx(expected, abs=1e-5)
    words = encode_words(torch.tensor([[False, False, True]]), 4)
    wave = 1 / (2 + 1e-6) * 2 * math.pi
    expected = [math.sin(wave), math.cos(wave), math.sin(wave / 100), math.cos(wave / 100)]
    assert words[0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_proposals_literally():
    mask = torch.zeros(1, 4 * 6 + 2 * 3, dtype=torch.bool)
    layout = LevelLayout(
        shapes=((4, 6), (2, 3)),
        spatial_shapes=torch.tensor([[4, 6], [2, 3]]),
        level_start_index=torch.tensor([0, 24]),
        padding_mask=mask,
        valid_ratios=torch.tensor([[[0.5, 1.0], [0.5, 1.0]]]),
    )
    memory = EncoderMemory(torch.zeros(1, 30, 8), layout)
    logits, valid = make_proposals(memory)
    # Row 2, column 1 of the first level: x = 1.5 of 3 valid columns, y = 2.5 of 4 rows.
    token = 2 * 6 + 1
    assert valid[0, token]
    assert logits[0, token].sigmoid().tolist() == pytest.approx([0.5, 0.625])
    # Column 3 lies at 3.5 / 3 > 0.99 of the valid width.
    assert not valid[0, token + 2] and torch.isinf(logits[0, token + 2]).all()


def test_mask_head_equals_one_group_at_a_time():
    """The batched head against the published recipe: each group's own small network."""
    torch.manual_seed(0)
    dim, groups, height, width = 8, 3, 6, 10
    head = DynamicMaskHead(dim, (5, 7))
    shapes = [(height, width), (3, 5), (2, 3), (1, 2)]
    layout = LevelLayout.of([NestedTensor(None, torch.zeros(1, h, w).bool()) for h, w in shapes])
    memory = EncoderMemory(torch.randn(1, sum(h * w for h, w in shapes), dim), layout)
    c2, c3 = torch.randn(1, 5, 2 * height, 2 * width), torch.randn(1, 7, height, width)
    queries, centers = torch.randn(1, groups, dim), torch.rand(1, groups, 2)
    image_size = torch.tensor([[45, 78]])
    with torch.inference_mode():
        full, low = head(queries, centers, memory, c2, c3, image_size)

        features = 0
        start = 0
        for h, w in shapes[:3]:
            level = memory.tokens[:, start : start + h * w].mT.reshape(1, dim, h, w)
            start += h * w
            features = features + F.interpolate(level, (height, width), mode="bicubic")
        for group in range(groups):
            weights = head.controller(queries[0, group])
            cuts = [(dim + 2) * 16, 16 * 16, 16, 16]
            weight1, weight2, bias1, bias2 = weights.split(cuts)
            center = centers[0, group] * torch.tensor([78.0, 45.0])
            offset = torch.stack(
                [
                    (center[0] - (8 * torch.arange(width) + 4)).expand(height, width),
                    (center[1] - (8 * torch.arange(height) + 4))[:, None].expand(height, width),
                ]
            )[None]
            x = torch.cat([features, offset], dim=1)
            x = F.relu(F.conv2d(x, weight1.view(16, dim + 2, 1, 1), bias1))
            x = F.conv2d(x, weight2.view(16, 16, 1, 1), bias2)
            expected_low = F.pixel_shuffle(x, 4)[0, 0]
            for refine, fine in ((head.refine_c3, c3), (head.refine_c2, c2)):
                x = F.interpolate(x, fine.shape[-2:], mode="bilinear")
                x = x + refine.conv2(F.relu(refine.conv1(F.relu(torch.cat([x, fine], dim=1)))))
            expected_full = F.pixel_shuffle(x, 4)[0, 0]
            torch.testing.assert_close(low[0, group], expected_low, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(full[0, group], expected_full, atol=1e-4, rtol=1e-4)


def test_decoder_layer_equals_loops_over_groups_and_types(built):
    """Across, cross and within attention written out with one small attention at a time."""
    model = built[0].eval()
    layer = model.decoder.layers[0]
    generator = torch.Generator().manual_seed(1)

    def no_padding(side):
        return torch.zeros(1, side, side, dtype=torch.bool)

    with torch.inference_mode():
        memory = model.encoder(
            [
                NestedTensor(
                    torch.randn(1, 32, s, s, generator=generator), torch.zeros(1, s, s).bool()
                )
                for s in (8, 4, 2, 1)
            ]
        )
        queries = torch.randn(1, 5, 18, 32, generator=generator)
        positions = torch.randn(1, 5, 18, 32, generator=generator)
        positions[:, :, 0] = 0
        references = torch.rand(1, 5, 18, 4, 2, generator=generator)
        before = queries.clone()
        got = layer.attend(queries, positions, references, memory)
        torch.testing.assert_close(queries, before)  # nobody's tensor is changed in place

        def attend(module, tokens, bias=None):
            return F.multi_head_attention_forward(
                *[tokens[:, None]] * 3,
                32,
                4,
                module.in_proj_weight,
                module.in_proj_bias,
                None,
                None,
                False,
                0.0,
                module.out_proj.weight,
                module.out_proj.bias,
                attn_mask=bias,
                need_weights=False,
            )[0][:, 0]

        across = torch.stack(
            [attend(layer.across_attention, queries[0, :, kind]) for kind in range(18)], dim=1
        )
        x = layer.across_norm(queries[0] + across) + positions[0]
        sampled = torch.stack(
            [
                layer.cross_attention(
                    group[None],
                    reference[None],
                    memory.tokens,
                    memory.layout.spatial_shapes,
                    memory.layout.level_start_index,
                )[0]
                for group, reference in zip(x, references[0], strict=True)
            ]
        )
        x = layer.cross_feed_forward(layer.cross_norm(x + sampled)) + positions[0]
        graph = layer.within_attention
        within = torch.stack([attend(graph.attention, group, graph.adjacency) for group in x])
        expected = layer.within_feed_forward(layer.within_norm(x + within))
    torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=1e-4)


def test_group_pose_layer_equals_loops_over_groups_and_types():
    """Group Pose's order: within, across, into the image; one feed-forward network."""
    torch.manual_seed(0)
    layer = GroupPoseDecoderLayer(
        embed_dim=32, num_heads=4, num_levels=2, num_points=2, feedforward_dim=48, dropout=0.0
    ).eval()
    levels = [NestedTensor(torch.randn(1, 32, s, s), torch.zeros(1, s, s).bool()) for s in (4, 2)]
    memory = EncoderMemory(torch.randn(1, 20, 32), LevelLayout.of(levels))
    queries, positions = torch.randn(1, 5, 18, 32), torch.randn(1, 5, 18, 32)
    references = torch.rand(1, 5, 18, 2, 2)
    with torch.inference_mode():
        got = layer.attend(queries, positions, references, memory)[0]

        def attend(module, tokens):
            return module(tokens[None])[0]

        x = queries[0] + positions[0]
        x = layer.within_norm(x + torch.stack([attend(layer.within_attention, g) for g in x]))
        across = [attend(layer.across_attention, x[:, kind]) for kind in range(18)]
        x = layer.across_norm(x + torch.stack(across, dim=1)) + positions[0]
        layout = memory.layout
        sampled = [
            layer.cross_attention(
                group[None],
                reference[None],
                memory.tokens,
                layout.spatial_shapes,
                layout.level_start_index,
            )[0]
            for group, reference in zip(x, references[0], strict=True)
        ]
        expected = layer.feed_forward(layer.cross_norm(x + torch.stack(sampled)))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device, on the device "meta" in place of a GPU.

    A tensor there has no numbers: whatever asks for them fails by itself.  Copies to and from the
    CPU have to be asynchronous.
    """

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is torch.ops.aten._to_copy.default and options.get("device") is not None:
            moves = options["device"] != arguments[0].device
            assert not moves or options.get("non_blocking"), "a copy that waits"
        if function in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default):
            assert all(i is None or i.dtype != torch.bool for i in arguments[1]), "a bool index"
        return function(*arguments, **options)


class NothingMadeThere(TorchFunctionMode):
    """Refuses `torch.tensor(numbers, device="cuda")` and its like, which wait for their copy."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            assert not result.is_meta, "numbers of Python become a tensor on the device"
        return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_no_step_waits_for_a_gpu(tmp_path, kind, recompute):
    parts = {f"{part}_checkpointing": recompute for part in PARTS}
    model, criterion, _ = small_model(tmp_path, **parts, dropout=0.1)
    model, criterion = model.to("meta").train(), criterion.to("meta")
    targets = [
        {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in target.items()}
        for target in random_targets()
    ]
    batch, prompt = random_batch().to("meta"), all_prompts()[kind].to("meta")
    with NoWaiting(), NothingMadeThere():
        outputs = model(batch, prompt, targets)
        losses = criterion(outputs, targets)
        criterion.total(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert all(loss.is_meta for loss in losses.values())


def test_no_step_without_prompts_waits_but_for_the_assignment():
    """Several people are assigned by SciPy: that takes one transfer, which "meta" cannot do."""
    people = [{"keypoints": torch.zeros(n, 17, 3, device="meta")} for n in (2, 1, 0)]
    for target in people:
        target |= dict.fromkeys(("area", "labels"), target["keypoints"][..., 0, 0])
        target["boxes"] = target["keypoints"][:, 0, :1].expand(-1, 4)
    with NoWaiting(), NothingMadeThere():
        assert People.of(people).present.shape == (3, 2)


def test_references_are_detached_between_layers_but_not_for_the_heads(built):
    """A layer's loss reaches the layer before through the reference that entered it."""
    model = built[0].train()
    model.zero_grad()
    outputs = model(random_batch(), all_prompts()["point"], random_targets())
    outputs["aux_outputs"][1]["pred_keypoints"].sum().backward()
    first = model.decoder.layers[0].keypoint_head.layers[-1].weight.grad
    second = model.decoder.layers[1].keypoint_head.layers[-1].weight.grad
    assert first.abs().sum() > 0 and second.abs().sum() > 0
    assert model.decoder.layers[2].keypoint_head.layers[-1].weight.grad is None
    assert model.query_init.keypoint_head.layers[-1].weight.grad is None


@pytest.mark.parametrize(
    ("sides", "padded"),
    [((), (32, 64)), ((48, 64, 96), (48, 64)), ((96, 40), (48, 96)), ((8, 30), (32, 64))],
)
def test_batches_are_padded_to_few_sizes(sides, padded):
    images = random_images([(30, 47), (17, 64)])
    batch = NestedTensor.from_list(images, sides=sides)
    assert batch.tensors.shape == (2, 3, *padded)
    assert batch.sizes.tolist() == [[30, 47], [17, 64]]
    batch, _ = collate([Sample(image, {}) for image in images], sides=sides)
    assert batch.mask.shape == (2, *padded)


def test_images_of_the_batch_keep_their_sizes():
    batch = NestedTensor.from_list(random_images([(30, 47), (17, 64)]))
    assert batch.tensors.shape == (2, 3, 32, 64)
    assert batch.sizes.tolist() == [[30, 47], [17, 64]]
    assert batch.tensors[0, :, 30:].abs().sum() == 0
    with pytest.raises(ValueError, match="at least one image"):
        NestedTensor.from_list([])
    with pytest.raises(ValueError, match=r"Image 1 .* expected \[C, h, w\]"):
        NestedTensor.from_list([torch.zeros(3, 4, 4), torch.zeros(4, 4)])
    with pytest.raises(ValueError, match=r"Image 1 .*uint8; expected .* C and type"):
        NestedTensor.from_list([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)])


@pytest.mark.parametrize("kind", ["text", "scribble"])
def test_losses_and_gradients_of_two_parts_add_up_to_those_of_the_whole(tmp_path, kind):
    """As processes and rounds divide a step: sums over the people of all parts, the published
    visibility loss, which divides twice, included."""
    sizes = ((64, 96), (64, 96))
    model, criterion, _ = small_model(tmp_path, prompt_dropout=0.0, backbone_drop_path=0.0)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # RoBERTa's own
            module.p = 0.0
    batch, targets, prompt = random_batch(sizes), random_targets(sizes), all_prompts(sizes)[kind]
    if kind == "text":
        prompt = TextPrompt([prompt.captions[0]] * 2)  # padding would be another one

    def losses_and_gradients(parts):
        model.zero_grad()
        sums = {}
        for part in parts:
            own = [targets[i] for i in part]
            samples = NestedTensor(batch.tensors[part], batch.mask[part])
            if kind == "text":
                prompts = TextPrompt([prompt.captions[i] for i in part])
            else:
                prompts = ScribblePrompt(prompt.points[part])
            losses = criterion(model(samples, prompts, own), own, torch.tensor(2.0))
            criterion.total(losses).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.item()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return sums, gradients

    whole, gradients = losses_and_gradients([[0, 1]])
    parts, added = losses_and_gradients([[0], [1]])
    assert parts == pytest.approx(whole, rel=1e-5)
    assert gradients.keys() == added.keys()
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    difference = torch.nn.utils.get_total_norm([gradients[n] - added[n] for n in gradients])
    assert difference < 1e-5 * norm
