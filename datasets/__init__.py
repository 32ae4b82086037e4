"""Data sets: `build_dataset` and `build_loader` turn the configuration into them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from datasets.refhuman import PROMPT_KINDS, PromptedPersonDataset, RefHuman, collate
from datasets.samplers import EvaluationSampler, TrainingSampler
from datasets.skeleton import SKELETONS
from datasets.transforms import EvaluationTransform, TrainingTransform, keep_size

SPLITS = ("train", "val")


def build_dataset(
    cfg: Any, split: str, prompts: Iterable[str] | None = None
) -> PromptedPersonDataset:
    """Build the data set that the configuration names.

    Args:
        cfg: configuration; see config/uniphd.py for its keys.
        split: "train" or "val".
        prompts: prompt kinds that will be used. By default those of `prompt_probabilities` above
            zero in training, and `eval_prompts` otherwise.

    Raises:
        FileNotFoundError: a folder or file of the data set is missing.
        ValueError: unknown split, data set or skeleton, or data that is not RefHuman.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; expected one of {SPLITS}.")
    if cfg.skeleton not in SKELETONS:
        raise ValueError(f"Unknown skeleton {cfg.skeleton!r}; expected one of {list(SKELETONS)}.")
    skeleton = SKELETONS[cfg.skeleton]
    training = split == "train"
    if prompts is None:
        if training:
            prompts = [kind for kind in PROMPT_KINDS if cfg.prompt_probabilities.get(kind, 0) > 0]
        else:
            prompts = cfg.eval_prompts
    if training and cfg.augment:
        transform = TrainingTransform(
            short_sides=cfg.train_short_sides,
            max_side=cfg.train_max_side,
            crop_short_sides=cfg.crop_short_sides,
            crop_range=tuple(cfg.crop_range),
            flip_probability=cfg.flip_probability,
            drop_cropped_keypoints=cfg.drop_cropped_keypoints,
            skeleton=skeleton,
        )
    elif training and cfg.dataset == "synthetic":
        transform = keep_size  # drawn in the size that the model is to see
    else:
        transform = EvaluationTransform(cfg.eval_max_side)

    if cfg.dataset == "refhuman":
        folder = Path(cfg.coco_path)
        return RefHuman(
            folder / "images",
            folder / f"RefHuman_{split}.json",
            transform,
            training=training,
            prompts=prompts,
            seed=cfg.seed,
            skeleton=skeleton,
        )
    if cfg.dataset == "synthetic":
        # Not needed, with all its drawing, by those who train on RefHuman.
        from datasets.synthetic import SyntheticRefHuman

        settings = dict(cfg.synthetic)
        lengths = {split: settings.pop(f"{split}_length") for split in SPLITS}
        return SyntheticRefHuman(
            transform,
            training=training,
            length=lengths[split],
            # Runs with different seeds are compared on the same images.
            seed=cfg.seed if training else 0,
            prompts_per_image=cfg.prompts_per_image if training else 1,
            skeleton=skeleton,
            **settings,
        )
    raise ValueError(f"Unknown dataset {cfg.dataset!r}; expected 'refhuman' or 'synthetic'.")


def build_loader(
    cfg: Any, dataset: PromptedPersonDataset, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Build this process' loader of padded batches, in training or evaluation order.

    Call `loader.dataset.set_epoch` and, in training, `loader.sampler.set_epoch` before an epoch.

    Args:
        cfg: configuration.
        dataset: from `build_dataset`.
        rank: number of this process.
        world_size: number of processes.
    """
    if dataset.training:
        sampler = TrainingSampler(
            dataset.image_groups(), cfg.seed, rank, world_size, cfg.prompts_per_image
        )
    else:
        sampler = EvaluationSampler(len(dataset), rank, world_size)
    return DataLoader(
        dataset,
        batch_size=(not dataset.training and cfg.eval_batch_size) or cfg.batch_size,
        sampler=sampler,
        num_workers=cfg.num_workers,
        collate_fn=partial(collate, divisor=cfg.pad_divisor),
        pin_memory=torch.cuda.is_available(),
        # Samples have streams of their own; the loader is not to draw from the global one either.
        generator=torch.Generator().manual_seed(cfg.seed),
    )
