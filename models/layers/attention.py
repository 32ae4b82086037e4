"""Attention between tokens."""

from __future__ import annotations

from torch import nn


def multi_head_attention(embed_dim: int, num_heads: int) -> nn.MultiheadAttention:
    """Attention over [B, T, D] tensors.

    Raises:
        ValueError: `embed_dim` is not divisible by `num_heads`.
    """
    if embed_dim % num_heads:
        raise ValueError(
            f"hidden_dim must be a multiple of num_heads; got {embed_dim} and {num_heads}."
        )
    return nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
