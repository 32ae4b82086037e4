"""RefHuman: annotation file -> samples of one image, one person and their prompts."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset
from torchvision import tv_tensors

from datasets.sample import Sample
from datasets.scribble import NUM_POINTS
from datasets.skeleton import COCO, Skeleton
from datasets.transforms import normalize
from util.images import load_image
from util.nested_tensor import NestedTensor

if TYPE_CHECKING:
    from datasets.evaluation import Evaluator

PROMPT_KINDS = ("text", "point", "scribble")

# Draws of another sample after the person of the first one was cropped away.
_MAX_ATTEMPTS = 100

# Keeps the samples' random streams apart from others of (seed, epoch, number).
_STREAM = 0x5A4D


def make_sample(
    image: np.ndarray,
    image_entry: dict[str, Any],
    annotation: dict[str, Any],
    *,
    training: bool,
    generator: np.random.Generator | None = None,
    skeleton: Skeleton = COCO,
) -> Sample:
    """Turn one image-prompt pair in RefHuman's form into a raw sample.

    Args:
        image: [h, w, 3] uint8 RGB.
        image_entry: `id`, `height`, `width`, and `caption` where there is one.
        annotation: the entry's person: `bbox` [x, y, w, h], `area`, `segmentation` (polygons or
            COCO RLE), `keypoints` 3K numbers, and `scribble` where there is one.
        training: True draws one of the person's scribbles, False takes the first.
        generator: source of that draw; needed only when training.
        skeleton: keypoint definition, K keypoints.

    Raises:
        ValueError: image and entry differ in size, or the polygons cannot be drawn.
    """
    height, width = image.shape[:2]
    name = f"image id {image_entry['id']}"
    if (height, width) != (image_entry["height"], image_entry["width"]):
        raise ValueError(
            f"{name}: the image is {width}x{height} pixels (width x height), its entry says "
            f"{image_entry['width']}x{image_entry['height']}."
        )
    x, y, box_width, box_height = annotation["bbox"]
    left, right = np.clip([x, x + box_width], 0, width)
    top, bottom = np.clip([y, y + box_height], 0, height)
    keypoints = np.asarray(annotation["keypoints"], dtype=np.float32).reshape(1, -1, 3)
    mask = coco_mask.decode(encode_segmentation(annotation["segmentation"], height, width, name))
    target: dict[str, Any] = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor([[left, top, right, bottom]], dtype=torch.float32),
            format="XYXY",
            canvas_size=(height, width),
        ),
        "keypoints": tv_tensors.KeyPoints(
            torch.from_numpy(keypoints[:, : skeleton.num_keypoints, :2].copy()),
            canvas_size=(height, width),
        ),
        "visible": torch.from_numpy(keypoints[:, : skeleton.num_keypoints, 2] > 0),
        "masks": tv_tensors.Mask(torch.from_numpy(mask.astype(bool))[None]),
        "area": torch.tensor([annotation["area"]], dtype=torch.float32),
        "labels": torch.ones(1, dtype=torch.int64),
        "image_id": int(image_entry["id"]),
        "orig_size": torch.tensor([height, width]),
    }
    if annotation.get("scribble"):
        scribbles = np.asarray(annotation["scribble"], dtype=np.float32)
        scribbles = scribbles.reshape(-1, NUM_POINTS, 2)
        choice = 0
        if training:
            if generator is None:
                raise ValueError("make_sample needs a generator when training.")
            choice = int(generator.integers(len(scribbles)))
        target["scribble"] = tv_tensors.KeyPoints(
            torch.from_numpy(scribbles[choice].copy()), canvas_size=(height, width)
        )
    if image_entry.get("caption"):
        target["caption"] = image_entry["caption"]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
    return Sample(tv_tensors.Image(pixels), target)


def encode_segmentation(
    segmentation: list[list[float]] | dict[str, Any], height: int, width: int, name: str
) -> dict[str, Any]:
    """COCO segmentation -> one run-length code for the whole person.

    Args:
        segmentation: polygons [x0, y0, x1, y1, ...] in pixels, or a COCO RLE, compressed or not.
        height: rows of the image.
        width: columns of the image.
        name: what to call the segmentation's owner in an error.

    Returns:
        Compressed RLE, `size` [height, width] and `counts` bytes.

    Raises:
        ValueError: the segmentation is neither polygons nor an RLE of this size.
    """
    try:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"the RLE is of size {segmentation['size']}")
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, height, width)
        counts = segmentation["counts"]
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        return {"size": [height, width], "counts": counts}
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{name}: the segmentation is neither polygons nor a COCO RLE of {height}x{width} "
            f"pixels (height x width): {error}."
        ) from error


def collate(samples: Sequence[Sample], divisor: int = 16) -> tuple[NestedTensor, list[dict]]:
    """Finished samples -> padded batch and its targets.

    Args:
        samples: B finished samples.
        divisor: the padded height and width are multiples of it.

    Returns:
        NestedTensor of [B, 3, H, W] and the B target dicts. Padding is at the bottom and right, so
        that pixel coordinates of an image are pixel coordinates of the batch.
    """
    images = NestedTensor.from_list([sample.image for sample in samples], divisor=divisor)
    return images, [sample.target for sample in samples]


class PromptedPersonDataset(Dataset[Sample]):
    """Common part of the data sets: a pair -> transforms -> finished sample.

    Subclasses provide `__len__`, `load_pair`, `image_groups` and `ground_truth`.

    Every random draw of a sample comes from the stream of (seed, epoch, index): the samples do not
    depend on the number of workers or processes, and no two samples share a stream.

    Args:
        transform: (raw sample, generator) -> raw sample, or None where the person is gone.
        training: draw one of the scribbles instead of taking the first, and replace a sample whose
            person was cropped away by another one.
        seed: of the random streams, not negative.
        skeleton: keypoint definition.
    """

    has_prompts = True

    def __init__(
        self,
        transform: Callable[[Sample, np.random.Generator], Sample | None],
        *,
        training: bool,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        self.transform = transform
        self.training = training
        self.seed = seed
        self.skeleton = skeleton
        self.epoch = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def load_pair(self, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        """Image ([h, w, 3] uint8 RGB), image entry and annotation of pair `index`."""
        raise NotImplementedError

    def image_groups(self) -> list[Sequence[int]]:
        """The pairs of each image; every pair is in one group."""
        raise NotImplementedError

    def ground_truth(self) -> dict[str, Any]:
        """COCO-style dict for evaluation: images, annotations, categories, optionally people."""
        raise NotImplementedError

    def make_evaluator(self) -> Evaluator:
        """A new evaluator over this data set's ground truth."""
        from datasets.evaluation import Evaluator

        return Evaluator(self.ground_truth(), self.skeleton)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's random streams. Call it before the epoch's workers start."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        """Finished sample `index` of this epoch, 0 <= index < len(self)."""
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of a data set of {len(self)}.")
        generator = np.random.default_rng((self.seed, self.epoch, index, _STREAM))
        chosen = index
        for _ in range(_MAX_ATTEMPTS):
            image, image_entry, annotation = self.load_pair(chosen)
            raw = make_sample(
                image,
                image_entry,
                annotation,
                training=self.training,
                generator=generator,
                skeleton=self.skeleton,
            )
            transformed = self.transform(raw, generator)
            if transformed is not None:
                return normalize(transformed)
            chosen = int(generator.integers(len(self)))
        raise RuntimeError(
            f"{type(self).__name__}: {_MAX_ATTEMPTS} samples in a row, starting at index {index}, "
            f"lost their person to the crop; raise crop_range or set augment=False."
        )


class RefHuman(PromptedPersonDataset):
    """RefHuman from its annotation file and image folder.

    Args:
        images_folder: folder of the images.
        annotation_file: `RefHuman_train.json`, `RefHuman_val.json` or a file of that form.
        transform: see `PromptedPersonDataset`.
        training: see `PromptedPersonDataset`.
        prompts: prompt kinds that the pairs have to support, of "text", "point" and "scribble".
        seed: see `PromptedPersonDataset`.
        skeleton: keypoint definition.

    Raises:
        FileNotFoundError: folder, annotation file or images are missing.
        ValueError: the annotation file is not in RefHuman's form, or lacks a prompt.
    """

    def __init__(
        self,
        images_folder: str | os.PathLike[str],
        annotation_file: str | os.PathLike[str],
        transform: Callable[[Sample, np.random.Generator], Sample | None],
        *,
        training: bool,
        prompts: Iterable[str] = PROMPT_KINDS,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        super().__init__(transform, training=training, seed=seed, skeleton=skeleton)
        self.images_folder = Path(images_folder)
        self.annotation_file = Path(annotation_file)
        content = _read_annotation_file(self.annotation_file)
        pairs = pair_entries(content, str(annotation_file), tuple(prompts), skeleton)
        _require_images(self.images_folder, {image["file_name"] for image, _ in pairs})
        self._pairs = _PackedList(pairs)
        groups: dict[str, list[int]] = {}
        for index, (image, _) in enumerate(pairs):
            groups.setdefault(image["file_name"], []).append(index)
        self._groups = list(groups.values())
        self._common = {
            key: content[key] for key in ("categories", "people") if content.get(key) is not None
        }

    def __len__(self) -> int:
        return len(self._pairs)

    def load_pair(self, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        """Read pair `index`; see `PromptedPersonDataset.load_pair`."""
        image_entry, annotation = self._pairs[index]
        image = load_image(
            self.images_folder / image_entry["file_name"],
            size=(image_entry["height"], image_entry["width"]),
        )
        return image, image_entry, annotation

    def image_groups(self) -> list[Sequence[int]]:
        """See `PromptedPersonDataset.image_groups`."""
        return self._groups

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's content in the form of `PromptedPersonDataset.ground_truth`."""
        pairs = [self._pairs[i] for i in range(len(self))]
        return {
            "images": [image_entry for image_entry, _ in pairs],
            "annotations": [annotation for _, annotation in pairs],
            **self._common,
        }


def pair_entries(
    content: Any, source: str, prompts: Sequence[str] = (), skeleton: Skeleton = COCO
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Check an annotation file's content and join image entries with their annotations.

    Args:
        content: the parsed JSON.
        source: its name, for errors.
        prompts: prompt kinds that every pair has to support.
        skeleton: keypoint definition.

    Returns:
        (image entry, annotation) of every image entry, in their order.

    Raises:
        ValueError: naming the source, the image id, the key and the remedy.
    """
    for kind in prompts:
        if kind not in PROMPT_KINDS:
            raise ValueError(f"Unknown prompt kind {kind!r}; expected one of {PROMPT_KINDS}.")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(
            f"{source} is not a RefHuman annotation file: expected an object with the lists "
            f"'images' and 'annotations'."
        )
    if not content["images"]:
        raise ValueError(f"{source} has no image entries; expected at least one pair.")
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for image_entry in content["images"]:
        _check_image_entry(image_entry, source)
        if image_entry["id"] in annotations:
            raise ValueError(
                f"{source}: image id {image_entry['id']} occurs twice; RefHuman has one image "
                f"entry, with an id of its own, per image-prompt pair."
            )
        annotations[image_entry["id"]] = []
    for annotation in content["annotations"]:
        if not isinstance(annotation, dict) or annotation.get("image_id") not in annotations:
            image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
            raise ValueError(
                f"{source}: an annotation refers to image id {image_id!r}, which 'images' does "
                f"not have; add the image entry or remove the annotation."
            )
        annotations[annotation["image_id"]].append(annotation)
    pairs = []
    for image_entry in content["images"]:
        of_image = annotations[image_entry["id"]]
        where = f"{source}: image id {image_entry['id']}"
        if len(of_image) != 1:
            raise ValueError(
                f"{where} has {len(of_image)} annotations; RefHuman has exactly one person per "
                f"image entry. Is this a plain COCO file?"
            )
        _check_annotation(of_image[0], where, skeleton)
        _check_prompts(image_entry, of_image[0], where, prompts)
        pairs.append((image_entry, of_image[0]))
    return pairs


def _check_image_entry(entry: Any, source: str) -> None:
    if not isinstance(entry, dict) or "id" not in entry:
        raise ValueError(f"{source}: an entry of 'images' has no 'id': {str(entry)[:80]}.")
    where = f"{source}: image id {entry['id']}"
    # Results are looked up by number, also in the COCO results format.
    if not _is_integer(entry["id"]):
        raise ValueError(f"{where}: 'id' has to be an integer, got {entry['id']!r}.")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise ValueError(f"{where}: 'file_name' is missing or not a string.")
    for key in ("height", "width"):
        if not _is_integer(entry.get(key)) or entry[key] <= 0:
            raise ValueError(
                f"{where}: {key!r} has to be a positive number of pixels, got {entry.get(key)!r}."
            )


def _check_annotation(annotation: dict[str, Any], where: str, skeleton: Skeleton) -> None:
    box = annotation.get("bbox")
    if not _are_numbers(box) or len(box) != 4 or box[2] <= 0 or box[3] <= 0:
        raise ValueError(
            f"{where}: 'bbox' has to be [x, y, width, height] with positive width and height, "
            f"got {box!r}."
        )
    area = annotation.get("area")
    if not _are_numbers([area]) or area <= 0:
        raise ValueError(f"{where}: 'area' has to be a positive number, got {area!r}.")
    keypoints = annotation.get("keypoints")
    expected = 3 * skeleton.num_keypoints
    if not _are_numbers(keypoints) or len(keypoints) != expected:
        got = f"{len(keypoints)} entries" if isinstance(keypoints, list) else repr(keypoints)
        raise ValueError(
            f"{where}: 'keypoints' has to hold {expected} numbers (x, y, visibility of "
            f"{skeleton.num_keypoints} keypoints), got {got}."
        )
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= set(segmentation):
            raise ValueError(f"{where}: 'segmentation' is an object without 'size' and 'counts'.")
        return
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(
            f"{where}: 'segmentation' has to be a list of polygons, got {str(segmentation)[:80]}."
        )
    for i, polygon in enumerate(segmentation):
        if not _are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} entries" if isinstance(polygon, list) else repr(polygon)
            raise ValueError(
                f"{where}: polygon {i} of 'segmentation' is broken: expected an even number of at "
                f"least 6 finite coordinates, got {got}. Repair or remove the polygon."
            )


def _check_prompts(
    image_entry: dict[str, Any], annotation: dict[str, Any], where: str, prompts: Sequence[str]
) -> None:
    caption = image_entry.get("caption")
    if caption is not None and not isinstance(caption, str):
        raise ValueError(f"{where}: 'caption' has to be a string, got {caption!r}.")
    if "text" in prompts and not (caption or "").strip():
        raise ValueError(
            f"{where} has no 'caption', which text prompts need; add one or leave out the text "
            f"trigger."
        )
    scribble = annotation.get("scribble")
    if scribble:
        try:
            values = np.asarray(scribble, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.size == 0 or values.size % (2 * NUM_POINTS) or not np.isfinite(values).all():
            raise ValueError(
                f"{where}: 'scribble' has to hold scribbles of {NUM_POINTS} points (x, y), "
                f"flat or nested, {2 * NUM_POINTS} finite numbers each."
            )
    elif "point" in prompts or "scribble" in prompts:
        raise ValueError(
            f"{where} has no 'scribble', which point and scribble prompts need; add one or leave "
            f"out these triggers."
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_numbers(values: Any) -> bool:
    """Whether `values` is a list of finite numbers."""
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values
    )


def _read_annotation_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"Annotation file {path} does not exist; set coco_path to the folder that holds "
            f"images/, RefHuman_train.json and RefHuman_val.json."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from error


def _require_images(folder: Path, file_names: set[str]) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Image folder {folder} does not exist; set coco_path to the folder that holds "
            f"images/, RefHuman_train.json and RefHuman_val.json."
        )
    # One listing instead of a look-up per file: folders of this size often lie on network disks.
    present = {entry.name for entry in os.scandir(folder)}
    missing = sorted(
        name for name in file_names if name not in present and not (folder / name).is_file()
    )
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(file_names)} images are missing in {folder}, among them "
            f"{', '.join(missing[:3])}; copy the COCO images there."
        )


class _PackedList:
    """Read-only list, kept as one block of bytes.

    Loader workers are forked: reading a Python object writes its reference count, so that a list of
    dicts would gradually be copied into every worker. One block is shared.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        packed = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        self._ends = np.cumsum([len(item) for item in packed])
        self._bytes = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        start = 0 if index == 0 else int(self._ends[index - 1])
        return pickle.loads(self._bytes[start : int(self._ends[index])].tobytes())
