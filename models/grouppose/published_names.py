"""The published Group Pose's parameter names ↔ ours; see models/layers/published_names.py."""

from __future__ import annotations

from models.layers.published_names import BACKBONE, DECODER, ENCODER

RULES = (
    *BACKBONE,
    *ENCODER,
    ("transformer.instance_embedding.", "instance_embedding."),
    *DECODER,
    ("transformer.decoder.layers.*.within_attn.", "decoder.layers.*.within_attention."),
    ("transformer.decoder.layers.*.linear1.", "decoder.layers.*.feed_forward.linear1."),
    ("transformer.decoder.layers.*.linear2.", "decoder.layers.*.feed_forward.linear2."),
    ("transformer.decoder.layers.*.norm2.", "decoder.layers.*.feed_forward.norm."),
    ("class_embed.*.", "class_heads.*."),
)

OBSOLETE = ()
FORMER = ()
