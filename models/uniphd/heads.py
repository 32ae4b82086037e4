"""Prediction heads: class, box and visibility, separate for every decoder layer.

The keypoints are the decoder's own: every layer refines them (`DecoderOutput.keypoints`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.group_decoder import DecoderOutput
from models.layers.mlp import MLP, init_class_bias, zero_last_layer
from models.performance.linear import Linear
from util.keypoint_ops import inverse_sigmoid


class PredictionHeads(nn.Module):
    """The heads of all decoder layers.

    Args:
        num_layers: decoder layers.
        embed_dim: width D.
        pose_head: whether the layers have keypoints, and these a visibility each.
    """

    def __init__(self, num_layers: int, embed_dim: int, pose_head: bool = True) -> None:
        super().__init__()
        self.class_heads = nn.ModuleList(Linear(embed_dim, 2) for _ in range(num_layers))
        self.box_heads = nn.ModuleList(MLP(embed_dim, embed_dim, 4, 3) for _ in range(num_layers))
        self.visibility_heads = (
            nn.ModuleList(Linear(embed_dim, 1) for _ in range(num_layers)) if pose_head else None
        )
        for class_head, box_head in zip(self.class_heads, self.box_heads, strict=True):
            init_class_bias(class_head)
            zero_last_layer(box_head)

    def forward(self, outputs: Sequence[DecoderOutput]) -> list[dict[str, Tensor]]:
        """Predictions of every layer.

        Returns:
            Per layer a dict with `pred_logits` [B, n, 2], `pred_boxes` [B, n, 4] cxcywh in [0, 1]
            and, with a pose head, `pred_keypoints` [B, n, K, 2] (x, y) in [0, 1] and
            `pred_keypoints_visi` [B, n, K] logits.
        """
        return [self._layer(layer, output) for layer, output in enumerate(outputs)]

    def _layer(self, layer: int, output: DecoderOutput) -> dict[str, Tensor]:
        predictions = {
            "pred_logits": self.class_heads[layer](output.instance_queries),
            "pred_boxes": self._box(layer, output),
        }
        if self.visibility_heads is not None:
            visibility = self.visibility_heads[layer](output.keypoint_queries)
            predictions["pred_keypoints"] = output.keypoints
            predictions["pred_keypoints_visi"] = visibility.squeeze(-1)
        return predictions

    def _box(self, layer: int, output: DecoderOutput) -> Tensor:
        box = self.box_heads[layer](output.instance_queries)
        center = inverse_sigmoid(output.centers)
        return torch.cat([box[..., :2] + center, box[..., 2:]], dim=-1).sigmoid()
