"""Image → feature maps C2…C5 with their padding masks."""

from __future__ import annotations

from torch import nn

from models.layers.padding import resize_mask
from util.nested_tensor import NestedTensor


class Backbone(nn.Module):
    """A hierarchical network: its maps at 1/4, 1/8, 1/16 and 1/32, or from 1/8 on.

    Args:
        body: maps images [B, 3, H, W] to a list of maps [B, C_i, h_i, w_i], the finest first, of
            `body.num_channels`.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.num_channels = tuple(body.num_channels)

    def forward(self, samples: NestedTensor) -> list[NestedTensor]:
        """The maps of a padded batch; masks are resized by nearest neighbour to their sizes."""
        return [
            NestedTensor(features, resize_mask(samples.mask, features.shape[-2:]))
            for features in self.body(samples.tensors)
        ]
