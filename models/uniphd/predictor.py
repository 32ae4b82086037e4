"""One image, any number of prompts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datasets.scribble import NUM_POINTS, resample_stroke
from models.uniphd.postprocess import PostProcess
from models.uniphd.prompt_encoder import PointPrompt, Prompt, ScribblePrompt, TextPrompt
from models.uniphd.uniphd import UniPHD
from util.errors import UserError
from util.images import IMAGENET_MEAN, IMAGENET_STD, load_image, size_for_longer_side
from util.nested_tensor import NestedTensor

# The trained tiny model that comes with the repository.
DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[2] / "weights" / "uniphd_tiny.safetensors"


@dataclass(frozen=True)
class Prediction:
    """The referred person, in pixels of the given image.

    Attributes:
        keypoints: [K, 3] float32 (x, y, confidence).
        mask: [h, w] bool, or None from a model without a mask head.
        box: [4] float32 (left, top, right, bottom).
        score: confidence in [0, 1].
    """

    keypoints: np.ndarray
    mask: np.ndarray | None
    box: np.ndarray
    score: float


class Predictor:
    """Holds an image's features, so that every further prompt costs only the rest of the model.

    Args:
        model: a trained model; it is put into evaluation mode.
        postprocessor: belongs to the model.
        max_side: longer side of the image as the model sees it, in pixels.
        divisor: the padded sides are multiples of it.
    """

    def __init__(
        self, model: UniPHD, postprocessor: PostProcess, max_side: int, divisor: int
    ) -> None:
        self.model = model.eval()
        self.postprocessor = postprocessor
        self.max_side = max_side
        self.divisor = divisor
        self._encoded: _EncodedImage | None = None

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike = DEFAULT_CHECKPOINT,
        device: torch.device | str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """A predictor from a checkpoint file alone.

        Args:
            path: one of our checkpoints, or the published one; by default the repository's tiny
                model, trained on synthetic images.
            device: by default CUDA where there is one.
            config: settings; by default those stored in the checkpoint, or config/uniphd.py for
                the published one, which holds none.

        Raises:
            UserError: the checkpoint cannot be read or does not fit.
            OSError: the text encoder's tokenizer is not there.
        """
        from models import build_model  # builds what this file describes
        from util import checkpoint
        from util.config import DECLARATIONS, Config

        payload = checkpoint.load(path)
        if isinstance(config, Config):
            cfg = Config(config)
        elif config is not None:
            cfg = Config.from_stored(config, source="the given config")
        elif "config" in payload:
            cfg = Config.from_stored(payload["config"], source=path)
        else:
            cfg = Config.fromfile(DECLARATIONS)
        # The checkpoint has all weights: nothing else is to be read.
        cfg.merge_from_dict({"text_encoder_pretrained": False, "backbone_pretrained": None})
        model, _, postprocessor = build_model(cfg)
        checkpoint.load_weights(model, payload["model"])
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(
            model.to(device), postprocessor, max_side=cfg.eval_max_side, divisor=cfg.pad_divisor
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def set_image(self, image: str | os.PathLike | Image.Image | np.ndarray) -> None:
        """Encode an image for the prompts that follow.

        Args:
            image: a file, a PIL image (both turned upright by their EXIF rotation), or a uint8
                array [h, w, 3] in RGB.

        Raises:
            UserError: not an image.
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    "An image as an array must be uint8 [h, w, 3] in RGB; got "
                    f"{image.dtype} {list(image.shape)}."
                )
            pixels = image
        else:
            pixels = load_image(image)
        original_size = pixels.shape[:2]
        size = size_for_longer_side(*original_size, self.max_side)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        tensor = F.resize(tensor, list(size), antialias=True)
        tensor = F.normalize(F.to_dtype(tensor, scale=True), IMAGENET_MEAN, IMAGENET_STD)
        samples = NestedTensor.from_list([tensor.to(self.device)], divisor=self.divisor)
        features = self.model.backbone(samples)
        self._encoded = _EncodedImage(samples, features, size, original_size)

    @torch.inference_mode()
    def predict(
        self,
        text: str | None = None,
        point: Sequence[float] | None = None,
        scribble: Sequence[Sequence[float]] | None = None,
    ) -> Prediction:
        """Find the person that one prompt refers to.

        Args:
            text: a sentence.
            point: (x, y) in pixels of the image.
            scribble: [P, 2] (x, y) in pixels of the image, P >= 2, along the stroke; it is
                resampled to 12 points at equal distances.

        Raises:
            RuntimeError: no image was set.
            UserError: not exactly one prompt, or a prompt of a wrong form.
        """
        if self._encoded is None:
            raise RuntimeError("No image is set: call set_image before predict.")
        encoded = self._encoded
        prompt = self._make_prompt(text, point, scribble)
        outputs = self.model(encoded.samples, prompt, features=encoded.features)
        result = self.postprocessor(
            outputs,
            target_sizes=torch.tensor([encoded.original_size], device=self.device),
            image_sizes=torch.tensor([encoded.size], device=self.device),
        )[0]
        return Prediction(
            keypoints=result["keypoints"][0].cpu().numpy(),
            mask=result["masks"][0].cpu().numpy() if "masks" in result else None,
            box=result["boxes"][0].cpu().numpy(),
            score=float(result["scores"][0]),
        )

    def _make_prompt(
        self,
        text: str | None,
        point: Sequence[float] | None,
        scribble: Sequence[Sequence[float]] | None,
    ) -> Prompt:
        given = [
            name
            for name, value in (("text", text), ("point", point), ("scribble", scribble))
            if value is not None
        ]
        if len(given) != 1:
            raise UserError(
                f"Give exactly one prompt: text, point or scribble; got {' and '.join(given)}."
                if given
                else "Give a prompt: text, point or scribble."
            )
        if text is not None:
            if not text.strip():
                raise UserError("The text prompt is empty; describe the person in a sentence.")
            return TextPrompt([text])
        if point is not None:
            return PointPrompt(self._to_model_pixels(point, "point (x, y)", (2,))[None, None])
        points = self._to_model_pixels(scribble, "scribble [P, 2] with P >= 2", (None, 2))
        return ScribblePrompt(resample_stroke(points, NUM_POINTS)[None])

    def _to_model_pixels(
        self, points: Sequence, expected: str, shape: tuple[int | None, ...]
    ) -> Tensor:
        """Coordinates in the given image → in the resized one, with checks."""
        try:
            array = np.asarray(points, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"Expected a {expected}; got {points!r}.") from error
        fits = array.ndim == len(shape) and all(
            length == want if want is not None else length >= 2
            for length, want in zip(array.shape, shape, strict=True)
        )
        if not fits or not np.isfinite(array).all():
            raise UserError(f"Expected a {expected} of finite numbers; got {points!r}.")
        height, width = self._encoded.original_size
        if (array < 0).any() or (array > [width, height]).any():
            raise UserError(
                f"The prompt {array.tolist()} leaves the image, which is {width} pixels wide "
                f"and {height} high; give (x, y) inside it."
            )
        scale = np.array([self._encoded.size[1] / width, self._encoded.size[0] / height])
        return torch.from_numpy(array * scale.astype(np.float32)).to(self.device)


@dataclass(frozen=True)
class _EncodedImage:
    """What `set_image` keeps; sizes are (height, width) in pixels."""

    samples: NestedTensor
    features: list[NestedTensor]
    size: tuple[int, int]
    original_size: tuple[int, int]
