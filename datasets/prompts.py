"""The kinds of prompt, all of each: a sentence, a click, a scribble.

A `PromptKind` knows where its prompts come from (a sample's target, a command line, a program); a
`Prompt` is a batch of them on its way to the model, and knows how to be encoded and drawn.  Another
kind is a subclass of each and one `register` call; whatever names kinds of prompt (settings,
command lines, evaluation, predictor) then knows it.
"""

from __future__ import annotations

import argparse
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datasets.scribble import NUM_POINTS, resample_stroke
from datasets.values import require_whole_text
from util import visualize
from util.errors import UserError, shown
from util.nested_tensor import NestedTensor

# Of every sample of a batch, the source of what its prompt is drawn from.
Generators = Sequence[np.random.Generator]

# Keeps the prompts' random streams apart from others of (seed, epoch, ...).
_STREAM = 0x9207

# --- prompts on their way to the model -----------------------------------------------------------


class Prompt(ABC):
    """One prompt per image of a batch."""

    @abstractmethod
    def __len__(self) -> int:
        """B, the number of images."""

    @abstractmethod
    def encode(self, encoder: Any, features: NestedTensor, image_size: tuple[int, int]) -> Any:
        """The prompt's features, made with the means of the prompt encoder.

        Args:
            encoder: a `models.uniphd.prompt_encoder.PromptEncoder`: `encode_text`, `encode_points`.
            features: C4 of the images, [B, C, h, w].
            image_size: padded (height, width) of the batch in pixels.

        Returns:
            A `models.uniphd.prompt_encoder.EncodedPrompt`.
        """

    def to(self, device: torch.device | str) -> Prompt:
        """The same prompts on another device."""
        return self

    def scaled(self, x: float, y: float) -> Prompt:
        """The same prompts for images whose pixels are multiplied by (x, y)."""
        return self

    def words(self, index: int) -> str:
        """Prompt `index` as a caption below its image; empty where it is drawn instead."""
        return ""

    def draw(self, image: np.ndarray, index: int) -> np.ndarray:
        """Prompt `index` drawn on its image [h, w, 3] uint8 RGB, in whose pixels it is given."""
        return image


@dataclass(frozen=True)
class TextPrompt(Prompt):
    """One sentence per image."""

    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def encode(self, encoder: Any, features: NestedTensor, image_size: tuple[int, int]) -> Any:
        """See `Prompt.encode`."""
        return encoder.encode_text(self.captions, features.tensors.device)

    def words(self, index: int) -> str:
        """The sentence."""
        return self.captions[index]


@dataclass(frozen=True)
class PositionalPrompt(Prompt):
    """Points on the person, the same number P in every image.

    Attributes:
        points: [B, P, 2] (x, y) in pixels of the padded batch.
    """

    points: Tensor

    def __len__(self) -> int:
        return len(self.points)

    def encode(self, encoder: Any, features: NestedTensor, image_size: tuple[int, int]) -> Any:
        """See `Prompt.encode`."""
        return encoder.encode_points(self.points, features, image_size)

    def to(self, device: torch.device | str) -> PositionalPrompt:
        """See `Prompt.to`."""
        return replace(self, points=self.points.to(device, non_blocking=True))

    def scaled(self, x: float, y: float) -> PositionalPrompt:
        """See `Prompt.scaled`."""
        return replace(self, points=self.points * self.points.new_tensor([x, y]))

    def draw(self, image: np.ndarray, index: int) -> np.ndarray:
        """A single point as a target, several as a line."""
        return visualize.draw_points(image, self.points[index].cpu().numpy())


class PointPrompt(PositionalPrompt):
    """One click per image: points [B, 1, 2]."""


class ScribblePrompt(PositionalPrompt):
    """One scribble per image: points [B, P, 2] along the stroke; P = 12 as published."""


# --- kinds ---------------------------------------------------------------------------------------


class PromptKind(ABC):
    """Where the prompts of one kind come from.

    Attributes:
        name: what settings and command lines call it.
        metavar: form of its command-line value.
        help: of its command-line flag.
    """

    name: ClassVar[str]
    metavar: ClassVar[str]
    help: ClassVar[str]

    def lacking(self, image_entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> str | None:
        """What of a RefHuman pair this kind needs and misses, e.g. "scribble"; None: nothing."""
        return None

    @abstractmethod
    def from_targets(
        self, targets: Sequence[Mapping[str, Any]], generators: Generators | None = None
    ) -> Prompt:
        """The prompts of a batch of samples.

        Args:
            targets: of B finished samples (`datasets.sample.Sample`), one person each.
            generators: by sample, the source of what training draws; None: evaluation, nothing is
                drawn.

        Raises:
            UserError: a sample without what the kind needs, by its image id.
        """

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value of a command-line flag.

        Raises:
            argparse.ArgumentTypeError: `text` is not of the form `metavar`.
        """

    @abstractmethod
    def from_user(self, value: Any, height: int, width: int) -> Prompt:
        """A batch of one prompt from what `parse` returns or a program gives.

        Args:
            value: coordinates are (x, y) in pixels of the image.
            height, width: of the image, in pixels.

        Raises:
            UserError: `value` has the wrong form or lies outside the image.
        """


class TextKind(PromptKind):
    """A sentence about the person."""

    name = "text"
    metavar = "SENTENCE"
    help = "a sentence about the person"

    def lacking(self, image_entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> str | None:
        """See `PromptKind.lacking`."""
        return None if (image_entry.get("caption") or "").strip() else "caption"

    def from_targets(
        self, targets: Sequence[Mapping[str, Any]], generators: Generators | None = None
    ) -> TextPrompt:
        """See `PromptKind.from_targets`."""
        return TextPrompt([required(target, "caption", self.name) for target in targets])

    def parse(self, text: str) -> str:
        """See `PromptKind.parse`."""
        return text

    def from_user(self, value: Any, height: int, width: int) -> TextPrompt:
        """See `PromptKind.from_user`."""
        if not isinstance(value, str):
            raise UserError(f"The text prompt has to be a sentence, got {shown(value)}.")
        if not value.strip():
            raise UserError("The text prompt is empty; describe the person in a sentence.")
        require_whole_text(value, "The text prompt")
        return TextPrompt([value])


class ScribbleKind(PromptKind):
    """A stroke over the person, as 12 points along it."""

    name = "scribble"
    metavar = "X1,Y1,X2,Y2,..."
    help = "points along a stroke over the person"

    def lacking(self, image_entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> str | None:
        """See `PromptKind.lacking`."""
        return None if annotation.get("scribble") else "scribble"

    def from_targets(
        self, targets: Sequence[Mapping[str, Any]], generators: Generators | None = None
    ) -> ScribblePrompt:
        """See `PromptKind.from_targets`."""
        scribbles = [required(target, "scribble", self.name) for target in targets]
        return ScribblePrompt(torch.stack(scribbles))

    def parse(self, text: str) -> list[list[float]]:
        """See `PromptKind.parse`."""
        numbers = parse_numbers(text)
        if len(numbers) < 4 or len(numbers) % 2:
            raise argparse.ArgumentTypeError(
                f"expected two or more points {self.metavar}, got '{text}'"
            )
        return [numbers[i : i + 2] for i in range(0, len(numbers), 2)]

    def from_user(self, value: Any, height: int, width: int) -> ScribblePrompt:
        """See `PromptKind.from_user`; the stroke is resampled to 12 points at equal distances."""
        points = points_inside(value, "scribble [P, 2] with P >= 2", (None, 2), height, width)
        return ScribblePrompt(resample_stroke(points, NUM_POINTS)[None])


class PointKind(PromptKind):
    """A click on the person: in data sets, one of the points of a scribble."""

    name = "point"
    metavar = "X,Y"
    help = "a click on the person"

    # Index of the scribble point that stands for the click, as published.
    EVALUATION_INDEX = 5
    TRAINING_INDICES = (4, 5, 6, 7)

    def lacking(self, image_entry: Mapping[str, Any], annotation: Mapping[str, Any]) -> str | None:
        """See `PromptKind.lacking`."""
        return None if annotation.get("scribble") else "scribble"

    def from_targets(
        self, targets: Sequence[Mapping[str, Any]], generators: Generators | None = None
    ) -> PointPrompt:
        """See `PromptKind.from_targets`; training draws one of four points in the middle."""
        scribbles = torch.stack([required(target, "scribble", self.name) for target in targets])
        if generators is None:
            chosen = torch.full((len(targets),), self.EVALUATION_INDEX)
        else:
            drawn = [generator.choice(self.TRAINING_INDICES) for generator in generators]
            chosen = torch.tensor(drawn)
        return PointPrompt(scribbles.take_along_dim(chosen[:, None, None], dim=1))

    def parse(self, text: str) -> list[float]:
        """See `PromptKind.parse`."""
        numbers = parse_numbers(text)
        if len(numbers) != 2:
            raise argparse.ArgumentTypeError(f"expected {self.metavar}, got '{text}'")
        return numbers

    def from_user(self, value: Any, height: int, width: int) -> PointPrompt:
        """See `PromptKind.from_user`."""
        return PointPrompt(points_inside(value, "point (x, y)", (2,), height, width)[None, None])


# Every kind of prompt by its name; `register` adds to it.
PROMPT_KINDS: dict[str, PromptKind] = {}


def register(kind: PromptKind) -> None:
    """Make a kind of prompt known by its name; an earlier kind of this name is replaced."""
    PROMPT_KINDS[kind.name] = kind


for _kind in (TextKind(), PointKind(), ScribbleKind()):
    register(_kind)


def get_kind(name: str) -> PromptKind:
    """A kind of prompt by its name.

    Raises:
        UserError: unknown name.
    """
    if name not in PROMPT_KINDS:
        close = difflib.get_close_matches(str(name), PROMPT_KINDS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UserError(
            f"Unknown kind of prompt '{name}'; expected one of {', '.join(PROMPT_KINDS)}.{hint}"
        )
    return PROMPT_KINDS[name]


def parse_kinds(text: str) -> list[str]:
    """Names of kinds from a comma list of them; "all" is every one.

    Raises:
        argparse.ArgumentTypeError: an unknown kind.
    """
    if text == "all":
        return list(PROMPT_KINDS)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PROMPT_KINDS:
            raise argparse.ArgumentTypeError(
                f"unknown kind of prompt '{name}'; expected {', '.join(PROMPT_KINDS)}, a comma "
                f"list of these, or all"
            )
    return list(dict.fromkeys(names))


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptSampler:
    """Draws the kind of prompt of every iteration, the same on all processes.

    Attributes:
        probabilities: by name of kind; they need not sum to one.
        seed: together with epoch and step it decides every draw.

    Raises:
        UserError: an unknown kind, a probability that is negative or not finite, or all zero.
    """

    probabilities: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        for name, probability in self.probabilities.items():
            if not (probability >= 0 and math.isfinite(probability)):
                raise UserError(
                    f"prompt_probabilities.{name} has to be a number >= 0, got {probability}."
                )
            get_kind(name)
        if not self.names:
            raise UserError("prompt_probabilities are all zero: no prompt is left to train with.")

    @property
    def names(self) -> list[str]:
        """Kinds that are drawn, in the order of `PROMPT_KINDS`."""
        return [name for name in PROMPT_KINDS if self.probabilities.get(name, 0) > 0]

    def kind(self, epoch: int, step: int) -> str:
        """Name of the kind of step `step` (0, 1, ...) of an epoch."""
        weights = np.array([self.probabilities[name] for name in self.names])
        generator = np.random.default_rng((self.seed, epoch, step))
        return str(generator.choice(self.names, p=weights / weights.sum()))

    def draw(self, kind: str, targets: Sequence[Mapping[str, Any]], epoch: int) -> Prompt:
        """Prompts of a kind for samples of an epoch; a sample's follows from its image id.

        Raises:
            UserError: see `PromptKind.from_targets`.
        """
        generators = [
            np.random.default_rng((self.seed, epoch, target["image_id"] % 2**64, _STREAM))
            for target in targets
        ]
        return get_kind(kind).from_targets(targets, generators)


def asked_kinds(cfg: Any, *, training: bool) -> list[str]:
    """Names of the kinds that every sample has to support.

    Training asks for those that are drawn, evaluation for those it is to run with.

    Args:
        cfg: configuration.
        training: of the samples.
    """
    if training:
        return PromptSampler(cfg.prompt_probabilities, cfg.seed).names
    return cfg.eval_prompts


# --- helpers of kinds ----------------------------------------------------------------------------


def required(target: Mapping[str, Any], key: str, kind: str) -> Any:
    """`target[key]`.

    Raises:
        UserError: the sample does not have it.
    """
    if target.get(key) is None:
        raise UserError(
            f"Image id {target['image_id']} has no {key}, which {kind} prompts need; add it to the "
            f"annotation file or leave the pair out."
        )
    return target[key]


def parse_numbers(text: str) -> list[float]:
    """Numbers between commas.

    Raises:
        argparse.ArgumentTypeError: something else, or one that is infinite or no number.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers between commas, got '{text}'") from None
    if not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"expected finite numbers, got '{text}'")
    return numbers


def points_inside(
    points: Any, expected: str, shape: tuple[int | None, ...], height: int, width: int
) -> Tensor:
    """A user's points as float32, checked.

    Args:
        points: (x, y) in pixels of the image.
        expected: what they should be, for the error.
        shape: of the result; None stands for any length of at least 2.
        height, width: of the image.

    Raises:
        UserError: another shape, numbers that are not finite, or points outside the image.
    """
    try:
        array = np.asarray(points)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"Expected a {expected}; got {shown(points)}.") from error
    # Not text or booleans, nor numbers that are too large for NumPy
    fits = (
        array.dtype.kind in "iuf"
        and array.ndim == len(shape)
        and all(
            length == wanted if wanted is not None else length >= 2
            for length, wanted in zip(array.shape, shape, strict=True)
        )
    )
    if not fits or not np.isfinite(array).all():
        raise UserError(f"Expected a {expected} of finite numbers; got {shown(points)}.")
    if (array < 0).any() or (array > [width, height]).any():
        raise UserError(
            f"The prompt {shown(array.tolist())} leaves the image, which is {width} pixels wide "
            f"and {height} high; give (x, y) inside it."
        )
    return torch.from_numpy(array.astype(np.float32))
