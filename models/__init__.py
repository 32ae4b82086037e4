"""From configuration to modules: the only place where models see settings."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from datasets.skeleton import SKELETONS, Skeleton
from models.backbones.backbone import build_backbone
from models.layers.encoder import DeformableEncoder
from models.layers.input_projection import InputProjection
from models.uniphd.criterion import Criterion
from models.uniphd.decoder import PoseCentricDecoder
from models.uniphd.fusion import PromptFusion
from models.uniphd.heads import PredictionHeads
from models.uniphd.mask_head import DynamicMaskHead
from models.uniphd.matcher import GroupMatcher
from models.uniphd.postprocess import PostProcess
from models.uniphd.prompt_encoder import PromptEncoder
from models.uniphd.query_init import QueryInitializer
from models.uniphd.uniphd import UniPHD
from util.config import Config

NUM_LEVELS = 4  # C3, C4, C5 and one coarser level
REPOSITORY = Path(__file__).resolve().parent.parent


def build_model(cfg: Config) -> tuple[UniPHD, Criterion, PostProcess]:
    """Model, criterion and postprocessor of a configuration (config/uniphd.py lists its keys).

    Raises:
        ConfigError: settings do not go together.
        ValueError: a setting has a value that the model cannot have.
        OSError: the text encoder or the backbone's file is not there.
    """
    cfg.check()
    if cfg.model != "uniphd":
        raise ValueError(f"model must be 'uniphd'; got {cfg.model!r}.")
    skeleton = get_skeleton(cfg.skeleton)
    backbone = build_backbone(
        name=cfg.backbone,
        options=dict(cfg.backbone_options),
        pretrained=cfg.backbone_pretrained,
        drop_path=cfg.backbone_drop_path,
        use_checkpointing=cfg.backbone_checkpointing,
    )
    channels_c2, channels_c3, channels_c4, _ = backbone.num_channels
    matcher = GroupMatcher(
        costs=cfg.match_costs,
        sigmas=skeleton.sigmas,
        focal_alpha=cfg.focal_alpha,
        focal_gamma=cfg.focal_gamma,
    )
    model = UniPHD(
        backbone=backbone,
        prompt_encoder=PromptEncoder(
            text_encoder=resolve_text_encoder(cfg.text_encoder),
            pretrained=cfg.text_encoder_pretrained,
            freeze=cfg.freeze_text_encoder,
            visual_dim=channels_c4,
            hidden_dim=cfg.hidden_dim,
            dropout=cfg.prompt_dropout,
        ),
        input_projection=InputProjection(backbone.num_channels[1:], cfg.hidden_dim),
        fusion=PromptFusion(cfg.hidden_dim, cfg.num_heads),
        encoder=DeformableEncoder(
            num_layers=cfg.encoder_layers,
            embed_dim=cfg.hidden_dim,
            num_heads=cfg.num_heads,
            num_levels=NUM_LEVELS,
            num_points=cfg.encoder_points,
            feedforward_dim=cfg.feedforward_dim,
            dropout=cfg.dropout,
            use_checkpointing=cfg.encoder_checkpointing,
        ),
        query_init=QueryInitializer(
            embed_dim=cfg.hidden_dim,
            num_keypoints=skeleton.num_keypoints,
            num_groups=cfg.num_groups,
        ),
        decoder=PoseCentricDecoder(
            num_layers=cfg.decoder_layers,
            embed_dim=cfg.hidden_dim,
            num_heads=cfg.num_heads,
            num_levels=NUM_LEVELS,
            num_points=cfg.decoder_points,
            feedforward_dim=cfg.feedforward_dim,
            num_keypoints=skeleton.num_keypoints,
            dropout=cfg.dropout,
            within_type=cfg.within_type,
        ),
        heads=PredictionHeads(cfg.decoder_layers, cfg.hidden_dim),
        mask_head=(
            DynamicMaskHead(cfg.hidden_dim, 16, (channels_c2, channels_c3))
            if cfg.mask_head
            else None
        ),
        matcher=matcher,
    )
    criterion = Criterion(
        matcher=matcher,
        loss_weights=cfg.loss_weights,
        num_decoder_layers=cfg.decoder_layers,
        with_masks=cfg.mask_head,
        sigmas=skeleton.sigmas,
        focal_alpha=cfg.focal_alpha,
        focal_gamma=cfg.focal_gamma,
    )
    return model, criterion, PostProcess(num_results=cfg.num_groups)


def build_parameter_groups(model: nn.Module, cfg: Config) -> list[dict]:
    """AdamW parameter groups of the recipe (Appendix A.2).

    Everything trains at `lr`, except the backbone, RoBERTa and the decoder's adjacency, which have
    rates of their own. Frozen parameters are left out.

    Returns:
        One dict per group: `name`, `params`, `lr`.
    """
    rates = {
        "backbone.": ("backbone", cfg.lr_backbone),
        "prompt_encoder.text_backbone.": ("text_encoder", cfg.lr_text_encoder),
    }
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group, rate = next(
            (value for prefix, value in rates.items() if name.startswith(prefix)),
            ("adjacency", cfg.lr_adjacency) if name.endswith(".adjacency") else ("rest", cfg.lr),
        )
        groups.setdefault(group, {"name": group, "params": [], "lr": rate})
        groups[group]["params"].append(parameter)
    return list(groups.values())


def get_skeleton(name: str) -> Skeleton:
    """A keypoint definition by name.

    Raises:
        ValueError: unknown name.
    """
    if name not in SKELETONS:
        raise ValueError(f"Unknown skeleton {name!r}; expected one of {', '.join(SKELETONS)}.")
    return SKELETONS[name]


def resolve_text_encoder(name: str) -> str:
    """A folder relative to the working directory or to the repository, or a Hugging Face name."""
    if not Path(name).is_dir() and (REPOSITORY / name).is_dir():
        return str(REPOSITORY / name)
    return name
