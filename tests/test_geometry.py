"""Images that are read late and masks in windows: against a sample that is moved step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import person_annotation
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from datasets import transforms
from datasets.annotations import encode_segmentation
from datasets.base import image_of_entry, make_sample
from datasets.geometry import PendingImage, PersonMasks
from datasets.refhuman import make_prompted_sample
from datasets.sample import Sample
from datasets.skeleton import COCO
from datasets.transforms import TrainingTransform, normalize
from util.errors import UserError
from util.images import load_image, size_for_shorter_side

HEIGHT, WIDTH = 203, 301  # not divisible by 2, 4 or 8
SMALL = {
    "short_sides": [48, 60, 90],
    "max_side": 110,
    "crop_short_sides": [80, 120, 220],
    "crop_range": (50, 100),
}


# --- the plain form: everything at once, step by step --------------------------------------------


def plain_sample(
    pixels: np.ndarray, people: list[dict], scribble: np.ndarray | None
) -> dict[str, Any]:
    """Image and target as torchvision's own types, whole masks included."""
    size = pixels.shape[:2]
    boxes = np.array([p["bbox"] for p in people]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = torch.from_numpy(boxes.clip(0, [WIDTH, HEIGHT] * 2)).float()
    keypoints = torch.tensor([p["keypoints"] for p in people]).float().reshape(-1, 17, 3)
    masks = [coco_mask.decode(encode_segmentation(p["segmentation"], *size, "")) for p in people]
    sample = {
        "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "keypoints": tv_tensors.KeyPoints(keypoints[..., :2].contiguous(), canvas_size=size),
        "masks": tv_tensors.Mask(torch.from_numpy(np.array(masks).reshape(-1, *size)).bool()),
        "visible": keypoints[..., 2] > 0,
        "area": torch.tensor([float(p["area"]) for p in people]),
    }
    if scribble is not None:
        points = torch.from_numpy(scribble).float()
        sample["scribble"] = tv_tensors.KeyPoints(points, canvas_size=size)
    return sample


def moved(sample: dict, function: Any, **arguments: Any) -> dict:
    return {
        key: function(value, **arguments) if isinstance(value, tv_tensors.TVTensor) else value
        for key, value in sample.items()
    }


def plain_resize(sample: dict, height: int, width: int) -> dict:
    old_height, old_width = sample["image"].shape[-2:]
    if (old_height, old_width) == (height, width):
        return sample
    sample = moved(sample, F.resize, size=[height, width], antialias=True)
    sample["area"] = sample["area"] * (height / old_height) * (width / old_width)
    return sample


def plain_training(sample: dict, generator: np.random.Generator) -> dict | None:
    """The training augmentation, in the order of its random draws."""
    people = ("boxes", "keypoints", "masks", "visible", "area")
    if generator.random() < 0.5:
        sample = moved(sample, F.horizontal_flip)
        order = list(COCO.flip_permutation)
        sample["keypoints"] = tv_tensors.wrap(
            sample["keypoints"][:, order], like=sample["keypoints"]
        )
        sample["visible"] = sample["visible"][:, order]
    if generator.random() < 0.5:
        side = int(generator.choice(SMALL["crop_short_sides"]))
        sample = plain_resize(sample, *size_for_shorter_side(*sample["image"].shape[-2:], side))
        height, width = sample["image"].shape[-2:]
        least, most = SMALL["crop_range"]
        h = int(generator.integers(min(least, height), min(most, height) + 1))
        w = int(generator.integers(min(least, width), min(most, width) + 1))
        top = int(generator.integers(height - h + 1))
        left = int(generator.integers(width - w + 1))
        before = sample["masks"].flatten(1).sum(1).double()
        sample = moved(sample, F.crop, top=top, left=left, height=h, width=w)
        sample["boxes"] = F.clamp_bounding_boxes(sample["boxes"])
        after = sample["masks"].flatten(1).sum(1).double()
        sample["area"] = sample["area"] * (after / before.clamp(min=1e-9)).float()
        sides = sample["boxes"].as_subclass(torch.Tensor).double().reshape(-1, 2, 2)
        keep = ((sides[:, 1] - sides[:, 0]).prod(-1) > 0) & (after > 0)
        if not keep.any():
            return None
        for key in people:
            like = sample[key]
            sample[key] = like[keep]
            if isinstance(like, tv_tensors.TVTensor):
                sample[key] = tv_tensors.wrap(sample[key], like=like)
        sample["keypoints"] = F.clamp_keypoints(sample["keypoints"])
        if "scribble" in sample:
            points = transforms._scribble_inside(
                sample["scribble"].numpy(), sample["masks"][0].numpy(), generator
            )
            sample["scribble"] = tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=(h, w))
    side = int(generator.choice(SMALL["short_sides"]))
    size = size_for_shorter_side(*sample["image"].shape[-2:], side, SMALL["max_side"])
    sample = plain_resize(sample, *size)
    keep = sample["masks"].flatten(1).any(1)
    if not keep.any():
        return None
    return {key: value[keep] if key in people else value for key, value in sample.items()}


# --- the project's against it --------------------------------------------------------------------


def some_people() -> list[dict]:
    """Diamonds, one partly outside, one tiny, and an RLE in two parts."""
    boxes = [(20, 10, 120, 170), (-15, 60, 90, 140.5), (210, 100, 3, 4), (150.5, 20.25, 100, 150)]
    people = [person_annotation(box, 7, i) for i, box in enumerate(boxes)]
    parts = [[160, 30, 200, 30, 200, 90, 160, 90], [220, 110, 300, 110, 300, 202, 220, 202]]
    code = encode_segmentation(parts, HEIGHT, WIDTH, "")
    people[3]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
    return people


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory) -> Path:
    """A JPEG of smooth colours."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 100 * np.sin(x / 31 + k) * np.cos(y / 23 - k) for k in range(3)]
    path = tmp_path_factory.mktemp("images") / "smooth.jpg"
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(path, quality=95)
    return path


def late_sample(path: Path, people: list[dict], with_prompt: bool) -> Sample:
    entry = {"id": 7, "file_name": path.name, "height": HEIGHT, "width": WIDTH}
    image = image_of_entry(path.parent, entry)
    if with_prompt:
        return make_prompted_sample(image, entry, people[0], training=False)
    return make_sample(image, entry, people)


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("with_prompt", [True, False])
def test_training_samples_are_those_of_the_plain_form(jpeg, with_prompt, draft):
    people = some_people()[:1] if with_prompt else some_people()
    pixels = np.array(Image.open(jpeg))
    scribble = np.reshape(people[0]["scribble"], (5, 12, 2))[0] if with_prompt else None
    transform = TrainingTransform(**SMALL, draft_decoding=draft)
    gone, drafts = 0, 0
    for seed in range(60):
        generators = [np.random.default_rng(seed) for _ in range(2)]
        expected = plain_training(plain_sample(pixels, people, scribble), generators[0])
        result = transform(late_sample(jpeg, people, with_prompt), generators[1])
        assert generators[0].random() == generators[1].random()  # no draw more or less
        gone += expected is None
        assert (result is None) == (expected is None)
        if result is None:
            continue
        image = expected.pop("image")
        for key, value in expected.items():
            assert torch.equal(result.target[key], value.as_subclass(torch.Tensor)), (seed, key)
        assert result.image.shape == image.shape
        difference = (result.image.int() - image.int()).abs()
        assert difference.max() <= (12 if draft else 0)
        drafts += bool(difference.any())
    assert gone > 0 or not with_prompt
    assert (drafts > 20) == draft


@pytest.mark.parametrize("least", [(203, 301), (102, 150), (100, 150), (50, 75), (25, 30), (7, 7)])
def test_drafts_are_of_the_smallest_size_that_is_enough(jpeg, least):
    pixels = load_image(jpeg, size=(HEIGHT, WIDTH), least=least)
    expected = {203: 1, 102: 1, 100: 2, 50: 4, 25: 8, 7: 8}[least[0]]
    assert pixels.shape[:2] == (-(-HEIGHT // expected), -(-WIDTH // expected))


@pytest.mark.parametrize("flipped", [False, True])
def test_drafts_keep_their_place(tmp_path, flipped):
    # A ramp of 4 levels a pixel tells where a pixel comes from. A draft at an eighth of 57 columns
    # has 8, of which the last is inside by an eighth only: taken for 64, they would be 28 too many.
    ramp = (4 * np.arange(57, dtype=np.uint8))[None, :, None].repeat(57, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=100)
    entry = {"id": 1, "file_name": "ramp.jpg", "height": 57, "width": 57}
    image = image_of_entry(tmp_path, entry)
    image = (image.flip() if flipped else image).resize(7, 7)
    whole, draft = image.pixels().astype(float), image.pixels(draft=True).astype(float)
    assert draft.shape == (7, 7, 3) and not np.array_equal(draft, whole)
    assert np.abs(draft - whole).max() <= 4


def test_drafts_only_where_the_first_step_is_a_resize():
    asked = []

    def read(least):
        asked.append(least)
        return np.zeros((80, 100, 3), dtype=np.uint8)

    image = PendingImage(read, (80, 100), (80, 100))
    image.crop(0, 0, 40, 40).resize(10, 10).pixels(draft=True)
    image.pixels(draft=True)
    image.resize(10, 20).pixels()
    flipped = image.flip().resize(10, 20).crop(1, 2, 5, 6).resize(7, 8)
    assert flipped.pixels(draft=True).shape == (7, 8, 3) and flipped.size == (7, 8)
    assert asked == [None, None, None, (10, 20)]


def test_windows_are_the_whole_masks():
    generator = np.random.default_rng(0)
    segmentations = [p["segmentation"] for p in some_people()]
    for _ in range(40):
        masks = PersonMasks.from_segmentations(segmentations, HEIGHT, WIDTH, "")
        whole = masks.dense()
        for segmentation, mask in zip(segmentations, whole, strict=True):
            code = encode_segmentation(segmentation, HEIGHT, WIDTH, "")
            assert np.array_equal(coco_mask.decode(code), mask.numpy())
        for _ in range(4):
            height, width = masks.size
            step = generator.integers(3)
            if step == 0:
                masks, whole = masks.flip(), whole.flip(-1)
            elif step == 1:
                h, w = (int(generator.integers(1, 2 * n + 1)) for n in masks.size)
                masks = masks.resize(h, w)
                whole = F.resize(tv_tensors.Mask(whole), [h, w])
            else:
                h, w = (int(generator.integers(1, n + 1)) for n in masks.size)
                top, left = (
                    int(generator.integers(height - h + 1)),
                    int(generator.integers(width - w + 1)),
                )
                masks = masks.crop(top, left, h, w)
                whole = whole[:, top : top + h, left : left + w]
            assert torch.equal(masks.dense(), whole.as_subclass(torch.Tensor))
            assert masks.counts().tolist() == whole.flatten(1).sum(1).tolist()
        kept = masks.keep([False, True, True, False])
        assert torch.equal(kept.dense(), masks.dense()[1:3])


def test_normalisation_by_table_is_the_plain_formula(jpeg):
    sample = transforms.keep_size(late_sample(jpeg, some_people(), False))
    image = F.to_dtype(sample.image, torch.float32, scale=True)
    expected = F.normalize(image, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert torch.equal(normalize(sample).image, expected)


# --- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "save",
    [{}, {"subsampling": 0}, {"subsampling": 1, "quality": 30}, {"progressive": True},
     {"restart_marker_blocks": 3}, {"quality": 100, "optimize": True}],
)  # fmt: skip
def test_jpegs_are_decoded_as_pillow_does(tmp_path, save):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (61, 83, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", **save)
    result = load_image(tmp_path / "a.jpg", size=(61, 83))
    assert np.array_equal(result, np.array(Image.open(tmp_path / "a.jpg")))
    assert result.flags.writeable and result.flags.c_contiguous


def test_damaged_jpegs_are_errors(jpeg, tmp_path):
    content = bytearray(jpeg.read_bytes())
    path = tmp_path / "damaged.jpg"
    middle = len(content) * 2 // 3
    for damage in (content[:middle], content[:-2], content[:middle] + b"\xff\xdb\0\0" * 2):
        damage = bytes(damage)
        if damage[-1] == 0:  # a marker that does not belong there
            damage += bytes(content[middle + 8 :])
        path.write_bytes(damage)
        with pytest.raises(UserError, match="damaged.jpg cannot be read"):
            load_image(path, size=(HEIGHT, WIDTH))
