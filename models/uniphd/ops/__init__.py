"""Multi-scale deformable attention: one function, several implementations, and the layer."""

# The layer's file is named as the function: it must be imported before the function is, which
# would else be hidden by the submodule.
from models.uniphd.ops.ms_deform_attn import MSDeformAttn  # isort: skip
from models.uniphd.ops.functional import ms_deform_attn, ms_deform_attn_pytorch

__all__ = ["MSDeformAttn", "ms_deform_attn", "ms_deform_attn_pytorch"]
