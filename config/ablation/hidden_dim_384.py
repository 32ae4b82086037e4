"""UniPHD with width D = 384 instead of 256 (Table 11): is it the size that makes the difference?

The attention keeps its 8 heads, each of 48 features; the feed-forward networks keep their 2048.
"""

_base_ = "../uniphd.py"

hidden_dim = 384
