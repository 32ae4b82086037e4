"""Image → feature maps C2…C5 with their padding masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import timm
from torch import Tensor, nn

from models.backbones.swin import SWIN_VARIANTS, build_swin, read_imagenet_weights
from models.layers.padding import resize_mask
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


class TimmBody(nn.Module):
    """Any hierarchical `timm` network, its outputs in channels-first layout.

    Args:
        name: a `timm` model name; its last four outputs must have strides 4, 8, 16 and 32.

    Raises:
        ValueError: unknown name, or a network without those outputs.
    """

    def __init__(
        self, name: str, drop_path_rate: float, out_stages: Sequence[int] = (0, 1, 2, 3)
    ) -> None:
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
                out_indices=tuple(stage - 4 for stage in out_stages),
                drop_path_rate=drop_path_rate,
            )
        except (RuntimeError, IndexError, AttributeError, AssertionError) as error:
            raise ValueError(
                f"The timm model {name!r} does not offer feature maps ({error}); choose a "
                "hierarchical one such as 'resnet50' or 'convnext_tiny'."
            ) from error
        strides = tuple(self.network.feature_info.reduction())
        expected = tuple(STRIDES[stage] for stage in out_stages)
        if strides != expected:
            raise ValueError(
                f"Backbone {name!r} has outputs at strides {strides}; expected {expected}: choose "
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
    out_stages: Sequence[int] = (0, 1, 2, 3),
) -> Backbone:
    """A backbone by name: one of the published Swins, or any hierarchical `timm` network.

    Args:
        name: `swin_T_224_1k` and its larger relatives, or a `timm` model name.
        options: settings of the Swin that differ from the named one.
        pretrained: path of the ImageNet weights (for a Swin the Swin authors' file, otherwise a
            `timm` state dict), or None.
        drop_path: stochastic depth.
        use_checkpointing: recompute activations in the backward pass.
        out_stages: which of C2…C5 (0 to 3) are returned.

    Raises:
        ValueError: unknown name or option, or weights that do not fit.
        FileNotFoundError: no file at `pretrained`.
    """
    if name in SWIN_VARIANTS:
        body = build_swin(
            name,
            **options,
            drop_path_rate=drop_path,
            use_checkpointing=use_checkpointing,
            out_stages=out_stages,
        )
    else:
        body = TimmBody(name, drop_path, out_stages)
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
