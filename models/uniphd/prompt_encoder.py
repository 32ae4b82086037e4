"""Prompts (a sentence, a click or a scribble) → features, masks, positions, instance query.

What prompts there are is in datasets/prompts.py; each asks the encoder for what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoTokenizer, RobertaConfig, RobertaModel

from datasets.prompts import PointPrompt, Prompt, ScribblePrompt, TextPrompt
from models.layers.position_encoding import encode_map, encode_words
from util.errors import MissingFileError, UserError
from util.nested_tensor import NestedTensor
from util.transfer import to_device

__all__ = [
    "EncodedPrompt",
    "PointPrompt",
    "PromptEncoder",
    "ScribblePrompt",
    "TextPrompt",
]

# The settings of roberta-base in which a RobertaConfig differs by default: enough to build the
# architecture for a full checkpoint where there is only a tokenizer.
ROBERTA_BASE = dict(
    vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
)


@dataclass(frozen=True)
class EncodedPrompt:
    """What the rest of the model sees of a prompt of T words or points.

    Attributes:
        features: [B, T, D].
        positions: [B, T, D] position encoding of the features.
        padding_mask: [B, T] bool, True where there is no word; None where all count.
        instance_query: [B, D]; None from an encoder that makes none.
        modality: which of the two fusion attentions to use.
    """

    features: Tensor
    positions: Tensor
    padding_mask: Tensor | None
    instance_query: Tensor | None
    modality: Literal["text", "positional"]


class FeatureProjection(nn.Sequential):
    """Linear, LayerNorm (eps 1e-12), dropout: prompt features to the model's width."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim, eps=1e-12), nn.Dropout(dropout)
        )
        nn.init.xavier_uniform_(self[0].weight)
        nn.init.zeros_(self[0].bias)


class PromptEncoder(nn.Module):
    """Encodes sentences with RoBERTa, clicks and scribbles by the pixels under them.

    Args:
        text_encoder: Hugging Face name or local folder of a RoBERTa and its tokenizer.
        pretrained: load its weights; otherwise only `config.json` and the tokenizer are read.
        freeze: keep RoBERTa's weights as they are.
        visual_dim: channels of C4.
        hidden_dim: width D.
        dropout: of the projections.
        instance_query: whether to make the instance query; without, RoBERTa has no pooler.
        use_checkpointing: recompute RoBERTa's activations in the backward pass.

    Raises:
        OSError: the encoder cannot be found.
        ValueError: it is not a RoBERTa.
    """

    def __init__(
        self,
        *,
        text_encoder: str,
        pretrained: bool,
        freeze: bool,
        visual_dim: int,
        hidden_dim: int,
        dropout: float,
        instance_query: bool = True,
        use_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpointing = use_checkpointing
        self.hidden_dim = hidden_dim
        self.tokenizer, self.text_backbone = load_text_encoder(
            text_encoder, pretrained, pooler=instance_query
        )
        if freeze:
            self.text_backbone.requires_grad_(False)
        text_dim = self.text_backbone.config.hidden_size
        # RoBERTa counts positions from pad_token_id + 1.
        self.max_words = (
            self.text_backbone.config.max_position_embeddings
            - self.text_backbone.config.pad_token_id
            - 1
        )
        self.word_projection = FeatureProjection(text_dim, hidden_dim, dropout)
        self.sentence_projection = self.pixel_summary_projection = None
        if instance_query:
            self.sentence_projection = FeatureProjection(text_dim, hidden_dim, dropout)
        self.pixel_projection = FeatureProjection(visual_dim, hidden_dim, dropout)
        if instance_query:
            self.pixel_summary_projection = FeatureProjection(hidden_dim, hidden_dim, dropout)

    def forward(
        self, prompts: Prompt, features: NestedTensor, image_size: tuple[int, int]
    ) -> EncodedPrompt:
        """Encode a batch of prompts.

        Args:
            prompts: one sentence, click or scribble per image.
            features: C4, [B, C, h, w].
            image_size: padded (height, width) of the batch in pixels.

        Raises:
            TypeError: not a prompt.
            ValueError: another number of prompts than images, or points of a wrong shape.
        """
        batch = features.tensors.shape[0]
        if not isinstance(prompts, Prompt):
            raise TypeError(
                "A prompt is a TextPrompt, PointPrompt, ScribblePrompt or another "
                f"datasets.prompts.Prompt; got {type(prompts).__name__}."
            )
        if len(prompts) != batch:
            raise ValueError(f"Got {len(prompts)} prompts for {batch} images.")
        return prompts.encode(self, features, image_size)

    def encode_text(self, captions: list[str], device: torch.device) -> EncodedPrompt:
        """Words are RoBERTa's last hidden states; the instance query is its pooled output."""
        tokens = self.tokenizer(
            captions,
            padding="longest",
            truncation=True,
            max_length=self.max_words,
            return_tensors="pt",
        )
        words = to_device(tokens.input_ids, device)
        padding_mask = to_device(tokens.attention_mask == 0, device)
        is_padded = not tokens.attention_mask.all()  # asked on the CPU
        if self.use_checkpointing and self.training:
            features, sentence = checkpoint(
                self._read, words, padding_mask, is_padded, use_reentrant=False
            )
        else:
            features, sentence = self._read(words, padding_mask, is_padded)
        return EncodedPrompt(
            features=self.word_projection(features),
            positions=encode_words(padding_mask, self.hidden_dim),
            padding_mask=padding_mask,
            instance_query=None if sentence is None else self.sentence_projection(sentence),
            modality="text",
        )

    def _read(
        self, words: Tensor, padding_mask: Tensor, is_padded: bool
    ) -> tuple[Tensor, Tensor | None]:
        """RoBERTa, part by part: as a whole it would ask the GPU whether there is padding.

        Args:
            words: [B, T] int64 tokens.
            padding_mask: [B, T] bool, True where there is no word.
            is_padded: whether there is any padding.

        Returns:
            Last hidden states [B, T, D_text] and pooled output [B, D_text], None without a pooler.
        """
        hidden = self.text_backbone.embeddings(input_ids=words)
        mask = None
        if is_padded:
            mask = torch.zeros_like(padding_mask, dtype=hidden.dtype)
            mask = mask.masked_fill(padding_mask, torch.finfo(hidden.dtype).min)[:, None, None]
        hidden = self.text_backbone.encoder(hidden, attention_mask=mask).last_hidden_state
        pooler = self.text_backbone.pooler
        return hidden, None if pooler is None else pooler(hidden)

    def encode_points(
        self, points: Tensor, features: NestedTensor, image_size: tuple[int, int]
    ) -> EncodedPrompt:
        """Sample C4 and its position encoding under the points; their mean is the query.

        Args:
            points: [B, P, 2] (x, y) in pixels of the padded batch.
            features: C4.
            image_size: padded (height, width) of the batch in pixels.
        """
        if points.dim() != 3 or points.shape[-1] != 2 or points.shape[1] == 0:
            raise ValueError(
                f"Points must have shape [B, P, 2] with P >= 1; got {tuple(points.shape)}."
            )
        height, width = image_size
        normalized = torch.stack([points[..., 0] / width, points[..., 1] / height], -1).clamp(0, 1)
        grid = (2 * normalized - 1)[:, None].to(features.tensors.dtype)  # [B, 1, P, 2]
        position_map = encode_map(features.mask, self.hidden_dim).to(features.tensors.dtype)
        pixels, positions = (
            F.grid_sample(source, grid, mode="bilinear", align_corners=True)[:, :, 0].mT
            for source in (features.tensors, position_map)
        )
        pixels = self.pixel_projection(pixels)
        instance_query = None
        if self.pixel_summary_projection is not None:
            instance_query = self.pixel_summary_projection(pixels.mean(dim=1))
        return EncodedPrompt(
            features=pixels,
            positions=positions,
            padding_mask=None,
            instance_query=instance_query,
            modality="positional",
        )


def load_text_encoder(
    name: str, pretrained: bool, pooler: bool = True
) -> tuple[object, RobertaModel]:
    """Tokenizer and RoBERTa, with or without its weights.

    Args:
        name: Hugging Face name or local folder.
        pretrained: load the weights; otherwise `config.json` decides the architecture, or
            roberta-base's where a folder holds the tokenizer alone.
        pooler: with RoBERTa's last layer, which sums a sentence up.

    Raises:
        UserError: nothing usable at `name`, no weights, or another kind of model.
    """
    folder_without_config = Path(name).is_dir() and not (Path(name) / "config.json").is_file()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        if folder_without_config and not pretrained:
            config = RobertaConfig(**ROBERTA_BASE)
        else:
            config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise MissingFileError(
            f"Text encoder {name!r}: neither a local folder with config.json and tokenizer files "
            f"nor a model that Hugging Face could provide. Download it once (hf download "
            f"roberta-base --local-dir DIR) and set text_encoder=DIR. Cause: {error}"
        ) from error
    if not isinstance(config, RobertaConfig):
        raise UserError(
            f"Text encoder {name!r} is a {config.model_type!r} model; expected a RoBERTa."
        )
    if not pretrained:
        return tokenizer, RobertaModel(config, add_pooling_layer=pooler)
    try:
        model = RobertaModel.from_pretrained(name, add_pooling_layer=pooler, dtype=torch.float32)
    except OSError as error:
        raise MissingFileError(
            f"Text encoder {name!r} has no weights (model.safetensors). Add them, or set "
            "text_encoder_pretrained=False to start from random weights."
        ) from error
    return tokenizer, model
