"""Scenes in the form of RefHuman's annotation file."""

from __future__ import annotations

from typing import Any

from datasets.skeleton import COCO
from datasets.synthetic.captions import Caption
from datasets.synthetic.people import ScenePerson
from datasets.synthetic.reading import KEYPOINT_DECIMALS
from datasets.synthetic.scene import Scene
from datasets.synthetic.segmentation import mask_to_polygons, mask_to_rle

CATEGORIES = [
    {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(COCO.names),
        "skeleton": [[first + 1, second + 1] for first, second in COCO.limbs],
    }
]


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
            Both decode to exactly the person's mask, which holds all scribbles and all keypoints
            of visibility 2.
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


def people_entries(scene: Scene, file_name: str) -> list[dict[str, Any]]:
    """Entries of everybody in the image, for the list "people" of an annotation file."""
    return [
        {"file_name": file_name, "person_id": person.index, **_shape_entry(person)}
        for person in scene.people
    ]


def _shape_entry(person: ScenePerson) -> dict[str, Any]:
    keypoints: list[float] = []
    for x, y, visibility in person.keypoints.tolist():
        keypoints += [round(x, KEYPOINT_DECIMALS), round(y, KEYPOINT_DECIMALS), int(visibility)]
    return {"bbox": list(person.box), "area": person.area, "keypoints": keypoints}
