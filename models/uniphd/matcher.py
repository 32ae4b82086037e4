"""Which group of queries stands for which person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.keypoint_ops import object_keypoint_similarity
from util.transfer import to_device

COSTS = ("ce", "bbox", "giou", "keypoints", "oks")

# Predictions of decoder layers and encoder proposals alike, and of decoder layers alone.
_EVERYWHERE = ("pred_logits", "pred_keypoints")
_DECODER = ("pred_boxes", "pred_keypoints_visi")

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
class Matching:
    """The group of every person, in every layer.

    The layers are all decoder layers from the first to the last, then the encoder's proposals.

    Attributes:
        groups: [L + 1, B, P] int64 index of the group.
        matched: [L + 1, B, P] bool; False where there is no person or no group was left.
    """

    groups: Tensor
    matched: Tensor

    @property
    def final(self) -> tuple[Tensor, Tensor]:
        """`groups` and `matched` [B, P] of the last decoder layer."""
        return self.groups[-2], self.matched[-2]


class GroupMatcher(nn.Module):
    """Gives each person a group of its own, at the lowest sum of costs (Appendix A.1).

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
            outputs: with `aux_outputs` and `encoder_outputs`; see `stack_layers`.
            targets: of B samples, with any number of people each.
        """
        people = People.of(targets)
        cost = self.cost(stack_layers(outputs), people)
        matched = people.present.expand(cost.shape[0], -1, -1)
        if people.present.shape[1] == 1:
            return Matching(cost.argmin(dim=2), matched)
        counts = [len(target["keypoints"]) for target in targets]
        groups, matched = _assign(cost, counts)
        return Matching(to_device(groups, cost.device), to_device(matched, cost.device))

    def cost(self, layers: Mapping[str, Tensor], people: People) -> Tensor:
        """Cost of every pair of group and person: [L + 1, B, n, P]."""
        logits = layers["pred_logits"][..., 1].float()
        cost = self.costs["ce"] * self._class_cost(logits)[..., None]
        keypoints = layers["pred_keypoints"].float()[:, :, :, None]  # [L + 1, B, n, 1, K, 2]
        true_keypoints, visible = people.keypoints[:, None], people.visible[:, None]
        distance = ((keypoints - true_keypoints).abs().sum(-1) * visible).sum(-1)
        cost = cost + self.costs["keypoints"] * distance
        similarity = object_keypoint_similarity(
            keypoints, true_keypoints, visible, people.area[:, None], self.sigmas
        )
        cost = cost + self.costs["oks"] * (1 - similarity)
        if "bbox" in self.costs:
            cost[:-1] += self._box_cost(layers["pred_boxes"].float()[:, :, :, None], people)
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


def stack_layers(outputs: Mapping) -> dict[str, Tensor]:
    """The predictions of all layers in one tensor each.

    Returns:
        `pred_logits` [L + 1, B, n, 2] and `pred_keypoints` [L + 1, B, n, K, 2] of the L decoder
        layers and, last, the encoder's proposals; of the decoder layers alone, where the model has
        them, `pred_boxes` [L, B, n, 4] and `pred_keypoints_visi` [L, B, n, K].
    """
    decoder = [*outputs["aux_outputs"], outputs]
    everywhere = [*decoder, outputs["encoder_outputs"]]
    stacked = {key: torch.stack([layer[key] for layer in everywhere]) for key in _EVERYWHERE}
    stacked |= {
        key: torch.stack([layer[key] for layer in decoder]) for key in _DECODER if key in outputs
    }
    return stacked


def _pad_people(values: Sequence[Tensor], places: int) -> Tensor:
    """B tensors [P_i, ...] → [B, places, ...], filled up with zeros."""
    if all(len(value) == places for value in values):
        return torch.stack(list(values))
    padded = values[0].new_zeros(len(values), places, *values[0].shape[1:])
    for row, value in zip(padded, values, strict=True):
        row[: len(value)] = value
    return padded


def _assign(cost: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The cheapest groups.

    Args:
        cost: [L + 1, B, n, P].
        counts: of the B images' people.

    Returns:
        groups [L + 1, B, P] int64 and matched [L + 1, B, P] bool, on the CPU.
    """
    table = cost.nan_to_num(_WORST_COST, _WORST_COST, -_WORST_COST).cpu().numpy()
    layers, batch, _, places = table.shape
    groups = np.zeros((layers, batch, places), dtype=np.int64)
    matched = np.zeros((layers, batch, places), dtype=bool)
    for layer in range(layers):
        for image, count in enumerate(counts):
            rows, people = linear_sum_assignment(table[layer, image, :, :count])
            groups[layer, image, people] = rows
            matched[layer, image, people] = True
    return torch.from_numpy(groups), torch.from_numpy(matched)
