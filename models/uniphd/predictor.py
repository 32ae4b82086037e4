"""One image, any number of prompts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from datasets.prompts import get_kind
from models.uniphd.postprocess import PostProcess
from models.uniphd.uniphd import UniPHD
from util.devices import find_device
from util.errors import UserError
from util.images import evaluation_size, load_image
from util.nested_tensor import NestedTensor
from util.normalization import normalize_images

# The trained tiny model that comes with the repository.
DEFAULT_CHECKPOINT = Path(__file__).resolve().parents[2] / "weights" / "uniphd_tiny.safetensors"


@dataclass(frozen=True)
class Prediction:
    """The referred person, in pixels of the given image.

    Attributes:
        keypoints: [K, 3] float32 (x, y, confidence), or None from a model without a pose head.
        mask: [h, w] bool, or None from a model without a mask head.
        box: [4] float32 (left, top, right, bottom).
        score: confidence in [0, 1].
    """

    keypoints: np.ndarray | None
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
        short_side: shorter side; the longer is then at most `max_side`. None: as `max_side` says.
    """

    def __init__(
        self,
        model: UniPHD,
        postprocessor: PostProcess,
        max_side: int,
        divisor: int,
        short_side: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.postprocessor = postprocessor
        self.max_side = max_side
        self.divisor = divisor
        self.short_side = short_side
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
            device: see `util.devices.find_device`.
            config: settings; by default those stored in the checkpoint, or config/uniphd.py for
                the published one, which holds none.

        Raises:
            MissingFileError: no such checkpoint.
            UserError: it cannot be read, does not fit, or neither holds settings nor are some
                given; the text encoder's tokenizer or the device is not there.
        """
        from models import build_model  # builds what this file describes
        from util import checkpoint
        from util.config import DECLARATIONS, Config

        device = find_device(device)
        payload = checkpoint.load(path, model="uniphd")
        origin = "the given settings"
        if isinstance(config, Config):
            cfg = Config(config)
        elif config is not None:
            cfg = Config.from_stored(config, source="the given config")
        elif "config" in payload:
            cfg, origin = Config.from_stored(payload["config"], source=path), "its own settings"
        elif "published" in payload:
            cfg, origin = Config.fromfile(DECLARATIONS), f"config/{DECLARATIONS.name}"
            width = payload["model"].get("encoder.level_embedding", torch.empty(0)).shape[-1]
            if width != cfg.hidden_dim:  # told before a text encoder is looked for in the network
                raise UserError(
                    f"{path}: there are no settings inside, and the weights of {origin} have "
                    f"hidden_dim={cfg.hidden_dim}, not {width}. Name the configuration that it was "
                    "trained with: -c FILE, or `config`."
                )
        else:
            raise UserError(
                f"{path}: there are no settings inside, so nothing says which model these weights "
                "belong to. Name the configuration that it was trained with: -c FILE, or `config`."
            )
        try:
            model, _, postprocessor = build_model(cfg, payload["model"])
        except (UserError, OSError) as error:
            raise UserError(
                f"{path}: the model cannot be built with {origin} (others: -c FILE, or `config`). "
                f"{error}"
            ) from error
        return cls(
            model.to(device),
            postprocessor,
            max_side=cfg.eval_max_side,
            divisor=cfg.pad_divisor,
            short_side=cfg.eval_short_side,
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def set_image(self, image: str | os.PathLike | BinaryIO | Image.Image | np.ndarray) -> None:
        """Encode an image for the prompts that follow.

        Args:
            image: a file or its path, a PIL image (all turned upright by their EXIF rotation), or a
                uint8 array [h, w, 3] in RGB.

        Raises:
            MissingFileError, UserError: not an image. There is no image then, not the previous
                one either.
        """
        self._encoded = None
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(
                    "An image as an array must be uint8 [h, w, 3] in RGB; got "
                    f"{image.dtype} {list(image.shape)}."
                )
            pixels = image
        elif isinstance(image, (str, os.PathLike, Image.Image)) or hasattr(image, "read"):
            pixels = load_image(image)
        else:
            raise UserError(
                f"An image has to be a file, a PIL image or an array; got {type(image).__name__}."
            )
        original_size = pixels.shape[:2]
        size = evaluation_size(*original_size, self.max_side, self.short_side)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        tensor = F.resize(tensor, list(size), antialias=True)
        normalized = normalize_images(tensor.to(self.device))
        samples = NestedTensor.from_list([normalized], divisor=self.divisor)
        features = self.model.encode_image(samples)
        self._encoded = _EncodedImage(samples, features, size, original_size)

    @torch.inference_mode()
    def predict(
        self,
        text: str | None = None,
        point: Sequence[float] | None = None,
        scribble: Sequence[Sequence[float]] | None = None,
        **other: Any,
    ) -> Prediction:
        """Find the person that one prompt refers to.

        Args:
            text: a sentence; what exceeds the longest text of the model is not read.
            point: (x, y) in pixels of the image.
            scribble: [P, 2] (x, y) in pixels of the image, P >= 2, along the stroke; it is
                resampled to 12 points at equal distances.
            other: prompts of other registered kinds (`datasets.prompts`), by name.

        Raises:
            RuntimeError: no image was set.
            UserError: not exactly one prompt, a prompt of a wrong form, or an answer that is not
                finite.
        """
        if self._encoded is None:
            raise RuntimeError("No image is set: call set_image before predict.")
        encoded = self._encoded
        name, value = one_prompt({"text": text, "point": point, "scribble": scribble, **other})
        height, width = encoded.original_size
        prompts = get_kind(name).from_user(value, height, width)
        prompts = prompts.scaled(encoded.size[1] / width, encoded.size[0] / height)
        outputs = self.model(encoded.samples, prompts.to(self.device), features=encoded.features)
        result = self.postprocessor(
            outputs,
            target_sizes=torch.tensor([encoded.original_size], device=self.device),
            image_sizes=torch.tensor([encoded.size], device=self.device),
        )[0]
        best = {name: values[0].cpu().numpy() for name, values in result.items()}
        _require_finite(best)
        return Prediction(
            keypoints=best.get("keypoints"),
            mask=best.get("masks"),
            box=best["boxes"],
            score=float(best["scores"]),
        )


def one_prompt(values: Mapping[str, Any]) -> tuple[str, Any]:
    """Kind and value of the one prompt that is given.

    Args:
        values: by name of kind; None: not given.

    Raises:
        UserError: none or several are given.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        raise UserError(f"No prompt was given; give one of {', '.join(values)}.")
    if len(given) > 1:
        raise UserError(f"Give exactly one prompt: got {' and '.join(given)}.")
    return next(iter(given.items()))


def _require_finite(best: Mapping[str, np.ndarray]) -> None:
    """Refuse an answer that is none.

    Args:
        best: see `PostProcess.forward`, of the best pair.

    Raises:
        UserError: naming the parts that are not finite.
    """
    names = {"scores": "score", "keypoints": "keypoints", "boxes": "box", "mask_sums": "mask"}
    broken = [name for key, name in names.items() if not np.isfinite(best.get(key, 0.0)).all()]
    if broken:
        raise UserError(
            f"The model's answer is not made of finite numbers ({', '.join(broken)}): its weights "
            f"are spoilt. Take another checkpoint, an earlier one of the same training for example."
        )


@dataclass(frozen=True)
class _EncodedImage:
    """What `set_image` keeps; sizes are (height, width) in pixels."""

    samples: NestedTensor
    features: list[NestedTensor]
    size: tuple[int, int]
    original_size: tuple[int, int]
