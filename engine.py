"""The two loops: one epoch of training, one evaluation.

They know no model, no kind of prompt and no file by name; `trainer.py` is what surrounds them.

Everything random in a step follows from (seed, epoch, step): which samples it reads, their
augmentation, the prompts and dropout.  A run is therefore the same whether it got there in one go
or was resumed after any step, whatever was evaluated in between, and nothing of it hangs on the
number of processes but the rounding of sums.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.evaluation import Evaluator
from datasets.prompts import Prompt, PromptKind, PromptSampler
from util import distributed
from util.loss_means import LossMeans
from util.nested_tensor import NestedTensor
from util.normalization import normalize_batch
from util.progress import EvaluationProgress


class Optimization(Protocol):
    """What the loop asks of `trainer.Optimization`."""

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""

    def part(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Around the forward and backward pass of each of this process' parts of a step."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part's `loss` [] to those of the step's other parts."""

    def step(self, epoch: int) -> dict[str, Tensor]:
        """Change the weights by the gradient; returns numbers to record, each []."""


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    loader: DataLoader,
    optimization: Optimization,
    *,
    device: torch.device,
    epoch: int,
    seed: int,
    prompts: PromptSampler | None,
    means: LossMeans | None = None,
    first_step: int = 0,
    data_ready: Callable[[], None] = lambda: None,
    after_step: Callable[[int], None] = lambda done: None,
) -> dict[str, float]:
    """Train once over the loader.

    A step has one or more parts on this process (`datasets.samplers.TrainingBatches`), whose
    gradients accumulate.  Its losses are averages over the people of all parts of all processes.

    Args:
        model: called with (samples, prompts=, targets=); possibly wrapped for several processes.
        criterion: called with (outputs, targets, num_people) for unweighted losses, averages over
            num_people people; its `total` is minimised.
        loader: batches of this process; every process has the same number of them.
        optimization: of the parameters of `model`.
        device: where `model` is.
        epoch: 0, 1, ...; with `seed` it decides everything random.
        seed: not negative.
        prompts: draws the prompts of every step; None for a model without.
        means: of the losses of the steps before `first_step`; None: there are none.
        first_step: 0, 1, ...; the steps before it are done already.
        data_ready: called in every step when its data have arrived.
        after_step: called after every step with how many the epoch has had.

    Returns:
        Means over steps and processes of every unweighted loss, `loss` (their weighted sum), with
        prompts `loss_{kind}` (the same by kind of prompt), and what the optimization records.

    Raises:
        NonFiniteLossError: on all processes at once, one step after the bad one at the latest; the
            weights are spoilt by then.
    """
    model.train()
    criterion.train()
    batches = loader.batch_sampler
    batches.start(epoch, first_step)
    loader.dataset.set_epoch(epoch)
    means = LossMeans(epoch) if means is None else means
    for step, parts in enumerate(_in_groups(loader, batches.rounds), start=first_step):
        data_ready()
        kind = None if prompts is None else prompts.kind(epoch, step)
        counts = [batches.counts(step, number) for number in range(len(parts))]
        num_people = _count_people(parts, counts, device)
        numbers: dict[str, Tensor] = {}
        for number, (samples, targets) in enumerate(parts):
            seed_everything(seed, epoch, step, batches.part(number))
            drawn = None if kind is None else prompts.draw(kind, targets, epoch)
            batch = _to_device(samples, drawn, targets, device)
            # Gradients are averaged over the processes, where a sum is wanted.
            share = distributed.world_size() if counts[number] else 0
            with optimization.part(is_last=number + 1 == len(parts)):
                losses = _backward(model, criterion, optimization, *batch, num_people, share)
            numbers = {name: numbers.get(name, 0) + value for name, value in losses.items()}
        numbers |= optimization.step(epoch)

        image_ids = [target["image_id"] for _, targets in parts for target in targets]
        means.add(step, kind, image_ids, numbers)
        after_step(step + 1)
    return means.of_epoch()


@dataclass(frozen=True)
class EvaluatedBatch:
    """One batch under one variant, for those who want to look at it.

    Attributes:
        variant: its name.
        indices: of the B samples in the data set.
        samples: the images, normalised and padded.
        targets: on the CPU.
        prompts: what the model was given, in pixels of the batch; None without.
        results: of the postprocessor, in pixels of the original images; those that the variant's
            evaluator counts.
    """

    variant: str
    indices: list[int]
    samples: NestedTensor
    targets: Sequence[Mapping[str, Any]]
    prompts: Prompt | None
    results: Sequence[Mapping[str, Tensor]]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    postprocessor: nn.Module,
    loader: DataLoader,
    variants: Mapping[str, tuple[Evaluator, PromptKind | None]],
    *,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    inspect: Callable[[EvaluatedBatch], None] | None = None,
    after_batch: Callable[[], None] | None = None,
    log_every: int = 100,
) -> dict[str, dict[str, float]]:
    """Predict every sample in every variant and compare with the ground truth.

    Args:
        model: not wrapped; its `encode_image` is called once a batch, then the model with (samples,
            prompts=, features=) once for all variants of a kind of prompt that follow each other.
        postprocessor: outputs, original sizes and augmented sizes to results in original pixels.
        loader: batches of this process.  The processes' shares are disjoint and may differ in size.
        variants: by name, an evaluator of its own and the kind of prompt, None for a model without.
            On the main process the evaluators hold all results afterwards.
        device: where `model` is.
        amp_dtype: precision under autocast; None is full precision.
        inspect: called with every batch and variant.
        after_batch: called after every batch; an error that it raises ends the evaluation.
        log_every: batches between two lines of progress.

    Returns:
        Metrics by variant, the same on every process.
    """
    was_training = model.training
    model.eval()
    progress = EvaluationProgress(len(loader), log_every)
    for own_indices, (samples, targets) in zip(loader.batch_sampler, loader, strict=True):
        progress.data_ready()
        image_ids = [target["image_id"] for target in targets]
        original_sizes = torch.stack([target["orig_size"] for target in targets])
        sizes = torch.stack([target["size"] for target in targets])
        samples = _images_on(samples, device)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            features = model.encode_image(samples)  # the same for all variants
        for kind, of_kind in groupby(variants.items(), key=lambda item: item[1][1]):
            prompts = None if kind is None else kind.from_targets(targets).to(device)
            with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                outputs = model(samples, prompts=prompts, features=features)
            results = postprocessor(outputs, original_sizes, sizes)
            for name, (evaluator, _) in of_kind:
                counted = evaluator.update(image_ids, results)
                if inspect is not None:
                    inspect(EvaluatedBatch(name, own_indices, samples, targets, prompts, counted))
            # Masks of all groups: the next forward pass needs their memory.
            del outputs, results, counted
        progress.step_done(len(targets))
        if after_batch is not None:
            after_batch()
    progress.end()
    model.train(was_training)

    metrics = {}
    for name, (evaluator, _) in variants.items():
        evaluator.synchronize()
        summary = evaluator.summarize() if distributed.is_main_process() else None
        metrics[name] = distributed.broadcast_object(summary)
    return metrics


def seed_everything(seed: int, epoch: int, step: int, part: int) -> None:
    """Start the global random streams of this process for a part of a step."""
    state = np.random.SeedSequence((seed, epoch, step, part)).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


def _in_groups(loader: DataLoader, size: int) -> Iterator[list[tuple[NestedTensor, list[dict]]]]:
    """The loader's batches, `size` at a time."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def _count_people(
    parts: Sequence[tuple[NestedTensor, list[dict]]], counts: Sequence[bool], device: torch.device
) -> Tensor:
    """People in the parts that count, of all processes: []; at least 1."""
    own = sum(
        len(target["labels"])
        for (_, targets), does_count in zip(parts, counts, strict=True)
        for target in targets
        if does_count
    )
    return distributed.reduce_sum(torch.full((), float(own), device=device)).clamp(min=1)


def _backward(
    model: nn.Module,
    criterion: nn.Module,
    optimization: Optimization,
    samples: NestedTensor,
    prompts: Prompt | None,
    targets: Sequence[Mapping[str, Any]],
    num_people: Tensor,
    share: int,
) -> dict[str, Tensor]:
    """Forward and backward pass of a part, on the device, with its losses times `share`.

    Returns:
        `loss`, what is minimised, and the losses it is made of, each [].
    """
    with optimization.autocast():
        outputs = model(samples, prompts=prompts, targets=targets)
    losses = criterion(outputs, targets, num_people)
    total = criterion.total(losses)
    optimization.backward(total * share)
    return {name: value.detach() * share for name, value in {"loss": total, **losses}.items()}


def _to_device(
    samples: NestedTensor,
    prompts: Prompt | None,
    targets: Sequence[Mapping[str, Any]],
    device: torch.device,
) -> tuple[NestedTensor, Prompt | None, list[dict[str, Any]]]:
    moved = [
        {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in target.items()
        }
        for target in targets
    ]
    if prompts is not None:
        prompts = prompts.to(device)
    return _images_on(samples, device), prompts, moved


def _images_on(samples: NestedTensor, device: torch.device) -> NestedTensor:
    return normalize_batch(samples.to(device, non_blocking=True))
