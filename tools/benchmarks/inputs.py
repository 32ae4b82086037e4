"""Models of random weights and batches of noise, by names that older commits have as well."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from datasets.prompts import ScribblePrompt
    from util.config import Config
    from util.nested_tensor import NestedTensor

NUM_KEYPOINTS = 17
# Scribbles need no words, and the sentences here are few: a small text encoder will do.
TEXT_ENCODER = "config/tiny_text_encoder"
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
OPERATOR_VARIABLE = "UNIPHD_MS_DEFORM_ATTN"


def choose_operator(options: dict[str, Any]) -> None:
    """Set which deformable attention runs: option `operator`, "auto", "compiled" or "pytorch"."""
    os.environ[OPERATOR_VARIABLE] = options.get("operator", "auto")


def choose_performance(options: dict[str, Any]) -> None:
    """Do on the CPU as main.py does: options `keep_memory` and `packed`, both true by default.

    Older commits know neither.
    """
    if options["device"] != "cpu":
        return
    try:
        from models.performance import linear
        from models.performance.memory import keep_freed_memory
    except ImportError:
        return
    if options.get("keep_memory", True):
        keep_freed_memory()
    if not options.get("packed", True):
        linear._can_pack = lambda x, weight: False


def choose_precision(options: dict[str, Any]) -> None:
    """Set TF32: option `tf32`."""
    torch.set_float32_matmul_precision("high" if options.get("tf32") else "highest")
    torch.backends.cudnn.allow_tf32 = bool(options.get("tf32"))


def autocast(options: dict[str, Any]) -> torch.autocast:
    """Mixed precision: option `amp`, "off", "bfloat16" or "float16"."""
    device = torch.device(options["device"]).type
    return torch.autocast(device, TYPES.get(options["amp"]), enabled=options["amp"] != "off")


def read_config(options: dict[str, Any]) -> Config:
    """The settings: option `config_file`, and `settings` that replace its values."""
    from util.config import Config

    cfg = Config.fromfile(options["config_file"])
    cfg.merge_from_dict({"text_encoder": TEXT_ENCODER, "text_encoder_pretrained": False})
    cfg.merge_from_dict(options.get("settings", {}))
    return cfg


def build(options: dict[str, Any]) -> tuple[nn.Module, nn.Module, nn.Module, Config]:
    """Model, criterion and postprocessor on their device, and the settings."""
    from models import build_model

    choose_operator(options)
    choose_performance(options)
    choose_precision(options)
    cfg = read_config(options)
    torch.manual_seed(0)
    model, criterion, postprocessor = build_model(cfg)
    device = options["device"]
    return model.to(device), criterion.to(device), postprocessor, cfg


def random_images(options: dict[str, Any]) -> list[Tensor]:
    """`batch_size` images of noise [3, `height`, `width`]."""
    generator = torch.Generator().manual_seed(0)
    size = (3, options["height"], options["width"])
    return [torch.randn(*size, generator=generator) for _ in range(options["batch_size"])]


def random_scribbles(options: dict[str, Any]) -> Tensor:
    """A scribble an image, [B, 12, 2] (x, y) in pixels."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([options["width"], options["height"]])
    return torch.rand(options["batch_size"], 12, 2, generator=generator) * size


def random_batch(options: dict[str, Any]) -> tuple[NestedTensor, ScribblePrompt]:
    """Images of noise with a scribble each, on their device."""
    from models.uniphd.prompt_encoder import ScribblePrompt
    from util.nested_tensor import NestedTensor

    device = options["device"]
    samples = NestedTensor.from_list(random_images(options)).to(device)
    return samples, ScribblePrompt(random_scribbles(options)).to(device)


def random_targets(options: dict[str, Any]) -> list[dict[str, Any]]:
    """One person an image, on the CPU: an ellipse as mask, all keypoints visible."""
    generator = torch.Generator().manual_seed(2)
    height, width = options["height"], options["width"]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    mask = ((x / 0.4) ** 2 + (y / 0.8) ** 2 < 1)[None]
    scribbles = random_scribbles(options)
    targets = []
    for index in range(options["batch_size"]):
        keypoints = torch.rand(1, NUM_KEYPOINTS, 3, generator=generator)
        keypoints[..., 2] = 1.0
        targets.append(
            {
                "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.8]]),
                "labels": torch.ones(1, dtype=torch.int64),
                "keypoints": keypoints,
                "area": torch.tensor([0.2]),
                "masks": mask.clone(),
                "scribble": scribbles[index],
                "caption": "the person in the middle",
                "image_id": index,
                "size": torch.tensor([height, width]),
                "orig_size": torch.tensor([height, width]),
            }
        )
    return targets
