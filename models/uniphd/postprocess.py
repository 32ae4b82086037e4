"""Outputs → results in pixels of the original images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy

# The published model reports one constant confidence for every keypoint, sigmoid(1).
KEYPOINT_CONFIDENCE = torch.tensor(1.0).sigmoid().item()


class PostProcess(nn.Module):
    """The best (group, class) pairs of every image.

    Args:
        num_results: how many pairs are kept; at most 2n.
        labels_by_class: a pair's label is its class, 1 for a person, as Group Pose has it; False:
            every pair is a person, as the published UniPHD has it.
    """

    def __init__(self, num_results: int, labels_by_class: bool = False) -> None:
        super().__init__()
        self.num_results = num_results
        self.labels_by_class = labels_by_class

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], target_sizes: Tensor, image_sizes: Tensor
    ) -> list[dict[str, Tensor]]:
        """Results of every image, best first.

        Args:
            outputs: of a model, without targets.
            target_sizes: [B, 2] original (height, width).
            image_sizes: [B, 2] unpadded (height, width) that the model saw.

        Returns:
            Per image `scores` [r], `labels` [r] (1: person), `keypoints` [r, K, 3] (x, y,
            confidence), and where the model has them `boxes` [r, 4] (left, top, right, bottom) and
            `masks` [r, h, w] bool; pixels of the original image.
        """
        scores, groups, classes = best_pairs(outputs["pred_logits"], self.num_results)
        scale = target_sizes.flip(-1).to(scores)  # [B, 2] (width, height)
        values = {
            "scores": scores,
            "labels": classes if self.labels_by_class else torch.ones_like(classes),
            "keypoints": pixel_keypoints(outputs["pred_keypoints"], groups, scale),
        }
        if "pred_boxes" in outputs:
            boxes = box_cxcywh_to_xyxy(outputs["pred_boxes"].float())
            boxes = boxes.take_along_dim(groups[..., None], dim=1)
            values["boxes"] = boxes * scale.repeat(1, 2)[:, None]
        results = [{name: value[i] for name, value in values.items()} for i in range(len(scores))]
        if "pred_masks" in outputs:
            sizes = zip(image_sizes.tolist(), target_sizes.tolist(), strict=True)
            for i, (image_size, target_size) in enumerate(sizes):
                unique, inverse = groups[i].unique(return_inverse=True)
                masks = outputs["pred_masks"][i, unique]
                results[i]["masks"] = resize_masks(masks, image_size, target_size)[inverse]
        return results


def best_pairs(logits: Tensor, num_results: int) -> tuple[Tensor, Tensor, Tensor]:
    """The highest-scoring (group, class) pairs.

    Args:
        logits: [B, n, 2].
        num_results: r, at most 2n.

    Returns:
        Scores, groups and classes [B, r], best first.
    """
    scores, order = logits.float().sigmoid().flatten(1).topk(num_results)
    return scores, torch.div(order, 2, rounding_mode="floor"), order % 2


def pixel_keypoints(keypoints: Tensor, groups: Tensor, scale: Tensor) -> Tensor:
    """Keypoints of the chosen groups, with the published constant confidence.

    Args:
        keypoints: [B, n, K, 2] (x, y) in [0, 1].
        groups: [B, r].
        scale: [B, 2] original (width, height).

    Returns:
        [B, r, K, 3] (x, y, confidence) in pixels of the original images.
    """
    keypoints = keypoints.float().take_along_dim(groups[..., None, None], dim=1)
    keypoints = keypoints * scale[:, None, None]
    confidence = torch.full_like(keypoints[..., :1], KEYPOINT_CONFIDENCE)
    return torch.cat([keypoints, confidence], dim=-1)


def resize_masks(logits: Tensor, image_size: list[int], target_size: list[int]) -> Tensor:
    """Mask logits [m, H, W] of a padded image → bool [m, h, w] in its original size.

    Args:
        logits: of the padded image.
        image_size: unpadded (height, width).
        target_size: original (height, width).
    """
    logits = logits[None, :, : image_size[0], : image_size[1]].float()
    resized = F.interpolate(logits, size=tuple(target_size), mode="bilinear", align_corners=False)
    return resized[0].sigmoid() > 0.5
