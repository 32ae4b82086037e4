"""UniPHD with plain self-attention within a group instead of graph attention (Table 7).

The learned adjacency of Eq. 4 is gone; everything else stays.
"""

_base_ = "../uniphd.py"

within_type = "self"
