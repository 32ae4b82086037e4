"""A backbone by its name; `timm` and torchvision's networks are imported where one is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from models.backbones.backbone import Backbone
from models.backbones.swin import SWIN_VARIANTS, build_swin
from util.errors import UserError

logger = logging.getLogger(__name__)

# Names that both libraries have and that mean torchvision's network, as in published checkpoints;
# timm's own is to be had by its tag, e.g. "resnet50.a1_in1k".
TORCHVISION_RESNETS = ("resnet50", "resnet101")


def build_backbone(
    *,
    name: str,
    options: Mapping[str, object],
    pretrained: str | None,
    drop_path: float,
    use_checkpointing: bool,
    freeze_norm: bool,
    first_level: int = 2,
) -> Backbone:
    """A backbone by name.

    Args:
        name: a published Swin (`swin_T_224_1k` and its larger relatives), `resnet50` or
            `resnet101` (torchvision's, trained as in DETR), or any other hierarchical network of
            `timm`.
        options: settings of a Swin that differ from the named one; empty for the others.
        pretrained: ImageNet weights, or None. For a Swin the Swin authors' file, or a folder that
            holds it under its own name; for a ResNet torchvision's file, or "imagenet" to fetch
            it; otherwise `timm`'s.
        drop_path: stochastic depth; it is logged where the network has none.
        use_checkpointing: recompute activations in the backward pass.
        freeze_norm: BatchNorm is constant (statistics and affine parameters), as in DETR: what it
            computes depends neither on the batch nor on the number of processes. Without ImageNet
            weights it is the identity, so that training from scratch wants it False. Swin has no
            BatchNorm.
        first_level: 2 for the outputs C2…C5, 3 for C3…C5 (as in Group Pose).

    Raises:
        UserError: an unknown name or option, a network that cannot be used, weights that do not
            fit, or settings that exclude each other.
        FileNotFoundError: no file at `pretrained`.
    """
    if name in SWIN_VARIANTS:
        body = build_swin(name, options, drop_path, use_checkpointing, first_level)
    elif name in TORCHVISION_RESNETS:
        from models.backbones.resnet import ResNetBody

        body = ResNetBody(name, freeze_norm, use_checkpointing, first_level)
    else:
        from models.backbones.timm_body import TimmBody

        body = TimmBody(name, drop_path, freeze_norm, use_checkpointing, first_level)
    if options and name not in SWIN_VARIANTS:
        raise UserError(
            f"backbone_options {dict(options)} apply to Swin only, not to {name!r}. "
            "They belong to the backbone that the configuration file names: drop them with "
            f"--options backbone_options=None, or choose one of {', '.join(SWIN_VARIANTS)}."
        )
    if use_checkpointing and any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in body.modules()
    ):
        raise UserError(
            f"backbone_checkpointing=True would move the BatchNorm statistics of {name!r} twice a "
            "step: set backbone_freeze_norm=True or backbone_checkpointing=False."
        )
    if drop_path > 0 and not body.has_stochastic_depth:
        logger.info(
            "backbone_drop_path=%s has no effect: the backbone %s has no stochastic depth.",
            drop_path,
            name,
        )
    if pretrained is not None:
        body.load_imagenet_weights(pretrained)
    return Backbone(body)
