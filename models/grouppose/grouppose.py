"""Group Pose: everybody in an image, without a prompt (Liu et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.backbones.backbone import Backbone
from models.layers.encoder import DeformableEncoder, EncoderMemory
from models.layers.group_decoder import GroupDecoder, GroupQueries
from models.layers.input_projection import InputProjection
from models.layers.mlp import init_class_bias
from models.performance.linear import Linear
from models.uniphd.matcher import GroupMatcher
from models.uniphd.query_init import QueryInitializer
from util.nested_tensor import NestedTensor


class GroupPose(nn.Module):
    """Multi-person pose estimation with groups of one instance and K keypoint queries.

    Args:
        backbone: image → C3, C4, C5.
        input_projection: C3…C5 → four levels of width D.
        encoder: deformable encoder.
        query_init: n groups of queries from the encoder's memory.
        decoder: of the group queries.
        matcher: finds the group of each person; used only when targets are given.
        num_decoder_layers: L, each with a class head of its own.
        embed_dim: width D.
    """

    takes_prompts = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        input_projection: InputProjection,
        encoder: DeformableEncoder,
        query_init: QueryInitializer,
        decoder: GroupDecoder,
        matcher: GroupMatcher,
        num_decoder_layers: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_projection = input_projection
        self.encoder = encoder
        self.instance_embedding = nn.Embedding(1, embed_dim)
        self.query_init = query_init
        self.decoder = decoder
        self.class_heads = nn.ModuleList(Linear(embed_dim, 2) for _ in range(num_decoder_layers))
        self.matcher = matcher
        for head in self.class_heads:
            init_class_bias(head)

    def encode_image(self, samples: NestedTensor) -> list[NestedTensor]:
        """C3, C4, C5 of B normalised, padded images."""
        return self.backbone(samples)

    def forward(
        self,
        samples: NestedTensor,
        prompts: None = None,
        targets: Sequence[dict] | None = None,
        features: Sequence[NestedTensor] | None = None,
    ) -> dict[str, object]:
        """Predict for a batch.

        Args:
            samples: normalised images of B samples, padded.
            prompts: has to be None.
            targets: everybody in each image (`datasets.sample.Sample`).
            features: of `encode_image(samples)`, where they are known already.

        Returns:
            dict with
            `pred_logits` [B, n, 2] (index 1: person),
            `pred_keypoints` [B, n, K, 2] (x, y) in [0, 1] of the unpadded image,
            `aux_outputs`: the same keys for every earlier decoder layer,
            `encoder_outputs`: the same keys for the encoder proposals;
            with targets `matching` (`models.uniphd.matcher.Matching`), the group of each person.

        Raises:
            ValueError: a prompt was given.
        """
        if prompts is not None:
            raise ValueError("Group Pose finds everybody and takes no prompts; give None.")
        if features is None:
            features = self.encode_image(samples)
        levels = samples.for_samples(self.input_projection(features, samples.mask))
        memory = self.encoder(levels)
        instance_query = self.instance_embedding.weight.expand(len(memory.tokens), -1)
        groups = self.query_init(memory, instance_query)
        *auxiliary, outputs = self._predict(groups, memory)
        outputs["aux_outputs"] = auxiliary
        outputs["encoder_outputs"] = groups.proposals
        if targets is not None:
            outputs["matching"] = self.matcher(outputs, targets)
        return outputs

    def _predict(self, groups: GroupQueries, memory: EncoderMemory) -> list[dict[str, Tensor]]:
        """Class logits and keypoints of every decoder layer."""
        return [
            {
                "pred_logits": class_head(output.instance_queries),
                "pred_keypoints": output.keypoints,
            }
            for class_head, output in zip(
                self.class_heads, self.decoder(groups, memory), strict=True
            )
        ]
