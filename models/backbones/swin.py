"""Swin Transformer (Liu et al. 2021) as a backbone with four outputs.

Parameter names are those of the Swin authors' files, so that these load as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from models.backbones.weights import fill, read_weights
from models.performance.attention import attend
from models.performance.gelu import linear_of_gelu
from models.performance.linear import Linear
from util.errors import MissingFileError, UserError, shown


@dataclass(frozen=True)
class SwinVariant:
    """What a Swin of the published names is made of.

    Attributes:
        files: names of the Swin authors' files that fit, the one of the published commands first.
        embed_dim: width of the first stage; doubles from stage to stage.
        depths: blocks of each of the four stages.
        num_heads: attention heads of each of the four stages.
        window_size: side of the attention windows, in tokens.
        mlp_ratio: hidden width of the MLPs over the token width.
    """

    files: tuple[str, ...]
    embed_dim: int
    depths: Sequence[int]
    num_heads: Sequence[int]
    window_size: int
    mlp_ratio: float = 4.0


SWIN_VARIANTS = {
    "swin_T_224_1k": SwinVariant(
        files=("swin_tiny_patch4_window7_224.pth",),
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
    ),
    "swin_B_224_22k": SwinVariant(
        files=("swin_base_patch4_window7_224_22k.pth",),
        embed_dim=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
    ),
    "swin_B_384_22k": SwinVariant(
        files=("swin_base_patch4_window12_384.pth", "swin_base_patch4_window12_384_22k.pth"),
        embed_dim=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=12,
    ),
    "swin_L_224_22k": SwinVariant(
        files=("swin_large_patch4_window7_224_22k.pth",),
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=7,
    ),
    "swin_L_384_22k": SwinVariant(
        files=("swin_large_patch4_window12_384_22k.pth",),
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
    ),
}
OPTIONS = ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio")
# Bounds of the options, far above any Swin that was ever trained: what a damaged file or a slip of
# the keyboard asks for is not to fill the memory.
_WIDEST, _DEEPEST, _LARGEST_WINDOW, _WIDEST_MLP, _MOST_PARAMETERS = 4096, 100, 32, 16, 10**9
# Buffers of the authors' file that follow from the size of the image and the windows.
DERIVED = ("attn_mask", "relative_position_index", "relative_coords_table")
# Added to the logits of tokens that are not to see each other.  The Swin authors' -100 leaves
# weights of 4e-44, with which processors calculate a hundred times slower; here they are zero.
APART = -1e4


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned relative position bias.

    Args:
        dim: width of the tokens.
        window_size: side of a window, in tokens.
        num_heads: attention heads.
    """

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        span = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(span * span, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        coordinates = torch.stack(
            torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing="ij")
        ).flatten(1)
        offsets = coordinates[:, :, None] - coordinates[:, None, :] + window_size - 1
        self.register_buffer("relative_position_index", offsets[0] * span + offsets[1])
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, windows: Tensor, shift_mask: Tensor | None) -> Tensor:
        """Attend inside every window.

        Args:
            windows: [B * N, T, C], the N windows of an image one after the other.
            shift_mask: [N, T, T] additive, `APART` between tokens that the cyclic shift made
                neighbours; None without a shift.

        Returns:
            [B * N, T, C].
        """
        count, tokens, dim = windows.shape
        qkv = self.qkv(windows).view(count, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1).to(query.dtype)  # [heads, T, T]
        if shift_mask is None:
            bias = bias[None]
        else:
            bias = bias[None] + shift_mask[:, None].to(query.dtype)  # [N, heads, T, T]
            batch = count // shift_mask.shape[0]
            bias = bias.expand(batch, -1, -1, -1, -1).flatten(0, 1)  # no copy of a single image
        attended = attend(query, key, value, bias)
        return self.proj(attended.transpose(1, 2).reshape(count, tokens, dim))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return linear_of_gelu(self.fc1(x), self.fc2)
        return self.fc2(self.fc1(x, "gelu"))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each behind a LayerNorm and with a residual.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        window_size: side of a window, in tokens.
        shift: cyclic shift of the image before it is cut into windows, in tokens.
        drop_path: probability of skipping a branch for a sample (stochastic depth).
        mlp_ratio: hidden width of the MLP over `dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shift: int,
        drop_path: float,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window_size, num_heads)
        self.drop_path = StochasticDepth(drop_path, mode="row") if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, shift_mask: Tensor) -> Tensor:
        """[B, H, W, C] → [B, H, W, C]; `shift_mask` as in `make_shift_mask`."""
        x = x + self.drop_path(self._attend(self.norm1(x), shift_mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, shift_mask: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        size = self.window_size
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        padded_height, padded_width = x.shape[1:3]
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        windows = x.view(batch, padded_height // size, size, padded_width // size, size, dim)
        windows = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, dim)
        windows = self.attn(windows, shift_mask if self.shift else None)
        x = windows.view(batch, padded_height // size, padded_width // size, size, size, dim)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, padded_height, padded_width, dim)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]


def make_shift_mask(height: int, width: int, window_size: int, device: torch.device) -> Tensor:
    """Additive mask that keeps tokens apart which only the cyclic shift brought together.

    Args:
        height: of the map, in tokens, before padding to a multiple of the window.
        width: likewise.
        window_size: side of a window; the shift is half of it.

    Returns:
        [N, T, T], 0 or `APART`, for the N windows and their T = window_size² tokens.
    """
    shift = window_size // 2
    regions = []
    for length in (height, width):
        length += -length % window_size
        position = torch.arange(length, device=device)
        regions.append((position >= length - window_size).int() + (position >= length - shift))
    region = 3 * regions[0][:, None] + regions[1][None, :]
    region = region.view(
        region.shape[0] // window_size, window_size, region.shape[1] // window_size, window_size
    )
    region = region.transpose(1, 2).reshape(-1, window_size * window_size)
    different = region[:, None, :] != region[:, :, None]
    return different.float() * APART


class PatchMerging(nn.Module):
    """Join 2 × 2 neighbours: half the resolution, twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] → [B, ceil(H / 2), ceil(W / 2), 2C]; odd sides are padded with zeros."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """The blocks of one resolution, every second one shifted, then a `PatchMerging`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        drop_paths: Sequence[float],
        mlp_ratio: float,
        downsample: bool,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                num_heads=num_heads,
                window_size=window_size,
                shift=window_size // 2 if i % 2 else 0,
                drop_path=drop_path,
                mlp_ratio=mlp_ratio,
            )
            for i, drop_path in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, x: Tensor, use_checkpointing: bool) -> Tensor:
        """[B, H, W, C] → [B, H, W, C], before the merging."""
        shift_mask = make_shift_mask(x.shape[1], x.shape[2], self.window_size, x.device)
        for block in self.blocks:
            if use_checkpointing:
                x = checkpoint(block, x, shift_mask, use_reentrant=False)
            else:
                x = block(x, shift_mask)
        return x


class PatchEmbed(nn.Module):
    """Cut an image into 4 × 4 patches and project each to a token."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, ceil(H / 4), ceil(W / 4), C]; sides are padded with zeros."""
        size = self.patch_size
        images = F.pad(images, (0, -images.shape[3] % size, 0, -images.shape[2] % size))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class SwinTransformer(nn.Module):
    """Swin Transformer with a LayerNorm on each of its outputs.

    Args:
        variant: widths, depths, heads and windows; sides of a window in tokens.
        drop_path: stochastic depth of the last block; grows linearly from 0 at the first.
        use_checkpointing: recompute the blocks in the backward pass instead of keeping
            their activations.
        first_level: 2 for the outputs C2…C5, 3 for C3…C5 (without a norm for C2).
    """

    has_stochastic_depth = True

    def __init__(
        self,
        variant: SwinVariant,
        drop_path: float,
        use_checkpointing: bool,
        first_level: int,
    ) -> None:
        super().__init__()
        self.files = variant.files
        self.use_checkpointing = use_checkpointing
        self.first_stage = first_level - 2
        widths = [variant.embed_dim * 2**i for i in range(4)]
        self.num_channels = tuple(widths[self.first_stage :])
        self.patch_embed = PatchEmbed(4, 3, variant.embed_dim)
        depths = variant.depths
        last = max(sum(depths) - 1, 1)
        rates = [drop_path * i / last for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            start = sum(depths[:i])
            self.layers.append(
                SwinStage(
                    dim=widths[i],
                    num_heads=variant.num_heads[i],
                    window_size=variant.window_size,
                    drop_paths=rates[start : start + depth],
                    mlp_ratio=variant.mlp_ratio,
                    downsample=i < 3,
                )
            )
        for i in range(self.first_stage, 4):
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))
        self.apply(_init_weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → maps [B, C_i, ceil(H / s_i), ceil(W / s_i)], s = 4, 8, 16, 32."""
        use_checkpointing = self.use_checkpointing and self.training
        x = self.patch_embed(images)
        outputs = []
        for i, stage in enumerate(self.layers):
            x = stage(x, use_checkpointing)
            if i >= self.first_stage:
                normed = self.get_submodule(f"norm{i}")(x)
                outputs.append(normed.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs

    def load_imagenet_weights(self, path: str) -> None:
        """Fill the network from the Swin authors' ImageNet file.

        The classifier (`head.*`), the final norm (the output norms replace it) and the masks and
        tables that depend on the image size alone are dropped.

        Args:
            path: the file, or a folder that holds it under its own name (`SwinVariant.files`).

        Raises:
            FileNotFoundError: no file at `path`, or not in that folder.
            UserError: an entry is missing, unexpected or of another shape.
        """
        if Path(path).is_dir():
            path = self._find(Path(path))
        state = {
            name: value
            for name, value in read_weights(path).items()
            if not name.startswith(("head.", "norm."))
        }
        fill(
            self,
            state,
            path,
            is_derived=lambda name: name.endswith(DERIVED) or name.startswith("norm"),
        )

    def _find(self, folder: Path) -> str:
        for name in self.files:
            if (folder / name).is_file():
                return str(folder / name)
        raise MissingFileError(
            f"{folder}: no ImageNet weights of this backbone; expected {' or '.join(self.files)} "
            "(the Swin authors' file under its own name). Put it there, or name the file itself "
            "(backbone_pretrained, --swin_pretrain_path)."
        )


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_swin(
    name: str,
    options: Mapping[str, object],
    drop_path: float,
    use_checkpointing: bool,
    first_level: int = 2,
) -> SwinTransformer:
    """A Swin Transformer by its published name, with single settings of it changed.

    Args:
        name: a key of `SWIN_VARIANTS`.
        options: `embed_dim`, `depths`, `num_heads`, `window_size` or `mlp_ratio` that differ.
        drop_path: see `SwinTransformer`, as the rest.

    Raises:
        UserError: an option that Swin does not know, or a value that it cannot have.
    """
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        raise UserError(
            f"backbone_options has a setting that Swin does not know: {', '.join(unknown[:5])}; it "
            f"knows {', '.join(OPTIONS)}."
        )
    variant = dataclasses.replace(SWIN_VARIANTS[name], **options)
    _check(variant)
    return SwinTransformer(variant, drop_path, use_checkpointing, first_level)


def _check(variant: SwinVariant) -> None:
    """Refuse what cannot be built, by the name of its option."""

    def refusal(option: str, expected: str) -> UserError:
        value = getattr(variant, option)
        return UserError(f"backbone_options.{option} must be {expected}; got {shown(value)}.")

    def is_count(value: object, most: int) -> bool:
        return type(value) is int and 0 < value <= most

    for option, most in (("embed_dim", _WIDEST), ("window_size", _LARGEST_WINDOW)):
        if not is_count(getattr(variant, option), most):
            raise refusal(option, f"a whole number > 0, at most {most}")
    for option, most in (("depths", _DEEPEST), ("num_heads", _WIDEST)):
        value = getattr(variant, option)
        if (
            not isinstance(value, list | tuple)
            or len(value) != 4
            or not all(is_count(count, most) for count in value)
        ):
            raise refusal(option, f"four whole numbers > 0, at most {most}, one per stage")
    ratio = variant.mlp_ratio
    if type(ratio) not in (int, float) or not 0 < ratio <= _WIDEST_MLP:
        raise refusal("mlp_ratio", f"a number > 0, at most {_WIDEST_MLP}")
    widths = [variant.embed_dim * 2**stage for stage in range(4)]
    size = sum(d * (4 + 2 * ratio) * w**2 for d, w in zip(variant.depths, widths, strict=True))
    if size > _MOST_PARAMETERS:
        raise UserError(
            f"backbone_options describe a Swin of {size:.1e} parameters; expected at most "
            f"{_MOST_PARAMETERS:.0e}. Lower embed_dim or depths."
        )
    for i, heads in enumerate(variant.num_heads):
        if widths[i] % heads:
            raise UserError(
                f"Swin's stage {i + 1} of width {widths[i]} cannot have {heads} heads; change "
                "backbone_options.num_heads or backbone_options.embed_dim."
            )
