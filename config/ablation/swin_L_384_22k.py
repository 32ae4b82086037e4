"""UniPHD with Swin-L, pretrained on ImageNet-22k at 384 pixels.

Its weights are the Swin authors' `swin_large_patch4_window12_384_22k.pth`:
`--swin_pretrain_path FILE`.
"""

_base_ = "../uniphd.py"

backbone = "swin_L_384_22k"
