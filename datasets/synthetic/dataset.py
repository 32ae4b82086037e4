"""The data set over the scenes, in RefHuman's own form: one image, one person, one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datasets.base import Transform
from datasets.refhuman import PromptedPersonDataset
from datasets.skeleton import COCO, Skeleton
from datasets.synthetic.generator import SPLITS, SceneGenerator
from datasets.synthetic.records import CATEGORIES, people_entries
from datasets.synthetic.scene import Scene
from datasets.transforms import keep_size
from util.errors import UserError


def build(cfg: Any, split: str, transform: Transform, skeleton: Skeleton) -> SyntheticRefHuman:
    """The data set of the configuration; see `datasets.build_dataset`.

    Training images without augmentation stay in the size that they are drawn in: it is the one
    that the model is to see.
    """
    training = split == "train"
    settings = dict(cfg.synthetic)
    lengths = {split: settings.pop(f"{split}_length") for split in SPLITS}
    return SyntheticRefHuman(
        keep_size if training and not cfg.augment else transform,
        training=training,
        length=lengths[split],
        # Runs with different seeds are compared on the same images.
        seed=cfg.seed if training else 0,
        prompts_per_image=cfg.prompts_per_image if training else 1,
        skeleton=skeleton,
        **settings,
    )


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
        UserError: naming the setting, what was expected and what came.
    """

    def __init__(
        self,
        transform: Transform,
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
            raise UserError("the synthetic data set has COCO's 17 keypoints only")
        if length < 1:
            raise UserError(f"length has to be at least 1, got {length}")
        if prompts_per_image < 1:
            raise UserError(f"prompts_per_image has to be at least 1, got {prompts_per_image}")
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
            changes = dict(stage) if isinstance(stage, Mapping) else {}
            until = changes.pop("until_epoch", None)
            if not isinstance(until, int) or set(changes) - set(settings):
                raise UserError(
                    f"a stage of the curriculum has to hold 'until_epoch' and any of "
                    f"{sorted(settings)}, got {stage!r}"
                )
            if self._stages and until <= self._stages[-1][0]:
                raise UserError(
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
        scene, entry, record = self._pair(index)
        return scene.image, entry, record

    def image_groups(self) -> list[list[Sequence[int]]]:
        """See `PeopleDataset.image_groups`."""
        step = self.prompts_per_image
        starts = range(0, self.length, step)
        return [[[i] for i in range(start, min(start + step, self.length))] for start in starts]

    def _pair(self, index: int) -> tuple[Scene, dict[str, Any], dict[str, Any]]:
        turns = self.prompts_per_image
        scenes = -(-self.length // turns)
        first = self.epoch * scenes if self.training else 0
        return self.generator.scene_and_pair(first + index // turns, index % turns, turns)

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
            scene, entry, record = self._pair(index)
            content["images"].append(entry)
            content["annotations"].append(record)
            if index % self.prompts_per_image == 0:
                content["people"] += people_entries(scene, entry["file_name"])
        if not self.training:
            self._ground_truth = content
        return content
