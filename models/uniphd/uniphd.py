"""UniPHD: an image and a prompt in, the referred person's keypoints and mask out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from datasets.prompts import Prompt
from models.backbones.backbone import Backbone
from models.layers.encoder import DeformableEncoder
from models.layers.group_decoder import GroupDecoder
from models.layers.input_projection import InputProjection
from models.uniphd.decoders.edpose import EDPoseDecoder, OwnPredictions
from models.uniphd.decoders.human_queries import HumanQueryInitializer
from models.uniphd.fusion import PromptFusion
from models.uniphd.heads import PredictionHeads
from models.uniphd.mask_head import DynamicMaskHead
from models.uniphd.matcher import GroupMatcher
from models.uniphd.prompt_encoder import PromptEncoder
from models.uniphd.query_init import LearnedQueries, QueryInitializer
from util.nested_tensor import NestedTensor


class UniPHD(nn.Module):
    """Promptable pose and mask estimation (paper, Sec. 3; Fig. 2 shows the same modules).

    Args:
        backbone: image → C2…C5; C3…C5 for a model without masks.
        prompt_encoder: prompt → features and instance query.
        input_projection: C3…C5 → four levels of width D.
        fusion: prompt into visual tokens.
        encoder: deformable multimodal encoder.
        query_init: n groups of queries from the encoder's memory.
        decoder: of the group queries; the pose-centric hierarchical one in the paper.
        heads: a decoder layer's output → its predictions.
        mask_head: dynamic mask head, or None for a model without masks.
        matcher: finds the group of each person; used only when targets are given.
        mask_head_checkpointing: recompute the mask head's activations in the backward pass.
    """

    takes_prompts = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt_encoder: PromptEncoder,
        input_projection: InputProjection,
        fusion: PromptFusion,
        encoder: DeformableEncoder,
        query_init: QueryInitializer | LearnedQueries | HumanQueryInitializer,
        decoder: GroupDecoder | EDPoseDecoder,
        heads: PredictionHeads | OwnPredictions,
        mask_head: DynamicMaskHead | None,
        matcher: GroupMatcher,
        mask_head_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt_encoder = prompt_encoder
        self.input_projection = input_projection
        self.fusion = fusion
        self.encoder = encoder
        self.query_init = query_init
        self.decoder = decoder
        self.heads = heads
        self.mask_head = mask_head
        self.matcher = matcher
        self.mask_head_checkpointing = mask_head_checkpointing

    def prompt_parameters(self) -> Iterator[nn.Parameter]:
        """What only some kinds of prompt use: with the others it gets no gradient."""
        yield from self.prompt_encoder.parameters()
        yield from self.fusion.parameters()

    def encode_image(self, samples: NestedTensor) -> list[NestedTensor]:
        """What any number of prompts share: the backbone's maps of normalised, padded images."""
        return self.backbone(samples)

    def forward(
        self,
        samples: NestedTensor,
        prompts: Prompt | None = None,
        targets: Sequence[dict] | None = None,
        features: Sequence[NestedTensor] | None = None,
    ) -> dict[str, object]:
        """Predict for a batch.

        Args:
            samples: normalised images of B samples, padded to multiples of 16.  Samples may have an
                image in common (`image_of_sample`): then the backbone sees it once.
            prompts: one prompt per sample.
            targets: the referred person of each sample (`datasets.sample.Sample`); with them, masks
                are made for the matched groups only.
            features: of `encode_image(samples)`, where they are known already.

        Returns:
            dict with
            `pred_logits` [B, n, 2] (index 1: the referred person),
            `pred_boxes` [B, n, 4] cxcywh in [0, 1],
            `pred_keypoints` [B, n, K, 2] (x, y) in [0, 1],
            `pred_keypoints_visi` [B, n, K] logits,
            `aux_outputs`: the same keys for every earlier decoder layer,
            `encoder_outputs`: `pred_logits` and `pred_keypoints` of the encoder proposals
            (without a pose head there are no keypoints but those of the proposals, with learned
            queries no proposals; `EDPoseDecoder` says what its layers have);
            with targets `matching` (`models.uniphd.matcher.Matching`), the group of each person;
            with a mask head `mask_groups` [B, m] and, for those groups, the logits
            `pred_masks` [B, m, H, W] and `pred_masks_low` [B, m, H/2, W/2]: the groups of the
            people with targets, all without.
            [0, 1] is the unpadded image.

        Raises:
            TypeError, ValueError: prompts are missing, or do not fit the images.
        """
        if features is None:
            features = self.encode_image(samples)
        maps, levels = features[:-1], self.input_projection(features[-3:], samples.mask)
        *fine, c4 = samples.for_samples(maps)
        levels = samples.for_samples(levels)
        prompt = self.prompt_encoder(prompts, c4, samples.tensors.shape[-2:])
        memory = self.encoder(self.fusion(levels, prompt))
        groups = self.query_init(memory, prompt.instance_query)
        decoded = self.decoder(groups, memory)
        *auxiliary, outputs = self.heads(decoded)
        outputs["aux_outputs"] = auxiliary
        if groups.proposals is not None:
            outputs["encoder_outputs"] = groups.proposals
        if targets is not None:
            outputs["matching"] = self.matcher(outputs, targets)
        if self.mask_head is not None:
            chosen = self._mask_groups(outputs)
            outputs["mask_groups"] = chosen
            inputs = (
                decoded[-1].instance_queries.take_along_dim(chosen[..., None], dim=1),
                decoded[-1].centers.take_along_dim(chosen[..., None], dim=1),
                memory,
                *(level.tensors for level in fine),
                samples.sizes,
            )
            if self.mask_head_checkpointing and self.training:
                masks = checkpoint(self.mask_head, *inputs, use_reentrant=False)
            else:
                masks = self.mask_head(*inputs)
            outputs["pred_masks"], outputs["pred_masks_low"] = masks
        return outputs

    def _mask_groups(self, outputs: dict[str, object]) -> Tensor:
        """[B, m] the groups that need a mask: the matched ones in training, all in evaluation."""
        if "matching" in outputs:
            groups, _ = outputs["matching"].final
            return groups
        batch, groups = outputs["pred_logits"].shape[:2]
        return torch.arange(groups, device=outputs["pred_logits"].device).expand(batch, -1)
