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

_MIXTURE_STREAM = 0x317C


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
        mixture: shares of the images for training, in every epoch: each a mapping with "share", the
            probability of an image to be one of them, and any of the same settings, which replace
            the given ones in it.  The rest follows the curriculum.
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
        mixture: Sequence[Mapping[str, Any]] = (),
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

        def changed(kind: str, key: str, entry: Any) -> tuple[Any, SceneGenerator]:
            """Value of `key` in a stage or share, and the generator of its settings."""
            changes = dict(entry) if isinstance(entry, Mapping) else {}
            value = changes.pop(key, None)
            if not isinstance(value, (int, float)) or set(changes) - set(settings):
                raise UserError(
                    f"a {kind} has to hold '{key}' and any of {sorted(settings)}, got {entry!r}"
                )
            return value, SceneGenerator(seed, split, **{**settings, **changes})

        self._final = SceneGenerator(seed, split, **settings)
        self._stages: list[tuple[int, SceneGenerator]] = []
        for stage in curriculum if training else ():
            until, generator = changed("stage of the curriculum", "until_epoch", stage)
            if self._stages and until <= self._stages[-1][0]:
                raise UserError(
                    f"the stages of the curriculum have to end one after the other, got "
                    f"until_epoch {until} after {self._stages[-1][0]}"
                )
            self._stages.append((until, generator))
        # Each with the probability of an image to be of its own share or of one before it.
        self._shares: list[tuple[float, SceneGenerator]] = []
        for part in mixture if training else ():
            share, generator = changed("share of the mixture", "share", part)
            below = self._shares[-1][0] if self._shares else 0.0
            if share < 0 or below + share > 1 + 1e-9:  # 0.1 + 0.2 + 0.7
                raise UserError(
                    f"the shares of the mixture must not be negative and have to be at most 1 "
                    f"together, got {share} after {below:g} for those before it"
                )
            self._shares.append((below + share, generator))
        self._ground_truth: dict[str, Any] | None = None

    @property
    def generator(self) -> SceneGenerator:
        """The generator of the current epoch, for images of no share of the mixture."""
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
        scene = first + index // turns
        return self._generator_of(scene).scene_and_pair(scene, index % turns, turns)

    def _generator_of(self, scene: int) -> SceneGenerator:
        if not self._shares:
            return self.generator
        chance = np.random.default_rng((self.seed, scene, _MIXTURE_STREAM)).random()
        return next((g for limit, g in self._shares if chance < limit), self.generator)

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
