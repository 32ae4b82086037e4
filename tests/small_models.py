"""Small models, prompts and targets of the real kind, made without any file from outside."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer, processors

from models import build_model
from models.uniphd.prompt_encoder import PointPrompt, ScribblePrompt, TextPrompt
from util.config import Config
from util.nested_tensor import NestedTensor

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZES = ((64, 96), (96, 64))
CAPTIONS = ["a man in a red coat", "the second player from the right"]


# Settings of a model that is built and run in a moment.
SMALL = {
    "backbone_options": {
        "embed_dim": 16,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 4, 8],
        "window_size": 4,
    },
    "hidden_dim": 32,
    "num_heads": 4,
    "feedforward_dim": 48,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "num_groups": 5,
}


def write_roberta(folder: Path) -> str:
    """A two-layer RoBERTa without weights: config.json and a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ByteLevelBPETokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        CAPTIONS, 300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    tokenizer._tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 30}
    settings |= {f"{name}_token": token for name, token in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "model_type": "roberta",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def small_config(text_encoder: str, **changes: object) -> Config:
    """The paper's configuration, everything in it small; `__` in a name stands for a dot."""
    cfg = Config.fromfile(REPOSITORY / "config" / "uniphd.py")
    settings = {"text_encoder": text_encoder, "text_encoder_pretrained": False, **SMALL}
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    cfg.merge_from_dict(settings)
    return cfg


def small_model(folder: Path, **changes: object):
    """(model, criterion, postprocessor), weights random with a fixed seed and none of them zero."""
    torch.manual_seed(0)
    built = build_model(small_config(write_roberta(folder / "roberta"), **changes))
    for parameter in built[0].parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter.shape[-1] ** 0.5)
    return built


def random_images(sizes=SIZES) -> list[torch.Tensor]:
    """Images [3, h, w]."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def random_batch(sizes=SIZES) -> NestedTensor:
    """A padded batch."""
    return NestedTensor.from_list(random_images(sizes))


def all_prompts(sizes=SIZES) -> dict:
    """One prompt of every kind for the images."""
    generator = torch.Generator().manual_seed(4)
    scale = torch.tensor([[width - 1.0, height - 1.0] for height, width in sizes])
    points = torch.rand(len(sizes), 12, 2, generator=generator) * scale[:, None]
    return {
        "text": TextPrompt([CAPTIONS[i % 2] for i in range(len(sizes))]),
        "scribble": ScribblePrompt(points),
        "point": PointPrompt(points[:, 5:6]),
    }


def random_targets(sizes=SIZES) -> list[dict]:
    """One person per image."""
    generator = torch.Generator().manual_seed(5)
    targets = []
    for index, (height, width) in enumerate(sizes):
        keypoints = torch.rand(1, 17, 3, generator=generator)
        keypoints[..., 2] = (keypoints[..., 2] > 0.3).float()
        targets.append(
            {
                "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.6]]),
                "labels": torch.tensor([1]),
                "keypoints": keypoints,
                "area": torch.tensor([0.12]),
                "masks": torch.rand(1, height, width, generator=generator) > 0.6,
                "image_id": index + 1,
            }
        )
    return targets
