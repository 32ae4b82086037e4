"""Which group of queries stands for which person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.keypoint_ops import object_keypoint_similarity
from util.transfer import to_device

COSTS = ("ce", "bbox", "giou", "keypoints", "oks")

# What a layer may predict for each of its groups; every one has logits.
PREDICTIONS = ("pred_logits", "pred_keypoints", "pred_boxes", "pred_keypoints_visi")

# Takes the place of costs that are not finite: the loss will report them, the assignment goes on.
_WORST_COST = 1e8


@dataclass(frozen=True)
class People:
    """The people of a batch as tensors, P places per image; not all need be taken.

    Attributes:
        boxes: [B, P, 4] cxcywh in [0, 1].
        keypoints: [B, P, K, 2] (x, y) in [0, 1].
        visible: [B, P, K] 1 where a keypoint is labelled, else 0.
        area: [B, P] as a share of the image.
        present: [B, P] bool, whether there is such a person; the first places are taken first.
    """

    boxes: Tensor
    keypoints: Tensor
    visible: Tensor
    area: Tensor
    present: Tensor

    @classmethod
    def of(cls, targets: Sequence[Mapping[str, Tensor]]) -> People:
        """The people of B targets (`datasets.sample.Sample`)."""
        counts = [len(target["keypoints"]) for target in targets]
        places = max(counts)
        present = torch.arange(places) < torch.tensor(counts)[:, None]
        keypoints = _pad_people([target["keypoints"] for target in targets], places)
        return cls(
            boxes=_pad_people([target["boxes"] for target in targets], places),
            keypoints=keypoints[..., :2],
            visible=keypoints[..., 2],
            area=_pad_people([target["area"] for target in targets], places),
            present=to_device(present, keypoints.device),
        )


@dataclass(frozen=True)
class Stage:
    """Layers that follow each other and have equally many groups n.

    Attributes:
        layers: which of all layers they are.
        predictions: by name (`PREDICTIONS`), [l, B, n, ...] of those of the layers that have it.
        makers: by name, which of the stage's layers these are.
    """

    layers: slice
    predictions: dict[str, Tensor]
    makers: dict[str, slice]


@dataclass(frozen=True)
class Matching:
    """The group of every person, in every layer.

    The layers are all decoder layers from the first to the last, then the encoder's proposals, if
    the model has any.

    Attributes:
        groups: [L + 1, B, P] int64 index of the group; [L, B, P] without proposals.
        matched: likewise, bool; False where there is no person or no group was left.
        has_proposals: whether the last layer are the encoder's proposals.
    """

    groups: Tensor
    matched: Tensor
    has_proposals: bool = True

    @property
    def final(self) -> tuple[Tensor, Tensor]:
        """`groups` and `matched` [B, P] of the last decoder layer."""
        layer = -2 if self.has_proposals else -1
        return self.groups[layer], self.matched[layer]


class GroupMatcher(nn.Module):
    """Gives each person a group of its own, at the lowest sum of costs (Appendix A.1).

    Costs of what a layer does not predict are left out.

    With one person per image the assignment is a minimum over the groups and stays on the GPU; with
    several it is the Hungarian algorithm's (SciPy), for all layers after a single transfer.

    Args:
        costs: weight of some of `COSTS`.
        sigmas: [K] OKS constants.
        focal_alpha, focal_gamma: of the focal class cost.

    Raises:
        ValueError: an unknown cost.
    """

    def __init__(
        self,
        *,
        costs: Mapping[str, float],
        sigmas: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        if not set(costs) <= set(COSTS):
            raise ValueError(f"match_costs must be among {COSTS}; got {tuple(costs)}.")
        self.costs = dict(costs)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)

    @torch.no_grad()
    def forward(self, outputs: Mapping, targets: Sequence[dict]) -> Matching:
        """Match all layers of a model's outputs.

        Args:
            outputs: with `aux_outputs` and perhaps `encoder_outputs`; see `stack_stages`.
            targets: of B samples, with any number of people each.
        """
        people = People.of(targets)
        costs = [self.cost(stage, people) for stage in stack_stages(outputs)]
        has_proposals = "encoder_outputs" in outputs
        if people.present.shape[1] == 1:
            found = [cost.argmin(dim=2) for cost in costs]
            groups = found[0] if len(found) == 1 else torch.cat(found)
            return Matching(groups, people.present.expand(len(groups), -1, -1), has_proposals)
        counts = [len(target["keypoints"]) for target in targets]
        groups, matched = _assign(costs, counts)
        device = people.present.device
        return Matching(to_device(groups, device), to_device(matched, device), has_proposals)

    def cost(self, stage: Stage, people: People) -> Tensor:
        """Cost of every pair of group and person: [S, B, n, P] of the S layers of a stage."""
        logits = stage.predictions["pred_logits"][..., 1].float()
        cost = self.costs["ce"] * self._class_cost(logits)[..., None]
        cost = cost.expand(-1, -1, -1, people.present.shape[1]).contiguous()
        if "pred_keypoints" in stage.predictions:
            keypoints = stage.predictions["pred_keypoints"].float()[:, :, :, None]
            makers = cost[stage.makers["pred_keypoints"]]
            true_keypoints, visible = people.keypoints[:, None], people.visible[:, None]
            distance = ((keypoints - true_keypoints).abs().sum(-1) * visible).sum(-1)
            makers += self.costs["keypoints"] * distance
            similarity = object_keypoint_similarity(
                keypoints, true_keypoints, visible, people.area[:, None], self.sigmas
            )
            makers += self.costs["oks"] * (1 - similarity)
        if "pred_boxes" in stage.predictions:
            boxes = stage.predictions["pred_boxes"].float()[:, :, :, None]
            cost[stage.makers["pred_boxes"]] += self._box_cost(boxes, people)
        return cost

    def _box_cost(self, boxes: Tensor, people: People) -> Tensor:
        true_boxes = people.boxes[:, None]
        distance = (boxes - true_boxes).abs().sum(-1)
        overlap = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(true_boxes))
        return self.costs["bbox"] * distance - self.costs["giou"] * overlap

    def _class_cost(self, logits: Tensor) -> Tensor:
        """Focal loss of calling a group the person, minus that of calling it background."""
        probability = logits.sigmoid()
        positive = self.focal_alpha * (1 - probability) ** self.focal_gamma * F.softplus(-logits)
        negative = (1 - self.focal_alpha) * probability**self.focal_gamma * F.softplus(logits)
        return positive - negative


def stack_stages(outputs: Mapping) -> list[Stage]:
    """The predictions of all layers, those of a stage in one tensor each.

    The layers are `aux_outputs`, the outputs themselves, then `encoder_outputs`, if there are any.
    UniPHD and Group Pose are one stage; layers with another number of groups make one of their own.

    Raises:
        ValueError: layers of a stage between two that predict something do not predict it.
    """
    layers = [*outputs["aux_outputs"], outputs]
    if "encoder_outputs" in outputs:
        layers.append(outputs["encoder_outputs"])
    stages, first = [], 0
    for _, run in groupby(layers, key=lambda layer: layer["pred_logits"].shape[1]):
        stages.append(_stack(list(run), first))
        first = stages[-1].layers.stop
    return stages


def _stack(layers: Sequence[Mapping[str, Tensor]], first: int) -> Stage:
    """The stage of `layers`, the first of which is number `first` of all."""
    predictions, makers = {}, {}
    for name in PREDICTIONS:
        numbers = [number for number, layer in enumerate(layers) if name in layer]
        if not numbers:
            continue
        if numbers[-1] - numbers[0] >= len(numbers):
            raise ValueError(f"Layers {numbers} of {len(layers)} have {name}: not one after other.")
        predictions[name] = torch.stack([layers[number][name] for number in numbers])
        makers[name] = slice(numbers[0], numbers[-1] + 1)
    return Stage(slice(first, first + len(layers)), predictions, makers)


def _pad_people(values: Sequence[Tensor], places: int) -> Tensor:
    """B tensors [P_i, ...] → [B, places, ...], filled up with zeros."""
    if all(len(value) == places for value in values):
        return torch.stack(list(values))
    padded = values[0].new_zeros(len(values), places, *values[0].shape[1:])
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return padded


def _assign(costs: Sequence[Tensor], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The cheapest groups, after a single transfer.

    Args:
        costs: [S, B, n, P] of every stage, S layers and n groups.
        counts: of the B images' people.

    Returns:
        groups [L + 1, B, P] int64 and matched [L + 1, B, P] bool of all layers, on the CPU.
    """
    flat = torch.cat([cost.flatten() for cost in costs])
    arrived = flat.nan_to_num(_WORST_COST, _WORST_COST, -_WORST_COST).cpu()
    tables = [
        values.view(cost.shape).numpy()
        for values, cost in zip(arrived.split([cost.numel() for cost in costs]), costs, strict=True)
    ]
    layers = [layer for table in tables for layer in table]  # [B, n, P] each
    shape = (len(layers), len(counts), costs[0].shape[-1])
    groups, matched = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for number, layer in enumerate(layers):
        for image, count in enumerate(counts):
            rows, people = linear_sum_assignment(layer[image, :, :count])
            groups[number, image, people] = rows
            matched[number, image, people] = True
    return torch.from_numpy(groups), torch.from_numpy(matched)
