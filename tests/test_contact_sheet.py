"""tools/contact_sheet.py: what is drawn where."""

from __future__ import annotations

import sys

import contact_sheet
import numpy as np
import pytest

from datasets.synthetic import SceneGenerator, mask_to_rle, scene_pairs
from util import visualize
from util.errors import UserError


def test_keypoints_scribbles_and_boxes_share_a_frame(monkeypatch):
    seen = {}

    def draw_person(image, person, *_):
        seen.update(keypoint=person.keypoints[0], box=person.box, mask=person.mask)
        return image

    def draw_points(image, points):
        seen.update(scribble=points[0])
        return image

    monkeypatch.setattr(visualize, "draw_person", draw_person)
    monkeypatch.setattr(visualize, "draw_points", draw_points)
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:4, 3:7] = True
    annotation = {
        "segmentation": mask_to_rle(mask),
        "bbox": [3, 2, 4, 2],
        "keypoints": [3, 2, 2] + 16 * [0, 0, 0],
        "scribble": 12 * [3, 2],
    }
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    contact_sheet.draw_tile(image, [({"id": 1, "caption": "x"}, annotation)], side=80)
    # Four times as large: pixel 3 becomes the pixels 12 to 15, whose middle is at 13.5.
    assert seen["keypoint"].tolist() == [13.5, 9.5, 2]
    assert seen["scribble"].tolist() == [13.5, 9.5]
    assert seen["box"].tolist() == [11.5, 7.5, 27.5, 15.5]
    assert np.argwhere(seen["mask"]).min(axis=0).tolist() == [8, 12]


def test_a_folder_and_the_generator_are_drawn(tmp_path, monkeypatch):
    scene, pairs = scene_pairs(SceneGenerator(0, image_size=(96, 96)), 0, "x.png")
    tile = contact_sheet.draw_tile(scene.image, pairs[:1], side=96)
    assert tile.shape[1] == 2 * 96 and tile.shape[0] > 96
    sheet = tmp_path / "sheet.png"
    arguments = ["contact_sheet.py", "--output", str(sheet), "--image-size", "96"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--rows", "1", "--columns", "2"])
    contact_sheet.main()
    assert sheet.is_file()
    monkeypatch.setattr(sys, "argv", [*arguments, "--rows", "0"])
    with pytest.raises(UserError, match="--rows has to be at least 1 and at most 100, got 0"):
        contact_sheet.main()
    (tmp_path / "RefHuman_val.json").write_text("{")
    monkeypatch.setattr(sys, "argv", [*arguments, "--data", str(tmp_path)])
    with pytest.raises(UserError, match="not valid JSON"):
        contact_sheet.main()
