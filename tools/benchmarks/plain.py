"""The plain form of the model: what the published design does, where ours does something else.

It exists to be compared with, in speed and in numbers, and no program but a benchmark uses it:

- the operator in the published design (on a GPU csrc/comparison, elsewhere the formula), between
  the layer's plain parts;
- masks of all groups, one after the other, in training as well;
- matching one layer at a time, with all costs of a batch at once and the rest thrown away;
- losses one layer and one loss at a time, each read by the host;
- AdamW with a group for every tensor.

Float32, as published.  The backbone, the encoder's and the decoder's other parts are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from datasets.prompts import Prompt
from models.layers.encoder import EncoderMemory
from models.uniphd.criterion import Criterion
from models.uniphd.mask_head import MASK_DIM, SHUFFLE, DynamicMaskHead, MaskRefinement
from models.uniphd.matcher import GroupMatcher, Matching
from models.uniphd.ops import MSDeformAttn, ms_deform_attn_pytorch
from models.uniphd.query_init import QueryInitializer
from models.uniphd.uniphd import UniPHD
from util.errors import UserError
from util.nested_tensor import NestedTensor

Operator = Callable[..., Tensor]


class PlainAttention(nn.Module):
    """Deformable attention as published, with the parameters of one of ours.

    Args:
        layer: gives the parameters.
        operator: takes the arguments of `ms_deform_attn`.
    """

    def __init__(self, layer: MSDeformAttn, operator: Operator) -> None:
        super().__init__()
        self.layout = (layer.num_heads, layer.num_levels, layer.num_points)
        self.sampling_offsets = layer.sampling_offsets
        self.attention_weights = layer.attention_weights
        self.value_proj = layer.value_proj
        self.output_proj = layer.output_proj
        self.operator = operator

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As `MSDeformAttn`."""
        batch, queries, _ = query.shape
        heads, levels, points = self.layout
        value = self.value_proj(value)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.view(batch, value.shape[1], heads, -1)
        offsets = self.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
        weights = self.attention_weights(query).view(batch, queries, heads, levels * points)
        weights = F.softmax(weights, -1).view(batch, queries, heads, levels, points)
        sizes = torch.stack([spatial_shapes[..., 1], spatial_shapes[..., 0]], -1)
        locations = (
            reference_points[:, :, None, :, None, :] + offsets / sizes[None, None, None, :, None, :]
        )
        sampled = self.operator(value, spatial_shapes, level_start_index, locations, weights)
        return self.output_proj(sampled)


class PlainMaskHead(nn.Module):
    """The dynamic mask head one group after the other, with the parameters of ours.

    Args:
        head: gives the parameters.
    """

    def __init__(self, head: DynamicMaskHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        instance_queries: Tensor,
        centers: Tensor,
        memory: EncoderMemory,
        c2: Tensor,
        c3: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `DynamicMaskHead`."""
        masks, coarse = [], []
        for group in range(instance_queries.shape[1]):
            fine, low = self._group(
                instance_queries[:, group], centers[:, group], memory, c2, c3, image_sizes
            )
            masks.append(fine)
            coarse.append(low)
        return torch.stack(masks, 1), torch.stack(coarse, 1)

    def _group(
        self,
        query: Tensor,
        center: Tensor,
        memory: EncoderMemory,
        c2: Tensor,
        c3: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks [B, H, W] and [B, H/2, W/2] of one group: query [B, D], center [B, 2]."""
        maps = memory.level_maps()[:3]
        size = maps[0].shape[-2:]
        features = maps[0]
        for level in maps[1:]:
            features = features + F.interpolate(level, size=size, mode="bicubic")
        height, width = size
        y, x = torch.meshgrid(
            8.0 * torch.arange(height).to(features) + 4,
            8.0 * torch.arange(width).to(features) + 4,
            indexing="ij",
        )
        pixels = center * image_sizes.flip(-1).to(center.dtype)
        offsets = pixels[:, :, None, None] - torch.stack([x, y])
        inputs = torch.cat([features, offsets], dim=1)  # [B, D + 2, H/8, W/8]
        channels = inputs.shape[1]
        sizes = [channels * MASK_DIM, MASK_DIM * MASK_DIM, MASK_DIM, MASK_DIM]
        weight1, weight2, bias1, bias2 = self.head.controller(query).split(sizes, dim=-1)
        batch = len(query)
        # One grouped convolution with the images as its groups, as in CondInst.
        hidden = F.conv2d(
            inputs.reshape(1, -1, height, width),
            weight1.reshape(batch * MASK_DIM, channels, 1, 1),
            bias1.flatten(),
            groups=batch,
        )
        masks = F.conv2d(
            F.relu(hidden),
            weight2.reshape(batch * MASK_DIM, MASK_DIM, 1, 1),
            bias2.flatten(),
            groups=batch,
        ).reshape(batch, MASK_DIM, height, width)
        low = F.pixel_shuffle(masks, SHUFFLE)[:, 0]
        masks = _refine(self.head.refine_c3, masks, c3)
        masks = F.interpolate(masks, size=c2.shape[-2:], mode="bilinear", align_corners=False)
        masks = _refine(self.head.refine_c2, masks, c2)
        return F.pixel_shuffle(masks, SHUFFLE)[:, 0], low


def _refine(layer: MaskRefinement, masks: Tensor, image_features: Tensor) -> Tensor:
    hidden = layer.conv1(F.relu(torch.cat([masks, image_features], dim=1)))
    return masks + layer.conv2(F.relu(hidden))


class PlainUniPHD(nn.Module):
    """A model in its plain form.

    Args:
        model: gives all parts and parameters, and loses its deformable attention to this one.
        operator: takes the arguments of `ms_deform_attn`.

    Raises:
        UserError: the model is an ablation or a rival whose form is another one.
    """

    takes_prompts = True

    def __init__(self, model: UniPHD, operator: Operator) -> None:
        super().__init__()
        if not isinstance(model.query_init, QueryInitializer) or (
            model.heads.visibility_heads is None
        ):
            raise UserError(
                "The plain form is made of models with the encoder's proposals and keypoints in "
                "every layer; choose decoder=pose_centric or grouppose, query_init=prompt and "
                "pose_head=True."
            )
        self.model = model
        if model.mask_head is not None:
            model.mask_head = PlainMaskHead(model.mask_head)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, MSDeformAttn):
                    setattr(module, name, PlainAttention(child, operator))

    def forward(
        self,
        samples: NestedTensor,
        prompts: Prompt | None = None,
        targets: Sequence[dict] | None = None,
    ) -> dict[str, Any]:
        """As `UniPHD`: masks of all groups are made, and with targets those of the people kept."""
        outputs = self.model(samples, prompts)
        if targets is None:
            return outputs
        layers = [*outputs["aux_outputs"], outputs, outputs["encoder_outputs"]]
        chosen = torch.stack([self._match(layer, targets) for layer in layers])
        outputs["matching"] = Matching(chosen, torch.ones_like(chosen, dtype=torch.bool))
        if "pred_masks" in outputs:
            groups = chosen[-2]
            outputs["mask_groups"] = groups
            for key in ("pred_masks", "pred_masks_low"):
                outputs[key] = outputs[key].take_along_dim(groups[..., None, None], dim=1)
        return outputs

    @torch.no_grad()
    def _match(self, layer: Mapping[str, Tensor], targets: Sequence[dict]) -> Tensor:
        """[B, 1] the group of each image's person: every group of the batch against everybody."""
        costs = _costs(self.model.matcher, layer, targets)
        rows = []
        for index in range(len(targets)):
            own = costs[index, :, index : index + 1]
            rows.append(linear_sum_assignment(own.cpu().numpy())[0])
        device = layer["pred_logits"].device
        return torch.stack([torch.as_tensor(row, device=device) for row in rows])


def _costs(matcher: GroupMatcher, layer: Mapping[str, Tensor], targets: Sequence[dict]) -> Tensor:
    """[B, n, B] cost of every group and every image's only person (Appendix A.1)."""
    weights = matcher.costs
    logits = layer["pred_logits"][..., 1].flatten()
    probability = logits.sigmoid()
    alpha, gamma = matcher.focal_alpha, matcher.focal_gamma
    positive = alpha * (1 - probability) ** gamma * -(probability + 1e-30).log()
    negative = (1 - alpha) * probability**gamma * -((1 - probability) + 1e-30).log()
    keypoints = torch.cat([target["keypoints"] for target in targets])  # [P, K, 3]
    truth, visible = keypoints[..., :2], keypoints[..., 2]
    predicted = layer["pred_keypoints"].flatten(0, 1)
    distance = torch.stack(
        [
            torch.cdist((predicted * v[:, None]).flatten(1), (t * v[:, None]).flatten()[None], p=1)
            for t, v in zip(truth, visible, strict=True)
        ],
        dim=1,
    )[..., 0]
    area = torch.cat([target["area"] for target in targets])
    similarity = torch.stack(
        [
            _similarity(predicted, t, v, a, matcher.sigmas)
            for t, v, a in zip(truth, visible, area, strict=True)
        ],
        dim=1,
    )
    cost = weights["ce"] * (positive - negative)[:, None] + weights["keypoints"] * distance
    cost = cost + weights["oks"] * (1 - similarity)
    if "pred_boxes" in layer:
        boxes = layer["pred_boxes"].flatten(0, 1)
        true_boxes = torch.cat([target["boxes"] for target in targets])
        cost = cost + weights["bbox"] * torch.cdist(boxes, true_boxes, p=1)
        cost = cost - weights["giou"] * torch.stack(
            [_overlap(boxes, box.expand_as(boxes)) for box in true_boxes], dim=1
        )
    return cost.view(len(targets), -1, len(targets))


def _similarity(
    keypoints: Tensor, truth: Tensor, visible: Tensor, area: Tensor, sigmas: Tensor
) -> Tensor:
    """OKS of [N, K, 2] with one person [K, 2], or one each [N, K, 2]: [N]."""
    squared = (keypoints - truth).pow(2).sum(-1)
    scale = 2 * area[..., None] * (2 * sigmas) ** 2
    return ((-squared / scale).exp() * visible).sum(-1) / visible.sum(-1).clamp(min=1e-6)


def _overlap(boxes: Tensor, truth: Tensor) -> Tensor:
    """Generalised IoU of [N, 4] cxcywh boxes pair by pair: [N]."""
    sides = []
    for values in (boxes, truth):
        x, y, width, height = values.unbind(-1)
        sides.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    (left, top, right, bottom), (left2, top2, right2, bottom2) = sides
    width = (torch.minimum(right, right2) - torch.maximum(left, left2)).clamp(min=0)
    height = (torch.minimum(bottom, bottom2) - torch.maximum(top, top2)).clamp(min=0)
    common = width * height
    union = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - common
    hull = (torch.maximum(right, right2) - torch.minimum(left, left2)) * (
        torch.maximum(bottom, bottom2) - torch.minimum(top, top2)
    )
    return common / union - (hull - union) / hull


class PlainCriterion(nn.Module):
    """The losses of one person an image, layer by layer, each read by the host.

    Args:
        criterion: gives the weights and the constants.

    Attributes:
        logged: the last values that the host has read, by name.
    """

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        self.ours = criterion
        self.logged: dict[str, float] = {}

    def forward(self, outputs: Mapping[str, Any], targets: Sequence[dict]) -> dict[str, Tensor]:
        """As `Criterion`."""
        layers = [*outputs["aux_outputs"], outputs, outputs["encoder_outputs"]]
        losses: dict[str, Tensor] = {}
        for layer, groups, suffix in zip(
            layers, outputs["matching"].groups, self.ours.suffixes, strict=True
        ):
            found = self._layer(layer, groups[:, 0], targets)
            losses |= {f"loss_{name}{suffix}": value for name, value in found.items()}
        if "pred_masks" in outputs:
            losses |= self._masks(outputs, targets)
        self.logged = {name: value.item() for name, value in losses.items()}
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """As `Criterion.total`."""
        return self.ours.total(losses)

    def _layer(
        self, layer: Mapping[str, Tensor], groups: Tensor, targets: Sequence[dict]
    ) -> dict[str, Tensor]:
        """Means over the people; groups [B]."""
        rows = torch.arange(len(groups), device=groups.device)
        logits = layer["pred_logits"]
        labels = torch.zeros_like(logits)
        labels[rows, groups, 1] = 1
        keypoints = torch.cat([target["keypoints"] for target in targets])
        truth, visible = keypoints[..., :2], keypoints[..., 2]
        area = torch.cat([target["area"] for target in targets])
        predicted = layer["pred_keypoints"][rows, groups]
        count = len(targets)
        similarity = _similarity(predicted, truth, visible, area, self.ours.sigmas)
        losses = {
            "ce": self._focal(logits, labels).sum() / count,
            "keypoints": ((predicted - truth).abs() * visible[..., None]).sum() / count,
            "oks": (1 - similarity.clamp(min=1e-6)).sum() / count,
        }
        if "pred_boxes" in layer:
            boxes = layer["pred_boxes"][rows, groups]
            true_boxes = torch.cat([target["boxes"] for target in targets])
            losses["bbox"] = F.l1_loss(boxes, true_boxes, reduction="none").sum() / count
            losses["giou"] = (1 - _overlap(boxes, true_boxes)).sum() / count
            losses["keypoints_visi"] = (
                F.binary_cross_entropy_with_logits(
                    layer["pred_keypoints_visi"][rows, groups], visible
                )
                / count
            )
        return losses

    def _masks(self, outputs: Mapping[str, Any], targets: Sequence[dict]) -> dict[str, Tensor]:
        """Means over the people."""
        losses: dict[str, Tensor] = {}
        height, width = outputs["pred_masks"].shape[-2:]
        truth = torch.stack(
            [
                F.pad(
                    target["masks"][0].to(outputs["pred_masks"].dtype),
                    (0, width - target["masks"].shape[-1], 0, height - target["masks"].shape[-2]),
                )
                for target in targets
            ]
        )
        for suffix, step in (("", 1), ("_low", 2)):
            logits = outputs[f"pred_masks{suffix}"][:, 0].flatten(1)
            labels = truth[:, step - 1 :: step, step - 1 :: step].flatten(1)
            losses[f"loss_mask{suffix}"] = self._focal(logits, labels).mean(1).sum() / len(targets)
            probability = logits.sigmoid()
            shared = 2 * (probability * labels).sum(1)
            dice = 1 - (shared + 1) / (probability.sum(1) + labels.sum(1) + 1)
            losses[f"loss_dice{suffix}"] = dice.sum() / len(targets)
        return losses

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        probability = logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        correct = probability * labels + (1 - probability) * (1 - labels)
        weight = self.ours.focal_alpha * labels + (1 - self.ours.focal_alpha) * (1 - labels)
        return weight * (1 - correct) ** self.ours.focal_gamma * entropy


def published_operator(device: torch.device) -> Operator:
    """The operator in the published design: compiled on a GPU, the formula elsewhere."""
    if device.type != "cuda":
        return ms_deform_attn_pytorch
    from models.uniphd.ops.comparison import load_plain

    return load_plain()


def plain_optimizer(groups: Sequence[Mapping[str, Any]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW with a group for every tensor of `models.build_parameter_groups`."""
    single = [{"params": [p], "lr": group["lr"]} for group in groups for p in group["params"]]
    return torch.optim.AdamW(single, weight_decay=weight_decay)
