"""Small synthetic scenes and data sets for tests."""

from __future__ import annotations

from datasets.synthetic import Scene, SceneGenerator, SyntheticRefHuman
from datasets.transforms import EvaluationTransform

SMALL = (96, 96)


def scenes(
    count: int,
    difficulty: float = 1.0,
    split: str = "train",
    size: tuple[int, int] = (144, 144),
    seed: int = 3,
) -> list[Scene]:
    generator = SceneGenerator(seed, split, image_size=size, difficulty=difficulty)
    return [generator.scene(index) for index in range(count)]


def dataset(**settings) -> SyntheticRefHuman:
    defaults = dict(training=True, length=12, image_size=SMALL, seed=1)
    return SyntheticRefHuman(EvaluationTransform(96), **{**defaults, **settings})
