"""UniPHD with Swin-T, pretrained on ImageNet-1k at 224 pixels.

This is the paper's own backbone.  Its weights are the Swin authors'
`swin_tiny_patch4_window7_224.pth`: `--swin_pretrain_path FILE`.
"""

_base_ = "../uniphd.py"

backbone = "swin_T_224_1k"
