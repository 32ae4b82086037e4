"""Image → feature maps C2…C5 with their padding masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.uniphd.swin_transformer import SWIN_VARIANTS, build_swin, read_imagenet_weights
from util.nested_tensor import NestedTensor

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """A hierarchical network with four outputs at 1/4, 1/8, 1/16 and 1/32.

    Args:
        body: maps [B, 3, H, W] to four maps [B, C_i, h_i, w_i].
        num_channels: (C_2, C_3, C_4, C_5).
    """

    def __init__(self, body: nn.Module, num_channels: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.num_channels = tuple(num_channels)

    def forward(self, samples: NestedTensor) -> list[NestedTensor]:
        """C2…C5 of a padded batch; masks are resized by nearest neighbour."""
        return [
            NestedTensor(features, resize_mask(samples.mask, features.shape[-2:]))
            for features in self.body(samples.tensors)
        ]


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Padding mask [B, H, W] bool at another (height, width), by nearest neighbour."""
    return F.interpolate(mask[None].float(), size=tuple(size))[0].bool()


class TimmBody(nn.Module):
    """Any hierarchical `timm` network, its outputs in channels-first layout.

    Args:
        name: a `timm` model name; its last four outputs must have strides 4, 8, 16 and 32.

    Raises:
        ValueError: unknown name, or a network without those outputs.
    """

    def __init__(self, name: str, drop_path_rate: float) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
            raise ValueError(
                f"Unknown backbone {name!r}: expected one of {', '.join(SWIN_VARIANTS)}, or a "
                f"timm model name" + (f" (similar: {', '.join(close)})." if close else ".")
            )
        try:
            self.network = timm.create_model(
                name,
                pretrained=False,
                features_only=True,
                out_indices=(-4, -3, -2, -1),
                drop_path_rate=drop_path_rate,
            )
        except (RuntimeError, IndexError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"The timm model {name!r} does not offer feature maps ({error}); choose a "
                "hierarchical one such as 'resnet50' or 'convnext_tiny'."
            ) from error
        strides = tuple(self.network.feature_info.reduction())
        if strides != STRIDES:
            raise ValueError(
                f"Backbone {name!r} has outputs at strides {strides}; expected {STRIDES}: choose "
                "a hierarchical network such as 'resnet50' or 'convnext_tiny'."
            )
        self.num_features = self.network.feature_info.channels()
        self.channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.network(images)
        if self.channels_last:
            outputs = [output.permute(0, 3, 1, 2).contiguous() for output in outputs]
        return outputs


def build_backbone(
    name: str,
    options: Mapping[str, object],
    pretrained: str | None,
    drop_path: float,
    use_checkpointing: bool,
) -> Backbone:
    """A backbone by name: one of the published Swins, or any hierarchical `timm` network.

    Args:
        name: `swin_T_224_1k` and its larger relatives, or a `timm` model name.
        options: settings of the Swin that differ from the named one.
        pretrained: path of the ImageNet weights (for a Swin the Swin authors' file, otherwise a
            `timm` state dict), or None.
        drop_path: stochastic depth.
        use_checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: unknown name or option, or weights that do not fit.
        FileNotFoundError: no file at `pretrained`.
    """
    if name in SWIN_VARIANTS:
        body = build_swin(
            name, **options, drop_path_rate=drop_path, use_checkpointing=use_checkpointing
        )
    else:
        body = TimmBody(name, drop_path)
        if options:
            raise ValueError(
                f"backbone_options {dict(options)} apply to Swin only, not to {name!r}; remove "
                "them or choose a Swin."
            )
        if use_checkpointing:
            body.network.set_grad_checkpointing()
    if pretrained is not None:
        load_pretrained(body, pretrained)
    return Backbone(body, body.num_features)


def load_pretrained(body: nn.Module, path: str) -> None:
    """Fill a backbone with ImageNet weights from a file (see `build_backbone`)."""
    from util.checkpoint import read_file

    checkpoint = read_file(path)
    if isinstance(body, TimmBody):
        state = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
        result = body.network.load_state_dict(state, strict=False)
        if result.missing_keys:
            raise ValueError(
                f"{path}: not the weights of this backbone; {len(result.missing_keys)} entries "
                f"are missing, among them {result.missing_keys[:5]}."
            )
        return
    try:
        body.load_state_dict(read_imagenet_weights(checkpoint, body), strict=False)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class InputProjection(nn.Module):
    """C3…C5 and a fourth, coarser level made of C5, all brought to one width.

    Args:
        in_channels: channels of C3, C4 and C5.
        hidden_dim: common width D.

    Raises:
        ValueError: `hidden_dim` is not a multiple of 32, the number of normalisation groups.
    """

    def __init__(self, in_channels: Sequence[int], hidden_dim: int) -> None:
        super().__init__()
        if hidden_dim % 32:
            raise ValueError(f"hidden_dim must be a multiple of 32; got {hidden_dim}.")
        convolutions = [nn.Conv2d(channels, hidden_dim, 1) for channels in in_channels]
        convolutions.append(nn.Conv2d(in_channels[-1], hidden_dim, 3, stride=2, padding=1))
        self.levels = nn.ModuleList(
            nn.Sequential(convolution, nn.GroupNorm(32, hidden_dim)) for convolution in convolutions
        )
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, features: Sequence[NestedTensor], mask: Tensor) -> list[NestedTensor]:
        """Project.

        Args:
            features: C3, C4, C5.
            mask: [B, H, W] padding mask of the batch, for the fourth level.

        Returns:
            Four levels with [B, D, h, w] features.
        """
        levels = [
            NestedTensor(project(level.tensors), level.mask)
            for project, level in zip(self.levels, features, strict=False)
        ]
        coarse = self.levels[-1](features[-1].tensors)
        return [*levels, NestedTensor(coarse, resize_mask(mask, coarse.shape[-2:]))]


def valid_ratios(mask: Tensor) -> Tensor:
    """[B, 2] share (width, height) of a padded map [B, H, W] that is not padding."""
    height = (~mask[:, :, 0]).sum(1) / mask.shape[1]
    width = (~mask[:, 0, :]).sum(1) / mask.shape[2]
    return torch.stack([width, height], dim=-1)
