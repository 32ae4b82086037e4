"""Hierarchical networks of the `timm` library as backbones, whatever their own image size is."""

from __future__ import annotations

import re

import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath, freeze_batch_norm_2d
from torch import Tensor, nn

from models.backbones.swin import SWIN_VARIANTS
from models.backbones.weights import fill, read_weights
from util.errors import UserError

REMEDY = "Choose a hierarchical network such as 'resnet50', 'convnext_tiny' or a published Swin."
COARSEST_STRIDE = 32
# Heights and widths (pixels) that every network has to take before it is accepted: the smallest
# map, sides of odd and even multiples of 32, and a map larger than most attention windows.
PROBE_SIZES = ((32, 96), (160, 64), (288, 32))
# Buffers that follow from the image size: old files hold them, newer networks make them anew.
DERIVED = ("attn_mask", "relative_position_index", "relative_coords_table")


class TimmBody(nn.Module):
    """A `timm` network with its last outputs, in channels-first layout.

    Images are padded with zeros at the bottom and right to multiples of 32 and the maps are cropped
    again, because many networks (HRNet, DLA, VGG, DenseNet, …) need even sides all the way down.

    Accepted is what takes images of any size: networks whose outputs lie at strides 4, 8, 16 and
    32 and that pass a small trial forward when they are built (`PROBE_SIZES`, in eval mode on the
    network's device).  Networks made for one image size are asked to let go of it; those that
    cannot (absolute positions, windows that must fit exactly) are refused here, not later.

    Args:
        name: a `timm` model name, also with a tag (`resnet50.a1_in1k`).
        drop_path: stochastic depth; `has_stochastic_depth` says whether the network has any.
        freeze_norm: statistics and affine parameters of every BatchNorm are constants; without
            ImageNet weights it is the identity.
        use_checkpointing: recompute activations in the backward pass where `timm` can.
        first_level: 2 for the outputs C2…C5, 3 for C3…C5.

    Raises:
        UserError: unknown name, a network that cannot be used, or one that cannot do what
            `freeze_norm` or `use_checkpointing` ask for.
    """

    def __init__(
        self,
        name: str,
        drop_path: float,
        freeze_norm: bool,
        use_checkpointing: bool,
        first_level: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.strides = tuple(2**level for level in range(first_level, 6))
        self.network = _create(name, drop_path, self.strides)
        self.num_channels = tuple(self.network.feature_info.channels())
        self.channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        self.has_stochastic_depth = any(
            isinstance(module, DropPath) and module.drop_prob > 0 for module in self.modules()
        )
        if freeze_norm:
            self.network = freeze_batch_norm_2d(self.network)
            _check_frozen(name, self.network)
        self._probe()
        if use_checkpointing:
            _checkpoint_activations(name, self.network)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → maps [B, C_i, ceil(H / s_i), ceil(W / s_i)]."""
        height, width = images.shape[-2:]
        padding = (0, -width % COARSEST_STRIDE, 0, -height % COARSEST_STRIDE)
        return [
            output[:, :, : -(-height // stride), : -(-width // stride)].contiguous()
            for output, stride in zip(self._maps(F.pad(images, padding)), self.strides, strict=True)
        ]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The network's own maps [B, C_i, h_i, w_i] of images with sides of multiples of 32."""
        outputs = self.network(images)
        if self.channels_last:
            outputs = [output.permute(0, 3, 1, 2) for output in outputs]
        return outputs

    def load_imagenet_weights(self, path: str) -> None:
        """Fill the network from the `timm` file of the whole network.

        What only the whole network has (classifier, final norm, …) is dropped; names that it does
        not have either are refused.

        Raises:
            FileNotFoundError: no file at `path`.
            UserError: the weights of another network.
        """
        own = self.network.state_dict()
        with torch.device("meta"):  # its names are all that is needed
            whole = timm.create_model(self.name, pretrained=False).state_dict()
        state = {}
        for name, value in read_weights(path).items():
            # `timm` wraps a network, or joins its first two names, to get at the maps.
            variants = (name, f"model.{name}", f"body.{name}", name.replace(".", "_", 1))
            inner = next((variant for variant in variants if variant in own), None)
            if inner is not None or name not in whole:
                state[inner or name] = value
        fill(self.network, state, path, is_derived=lambda name: name.endswith(DERIVED))

    def _probe(self) -> None:
        """Try small images in eval mode.

        Raises:
            UserError: the network fails, or its maps are not where its strides say.
        """
        device = next(self.parameters()).device
        self.eval()
        for height, width in PROBE_SIZES:
            try:
                with torch.no_grad():
                    outputs = self._maps(torch.zeros(1, 3, height, width, device=device))
            except Exception as error:  # whatever a network raises, it cannot take this size
                raise UserError(
                    f"Backbone {self.name!r} cannot take images of every size: {height} x {width} "
                    f"pixels end in {type(error).__name__} ({error}). {REMEDY}"
                ) from error
            got = [tuple(output.shape[1:]) for output in outputs]
            expected = [
                (channels, height // stride, width // stride)
                for channels, stride in zip(self.num_channels, self.strides, strict=True)
            ]
            if got != expected:
                raise UserError(
                    f"Backbone {self.name!r} makes maps of (channels, height, width) {got} of "
                    f"an image of {height} x {width} pixels; expected {expected}. {REMEDY}"
                )
        self.train()


def _create(name: str, drop_path: float, strides: tuple[int, ...]) -> nn.Module:
    """A random `timm` network with maps at these strides, not bound to an image size if it can.

    Raises:
        UserError: unknown name, or a network without such maps.
    """
    if not timm.is_model(name):
        close = timm.list_models(f"*{re.split('[_.]', name)[0]}*")[:5]
        raise UserError(
            f"Unknown backbone {name!r}: expected one of {', '.join(SWIN_VARIANTS)}, or a timm "
            "model name" + (f" (similar: {', '.join(close)})." if close else ".")
        )
    # Every network has arguments of its own. Those that it does not know are named in a TypeError,
    # before anything is built.
    wishes = dict(
        drop_path_rate=drop_path,
        strict_img_size=False,  # Swin V1, V2: masks of the windows for the size at hand
        always_partition=True,  # and windows shift where one window was enough for its own size
    )
    while True:
        try:
            network = timm.create_model(
                name,
                pretrained=False,
                features_only=True,
                out_indices=tuple(range(-len(strides), 0)),
                **wishes,
            )
            break
        except Exception as error:  # networks without maps fail in as many ways as there are
            unknown = [wish for wish in wishes if f"'{wish}'" in str(error)]
            if unknown and isinstance(error, TypeError):
                for wish in unknown:
                    del wishes[wish]
                continue
            raise UserError(
                f"The timm model {name!r} does not offer feature maps ({type(error).__name__}: "
                f"{error}). {REMEDY}"
            ) from error
    got = tuple(network.feature_info.reduction())
    if got != strides:
        raise UserError(
            f"Backbone {name!r} has maps at strides {got}; expected {strides}. {REMEDY}"
        )
    return network


def _check_frozen(name: str, network: nn.Module) -> None:
    """Refuse a norm that still moves with the batch, such as BatchNorm1d or EvoNorm-B."""
    frozen = {
        id(buffer)
        for module in network.modules()
        if type(module).__name__.startswith("FrozenBatchNorm")
        for buffer in module.buffers(recurse=False)
    }
    moving = [
        buffer_name
        for buffer_name, buffer in network.named_buffers()
        if buffer_name.endswith(("running_mean", "running_var")) and id(buffer) not in frozen
    ]
    if moving:
        raise UserError(
            f"Backbone {name!r} has statistics that cannot be frozen ({', '.join(moving[:3])}); "
            "set backbone_freeze_norm=False, or choose another backbone."
        )


def _checkpoint_activations(name: str, network: nn.Module) -> None:
    """Switch activation checkpointing on.

    Raises:
        UserError: the network has none.
    """
    # A network that is wrapped whole switches inside, a rewritten one has the switch itself.
    inner = getattr(network, "model", None) or getattr(network, "body", None) or network
    # VGG is rewritten layer by layer: a layer alone keeps its input, so nothing would be saved.
    has_stages = any(list(stage.children()) for stage in inner.children())
    try:
        inner.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        has_stages = False
    if not has_stages:
        raise UserError(
            f"Backbone {name!r} cannot recompute its activations; set "
            "backbone_checkpointing=False, or choose another backbone."
        )
