"""Data sets: `build_dataset` and `build_loader` turn the configuration into them."""

from __future__ import annotations

import difflib
import gc
import importlib
import signal
from functools import partial
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from datasets.base import PeopleDataset, Transform
from datasets.sample import collate
from datasets.samplers import EvaluationBatches, TrainingBatches, TrainingOrder
from datasets.skeleton import Skeleton, get_skeleton
from datasets.transforms import EvaluationTransform, TrainingTransform
from util.errors import UserError

SPLITS = ("train", "val")

# How long a loader's worker that was asked to end waits to be dismissed.
_GRACE_SECONDS = 20

# Name -> module, imported only when it is asked for, with
# `build(cfg, split, transform, skeleton) -> PeopleDataset`.
DATASETS = {
    "refhuman": "datasets.refhuman",
    "synthetic": "datasets.synthetic",
    "coco": "datasets.coco",
    "coco_prompted": "datasets.coco_prompted",
    "crowdpose": "datasets.crowdpose",
}


def build_dataset(cfg: Any, split: str) -> PeopleDataset:
    """Build the data set that the configuration names.

    Args:
        cfg: configuration; see config/uniphd.py for its keys.
        split: "train" or "val".

    Raises:
        MissingFileError: a folder or file of the data set is missing.
        UserError: unknown data set or skeleton, or a broken file.
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; expected one of {SPLITS}.")
    if cfg.dataset not in DATASETS:
        close = difflib.get_close_matches(str(cfg.dataset), DATASETS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UserError(
            f"Unknown dataset '{cfg.dataset}'; expected one of {', '.join(DATASETS)}.{hint}"
        )
    skeleton = get_skeleton(cfg.skeleton)
    transform = _build_transform(cfg, split, skeleton)
    module = importlib.import_module(DATASETS[cfg.dataset])
    return module.build(cfg, split, transform, skeleton)


def _build_transform(cfg: Any, split: str, skeleton: Skeleton) -> Transform:
    if split == "train" and cfg.augment:
        return TrainingTransform(
            short_sides=cfg.train_short_sides,
            max_side=cfg.train_max_side,
            crop_short_sides=cfg.crop_short_sides,
            crop_range=tuple(cfg.crop_range),
            flip_probability=cfg.flip_probability,
            drop_cropped_keypoints=cfg.drop_cropped_keypoints,
            draft_decoding=cfg.draft_decoding,
            skeleton=skeleton,
        )
    return EvaluationTransform(cfg.eval_max_side, cfg.eval_short_side)


def build_loader(
    cfg: Any, dataset: PeopleDataset, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Build this process' loader of padded batches, in training or evaluation order.

    In training, call `loader.dataset.set_epoch` and `loader.batch_sampler.start` before an epoch.
    The workers are started once, with the first epoch, and stay.

    Args:
        cfg: configuration.
        dataset: from `build_dataset`.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        UserError: batch_size is not a multiple of prompts_per_image.
    """
    batches: TrainingBatches | EvaluationBatches
    if dataset.training:
        order = TrainingOrder(dataset.image_groups(), cfg.seed, cfg.prompts_per_image)
        batches = TrainingBatches(order, cfg.batch_size, rank, world_size, cfg.accumulation_steps)
        share_images = cfg.share_image_features
    else:
        batch_size = cfg.batch_size if cfg.eval_batch_size is None else cfg.eval_batch_size
        batches = EvaluationBatches(len(dataset), batch_size, rank, world_size)
        share_images = False
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=cfg.num_workers,
        collate_fn=partial(
            collate, divisor=cfg.pad_divisor, sides=tuple(cfg.pad_sides), share_images=share_images
        ),
        persistent_workers=cfg.num_workers > 0,
        worker_init_fn=begin_worker,
        pin_memory=torch.cuda.is_available(),
        # Samples have streams of their own; the loader is not to draw from the global one either.
        generator=torch.Generator().manual_seed(cfg.seed),
    )


def begin_worker(number: int) -> None:
    """Called in each of a loader's worker processes as it starts."""
    # Launchers send their signals to all processes of a group. A run that is to stop goes on to the
    # end of its step and dismisses its workers then; who is not dismissed goes by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_SECONDS))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # One core per worker; OpenCV's threads, if the main process had any, are not in a forked one.
    cv2.setNumThreads(0)
    # What was inherited is shared with the main process until something writes to it, and garbage
    # collection would, to every object.
    gc.freeze()
