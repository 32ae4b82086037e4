"""UniPHD with Swin-B, pretrained on ImageNet-22k at 224 pixels.

Its weights are the Swin authors' `swin_base_patch4_window7_224_22k.pth`:
`--swin_pretrain_path FILE`.
"""

_base_ = "../uniphd.py"

backbone = "swin_B_224_22k"
