"""Swin Transformer (Liu et al. 2021) as a backbone with four outputs.

Parameter names are those of the Swin authors' files, so that these load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SWIN_VARIANTS = {
    "swin_T_224_1k": dict(
        embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7
    ),
    "swin_B_224_22k": dict(
        embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=7
    ),
    "swin_B_384_22k": dict(
        embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12
    ),
    "swin_L_224_22k": dict(
        embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=7
    ),
    "swin_L_384_22k": dict(
        embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12
    ),
}


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
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, shift_mask: Tensor | None) -> Tensor:
        """Attend inside every window.

        Args:
            windows: [B * N, T, C], the N windows of an image one after the other.
            shift_mask: [N, T, T] additive, -100 between tokens that the cyclic shift made
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
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(count, tokens, dim))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


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
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
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
        [N, T, T], 0 or -100, for the N windows and their T = window_size² tokens.
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
    return different.float() * -100.0


class PatchMerging(nn.Module):
    """Join 2 × 2 neighbours: half the resolution, twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

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
    """Swin Transformer with a LayerNorm on each of its four outputs.

    Args:
        embed_dim: width of the first stage; doubles from stage to stage.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_size: side of the attention windows, in tokens.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 at the first.
        mlp_ratio: hidden width of the MLPs over the token width.
        use_checkpointing: recompute the blocks in the backward pass instead of keeping
            their activations.
        out_stages: stages (0 to 3) whose outputs are returned, each behind a LayerNorm.

    Raises:
        ValueError: `depths` and `num_heads` are of different length, or a width is not
            divisible by its number of heads.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path_rate: float = 0.2,
        mlp_ratio: float = 4.0,
        use_checkpointing: bool = False,
        out_stages: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(
                f"Swin needs as many depths as num_heads; got depths={tuple(depths)} and "
                f"num_heads={tuple(num_heads)}."
            )
        self.use_checkpointing = use_checkpointing
        self.out_stages = tuple(out_stages)
        widths = [embed_dim * 2**i for i in range(len(depths))]
        self.num_features = [widths[i] for i in self.out_stages]
        for width, heads in zip(widths, num_heads, strict=True):
            if width % heads:
                raise ValueError(f"Swin stage of width {width} cannot have {heads} heads.")
        self.patch_embed = PatchEmbed(4, 3, embed_dim)
        last = max(sum(depths) - 1, 1)
        rates = [drop_path_rate * i / last for i in range(sum(depths))]
        self.layers = nn.ModuleList()
        for i, depth in enumerate(depths):
            start = sum(depths[:i])
            self.layers.append(
                SwinStage(
                    dim=widths[i],
                    num_heads=num_heads[i],
                    window_size=window_size,
                    drop_paths=rates[start : start + depth],
                    mlp_ratio=mlp_ratio,
                    downsample=i < len(depths) - 1,
                )
            )
        for i in self.out_stages:
            self.add_module(f"norm{i}", nn.LayerNorm(widths[i]))
        self.apply(_init_weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] → [B, C_i, ceil(H / s_i), ceil(W / s_i)] of the stages asked for.

        The strides s of the four stages are 4, 8, 16 and 32.
        """
        use_checkpointing = self.use_checkpointing and self.training
        x = self.patch_embed(images)
        outputs = []
        for i, stage in enumerate(self.layers):
            x = stage(x, use_checkpointing)
            if i in self.out_stages:
                outputs.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return outputs


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_swin(name: str, **overrides: object) -> SwinTransformer:
    """A Swin Transformer by its published name, with single settings overridden.

    Raises:
        ValueError: unknown name or setting.
    """
    if name not in SWIN_VARIANTS:
        raise ValueError(f"Unknown Swin {name!r}; expected one of {', '.join(SWIN_VARIANTS)}.")
    try:
        return SwinTransformer(**{**SWIN_VARIANTS[name], **overrides})
    except TypeError as error:
        raise ValueError(
            f"backbone_options has a setting that Swin does not know ({error}); it knows "
            "embed_dim, depths, num_heads, window_size and mlp_ratio."
        ) from error


def read_imagenet_weights(checkpoint: dict, model: SwinTransformer) -> dict[str, Tensor]:
    """The backbone's share of the Swin authors' ImageNet file.

    Drops the classifier (`head.*`), the final norm (the four output norms replace it) and the
    masks and tables that depend on the image size alone.

    Args:
        checkpoint: content of the file; the weights are its `model` entry.
        model: the backbone to be filled.

    Raises:
        ValueError: an entry is missing, unknown or of the wrong shape.
    """
    state = checkpoint.get("model", checkpoint)
    derived = ("attn_mask", "relative_position_index", "relative_coords_table")
    state = {
        name: value
        for name, value in state.items()
        if not name.startswith(("head.", "norm.")) and not name.endswith(derived)
    }
    own = model.state_dict()
    expected = {name for name in own if not name.startswith("norm") and not name.endswith(derived)}
    problems = [f"missing: {name}" for name in sorted(expected - state.keys())]
    problems += [f"unexpected: {name}" for name in sorted(state.keys() - expected)]
    problems += [
        f"{name}: shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(expected & state.keys())
        if state[name].shape != own[name].shape
    ]
    if problems:
        shown = "\n  ".join(problems[:20])
        raise ValueError(
            f"The Swin file does not fit the backbone ({len(problems)} entries differ):\n  {shown}"
        )
    return state
