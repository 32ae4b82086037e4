"""The embedded data set: images of articulated people with captions, made on the spot.

`SceneGenerator` makes scenes: an image, everybody in it, and for each person who can be referred
to captions and scribbles.  `SyntheticRefHuman` is the data set over it, in RefHuman's own form, one
fresh image per sample and epoch; `tools/make_synthetic.py` writes scenes to a RefHuman folder.

| what | where |
|---|---|
| who the people are: looks and poses, and their bodies in space | `people.py`, `body.py` |
| who of them is in a scene, and where | `staging.py` |
| how they are drawn | `painter/`, on `shapes.py` and `labels.py` |
| what is around them | `background.py`, `light.py` |
| what can be seen of them | `reading.py` |
| what is said about them | `captions/` |
| all of this together | `scene.py`, `generator.py` |
| in RefHuman's form | `records.py`, `segmentation.py`, `dataset.py` |

Frame: (x, y) in pixels from the top left.  Points - keypoints, scribbles, feet, corners of what is
drawn - are in OpenCV's frame, and COCO's for keypoints: pixel i has the coordinate i, its centre.
Extents - boxes, and the polygons of a segmentation - are in COCO's frame for these: pixel i covers
i to i + 1, so that x + width is the edge behind the last pixel.
"""

from datasets.synthetic.captions import KINDS
from datasets.synthetic.dataset import SyntheticRefHuman, build
from datasets.synthetic.generator import SPLITS, SceneGenerator, scene_pairs
from datasets.synthetic.records import CATEGORIES, annotation, image_entry, people_entries
from datasets.synthetic.scene import Scene
from datasets.synthetic.segmentation import mask_to_polygons, mask_to_rle

__all__ = [
    "CATEGORIES",
    "KINDS",
    "SPLITS",
    "Scene",
    "SceneGenerator",
    "SyntheticRefHuman",
    "annotation",
    "build",
    "image_entry",
    "mask_to_polygons",
    "mask_to_rle",
    "people_entries",
    "scene_pairs",
]
