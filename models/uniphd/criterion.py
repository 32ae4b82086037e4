"""Training losses (Appendix A.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.uniphd.matcher import GroupMatcher, stack_targets
from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.distributed import reduce_mean
from util.keypoint_ops import object_keypoint_similarity

DECODER_LOSSES = ("ce", "bbox", "giou", "keypoints", "oks", "keypoints_visi")
ENCODER_LOSSES = ("ce", "keypoints", "oks")
MASK_LOSSES = ("mask", "dice", "mask_low", "dice_low")


class Criterion(nn.Module):
    """Losses of the final layer, of every earlier layer and of the encoder proposals.

    Args:
        matcher: finds the group of each target.
        loss_weights: weight of each of `DECODER_LOSSES` and `MASK_LOSSES`.
        num_decoder_layers: decides which auxiliary losses there are.
        with_masks: the model has a mask head.
        sigmas: [K] OKS constants.
        focal_alpha, focal_gamma: of the class and mask focal losses.

    Attributes:
        weights: weight of every loss that `forward` returns.

    Raises:
        ValueError: a weight is missing or unknown.
    """

    def __init__(
        self,
        matcher: GroupMatcher,
        loss_weights: Mapping[str, float],
        num_decoder_layers: int,
        with_masks: bool,
        sigmas: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        expected = {*DECODER_LOSSES, *MASK_LOSSES}
        if set(loss_weights) != expected:
            raise ValueError(
                f"loss_weights must have exactly {sorted(expected)}; got {sorted(loss_weights)}."
            )
        self.matcher = matcher
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        suffixes = ["", *(f"_{layer}" for layer in range(num_decoder_layers - 1))]
        self.weights = {
            f"loss_{name}{suffix}": loss_weights[name]
            for suffix in suffixes
            for name in DECODER_LOSSES
        }
        self.weights |= {f"loss_{name}_enc": loss_weights[name] for name in ENCODER_LOSSES}
        if with_masks:
            self.weights |= {f"loss_{name}": loss_weights[name] for name in MASK_LOSSES}

    def forward(self, outputs: Mapping, targets: Sequence[dict]) -> dict[str, Tensor]:
        """Unweighted losses, scalars, one for every key of `weights`.

        Args:
            outputs: of `UniPHD` with targets.
            targets: one person per sample; `masks` [1, h, w] at the unpadded size.
        """
        num_people = torch.tensor(
            float(sum(len(target["labels"]) for target in targets)),
            device=outputs["pred_logits"].device,
        )
        num_people = reduce_mean(num_people).clamp(min=1)
        stacked = stack_targets(targets)
        matched = outputs["matched_groups"]
        losses = self._layer_losses(outputs, matched, stacked, num_people)
        if "pred_masks" in outputs:
            losses |= self._mask_losses(outputs, matched, targets, num_people)
        for layer, auxiliary in enumerate(outputs.get("aux_outputs", ())):
            matched = self.matcher(auxiliary, targets)
            layer_losses = self._layer_losses(auxiliary, matched, stacked, num_people)
            losses |= {f"{name}_{layer}": value for name, value in layer_losses.items()}
        if "encoder_outputs" in outputs:
            proposals = outputs["encoder_outputs"]
            matched = self.matcher(proposals, targets)
            layer_losses = self._layer_losses(proposals, matched, stacked, num_people)
            losses |= {f"{name}_enc": value for name, value in layer_losses.items()}
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of what `forward` returned."""
        return sum(self.weights[name] * value for name, value in losses.items())

    def _layer_losses(
        self,
        outputs: Mapping[str, Tensor],
        matched: Tensor,
        target: Mapping[str, Tensor],
        num_people: Tensor,
    ) -> dict[str, Tensor]:
        logits = outputs["pred_logits"].float()
        labels = torch.zeros_like(logits)
        rows = torch.arange(len(matched), device=matched.device)
        labels[rows, matched, 1] = 1.0
        focal = sigmoid_focal_loss(logits, labels, self.focal_alpha, self.focal_gamma)
        losses = {"loss_ce": focal.sum() / num_people}

        keypoints = outputs["pred_keypoints"][rows, matched].float()
        true_keypoints, visible = target["keypoints"][:, 0], target["visible"][:, 0]
        distance = (keypoints - true_keypoints).abs().sum(-1) * visible
        losses["loss_keypoints"] = distance.sum() / num_people
        similarity = object_keypoint_similarity(
            keypoints, true_keypoints, visible, target["area"][:, 0], self.sigmas
        )
        losses["loss_oks"] = (1 - similarity.clamp(min=1e-6)).sum() / num_people
        if "pred_boxes" not in outputs:
            return losses

        visibility = outputs["pred_keypoints_visi"][rows, matched].float()
        # As published: a mean over keypoints and people, then once more over the people.
        losses["loss_keypoints_visi"] = (
            F.binary_cross_entropy_with_logits(visibility, visible) / num_people
        )
        boxes = outputs["pred_boxes"][rows, matched].float()
        true_boxes = target["boxes"][:, 0]
        losses["loss_bbox"] = (boxes - true_boxes).abs().sum() / num_people
        overlap = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(true_boxes))
        losses["loss_giou"] = (1 - overlap).sum() / num_people
        return losses

    def _mask_losses(
        self,
        outputs: Mapping[str, Tensor],
        matched: Tensor,
        targets: Sequence[dict],
        num_people: Tensor,
    ) -> dict[str, Tensor]:
        slot = (outputs["mask_groups"] == matched[:, None]).int().argmax(dim=1)
        rows = torch.arange(len(slot), device=slot.device)
        masks = outputs["pred_masks"][rows, slot].float()
        masks_low = outputs["pred_masks_low"][rows, slot].float()
        truth = torch.zeros_like(masks)
        for row, target in zip(truth, targets, strict=True):
            height, width = target["masks"].shape[-2:]
            row[:height, :width] = target["masks"][0]
        truth_low = truth[:, 1::2, 1::2]
        losses = {}
        for suffix, logits, labels in (("", masks, truth), ("_low", masks_low, truth_low)):
            logits, labels = logits.flatten(1), labels.flatten(1)
            focal = sigmoid_focal_loss(logits, labels, self.focal_alpha, self.focal_gamma)
            losses[f"loss_mask{suffix}"] = focal.mean(1).sum() / num_people
            losses[f"loss_dice{suffix}"] = dice_loss(logits, labels).sum() / num_people
        return losses


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017), element by element."""
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    correct = probability * labels + (1 - probability) * (1 - labels)
    weight = alpha * labels + (1 - alpha) * (1 - labels)
    return weight * (1 - correct) ** gamma * cross_entropy


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice coefficient of [B, N] mask logits and labels, with +1 above and below: [B]."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * labels).sum(1)
    return 1 - (overlap + 1) / (probability.sum(1) + labels.sum(1) + 1)
