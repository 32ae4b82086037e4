"""Outputs → everybody in pixels of the original images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.uniphd.postprocess import best_pairs, keypoints_in_pixels


class GroupPosePostProcess(nn.Module):
    """The best (group, class) pairs of every image.

    Args:
        num_results: how many pairs are kept; at most 2n.
    """

    def __init__(self, num_results: int) -> None:
        super().__init__()
        self.num_results = num_results

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], target_sizes: Tensor, image_sizes: Tensor
    ) -> list[dict[str, Tensor]]:
        """Results of every image, best first.

        Args:
            outputs: of `GroupPose`.
            target_sizes: [B, 2] original (height, width).
            image_sizes: [B, 2] unpadded (height, width) that the model saw; not needed here.

        Returns:
            Per image `scores` [r], `labels` [r] (1: person; others do not count), and `keypoints`
            [r, K, 3] (x, y, confidence) in pixels of the original image.
        """
        scores, groups, labels = best_pairs(outputs["pred_logits"], self.num_results)
        keypoints = keypoints_in_pixels(outputs["pred_keypoints"], groups, target_sizes)
        return [
            {"scores": scores[i], "labels": labels[i], "keypoints": keypoints[i]}
            for i in range(len(scores))
        ]
