"""The two loops: one epoch of training, one evaluation.

They know no model, no kind of prompt and no file by name; `trainer.py` is what surrounds them.

Everything random in an epoch follows from (seed, epoch): the order of the samples, their
augmentation, the prompts and dropout.  An epoch is therefore the same whether the run got there in
one go or was resumed, whatever was evaluated in between.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.evaluation import Evaluator
from datasets.prompts import Prompt, PromptKind, PromptSampler
from util import distributed
from util.logging import LOGGER_NAME, Stopwatch, memory_summary
from util.loss_means import LossMeans
from util.nested_tensor import NestedTensor

logger = logging.getLogger(LOGGER_NAME)


class Optimization(Protocol):
    """What the loop asks of `trainer.Optimization`."""

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""

    def step(self, loss: Tensor, epoch: int) -> dict[str, Tensor]:
        """Change the weights to lower `loss` []; returns numbers to record, each []."""

    def rates(self) -> dict[str, float]:
        """Present learning rate of every group of parameters."""


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
    log_every: int = 20,
    epochs_after: int = 0,
) -> dict[str, float]:
    """Train once over the loader.

    Args:
        model: called with (samples, prompts=, targets=); possibly wrapped for several processes.
        criterion: outputs and targets to unweighted losses; its `total` is minimised.
        loader: batches of this process; every process has the same number of them.
        optimization: of the parameters of `model`.
        device: where `model` is.
        epoch: 0, 1, ...; with `seed` it decides everything random.
        seed: not negative.
        prompts: draws the prompts of every step; None for a model without.
        log_every: steps between two lines of progress.
        epochs_after: epochs that follow, for the time left.

    Returns:
        Means over steps and processes of every unweighted loss, `loss` (their weighted sum), with
        prompts `loss_{kind}` (the same by kind of prompt), and what the optimization records.

    Raises:
        NonFiniteLossError: on all processes at once, one step after the bad one at the latest; the
            weights are spoilt by then.
    """
    model.train()
    criterion.train()
    loader.sampler.set_epoch(epoch)
    loader.dataset.set_epoch(epoch)
    seed_everything(seed, epoch)
    steps = len(loader)
    means = LossMeans(epoch)
    watch = Stopwatch(steps)
    for step, (samples, targets) in enumerate(loader):
        watch.data_ready()
        kind, drawn = prompts.draw(targets, epoch, step) if prompts is not None else (None, None)
        image_ids = [target["image_id"] for target in targets]
        samples, drawn, targets = _to_device(samples, drawn, targets, device)

        with optimization.autocast():
            outputs = model(samples, prompts=drawn, targets=targets)
        losses = criterion(outputs, targets)
        total = criterion.total(losses)
        numbers = optimization.step(total, epoch)

        means.add(step, kind, image_ids, {"loss": total, **losses, **numbers})
        watch.step_done()
        if (step + 1) % log_every == 0 or step + 1 == steps:
            logger.info(
                "epoch %d [%*d/%d]  lr %.2e  %s  %s  memory %s",
                epoch,
                len(str(steps)),
                step + 1,
                steps,
                max(optimization.rates().values()),
                means.recent(),
                watch.report(steps_after=steps * epochs_after),
                memory_summary(device),
            )
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
        results: of the postprocessor, in pixels of the original images.
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
    log_every: int = 100,
) -> dict[str, dict[str, float]]:
    """Predict every sample in every variant and compare with the ground truth.

    Args:
        model: not wrapped; its `encode_image` is called once a batch, then the model with (samples,
            prompts=, features=) once a variant.
        postprocessor: outputs, original sizes and augmented sizes to results in original pixels.
        loader: batches of this process.  The processes' shares are disjoint and may differ in size.
        variants: by name, an evaluator of its own and the kind of prompt, None for a model without.
            On the main process the evaluators hold all results afterwards.
        device: where `model` is.
        amp_dtype: precision under autocast; None is full precision.
        inspect: called with every batch and variant.
        log_every: batches between two lines of progress.

    Returns:
        Metrics by variant, the same on every process.
    """
    was_training = model.training
    model.eval()
    watch = Stopwatch(len(loader))
    indices = iter(loader.sampler)
    for step, (samples, targets) in enumerate(loader):
        watch.data_ready()
        own_indices = list(islice(indices, len(targets)))
        image_ids = [target["image_id"] for target in targets]
        original_sizes = torch.stack([target["orig_size"] for target in targets])
        sizes = torch.stack([target["size"] for target in targets])
        samples = samples.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            features = model.encode_image(samples)  # the same for all variants
        for name, (evaluator, kind) in variants.items():
            prompts = None if kind is None else kind.from_targets(targets).to(device)
            with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                outputs = model(samples, prompts=prompts, features=features)
            results = postprocessor(outputs, original_sizes, sizes)
            evaluator.update(image_ids, results)
            if inspect is not None:
                inspect(EvaluatedBatch(name, own_indices, samples, targets, prompts, results))
            # Masks of all groups: the next forward pass needs their memory.
            del outputs, results
        watch.step_done()
        if (step + 1) % log_every == 0:
            logger.info("evaluation [%d/%d]  %s", step + 1, len(loader), watch.report())
    model.train(was_training)

    metrics = {}
    for name, (evaluator, _) in variants.items():
        evaluator.synchronize()
        summary = evaluator.summarize() if distributed.is_main_process() else None
        metrics[name] = distributed.broadcast_object(summary)
    return metrics


def seed_everything(seed: int, epoch: int) -> None:
    """Start the global random streams of this process for an epoch."""
    state = np.random.SeedSequence((seed, epoch, distributed.rank())).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


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
    return samples.to(device, non_blocking=True), prompts, moved
