"""A finished scene: an image, everybody in it, and what can be said of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datasets.scribble import draw_scribbles
from datasets.synthetic.captions import Caption, Describer
from datasets.synthetic.people import ScenePerson

NUM_SCRIBBLES = 5
_REFERABLE_VISIBLE_FRACTION, _REFERABLE_KEYPOINTS = 0.5, 8
# Names of the random streams of a scene, so that none depends on what another one has drawn.
PEOPLE_STREAM, BACKGROUND_STREAM, LIGHT_STREAM, CAPTION_STREAM, SCRIBBLE_STREAM, CHOICE_STREAM = (
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
        return self._describer.captions(index, count, self._stream(CAPTION_STREAM, index))

    def held_out_caption(self, index: int) -> Caption | None:
        """A caption with a combination of words that training never sees; None without one.

        In the training split there is none.
        """
        if self._describer.training:
            return None
        return self._describer.held_out_caption(index, self._stream(CAPTION_STREAM, index, 1))

    def scribbles(self, index: int, count: int = NUM_SCRIBBLES) -> np.ndarray:
        """Scribbles inside the mask of person `index`: float32 [count, 12, 2], (x, y) pixels."""
        person, generator = self.people[index], self._stream(SCRIBBLE_STREAM, index)
        x, y, width, height = person.box
        inside_box = draw_scribbles(person.mask[y : y + height, x : x + width], generator, count)
        return inside_box + np.array((x, y), dtype=np.float32)
