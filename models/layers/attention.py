"""Attention between tokens."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# Sequences of at most this length count as short.
SHORT = 64


class MultiHeadAttention(nn.MultiheadAttention):
    """Attention over [B, T, D] tensors.

    In training with bfloat16 on the CPU, short sequences take PyTorch's plain formula: the backward
    pass of its fused kernel takes about three times as long there (240 groups of 18 queries, 4
    heads of 32: forward and backward 67 ms instead of 163; in float32 neither is ahead, and
    without a gradient the fused kernel is).
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, **arguments: object
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`."""
        plain = (
            query.device.type == "cpu"
            and query.shape[1] <= SHORT
            and torch.is_grad_enabled()
            and torch.is_autocast_enabled("cpu")
        )
        with sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext():
            return super().forward(query, key, value, **arguments)


def multi_head_attention(embed_dim: int, num_heads: int) -> MultiHeadAttention:
    """Attention of a model; no attention dropout.

    Raises:
        ValueError: `embed_dim` is not divisible by `num_heads`.
    """
    if embed_dim % num_heads:
        raise ValueError(
            f"hidden_dim must be a multiple of num_heads; got {embed_dim} and {num_heads}."
        )
    return MultiHeadAttention(embed_dim, num_heads, batch_first=True)
