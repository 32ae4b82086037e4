"""Drawings: the right pixels in the right colours, arguments left alone."""

import numpy as np
import pytest
from PIL import Image

from util.visualize import (
    LEFT_COLOR,
    MASK_COLOR,
    MASK_OPACITY,
    PROMPT_COLOR,
    RIGHT_COLOR,
    Person,
    add_text,
    comparison,
    contact_sheet,
    draw_person,
    draw_points,
    save,
)


def grey(height=100, width=140):
    return np.full((height, width, 3), 100, dtype=np.uint8)


def has_color_at(image, x, y, color):
    return np.abs(image[y, x].astype(int) - color).max() < 30


def test_sides_have_their_colours_and_hidden_keypoints_are_left_out():
    image = grey()
    keypoints = np.array([[20.0, 30, 1], [120, 30, 1], [70, 80, 0]])
    drawn = draw_person(image, Person(keypoints), limbs=[(0, 2)], flip_pairs=[(0, 1)])
    assert has_color_at(drawn, 20, 30, LEFT_COLOR)
    assert has_color_at(drawn, 120, 30, RIGHT_COLOR)
    assert (drawn[60:] == 100).all()  # neither the hidden keypoint nor a limb to it
    assert (image == 100).all()


def test_mask_tints_its_pixels_only():
    mask = np.zeros((100, 140), dtype=bool)
    mask[20:60, 30:50] = True
    drawn = draw_person(grey(), Person(mask=mask), limbs=[])
    expected = 100 + MASK_OPACITY * (np.array(MASK_COLOR) - 100)
    assert np.abs(drawn[40, 40] - expected).max() <= 1
    assert (drawn[~mask] == 100).all()
    with pytest.raises(ValueError, match="mask of"):
        draw_person(grey(), Person(mask=mask[:50]), limbs=[])


def test_prompts_and_coordinates_outside_the_image():
    drawn = draw_points(grey(), np.array([[10.0, 50], [130, 50]]))
    assert has_color_at(drawn, 70, 50, PROMPT_COLOR)
    drawn = draw_points(grey(), np.array([[70.0, 50]]))
    assert has_color_at(drawn, 70, 50, (255, 255, 255))
    nowhere = np.array([[np.nan, 1e9, 1], [-1e9, np.inf, 1]])
    draw_person(grey(), Person(nowhere, box=np.array([-50, -50, 1e6, 1e6])), limbs=[(0, 1)])


def test_comparison_enlarges_small_images_and_puts_the_truth_on_the_right():
    keypoints = np.array([[50.0, 50, 1]])
    both = comparison(grey(), Person(), Person(keypoints), [], prompt="text: " + "word " * 60)
    assert both.shape[1] == 2 * 4 * 140 + 4
    left, right = both[: 4 * 100, : 4 * 140], both[: 4 * 100, 4 * 140 + 4 :]
    assert (left == 100).all()
    assert not (right == 100).all()
    alone = comparison(grey(), Person(keypoints), None, [])
    assert alone.shape == (400, 560, 3)


def test_long_text_wraps():
    one, many = add_text(grey(), "short"), add_text(grey(), "many words " * 20)
    assert one.shape[1] == many.shape[1] == 140
    assert many.shape[0] > one.shape[0] > 100


def test_contact_sheet_keeps_every_image():
    images = [np.full((h, w, 3), i, dtype=np.uint8) for i, (h, w) in enumerate([(5, 9), (7, 3)])]
    images.append(np.full((2, 2, 3), 2, dtype=np.uint8))
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (7 + 4 + 2, 9 + 4 + 3, 3)
    for value, image in enumerate(images):
        assert (sheet[..., 0] == value).sum() == image.shape[0] * image.shape[1]
    with pytest.raises(ValueError, match="0 images"):
        contact_sheet([], columns=2)


def test_save_makes_folders_and_leaves_no_temporary_file(tmp_path):
    save(tmp_path / "a" / "b.png", grey())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / "b.png")), grey())
