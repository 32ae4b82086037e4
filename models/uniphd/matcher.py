"""Which group stands for the referred person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.keypoint_ops import object_keypoint_similarity

COSTS = ("ce", "bbox", "giou", "keypoints", "oks")


class GroupMatcher(nn.Module):
    """Picks, per sample, the group with the lowest cost (Appendix A.1).

    A sample has one person, so the assignment is a minimum over the groups: no Hungarian algorithm
    and no round trip to the CPU.

    Args:
        costs: weight of each of `COSTS`.
        sigmas: [K] OKS constants.
        focal_alpha, focal_gamma: of the focal class cost.

    Raises:
        ValueError: a cost is missing or unknown.
    """

    def __init__(
        self,
        costs: Mapping[str, float],
        sigmas: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        if set(costs) != set(COSTS):
            raise ValueError(f"match_costs must have exactly {COSTS}; got {tuple(costs)}.")
        self.costs = dict(costs)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)

    @torch.no_grad()
    def forward(self, outputs: Mapping[str, Tensor], targets: Sequence[dict]) -> Tensor:
        """Match.

        Args:
            outputs: `pred_logits` [B, n, 2], `pred_keypoints` [B, n, K, 2] and, for decoder
                layers, `pred_boxes` [B, n, 4]; without boxes (encoder proposals) the class and
                keypoint costs decide.
            targets: one person per sample.

        Returns:
            [B] int64 index of the matched group.
        """
        target = stack_targets(targets)
        cost = self.costs["ce"] * self._class_cost(outputs["pred_logits"][..., 1].float())
        keypoints = outputs["pred_keypoints"].float()
        distance = (keypoints - target["keypoints"]).abs().sum(-1) * target["visible"]
        cost = cost + self.costs["keypoints"] * distance.sum(-1)
        similarity = object_keypoint_similarity(
            keypoints, target["keypoints"], target["visible"], target["area"], self.sigmas
        )
        cost = cost + self.costs["oks"] * (1 - similarity)
        if "pred_boxes" in outputs:
            boxes = outputs["pred_boxes"].float()
            cost = cost + self.costs["bbox"] * (boxes - target["boxes"]).abs().sum(-1)
            overlap = generalized_box_iou(
                box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target["boxes"])
            )
            cost = cost - self.costs["giou"] * overlap
        return cost.argmin(dim=1)

    def _class_cost(self, logits: Tensor) -> Tensor:
        """Focal loss of calling a group the person, minus that of calling it background."""
        probability = logits.sigmoid()
        positive = self.focal_alpha * (1 - probability) ** self.focal_gamma * F.softplus(-logits)
        negative = (1 - self.focal_alpha) * probability**self.focal_gamma * F.softplus(logits)
        return positive - negative


def stack_targets(targets: Sequence[dict]) -> dict[str, Tensor]:
    """Targets of a batch as tensors that broadcast against groups.

    Returns:
        `boxes` [B, 1, 4] cxcywh, `keypoints` [B, 1, K, 2], `visible` [B, 1, K], `area` [B, 1].

    Raises:
        ValueError: a sample does not have exactly one person.
    """
    for target in targets:
        if len(target["keypoints"]) != 1:
            raise ValueError(
                f"Image id {target.get('image_id')}: expected exactly one person per sample, got "
                f"{len(target['keypoints'])}."
            )
    keypoints = torch.stack([target["keypoints"] for target in targets])
    return {
        "boxes": torch.stack([target["boxes"] for target in targets]),
        "keypoints": keypoints[..., :2],
        "visible": keypoints[..., 2],
        "area": torch.stack([target["area"] for target in targets]),
    }
