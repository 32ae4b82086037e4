"""torch.compile, layer by layer."""

from __future__ import annotations

import torch
from torch import nn

from models.backbones.swin import SwinBlock, SwinTransformer
from models.layers.encoder import DeformableEncoderLayer
from models.layers.group_decoder import GroupDecoderLayer
from models.uniphd.decoders.edpose import BoxDecoderLayer
from models.uniphd.mask_head import DynamicMaskHead

# Layers of one form share their graphs; other backbones than Swin are compiled as a whole.
PARTS = (SwinBlock, DeformableEncoderLayer, GroupDecoderLayer, BoxDecoderLayer, DynamicMaskHead)

# Graphs of one form of layer: by width, shift, size of the images, training and evaluation.
_MOST_GRAPHS = 64


def compile_layers(model: nn.Module, mode: str, static_shapes: bool = False) -> None:
    """Have a model's layers compiled when they first run; in place, so that names stay.

    Layer by layer takes seconds to compile where the whole takes minutes, and leaves out what
    differs from prompt to prompt.

    Args:
        model: with a `backbone.body`.
        mode: of `torch.compile`: "default", "reduce-overhead" (CUDA graphs; without effect on the
            CPU) or "max-autotune".
        static_shapes: compile anew for every size of the images, rather than once for all sizes
            from the second size on.
    """
    torch._dynamo.config.recompile_limit = _MOST_GRAPHS
    parts = [module for module in model.modules() if isinstance(module, PARTS)]
    if not isinstance(model.backbone.body, SwinTransformer):
        parts.append(model.backbone.body)
    for part in parts:
        part.compile(mode=mode, dynamic=False if static_shapes else None)
