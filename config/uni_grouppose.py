"""Uni-GroupPose: Group Pose's decoder in UniPHD's frame (Table 2), 177.7 M parameters.

Prompts, fusion, query initialisation, heads and mask head are UniPHD's.  A decoder layer is Group
Pose's: attention within the groups, across them, and to the image, then one feed-forward network;
it has no learned adjacency.
"""

_base_ = "uniphd.py"

decoder = "grouppose"
