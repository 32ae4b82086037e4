"""Feature maps of a backbone to the levels of the encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.layers.padding import resize_mask
from util.nested_tensor import NestedTensor


class InputProjection(nn.Module):
    """C3…C5 and a fourth, coarser level made of C5, all brought to one width.

    Args:
        in_channels: channels of C3, C4 and C5.
        hidden_dim: common width D.

    Raises:
        ValueError: `hidden_dim` is not a multiple of 32, the number of normalisation groups.
    """

    def __init__(self, in_channels: Sequence[int], hidden_dim: int) -> None:
        super().__init__()
        if hidden_dim % 32:
            raise ValueError(f"hidden_dim must be a multiple of 32; got {hidden_dim}.")
        convolutions = [nn.Conv2d(channels, hidden_dim, 1) for channels in in_channels]
        convolutions.append(nn.Conv2d(in_channels[-1], hidden_dim, 3, stride=2, padding=1))
        self.levels = nn.ModuleList(
            nn.Sequential(convolution, nn.GroupNorm(32, hidden_dim)) for convolution in convolutions
        )
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, features: Sequence[NestedTensor], mask: Tensor) -> list[NestedTensor]:
        """Project.

        Args:
            features: C3, C4, C5.
            mask: [B, H, W] padding mask of the batch, for the fourth level.

        Returns:
            Four levels with [B, D, h, w] features.
        """
        levels = [
            NestedTensor(project(level.tensors), level.mask)
            for project, level in zip(self.levels, features, strict=False)
        ]
        coarse = self.levels[-1](features[-1].tensors)
        return [*levels, NestedTensor(coarse, resize_mask(mask, coarse.shape[-2:]))]
