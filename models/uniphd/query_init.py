"""Prompt-conditioned query initialisation: where to look first, and with which queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.encoder import EncoderMemory, pixel_centers
from models.layers.group_decoder import GroupQueries
from models.layers.mlp import MLP, init_class_bias, zero_last_layer
from models.performance.linear import Linear
from util.errors import UserError


class QueryInitializer(nn.Module):
    """Picks the n most promising encoder tokens and turns each into a group of queries.

    Args:
        embed_dim: width D.
        num_keypoints: K.
        num_groups: n.
    """

    def __init__(self, embed_dim: int, num_keypoints: int, num_groups: int) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.num_groups = num_groups
        self.memory_projection = Linear(embed_dim, embed_dim)
        self.memory_norm = nn.LayerNorm(embed_dim)
        self.class_head = Linear(embed_dim, 2)
        self.keypoint_head = MLP(embed_dim, 2 * embed_dim, 2 * num_keypoints, 4)
        self.keypoint_embedding = nn.Embedding(num_keypoints, embed_dim)
        init_class_bias(self.class_head)
        zero_last_layer(self.keypoint_head)

    def forward(self, memory: EncoderMemory, instance_query: Tensor) -> GroupQueries:
        """Initialise the groups.

        Args:
            memory: encoded tokens.
            instance_query: [B, D], the prompt's or a learned one; every group starts from it.

        Raises:
            UserError: the image has fewer tokens than there are groups.
        """
        if memory.tokens.shape[1] < self.num_groups:
            raise UserError(
                f"num_groups={self.num_groups} groups cannot be chosen from "
                f"{memory.tokens.shape[1]} encoder tokens; use larger images or fewer groups."
            )
        center_logits, valid = make_proposals(memory)
        tokens = memory.tokens.masked_fill(~valid[..., None], 0.0)
        tokens = self.memory_norm(self.memory_projection(tokens))
        logits = self.class_head(tokens)
        chosen = logits.amax(-1).topk(self.num_groups, dim=1).indices[..., None]
        tokens = tokens.take_along_dim(chosen, dim=1)
        center_logits = center_logits.take_along_dim(chosen, dim=1)
        offsets = self.keypoint_head(tokens).unflatten(-1, (self.num_keypoints, 2))
        keypoints = (center_logits[:, :, None] + offsets).sigmoid()
        keypoint_queries = self.keypoint_embedding.weight + tokens.detach()[:, :, None]
        return GroupQueries(
            instance_queries=instance_query[:, None].expand(-1, self.num_groups, -1),
            keypoint_queries=keypoint_queries,
            references=keypoints.detach(),
            proposal_logits=logits.take_along_dim(chosen, dim=1),
            proposal_keypoints=keypoints,
        )


def make_proposals(memory: EncoderMemory) -> tuple[Tensor, Tensor]:
    """One box proposal per token, as in two-stage Deformable DETR.

    Returns:
        [B, S, 2] logits of the centre (x, y), infinite where the proposal does not count, and
        [B, S] bool, True where it counts: outside the padding, and centre and size (0.05 · 2^level)
        within (0.01, 0.99).
    """
    centers, sizes = [], []
    for level, (height, width) in enumerate(memory.layout.shapes):
        center = pixel_centers(height, width, memory.layout.valid_ratios[:, level])
        centers.append(center)
        sizes.append(torch.full_like(center, 0.05 * 2**level))
    center = torch.cat(centers, dim=1)
    proposal = torch.cat([center, torch.cat(sizes, dim=1)], dim=-1)
    valid = ((proposal > 0.01) & (proposal < 0.99)).all(-1) & ~memory.layout.padding_mask
    logits = torch.log(center / (1 - center)).masked_fill(~valid[..., None], float("inf"))
    return logits, valid
