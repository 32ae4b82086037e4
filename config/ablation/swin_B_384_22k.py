"""UniPHD with Swin-B, pretrained on ImageNet-22k at 384 pixels.

Its weights are the Swin authors' `swin_base_patch4_window12_384_22k.pth`:
`--swin_pretrain_path FILE`.
"""

_base_ = "../uniphd.py"

backbone = "swin_B_384_22k"
