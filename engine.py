"""Training and evaluation loops.

Everything random in an epoch follows from (seed, epoch): the order of the samples, their
augmentation, the prompt kinds and dropout.  An epoch is therefore the same whether the run got
there in one go or was resumed, whatever was evaluated in between.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from datasets.evaluation import Evaluator, format_table
from datasets.refhuman import PROMPT_KINDS
from datasets.skeleton import COCO, Skeleton
from models.uniphd.prompt_encoder import PointPrompt, Prompt, ScribblePrompt, TextPrompt
from util import checkpoint, distributed, visualize
from util.images import IMAGENET_MEAN, IMAGENET_STD
from util.logging import (
    LOGGER_NAME,
    RESULT,
    Averages,
    Stopwatch,
    append_json_line,
    memory_summary,
    read_json_lines,
    write_json,
    write_json_lines,
)
from util.nested_tensor import NestedTensor

logger = logging.getLogger(LOGGER_NAME)

# A point prompt is one of the 12 scribble points.
EVALUATION_POINT = 5
TRAINING_POINTS = (4, 5, 6, 7)

# checkpoint_best.pth is the epoch with the highest value of it under the first evaluation prompt.
BEST_METRIC = "keypoint_ap"


class NonFiniteLossError(RuntimeError):
    """A loss or gradient became NaN or infinite; raised by every process at the same step."""


# --- prompts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptSampler:
    """Draws the prompt kind of every iteration, the same on all processes.

    Attributes:
        probabilities: of the kinds in `PROMPT_KINDS`; they need not sum to one.
        seed: together with epoch and step it decides every draw.
    """

    probabilities: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        for kind, probability in self.probabilities.items():
            if kind not in PROMPT_KINDS or not (probability >= 0 and math.isfinite(probability)):
                raise ValueError(
                    f"prompt_probabilities: expected numbers >= 0 for {', '.join(PROMPT_KINDS)}; "
                    f"got {kind} = {probability}."
                )
        if sum(self.probabilities.values()) <= 0:
            raise ValueError("prompt_probabilities are all zero: no prompt is left to train with.")

    def kind(self, epoch: int, step: int) -> str:
        """The prompt kind of step `step` (0, 1, ...) of an epoch."""
        kinds = [kind for kind in PROMPT_KINDS if self.probabilities.get(kind, 0) > 0]
        weights = np.array([self.probabilities[kind] for kind in kinds])
        generator = np.random.default_rng((self.seed, epoch, step))
        return str(generator.choice(kinds, p=weights / weights.sum()))

    def point_indices(self, epoch: int, step: int, count: int) -> list[int]:
        """For `count` samples of this process, which scribble point is their point prompt."""
        generator = np.random.default_rng((self.seed, epoch, step, distributed.rank() + 1))
        return generator.choice(TRAINING_POINTS, size=count).tolist()


def make_prompt(
    kind: str, targets: Sequence[Mapping[str, Any]], point_indices: Sequence[int] | None = None
) -> Prompt:
    """The prompt of one kind for a batch.

    Args:
        kind: "text", "point" or "scribble".
        targets: B targets with `caption`, or `scribble` [12, 2] (x, y) in pixels of the batch.
        point_indices: B indices of the scribble point that is the point prompt; the published
            choice for evaluation by default.

    Raises:
        ValueError: an unknown kind, or a sample without what the kind needs.
    """
    if kind not in PROMPT_KINDS:
        raise ValueError(f"Unknown prompt kind '{kind}'; expected one of {', '.join(PROMPT_KINDS)}")
    needed = "caption" if kind == "text" else "scribble"
    for target in targets:
        if target.get(needed) is None:
            raise ValueError(
                f"Image id {target['image_id']} has no {needed}, which {kind} prompts need; add it "
                f"to the annotation file or leave the pair out."
            )
    if kind == "text":
        return TextPrompt([target["caption"] for target in targets])
    scribbles = torch.stack([target["scribble"] for target in targets])
    if kind == "scribble":
        return ScribblePrompt(scribbles)
    indices = point_indices or [EVALUATION_POINT] * len(targets)
    return PointPrompt(torch.stack([s[i : i + 1] for s, i in zip(scribbles, indices, strict=True)]))


# --- one epoch of training -----------------------------------------------------------------------


@dataclass(frozen=True)
class LearningRateSchedule:
    """Factor on every parameter group's learning rate: linear warm-up, then steps of x 0.1.

    Attributes:
        drop_epochs: numbers of finished epochs after which the rate drops to a tenth.
        warmup_steps: steps until the full rate is reached; 0 starts with it.
    """

    drop_epochs: tuple[int, ...] = ()
    warmup_steps: int = 0

    def factor(self, epoch: int, step: int) -> float:
        """Factor for step `step` of the whole run, which belongs to epoch `epoch` (0, 1, ...)."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps > 0 else 1.0
        return warmup * 0.1 ** sum(epoch >= drop for drop in self.drop_epochs)

    def apply(self, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
        """Set the optimizer's rates; each group keeps its full rate in `initial_lr`."""
        factor = self.factor(epoch, step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


@dataclass
class _StepLosses:
    """The numbers of a step on their way from the device, and what to tell should they be bad."""

    step: int
    kind: str
    image_ids: list[int]
    names: list[str]
    local: Tensor  # [len(names)] of this process, on the device
    mean: Tensor  # [len(names)] over processes, on the CPU once `arrived`
    arrived: torch.cuda.Event | None

    @classmethod
    def send(
        cls, step: int, kind: str, image_ids: list[int], values: Mapping[str, Tensor]
    ) -> _StepLosses:
        """Average over processes and start the copy to the CPU without waiting for it."""
        local = torch.stack([value.detach().float().reshape(()) for value in values.values()])
        mean = distributed.reduce_mean(local)
        arrived = None
        if mean.is_cuda:
            mean = mean.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        return cls(step, kind, image_ids, list(values), local, mean, arrived)

    def receive(self, epoch: int) -> dict[str, float]:
        """Wait for the numbers.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite, here or on another process.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        means = dict(zip(self.names, self.mean.tolist(), strict=True))
        if all(math.isfinite(value) for value in means.values()):
            return means
        own = dict(zip(self.names, self.local.tolist(), strict=True))
        lines = [f"Non-finite loss in epoch {epoch}, iteration {self.step}, {self.kind} prompts."]
        for rank, (image_ids, values) in enumerate(
            distributed.all_gather_object((self.image_ids, own))
        ):
            ids = ", ".join(map(str, image_ids))
            terms = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
            lines.append(f"  process {rank}: image ids {ids}: {terms}")
        raise NonFiniteLossError("\n".join(lines))


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    epoch: int,
    first_step: int,
    prompts: PromptSampler,
    schedule: LearningRateSchedule,
    clip_max_norm: float = 0.0,
    amp_dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    log_every: int = 20,
    epochs_after: int = 0,
) -> dict[str, float]:
    """Train once over the loader.

    Args:
        model: called with (samples, prompt, targets); possibly wrapped for several processes.
        criterion: outputs and targets to unweighted losses; its `total` is minimised.
        loader: batches of this process; every process has the same number of them.
        optimizer: over the parameters of `model`.
        device: where `model` is.
        epoch: 0, 1, ...; decides order, augmentation and prompt kinds.
        first_step: steps done before this epoch.
        prompts: draws the prompt kind of every step.
        schedule: learning rates.
        clip_max_norm: largest norm of the gradient; 0 leaves the gradient as it is.
        amp_dtype: precision of the forward pass under autocast; None is full precision.
        scaler: loss scaling for float16.
        log_every: steps between two lines of progress.
        epochs_after: epochs that follow, for the time left.

    Returns:
        Means over steps and processes of every unweighted loss, `loss` (their weighted sum),
        `loss_text`, `loss_point` and `loss_scribble` (the same by prompt kind), and `grad_norm`
        (before clipping; absent with a scaler).

    Raises:
        NonFiniteLossError: on all processes at once, one step after the bad one at the latest; the
            weights are spoilt by then.
    """
    model.train()
    criterion.train()
    loader.sampler.set_epoch(epoch)
    loader.dataset.set_epoch(epoch)
    seed_everything(prompts.seed, epoch)
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    steps = len(loader)
    epoch_means, recent_means = Averages(), Averages()
    watch = Stopwatch(steps)
    # The losses are looked at one step later, so that the GPU never waits for the CPU.
    on_the_way: _StepLosses | None = None

    def take(losses: _StepLosses) -> None:
        values = losses.receive(epoch)
        values[f"loss_{losses.kind}"] = values["loss"]
        epoch_means.update(values)
        recent_means.update(values)

    for step, (samples, targets) in enumerate(loader):
        watch.data_ready()
        kind = prompts.kind(epoch, step)
        prompt = make_prompt(kind, targets, prompts.point_indices(epoch, step, len(targets)))
        image_ids = [target["image_id"] for target in targets]
        samples, prompt, targets = _to_device(samples, prompt, targets, device)
        schedule.apply(optimizer, epoch, first_step + step)

        with _autocast(device, amp_dtype):
            outputs = model(samples, prompt, targets)
        losses = criterion(outputs, targets)
        total = criterion.total(losses)

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
        numbers = {"loss": total, **losses}
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(
            parameters, clip_max_norm if clip_max_norm > 0 else math.inf
        )
        # A scaler finds its scale by overflowing now and then, and skips such steps itself.
        if not scaler.is_enabled():
            numbers["grad_norm"] = norm
        scaler.step(optimizer)
        scaler.update()

        if on_the_way is not None:
            take(on_the_way)
        on_the_way = _StepLosses.send(step, kind, image_ids, numbers)
        watch.step_done()
        if (step + 1) % log_every == 0 or step + 1 == steps:
            take(on_the_way)
            on_the_way = None
            logger.info(
                "epoch %d [%*d/%d]  lr %.2e  %s  %s  memory %s",
                epoch,
                len(str(steps)),
                step + 1,
                steps,
                max(group["lr"] for group in optimizer.param_groups),
                _main_losses(recent_means.means()),
                watch.report(steps_after=steps * epochs_after),
                memory_summary(device),
            )
            recent_means = Averages()
    return epoch_means.means()


# --- the whole training --------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate with, after an epoch or alone.

    Attributes:
        loader: samples of this process, in evaluation order; none of them on another process.
        ground_truth: the data set's, as `Evaluator` takes it.
        kinds: prompt kinds; the first decides which checkpoint is the best.
        skeleton: keypoint definition.
        save_predictions: write predictions_{kind}.json in COCO's results format.
        num_images: of how many samples to draw prediction and ground truth.
    """

    loader: DataLoader
    ground_truth: dict[str, Any]
    kinds: tuple[str, ...]
    skeleton: Skeleton = COCO
    save_predictions: bool = False
    num_images: int = 0

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in PROMPT_KINDS]
        if unknown or not self.kinds:
            raise ValueError(
                f"eval_triggers: expected some of {', '.join(PROMPT_KINDS)}; got {self.kinds}."
            )


@dataclass(frozen=True)
class Training:
    """Settings of a whole training; the configuration explains them."""

    epochs: int
    prompts: PromptSampler
    schedule: LearningRateSchedule
    clip_max_norm: float
    amp: bool
    log_every: int
    checkpoint_every: int
    eval_every: int
    find_unused_parameters: bool = True
    start_epoch: int = 0
    tensorboard: bool = False
    note: str = ""


def train(
    model: nn.Module,
    criterion: nn.Module,
    postprocessor: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader,
    evaluation: Evaluation,
    settings: Training,
    *,
    device: torch.device,
    output_dir: str | os.PathLike,
    config: dict[str, Any],
    resume: Mapping[str, Any] | None = None,
) -> None:
    """Train from the first or a later epoch to the last, evaluating and saving as configured.

    Files in `output_dir`: checkpoint.pth (the last finished epoch), checkpoint{epoch:04}.pth,
    checkpoint_best.pth, log.txt (one JSON line per epoch), eval.json (the last evaluation), and
    tensorboard/ where asked for.

    Args:
        model: not wrapped; its weights are already those of `resume`.
        criterion: see `train_one_epoch`.
        postprocessor: see `evaluate`.
        optimizer: see `train_one_epoch`.
        loader: see `train_one_epoch`.
        evaluation: what to evaluate on.
        settings: of the training.
        device: where `model` is.
        output_dir: folder that exists.
        config: plain values, stored in every checkpoint.
        resume: a checkpoint of this function to continue after.

    Raises:
        ValueError: `resume` does not hold a training of the same parameters.
        NonFiniteLossError: see `train_one_epoch`; the last checkpoint is untouched.
    """
    output_dir = Path(output_dir)
    amp_dtype = autocast_dtype(device) if settings.amp else None
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16)
    first_epoch, step = settings.start_epoch, 0
    if resume is not None:
        first_epoch, step = _restore(resume, optimizer, scaler)

    log_file = output_dir / "log.txt"
    records = distributed.broadcast_object(read_json_lines(log_file))
    records = [record for record in records if record["epoch"] < first_epoch]
    if distributed.is_main_process():
        write_json_lines(log_file, records)
    best = max((_best_metric(record, evaluation) for record in records), default=-math.inf)

    wrapped = model
    if distributed.world_size() > 1:
        # A text iteration has no gradient for the point projections, and the other way round.
        wrapped = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=settings.find_unused_parameters,
        )

    with contextlib.ExitStack() as stack:
        board = None
        if settings.tensorboard and distributed.is_main_process():
            board = stack.enter_context(
                SummaryWriter(str(output_dir / "tensorboard"), purge_step=step)
            )

        def evaluate_and_record(record: dict[str, Any]) -> None:
            """The second half of an epoch, once its checkpoint is safe."""
            nonlocal best
            done = record["epoch"] + 1
            due = settings.eval_every > 0 and done % settings.eval_every == 0
            if due or done >= settings.epochs:
                record = {
                    **record,
                    "eval": evaluate_all(
                        model, postprocessor, evaluation, device, output_dir, amp_dtype
                    ),
                }
            if distributed.is_main_process():
                metric = _best_metric(record, evaluation)
                if metric > best:
                    best = metric
                    _copy(output_dir / "checkpoint.pth", output_dir / "checkpoint_best.pth")
                append_json_line(log_file, record)
                if board is not None:
                    _write_scalars(board, record)

        # The earlier run may have ended between saving and evaluating its last epoch.
        if resume is not None and all(r["epoch"] != resume["epoch"] for r in records):
            evaluate_and_record(dict(resume["record"]))

        for epoch in range(first_epoch, settings.epochs):
            start = time.perf_counter()
            try:
                losses = train_one_epoch(
                    wrapped,
                    criterion,
                    loader,
                    optimizer,
                    device=device,
                    epoch=epoch,
                    first_step=step,
                    prompts=settings.prompts,
                    schedule=settings.schedule,
                    clip_max_norm=settings.clip_max_norm,
                    amp_dtype=amp_dtype,
                    scaler=scaler,
                    log_every=settings.log_every,
                    epochs_after=settings.epochs - epoch - 1,
                )
            except NonFiniteLossError as error:
                last = output_dir / "checkpoint.pth"
                kept = f"{last} holds the last good epoch" if last.is_file() else "none was saved"
                raise NonFiniteLossError(
                    f"{error}\nTraining stopped before saving this epoch; {kept}. Try a lower "
                    f"learning rate, or full precision if --amp is on."
                ) from error
            step += len(loader)
            record = {
                "epoch": epoch,
                "step": step,
                "seconds": round(time.perf_counter() - start, 3),
                "lr": {
                    group.get("name", str(index)): group["lr"]
                    for index, group in enumerate(optimizer.param_groups)
                },
                "train": losses,
            }
            if settings.note:
                record["note"] = settings.note
            if distributed.is_main_process():
                checkpoint.save(
                    output_dir / "checkpoint.pth",
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": scaler.state_dict(),
                        "epoch": epoch,
                        "step": step,
                        "record": record,
                        "config": config,
                    },
                )
                if settings.checkpoint_every > 0 and (epoch + 1) % settings.checkpoint_every == 0:
                    _copy(output_dir / "checkpoint.pth", output_dir / f"checkpoint{epoch:04d}.pth")
            evaluate_and_record(record)


# --- evaluation ----------------------------------------------------------------------------------


def evaluate_all(
    model: nn.Module,
    postprocessor: nn.Module,
    evaluation: Evaluation,
    device: torch.device,
    output_dir: str | os.PathLike,
    amp_dtype: torch.dtype | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluate all prompt kinds, print the table and write the files.

    Returns:
        Metrics by prompt kind, the same on all processes and in `output_dir`/eval.json.
    """
    output_dir = Path(output_dir)
    evaluators = {
        kind: Evaluator(evaluation.ground_truth, evaluation.skeleton) for kind in evaluation.kinds
    }
    metrics = evaluate(
        model,
        postprocessor,
        evaluation.loader,
        evaluators,
        device=device,
        amp_dtype=amp_dtype,
        image_folder=output_dir / "images",
        num_images=evaluation.num_images,
    )
    if distributed.is_main_process():
        logger.log(RESULT, "%s", format_table(metrics))
        write_json(output_dir / "eval.json", metrics)
        if evaluation.save_predictions:
            for kind, evaluator in evaluators.items():
                path = output_dir / f"predictions_{kind}.json"
                write_json(path, evaluator.predictions(), indent=None)
    return metrics


@torch.no_grad()
def evaluate(
    model: nn.Module,
    postprocessor: nn.Module,
    loader: DataLoader,
    evaluators: Mapping[str, Evaluator],
    *,
    device: torch.device,
    amp_dtype: torch.dtype | None = None,
    image_folder: str | os.PathLike | None = None,
    num_images: int = 0,
    log_every: int = 100,
) -> dict[str, dict[str, float]]:
    """Predict every sample under every prompt kind and compare with the ground truth.

    Args:
        model: not wrapped; its `backbone` is called once a batch, then the model with (samples,
            prompt, features) once a prompt kind.
        postprocessor: outputs, original sizes and augmented sizes to results in original pixels.
        loader: batches of this process.  The processes' shares are disjoint and may differ in size.
        evaluators: one per prompt kind; they take the results in and are complete afterwards.
        device: where `model` is.
        amp_dtype: see `train_one_epoch`.
        image_folder: where images of prediction and ground truth go.
        num_images: of the first how many samples.
        log_every: batches between two lines of progress.

    Returns:
        Metrics by prompt kind, the same on every process.
    """
    was_training = model.training
    model.eval()
    watch = Stopwatch(len(loader))
    # Samples are dealt out to the processes in turn.
    position = distributed.rank()
    for step, (samples, targets) in enumerate(loader):
        watch.data_ready()
        image_ids = [target["image_id"] for target in targets]
        original_sizes = torch.stack([target["orig_size"] for target in targets])
        sizes = torch.stack([target["size"] for target in targets])
        samples = samples.to(device, non_blocking=True)
        with _autocast(device, amp_dtype):
            features = model.backbone(samples)  # the same for all prompts
        for kind, evaluator in evaluators.items():
            prompt = make_prompt(kind, targets).to(device)
            with _autocast(device, amp_dtype):
                outputs = model(samples, prompt, features=features)
            results = postprocessor(outputs, original_sizes, sizes)
            evaluator.update(image_ids, results)
            for i, (target, result) in enumerate(zip(targets, results, strict=True)):
                index = position + i * distributed.world_size()
                if image_folder is not None and index < num_images:
                    image = draw_result(
                        samples.tensors[i], target, result, kind, evaluator.skeleton
                    )
                    name = f"{index:05d}_{target['image_id']}_{kind}.png"
                    visualize.save(Path(image_folder) / name, image)
        position += len(targets) * distributed.world_size()
        watch.step_done()
        if (step + 1) % log_every == 0:
            logger.info("evaluation [%d/%d]  %s", step + 1, len(loader), watch.report())
    model.train(was_training)

    metrics = {}
    for kind, evaluator in evaluators.items():
        evaluator.synchronize()
        # Every process would compute the same; the others wait for the main one's numbers.
        own = evaluator.summarize() if distributed.is_main_process() else None
        metrics[kind] = distributed.broadcast_object(own)
    return metrics


def draw_result(
    image: Tensor,
    target: Mapping[str, Any],
    result: Mapping[str, Tensor],
    kind: str,
    skeleton: Skeleton = COCO,
) -> np.ndarray:
    """Prediction and ground truth side by side, with the prompt.

    Args:
        image: [3, H, W] normalised, possibly padded at the bottom and right.
        target: of the sample.
        result: of the postprocessor, in pixels of the original image.
        kind: prompt kind.
        skeleton: keypoint definition.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    height, width = target["size"].tolist()
    original_height, original_width = target["orig_size"].tolist()
    image = image[:, :height, :width].float().cpu()
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    original_size = (original_height, original_width)
    image = F.interpolate((image * std + mean)[None], size=original_size, mode="bilinear")[0]
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    truth_keypoints = target["keypoints"][0] * torch.tensor([original_width, original_height, 1])
    truth_mask = F.interpolate(target["masks"][None].float(), size=original_size)[0, 0] > 0.5
    truth = visualize.Person(truth_keypoints.numpy(), truth_mask.numpy())
    best = result["scores"].argmax().item()
    prediction = visualize.Person(
        result["keypoints"][best].cpu().numpy(),
        result["masks"][best].cpu().numpy() if "masks" in result else None,
    )
    points = None
    if kind != "text":
        points = make_prompt(kind, [target]).points[0]
        points = points * torch.tensor([original_width / width, original_height / height])
        points = points.numpy()
    caption = f": {target['caption']}" if kind == "text" else ""
    words = f"{kind}{caption}  (image id {target['image_id']}, score {result['scores'][best]:.2f})"
    return visualize.comparison(
        pixels, prediction, truth, skeleton.limbs, skeleton.flip_pairs, words, points
    )


# --- helpers -------------------------------------------------------------------------------------


def seed_everything(seed: int, epoch: int) -> None:
    """Start the global random streams of this process for an epoch."""
    state = np.random.SeedSequence((seed, epoch, distributed.rank())).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


def autocast_dtype(device: torch.device) -> torch.dtype:
    """The short format of mixed precision: bfloat16 where the device has it, else float16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def _to_device(
    samples: NestedTensor, prompt: Prompt, targets: Sequence[dict[str, Any]], device: torch.device
) -> tuple[NestedTensor, Prompt, list[dict[str, Any]]]:
    moved = [
        {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in target.items()
        }
        for target in targets
    ]
    return samples.to(device, non_blocking=True), prompt.to(device), moved


def _main_losses(means: Mapping[str, float]) -> str:
    """The weighted sum and the last layer's losses; earlier layers' names end in their number."""
    shown = [
        f"{name.removeprefix('loss_')} {value:.4f}"
        for name, value in means.items()
        if name.startswith("loss_")
        and name.removeprefix("loss_") not in PROMPT_KINDS
        and name.rpartition("_")[2] != "enc"
        and not name.rpartition("_")[2].isdigit()
    ]
    return "  ".join([f"loss {means['loss']:.4f}", *shown])


def _restore(
    resume: Mapping[str, Any], optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[int, int]:
    """Load all but the model's weights; returns the next epoch and the steps done so far."""
    missing = [key for key in ("optimizer", "epoch", "step", "record") if key not in resume]
    if missing:
        raise ValueError(
            f"The checkpoint to resume has no {', '.join(missing)}: it holds weights, not a "
            f"training. Use --pretrain_model_path to start a new training from them."
        )
    # The rates and the like are the configuration's; a resumed run may change them.
    settings = [
        {"initial_lr": group["lr"], **{k: v for k, v in group.items() if k != "params"}}
        for group in optimizer.param_groups
    ]
    try:
        optimizer.load_state_dict(resume["optimizer"])
    except ValueError as error:
        raise ValueError(
            f"The checkpoint to resume trained other parameters than this configuration does "
            f"({error}). Resume with the configuration it was made with."
        ) from error
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)
    if scaler.is_enabled() and resume.get("scaler"):
        scaler.load_state_dict(resume["scaler"])
    return resume["epoch"] + 1, resume["step"]


def _best_metric(record: Mapping[str, Any], evaluation: Evaluation) -> float:
    value = record.get("eval", {}).get(evaluation.kinds[0], {}).get(BEST_METRIC)
    return -math.inf if value is None else value


def _copy(source: Path, destination: Path) -> None:
    """Copy a file; the old destination stays until the new one is complete."""
    temporary = destination.with_name(f"{destination.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def _write_scalars(board: SummaryWriter, record: Mapping[str, Any]) -> None:
    """One point per curve: training losses and rates, metrics by prompt kind."""
    curves = {f"train/{name}": value for name, value in record["train"].items()}
    curves |= {f"lr/{name}": rate for name, rate in record["lr"].items()}
    for kind, metrics in record.get("eval", {}).items():
        curves |= {f"{kind}/{name}": value for name, value in metrics.items()}
    for name, value in curves.items():
        board.add_scalar(name, value, record["step"])
    board.flush()
