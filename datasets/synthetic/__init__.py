"""The embedded data set: images of articulated people with captions, made on the spot."""

from datasets.synthetic.captions import KINDS
from datasets.synthetic.scene import (
    CATEGORIES,
    SPLITS,
    Scene,
    SceneGenerator,
    SyntheticRefHuman,
    annotation,
    image_entry,
    mask_to_polygons,
    mask_to_rle,
    people_entries,
    scene_pairs,
)

__all__ = [
    "CATEGORIES",
    "KINDS",
    "SPLITS",
    "Scene",
    "SceneGenerator",
    "SyntheticRefHuman",
    "annotation",
    "image_entry",
    "mask_to_polygons",
    "mask_to_rle",
    "people_entries",
    "scene_pairs",
]
