"""From configuration to modules: the only place where models see settings."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `import models` alone costs nothing: models/uniphd/ops needs only PyTorch
    from torch import nn

    from util.config import Config

REPOSITORY = Path(__file__).resolve().parent.parent

# Where each model is put together: the value of setting `model` → a module with `build(cfg)`.
BUILDERS = {
    "uniphd": "models.uniphd.build",
    "grouppose": "models.grouppose.build",
}


def build_model(cfg: Config) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Model, criterion and postprocessor of a configuration (config/uniphd.py lists its keys).

    Only the libraries of the chosen model are imported.

    Raises:
        UserError: settings do not go together, or have values that the model cannot have.
        OSError: the text encoder or the backbone's file is not there.
    """
    cfg.check()
    return import_module(BUILDERS[cfg.model]).build(cfg)


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
