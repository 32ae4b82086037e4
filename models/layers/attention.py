"""Attention between tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.performance.attention import attend


class MultiHeadAttention(nn.MultiheadAttention):
    """Attention over [B, T, D] tokens, with the parameters of `nn.MultiheadAttention`.

    Args:
        embed_dim: width D.
        num_heads: attention heads; must divide `embed_dim`.

    Raises:
        ValueError: `embed_dim` is not divisible by `num_heads`.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        if embed_dim % num_heads:
            raise ValueError(
                f"hidden_dim must be a multiple of num_heads; got {embed_dim} and {num_heads}."
            )
        super().__init__(embed_dim, num_heads, batch_first=True)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        padding_mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: [B, T, D].
            key: [B, S, D]; without key and value, the queries attend to each other.
            value: [B, S, D].
            padding_mask: [B, S] bool, True where there is no key.
            bias: added to the attention's logits, broadcast to [B, heads, T, S]; not together with
                a mask.

        Returns:
            [B, T, D].
        """
        # A product of a weight with anything else than rows in a line would copy the weight.
        query = query.contiguous()
        if key is None:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            projected = [
                F.linear(tokens, weight, shift)
                for tokens, weight, shift in zip(
                    (query, key, value),
                    self.in_proj_weight.chunk(3),
                    self.in_proj_bias.chunk(3),
                    strict=True,
                )
            ]
        heads = [tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tokens in projected]
        if padding_mask is not None:
            bias = heads[0].new_zeros(padding_mask.shape)
            bias = bias.masked_fill(padding_mask, -float("inf"))[:, None, None]
        attended = attend(*heads, bias=None if bias is None else bias.to(heads[0].dtype))
        return self.out_proj(attended.transpose(1, 2).flatten(2))
