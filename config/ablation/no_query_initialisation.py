"""UniPHD without prompt-conditioned query initialisation (Table 8).

The groups begin at learned reference points with learned queries, the same for every image and
prompt.  The prompt reaches the decoder through the fusion with the image alone.  The encoder makes
no proposals, so that it has no losses of its own.
"""

_base_ = "../uniphd.py"

query_init = "learned"
