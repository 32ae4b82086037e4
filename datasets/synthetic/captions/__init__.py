"""Sentences that point out exactly one person of a synthetic image.

A sentence is built of claims.  A claim knows for which people of the image it holds, as a set of
bits, so the claims of a sentence are true of exactly one person where the intersection of their
sets has one bit left.  "Holds" is read generously for everybody else and strictly for the person
who is meant: a person who could be taken for the meant one makes the sentence ambiguous.

Left and right are always the viewer's.  A mirrored image with "left" and "right" exchanged
in the caption is therefore as true as before.
"""

from datasets.synthetic.captions.describer import Caption, Describer
from datasets.synthetic.captions.words import HELD_OUT_COMBINATIONS, KINDS

__all__ = ["HELD_OUT_COMBINATIONS", "KINDS", "Caption", "Describer"]
