"""Training losses (Appendix A.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.uniphd.matcher import Matching, People, Stage, stack_stages
from util.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from util.keypoint_ops import object_keypoint_similarity

# By what is predicted, the losses of every layer that predicts it; and of the final layer's masks.
LOSSES = {
    "pred_logits": ("ce",),
    "pred_keypoints": ("keypoints", "oks"),
    "pred_boxes": ("bbox", "giou"),
    "pred_keypoints_visi": ("keypoints_visi",),
}
MASK_LOSSES = ("mask", "dice", "mask_low", "dice_low")


class Criterion(nn.Module):
    """Losses of all layers for the pairs of group and person that the model has matched.

    Args:
        loss_weights: weight of each loss that the model has predictions for (`LOSSES`); of
            `MASK_LOSSES` all or none.
        decoder_layers: the names of what each decoder layer predicts.
        proposals: likewise of the encoder's proposals; empty where there are none.
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
        decoder_layers: Sequence[Collection[str]],
        proposals: Collection[str],
        sigmas: Sequence[float],
        focal_alpha: float,
        focal_gamma: float,
    ) -> None:
        super().__init__()
        layers = [*decoder_layers, proposals]
        has_masks = not loss_weights.keys().isdisjoint(MASK_LOSSES)
        expected = {*losses_of(layers), *(MASK_LOSSES if has_masks else ())}
        if set(loss_weights) != expected:
            raise ValueError(
                f"loss_weights must have exactly {sorted(expected)}; got {sorted(loss_weights)}."
            )
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.register_buffer("sigmas", torch.tensor(sigmas), persistent=False)
        self.suffixes = [*(f"_{layer}" for layer in range(len(decoder_layers) - 1)), "", "_enc"]
        self.weights: dict[str, float] = {}
        for name, weight in loss_weights.items():
            suffixes = [
                suffix
                for suffix, layer in zip(self.suffixes, layers, strict=True)
                if name in losses_of([layer])
            ]
            suffixes = [""] if name in MASK_LOSSES else suffixes
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
        names, sums = [], []
        for stage in stack_stages(outputs):
            suffixes = self.suffixes[stage.layers]
            for prediction, losses in self._stage_losses(stage, matching, people, num_people):
                for name, values in losses.items():
                    names += [f"loss_{name}{s}" for s in suffixes[stage.makers[prediction]]]
                    sums.append(values)
        if "pred_masks" in outputs:
            masks = self._mask_losses(outputs, matching, targets)
            names += [f"loss_{name}" for name in masks]
            sums += masks.values()
        values = torch.cat(sums) / num_people
        return dict(zip(names, values.unbind(), strict=True))

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of what `forward` returned."""
        values = torch.stack([losses[name] for name in self.weights])
        return (self.weight_values * values).sum()

    def _stage_losses(
        self, stage: Stage, matching: Matching, people: People, num_people: Tensor
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """What a stage predicts, each with the sums over people of its losses: [l] of l layers."""
        for name, predictions in stage.predictions.items():
            layers = stage.makers[name]
            groups = matching.groups[stage.layers][layers]
            matched = matching.matched[stage.layers][layers]
            if name == "pred_logits":
                losses = self._class_loss(predictions, groups, matched)
            elif name == "pred_keypoints":
                losses = self._keypoint_losses(predictions, groups, matched, people)
            elif name == "pred_boxes":
                losses = self._box_losses(predictions, groups, matched, people)
            else:
                losses = self._visibility_loss(predictions, groups, matched, people)
                # As published: a mean over keypoints and people, then once more over the people.
                losses = {name: sums / num_people for name, sums in losses.items()}
            yield name, losses

    def _class_loss(self, logits: Tensor, groups: Tensor, matched: Tensor) -> dict[str, Tensor]:
        """Of logits [l, B, n, 2]; groups and matched [l, B, P]."""
        logits = logits.float()
        # People without a group vote for a place behind the last group.
        voted = groups.where(matched, logits.shape[2])
        is_person = logits.new_zeros(*logits.shape[:2], logits.shape[2] + 1)
        is_person = is_person.scatter(2, voted, 1.0)[..., :-1]
        labels = torch.stack([torch.zeros_like(is_person), is_person], dim=-1)
        focal = sigmoid_focal_loss(logits, labels, self.focal_alpha, self.focal_gamma)
        return {"ce": focal.flatten(1).sum(1)}

    def _keypoint_losses(
        self, keypoints: Tensor, groups: Tensor, matched: Tensor, people: People
    ) -> dict[str, Tensor]:
        """Of keypoints [l, B, n, K, 2]; groups and matched [l, B, P]."""
        keypoints = keypoints.take_along_dim(groups[..., None, None], 2).float()
        distance = ((keypoints - people.keypoints).abs().sum(-1) * people.visible).sum(-1)
        similarity = object_keypoint_similarity(
            keypoints, people.keypoints, people.visible, people.area, self.sigmas
        )
        return {
            "keypoints": (distance * matched).flatten(1).sum(1),
            "oks": ((1 - similarity.clamp(min=1e-6)) * matched).flatten(1).sum(1),
        }

    def _box_losses(
        self, boxes: Tensor, groups: Tensor, matched: Tensor, people: People
    ) -> dict[str, Tensor]:
        """Of boxes [l, B, n, 4]; groups and matched [l, B, P]."""
        boxes = boxes.take_along_dim(groups[..., None], 2).float()
        distance = (boxes - people.boxes).abs().sum(-1)
        overlap = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(people.boxes))
        return {
            "bbox": (distance * matched).flatten(1).sum(1),
            "giou": ((1 - overlap) * matched).flatten(1).sum(1),
        }

    def _visibility_loss(
        self, visibility: Tensor, groups: Tensor, matched: Tensor, people: People
    ) -> dict[str, Tensor]:
        """Of logits [l, B, n, K]; groups and matched [l, B, P]."""
        visibility = visibility.take_along_dim(groups[..., None], 2).float()
        visible = people.visible.expand_as(visibility)
        entropy = F.binary_cross_entropy_with_logits(visibility, visible, reduction="none")
        return {"keypoints_visi": (entropy.mean(-1) * matched).flatten(1).sum(1)}

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


def losses_of(layers: Sequence[Collection[str]]) -> list[str]:
    """The losses of layers that predict what each lists, in the order of `LOSSES`."""
    predicted = set().union(*layers)
    return [loss for name, losses in LOSSES.items() if name in predicted for loss in losses]


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
