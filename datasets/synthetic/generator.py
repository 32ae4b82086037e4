"""Makes scenes out of numbers: (seed, split, index) -> people, image, captions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.synthetic.background import draw_background, occluder_shapes
from datasets.synthetic.captions import KINDS, Caption, Describer
from datasets.synthetic.labels import MAX_PEOPLE
from datasets.synthetic.light import draw_shadows, light_and_noise
from datasets.synthetic.painter import Figure, paint_person
from datasets.synthetic.people import ScenePerson
from datasets.synthetic.reading import count_pixels, read_people
from datasets.synthetic.records import annotation, image_entry, people_entries
from datasets.synthetic.scene import (
    BACKGROUND_STREAM,
    CHOICE_STREAM,
    LIGHT_STREAM,
    PEOPLE_STREAM,
    Scene,
)
from datasets.synthetic.shapes import Shape, draw_shapes, fixed_corners
from datasets.synthetic.staging import Draft, draft_people
from util.errors import UserError

SPLITS = ("train", "val")

# A person of whom less is visible, or who takes a smaller share of the image, is left out.
_MIN_VISIBLE_FRACTION, _MIN_AREA = 0.3, 0.004
_MAX_SCENES_PER_PAIR = 50
_MIN_SIDE = 48  # of an image, in pixels


@dataclass(frozen=True)
class _Occluder:
    """Something that stands in front of the first `behind` people: its shapes."""

    behind: int
    shapes: list[Shape]


class SceneGenerator:
    """Makes scenes that depend on nothing but (seed, split, index) and these settings.

    Args:
        seed: not negative.
        split: "train" or "val": different scenes, and captions of "train" leave out
            `captions.HELD_OUT_COMBINATIONS`.
        image_size: (height, width) in pixels; each a number, or a pair (lowest, highest).
        num_people: (fewest, most) in a scene.  People of whom hardly anything could be seen are
            left out, so crowded scenes may have fewer.
        difficulty: in [0, 1].  With 0: plain pale backgrounds, adults of about equal size side by
            side who stand, walk or sit and face the viewer, everybody in another colour, clean
            images, short captions.  With 1: cluttered backgrounds, things in front, people who
            hide each other and share colours, all actions, backs and profiles, children, light,
            blur and noise, and captions with paraphrases, relations and several claims.
        caption_kinds: restricts captions to these of `captions.KINDS`; None: all that
            the difficulty has.
        min_area: people smaller than this share of the image are in it, but no prompt means them.

    Raises:
        UserError: naming the setting, what was expected and what came.
    """

    def __init__(
        self,
        seed: int,
        split: str = "train",
        *,
        image_size: tuple[int | tuple[int, int], int | tuple[int, int]] = (192, 192),
        num_people: tuple[int, int] = (1, 6),
        difficulty: float = 1.0,
        caption_kinds: Sequence[str] | None = None,
        min_area: float = 0.02,
    ) -> None:
        sides = _checked_sides(image_size)
        if split not in SPLITS:
            raise UserError(f"split has to be one of {SPLITS}, got {split!r}")
        if seed < 0:
            raise UserError(f"seed must not be negative, got {seed}")
        if not _is_range(num_people, 1, MAX_PEOPLE):
            raise UserError(
                f"num_people has to be (fewest, most) within 1 and {MAX_PEOPLE}, got {num_people!r}"
            )
        for name, share in (("difficulty", difficulty), ("min_area", min_area)):
            if not isinstance(share, (int, float)) or not 0 <= share <= 1:
                raise UserError(f"{name} has to be within 0 and 1, got {share!r}")
        unknown = set(caption_kinds or ()) - set(KINDS)
        if unknown or (caption_kinds is not None and not caption_kinds):
            raise UserError(f"caption_kinds has to hold some of {KINDS}, got {caption_kinds!r}")
        self.seed = seed
        self.split = split
        self.image_size = sides
        self.num_people = tuple(num_people)
        self.difficulty = float(difficulty)
        self.caption_kinds = None if caption_kinds is None else tuple(caption_kinds)
        self.min_area = min_area
        self._recent: tuple[tuple[int, int], Scene] | None = None

    def scene(self, index: int, attempt: int = 0) -> Scene:
        """Scene `index`; `attempt` gives other scenes in its place.

        Args:
            index: not negative.
            attempt: not negative.

        Raises:
            UserError: nobody can be shown in an image of this size.
        """

        def stream(*names: int) -> np.random.Generator:
            split = SPLITS.index(self.split)
            return np.random.default_rng((self.seed, split, index, attempt, *names))

        generator = stream(PEOPLE_STREAM)
        height, width = (int(generator.integers(low, high + 1)) for low, high in self.image_size)
        count = int(generator.integers(self.num_people[0], self.num_people[1] + 1))
        drafts = draft_people(generator, count, height, width, self.difficulty)
        horizon = int(height * generator.uniform(0.4, 0.6))
        background = draw_background(
            stream(BACKGROUND_STREAM), height, width, horizon, self.difficulty
        )
        occluder = None
        if generator.random() < 0.3 * self.difficulty:
            behind = len(drafts) - int(generator.random() < 0.5)
            occluder = _Occluder(behind, occluder_shapes(generator, height, width))
        shadow_strength = float(generator.uniform(0.1, 0.4))

        drawn = _draw_visible(background, drafts, occluder, shadow_strength)
        if drawn is None:
            raise UserError(
                f"nobody is visible in synthetic scene {index} of split {self.split!r} "
                f"({width}x{height} pixels, width x height); change image_size "
                f"({self.image_size}) or num_people ({self.num_people})"
            )
        canvas, people = drawn
        canvas = light_and_noise(stream(LIGHT_STREAM), canvas, self.difficulty)
        describer = Describer(
            people,
            width,
            height,
            self.difficulty,
            kinds=self.caption_kinds,
            training=self.split == "train",
        )
        return Scene(canvas, people, describer, self.min_area, stream)

    def pair(
        self, index: int, turn: int = 0, turns: int = 1
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        """One image, one person, one caption, in RefHuman's form.

        In the "val" split every other pair has a held-out caption if one can be found.

        Args:
            index: of the scene.
            turn: the scene's people who can be referred to are drawn one after the other, in random
                order; 0 takes the first.  After the last the first one follows again.
            turns: how many turns every scene has; ids count all of them.

        Returns:
            The image [h, w, 3] uint8 RGB, the image entry, its annotation, and the entries of
            all people of the image.  The segmentation is a COCO RLE.

        Raises:
            UserError: many scenes in a row have nobody to refer to.
        """
        scene, entry, record = self.scene_and_pair(index, turn, turns)
        return scene.image, entry, record, people_entries(scene, entry["file_name"])

    def scene_and_pair(
        self, index: int, turn: int = 0, turns: int = 1
    ) -> tuple[Scene, dict[str, Any], dict[str, Any]]:
        """The scene of a `pair`, the image entry and its annotation."""
        split = SPLITS.index(self.split)
        for attempt in range(_MAX_SCENES_PER_PAIR):
            scene = self._recent_scene(index, attempt)
            chooser = np.random.default_rng((self.seed, split, index, attempt, CHOICE_STREAM))
            described: list[tuple[int, Caption]] = []
            for person in chooser.permutation(scene.referable).tolist():
                caption = scene.held_out_caption(person) if index % 2 else None
                captions = [caption] if caption is not None else scene.captions(person, 1)
                described += [(person, caption) for caption in captions]
                if len(described) > turn:
                    break
            if described:
                person, caption = described[turn % len(described)]
                entry_id = index * turns + turn + 1
                name = f"synthetic_{self.split}_{index:08d}.png"
                entry = image_entry(scene, entry_id, name, caption)
                record = annotation(scene, person, entry_id, polygons=False)
                return scene, entry, record
        raise _nobody_to_refer_to(self, index)

    def _recent_scene(self, index: int, attempt: int) -> Scene:
        """`scene`, which remembers the last one: the turns of a scene follow each other."""
        if self._recent is None or self._recent[0] != (index, attempt):
            self._recent = ((index, attempt), self.scene(index, attempt))
        return self._recent[1]


def _checked_sides(image_size: Any) -> list[tuple[int, int]]:
    """(lowest, highest) of height and width, each given as a number or such a pair."""
    sides = image_size if isinstance(image_size, Sequence) else ()
    sides = [tuple(side) if isinstance(side, Sequence) else (side, side) for side in sides]
    if len(sides) != 2 or not all(_is_range(side, _MIN_SIDE) for side in sides):
        raise UserError(
            f"image_size has to be (height, width), each a number of at least {_MIN_SIDE} pixels "
            f"or a pair (lowest, highest), got {image_size!r}"
        )
    return sides


def _is_range(value: Any, low: float, high: float = math.inf) -> bool:
    """Whether it is a pair of integers, (lowest, highest), within the limits."""
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(number, int) for number in value)
        and low <= value[0] <= value[1] <= high
    )


def _nobody_to_refer_to(generator: SceneGenerator, index: int) -> UserError:
    return UserError(
        f"{_MAX_SCENES_PER_PAIR} synthetic scenes in a row, index {index} of split "
        f"{generator.split!r}, have nobody to refer to; lower min_area ({generator.min_area}) or "
        f"num_people ({generator.num_people}), change image_size ({generator.image_size}), or "
        f"allow more caption_kinds ({generator.caption_kinds})"
    )


def scene_pairs(
    generator: SceneGenerator, index: int, file_name: str, captions_per_person: int = 3
) -> tuple[Scene, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """All pairs of scene `index`: up to `captions_per_person` for everybody who can be referred to.

    In the "val" split everybody's last caption is a held-out one if one can be found.

    Returns:
        The scene and its (image entry, annotation) pairs, at least one.  Their ids count from 1
        within the scene.

    Raises:
        UserError: many scenes in a row have nobody to refer to.
    """
    for attempt in range(_MAX_SCENES_PER_PAIR):
        scene = generator.scene(index, attempt)
        pairs = []
        for person in scene.referable:
            captions = scene.captions(person, captions_per_person)
            held_out = scene.held_out_caption(person)
            if held_out is not None and all(held_out.text != c.text for c in captions):
                captions = [*captions[: captions_per_person - 1], held_out]
            record = annotation(scene, person, 0) if captions else {}
            for caption in captions:
                number = len(pairs) + 1
                entry = image_entry(scene, number, file_name, caption)
                pairs.append((entry, {**record, "id": number, "image_id": number}))
        if pairs:
            return scene, pairs
    raise _nobody_to_refer_to(generator, index)


def _draw_visible(
    background: np.ndarray,
    drafts: Sequence[Draft],
    occluder: _Occluder | None,
    shadow_strength: float,
) -> tuple[np.ndarray, list[ScenePerson]] | None:
    """`_draw` for those of whom enough can be seen; None where there is nobody.

    In a very long image nobody has `_MIN_AREA` of it.  Then that share of a square with the
    image's shorter side is enough.
    """
    height, width = background.shape[:2]
    needed = [_MIN_AREA * height * width, _MIN_AREA * min(height, width) ** 2]
    # Every turn leaves somebody out, takes away what is in front, or asks for less: this ends.
    while needed:
        canvas, people = _draw(background, drafts, occluder, shadow_strength)
        seen = [
            person.visible_fraction >= _MIN_VISIBLE_FRACTION and person.area >= needed[0]
            for person in people
        ]
        if all(seen):
            return canvas, people
        if any(seen):
            drafts = [draft for draft, keep in zip(drafts, seen, strict=True) if keep]
        elif occluder is None:
            needed.pop(0)
        occluder = None
    return None


def _draw(
    background: np.ndarray,
    drafts: Sequence[Draft],
    occluder: _Occluder | None,
    shadow_strength: float,
) -> tuple[np.ndarray, list[ScenePerson]]:
    """Draws people, from far to near, and reads what can be seen of them.

    Args:
        background: [h, w, 3] uint8 RGB, not changed.
        drafts: the people.
        occluder: what stands in front of some or all of them.
        shadow_strength: in [0, 1].

    Returns:
        The image [h, w, 3] uint8 RGB and the people.
    """
    feet, scales = [draft.foot for draft in drafts], [draft.scale for draft in drafts]
    canvas = draw_shadows(background, feet, scales, shadow_strength)
    label_map = np.zeros(background.shape[:2], dtype=np.uint8)
    figures = [
        Figure(draft.body, draft.appearance, draft.pose, draft.scale, draft.foot, i)
        for i, draft in enumerate(drafts)
    ]
    layers: list[tuple[int | None, list[Shape]]] = [  # (person, shapes), from far to near
        (i, paint_person(figure, draft.seat))
        for i, (figure, draft) in enumerate(zip(figures, drafts, strict=True))
    ]
    if occluder is not None:
        layers.insert(occluder.behind, (None, occluder.shapes))
    corners = iter(fixed_corners([shape for _, shapes in layers for shape in shapes]))
    full_pixels = []
    for person, shapes in layers:
        draw_shapes(canvas, label_map, shapes, itertools.islice(corners, len(shapes)))
        if person is not None:
            full_pixels.append(count_pixels(label_map, person))
    return canvas, read_people(drafts, figures, label_map, full_pixels)
