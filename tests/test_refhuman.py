"""The RefHuman data set: samples, loaders, images of every kind and bad input."""

from __future__ import annotations

import io
import json
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import person_annotation
from PIL import Image
from pycocotools import mask as coco_mask

from datasets import build_dataset, build_loader
from datasets.annotations import PackedList, encode_segmentation
from datasets.refhuman import RefHuman, make_prompted_sample
from datasets.sample import collate
from datasets.transforms import EvaluationTransform, TrainingTransform
from util.config import Config
from util.errors import UserError
from util.images import load_image
from util.nested_tensor import NestedTensor
from util.normalization import normalize_batch

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"
MINI = SHARED / "data" / "refhuman_mini"
needs_mini = pytest.mark.skipif(
    not MINI.is_dir(), reason=f"the real example data {MINI} is not on this machine"
)

SMALL = {
    "short_sides": [64, 80, 96],
    "max_side": 128,
    "crop_short_sides": [80, 96],
    "crop_range": (60, 90),
}


def dataset(folder: Path, split: str = "train", training: bool = True, **more) -> RefHuman:
    transform = TrainingTransform(**SMALL) if training else EvaluationTransform(128)
    return RefHuman(
        folder / "images",
        folder / f"RefHuman_{split}.json",
        transform,
        training=training,
        **{"seed": 3, **more},
    )


def configuration(folder: Path, **changed) -> Config:
    cfg = Config.fromfile(ROOT / "config" / "uniphd.py")
    small = {
        "coco_path": str(folder),
        "eval_max_side": 128,
        "train_short_sides": [64, 96],
        "train_max_side": 128,
        "crop_short_sides": [80],
        "crop_range": [60, 90],
        "num_workers": 0,
        "batch_size": 4,
        "eval_batch_size": 2,
    }
    cfg.merge_from_dict({**small, **changed})
    return cfg


def assert_same(first, second):
    assert torch.equal(first.image, second.image)
    assert first.target.keys() == second.target.keys()
    for key, value in first.target.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(value, second.target[key]), key


# --- samples -------------------------------------------------------------------------------------


def test_pair_becomes_sample(refhuman_folder):
    data = dataset(refhuman_folder(), training=False)
    assert len(data) == 6
    sample = data[1]
    assert sample.image.shape == (3, 96, 128)
    assert sample.target["image_id"] == 2
    assert sample.target["caption"] == "the person on the right side"
    x, y, w, h = data.ground_truth()["annotations"][1]["bbox"]
    box = torch.tensor([[(x + w / 2) / 128, (y + h / 2) / 96, w / 128, h / 96]])
    assert torch.allclose(sample.target["boxes"], box, atol=1e-6)
    points = sample.target["scribble"].long()
    assert sample.target["masks"][0, points[:, 1], points[:, 0]].all()
    # The bright green box of the second person is where the sample says.
    green = sample.image[1] > sample.image[1].mean()
    assert green[sample.target["masks"][0]].float().mean() > 0.95


def test_box_is_clipped_and_flat_and_nested_scribbles_are_the_same():
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    entry = {"id": 1, "height": 60, "width": 80}
    annotation = person_annotation((-10, 20, 50, 70), 1, 0)
    flat = make_prompted_sample(pixels, entry, annotation, training=False)
    assert flat.target["boxes"].tolist() == [[0, 20, 40, 60]]
    annotation["scribble"] = np.array(annotation["scribble"]).reshape(5, 12, 2).tolist()
    nested = make_prompted_sample(pixels, entry, annotation, training=False)
    assert torch.equal(nested.target["scribble"], flat.target["scribble"])
    assert nested.target["scribble"].tolist() == annotation["scribble"][0]
    assert "caption" not in nested.target


def test_training_draws_all_five_scribbles_evaluation_takes_the_first(refhuman_folder):
    folder = refhuman_folder()
    data = dataset(folder, training=True)
    data.transform = EvaluationTransform(128)
    seen = set()
    for epoch in range(40):
        data.set_epoch(epoch)
        seen.add(data[0].target["scribble"][0, 0].item())
    assert len(seen) == 5
    data = dataset(folder, training=False)
    first = data.ground_truth()["annotations"][0]["scribble"][:2]
    for epoch in range(5):
        data.set_epoch(epoch)
        assert data[0].target["scribble"][0].tolist() == first


def test_polygons_and_both_kinds_of_rle_give_the_same_mask():
    polygons = [[10, 10, 40, 10, 40, 30, 10, 30], [50, 35, 70, 35, 60, 50]]
    code = encode_segmentation(polygons, 60, 80, "")
    mask = coco_mask.decode(code)
    assert mask[20, 20] and mask[40, 60] and not mask[20, 60]
    text = {"size": [60, 80], "counts": code["counts"].decode()}
    lengths = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2])))
    plain = {"size": [60, 80], "counts": [int(n) for n in lengths]}
    for rle in (text, plain):
        assert np.array_equal(coco_mask.decode(encode_segmentation(rle, 60, 80, "")), mask)
    with pytest.raises(ValueError, match="image id 4.*60x81"):
        encode_segmentation(text, 60, 81, "image id 4")


def test_lost_person_is_replaced_by_another(refhuman_folder):
    data = dataset(refhuman_folder())
    keep = data.transform
    data.transform = lambda raw, rng: None if raw.target["image_id"] == 1 else keep(raw, rng)
    ids = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        ids.add(data[0].target["image_id"])
    assert 1 not in ids and len(ids) > 2
    assert_same(data[0], data[0])
    data.transform = lambda raw, rng: None
    with pytest.raises(UserError, match="starting at index 0"):
        data[0]


def test_collate_pads_at_the_bottom_and_right(refhuman_folder):
    data = dataset(refhuman_folder())
    samples = [data[i] for i in range(4)]
    batch, targets = collate(samples, divisor=16)
    assert batch.tensors.shape[2] % 16 == 0 and batch.tensors.shape[3] % 16 == 0
    assert batch.sizes.tolist() == [target["size"].tolist() for target in targets]
    for i, sample in enumerate(samples):
        height, width = sample.target["size"].tolist()
        assert torch.equal(batch.tensors[i, :, :height, :width], sample.image)
        assert batch.tensors[i, :, height:].eq(0).all() and batch.mask[i, :, width:].all()


def test_the_padding_is_zero_in_memory_that_is_not():
    def allocate(shape):
        return torch.full(shape, torch.nan)

    images = [torch.ones(3, 5, 7), torch.ones(3, 8, 3)]
    batch = NestedTensor.from_list(images, 4, allocate=allocate)
    assert batch.tensors.shape == (2, 3, 8, 8)
    assert torch.equal(batch.tensors == 1, ~batch.mask[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(batch.tensors == 0, batch.mask[:, None].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("with_ids", [True, False])
def test_people_of_an_image_are_told_apart(refhuman_folder, with_ids):
    def repeat_first_person(content, split):
        person = content["annotations"][0]
        for annotation in content["annotations"][2:4]:
            annotation.update({key: person[key] for key in ("bbox", "keypoints", "person_id")})
        for image in content["images"][2:4]:
            image["file_name"] = content["images"][0]["file_name"]
        if not with_ids:
            for annotation in content["annotations"]:
                del annotation["person_id"]

    data = dataset(refhuman_folder(change=repeat_first_person))
    assert data.image_groups() == [[[0, 2, 3], [1]], [[4], [5]]]
    assert data.has_prompts


# --- random streams and loaders ------------------------------------------------------------------


def test_samples_depend_on_seed_epoch_and_index_only(refhuman_folder):
    folder = refhuman_folder()
    first, second, other = dataset(folder), dataset(folder), dataset(folder, seed=4)
    torch.manual_seed(1)
    forwards = [first[i] for i in range(6)]
    state = torch.get_rng_state()
    backwards = [second[i] for i in reversed(range(6))][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(forwards, backwards, strict=True):
        assert_same(a, b)
    assert any(not torch.equal(a.image, other[i].image) for i, a in enumerate(forwards))
    second.set_epoch(1)
    assert any(not torch.equal(a.image, second[i].image) for i, a in enumerate(forwards))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_gives_the_same_samples(refhuman_folder):
    folder = refhuman_folder()
    batches = {}
    for workers in (0, 1, 3):
        cfg = configuration(folder, num_workers=workers)
        loader = build_loader(cfg, build_dataset(cfg, "train"))
        loader.dataset.set_epoch(2)
        loader.batch_sampler.start(2)
        batches[workers] = list(loader)
    for workers in (1, 3):
        for (images, targets), (same_images, same_targets) in zip(
            batches[0], batches[workers], strict=True
        ):
            assert torch.equal(images.tensors, same_images.tensors)
            for target, same in zip(targets, same_targets, strict=True):
                assert torch.equal(target["scribble"], same["scribble"])
                assert target["caption"] == same["caption"]
    ids = [target["image_id"] for _, targets in batches[0] for target in targets]
    assert sorted(ids) == [1, 2, 3, 4, 5, 6]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("split", ["train", "val"])
def test_workers_stay_and_follow_the_epoch(refhuman_folder, split):
    folder = refhuman_folder()

    def images_of_epochs(workers: int) -> list[list[torch.Tensor]]:
        cfg = configuration(folder, num_workers=workers)
        loader = build_loader(cfg, build_dataset(cfg, split))
        epochs, processes = [], set()
        for epoch in (0, 1, 5):
            loader.dataset.set_epoch(epoch)
            if split == "train":
                loader.batch_sampler.start(epoch)
            next(iter(loader))  # an epoch that is given up, with batches under way
            epochs.append([images.tensors.clone() for images, _ in loader])
            if workers:
                processes.add(tuple(worker.pid for worker in loader._iterator._workers))
        assert len(processes) == (workers > 0)  # the same ones all the time
        return epochs

    expected = images_of_epochs(0)
    for workers in (1, 2):
        for own, images in zip(images_of_epochs(workers), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(own, images, strict=True))
    same = all(torch.equal(a, b) for a, b in zip(expected[0], expected[1], strict=True))
    assert same == (split == "val")


def test_a_loader_has_the_samples_of_the_data_set(refhuman_folder):
    cfg = configuration(refhuman_folder())
    data = build_dataset(cfg, "train")
    loader = build_loader(cfg, data)
    for indices, (images, targets) in zip(loader.batch_sampler, loader, strict=True):
        expected, expected_targets = collate([data[index] for index in indices])
        assert images.tensors.dtype == torch.uint8  # normalised on the model's device
        assert torch.equal(normalize_batch(images).tensors, expected.tensors)
        assert torch.equal(images.mask, expected.mask)
        for target, other in zip(targets, expected_targets, strict=True):
            assert torch.equal(target["keypoints"], other["keypoints"])
            assert torch.equal(target["masks"], other["masks"])


def test_draft_decoding_is_a_setting_of_training(refhuman_folder):
    folder = refhuman_folder(size=(192, 256))
    on, off = (configuration(folder, draft_decoding=value) for value in (True, False))
    samples = [build_dataset(cfg, "train") for cfg in (on, off)]
    assert any(not torch.equal(samples[0][i].image, samples[1][i].image) for i in range(6))
    for i in range(6):
        assert torch.equal(samples[0][i].target["masks"], samples[1][i].target["masks"])
    whole = [build_dataset(cfg, "val") for cfg in (on, off)]
    for i in range(5):
        assert_same(whole[0][i], whole[1][i])


def test_annotations_are_not_copied_into_spawned_workers():
    small, large = (PackedList([{"numbers": list(range(100))}] * count) for count in (1, 5000))
    assert [large[0], large[4999]] == [{"numbers": list(range(100))}] * 2
    sizes = [len(ForkingPickler.dumps(packed)) for packed in (small, large)]
    assert abs(sizes[1] - sizes[0]) < 100
    assert pickle.loads(pickle.dumps(small))[0] == small[0]
    with pytest.raises(IndexError, match="Item 1 of a list of 1"):
        small[1]


def test_build_dataset_follows_the_configuration(refhuman_folder):
    folder = refhuman_folder()
    train = build_dataset(configuration(folder, drop_cropped_keypoints=True), "train")
    assert train.training and isinstance(train.transform, TrainingTransform)
    assert train.transform.drop_cropped_keypoints and train.transform.crop_range == (60, 90)
    assert train.seed == 42
    plain = build_dataset(configuration(folder, augment=False), "train")
    assert plain.training and isinstance(plain.transform, EvaluationTransform)
    val = build_dataset(configuration(folder), "val")
    assert len(val) == 5 and not val.training
    loader = build_loader(configuration(folder), val, rank=1, world_size=2)
    assert [[t["image_id"] for t in targets] for _, targets in loader] == [[3, 4]]
    batches = list(build_loader(configuration(folder, eval_batch_size=3), val))
    assert [len(targets) for _, targets in batches] == [3, 2]
    cfg = SimpleNamespace(**{**configuration(folder).to_dict(), "eval_batch_size": None})
    assert [len(targets) for _, targets in build_loader(cfg, val)] == [4, 1]
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        build_dataset(configuration(folder), "test")
    with pytest.raises(ValueError, match="Unknown dataset 'cooc'.*Did you mean 'coco'"):
        build_dataset(configuration(folder, dataset="cooc"), "val")
    with pytest.raises(ValueError, match="Unknown skeleton 'hand'"):
        build_dataset(configuration(folder, skeleton="hand"), "val")


def test_build_synthetic_dataset(tmp_path):
    synthetic = {
        "train_length": 3,
        "val_length": 2,
        "image_size": [64, 80],
        "num_people": [1, 2],
        "difficulty": 0.0,
        "caption_kinds": None,
        "min_area": 0.02,
        "curriculum": [],
        "mixture": [],
    }
    cfg = Config({**configuration(tmp_path).to_dict(), "synthetic": synthetic})
    cfg.merge_from_dict({"dataset": "synthetic", "augment": False, "eval_max_side": 80})
    train, val = build_dataset(cfg, "train"), build_dataset(cfg, "val")
    assert (len(train), len(val)) == (3, 2)
    assert train.training and not val.training
    assert train[0].image.shape == (3, 64, 80)
    assert len(val.ground_truth()["images"]) == 2
    cfg.merge_from_dict({"seed": 7})
    assert_same(build_dataset(cfg, "val")[1], val[1])
    assert not torch.equal(build_dataset(cfg, "train")[0].image, train[0].image)


def test_synthetic_images_are_trained_on_as_drawn(tmp_path):
    cfg = configuration(tmp_path, dataset="synthetic", augment=False, eval_max_side=160)
    stage = {"until_epoch": 1, "image_size": [48, 64]}
    small = {"train_length": 2, "val_length": 1, "image_size": [80, 80], "curriculum": [stage]}
    cfg.merge_from_dict({f"synthetic.{key}": value for key, value in small.items()})
    train = build_dataset(cfg, "train")
    assert train[0].image.shape == (3, 48, 64)
    train.set_epoch(1)
    assert train[0].image.shape == (3, 80, 80)
    assert build_dataset(cfg, "val")[0].image.shape == (3, 160, 160)


# --- images ------------------------------------------------------------------------------------


def image_file(tmp_path: Path, image: Image.Image, name: str, **save) -> Path:
    image.save(tmp_path / name, **save)
    return tmp_path / name


def colour_image() -> Image.Image:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :15] = (200, 40, 90)
    pixels[:10] += 30
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "YCbCr"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    name = "image.jpg" if mode in ("CMYK", "YCbCr") else "image.png"
    save = {"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}
    path = image_file(tmp_path, colour_image().convert(mode), name, **save)
    pixels = load_image(path)
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    expected = np.array(colour_image().convert(mode).convert("RGB"))
    assert np.abs(pixels.astype(int) - expected).max() <= 4


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "<u2"), ("a.tif", "<u2"), ("b.tif", "<i4")])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name, dtype):
    grey = np.array([[0, 257, 128 * 257, 65535, 32895]], dtype=dtype)
    path = image_file(tmp_path, Image.fromarray(grey), name)
    assert load_image(path)[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255, 128)]


def exif_image(orientation: int) -> Image.Image:
    image = colour_image()
    image.getexif()[0x0112] = orientation
    return image


def test_exif_rotation_is_followed_where_the_annotation_wants_it(tmp_path):
    upright = np.array(colour_image())
    path = tmp_path / "turned.png"
    exif_image(6).save(path, exif=exif_image(6).getexif())
    turned = np.rot90(upright, -1)
    assert np.array_equal(load_image(path), turned)  # as a viewer shows it
    assert np.array_equal(load_image(path, size=(30, 20)), turned)
    assert np.array_equal(load_image(path, size=(20, 30)), upright)  # as it is stored
    with pytest.raises(ValueError, match=r"turned.png is 30x20 pixels.*its entry says 41x40"):
        load_image(path, size=(40, 41))
    half_turn = tmp_path / "half.png"
    exif_image(3).save(half_turn, exif=exif_image(3).getexif())
    assert np.array_equal(load_image(half_turn, size=(20, 30)), upright)
    assert np.array_equal(load_image(half_turn), np.rot90(upright, 2))


def test_images_come_from_paths_files_and_pil(tmp_path):
    path = image_file(tmp_path, colour_image(), "a.png")
    expected = np.array(colour_image())
    assert np.array_equal(load_image(str(path)), expected)
    assert np.array_equal(load_image(io.BytesIO(path.read_bytes())), expected)
    assert np.array_equal(load_image(colour_image()), expected)


def test_bad_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.png does not exist"):
        load_image(tmp_path / "no.png")
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    with pytest.raises(ValueError, match="text.jpg is not an image"):
        load_image(text)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8))
    for name in ("cut.jpg", "cut.png"):
        path = image_file(tmp_path, noise, name)
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            load_image(path)
    path = image_file(tmp_path, Image.fromarray(np.ones((4, 4), dtype=np.float32)), "f.tif")
    with pytest.raises(ValueError, match="f.tif has floating-point pixels"):
        load_image(path)
    path = image_file(tmp_path, Image.fromarray(np.full((4, 4), 70_000, np.int32)), "i.tif")
    with pytest.raises(ValueError, match="i.tif has grey values from 70000"):
        load_image(path)


def test_data_set_reads_images_of_any_kind(refhuman_folder):
    folder = refhuman_folder(pairs={"val": 2})
    path = folder / "images" / "val_000.jpg"
    with Image.open(path) as file:
        grey = file.convert("L")
    grey.save(path, quality=95)
    image = dataset(folder, "val", training=False)[0].image
    assert image.shape == (3, 96, 128) and image.isfinite().all()
    # Stored lying on its side, with the orientation in EXIF: the annotation's frame is kept.
    turned = grey.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    turned.save(path, exif=turned.getexif(), quality=95)
    again = dataset(folder, "val", training=False)[0].image
    # The noise alone differs by 0.6 from itself upside down.
    assert again.shape == image.shape and (again - image).abs().mean() < 0.2


# --- bad input -----------------------------------------------------------------------------------


def broken(refhuman_folder, change, **more):
    """A folder whose training file is changed; opens it and returns the error's text."""

    def change_training(content, split):
        if split == "train":
            change(content)

    with pytest.raises(ValueError) as caught:
        dataset(refhuman_folder(change=change_training), **more)
    assert "RefHuman_train.json" in str(caught.value)
    return str(caught.value)


def test_missing_folder_file_and_images(refhuman_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"RefHuman_val.json does not exist.*coco_path"):
        build_dataset(configuration(tmp_path / "nowhere"), "val")
    folder = refhuman_folder()
    (folder / "images" / "train_001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are missing.*train_001.jpg"):
        dataset(folder)
    (folder / "images").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"Image folder .*images does not exist"):
        dataset(folder)


def test_not_json_and_not_refhuman(refhuman_folder):
    folder = refhuman_folder()
    file = folder / "RefHuman_train.json"
    content = file.read_text()
    file.write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match="RefHuman_train.json is not valid JSON"):
        dataset(folder)
    for other in ([], {"images": []}, {"images": {}, "annotations": []}, "text"):
        file.write_text(json.dumps(other))
        with pytest.raises(ValueError, match="is not a RefHuman annotation file"):
            dataset(folder)
    file.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(ValueError, match="has no image entries"):
        dataset(folder)


def test_number_of_annotations_per_image(refhuman_folder):
    message = broken(refhuman_folder, lambda c: c["annotations"].pop(2))
    assert "image id 3 has 0 annotations" in message
    message = broken(refhuman_folder, lambda c: c["annotations"].append(c["annotations"][4]))
    assert "image id 5 has 2 annotations" in message and "plain COCO" in message
    message = broken(refhuman_folder, lambda c: c["images"].pop(1))
    assert "refers to image id 2" in message
    message = broken(refhuman_folder, lambda c: c["images"].append(c["images"][3]))
    assert "image id 4 occurs twice" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("file_name", None, "'file_name' is missing"),
        ("height", 0, "'height' has to be a positive"),
        ("width", "640", "'width' has to be a positive"),
        ("id", "one", "'id' has to be an integer"),
        ("caption", "", "no 'caption', which text prompts need"),
        ("caption", 7, "'caption' has to be a string"),
    ],
)
def test_broken_image_entries(refhuman_folder, key, value, expected):
    message = broken(refhuman_folder, lambda c: c["images"][0].update({key: value}))
    assert f"image id {value if key == 'id' else 1}" in message and expected in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("bbox", [1, 2, 3], "'bbox' has to be"),
        ("bbox", [1, 2, 0, 5], "positive width"),
        ("bbox", None, "'bbox' has to be"),
        ("area", float("nan"), "'area' has to be a positive number"),
        ("keypoints", [1, 2, 2] * 16, "51 numbers"),
        ("keypoints", None, "51 numbers"),
        ("segmentation", None, "list of polygons"),
        ("segmentation", [], "list of polygons"),
        ("segmentation", [[1, 2, 3, 4]], "polygon 0 of 'segmentation' is broken"),
        ("segmentation", [[1] * 8, [1, 2, 3, 4, 5, 6, 7]], "polygon 1 of 'segmentation'"),
        ("segmentation", [[1, 2, 3, 4, 5, float("inf")]], "finite coordinates"),
        ("segmentation", [7], "polygon 0 of 'segmentation' is broken"),
        ("segmentation", {"counts": []}, "without 'size'"),
        ("scribble", [1, 2, 3], "scribbles of 12 points"),
        ("scribble", [[[1, 2]] * 12, [[1, 2]]], "scribbles of 12 points"),
        ("scribble", "wavy", "scribbles of 12 points"),
        ("scribble", [], "no 'scribble', which point prompts need"),
    ],
)
def test_broken_annotations(refhuman_folder, key, value, expected):
    message = broken(refhuman_folder, lambda c: c["annotations"][2].update({key: value}))
    assert "image id 3" in message and expected in message


def test_only_the_prompts_in_use_have_to_be_there(refhuman_folder):
    def remove_scribbles(content, split):
        for annotation in content["annotations"]:
            del annotation["scribble"]

    folder = refhuman_folder(change=remove_scribbles)
    sample = dataset(folder, prompts=("text",))[0]
    assert "scribble" not in sample.target and "caption" in sample.target
    cfg = configuration(folder, eval_prompts=["text"])
    assert len(build_dataset(cfg, "val")) == 5
    with pytest.raises(ValueError, match="no 'scribble'"):
        build_dataset(configuration(folder, eval_triggers=["point"]), "val")
    with pytest.raises(ValueError, match="no 'scribble'"):
        build_dataset(cfg, "train")
    with pytest.raises(ValueError, match="Unknown kind of prompt 'speech'"):
        dataset(folder, prompts=("speech",))


def test_image_of_another_size_is_named(refhuman_folder):
    folder = refhuman_folder()
    path = folder / "images" / "train_000.jpg"
    Image.new("RGB", (50, 40)).save(path)
    with pytest.raises(ValueError, match=r"train_000.jpg is 50x40 .*its entry says 128x96"):
        dataset(folder)[0]


# --- the real example ----------------------------------------------------------------------------


@needs_mini
@pytest.mark.parametrize(("split", "count"), [("train", 150), ("val", 138)])
def test_real_pairs_load(split, count):
    data = build_dataset(
        configuration(
            MINI,
            eval_max_side=320,
            train_short_sides=[200, 240],
            train_max_side=320,
            crop_short_sides=[240],
            crop_range=[160, 300],
        ),
        split,
    )
    assert len(data) == count
    for i in range(count):
        sample = data[i]
        target = sample.target
        height, width = sample.image.shape[-2:]
        assert max(height, width) <= 320
        assert target["masks"].shape == (1, height, width) and target["masks"].any()
        assert ((target["boxes"] >= 0) & (target["boxes"] <= 1)).all()
        assert ((target["keypoints"] >= 0) & (target["keypoints"] <= 1)).all()
        assert 0 < float(target["area"]) < 1
        points = target["scribble"]
        assert ((points >= 0) & (points < torch.tensor([width, height]))).all()
        assert target["caption"]
