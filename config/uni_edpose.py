"""Uni-ED-Pose: ED-Pose's decoder in UniPHD's frame (Table 2), 175.7 M parameters.

Prompts, fusion and mask head are UniPHD's.  Queries have boxes in place of points: the first two
decoder layers look for people, the other four for everybody's keypoints
(models/uniphd/decoders/edpose.py).  There are no denoising queries: the paper does not speak of
them, and a prompt means one person.
"""

_base_ = "uniphd.py"

decoder = "edpose"
