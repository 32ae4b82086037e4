"""ED-Pose's decoder in UniPHD's frame, and layers in stages, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from small_models import (
    all_prompts,
    random_batch,
    random_targets,
    small_config,
    small_model,
    write_roberta,
)
from test_criterion import COSTS, SIGMAS, WEIGHTS, make_target
from test_model import NothingMadeThere, NoWaiting

from models import build_model
from models.layers.encoder import EncoderMemory, LevelLayout
from models.layers.mlp import MLP
from models.layers.position_encoding import encode_boxes, encode_points
from models.performance.compilation import compile_layers
from models.uniphd.criterion import Criterion
from models.uniphd.decoders.edpose import BoxDecoderLayer, BoxLayerOutput, Expansion, group_mask
from models.uniphd.decoders.human_queries import HumanQueryInitializer
from models.uniphd.matcher import GroupMatcher, People, stack_stages
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from models.uniphd.prompt_encoder import ScribblePrompt
from util.nested_tensor import NestedTensor

EDPOSE = {"decoder": "edpose", "decoder_layers": 4, "num_human_queries": 9}
SIZES = {"embed_dim": 8, "num_heads": 2, "num_levels": 2, "num_points": 2, "feedforward_dim": 16}
PEOPLE = ("pred_logits", "pred_boxes")
POSES = (*PEOPLE, "pred_keypoints", "pred_keypoints_visi")
POSITION = MLP(16, 8, 8, 2).eval()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("edpose"), **EDPOSE)


def logit(value):
    return math.log(value / (1 - value))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def make_memory(batch=1, padding=False, fill=0.0):
    """Random tokens of two levels, 4 x 6 and 2 x 3; with padding, the right third is padding."""
    generator = torch.Generator().manual_seed(1)
    levels = []
    for height, width in ((4, 6), (2, 3)):
        mask = torch.zeros(batch, height, width, dtype=torch.bool)
        tensor = torch.randn(batch, 8, height, width, generator=generator)
        if padding:
            mask[..., 2 * width // 3 :] = True
            tensor = tensor.masked_fill(mask[:, None], fill)
        levels.append(NestedTensor(tensor, mask))
    tokens = torch.cat([level.tensors.flatten(2).mT for level in levels], dim=1)
    return EncoderMemory(tokens, LevelLayout.of(levels))


def make_layer(has_keypoints):
    torch.manual_seed(0)
    return BoxDecoderLayer(**SIZES, dropout=0.0, has_keypoints=has_keypoints).eval()


# --- the whole model -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "scribble", "point"])
def test_outputs(built, kind):
    with torch.inference_mode():
        outputs = built[0].eval()(random_batch(), all_prompts()[kind])
    layers = [*outputs["aux_outputs"], outputs, outputs["encoder_outputs"]]
    of_people = {"pred_logits": (2, 9, 2), "pred_boxes": (2, 9, 4)}
    of_groups = {
        "pred_logits": (2, 5, 2),
        "pred_boxes": (2, 5, 4),
        "pred_keypoints": (2, 5, 17, 2),
        "pred_keypoints_visi": (2, 5, 17),
    }
    for layer, expected in zip(
        layers, [of_people] * 2 + [of_groups] * 2 + [of_people], strict=True
    ):
        found = {name: tuple(layer[name].shape) for name in layer if name in POSES}
        assert found == expected
    assert outputs["pred_masks"].shape == (2, 5, 96, 96)
    assert outputs["pred_masks_low"].shape == (2, 5, 48, 48)


@pytest.mark.parametrize("human_layers", [1, 2, 3])
def test_human_layers(tmp_path, human_layers):
    model = small_model(tmp_path, **EDPOSE, human_layers=human_layers)[0]
    assert [layer.has_keypoints for layer in model.decoder.layers] == [
        number >= human_layers for number in range(4)
    ]
    # The sizes of keypoints' boxes are only changed where another layer follows.
    assert (model.decoder.size_head is None) == (human_layers == 3)


def test_as_many_human_queries_as_groups(tmp_path):
    model = small_model(tmp_path, decoder="edpose", human_layers=1)[0]
    assert model.query_init.num_groups == 5
    assert model.query_init.query_embedding.weight.shape == (5, 32)


def test_an_image_does_not_depend_on_its_neighbours(built):
    model = built[0].eval()
    batch, prompts = random_batch(), all_prompts()["scribble"]
    with torch.inference_mode():
        together = model(batch, prompts)
        for i in range(2):
            alone = NestedTensor(batch.tensors[i : i + 1], batch.mask[i : i + 1])
            separate = model(alone, ScribblePrompt(prompts.points[i : i + 1]))
            for name in POSES:
                torch.testing.assert_close(
                    separate[name][0], together[name][i], atol=1e-4, rtol=0, msg=name
                )


def test_what_lies_in_the_padding_does_not_matter():
    layer = make_layer(has_keypoints=True)
    torch.manual_seed(2)
    queries, references = torch.randn(1, 2, 4, 8), torch.rand(1, 2, 4, 4)
    initializer = HumanQueryInitializer(8, 3).eval()
    torch.nn.init.zeros_(initializer.memory_projection.bias)
    results = []
    for fill in (0.0, 7.0):
        memory = make_memory(padding=True, fill=fill)
        with torch.inference_mode():
            output = layer(queries, references, memory, POSITION)
            humans = initializer(memory, torch.zeros(1, 8))
        results.append((output.queries, output.next_references, humans.boxes, humans.queries))
    for first, second in zip(*results, strict=True):
        assert first.equal(second)


def test_activation_checkpointing_changes_nothing(tmp_path):
    gradients = []
    for recompute in (False, True):
        model, *_ = small_model(
            tmp_path, **EDPOSE, decoder_checkpointing=recompute, prompt_dropout=0.0, dropout=0.1
        )
        model = model.double().train()
        batch = random_batch()
        torch.manual_seed(1)
        outputs = model(
            NestedTensor(batch.tensors.double(), batch.mask),
            all_prompts()["text"],
            random_targets(),
        )
        sum(outputs[name].sin().mean() for name in POSES).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_is_near_full_precision(tmp_path, dtype):
    model, criterion, _ = small_model(
        tmp_path, **EDPOSE, prompt_dropout=0.0, backbone_drop_path=0.0
    )
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            outputs = model.train()(random_batch(), all_prompts()["scribble"], random_targets())
        losses.append(criterion.total(criterion(outputs, random_targets())))
    losses[1].backward()
    assert losses[0] != losses[1]
    torch.testing.assert_close(*losses, rtol=0.1, atol=0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_step_waits_for_a_gpu(tmp_path):
    model, criterion, _ = small_model(tmp_path, **EDPOSE, dropout=0.1)
    model, criterion = model.to("meta").train(), criterion.to("meta")
    targets = [
        {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in target.items()}
        for target in random_targets()
    ]
    batch, prompt = random_batch().to("meta"), all_prompts()["scribble"].to("meta")
    with NoWaiting(), NothingMadeThere():
        losses = criterion(model(batch, prompt, targets), targets)
        criterion.total(losses).backward()
    assert all(loss.is_meta for loss in losses.values())


def test_its_layers_are_compiled(built, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: seen.append(type(self)))
    compile_layers(built[0], "default")
    assert seen.count(BoxDecoderLayer) == 4


def test_at_first_keypoints_lie_in_the_middle_of_the_box(tmp_path):
    """All corrections start at zero: the boxes are the proposals', the keypoints their centres."""
    torch.manual_seed(0)
    model, *_ = build_model(small_config(write_roberta(tmp_path / "r"), **EDPOSE))
    with torch.inference_mode():
        outputs = model.eval()(random_batch(), all_prompts()["point"])
    centers = outputs["pred_boxes"][:, :, None, :2].expand_as(outputs["pred_keypoints"])
    torch.testing.assert_close(outputs["pred_keypoints"], centers)
    sizes = outputs["encoder_outputs"]["pred_boxes"][..., 2:]
    assert {round(size, 3) for size in sizes.flatten().tolist()} <= {0.05, 0.1, 0.2, 0.4, 1.0}


# --- who sees whom -------------------------------------------------------------------------------


def test_the_mask_by_hand():
    """Two groups of a person (p) and two keypoints (k): rows see columns."""
    #       p1 k1 k1  p2 k2 k2
    sees = [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]
    expected = [[0.0 if seen else -math.inf for seen in row] for row in sees]
    assert group_mask(2, 2).tolist() == expected


@pytest.mark.parametrize(
    ("changed", "who"),
    [
        ((1, 0), [(0, 0), (1, 0), (1, 1), (1, 2)]),  # the other person: people, and its keypoints
        ((1, 2), [(1, 0), (1, 1), (1, 2)]),  # a keypoint: its own group
        ((0, 1), [(0, 0), (0, 1), (0, 2)]),
    ],
)
def test_whom_a_change_reaches_within_a_layer(changed, who):
    layer = make_layer(has_keypoints=True)
    torch.manual_seed(2)
    queries, references = torch.randn(1, 2, 3, 8), torch.rand(1, 2, 3, 4)
    other = queries.clone()
    other[0, changed[0], changed[1]] += 1.0
    with torch.inference_mode():
        before, after = (
            layer(q, references, make_memory(), POSITION, None, group_mask(2, 2)).queries
            for q in (queries, other)
        )
    differs = (before - after).abs().amax(-1)[0] > 1e-6
    assert [tuple(place) for place in differs.nonzero().tolist()] == who


def test_all_people_see_each_other_in_a_human_layer():
    layer = make_layer(has_keypoints=False)
    torch.manual_seed(2)
    queries, references = torch.randn(1, 3, 1, 8), torch.rand(1, 3, 1, 4)
    other = queries.clone()
    other[0, 2] += 1.0
    with torch.inference_mode():
        before, after = (
            layer(q, references, make_memory(), POSITION).queries for q in (queries, other)
        )
    assert ((before - after).abs().amax(-1) > 1e-6).all()


# --- boxes and keypoints -------------------------------------------------------------------------


def constant(mlp, *values):
    """Let the MLP give these values, whatever it gets."""
    torch.nn.init.zeros_(mlp.layers[-1].weight)
    with torch.no_grad():
        mlp.layers[-1].bias.copy_(torch.tensor(values))


@pytest.mark.parametrize("with_sizes", [True, False])
def test_refinement_by_hand(with_sizes):
    layer = make_layer(has_keypoints=True)
    constant(layer.box_head, 0.5, -0.5, 1.0, 0.0)
    constant(layer.keypoint_head, -1.0, 0.25)
    size_head = MLP(8, 8, 2, 3)
    constant(size_head, 0.75, -2.0)
    references = torch.tensor([[[[0.4, 0.6, 0.2, 0.5], [0.3, 0.7, 0.1, 0.05]]]])
    output = layer(
        torch.randn(1, 1, 2, 8), references, make_memory(), POSITION,
        size_head if with_sizes else None, group_mask(1, 1),
    )  # fmt: skip
    box = [sigmoid(logit(0.4) + 0.5), sigmoid(logit(0.6) - 0.5), sigmoid(logit(0.2) + 1.0), 0.5]
    keypoint = [sigmoid(logit(0.3) - 1.0), sigmoid(logit(0.7) + 0.25)]
    size = [sigmoid(logit(0.1) + 0.75), sigmoid(logit(0.05) - 2.0)] if with_sizes else [0.1, 0.05]
    torch.testing.assert_close(output.predictions["pred_boxes"], torch.tensor([[box]]))
    torch.testing.assert_close(output.predictions["pred_keypoints"], torch.tensor([[[keypoint]]]))
    expected = torch.tensor([[[box, keypoint + size]]])
    torch.testing.assert_close(output.next_references, expected)
    assert output.centers.tolist() == [[pytest.approx([0.4, 0.6])]]  # as it entered


def test_expansion_by_hand():
    """Of two people the better one goes on, with two keypoints."""
    expansion = Expansion(embed_dim=4, num_keypoints=2)
    constant(expansion.keypoint_head, 1.0, -0.5)
    with torch.no_grad():
        expansion.size_logits.copy_(torch.tensor([[0.0, 1.0], [-1.0, 2.0]]))
    queries = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]], [[0.0, 2.0, 0.0, 0.0]]]])
    boxes = torch.tensor([[[[0.1, 0.1, 0.1, 0.1]], [[0.4, 0.6, 0.2, 0.5]]]])
    logits = torch.tensor([[[0.5, 0.0], [-3.0, 0.7]]])  # the larger of the two ranks
    humans = BoxLayerOutput(queries, boxes, boxes, {"pred_logits": logits})
    found, references = expansion(humans, 1)
    embedding = expansion.keypoint_embedding.weight.detach()
    human = torch.tensor([0.0, 2.0, 0.0, 0.0])
    torch.testing.assert_close(found[0, 0], torch.cat([human[None], human + embedding]))
    place = [sigmoid(logit(0.4) + 1.0), sigmoid(logit(0.6) - 0.5)]
    expected = [
        [0.4, 0.6, 0.2, 0.5],
        [*place, 0.5 * 0.2, sigmoid(1.0) * 0.5],
        [*place, sigmoid(-1.0) * 0.2, sigmoid(2.0) * 0.5],
    ]
    torch.testing.assert_close(references[0, 0], torch.tensor(expected))


def test_human_queries_begin_at_the_best_proposals():
    initializer = HumanQueryInitializer(embed_dim=8, num_queries=2)
    memory = make_memory()
    constant(initializer.box_head, 0.5, 0.0, -1.0, 1.0)
    prompt = torch.randn(1, 8)
    humans = initializer(memory, prompt)
    logits = initializer.class_head(
        initializer.memory_norm(initializer.memory_projection(memory.tokens))
    )
    best = logits[0].amax(-1).argsort(descending=True)[:2].tolist()
    for place, token in enumerate(best):
        # Tokens 0 to 23 are 4 rows of 6 with size 0.05, the others 2 rows of 3 with size 0.1.
        number, width, height, size = (token, 6, 4, 0.05) if token < 24 else (token - 24, 3, 2, 0.1)
        x, y = (number % width + 0.5) / width, (number // width + 0.5) / height
        box = [sigmoid(logit(x) + 0.5), y, sigmoid(logit(size) - 1), sigmoid(logit(size) + 1)]
        assert humans.proposals["pred_boxes"][0, place].tolist() == pytest.approx(box, abs=1e-5)
    torch.testing.assert_close(humans.queries, prompt[:, None] + initializer.query_embedding.weight)
    assert humans.boxes.equal(humans.proposals["pred_boxes"]) and not humans.boxes.requires_grad


def test_gradients_of_references(built):
    """Predictions reach back one layer; the keypoints' sizes all the way."""
    model = built[0].train()
    first, last = model.decoder.layers[2:]

    def reached(loss):
        model.zero_grad()
        loss.backward(retain_graph=True)
        parts = {
            "proposals": model.query_init.box_head.layers[-1].weight,
            "human": model.decoder.layers[1].box_head.layers[-1].weight,
            "expansion": model.decoder.expansion.keypoint_head.layers[-1].weight,
            "first": first.keypoint_head.layers[-1].weight,
            "last": last.keypoint_head.layers[-1].weight,
            "size logits": model.decoder.expansion.size_logits,
            "size head": model.decoder.size_head.layers[-1].weight,
        }
        return {n for n, p in parts.items() if p.grad is not None and p.grad.abs().sum() > 0}

    outputs = model(random_batch(), all_prompts()["point"], random_targets())
    sizes = {"size logits", "size head"}
    assert reached(outputs["pred_keypoints"].sum()) == {"last", "first", *sizes}
    assert reached(outputs["aux_outputs"][2]["pred_keypoints"].sum()) == {
        "first", "expansion", "human", "size logits",
    }  # fmt: skip
    assert reached(outputs["encoder_outputs"]["pred_boxes"].sum()) == {"proposals"}


def test_encoding_of_boxes_literally():
    boxes = torch.tensor([[0.3, 0.8, 0.1, 0.6]])
    encoded = encode_boxes(boxes, 8)
    assert encoded.shape == (1, 16)
    assert encoded[:, :8].equal(encode_points(boxes[:, :2], 8))

    def features(value):
        angles = [2 * math.pi * value / 10000 ** (2 * (i // 2) / 4) for i in range(4)]
        return [math.sin(a) if i % 2 == 0 else math.cos(a) for i, a in enumerate(angles)]

    assert encoded[0, 8:].tolist() == pytest.approx(features(0.1) + features(0.6), abs=1e-5)


def test_offsets_in_half_boxes():
    """One offset of a half box / P: boxes of 2 P pixels make it one pixel."""
    torch.manual_seed(0)
    layer = MSDeformAttn(embed_dim=8, num_levels=2, num_heads=2, num_points=3)
    torch.nn.init.normal_(layer.sampling_offsets.weight)
    memory = make_memory(batch=2)
    query, points = torch.randn(2, 5, 8), torch.rand(2, 5, 2, 2)
    shapes = memory.layout.spatial_shapes
    rest = (query, points, memory.tokens, shapes, memory.layout.level_start_index)
    pixels = (2 * 3 / shapes.flip(-1)).expand(2, 5, -1, -1)
    expected = layer(*rest)
    torch.testing.assert_close(layer(*rest, reference_sizes=pixels), expected)
    # A box twice as large takes offsets half as large to the same places.
    with torch.no_grad():
        layer.sampling_offsets.weight /= 2
        layer.sampling_offsets.bias /= 2
    torch.testing.assert_close(layer(*rest, reference_sizes=2 * pixels), expected)
    assert not layer(*rest, reference_sizes=pixels).allclose(expected)


# --- layers in stages ----------------------------------------------------------------------------


def make_stages(people=1):
    """A human layer of three queries, two layers of two groups, three proposals; random."""
    generator = torch.Generator().manual_seed(0)

    def layer(count, names):
        shapes = {
            "pred_logits": (2,),
            "pred_boxes": (4,),
            "pred_keypoints": (2, 2),
            "pred_keypoints_visi": (2,),
        }
        return {name: torch.rand(1, count, *shapes[name], generator=generator) for name in names}

    target = make_target()
    repeated = {
        k: torch.cat([target[k]] * people) for k in ("boxes", "labels", "keypoints", "area")
    }
    repeated["keypoints"] = repeated["keypoints"] * torch.rand(people, 1, 1, generator=generator)
    outputs = {
        **layer(2, POSES),
        "aux_outputs": [layer(3, PEOPLE), layer(2, POSES)],
        "encoder_outputs": layer(3, PEOPLE),
    }
    return outputs, {**repeated, "image_id": 1}


def make_matcher():
    return GroupMatcher(costs=COSTS, sigmas=SIGMAS, focal_alpha=0.25, focal_gamma=2.0)


def test_stages():
    outputs, _ = make_stages()
    stages = stack_stages(outputs)
    assert [stage.layers for stage in stages] == [slice(0, 1), slice(1, 3), slice(3, 4)]
    assert [set(stage.predictions) for stage in stages] == [set(PEOPLE), set(POSES), set(PEOPLE)]
    assert stages[1].predictions["pred_boxes"][1].equal(outputs["pred_boxes"])
    # With as many queries everywhere it is one stage, and keypoints are those of its middle.
    outputs["aux_outputs"][0] = {n: v[:, :2] for n, v in outputs["aux_outputs"][0].items()}
    outputs["encoder_outputs"] = {n: v[:, :2] for n, v in outputs["encoder_outputs"].items()}
    (stage,) = stack_stages(outputs)
    assert stage.layers == slice(0, 4) and stage.makers["pred_logits"] == slice(0, 4)
    assert stage.makers["pred_keypoints"] == slice(1, 3)
    assert stage.predictions["pred_keypoints"].shape == (2, 1, 2, 2, 2)
    del outputs["encoder_outputs"]
    assert stack_stages(outputs)[0].layers == slice(0, 3)
    outputs["aux_outputs"].append({n: outputs[n] for n in PEOPLE})
    with pytest.raises(ValueError, match=r"Layers \[1, 3\] of 4 have pred_keypoints"):
        stack_stages(outputs)


@pytest.mark.parametrize("as_one", [True, False])
def test_matching_in_stages(as_one):
    """Every layer gets the group that it would get alone, by the costs of what it predicts."""
    outputs, target = make_stages()
    if as_one:
        outputs["aux_outputs"][0] = {n: v[:, :2] for n, v in outputs["aux_outputs"][0].items()}
        outputs["encoder_outputs"] = {n: v[:, :2] for n, v in outputs["encoder_outputs"].items()}
    matching = make_matcher()(outputs, [target])
    people = People.of([target])
    layers = [*outputs["aux_outputs"], outputs, outputs["encoder_outputs"]]
    assert matching.groups.shape == matching.matched.shape == (4, 1, 1)
    for number, layer in enumerate(layers):
        p = layer["pred_logits"][0, :, 1].sigmoid()
        cost = 2 * (-0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log())
        (only,) = stack_stages(
            {**{n: v for n, v in layer.items() if n in POSES}, "aux_outputs": []}
        )
        whole = make_matcher().cost(only, people)[0, 0, :, 0]
        boxes = layer["pred_boxes"][0]
        cost = cost + 5 * (boxes - people.boxes[0]).abs().sum(-1)
        if "pred_keypoints" in layer:
            distance = (layer["pred_keypoints"][0] - people.keypoints[0]).abs().sum((-1, -2))
            cost = cost + 10 * distance
        rest = whole - cost  # of the overlaps of boxes, and 4 (1 - OKS)
        assert ((rest >= -2.0 - 1e-5) & (rest <= 2.0 + 4.0 + 1e-5)).all()
        assert matching.groups[number, 0, 0] == whole.argmin()
    assert matching.final[0].equal(matching.groups[2])


def test_several_people_in_stages():
    outputs, target = make_stages(people=2)
    matching = make_matcher()(outputs, [target])
    costs = [make_matcher().cost(stage, People.of([target])) for stage in stack_stages(outputs)]
    layers = [layer[0] for cost in costs for layer in cost]
    for number, cost in enumerate(layers):
        first, second = matching.groups[number, 0].tolist()
        least = min(
            cost[i, 0] + cost[j, 1]
            for i in range(len(cost)) for j in range(len(cost)) if i != j
        )  # fmt: skip
        assert first != second and cost[first, 0] + cost[second, 1] == least
    assert matching.matched.all()


def make_criterion(weights):
    return Criterion(
        loss_weights=weights,
        decoder_layers=[PEOPLE, POSES, POSES],
        proposals=PEOPLE,
        sigmas=SIGMAS,
        focal_alpha=0.25,
        focal_gamma=2.0,
    )


def test_losses_in_stages():
    outputs, target = make_stages()
    outputs["matching"] = make_matcher()(outputs, [target])
    criterion = make_criterion(WEIGHTS)
    losses = criterion(outputs, [target])
    assert set(losses) == set(criterion.weights)
    assert {name for name in losses if "_giou" in name} == {
        "loss_giou_0", "loss_giou_1", "loss_giou", "loss_giou_enc",
    }  # fmt: skip
    assert {name for name in losses if "_oks" in name} == {"loss_oks_1", "loss_oks"}
    layers = [*outputs["aux_outputs"], outputs, outputs["encoder_outputs"]]
    for suffix, layer, group in zip(
        ("_0", "_1", "", "_enc"), layers, outputs["matching"].groups[:, 0, 0], strict=True
    ):
        box = (layer["pred_boxes"][0, group] - target["boxes"][0]).abs().sum()
        assert losses[f"loss_bbox{suffix}"].item() == pytest.approx(box.item(), rel=1e-5)
        p = layer["pred_logits"][0].sigmoid()
        focal = -0.75 * p**2 * (1 - p).log()
        focal[group, 1] = -0.25 * (1 - p[group, 1]) ** 2 * p[group, 1].log()
        assert losses[f"loss_ce{suffix}"].item() == pytest.approx(focal.sum().item(), rel=1e-5)
        if "pred_keypoints" in layer:
            found = layer["pred_keypoints"][0, group]
            distance = (found - target["keypoints"][0, :, :2]).abs().sum(-1)
            distance = (distance * target["keypoints"][0, :, 2]).sum()
            assert losses[f"loss_keypoints{suffix}"].item() == pytest.approx(
                distance.item(), rel=1e-5
            )


def test_weights_of_stages():
    criterion = make_criterion(WEIGHTS)
    ones = {name: torch.tensor(1.0) for name in criterion.weights}
    people, pose = 2 + 5 + 2, 10 + 4 + 4
    assert criterion.total(ones).item() == 4 * people + 2 * pose
    with pytest.raises(ValueError, match="loss_weights must have exactly"):
        make_criterion({name: weight for name, weight in WEIGHTS.items() if name != "oks"})
