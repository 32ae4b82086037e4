"""Published parameter names ↔ ours, for what UniPHD and Group Pose share.

A rule is (published, ours); "*" stands for a number and is the same on both sides.
"""

from __future__ import annotations

BACKBONE = (
    # Torchvision's ResNet lies one module deeper than the Swins.
    ("backbone.0.body.conv1.", "backbone.body.conv1."),
    ("backbone.0.body.bn1.", "backbone.body.bn1."),
    ("backbone.0.body.layer*.", "backbone.body.layer*."),
    ("backbone.0.", "backbone.body."),
)

ENCODER = (
    ("input_proj.*.", "input_projection.levels.*."),
    ("transformer.level_embed", "encoder.level_embedding"),
    ("transformer.encoder.layers.*.self_attn.", "encoder.layers.*.self_attention."),
    ("transformer.encoder.layers.*.norm1.", "encoder.layers.*.norm."),
    ("transformer.encoder.layers.*.linear1.", "encoder.layers.*.feed_forward.linear1."),
    ("transformer.encoder.layers.*.linear2.", "encoder.layers.*.feed_forward.linear2."),
    ("transformer.encoder.layers.*.norm2.", "encoder.layers.*.feed_forward.norm."),
    ("transformer.enc_output.", "query_init.memory_projection."),
    ("transformer.enc_output_norm.", "query_init.memory_norm."),
    ("transformer.enc_out_class_embed.", "query_init.class_head."),
    ("transformer.enc_pose_embed.", "query_init.keypoint_head."),
    ("transformer.keypoint_embedding.", "query_init.keypoint_embedding."),
)

DECODER = (
    ("transformer.decoder.half_pose_ref_point_head.", "decoder.position_mlp."),
    ("transformer.decoder.layers.*.across_attn.", "decoder.layers.*.across_attention."),
    ("transformer.decoder.layers.*.across_norm.", "decoder.layers.*.across_norm."),
    ("transformer.decoder.layers.*.within_norm.", "decoder.layers.*.within_norm."),
    ("transformer.decoder.layers.*.cross_attn.", "decoder.layers.*.cross_attention."),
    ("transformer.decoder.layers.*.norm1.", "decoder.layers.*.cross_norm."),
    ("pose_embed.*.", "decoder.layers.*.keypoint_head."),
)
