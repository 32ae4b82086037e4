"""Augmentation: every field follows the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import person_annotation

from datasets.base import make_sample
from datasets.geometry import PersonMasks
from datasets.refhuman import make_prompted_sample
from datasets.sample import Sample
from datasets.skeleton import COCO
from datasets.transforms import (
    EvaluationTransform,
    TrainingTransform,
    crop,
    horizontal_flip,
    keep_size,
    normalize,
    resize,
    swap_sides,
)

HEIGHT, WIDTH = 90, 120


def raw_sample(caption: str = "the person on the left") -> Sample:
    """A person in a noise image; its first 16 keypoints are spread over the whole image."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    entry = {"id": 7, "height": HEIGHT, "width": WIDTH, "caption": caption}
    annotation = person_annotation((30, 10, 50, 70), 7, 0)
    annotation["keypoints"][-3:] = [0, 0, 0]
    return make_prompted_sample(pixels, entry, annotation, training=False)


def dotted_sample(position: tuple[int, int]) -> Sample:
    """A black image with a white 7x7 dot; all keypoints and scribble points are at its centre."""
    x, y = position
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
    entry = {"id": 1, "height": HEIGHT, "width": WIDTH}
    annotation = person_annotation((0, 0, WIDTH, HEIGHT), 1, 0)
    annotation["keypoints"] = [x, y, 2] * 17
    annotation["scribble"] = [x, y] * 12
    # Two rectangles of masks, one of them on the dot, so that the mask can be found again too.
    annotation["segmentation"] = [
        [x - 3, y - 3, x + 4, y - 3, x + 4, y + 4, x - 3, y + 4],
        [2, 2, 100, 2, 100, 22, 2, 22],
    ]
    return make_prompted_sample(pixels, entry, annotation, training=False)


def seen(sample: Sample) -> Sample:
    """A raw or transformed sample with its image and masks as tensors."""
    return sample if isinstance(sample.image, torch.Tensor) else keep_size(sample)


def centre_of_dot(sample: Sample) -> np.ndarray:
    """(x, y) of the brightness' centre of gravity, pixel i at coordinate i."""
    brightness = seen(sample).image[0].double()
    ys, xs = torch.meshgrid(*(torch.arange(n) for n in brightness.shape), indexing="ij")
    total = brightness.sum()
    return np.array(
        [float((xs * brightness).sum() / total), float((ys * brightness).sum() / total)]
    )


def test_flip_twice_is_identity_for_every_field():
    sample = raw_sample("the man on the Left, right-hand side, in bright red")
    once = horizontal_flip(sample)
    twice = horizontal_flip(once)
    assert once.target["caption"] == "the man on the Right, left-hand side, in bright red"
    once, twice, sample = seen(once), seen(twice), seen(sample)
    assert torch.equal(twice.image, sample.image)
    assert not torch.equal(once.image, sample.image)
    assert twice.target.keys() == sample.target.keys()
    for key, value in sample.target.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(twice.target[key], value), key
            assert type(twice.target[key]) is type(value), key
        else:
            assert twice.target[key] == value, key
    for key in ("boxes", "keypoints", "masks", "scribble", "visible"):
        assert not torch.equal(once.target[key], sample.target[key]), key


def test_flip_exchanges_left_and_right_keypoints():
    sample = raw_sample()
    flipped = horizontal_flip(sample)
    left, right = COCO.names.index("left_wrist"), COCO.names.index("right_wrist")
    original = sample.target["keypoints"][0]
    assert flipped.target["keypoints"][0, left].tolist() == [
        WIDTH - 1 - float(original[right, 0]),
        float(original[right, 1]),
    ]
    # The unlabelled right ankle becomes the left one.
    assert flipped.target["visible"][0].tolist() == [True] * 15 + [False, True]


@pytest.mark.parametrize("name", ["flip", "resize", "crop", "evaluation", "training"])
def test_points_and_mask_follow_the_pixels(name):
    position = (70, 50)
    for seed in range(12):
        generator = np.random.default_rng(seed)
        sample = dotted_sample(position)
        if name == "flip":
            result = horizontal_flip(sample)
        elif name == "resize":
            result = resize(sample, 60 + 20 * seed, 100 + 10 * seed)
        elif name == "crop":
            result = crop(sample, 5 + seed, 20 + seed, 60, 75, generator)
        elif name == "evaluation":
            result = EvaluationTransform(100 + 20 * seed)(sample)
        else:
            transform = TrainingTransform([60, 90, 150], 180, [80, 100], (70, 90))
            result = transform(sample, generator)
        result = seen(result)
        height, width = result.image.shape[-2:]
        dot = centre_of_dot(result) if result.image.any() else None
        keypoint = result.target["keypoints"][0, 5].numpy()
        if dot is None:  # cut off
            assert name == "training"
            assert keypoint[0] in (0, width - 1) or keypoint[1] in (0, height - 1)
            continue
        # A resize moves the centres of pixels by up to half a new pixel, a random crop may cut the
        # dot; all else is exact.
        scale = max(height / HEIGHT, width / WIDTH)
        tolerance = {"flip": 1e-4, "crop": 1e-4, "training": 4 * scale}.get(name, 0.6 * scale)
        assert np.abs(keypoint - dot).max() < tolerance
        x, y = np.rint(dot).astype(int)
        assert result.target["masks"][0, y, x]
        if name != "training":
            assert np.abs(result.target["scribble"].numpy() - dot).max() < tolerance


def test_box_and_area_follow_a_resize():
    sample = raw_sample()
    resized = seen(resize(sample, 2 * HEIGHT, 3 * WIDTH))
    assert torch.allclose(resized.target["boxes"], torch.tensor([[90.0, 20.0, 240.0, 160.0]]))
    assert torch.allclose(resized.target["area"], sample.target["area"] * 6)
    assert resized.target["masks"].shape == (1, 2 * HEIGHT, 3 * WIDTH)
    assert resized.target["orig_size"].tolist() == [HEIGHT, WIDTH]


def test_crop_cuts_box_area_and_mask():
    sample = raw_sample()  # a diamond in the box x 30..80, y 10..80
    cropped = crop(sample, 0, 0, HEIGHT, 55, np.random.default_rng(0))
    assert cropped.target["boxes"].tolist() == [[30.0, 10.0, 55.0, 80.0]]
    assert torch.equal(seen(cropped).target["masks"], seen(sample).target["masks"][:, :, :55])
    assert float(cropped.target["area"]) == pytest.approx(0.5 * float(sample.target["area"]), 0.03)


def test_cropped_keypoints_move_to_the_border_or_are_dropped():
    sample = raw_sample()
    original = sample.target["keypoints"][0]
    outside = (original[:, 0] >= 55) & sample.target["visible"][0]
    assert 0 < int(outside.sum()) < 16
    kept = crop(sample, 0, 0, HEIGHT, 55, np.random.default_rng(0))
    assert torch.equal(kept.target["visible"], sample.target["visible"])
    assert (kept.target["keypoints"][0, outside, 0] == 54).all()
    assert torch.equal(kept.target["keypoints"][0, ~outside], original[~outside])

    dropped = crop(sample, 0, 0, HEIGHT, 55, np.random.default_rng(0), drop_keypoints=True)
    assert torch.equal(dropped.target["visible"][0], sample.target["visible"][0] & ~outside)
    assert (normalize(seen(dropped)).target["keypoints"][0, outside] == 0).all()


def test_a_person_outside_the_crop_gives_no_sample():
    assert crop(raw_sample(), 0, 81, HEIGHT, 39, np.random.default_rng(0)) is None
    # The corner of the box is inside, but nothing of the diamond.
    assert crop(raw_sample(), 0, 0, 14, 34, np.random.default_rng(0)) is None


def test_a_person_too_small_for_the_resize_gives_no_sample():
    sample = raw_sample()
    # The first of three columns; a third of the size keeps every third.
    dot = (40, 51, np.ones((1, 1), dtype=np.uint8))
    sample.target["masks"] = PersonMasks((HEIGHT, WIDTH), (dot,))
    transform = TrainingTransform([30], 40, [90], (600, 600), flip_probability=0)
    assert transform(sample, np.random.default_rng(0)) is None


def test_scribble_is_drawn_anew_only_where_the_crop_cut_it():
    sample = raw_sample()
    untouched = crop(sample, 5, 5, 80, 100, np.random.default_rng(0))
    assert torch.equal(untouched.target["scribble"], sample.target["scribble"] - 5)

    cut = crop(sample, 0, 0, 40, WIDTH, np.random.default_rng(0))
    points = cut.target["scribble"].long()
    assert cut.target["scribble"].shape == (12, 2)
    assert seen(cut).target["masks"][0, points[:, 1], points[:, 0]].all()
    assert len(torch.unique(points, dim=0)) > 4
    again = crop(sample, 0, 0, 40, WIDTH, np.random.default_rng(0))
    other = crop(sample, 0, 0, 40, WIDTH, np.random.default_rng(1))
    assert torch.equal(cut.target["scribble"], again.target["scribble"])
    assert not torch.equal(cut.target["scribble"], other.target["scribble"])


def test_scribble_of_a_tiny_rest_moves_to_its_nearest_pixels():
    sample = raw_sample()
    cut = crop(sample, 0, 0, 18, WIDTH, np.random.default_rng(0))
    assert 0 < int(cut.target["masks"].counts()) <= 100
    points = cut.target["scribble"].long()
    assert seen(cut).target["masks"][0, points[:, 1], points[:, 0]].all()


def test_training_sizes():
    transform = TrainingTransform([48, 64], 100, [80, 96], (50, 70), flip_probability=0.5)
    sizes = set()
    flips = 0
    for seed in range(60):
        result = transform(raw_sample(), np.random.default_rng(seed))
        if result is None:
            continue
        height, width = result.image.shape[-2:]
        sizes.add((height, width))
        assert max(height, width) <= 100
        assert min(height, width) in (48, 64) or max(height, width) == 100
        assert result.target["masks"].shape[-2:] == (height, width)
        flips += result.target["caption"].endswith("right")
    assert (48, 64) in sizes and (64, 85) in sizes  # without a crop
    assert len(sizes) > 10
    assert 15 < flips < 45


def test_crop_of_a_small_image_takes_what_there_is():
    transform = TrainingTransform([64], 100, [40], (384, 600), flip_probability=0.0)
    sizes = {
        tuple(transform(raw_sample(), np.random.default_rng(seed)).image.shape[-2:])
        for seed in range(8)
    }
    assert sizes <= {(64, 85), (64, 84)}  # the whole 40 x 53 image, enlarged


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"short_sides": []}, "short_sides"),
        ({"crop_short_sides": [0]}, "crop_short_sides"),
        ({"crop_range": (60, 50)}, "crop_range"),
        ({"flip_probability": 1.5}, "flip_probability"),
    ],
)
def test_training_settings_are_checked(changed, message):
    settings = {
        "short_sides": [64],
        "max_side": 100,
        "crop_short_sides": [64],
        "crop_range": (50, 60),
        **changed,
    }
    with pytest.raises(ValueError, match=message):
        TrainingTransform(**settings)


def test_evaluation_resize_sets_the_longer_side():
    for height, width in ((333, 500), (500, 333), (90, 120)):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        entry = {"id": 1, "height": height, "width": width}
        annotation = person_annotation((10, 10, 50, 50), 1, 0)
        sample = make_prompted_sample(pixels, entry, annotation, training=False)
        size = EvaluationTransform(640)(sample).image.shape[-2:]
        assert max(size) == 640
        assert min(size) == round(640 * min(height, width) / max(height, width))


def test_normalize_gives_the_target_contract():
    finished = normalize(seen(raw_sample()))
    target = finished.target
    assert finished.image.dtype == torch.float32
    raw = seen(raw_sample()).image[:, 4, 9].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(finished.image[:, 4, 9], (raw - mean) / std, atol=1e-6)
    assert target["boxes"].tolist() == [pytest.approx([55 / 120, 45 / 90, 50 / 120, 70 / 90])]
    assert target["area"].tolist() == [pytest.approx(1750 / (90 * 120))]
    assert target["keypoints"].shape == (1, 17, 3)
    assert target["keypoints"][0, 16].tolist() == [0, 0, 0]
    assert target["keypoints"][0, 0].tolist() == [
        pytest.approx(55 / 120),
        pytest.approx(18 / 90),
        1,
    ]
    assert target["masks"].dtype == torch.bool and target["masks"].shape == (1, 90, 120)
    assert target["labels"].tolist() == [1] and target["labels"].dtype == torch.int64
    assert target["scribble"].shape == (12, 2) and target["scribble"].dtype == torch.float32
    assert target["size"].tolist() == target["orig_size"].tolist() == [90, 120]
    assert target["image_id"] == 7 and target["caption"] == "the person on the left"
    # Plain tensors: the model's arithmetic is not to dispatch on tv_tensors.
    assert all(type(v) is torch.Tensor for v in target.values() if isinstance(v, torch.Tensor))
    assert type(finished.image) is torch.Tensor


@pytest.mark.parametrize(
    ("caption", "swapped"),
    [
        ("the man on the left", "the man on the right"),
        ("Left of the right-hand door", "Right of the left-hand door"),
        ("leftmost RIGHT, rightmost LEFT", "rightmost LEFT, leftmost RIGHT"),
        ("bright red, upright, brightly", "bright red, upright, brightly"),
        ("a left-handed batter facing rightwards", "a right-handed batter facing leftwards"),
        ("leftovers on the copyright page", "leftovers on the copyright page"),
        ("second from left.", "second from right."),
        ("", ""),
    ],
)
def test_swap_sides(caption, swapped):
    assert swap_sides(caption) == swapped
    assert swap_sides(swapped) == caption


# --- many people ---------------------------------------------------------------------------------


BOXES = ((4, 10, 20, 60), (50, 20, 30, 60), (90, 5, 28, 80))


def people_sample(boxes=BOXES, with_masks: bool = True) -> Sample:
    """Diamonds in boxes (x, y, width, height), in a noise image; areas are half the boxes'."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    entry = {"id": 7, "height": HEIGHT, "width": WIDTH}
    people = [person_annotation(box, 7, i) for i, box in enumerate(boxes)]
    return make_sample(pixels, entry, people, with_masks=with_masks)


def chain(sample: Sample, name: str) -> Sample | None:
    generator = np.random.default_rng(0)
    if name == "flip":
        return horizontal_flip(sample)
    if name == "resize":
        return resize(sample, 45, 61)
    if name == "crop":
        return crop(sample, 8, 30, 60, 70, generator)
    if name == "training":
        return TrainingTransform([60, 90], 180, [80], (70, 90))(sample, generator)
    return EvaluationTransform(100)(sample)


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("name", ["flip", "resize", "crop", "training", "evaluation"])
def test_any_number_of_people(name, with_masks):
    for count in range(4):
        result = chain(people_sample(BOXES[:count], with_masks), name)
        if count == 1 and name == "crop":
            assert result is None  # the only one is cut away
            continue
        result = seen(result)
        height, width = result.image.shape[-2:]
        people = len(result.target["boxes"])
        assert people <= count and (people > 0) == (count > 0)
        shapes = {
            "boxes": (people, 4),
            "keypoints": (people, 17, 2),
            "visible": (people, 17),
            "area": (people,),
            "labels": (people,),
            "masks": (people, height, width),
        }
        if not with_masks:
            del shapes["masks"]
        assert {k: tuple(result.target[k].shape) for k in shapes} == shapes
        assert ("masks" in result.target) == with_masks
        assert all(type(result.target[key]) is torch.Tensor for key in shapes)
        finished = normalize(result).target
        assert finished["keypoints"].shape == (people, 17, 3)
        assert finished["boxes"].shape == (people, 4)


@pytest.mark.parametrize("with_masks", [True, False])
def test_crop_drops_the_people_who_are_gone(with_masks):
    sample = people_sample(with_masks=with_masks)
    cropped = crop(sample, 0, 40, HEIGHT, 64, np.random.default_rng(0))
    # The first is gone, the second whole, of the third half the width of the diamond is left.
    assert cropped.target["boxes"].tolist() == [[10, 20, 40, 80], [50, 5, 64, 85]]
    moved = sample.target["keypoints"][1] - torch.tensor([40, 0])
    assert torch.equal(cropped.target["keypoints"][0], moved)
    _, whole, halved = sample.target["area"].tolist()
    assert cropped.target["area"].tolist() == pytest.approx([whole, halved / 2], 0.03)
    assert crop(sample, 0, 25, HEIGHT, 20, np.random.default_rng(0)) is None


def test_crop_without_masks_goes_by_the_box_alone():
    # The corner of the box is inside, but nothing of the diamond: only masks can tell.
    box = ((30, 10, 50, 70),)
    corner = (0, 0, 14, 34)
    assert crop(people_sample(box), *corner, np.random.default_rng(0)) is None
    cropped = crop(people_sample(box, with_masks=False), *corner, np.random.default_rng(0))
    assert cropped.target["boxes"].tolist() == [[30, 10, 34, 14]]
    assert float(cropped.target["area"]) == pytest.approx(1750 * (4 * 4) / (50 * 70))


def test_people_too_small_for_the_resize_are_dropped_where_masks_tell():
    sample = people_sample(BOXES[:2])
    # Between the rows and columns that a third of the size keeps
    dot = (40, 13, np.ones((1, 1), dtype=np.uint8))
    masks = (dot, *sample.target["masks"].windows[1:])
    sample.target["masks"] = PersonMasks((HEIGHT, WIDTH), masks)
    transform = TrainingTransform([30], 40, [90], (600, 600), flip_probability=0)
    result = transform(sample, np.random.default_rng(0))
    assert len(result.target["boxes"]) == len(result.target["masks"]) == 1


def test_evaluation_resize_by_the_shorter_side():
    wide = people_sample(())
    assert EvaluationTransform(1333, 180)(wide).image.shape[-2:] == (180, 240)
    assert EvaluationTransform(200, 180)(wide).image.shape[-2:] == (150, 200)
    assert EvaluationTransform(200)(wide).image.shape[-2:] == (150, 200)
    assert EvaluationTransform(180)(wide).image.shape[-2:] == (135, 180)
