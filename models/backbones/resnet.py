"""torchvision's ResNet as a backbone, as DETR and Group Pose have it."""

from __future__ import annotations

import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d

from models.backbones.weights import fill, read_weights
from util.errors import UserError

# In place of a file: torchvision's own ImageNet weights.
DOWNLOAD = "imagenet"


class ResNetBody(nn.Module):
    """A ResNet without its classifier, with torchvision's parameter names.

    As in DETR the stem (`conv1`, `bn1`) and `layer1` are not trained, with ImageNet weights or
    without.  A frozen BatchNorm holds constants: its statistics and affine parameters are buffers;
    without ImageNet weights it is the identity.

    Args:
        name: torchvision's name of the network, e.g. "resnet50".
        freeze_norm: BatchNorm is constant; otherwise it trains in `layer2` to `layer4`, and its
            statistics move in all layers.
        use_checkpointing: recompute the blocks in the backward pass instead of keeping their
            activations.
        first_level: 2 for the outputs C2…C5, 3 for C3…C5.
    """

    has_stochastic_depth = False

    def __init__(
        self, name: str, freeze_norm: bool, use_checkpointing: bool, first_level: int
    ) -> None:
        super().__init__()
        self.name = name
        norm_layer = FrozenBatchNorm2d if freeze_norm else nn.BatchNorm2d
        network = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer)
        self.conv1 = network.conv1
        self.bn1 = network.bn1
        self.relu = network.relu
        self.maxpool = network.maxpool
        self.layer1 = network.layer1
        self.layer2 = network.layer2
        self.layer3 = network.layer3
        self.layer4 = network.layer4
        for module in (self.conv1, self.bn1, self.layer1):
            module.requires_grad_(False)
        self.use_checkpointing = use_checkpointing
        self.first_level = first_level
        widths = [network.fc.in_features // 2**i for i in (3, 2, 1, 0)]
        self.num_channels = tuple(widths[first_level - 2 :])

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → maps [B, C_i, ceil(H / s_i), ceil(W / s_i)], s = 4, 8, 16, 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                if self.use_checkpointing and self.training:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            outputs.append(x)
        return outputs[self.first_level - 2 :]

    def load_imagenet_weights(self, path: str) -> None:
        """Fill the network from torchvision's file; its classifier `fc` is dropped.

        Args:
            path: of the file, or "imagenet": torchvision fetches it, or finds it in its cache.

        Raises:
            FileNotFoundError: no file at `path`.
            UserError: the weights of another network, or they cannot be fetched.
        """
        state = self._fetch_weights() if path == DOWNLOAD else read_weights(path)
        fill(self, {n: v for n, v in state.items() if not n.startswith("fc.")}, path)

    def _fetch_weights(self) -> dict[str, Tensor]:
        """torchvision's weights, those that DETR and Group Pose start from."""
        weights = torchvision.models.get_model_weights(self.name).IMAGENET1K_V1
        try:
            return weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network, or a damaged file
            raise UserError(
                f"The ImageNet weights of {self.name} cannot be fetched from {weights.url} "
                f"({error}); download the file and name it with --swin_pretrain_path."
            ) from error
