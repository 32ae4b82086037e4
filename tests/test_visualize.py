"""Drawings: the right pixels in the right colours, arguments left alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from util.images import IMAGENET_MEAN, IMAGENET_STD
from util.visualize import (
    CENTER_COLOR,
    LEFT_COLOR,
    MASK_COLOR,
    MASK_OPACITY,
    PROMPT_COLOR,
    RIGHT_COLOR,
    Person,
    add_text,
    comparison,
    contact_sheet,
    draw_people,
    draw_person,
    draw_points,
    draw_result,
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
    words = "text: " + "word " * 60
    both = comparison(grey(), [Person()], [Person(keypoints)], [], words=words)
    assert both.shape[1] == 2 * 4 * 140 + 4
    left, right = both[: 4 * 100, : 4 * 140], both[: 4 * 100, 4 * 140 + 4 :]
    assert (left == 100).all()
    assert not (right == 100).all()
    alone = comparison(grey(), [Person(keypoints)], None, [])
    assert alone.shape == (400, 560, 3)


def test_a_prompt_is_drawn_on_both_halves_of_the_enlarged_image():
    drawn = comparison(
        grey(),
        [],
        [],
        [],
        draw_prompt=lambda image, scale: draw_points(image, np.array([[20.0, 50]]) * scale),
    )
    for left in (0, 4 * 140 + 4):
        assert has_color_at(drawn, left + 4 * 20, 4 * 50, (255, 255, 255))


def test_the_first_person_is_on_top():
    masks = np.zeros((2, 100, 140), dtype=bool)
    masks[0, 20:60, 30:50] = True
    keypoint = np.array([[40.0, 40, 1]])
    first, second = Person(keypoint), Person(keypoint, masks[0])
    drawn = draw_people(grey(), [first, second], limbs=[])
    assert np.array_equal(drawn, draw_person(draw_person(grey(), second, []), first, []))
    assert np.array_equal(draw_people(grey(), [], []), grey())


def result_image(**settings):
    """A sample of 480 x 480 pixels, seen at 240 x 240 in a batch of 256 x 288, black."""
    target = {
        "keypoints": torch.tensor([[[0.25, 0.5, 1]], [[0.75, 0.5, 1]], [[0.5, 0.9, 0]]]),
        "size": torch.tensor([240, 240]),
        "orig_size": torch.tensor([480, 480]),
        "image_id": 5,
    }
    result = {
        "scores": torch.tensor([0.2, 0.9, 0.8, 0.7]),
        "labels": torch.tensor([1, 1, 1, 0]),
        "keypoints": torch.tensor(
            [[[60.0, 100, 0.7]], [[120, 100, 0.7]], [[180, 100, 0.7]]]
        ).repeat(2, 1, 1)[:4],
    }
    result["keypoints"][3, 0, 0] = 240
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None] / torch.tensor(IMAGENET_STD)[:, None, None]
    return draw_result(
        (-mean).expand(3, 256, 288), target, result, [], [], title="title", **settings
    )


def drawn_at(image):
    """x of the predictions' row and of the truth's row that are drawn, in original pixels."""
    left = {x for x in (60, 120, 180, 240) if has_color_at(image, x, 100, CENTER_COLOR)}
    right = {x for x in (120, 360, 240) if has_color_at(image, 484 + x, 240, CENTER_COLOR)}
    return left, right


def test_a_result_shows_the_best_or_all_people_beside_everybody():
    assert drawn_at(result_image()) == ({120}, {120, 360})
    assert drawn_at(result_image(least_score=0.5)) == ({120, 180}, {120, 360})
    assert drawn_at(result_image(least_score=0.95)) == (set(), {120, 360})


def test_a_results_prompt_comes_from_pixels_of_the_batch():
    def draw_prompt(image, x, y):
        return draw_points(image, np.array([[100.0 * x, 150 * y]]))

    drawn = result_image(draw_prompt=draw_prompt)
    assert has_color_at(drawn, 200, 300, (255, 255, 255))
    assert has_color_at(drawn, 484 + 200, 300, (255, 255, 255))


def test_masks_of_the_truth_are_drawn_where_there_are_masks():
    target = {
        "keypoints": torch.zeros(1, 1, 3),
        "masks": torch.zeros(1, 240, 240, dtype=torch.bool),
        "size": torch.tensor([240, 240]),
        "orig_size": torch.tensor([480, 480]),
        "image_id": 5,
    }
    target["masks"][0, :120] = True
    result = {"scores": torch.zeros(0), "labels": torch.zeros(0), "keypoints": torch.zeros(0, 1, 3)}
    drawn = draw_result(torch.zeros(3, 240, 240), target, result, [], [], title="")
    left, right = drawn[:480, :480].astype(int), drawn[:480, 484:].astype(int)
    assert np.array_equal(left[250:], right[250:])
    inner = np.s_[10:230, 10:470]  # within the mask's outline
    tint = left[inner] + MASK_OPACITY * (np.array(MASK_COLOR) - left[inner])
    assert np.abs(right[inner] - tint).max() <= 1


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
