"""UniPHD without its pose head (Table 6): does learning the pose help the mask?

The decoder predicts the person's box and mask alone.  Its keypoint and visibility heads, their
losses and their matching costs are gone; the reference points stay where query initialisation put
them.  The encoder's proposals keep their keypoints and these losses, since the groups begin there.
Results have no keypoints, and evaluation gives the figures of boxes and masks.
"""

_base_ = "../uniphd.py"

pose_head = False
