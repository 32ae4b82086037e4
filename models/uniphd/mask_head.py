"""Dynamic mask head: every instance query writes the weights of its own small network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.encoder import EncoderMemory
from models.layers.mlp import MLP

SHUFFLE = 4  # each pixel of a mask feature map unfolds into SHUFFLE × SHUFFLE mask pixels
MASK_DIM = SHUFFLE**2  # channels of the dynamic convolutions


class DynamicMaskHead(nn.Module):
    """Masks of all groups in one batch; what the groups share is computed once.

    Args:
        embed_dim: width D.
        fine_channels: channels of C2 and C3, which refine the masks.
    """

    def __init__(self, embed_dim: int, fine_channels: Sequence[int]) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        weights = (embed_dim + 2) * MASK_DIM + MASK_DIM * MASK_DIM
        self.controller = MLP(embed_dim, embed_dim, weights + 2 * MASK_DIM, 3)
        channels_c2, channels_c3 = fine_channels
        self.refine_c3 = MaskRefinement(channels_c3)
        self.refine_c2 = MaskRefinement(channels_c2)
        for layer in self.controller.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        instance_queries: Tensor,
        centers: Tensor,
        memory: EncoderMemory,
        c2: Tensor,
        c3: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Masks of m groups.

        Args:
            instance_queries: [B, m, D].
            centers: [B, m, 2] (x, y) in [0, 1]: the groups' centres as they entered the last layer.
            memory: encoded tokens.
            c2: [B, C_2, H/4, W/4].
            c3: [B, C_3, H/8, W/8].
            image_sizes: [B, 2] unpadded (height, width) in pixels.

        Returns:
            Mask logits [B, m, H, W] and their coarse version [B, m, H/2, W/2].
        """
        batch, groups = instance_queries.shape[:2]
        features = self._mask_features(memory)
        masks = self._dynamic_convolutions(instance_queries, centers, features, image_sizes)
        masks_low = unfold_pixels(masks)
        masks = self.refine_c3(masks, c3, groups)
        masks = F.interpolate(masks, size=c2.shape[-2:], mode="bilinear", align_corners=False)
        masks = self.refine_c2(masks, c2, groups)
        masks = unfold_pixels(masks)
        layout = (batch, groups)
        return masks.unflatten(0, layout), masks_low.unflatten(0, layout)

    def _mask_features(self, memory: EncoderMemory) -> Tensor:
        """[B, D, H/8, W/8]: the three finest levels, resized and summed."""
        finest, *coarser = memory.level_maps()[:3]
        for level in coarser:
            finest = finest + F.interpolate(
                level, size=finest.shape[-2:], mode="bicubic", align_corners=False
            )
        return finest

    def _dynamic_convolutions(
        self, instance_queries: Tensor, centers: Tensor, features: Tensor, image_sizes: Tensor
    ) -> Tensor:
        """Two 1 × 1 convolutions with weights made for each group: [B * m, 16, H/8, W/8].

        The input of the first is [features, offset (x, y) in pixels of the group's centre from the
        pixel]. The features' share is one matrix product for all groups; the offset's share is
        affine in the pixel position and needs no map per group.
        """
        batch, groups, _ = instance_queries.shape
        height, width = features.shape[-2:]
        dim, mask_dim = self.embed_dim, MASK_DIM
        parameters = self.controller(instance_queries)
        weight1, weight2, bias1, bias2 = parameters.split(
            [(dim + 2) * mask_dim, mask_dim * mask_dim, mask_dim, mask_dim], dim=-1
        )
        weight1 = weight1.unflatten(-1, (mask_dim, dim + 2))
        feature_weight, offset_weight = weight1.split([dim, 2], dim=-1)

        center_pixels = centers * image_sizes.flip(-1)[:, None].to(centers.dtype)
        x = 8.0 * torch.arange(width, device=features.device, dtype=features.dtype) + 4
        y = 8.0 * torch.arange(height, device=features.device, dtype=features.dtype) + 4
        offset_x = center_pixels[..., 0, None] - x  # [B, m, W/8]
        offset_y = center_pixels[..., 1, None] - y  # [B, m, H/8]
        hidden = (feature_weight.flatten(1, 2) @ features.flatten(2)).view(
            batch, groups, mask_dim, height, width
        )
        hidden = hidden + (offset_weight[..., 0, None] * offset_x[:, :, None])[..., None, :]
        hidden = hidden + (offset_weight[..., 1, None] * offset_y[:, :, None])[..., :, None]
        hidden = F.relu(hidden + bias1[..., None, None], inplace=True).flatten(3)
        masks = weight2.unflatten(-1, (mask_dim, mask_dim)) @ hidden + bias2[..., None]
        # Channels last in memory: what follows is up to three times as fast so.
        masks = masks.view(batch * groups, mask_dim, height, width)
        return masks.contiguous(memory_format=torch.channels_last)


def unfold_pixels(masks: Tensor) -> Tensor:
    """[N, 16, h, w] → [N, 4h, 4w]: the channels become a square of pixels, row by row."""
    count, _, height, width = masks.shape
    squares = masks.permute(0, 2, 3, 1).unflatten(-1, (SHUFFLE, SHUFFLE))  # [N, h, w, 4, 4]
    return squares.transpose(2, 3).reshape(count, SHUFFLE * height, SHUFFLE * width)


class MaskRefinement(nn.Module):
    """m + conv(relu(conv(relu(concat(m, image features))))), 3 × 3 convolutions.

    The first convolution is split: its image half is the same for all groups of an image.

    Args:
        image_channels: channels of the image features.
    """

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(MASK_DIM + image_channels, MASK_DIM, 3, padding=1)
        self.conv2 = nn.Conv2d(MASK_DIM, MASK_DIM, 3, padding=1)

    def forward(self, masks: Tensor, image_features: Tensor, groups: int) -> Tensor:
        """masks [B * m, 16, h, w] and image features [B, C, h, w] → [B * m, 16, h, w]."""
        mask_weight, image_weight = self.conv1.weight.split(
            [MASK_DIM, self.conv1.in_channels - MASK_DIM], dim=1
        )
        shared = F.conv2d(F.relu(image_features), image_weight, self.conv1.bias, padding=1)
        hidden = F.conv2d(F.relu(masks), mask_weight, padding=1)
        hidden = hidden + shared.repeat_interleave(groups, dim=0)
        return masks + self.conv2(F.relu(hidden, inplace=True))
