"""Group Pose from its configuration."""

from __future__ import annotations

from datasets.skeleton import get_skeleton
from models.grouppose.decoder import GroupPoseDecoderLayer
from models.grouppose.grouppose import GroupPose
from models.layers.input_projection import InputProjection
from models.parts import (
    backbone_of,
    criterion_of,
    decoder_of,
    encoder_of,
    layer_settings,
    matcher_of,
)
from models.uniphd.criterion import Criterion
from models.uniphd.postprocess import PostProcess
from models.uniphd.query_init import QueryInitializer
from util.config import Config

COSTS = ("ce", "keypoints", "oks")

# What every layer and the encoder's proposals predict.
PREDICTIONS = ("pred_logits", "pred_keypoints")


def build(cfg: Config) -> tuple[GroupPose, Criterion, PostProcess]:
    """Model, criterion and postprocessor (config/grouppose.py lists what differs from UniPHD).

    Raises:
        UserError: a setting has a value that the model cannot have.
        MissingFileError: the backbone's file is not there.
    """
    skeleton = get_skeleton(cfg.skeleton)
    backbone = backbone_of(cfg, first_level=3)
    settings = layer_settings(cfg, cfg.decoder_points)
    model = GroupPose(
        backbone=backbone,
        input_projection=InputProjection(backbone.num_channels, cfg.hidden_dim),
        encoder=encoder_of(cfg),
        query_init=QueryInitializer(
            embed_dim=cfg.hidden_dim,
            num_keypoints=skeleton.num_keypoints,
            num_groups=cfg.num_groups,
        ),
        decoder=decoder_of(
            cfg, (GroupPoseDecoderLayer(**settings) for _ in range(cfg.decoder_layers))
        ),
        matcher=matcher_of(cfg, skeleton, COSTS),
        num_decoder_layers=cfg.decoder_layers,
        embed_dim=cfg.hidden_dim,
    )
    criterion = criterion_of(cfg, skeleton, [PREDICTIONS] * cfg.decoder_layers, PREDICTIONS)
    results = cfg.num_results or cfg.num_groups
    return model, criterion, PostProcess(results, labels_by_class=True)
