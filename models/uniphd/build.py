"""UniPHD from its configuration."""

from __future__ import annotations

from pathlib import Path

from datasets.skeleton import Skeleton, get_skeleton
from models.grouppose.decoder import GroupPoseDecoderLayer
from models.layers.group_decoder import GroupDecoder
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
from models.uniphd.decoder import PoseCentricDecoderLayer
from models.uniphd.decoders.edpose import BoxDecoderLayer, EDPoseDecoder, OwnPredictions
from models.uniphd.decoders.human_queries import HumanQueryInitializer
from models.uniphd.fusion import PromptFusion
from models.uniphd.heads import PredictionHeads
from models.uniphd.mask_head import DynamicMaskHead
from models.uniphd.matcher import COSTS
from models.uniphd.postprocess import PostProcess
from models.uniphd.prompt_encoder import PromptEncoder
from models.uniphd.query_init import LearnedQueries, QueryInitializer
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
    # Only masks need C2.  Without, its norm would be a parameter without gradient.
    backbone = backbone_of(cfg, first_level=2 if cfg.mask_head else 3)
    *fine_channels, channels_c4, _ = backbone.num_channels
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
            instance_query=cfg.query_init == "prompt",
        ),
        input_projection=InputProjection(backbone.num_channels[-3:], cfg.hidden_dim),
        fusion=PromptFusion(cfg.hidden_dim, cfg.num_heads),
        encoder=encoder_of(cfg),
        query_init=build_query_init(cfg, skeleton),
        decoder=build_decoder(cfg, skeleton),
        heads=(
            OwnPredictions()
            if cfg.decoder == "edpose"
            else PredictionHeads(cfg.decoder_layers, cfg.hidden_dim, cfg.pose_head)
        ),
        mask_head=DynamicMaskHead(cfg.hidden_dim, fine_channels) if cfg.mask_head else None,
        matcher=matcher_of(cfg, skeleton, COSTS),
        mask_head_checkpointing=cfg.mask_head_checkpointing,
    )
    criterion = criterion_of(cfg, skeleton, *predictions_of(cfg), has_masks=cfg.mask_head)
    return model, criterion, PostProcess(cfg.num_results or cfg.num_groups)


def build_query_init(
    cfg: Config, skeleton: Skeleton
) -> QueryInitializer | LearnedQueries | HumanQueryInitializer:
    """Where the queries of `decoder` begin, as `query_init` says."""
    if cfg.decoder == "edpose":
        return HumanQueryInitializer(cfg.hidden_dim, cfg.num_human_queries or cfg.num_groups)
    kind = QueryInitializer if cfg.query_init == "prompt" else LearnedQueries
    return kind(
        embed_dim=cfg.hidden_dim,
        num_keypoints=skeleton.num_keypoints,
        num_groups=cfg.num_groups,
    )


def build_decoder(cfg: Config, skeleton: Skeleton) -> GroupDecoder | EDPoseDecoder:
    """The decoder that `decoder` names."""
    settings = layer_settings(cfg, cfg.decoder_points)
    if cfg.decoder == "edpose":
        return EDPoseDecoder(
            (
                BoxDecoderLayer(**settings, has_keypoints=number >= cfg.human_layers)
                for number in range(cfg.decoder_layers)
            ),
            embed_dim=cfg.hidden_dim,
            num_keypoints=skeleton.num_keypoints,
            num_groups=cfg.num_groups,
            use_checkpointing=cfg.decoder_checkpointing,
        )
    settings["pose_head"] = cfg.pose_head
    if cfg.decoder == "grouppose":
        layers = (GroupPoseDecoderLayer(**settings) for _ in range(cfg.decoder_layers))
    else:
        layers = (
            PoseCentricDecoderLayer(
                **settings, num_keypoints=skeleton.num_keypoints, within_type=cfg.within_type
            )
            for _ in range(cfg.decoder_layers)
        )
    return decoder_of(cfg, layers)


def predictions_of(cfg: Config) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """What each decoder layer predicts, and what the encoder's proposals do: names of outputs."""
    people = ("pred_logits", "pred_boxes")
    poses = (*people, "pred_keypoints", "pred_keypoints_visi")
    if cfg.decoder == "edpose":
        layers = [people] * cfg.human_layers + [poses] * (cfg.decoder_layers - cfg.human_layers)
        return layers, people
    layers = [poses if cfg.pose_head else people] * cfg.decoder_layers
    return layers, ("pred_logits", "pred_keypoints") if cfg.query_init == "prompt" else ()


def resolve_text_encoder(name: str) -> str:
    """A folder relative to the working directory or to the repository, or a Hugging Face name."""
    if not Path(name).is_dir() and (REPOSITORY / name).is_dir():
        return str(REPOSITORY / name)
    return name
