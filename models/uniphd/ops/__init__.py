"""Multi-scale deformable attention: one function, several implementations."""

from models.uniphd.ops.functional import ms_deform_attn, ms_deform_attn_pytorch

__all__ = ["ms_deform_attn", "ms_deform_attn_pytorch"]
