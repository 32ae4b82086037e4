"""Images of people: keypoints, masks, boxes and prompts drawn onto an image.

Images are [h, w, 3] uint8 RGB arrays; coordinates are (x, y) in their pixels.  Nothing draws into
its argument.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from util.files import written_whole
from util.images import IMAGENET_MEAN, IMAGENET_STD

Color = tuple[int, int, int]

LEFT_COLOR: Color = (64, 224, 96)
RIGHT_COLOR: Color = (255, 128, 32)
CENTER_COLOR: Color = (255, 240, 64)
MASK_COLOR: Color = (48, 144, 255)
MASK_OPACITY = 0.35  # the colours of clothes, which captions speak of, stay recognisable
BOX_COLOR: Color = (48, 208, 255)
PROMPT_COLOR: Color = (255, 32, 160)
_OUTLINE: Color = (0, 0, 0)

# cv2 draws with this many fractional bits, so that lines do not jump from pixel to pixel.
_SHIFT = 4

# The longer side of what `comparison` draws on is at least this: limbs stay apart from each other.
_SMALLEST_CANVAS = 480


@dataclass(frozen=True)
class Person:
    """What there is to draw of a person; None or absent parts are left out.

    Attributes:
        keypoints: [K, 3] (x, y, v); those with v > 0 are drawn.
        mask: [h, w] bool.
        box: [4] (left, top, right, bottom).
    """

    keypoints: np.ndarray | None = None
    mask: np.ndarray | None = None
    box: np.ndarray | None = None


def draw_person(
    image: np.ndarray,
    person: Person,
    limbs: Sequence[tuple[int, int]],
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> np.ndarray:
    """Draw mask, box, limbs and keypoints.

    Args:
        image: [h, w, 3] RGB.
        person: what to draw.
        limbs: pairs of keypoints that a line joins.
        flip_pairs: (left, right) pairs of keypoints; the person's left is green, the right orange,
            what belongs to neither yellow.
    """
    canvas = np.ascontiguousarray(image).copy()
    if person.mask is not None:
        canvas = _draw_mask(canvas, np.asarray(person.mask, dtype=bool))
    thickness = _thickness(canvas)
    if person.box is not None:
        left, top, right, bottom = (_fixed_point(value) for value in person.box)
        cv2.rectangle(
            canvas, (left, top), (right, bottom), BOX_COLOR, thickness, cv2.LINE_AA, _SHIFT
        )
    if person.keypoints is None:
        return canvas
    sides = {index: LEFT_COLOR for index, _ in flip_pairs}
    sides |= {index: RIGHT_COLOR for _, index in flip_pairs}
    keypoints = np.asarray(person.keypoints, dtype=np.float64)
    visible = keypoints[:, 2] > 0
    for first, second in limbs:
        if visible[first] and visible[second]:
            same_side = sides.get(first) == sides.get(second)
            color = sides.get(first, CENTER_COLOR) if same_side else CENTER_COLOR
            _line(canvas, keypoints[first], keypoints[second], color, thickness)
    for index in np.flatnonzero(visible):
        _dot(canvas, keypoints[index], sides.get(int(index), CENTER_COLOR), thickness)
    return canvas


def draw_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Draw a positional prompt: a scribble [P, 2] as a line, a click [1, 2] as a target."""
    canvas = np.ascontiguousarray(image).copy()
    thickness = _thickness(canvas)
    points = np.asarray(points, dtype=np.float64)
    if len(points) > 1:
        corners = np.array([[_fixed_point(value) for value in point] for point in points])
        for color, extra in ((_OUTLINE, 2), (PROMPT_COLOR, 0)):
            width = 2 * thickness + extra
            cv2.polylines(canvas, [corners], False, color, width, cv2.LINE_AA, _SHIFT)
    else:
        _dot(canvas, points[0], PROMPT_COLOR, 2 * thickness)
        _dot(canvas, points[0], (255, 255, 255), thickness / 2)
    return canvas


def draw_people(
    image: np.ndarray,
    people: Sequence[Person],
    limbs: Sequence[tuple[int, int]],
    flip_pairs: Sequence[tuple[int, int]] = (),
) -> np.ndarray:
    """Draw any number of people, the first on top; see `draw_person`."""
    for person in reversed(people):
        image = draw_person(image, person, limbs, flip_pairs)
    return image


def comparison(
    image: np.ndarray,
    predictions: Sequence[Person],
    truth: Sequence[Person] | None,
    limbs: Sequence[tuple[int, int]],
    flip_pairs: Sequence[tuple[int, int]] = (),
    words: str = "",
    draw_prompt: Callable[[np.ndarray, float], np.ndarray] | None = None,
) -> np.ndarray:
    """Predictions, and where it is known the ground truth beside them, over a line of words.

    Args:
        image: [h, w, 3] RGB; a small one is enlarged.
        predictions: people of the left half.
        truth: people of the right half; None leaves it out.
        limbs: see `draw_person`.
        flip_pairs: see `draw_person`.
        words: text below the image.
        draw_prompt: called with the image, enlarged, and the factor of that; returns it with the
            prompt drawn on it.
    """
    scale = max(1, math.ceil(_SMALLEST_CANVAS / max(image.shape[:2])))
    canvas = _enlarge(image, scale)
    halves = []
    for title, people in (("prediction", predictions), ("ground truth", truth)):
        if people is None:
            continue
        scaled = [_scale_person(person, scale) for person in people]
        drawn = draw_people(canvas, scaled, limbs, flip_pairs)
        if draw_prompt is not None:
            drawn = draw_prompt(drawn, scale)
        halves.append(drawn if truth is None else add_text(drawn, title))
    joined = contact_sheet(halves, columns=2)
    return add_text(joined, words) if words else joined


def draw_result(
    image: Tensor,
    target: Mapping[str, Any],
    result: Mapping[str, Tensor],
    limbs: Sequence[tuple[int, int]],
    flip_pairs: Sequence[tuple[int, int]],
    *,
    title: str,
    draw_prompt: Callable[[np.ndarray, float, float], np.ndarray] | None = None,
    least_score: float | None = None,
) -> np.ndarray:
    """A sample's predictions and ground truth side by side.

    Args:
        image: [3, H, W] normalised, possibly padded at the bottom and right.
        target: of the sample: `keypoints` [P, K, 3] and boxes relative to the image, `masks`
            [P, H, W] bool where there are masks, `size`, `orig_size`, `image_id`.
        result: of a postprocessor, in pixels of the original image.
        limbs: see `draw_person`.
        flip_pairs: see `draw_person`.
        title: words below the image, before its id and the score.
        draw_prompt: called with an image and two factors; returns the image with the prompt drawn
            on it.  The image's pixels are those of the batch, multiplied by the factors (x, y).
        least_score: draw all people of at least this score; None draws the best alone.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    height, width = target["size"].tolist()
    original_size = tuple(target["orig_size"].tolist())
    x_factor, y_factor = original_size[1] / width, original_size[0] / height
    pixels = _to_pixels(image[:, :height, :width], original_size)

    keypoints = target["keypoints"] * torch.tensor([original_size[1], original_size[0], 1])
    masks: Any = [None] * len(keypoints)
    if "masks" in target and len(keypoints) > 0:
        resized = F.interpolate(target["masks"][None].float(), size=original_size)[0]
        masks = (resized > 0.5).numpy()
    truth = [Person(pose, mask) for pose, mask in zip(keypoints.numpy(), masks, strict=True)]

    order = result["scores"].argsort(descending=True, stable=True).cpu()
    if least_score is None:
        chosen = order[:1].tolist()
        score = f", score {result['scores'][chosen[0]]:.2f}" if chosen else ""
    else:
        counts = (result["scores"] >= least_score) & (result["labels"] == 1)
        chosen = [index for index in order.tolist() if counts[index]]
        score = f", {len(chosen)} of score {least_score} or more"
    predictions = [
        Person(
            result["keypoints"][index].cpu().numpy() if "keypoints" in result else None,
            result["masks"][index].cpu().numpy() if "masks" in result else None,
        )
        for index in chosen
    ]

    def draw_enlarged(canvas: np.ndarray, scale: float) -> np.ndarray:
        return draw_prompt(canvas, scale * x_factor, scale * y_factor)

    return comparison(
        pixels,
        predictions,
        truth,
        limbs,
        flip_pairs,
        f"{title}  (image id {target['image_id']}{score})",
        None if draw_prompt is None else draw_enlarged,
    )


def add_text(image: np.ndarray, text: str) -> np.ndarray:
    """The image with a white strip below that holds the text, wrapped to its width."""
    width = image.shape[1]
    size = max(11, min(18, width // 24))
    font = ImageFont.load_default(size)
    margin = 4
    lines = _wrap(text, font, width - 2 * margin)
    line_height = round(1.35 * size)
    strip = Image.new("RGB", (width, line_height * len(lines) + 2 * margin), (255, 255, 255))
    pen = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        pen.text((margin, margin + row * line_height), line, fill=(0, 0, 0), font=font)
    return np.concatenate([image, np.asarray(strip)], axis=0)


def contact_sheet(
    images: Sequence[np.ndarray], columns: int, background: Color = (64, 64, 64)
) -> np.ndarray:
    """Images of any sizes in a grid, row by row.

    Raises:
        ValueError: no images, or fewer than one column.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"A contact sheet of {len(images)} images in {columns} columns.")
    gap = 4
    columns = min(columns, len(images))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.empty(
        (sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (columns - 1), 3), dtype=np.uint8
    )
    sheet[:] = background
    top = 0
    for row, row_height in zip(rows, heights, strict=True):
        left = 0
        for image, column_width in zip(row, widths, strict=False):
            height, width = image.shape[:2]
            sheet[top : top + height, left : left + width] = image
            left += column_width + gap
        top += row_height + gap
    return sheet


def save(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image file; folders are made. The file is complete or not there at all."""
    with written_whole(path) as temporary:
        Image.fromarray(image).save(temporary)


# --- pieces --------------------------------------------------------------------------------------


def _thickness(image: np.ndarray) -> int:
    """Of limbs, in pixels, in proportion to the image."""
    return max(1, round(max(image.shape[:2]) / 240))


def _fixed_point(value: float) -> int:
    """A coordinate as cv2 takes it; far outside the image it is cut off."""
    return int(round(float(np.clip(np.nan_to_num(value), -1e4, 1e5)) * 2**_SHIFT))


def _line(
    canvas: np.ndarray, start: np.ndarray, end: np.ndarray, color: Color, thickness: int
) -> None:
    ends = [(_fixed_point(x), _fixed_point(y)) for x, y in (start[:2], end[:2])]
    cv2.line(canvas, *ends, _OUTLINE, thickness + 2, cv2.LINE_AA, _SHIFT)
    cv2.line(canvas, *ends, color, thickness, cv2.LINE_AA, _SHIFT)


def _dot(canvas: np.ndarray, center: np.ndarray, color: Color, thickness: float) -> None:
    position = (_fixed_point(center[0]), _fixed_point(center[1]))
    radius = 1.5 * thickness + 0.5
    cv2.circle(canvas, position, _fixed_point(radius + 1), _OUTLINE, -1, cv2.LINE_AA, _SHIFT)
    cv2.circle(canvas, position, _fixed_point(radius), color, -1, cv2.LINE_AA, _SHIFT)


def _draw_mask(canvas: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if mask.shape != canvas.shape[:2]:
        raise ValueError(f"A mask of {mask.shape} for an image of {canvas.shape[:2]} (h, w).")
    tinted = canvas.astype(np.float32)
    tinted[mask] += MASK_OPACITY * (np.array(MASK_COLOR, dtype=np.float32) - tinted[mask])
    canvas = tinted.round().astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, MASK_COLOR, 1)
    return canvas


def _to_pixels(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """A normalised image [3, H, W] as [h, w, 3] uint8 RGB of another size (height, width)."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    image = F.interpolate((image.float().cpu() * std + mean)[None], size=size, mode="bilinear")[0]
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    if scale == 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _scale_person(person: Person, scale: int) -> Person:
    keypoints = person.keypoints
    if keypoints is not None:
        keypoints = np.asarray(keypoints, dtype=np.float64) * (scale, scale, 1)
    mask = person.mask
    if mask is not None:
        mask = np.asarray(mask, dtype=bool).repeat(scale, axis=0).repeat(scale, axis=1)
    box = None if person.box is None else np.asarray(person.box, dtype=np.float64) * scale
    return Person(keypoints, mask, box)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break the text between words; a word wider than the line stays whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
