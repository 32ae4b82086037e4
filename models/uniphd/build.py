"""UniPHD from its configuration."""

from __future__ import annotations

from pathlib import Path

from datasets.skeleton import Skeleton, get_skeleton
from models.grouppose.decoder import GroupPoseDecoderLayer
from models.layers.group_decoder import GroupDecoderLayer
from models.layers.input_projection import InputProjection
from models.parts import (
    backbone_of,
    criterion_of,
    decoder_of,
    encoder_of,
    layer_settings,
    matcher_of,
)
from models.uniphd.criterion import DECODER_LOSSES, MASK_LOSSES, SHARED_LOSSES, Criterion
from models.uniphd.decoder import PoseCentricDecoderLayer
from models.uniphd.fusion import PromptFusion
from models.uniphd.heads import PredictionHeads
from models.uniphd.mask_head import DynamicMaskHead
from models.uniphd.matcher import COSTS
from models.uniphd.postprocess import PostProcess
from models.uniphd.prompt_encoder import PromptEncoder
from models.uniphd.query_init import QueryInitializer
from models.uniphd.uniphd import UniPHD
from util.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]


def build(cfg: Config) -> tuple[UniPHD, Criterion, PostProcess]:
    """Model, criterion and postprocessor (config/uniphd.py lists the settings).

    Raises:
        UserError: a setting has a value that the model cannot have.
        MissingFileError, OSError: the text encoder or the backbone's file is not there.
    """
    skeleton = get_skeleton(cfg.skeleton)
    backbone = backbone_of(cfg, first_level=2)
    channels_c2, channels_c3, channels_c4, _ = backbone.num_channels
    model = UniPHD(
        backbone=backbone,
        prompt_encoder=PromptEncoder(
            text_encoder=resolve_text_encoder(cfg.text_encoder),
            pretrained=cfg.text_encoder_pretrained,
            freeze=cfg.freeze_text_encoder,
            use_checkpointing=cfg.text_encoder_checkpointing,
            visual_dim=channels_c4,
            hidden_dim=cfg.hidden_dim,
            dropout=cfg.prompt_dropout,
        ),
        input_projection=InputProjection(backbone.num_channels[1:], cfg.hidden_dim),
        fusion=PromptFusion(cfg.hidden_dim, cfg.num_heads),
        encoder=encoder_of(cfg),
        query_init=QueryInitializer(
            embed_dim=cfg.hidden_dim,
            num_keypoints=skeleton.num_keypoints,
            num_groups=cfg.num_groups,
        ),
        decoder=decoder_of(
            cfg, (build_decoder_layer(cfg, skeleton) for _ in range(cfg.decoder_layers))
        ),
        heads=PredictionHeads(cfg.decoder_layers, cfg.hidden_dim),
        mask_head=(
            DynamicMaskHead(cfg.hidden_dim, (channels_c2, channels_c3)) if cfg.mask_head else None
        ),
        matcher=matcher_of(cfg, skeleton, COSTS),
        mask_head_checkpointing=cfg.mask_head_checkpointing,
    )
    losses = (*SHARED_LOSSES, *DECODER_LOSSES, *(MASK_LOSSES if cfg.mask_head else ()))
    criterion = criterion_of(cfg, skeleton, losses)
    return model, criterion, PostProcess(cfg.num_results or cfg.num_groups)


def build_decoder_layer(cfg: Config, skeleton: Skeleton) -> GroupDecoderLayer:
    """A layer of the decoder that `decoder` names."""
    settings = layer_settings(cfg, cfg.decoder_points)
    if cfg.decoder == "grouppose":
        return GroupPoseDecoderLayer(**settings)
    return PoseCentricDecoderLayer(
        **settings, num_keypoints=skeleton.num_keypoints, within_type=cfg.within_type
    )


def resolve_text_encoder(name: str) -> str:
    """A folder relative to the working directory or to the repository, or a Hugging Face name."""
    if not Path(name).is_dir() and (REPOSITORY / name).is_dir():
        return str(REPOSITORY / name)
    return name
