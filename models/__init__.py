"""From configuration to modules: the only place where models see settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from util.errors import UserError

if TYPE_CHECKING:  # `import models` alone costs nothing: models/uniphd/ops needs only PyTorch
    from torch import Tensor, nn

    from util.config import Config

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parent.parent

# The models by the value of setting `model`: a package with the modules `build`, which has
# `build(cfg)`, and `published_names`.
MODELS = {
    "uniphd": "models.uniphd",
    "grouppose": "models.grouppose",
}

# Names of parameters that begin so are of pretrained parts, where a model has them.
BACKBONE = "backbone."
TEXT_ENCODER = "prompt_encoder.text_backbone."


def build_model(
    cfg: Config, weights: Mapping[str, Tensor] | None = None, ignore: Sequence[str] = ()
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Model, criterion and postprocessor of a configuration (config/uniphd.py lists its keys).

    Only the libraries of the chosen model are imported.

    Args:
        cfg: the settings.
        weights: of a checkpoint, by our names; parts that they fill need no ImageNet or RoBERTa
            file.
        ignore: parts of names of weights to leave out.

    Raises:
        UserError: settings do not go together, have values that the model cannot have, or the
            weights do not fit.
        OSError: the text encoder or the backbone's file is not there.
    """
    cfg.check()
    if cfg.model not in MODELS:
        raise UserError(f"Unknown model '{cfg.model}'; expected one of {', '.join(MODELS)}.")
    build = import_module(f"{MODELS[cfg.model]}.build").build
    if weights is None:
        built = build(cfg)
        if cfg.backbone_pretrained is None and _is_frozen_in_part(built[0].backbone):
            logger.warning(
                "The backbone %s starts from random weights, and a part of it is never trained: "
                "give its ImageNet weights (--swin_pretrain_path FILE; 'imagenet' fetches those of "
                "torchvision's ResNets).",
                cfg.backbone,
            )
        return built
    from util.checkpoint import load_weights

    left_out = [name for name in weights if any(part in name for part in ignore)]
    cfg = cfg.deepcopy()
    if not any(name.startswith(BACKBONE) for name in left_out):
        cfg.backbone_pretrained = None
    if not any(name.startswith(TEXT_ENCODER) for name in left_out):
        cfg.text_encoder_pretrained = False
    model, criterion, postprocessor = build(cfg)
    load_weights(model, weights, ignore)
    return model, criterion, postprocessor


def _is_frozen_in_part(module: nn.Module) -> bool:
    return any(not parameter.requires_grad for parameter in module.parameters())


def build_parameter_groups(model: nn.Module, cfg: Config) -> list[dict]:
    """AdamW parameter groups of the recipe (Appendix A.2).

    Everything trains at `lr`, except the backbone, RoBERTa and the decoder's adjacency, which have
    rates of their own. Frozen parameters are left out.

    Returns:
        One dict per group: `name`, `params`, `lr`.
    """
    rates = {
        BACKBONE: ("backbone", cfg.lr_backbone),
        TEXT_ENCODER: ("text_encoder", cfg.lr_text_encoder),
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
