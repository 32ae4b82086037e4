"""The embedded data set: images of articulated people with captions, made on the spot.

`SceneGenerator` makes scenes: an image, everybody in it, and for each person who can be referred
to captions and scribbles.  `SyntheticRefHuman` is the data set over it, in RefHuman's own form, one
fresh image per sample and epoch; `tools/make_synthetic.py` writes scenes to a RefHuman folder.

Who the people are is in `datasets/synthetic/people.py`, how they are drawn in
`datasets/synthetic/painter.py`, what is said about them in `datasets/synthetic/captions.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from datasets.refhuman import PromptedPersonDataset
from datasets.sample import Sample
from datasets.scribble import draw_scribble
from datasets.skeleton import COCO, Skeleton
from datasets.synthetic import painter as drawing
from datasets.synthetic.captions import KINDS, Caption, Describer
from datasets.synthetic.people import (
    COLOURS,
    Appearance,
    Pose,
    Rgb,
    ScenePerson,
    build_body,
    draw_appearance,
    draw_pose,
    pick,
    vary_colour,
)

SPLITS = ("train", "val")
NUM_SCRIBBLES = 5
CATEGORIES = [
    {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(COCO.names),
        "skeleton": [[first + 1, second + 1] for first, second in COCO.limbs],
    }
]

MAX_PEOPLE = 15 - 1  # label map of bytes, 16 labels each, 0 for nobody
_MIN_VISIBLE_FRACTION, _MIN_AREA = 0.3, 0.004  # below either, a person is left out of the scene
_REFERABLE_VISIBLE_FRACTION, _REFERABLE_KEYPOINTS = 0.5, 8
_MAX_SCENES_PER_PAIR = 50
_SIMPLIFY = 0.75  # how far a polygon may leave the mask's outline, in half pixels
# Names of the random streams of a scene, so that none depends on what another one has drawn.
_PEOPLE_STREAM, _BACKGROUND_STREAM, _LIGHT_STREAM, _CAPTION_STREAM, _SCRIBBLE_STREAM, _CHOICE = (
    range(6)
)


class Scene:
    """An image and everybody in it.

    Attributes:
        image: [h, w, 3] uint8 RGB.
        people: everybody, from far to near.
        referable: indices of the people whom a prompt may mean: large enough, not mostly hidden.
    """

    def __init__(
        self,
        image: np.ndarray,
        people: list[ScenePerson],
        describer: Describer,
        min_area: float,
        stream: Callable[..., np.random.Generator],
    ) -> None:
        self.image = image
        self.people = people
        self._describer = describer
        self._stream = stream
        needed = min_area * image.shape[0] * image.shape[1]
        self.referable = [
            person.index
            for person in people
            if person.area >= needed
            and person.visible_fraction >= _REFERABLE_VISIBLE_FRACTION
            and int((person.keypoints[:, 2] > 0).sum()) >= _REFERABLE_KEYPOINTS
        ]

    def captions(self, index: int, count: int = 3) -> list[Caption]:
        """Up to `count` captions that are true of person `index` and of nobody else."""
        return self._describer.captions(index, count, self._stream(_CAPTION_STREAM, index))

    def held_out_caption(self, index: int) -> Caption | None:
        """A caption with a combination of words that training never sees; None without one.

        In the training split there is none.
        """
        if self._describer.training:
            return None
        return self._describer.held_out_caption(index, self._stream(_CAPTION_STREAM, index, 1))

    def scribbles(self, index: int, count: int = NUM_SCRIBBLES) -> np.ndarray:
        """Scribbles inside the mask of person `index`: float32 [count, 12, 2], (x, y) pixels."""
        generator = self._stream(_SCRIBBLE_STREAM, index)
        mask = self.people[index].mask
        return np.stack([draw_scribble(mask, generator) for _ in range(count)])


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
        ValueError: naming the setting, what was expected and what came.
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
        if split not in SPLITS:
            raise ValueError(f"split has to be one of {SPLITS}, got {split!r}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if len(image_size) != 2:
            raise ValueError(f"image_size has to be (height, width), got {image_size!r}")
        sides = [tuple(side) if isinstance(side, Sequence) else (side, side) for side in image_size]
        if any(len(side) != 2 or not 48 <= side[0] <= side[1] for side in sides):
            raise ValueError(
                f"image_size has to be (height, width), each a number of at least 48 pixels or a "
                f"pair (lowest, highest), got {image_size!r}"
            )
        if len(num_people) != 2 or not 1 <= num_people[0] <= num_people[1] <= MAX_PEOPLE:
            raise ValueError(
                f"num_people has to be (fewest, most) within 1 and {MAX_PEOPLE}, got {num_people!r}"
            )
        if not 0 <= difficulty <= 1:
            raise ValueError(f"difficulty has to be within 0 and 1, got {difficulty}")
        unknown = set(caption_kinds or ()) - set(KINDS)
        if unknown or (caption_kinds is not None and not caption_kinds):
            raise ValueError(f"caption_kinds has to hold some of {KINDS}, got {caption_kinds!r}")
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
        """

        def stream(*names: int) -> np.random.Generator:
            split = SPLITS.index(self.split)
            return np.random.default_rng((self.seed, split, index, attempt, *names))

        generator = stream(_PEOPLE_STREAM)
        height, width = (int(generator.integers(low, high + 1)) for low, high in self.image_size)
        count = int(generator.integers(self.num_people[0], self.num_people[1] + 1))
        drafts = _draw_people(generator, count, height, width, self.difficulty)
        horizon = int(height * generator.uniform(0.4, 0.6))
        background = drawing.draw_background(
            stream(_BACKGROUND_STREAM), height, width, horizon, self.difficulty
        )
        occluder_after = None
        if generator.random() < 0.3 * self.difficulty:
            occluder_after = len(drafts) - int(generator.random() < 0.5)
            occluder = drawing.occluder_shapes(generator, height, width)
        shadow_strength = float(generator.uniform(0.1, 0.4))

        while True:
            canvas = drawing.draw_shadows(
                background,
                [draft.foot for draft in drafts],
                [draft.scale for draft in drafts],
                shadow_strength,
            )
            labels = np.zeros((height, width), dtype=np.uint8)
            painters, full_pixels = [], []
            for i, draft in enumerate(drafts):
                if occluder_after == i:
                    drawing.draw_shapes(canvas, labels, occluder)
                painter = drawing.PersonPainter(
                    draft.body, draft.appearance, draft.pose, draft.scale, draft.foot, i, draft.seat
                )
                drawing.draw_shapes(canvas, labels, painter.shapes())
                painters.append(painter)
                counts = np.bincount(labels.ravel(), minlength=16 * (i + 2))
                full_pixels.append(int(counts[16 * (i + 1) :][1 : drawing.THING].sum()))
            if occluder_after == len(drafts):
                drawing.draw_shapes(canvas, labels, occluder)
            people = _read_people(drafts, painters, labels, full_pixels)
            seen = [
                person.visible_fraction >= _MIN_VISIBLE_FRACTION
                and person.area >= _MIN_AREA * height * width
                for person in people
            ]
            if all(seen):
                break
            # Draw the scene again without those of whom hardly anything is left.
            occluder_after = None
            if any(seen):
                drafts = [draft for draft, keep in zip(drafts, seen, strict=True) if keep]
        canvas = drawing.light_and_noise(stream(_LIGHT_STREAM), canvas, self.difficulty)
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
            ValueError: many scenes in a row have nobody to refer to.
        """
        split = SPLITS.index(self.split)
        for attempt in range(_MAX_SCENES_PER_PAIR):
            scene = self._recent_scene(index, attempt)
            chooser = np.random.default_rng((self.seed, split, index, attempt, _CHOICE))
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
                return scene.image, entry, record, people_entries(scene, name)
        raise _nobody_to_refer_to(self, index)

    def _recent_scene(self, index: int, attempt: int) -> Scene:
        """`scene`, which remembers the last one: the turns of a scene follow each other."""
        if self._recent is None or self._recent[0] != (index, attempt):
            self._recent = ((index, attempt), self.scene(index, attempt))
        return self._recent[1]


def _nobody_to_refer_to(generator: SceneGenerator, index: int) -> ValueError:
    return ValueError(
        f"{_MAX_SCENES_PER_PAIR} synthetic scenes in a row, index {index} of split "
        f"{generator.split!r}, have nobody to refer to; lower min_area ({generator.min_area}) or "
        f"num_people ({generator.num_people}), or allow more caption_kinds "
        f"({generator.caption_kinds})"
    )


# --- RefHuman's form -----------------------------------------------------------------------------


def image_entry(scene: Scene, entry_id: int, file_name: str, caption: Caption) -> dict[str, Any]:
    """Image entry of one image-prompt pair; `held_out` marks captions with held-out words."""
    height, width = scene.image.shape[:2]
    return {
        "id": entry_id,
        "file_name": file_name,
        "height": height,
        "width": width,
        "caption": caption.text,
        "caption_kind": caption.kind,
        "held_out": caption.held_out,
    }


def annotation(scene: Scene, index: int, entry_id: int, *, polygons: bool = True) -> dict[str, Any]:
    """Annotation of person `index` for the pair `entry_id`.

    Args:
        scene: the scene.
        index: of the person.
        entry_id: id of the image entry and of the annotation.
        polygons: True for polygons, as RefHuman has them, False for an RLE, which is quicker.
    """
    person = scene.people[index]
    return {
        "id": entry_id,
        "image_id": entry_id,
        "category_id": 1,
        "iscrowd": 0,
        "person_id": index,
        **_shape_entry(person),
        "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
        "segmentation": mask_to_polygons(person.mask) if polygons else mask_to_rle(person.mask),
        "scribble": scene.scribbles(index).astype(int).ravel().tolist(),
    }


def scene_pairs(
    generator: SceneGenerator, index: int, file_name: str, captions_per_person: int = 3
) -> tuple[Scene, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """All pairs of scene `index`: up to `captions_per_person` for everybody who can be referred to.

    In the "val" split everybody's last caption is a held-out one if one can be found.

    Returns:
        The scene and its (image entry, annotation) pairs, at least one.  Their ids count from 1
        within the scene.

    Raises:
        ValueError: many scenes in a row have nobody to refer to.
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


def people_entries(scene: Scene, file_name: str) -> list[dict[str, Any]]:
    """Entries of everybody in the image, for the list "people" of an annotation file."""
    return [
        {"file_name": file_name, "person_id": person.index, **_shape_entry(person)}
        for person in scene.people
    ]


def _shape_entry(person: ScenePerson) -> dict[str, Any]:
    keypoints: list[float] = []
    for x, y, visibility in person.keypoints.tolist():
        keypoints += [round(x, 2), round(y, 2), int(visibility)]
    return {"bbox": list(person.box), "area": person.area, "keypoints": keypoints}


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Mask [h, w] bool -> COCO run-length code, not compressed."""
    flat = mask.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(ends).tolist()
    if flat[0]:  # runs start with background
        counts.insert(0, 0)
    return {"size": list(mask.shape), "counts": counts}


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Mask [h, w] bool -> polygons [x0, y0, x1, y1, ...] in pixels that draw the same mask.

    COCO's polygons have no holes: a part with a hole is cut in two through it.  Outlines run a
    quarter of a pixel inside of the mask's edge, around the centres of its pixels, and leave out
    corners of less than half a pixel.
    """
    polygons: list[list[float]] = []
    pending = [(mask.astype(np.uint8), 0)]
    while pending:
        part, left = pending.pop()
        doubled = np.repeat(np.repeat(part, 2, axis=0), 2, axis=1)
        outlines, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for i, outline in enumerate(outlines):
            hole = int(hierarchy[0, i, 2]) if hierarchy[0, i, 3] < 0 else -2
            if hole == -2:  # the outline of a hole
                continue
            if hole < 0:
                simple = cv2.approxPolyDP(outline, _SIMPLIFY, True)
                outline = simple if len(simple) > 3 else outline
                points = (outline[:, 0] + 0.5) / 2 + (left, 0)
                polygons.append(points.ravel().tolist())
                continue
            only = np.zeros_like(doubled)
            cv2.drawContours(only, outlines, i, 1, -1)
            only = (only & doubled)[::2, ::2]
            cut = int(outlines[hole][:, 0, 0].mean() / 2)
            cut = min(max(cut, 1), part.shape[1] - 1)
            pending.append((only[:, :cut], left))
            pending.append((only[:, cut:], left + cut))
    return polygons


# --- scenes --------------------------------------------------------------------------------------


@dataclass
class _Draft:
    """A person before the image is drawn."""

    appearance: Appearance
    pose: Pose
    body: Any
    scale: float
    foot: tuple[float, float]
    seat: Rgb


_WIDTHS = {"running": 0.52, "kicking": 0.55, "bending": 0.5, "walking": 0.4}
"""Room that an action takes in the image, in standing heights."""


def _draw_people(
    generator: np.random.Generator, count: int, height: int, width: int, difficulty: float
) -> list[_Draft]:
    """Decides on the people of a scene and their places, from far to near."""
    # Crowds are smaller, so that people side by side find room.
    largest = min(0.82, (1.0 + 0.35 * difficulty) * width / (0.36 * count * height))
    smallest = min(0.62 - 0.17 * difficulty, largest)
    base = generator.uniform(smallest, largest) * height
    camera_pitch = generator.uniform(4, 14)
    allowed = 0.05 + 0.45 * difficulty * generator.random()

    drafts: list[_Draft] = []
    looks: list[Appearance] = []
    for _ in range(count):
        pose, thing = draw_pose(generator, difficulty)
        look = draw_appearance(generator, difficulty, looks, thing)
        looks.append(look)
        depth = generator.random() * (0.25 + 0.75 * difficulty)
        scale = base * (1 - 0.35 * depth) * generator.uniform(0.95, 1.05)
        scale *= 0.72 if look.is_child else 1.0
        scale = max(scale, 0.36 * height)
        y = height * (0.965 - 0.2 * depth)
        y = max(y, min(0.965 * height, scale * 1.02))  # heads stay in the image
        room = _WIDTHS.get(pose.action, 0.34) * scale
        margin = min(0.5 * room * (1 - 0.5 * difficulty * generator.random()), 0.45 * width)
        best, best_overlap = 0.0, np.inf
        for _ in range(16):
            x = generator.uniform(margin, width - margin)
            overlap = max(
                (1 - abs(x - other.foot[0]) / (0.5 * (room + _room(other))) for other in drafts),
                default=0.0,
            )
            if overlap < best_overlap:
                best, best_overlap = x, overlap
            if overlap <= allowed:
                break
        drafts.append(
            _Draft(
                appearance=look,
                pose=pose,
                body=build_body(look, pose, camera_pitch),
                scale=float(scale),
                foot=(float(best), float(y)),
                seat=vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0),
            )
        )
    return sorted(drafts, key=lambda draft: draft.foot[1])


def _room(draft: _Draft) -> float:
    return _WIDTHS.get(draft.pose.action, 0.34) * draft.scale


def _read_people(
    drafts: Sequence[_Draft],
    painters: Sequence[drawing.PersonPainter],
    labels: np.ndarray,
    full_pixels: Sequence[int],
) -> list[ScenePerson]:
    """What can be seen of everybody, read from the label map."""
    size = drawing.PARTS_PER_PERSON
    counts = np.bincount(labels.ravel(), minlength=size * (len(drafts) + 1)).reshape(-1, size)
    people = []
    for i, (draft, painter) in enumerate(zip(drafts, painters, strict=True)):
        low = size * (i + 1)
        mask = (labels > low) & (labels < low + drawing.THING)
        area = int(counts[i + 1, 1 : drawing.THING].sum())
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        people.append(
            ScenePerson(
                index=i,
                appearance=draft.appearance,
                pose=draft.pose,
                scale=draft.scale,
                foot=draft.foot,
                keypoints=_read_keypoints(painter, labels),
                mask=mask,
                box=(x, y, w, h),
                area=area,
                visible_fraction=area / max(full_pixels[i], 1),
                part_pixels=counts[i + 1],
            )
        )
    return people


def _read_keypoints(painter: drawing.PersonPainter, labels: np.ndarray) -> np.ndarray:
    """Keypoints [17, 3] of a person in continuous pixels; see `ScenePerson`."""
    height, width = labels.shape
    base = drawing.PARTS_PER_PERSON * (painter.index + 1)
    on_head = painter.head_points()
    keypoints = np.zeros((COCO.num_keypoints, 3), dtype=np.float32)
    for k, name in enumerate(COCO.names):
        if name in on_head:
            point, towards = on_head[name]
            # Ears stick out and can be guessed at; the face of a turned head cannot.
            if towards < (-0.85 if name.endswith("ear") else -0.25):
                continue
        else:
            point = painter.points[name]
        x, y = float(point[0]), float(point[1])
        column, row = round(x), round(y)  # pixel i has the coordinate i
        if not (0 <= column < width and 0 <= row < height):
            continue
        label = int(labels[row, column]) - base
        visible = label in drawing.PARTS_OF_KEYPOINT[name]
        if name in on_head and towards < (-0.5 if name.endswith("ear") else 0.0):
            visible = False
        inside = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        keypoints[k] = *inside, 2 if visible else 1
    return keypoints


# --- the data set --------------------------------------------------------------------------------


class SyntheticRefHuman(PromptedPersonDataset):
    """RefHuman's task on images that are drawn when they are asked for.

    In training the images are new in every epoch, each with `prompts_per_image` samples that
    follow each other.  In evaluation sample i is pair i of the "val" split in every epoch.

    Args:
        transform: see `PromptedPersonDataset`.
        training: True for the "train" split, fresh in every epoch, False for the "val" split.
        length: samples of an epoch.
        image_size, num_people, difficulty, caption_kinds, min_area: see `SceneGenerator`.
        curriculum: stages for training, in order: each a mapping with "until_epoch" and any of the
            settings of the line above, which replace the given ones in the epochs (from 0) below
            "until_epoch".  After the last stage the given settings hold.
        prompts_per_image: samples of an image, for different people as far as there are.
        seed: of the random streams, not negative.
        skeleton: has to be COCO's.

    Raises:
        ValueError: naming the setting, what was expected and what came.
    """

    def __init__(
        self,
        transform: Callable[[Sample, np.random.Generator], Sample | None],
        *,
        training: bool,
        length: int,
        image_size: tuple[int | tuple[int, int], int | tuple[int, int]] = (192, 192),
        num_people: tuple[int, int] = (1, 6),
        difficulty: float = 1.0,
        caption_kinds: Sequence[str] | None = None,
        min_area: float = 0.02,
        curriculum: Sequence[Mapping[str, Any]] = (),
        prompts_per_image: int = 1,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        super().__init__(transform, training=training, seed=seed, skeleton=skeleton)
        if skeleton.names != COCO.names:
            raise ValueError("the synthetic data set has COCO's 17 keypoints only")
        if length < 1:
            raise ValueError(f"length has to be at least 1, got {length}")
        if prompts_per_image < 1:
            raise ValueError(f"prompts_per_image has to be at least 1, got {prompts_per_image}")
        self.length = length
        self.prompts_per_image = prompts_per_image
        split = "train" if training else "val"
        settings = dict(
            image_size=image_size,
            num_people=num_people,
            difficulty=difficulty,
            caption_kinds=caption_kinds,
            min_area=min_area,
        )
        self._final = SceneGenerator(seed, split, **settings)
        self._stages: list[tuple[int, SceneGenerator]] = []
        for stage in curriculum if training else ():
            changes = dict(stage)
            until = changes.pop("until_epoch", None)
            if not isinstance(until, int) or set(changes) - set(settings):
                raise ValueError(
                    f"a stage of the curriculum has to hold 'until_epoch' and any of "
                    f"{sorted(settings)}, got {dict(stage)!r}"
                )
            if self._stages and until <= self._stages[-1][0]:
                raise ValueError(
                    f"the stages of the curriculum have to end one after the other, got "
                    f"until_epoch {until} after {self._stages[-1][0]}"
                )
            self._stages.append((until, SceneGenerator(seed, split, **{**settings, **changes})))
        self._ground_truth: dict[str, Any] | None = None

    @property
    def generator(self) -> SceneGenerator:
        """The generator of the current epoch."""
        return next((g for until, g in self._stages if self.epoch < until), self._final)

    def __len__(self) -> int:
        return self.length

    def load_pair(self, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        """Draw pair `index` of this epoch; see `PromptedPersonDataset.load_pair`."""
        image, entry, record, _ = self._pair(index)
        return image, entry, record

    def image_groups(self) -> list[Sequence[int]]:
        """See `PromptedPersonDataset.image_groups`."""
        step = self.prompts_per_image
        return [range(i, min(i + step, self.length)) for i in range(0, self.length, step)]

    def _pair(
        self, index: int
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        turns = self.prompts_per_image
        scenes = -(-self.length // turns)
        first = self.epoch * scenes if self.training else 0
        return self.generator.pair(first + index // turns, index % turns, turns)

    def ground_truth(self) -> dict[str, Any]:
        """Images, annotations and people of all pairs of the epoch (drawn once in evaluation)."""
        if self._ground_truth is not None:
            return self._ground_truth
        content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": CATEGORIES,
            "people": [],
        }
        for index in range(self.length):
            _, entry, record, people = self._pair(index)
            content["images"].append(entry)
            content["annotations"].append(record)
            if index % self.prompts_per_image == 0:
                content["people"] += people
        if not self.training:
            self._ground_truth = content
        return content
