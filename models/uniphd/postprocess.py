"""Outputs → results in pixels of the original images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from util.box_ops import box_cxcywh_to_xyxy

# The published model reports one constant confidence for every keypoint, sigmoid(1).
KEYPOINT_CONFIDENCE = torch.tensor(1.0).sigmoid().item()

# Pixels of masks that are resized at once: bounds the memory for large images, 4 bytes each.
_PIXELS_AT_ONCE = 2**26


class Results(Sequence[dict[str, Tensor]]):
    """Results of a batch, one dict per image, made when it is asked for and not kept.

    All masks of a batch in the images' original size could take gigabytes.

    Args:
        values: by name, [B, ...].
        masks: index of an image to its masks [r, h, w] bool; None without masks.
    """

    def __init__(
        self, values: Mapping[str, Tensor], masks: Callable[[int], Tensor] | None = None
    ) -> None:
        self._values = values
        self._masks = masks

    def __len__(self) -> int:
        return len(self._values["scores"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        result = {name: value[index] for name, value in self._values.items()}
        if self._masks is not None:
            result["masks"] = self._masks(index)
        return result

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[index] for index in range(len(self)))


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
    ) -> Results:
        """Results of every image, best first.

        Args:
            outputs: of a model, without targets.
            target_sizes: [B, 2] original (height, width).
            image_sizes: [B, 2] unpadded (height, width) that the model saw.

        Returns:
            Per image `scores` [r], `labels` [r] (1: person), and where the model has them
            `keypoints` [r, K, 3] (x, y, confidence), `boxes` [r, 4] (left, top, right, bottom),
            `masks` [r, h, w] bool; pixels of the original image; and `mask_sums` [r] of the masks'
            logits, which are not finite where a logit is not: a mask does not show that.
        """
        scores, groups, classes = best_pairs(outputs["pred_logits"], self.num_results)
        scale = target_sizes.flip(-1).to(scores, non_blocking=True)  # [B, 2] (width, height)
        values = {
            "scores": scores,
            "labels": classes if self.labels_by_class else torch.ones_like(classes),
        }
        if "pred_keypoints" in outputs:
            values["keypoints"] = pixel_keypoints(outputs["pred_keypoints"], groups, scale)
        if "pred_boxes" in outputs:
            boxes = box_cxcywh_to_xyxy(outputs["pred_boxes"].float())
            boxes = boxes.take_along_dim(groups[..., None], dim=1)
            values["boxes"] = boxes * scale.repeat(1, 2)[:, None]
        if "pred_masks" not in outputs:
            return Results(values)
        mask_logits = outputs["pred_masks"]
        sums = mask_logits.sum(dim=(2, 3), dtype=torch.float32)
        values["mask_sums"] = sums.take_along_dim(groups, dim=1)
        sizes = list(zip(image_sizes.tolist(), target_sizes.tolist(), strict=True))

        @torch.no_grad()
        def masks(index: int) -> Tensor:
            logits, chosen = mask_logits[index], groups[index]
            # A group may be chosen twice; which ones are stays on the device.
            if len(chosen) <= len(logits):
                return resize_masks(logits[chosen], *sizes[index])
            return resize_masks(logits, *sizes[index])[chosen]

        return Results(values, masks)


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
    logits = logits[:, : image_size[0], : image_size[1]]
    height, width = target_size
    if image_size == target_size:  # resizing would give the same numbers
        return logits.float().sigmoid() > 0.5
    pieces = logits.split(max(1, _PIXELS_AT_ONCE // (height * width)))
    return torch.cat([_resize(piece.float(), (height, width)).sigmoid_() > 0.5 for piece in pieces])


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[m, H, W] → [m, h, w]."""
    return F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
