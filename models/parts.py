"""Parts that several models build from the same settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from datasets.skeleton import Skeleton
from models.backbones.backbone import Backbone
from models.backbones.build import build_backbone
from models.layers.encoder import DeformableEncoder, DeformableEncoderLayer
from models.layers.group_decoder import GroupDecoder, GroupDecoderLayer
from models.uniphd.criterion import MASK_LOSSES, Criterion, losses_of
from models.uniphd.matcher import GroupMatcher
from util.config import Config

NUM_LEVELS = 4  # C3, C4, C5 and one coarser level


def backbone_of(cfg: Config, first_level: int) -> Backbone:
    """The image backbone with outputs C2…C5 (`first_level` 2) or C3…C5 (3)."""
    return build_backbone(
        name=cfg.backbone,
        options=dict(cfg.backbone_options or {}),
        pretrained=cfg.backbone_pretrained,
        drop_path=cfg.backbone_drop_path,
        use_checkpointing=cfg.backbone_checkpointing,
        freeze_norm=cfg.backbone_freeze_norm,
        first_level=first_level,
    )


def layer_settings(cfg: Config, num_points: int) -> dict[str, Any]:
    """Keyword arguments that all layers with deformable attention take."""
    return dict(
        embed_dim=cfg.hidden_dim,
        num_heads=cfg.num_heads,
        num_levels=NUM_LEVELS,
        num_points=num_points,
        feedforward_dim=cfg.feedforward_dim,
        dropout=cfg.dropout,
    )


def encoder_of(cfg: Config) -> DeformableEncoder:
    """The deformable encoder."""
    settings = layer_settings(cfg, cfg.encoder_points)
    return DeformableEncoder(
        (DeformableEncoderLayer(**settings) for _ in range(cfg.encoder_layers)),
        embed_dim=cfg.hidden_dim,
        num_levels=NUM_LEVELS,
        use_checkpointing=cfg.encoder_checkpointing,
    )


def decoder_of(cfg: Config, layers: Iterable[GroupDecoderLayer]) -> GroupDecoder:
    """The decoder with these layers."""
    return GroupDecoder(
        layers, embed_dim=cfg.hidden_dim, use_checkpointing=cfg.decoder_checkpointing
    )


def matcher_of(cfg: Config, skeleton: Skeleton, costs: Sequence[str]) -> GroupMatcher:
    """The matcher with the named costs of `match_costs`."""
    return GroupMatcher(
        costs={name: cfg.match_costs[name] for name in costs},
        sigmas=skeleton.sigmas,
        focal_alpha=cfg.focal_alpha,
        focal_gamma=cfg.focal_gamma,
    )


def criterion_of(
    cfg: Config,
    skeleton: Skeleton,
    decoder_layers: Sequence[Collection[str]],
    proposals: Collection[str],
    has_masks: bool = False,
) -> Criterion:
    """The criterion for what the layers predict, with its part of `loss_weights`."""
    losses = losses_of([*decoder_layers, proposals])
    losses += MASK_LOSSES if has_masks else ()
    return Criterion(
        loss_weights={name: cfg.loss_weights[name] for name in losses},
        decoder_layers=decoder_layers,
        proposals=proposals,
        sigmas=skeleton.sigmas,
        focal_alpha=cfg.focal_alpha,
        focal_gamma=cfg.focal_gamma,
    )
