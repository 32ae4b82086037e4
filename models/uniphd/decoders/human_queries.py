"""Human queries: where a decoder whose queries have boxes begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.encoder import EncoderMemory
from models.layers.mlp import MLP, zero_last_layer
from models.uniphd.query_init import ProposalChoice, proposal_sizes


@dataclass(frozen=True)
class HumanQueries:
    """h queries for people.

    Attributes:
        queries: [B, h, D].
        boxes: [B, h, 4] cxcywh in [0, 1], detached: the people's first guess.
        proposals: what the encoder's proposals predict, by the names of a layer's outputs:
            `pred_logits` [B, h, 2] and `pred_boxes` [B, h, 4] cxcywh in [0, 1].
    """

    queries: Tensor
    boxes: Tensor
    proposals: dict[str, Tensor]


class HumanQueryInitializer(ProposalChoice):
    """Turns the h most promising encoder tokens into a human query with a box each.

    A query is the prompt's instance query, as in UniPHD, plus a learned embedding of its own, as
    ED-Pose's human queries have one.

    Args:
        embed_dim: width D.
        num_queries: h.
    """

    def __init__(self, embed_dim: int, num_queries: int) -> None:
        super().__init__(embed_dim, num_queries)
        self.box_head = MLP(embed_dim, embed_dim, 4, 3)
        self.query_embedding = nn.Embedding(num_queries, embed_dim)
        zero_last_layer(self.box_head)

    def forward(self, memory: EncoderMemory, instance_query: Tensor) -> HumanQueries:
        """Initialise the queries.

        Args:
            memory: encoded tokens.
            instance_query: [B, D], the prompt's.

        Raises:
            UserError: the image has fewer tokens than there are queries.
        """
        chosen, tokens, logits, center_logits = self.choose(memory)
        size_logits = proposal_sizes(memory.layout).logit()[chosen]  # [B, h, 1]
        # Where a proposal does not count, neither its centre nor its size is finite.
        size_logits = size_logits.where(center_logits.isfinite(), center_logits)
        box_logits = torch.cat([center_logits, size_logits], dim=-1) + self.box_head(tokens)
        boxes = box_logits.sigmoid()
        return HumanQueries(
            queries=instance_query[:, None] + self.query_embedding.weight,
            boxes=boxes.detach(),
            proposals={"pred_logits": logits, "pred_boxes": boxes},
        )
