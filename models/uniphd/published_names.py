"""The published UniPHD's parameter names ↔ ours; see models/layers/published_names.py."""

from __future__ import annotations

from models.layers.published_names import BACKBONE, DECODER, ENCODER

RULES = (
    *BACKBONE,
    ("text_encoder.text_backbone.", "prompt_encoder.text_backbone."),
    ("text_proj.fc.", "prompt_encoder.word_projection.0."),
    ("text_proj.layer_norm.", "prompt_encoder.word_projection.1."),
    ("sentence_proj.fc.", "prompt_encoder.sentence_projection.0."),
    ("sentence_proj.layer_norm.", "prompt_encoder.sentence_projection.1."),
    ("prompt_proj.fc.", "prompt_encoder.pixel_projection.0."),
    ("prompt_proj.layer_norm.", "prompt_encoder.pixel_projection.1."),
    ("glob_prompt_proj.fc.", "prompt_encoder.pixel_summary_projection.0."),
    ("glob_prompt_proj.layer_norm.", "prompt_encoder.pixel_summary_projection.1."),
    ("fusion_module.multihead_attn.", "fusion.text_attention."),
    ("fusion_module.multihead_attn2.", "fusion.positional_attention."),
    *ENCODER,
    *DECODER,
    ("transformer.decoder.layers.*.linear1.", "decoder.layers.*.cross_feed_forward.linear1."),
    ("transformer.decoder.layers.*.linear2.", "decoder.layers.*.cross_feed_forward.linear2."),
    ("transformer.decoder.layers.*.norm2.", "decoder.layers.*.cross_feed_forward.norm."),
    (
        "transformer.decoder.layers.*.adjacent_matrix",
        "decoder.layers.*.within_attention.adjacency",
    ),
    ("transformer.decoder.layers.*.within_attn.", "decoder.layers.*.within_attention.attention."),
    ("transformer.decoder.layers.*.linear1_.", "decoder.layers.*.within_feed_forward.linear1."),
    ("transformer.decoder.layers.*.linear2_.", "decoder.layers.*.within_feed_forward.linear2."),
    ("transformer.decoder.layers.*.norm2_.", "decoder.layers.*.within_feed_forward.norm."),
    ("class_embed.*.", "heads.class_heads.*."),
    ("bbox_embed.*.", "heads.box_heads.*."),
    ("pose_visi_embed.*.", "heads.visibility_heads.*."),
    ("controller.", "mask_head.controller."),
    ("mask_refine.conv1_1div8.", "mask_head.refine_c3.conv1."),
    ("mask_refine.conv2_1div8.", "mask_head.refine_c3.conv2."),
    ("mask_refine.conv1_1div4.", "mask_head.refine_c2.conv1."),
    ("mask_refine.conv2_1div4.", "mask_head.refine_c2.conv2."),
)

# Kept by older versions of `transformers`, derived from nothing but the sequence length.
OBSOLETE = ("text_encoder.text_backbone.embeddings.position_ids",)

# (former, present) names of our own: checkpoints of the project's first round.
FORMER = (("heads.keypoint_heads.*.", "decoder.layers.*.keypoint_head."),)
