"""UniPHD without its mask head (Table 6): does learning the mask help the pose?

The dynamic mask head and its losses are gone; evaluation gives the figures of keypoints and boxes.
"""

_base_ = "../uniphd.py"

mask_head = False
