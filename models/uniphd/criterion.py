"""Training losses (Appendix A.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.uniphd.matcher import Matching, People, stack_layers
from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.keypoint_ops import object_keypoint_similarity

# Losses of every decoder layer and of the encoder's proposals, of decoder layers alone, and of the
# final layer alone.
SHARED_LOSSES = ("ce", "keypoints", "oks")
DECODER_LOSSES = ("bbox", "giou", "keypoints_visi")
MASK_LOSSES = ("mask", "dice", "mask_low", "dice_low")


class Criterion(nn.Module):
    """Losses of all layers for the pairs of group and person that the model has matched.

    Args:
        loss_weights: weight of each loss that the model has predictions for: `SHARED_LOSSES`, and
            of `DECODER_LOSSES` and `MASK_LOSSES` all or none.
        num_decoder_layers: L.
        sigmas: [K] OKS constants.
        focal_alpha, focal_gamma: of the class and mask focal losses.

    Attributes:
        weights: weight of every loss that `forward` returns. Names end in the decoder layer's
            number (the final one has none), or in "_enc" for the encoder's proposals.

    Raises:
        ValueError: a weight is missing or unknown.
    """

    def __init__(
        self,
        *,
        loss_weights: Mapping[str, float],
        num_decoder_layers: int,
        sigmas: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        names = set(loss_weights)
        optional = [set(losses) for losses in (DECODER_LOSSES, MASK_LOSSES) if names & set(losses)]
        expected = set(SHARED_LOSSES).union(*optional)
        if names != expected:
            raise ValueError(
                f"loss_weights must have exactly {sorted(expected)}; got {sorted(names)}."
            )
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        self.suffixes = (*(f"_{layer}" for layer in range(num_decoder_layers - 1)), "", "_enc")
        self.weights: dict[str, float] = {}
        for name, weight in loss_weights.items():
            if name in MASK_LOSSES:
                suffixes = [""]
            elif name in DECODER_LOSSES:
                suffixes = self.suffixes[:-1]
            else:
                suffixes = self.suffixes
            self.weights |= {f"loss_{name}{suffix}": weight for suffix in suffixes}
        weights = torch.tensor(list(self.weights.values()))
        self.register_buffer("weight_values", weights, persistent=False)

    def forward(
        self, outputs: Mapping, targets: Sequence[dict], num_people: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Unweighted losses, scalars, one for every key of `weights`.

        Args:
            outputs: of a model that got the targets; their `matching` says which group is whose.
            targets: of B samples; `masks` [P, h, w] at the unpadded size where masks are predicted.
            num_people: [], what the sums over people are divided by: people of all batches whose
                losses are added up; None: of these targets.
        """
        people = People.of(targets)
        matching: Matching = outputs["matching"]
        if num_people is None:
            count = float(sum(len(target["labels"]) for target in targets))
            num_people = torch.full((), max(count, 1.0), device=outputs["pred_logits"].device)
        layers = stack_layers(outputs)
        sums = self._shared_losses(layers, matching, people)
        if "pred_boxes" in layers:
            sums |= self._decoder_losses(layers, matching, people, num_people)
        names = [
            f"loss_{name}{suffix}"
            for name, values in sums.items()
            # Decoder losses have no value for the encoder's proposals, which come last.
            for suffix, _ in zip(self.suffixes, values, strict=False)
        ]
        if "pred_masks" in outputs:
            masks = self._mask_losses(outputs, matching, targets)
            names += [f"loss_{name}" for name in masks]
            sums |= masks
        values = torch.cat(list(sums.values())) / num_people
        return dict(zip(names, values.unbind(), strict=True))

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of what `forward` returned."""
        values = torch.stack([losses[name] for name in self.weights])
        return (self.weight_values * values).sum()

    def _shared_losses(
        self, layers: Mapping[str, Tensor], matching: Matching, people: People
    ) -> dict[str, Tensor]:
        """Sums over people of the losses that all layers have: [L + 1] each."""
        logits = layers["pred_logits"].float()
        groups, matched = matching.groups, matching.matched
        # People without a group vote for a place behind the last group.
        voted = groups.where(matched, logits.shape[2])
        is_person = logits.new_zeros(*logits.shape[:2], logits.shape[2] + 1)
        is_person = is_person.scatter(2, voted, 1.0)[..., :-1]
        labels = torch.stack([torch.zeros_like(is_person), is_person], dim=-1)
        focal = sigmoid_focal_loss(logits, labels, self.focal_alpha, self.focal_gamma)

        keypoints = layers["pred_keypoints"].take_along_dim(groups[..., None, None], 2).float()
        distance = ((keypoints - people.keypoints).abs().sum(-1) * people.visible).sum(-1)
        similarity = object_keypoint_similarity(
            keypoints, people.keypoints, people.visible, people.area, self.sigmas
        )
        return {
            "ce": focal.flatten(1).sum(1),
            "keypoints": (distance * matched).flatten(1).sum(1),
            "oks": ((1 - similarity.clamp(min=1e-6)) * matched).flatten(1).sum(1),
        }

    def _decoder_losses(
        self,
        layers: Mapping[str, Tensor],
        matching: Matching,
        people: People,
        num_people: Tensor,
    ) -> dict[str, Tensor]:
        """Sums over people of the losses that decoder layers have: [L] each."""
        groups, matched = matching.groups[:-1], matching.matched[:-1]
        boxes = layers["pred_boxes"].take_along_dim(groups[..., None], 2).float()
        distance = (boxes - people.boxes).abs().sum(-1)
        overlap = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(people.boxes))
        visibility = layers["pred_keypoints_visi"].take_along_dim(groups[..., None], 2).float()
        visible = people.visible.expand_as(visibility)
        entropy = F.binary_cross_entropy_with_logits(visibility, visible, reduction="none")
        entropy = (entropy.mean(-1) * matched).flatten(1).sum(1)
        return {
            "bbox": (distance * matched).flatten(1).sum(1),
            "giou": ((1 - overlap) * matched).flatten(1).sum(1),
            # As published: a mean over keypoints and people, then once more over the people.
            "keypoints_visi": entropy / num_people,
        }

    def _mask_losses(
        self, outputs: Mapping, matching: Matching, targets: Sequence[dict]
    ) -> dict[str, Tensor]:
        """Sums over people of the mask losses: [1] each.

        The model's masks are in the order of the people.
        """
        _, matched = matching.final
        masks, masks_low = outputs["pred_masks"].float(), outputs["pred_masks_low"].float()
        truth = torch.zeros_like(masks)
        for row, target in zip(truth, targets, strict=True):
            people, height, width = target["masks"].shape
            row[:people, :height, :width] = target["masks"]
        losses = {}
        for suffix, logits, labels in (
            ("", masks, truth),
            ("_low", masks_low, truth[..., 1::2, 1::2]),
        ):
            logits, labels = logits.flatten(2), labels.flatten(2)
            focal = sigmoid_focal_loss(logits, labels, self.focal_alpha, self.focal_gamma)
            losses[f"mask{suffix}"] = (focal.mean(-1) * matched).sum()[None]
            losses[f"dice{suffix}"] = (dice_loss(logits, labels) * matched).sum()[None]
        return losses


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017), element by element.

    Args:
        logits: of any shape.
        labels: 0 or 1.
        alpha: weight of the ones; the zeros have 1 - alpha.
        gamma: exponent of the probability of being wrong.
    """
    wrong = logits * (1 - 2 * labels)  # logit of the other label
    weight = (1 - alpha) + (2 * alpha - 1) * labels
    return weight * wrong.sigmoid() ** gamma * F.softplus(wrong)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice coefficient of [..., N] mask logits and labels, with +1 above and below: [...]."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * labels).sum(-1)
    return 1 - (overlap + 1) / (probability.sum(-1) + labels.sum(-1) + 1)
