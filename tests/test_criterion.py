"""Matching, losses and results against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from models.uniphd.criterion import LOSSES, Criterion, dice_loss, sigmoid_focal_loss
from models.uniphd.matcher import GroupMatcher, Matching, People, stack_stages
from models.uniphd.postprocess import PostProcess
from util.box_ops import generalized_box_iou
from util.keypoint_ops import inverse_sigmoid, object_keypoint_similarity

COSTS = {"ce": 2.0, "bbox": 5.0, "giou": 2.0, "keypoints": 10.0, "oks": 4.0}
WEIGHTS = {
    "ce": 2.0,
    "bbox": 5.0,
    "giou": 2.0,
    "keypoints": 10.0,
    "oks": 4.0,
    "keypoints_visi": 4.0,
}
SIGMAS = (0.1, 0.2)


MASKS = {"mask": 2.0, "dice": 5.0, "mask_low": 2.0, "dice_low": 5.0}


def make_matcher(costs=COSTS):
    return GroupMatcher(costs=costs, sigmas=SIGMAS, focal_alpha=0.25, focal_gamma=2.0)


def make_criterion(weights=WEIGHTS, layers=1):
    return Criterion(
        loss_weights=weights,
        decoder_layers=[list(LOSSES)] * layers,
        proposals=["pred_logits", "pred_keypoints"],
        sigmas=SIGMAS,
        focal_alpha=0.25,
        focal_gamma=2.0,
    )


def matching(*groups, matched=True):
    """Of images with one person each: the same group in the final layer and the proposals."""
    groups = torch.tensor([[[group] for group in groups]] * 2)
    return Matching(groups, torch.full(groups.shape, matched))


def make_target(visible=(1.0, 1.0), keypoints=((0.5, 0.5), (0.25, 0.75))):
    points = [[x, y, v] for (x, y), v in zip(keypoints, visible, strict=True)]
    return {
        "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
        "labels": torch.tensor([1]),
        "keypoints": torch.tensor([points]),
        "area": torch.tensor([0.1]),
        "masks": torch.zeros(1, 4, 4, dtype=torch.bool),
        "image_id": 7,
    }


def make_outputs(keypoints, boxes=None, logits=None):
    groups = len(keypoints)
    shared = {
        "pred_logits": torch.zeros(1, groups, 2) if logits is None else torch.tensor([logits]),
        "pred_keypoints": torch.tensor([keypoints]),
    }
    return {
        **shared,
        "pred_boxes": torch.tensor([boxes or [[0.5, 0.5, 0.4, 0.4]] * groups]),
        "pred_keypoints_visi": torch.zeros(1, groups, 2),
        "aux_outputs": [],
        "encoder_outputs": shared,
    }


def test_boxes():
    first = torch.tensor([0.0, 0.0, 2.0, 2.0])
    assert generalized_box_iou(first, torch.tensor([1.0, 0.0, 3.0, 2.0])).item() == pytest.approx(
        1 / 3
    )
    # Apart: no overlap, hull 3 x 1 of which 2 are covered.
    one, other = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0])
    assert generalized_box_iou(one, other).item() == pytest.approx(-1 / 3)
    empty = torch.zeros(4, requires_grad=True)
    generalized_box_iou(empty, one).backward()
    assert torch.isfinite(empty.grad).all()


def test_inverse_sigmoid_clamps():
    x = torch.tensor([0.0, 1e-4, 0.3, 0.9999, 1.0])
    limit = math.log(1e-3)
    expected = [limit + 0.0, limit + 1e-4, math.log(3 / 7), -limit, -limit]
    assert inverse_sigmoid(x).tolist() == pytest.approx(expected, abs=2e-3)


def test_oks_by_hand():
    target = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    keypoints = target + torch.tensor([[0.03, 0.04], [0.0, 0.2]])
    area, sigmas = torch.tensor(0.1), torch.tensor(SIGMAS)
    first = math.exp(-(0.05**2) / (2 * 0.1 * 0.2**2))
    second = math.exp(-(0.2**2) / (2 * 0.1 * 0.4**2))
    both = object_keypoint_similarity(keypoints, target, torch.ones(2), area, sigmas)
    assert both.item() == pytest.approx((first + second) / 2, rel=1e-5)
    one = object_keypoint_similarity(keypoints, target, torch.tensor([1.0, 0.0]), area, sigmas)
    assert one.item() == pytest.approx(first, rel=1e-5)
    assert object_keypoint_similarity(keypoints, target, torch.zeros(2), area, sigmas) == 0


def test_matcher_weighs_every_cost():
    exact, off = [[0.5, 0.5], [0.25, 0.75]], [[0.6, 0.5], [0.25, 0.75]]
    near_box, far_box = [0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]
    target = make_target()

    def match(outputs, target):
        """Groups of the decoder layer and of the proposals."""
        return make_matcher()(outputs, [target]).groups.flatten().tolist()

    assert match(make_outputs([off, exact]), target) == [1, 1]
    # An invisible keypoint costs nothing.
    assert match(make_outputs([off, off]), make_target(visible=(0.0, 1.0))) == [0, 0]
    # Encoder proposals have no boxes.
    outputs = make_outputs([exact, exact], boxes=[far_box, near_box])
    assert match(outputs, target) == [1, 0]
    outputs = make_outputs([exact, exact], logits=[[5.0, -3.0], [-3.0, 3.0]])
    assert match(outputs, target) == [1, 1]  # index 1 is the person
    # 0.04 of keypoint distance costs 0.4 and some OKS; 0.2 of box costs 1 and some overlap.
    close = [[0.52, 0.52], [0.25, 0.75]]
    outputs = make_outputs([close, exact], boxes=[near_box, [0.6, 0.5, 0.3, 0.4]])
    assert match(outputs, target) == [0, 1]
    with pytest.raises(ValueError, match="match_costs must be among"):
        make_matcher({"typo": 1.0})


def test_several_people_share_the_groups_out_at_the_lowest_cost():
    """Against every assignment tried out; images with 0, 1 and 3 people in one batch."""
    generator = torch.Generator().manual_seed(2)
    groups, counts = 5, (3, 0, 1)

    def layer():
        return {
            "pred_logits": torch.randn(3, groups, 2, generator=generator),
            "pred_keypoints": torch.rand(3, groups, 2, 2, generator=generator),
            "pred_boxes": 0.2 + 0.3 * torch.rand(3, groups, 4, generator=generator),
            "pred_keypoints_visi": torch.randn(3, groups, 2, generator=generator),
        }

    outputs = {**layer(), "aux_outputs": [layer()], "encoder_outputs": layer()}
    targets = [
        {
            "boxes": 0.2 + 0.3 * torch.rand(count, 4, generator=generator),
            "labels": torch.ones(count, dtype=torch.int64),
            "keypoints": torch.cat(
                [torch.rand(count, 2, 2, generator=generator), torch.ones(count, 2, 1)], dim=-1
            ),
            "area": torch.rand(count, generator=generator),
        }
        for count in counts
    ]
    matcher = make_matcher()
    found = matcher(outputs, targets)
    assert found.groups.shape == found.matched.shape == (3, 3, 3)
    assert found.matched[0].tolist() == [[place < count for place in range(3)] for count in counts]
    cost = matcher.cost(stack_stages(outputs)[0], People.of(targets))
    for number in range(3):
        for image, count in enumerate(counts):
            chosen = found.groups[number, image, :count].tolist()
            best = min(
                itertools.permutations(range(groups), count),
                key=lambda option: sum(cost[number, image, g, p] for p, g in enumerate(option)),
            )
            assert chosen == list(best)
    losses = make_criterion(layers=2)({**outputs, "matching": found}, targets)
    assert all(torch.isfinite(value) for value in losses.values())
    # One person at a time, by the formula: the final layer's L1 distance over four people.
    final = outputs["pred_keypoints"]
    distance = sum(
        (final[image, found.groups[1, image, person]] - target["keypoints"][person, :, :2])
        .abs()
        .sum()
        for image, target in enumerate(targets)
        for person in range(counts[image])
    )
    assert losses["loss_keypoints"].item() == pytest.approx(distance.item() / 4, rel=1e-5)


def test_more_people_than_groups_and_bad_numbers():
    outputs = make_outputs([[[0.5, 0.5], [0.25, 0.75]]])
    target = make_target()
    crowd = {key: torch.cat([target[key]] * 3) for key in ("boxes", "labels", "keypoints", "area")}
    found = make_matcher()(outputs, [crowd])
    assert found.matched.sum(-1).tolist() == [[1], [1]]
    losses = make_criterion()({**outputs, "matching": found}, [crowd])
    assert all(torch.isfinite(value) for value in losses.values())
    # What is not finite is left to the loss to report.
    outputs["pred_keypoints"] = outputs["pred_keypoints"] * math.nan
    assert make_matcher()(outputs, [crowd]).matched.sum(-1).tolist() == [[1], [1]]


def test_losses_by_hand():
    criterion = make_criterion(layers=1)
    outputs = make_outputs(
        [[[0.6, 0.5], [0.25, 0.5]], [[0.0, 0.0], [0.0, 0.0]]],
        boxes=[[0.5, 0.6, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]],
        logits=[[0.0, 0.0], [0.0, 0.0]],
    )
    outputs["matching"] = matching(0)
    outputs["pred_keypoints_visi"] = torch.tensor([[[2.0, 2.0], [0.0, 0.0]]])
    losses = criterion(outputs, [make_target(visible=(1.0, 0.0))])
    log2 = math.log(2)
    # Four logits at probability 1/2: one positive with alpha, three negative with 1 - alpha.
    assert losses["loss_ce"].item() == pytest.approx((0.25 + 3 * 0.75) * 0.25 * log2, rel=1e-5)
    assert losses["loss_keypoints"].item() == pytest.approx(0.1, rel=1e-5)
    oks = math.exp(-(0.1**2) / (2 * 0.1 * 0.2**2))
    assert losses["loss_oks"].item() == pytest.approx(1 - oks, rel=1e-5)
    visibility = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert losses["loss_keypoints_visi"].item() == pytest.approx(visibility, rel=1e-5)
    assert losses["loss_bbox"].item() == pytest.approx(0.1, rel=1e-5)
    overlap, union, hull = 0.4 * 0.3, 0.4 * 0.5, 0.4 * 0.5
    giou = overlap / union - (hull - union) / hull
    assert losses["loss_giou"].item() == pytest.approx(1 - giou, rel=1e-4)


def test_two_people_divide_as_published():
    """Sums divide by the number of people; visibility is a mean and divides once more."""
    criterion = make_criterion()
    single = make_outputs([[[0.6, 0.5], [0.25, 0.5]]])
    single["pred_keypoints_visi"] = torch.tensor([[[2.0, -1.0]]])

    def twice(values):
        return {k: torch.cat([v, v]) for k, v in values.items() if isinstance(v, torch.Tensor)}

    double = {**twice(single), "aux_outputs": []}
    double["encoder_outputs"] = twice(single["encoder_outputs"])
    one = criterion({**single, "matching": matching(0)}, [make_target()])
    two = criterion({**double, "matching": matching(0, 0)}, [make_target()] * 2)
    for name in one:
        factor = 0.5 if name == "loss_keypoints_visi" else 1.0
        assert two[name].item() == pytest.approx(factor * one[name].item(), rel=1e-5), name


def test_mask_losses_by_hand():
    logits = torch.tensor([[2.0, -2.0, 0.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    p = [1 / (1 + math.exp(-x)) for x in (2.0, -2.0, 0.0)]
    expected = [
        0.25 * (1 - p[0]) ** 2 * -math.log(p[0]),
        0.25 * (1 - p[1]) ** 2 * -math.log(p[1]),
        0.75 * 0.25 * math.log(2),
    ]
    assert sigmoid_focal_loss(logits, labels, 0.25, 2.0)[0].tolist() == pytest.approx(
        expected, rel=1e-5
    )
    dice = 1 - (2 * (p[0] + p[1]) + 1) / (sum(p) + 2 + 1)
    assert dice_loss(logits, labels).item() == pytest.approx(dice, rel=1e-5)


def test_mask_targets_are_padded_and_halved_at_odd_pixels():
    criterion = make_criterion({**WEIGHTS, **MASKS})
    target = make_target()
    target["masks"] = torch.zeros(1, 3, 4, dtype=torch.bool)
    target["masks"][0, 1, 1] = True
    outputs = make_outputs([[[0.5, 0.5], [0.25, 0.75]]] * 3)
    outputs["matching"] = matching(2)
    outputs["pred_masks"] = torch.full((1, 1, 4, 4), -20.0)  # of the person's group alone
    outputs["pred_masks_low"] = torch.full((1, 1, 2, 2), -20.0)
    outputs["pred_masks"][0, 0, 1, 1] = 20.0
    outputs["pred_masks_low"][0, 0, 0, 0] = 20.0
    losses = criterion(outputs, [target])
    for name in ("loss_mask", "loss_dice", "loss_mask_low", "loss_dice_low"):
        assert losses[name].item() == pytest.approx(0.0, abs=1e-4), name


def test_total_uses_every_weight():
    criterion = make_criterion({**WEIGHTS, **MASKS}, layers=2)
    ones = {name: torch.tensor(1.0) for name in criterion.weights}
    layer, encoder, mask = 2 + 5 + 2 + 10 + 4 + 4, 2 + 10 + 4, 2 + 5 + 2 + 5
    assert criterion.total(ones).item() == 2 * layer + encoder + mask
    with pytest.raises(ValueError, match="loss_weights must have exactly"):
        make_criterion(weights={**WEIGHTS, "typo": 1.0})


def test_results_are_in_pixels_of_the_original():
    logits = torch.tensor([[[-5.0, 1.0], [-5.0, 3.0], [2.0, -5.0]]])
    outputs = {
        "pred_logits": logits,
        "pred_boxes": torch.tensor([[[0.5, 0.5, 0.2, 0.4]] * 3]),
        "pred_keypoints": torch.tensor([[[[0.1, 0.2]], [[0.5, 0.5]], [[0.3, 0.4]]]]),
        "pred_masks": torch.full((1, 3, 16, 16), -9.0),
    }
    outputs["pred_masks"][0, 1, :4] = 9.0  # group 1: the upper half of the 8 valid rows
    result = PostProcess(3)(outputs, torch.tensor([[100, 200]]), torch.tensor([[8, 12]]))[0]
    assert result["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (3, 2, 1)])
    assert result["labels"].tolist() == [1, 1, 1]
    assert result["boxes"][0].tolist() == pytest.approx([80, 30, 120, 70])
    sigmoid1 = 1 / (1 + math.exp(-1))
    assert result["keypoints"][0, 0].tolist() == pytest.approx([100, 50, sigmoid1])
    assert result["keypoints"][1, 0].tolist() == pytest.approx([60, 40, sigmoid1])  # group 2
    assert result["keypoints"][2, 0].tolist() == pytest.approx([20, 20, sigmoid1])
    assert result["masks"].shape == (3, 100, 200)
    assert result["masks"][0, :50].all() and not result["masks"][0, 50:].any()
    assert not result["masks"][1:].any()


def test_both_logits_of_a_group_can_be_kept():
    logits = torch.tensor([[[4.0, 3.0], [-5.0, -5.0]]])
    outputs = {
        "pred_logits": logits,
        "pred_boxes": torch.rand(1, 2, 4),
        "pred_keypoints": torch.rand(1, 2, 1, 2),
        "pred_masks": torch.randn(1, 2, 8, 8),
    }
    size = torch.tensor([[8, 8]])
    result = PostProcess(2)(outputs, size, size)[0]
    assert torch.equal(result["boxes"][0], result["boxes"][1])
    assert torch.equal(result["masks"][0], outputs["pred_masks"][0, 0] > 0)
