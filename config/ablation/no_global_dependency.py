"""UniPHD without the global dependency of a group's queries (Table 7).

The attention within a group is gone, with its norm: keypoints learn nothing of each other or of
the instance any more.  The attention across groups and both feed-forward networks of a layer stay.
"""

_base_ = "../uniphd.py"

within_type = "none"
