"""Prompt into visual tokens (Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.layers.attention import MultiHeadAttention
from models.uniphd.prompt_encoder import EncodedPrompt
from util.nested_tensor import NestedTensor


class PromptFusion(nn.Module):
    """Visual tokens of every level attend to the prompt; one attention per kind of prompt.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.text_attention = MultiHeadAttention(embed_dim, num_heads)
        self.positional_attention = MultiHeadAttention(embed_dim, num_heads)

    def forward(self, levels: Sequence[NestedTensor], prompt: EncodedPrompt) -> list[NestedTensor]:
        """Levels with [B, D, h, w] features → the same levels, prompt added."""
        attention = self.text_attention if prompt.modality == "text" else self.positional_attention
        fused = []
        for level in levels:
            tokens = level.tensors.flatten(2).mT
            attended = attention(
                query=tokens,
                key=prompt.features + prompt.positions,
                value=prompt.features,
                padding_mask=prompt.padding_mask,
            )
            fused.append(NestedTensor((tokens + attended).mT.view_as(level.tensors), level.mask))
        return fused
