"""UniPHD with Swin-L, pretrained on ImageNet-22k at 224 pixels.

Its weights are the Swin authors' `swin_large_patch4_window7_224_22k.pth`:
`--swin_pretrain_path FILE`.
"""

_base_ = "../uniphd.py"

backbone = "swin_L_224_22k"
