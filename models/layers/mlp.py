"""Linear layers in a row, and how heads start."""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.performance.linear import Linear


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        in_dim, hidden_dim, out_dim: widths.
        num_layers: number of linear layers.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(
            Linear(width, next_width)
            for width, next_width in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, "relu")
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """Two linear layers with a residual, then a LayerNorm (post-norm).

    Args:
        embed_dim: width D.
        hidden_dim: width between the two layers.
        dropout: after the activation and after the second layer.
    """

    def __init__(self, embed_dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = Linear(embed_dim, hidden_dim)
        self.linear2 = Linear(hidden_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.linear1(x, "relu"))
        return self.norm(x + self.dropout(self.linear2(hidden)))


def init_class_bias(head: nn.Linear, prior: float = 0.01) -> None:
    """Start all scores at `prior`, which keeps the focal loss calm at first (Lin et al. 2017)."""
    nn.init.constant_(head.bias, -math.log((1 - prior) / prior))


def zero_last_layer(mlp: MLP) -> None:
    """Start with no correction at all."""
    nn.init.zeros_(mlp.layers[-1].weight)
    nn.init.zeros_(mlp.layers[-1].bias)
