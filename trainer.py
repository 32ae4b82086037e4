"""A run: what surrounds the two loops of `engine.py`.

`Optimization` changes the weights, `Evaluation` turns an evaluation into a table and files, and
`Trainer` goes through the epochs and leaves records and checkpoints in a `RunFolder`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import engine
from datasets.evaluation import format_table
from datasets.prompts import Prompt, PromptKind, PromptSampler, get_kind
from util import distributed, visualize
from util.errors import UserError
from util.gradient_exchange import GradientExchange
from util.logging import LOGGER_NAME, RESULT, write_json, write_json_list
from util.loss_means import NonFiniteLossError
from util.run_folder import RunFolder

logger = logging.getLogger(LOGGER_NAME)

# checkpoint_best.pth is the epoch with the highest value of it under the first variant.
BEST_METRIC = "keypoint_ap"

# The one variant of a model without prompts, and from which score on its people are drawn.
PEOPLE = "people"
DRAWN_SCORE = 0.3


# --- optimization --------------------------------------------------------------------------------


def autocast_dtype(device: torch.device, amp: bool | str = True) -> torch.dtype | None:
    """The short format of mixed precision, None without.

    Args:
        device: where the model is.
        amp: setting 'amp': "bfloat16", "float16", False, or True: bfloat16 where the device has it,
            else float16.
    """
    if amp is False:
        return None
    if amp is not True:
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}[amp]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


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


class Optimization:
    """AdamW with a schedule, clipping and mixed precision: everything that changes the weights.

    All of a step stays on the device: the fused AdamW leaves out a step that overflowed in float16
    by itself, where the plain one would ask the host.

    Args:
        model: not wrapped; its parameters have the names that checkpoints keep.
        groups: of parameters: `params`, `lr` and `name`.
        weight_decay: of every group.
        schedule: learning rates.
        device: where `model` is.
        clip_max_norm: largest norm of the gradient; 0 leaves the gradient as it is.
        amp_dtype: precision of the forward pass under autocast; None is full precision. Losses are
            scaled for float16.
        exchange: of `model`'s gradients between the processes; None: one with its defaults.

    Attributes:
        steps: done since the run began.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Mapping[str, Any]],
        *,
        weight_decay: float,
        schedule: LearningRateSchedule,
        device: torch.device,
        clip_max_norm: float = 0.0,
        amp_dtype: torch.dtype | None = None,
        exchange: GradientExchange | None = None,
    ) -> None:
        self.exchange = GradientExchange(model) if exchange is None else exchange
        names = {parameter: name for name, parameter in model.named_parameters()}
        named = [{**g, "params": [(names[p], p) for p in g["params"]]} for g in groups]
        self.optimizer = torch.optim.AdamW(named, weight_decay=weight_decay, fused=True)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.schedule = schedule
        self.device = device
        self.clip_max_norm = clip_max_norm if clip_max_norm > 0 else math.inf
        self.amp_dtype = amp_dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype == torch.float16)
        self.steps = 0

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        enabled = self.amp_dtype is not None
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=enabled)

    def step(self, loss: Tensor, epoch: int) -> dict[str, Tensor]:
        """One step down the gradient of `loss` [], at the rates of epoch `epoch` (0, 1, ...).

        Returns:
            `grad_norm` [] before clipping; absent with a scaler.
        """
        factor = self.schedule.factor(epoch, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.exchange.finish()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_max_norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        # A scaler finds its scale by overflowing now and then, and skips such steps itself.
        return {} if self.scaler.is_enabled() else {"grad_norm": norm}

    def rates(self) -> dict[str, float]:
        """Present learning rate of every group."""
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def state_dict(self) -> dict[str, Any]:
        """`optimizer` (with `param_names` in its groups), `scaler` and `step`, of a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a checkpoint ends; rates and the like stay those of this object.

        Args:
            state: a checkpoint: the keys of `state_dict`, and `model`.  Parameters are matched by
                name.  Older checkpoints do not name them in `optimizer`; there they have the order
                of `model`.

        Raises:
            UserError: it trained other parameters.
        """
        own = self.optimizer.state_dict()
        own_names = [name for group in own["param_groups"] for name in group["param_names"]]
        shapes = {n: tuple(p.shape) for n, p in zip(own_names, self._parameters, strict=True)}
        numbers = _numbers_by_name(state, own["param_groups"])
        saved = state["optimizer"]["state"]
        difference = ""
        if lacking := [name for name in own_names if name not in numbers]:
            difference = f"it did not train '{lacking[0]}'"
        elif unknown := [name for name in numbers if name not in shapes]:
            difference = f"it trained '{unknown[0]}', which is not trained here"
        for name, number in {} if difference else numbers.items():
            for value in saved.get(number, {}).values():
                if isinstance(value, Tensor) and value.dim() > 0 and value.shape != shapes[name]:
                    difference = f"'{name}' was of shape {tuple(value.shape)}, not {shapes[name]}"
        if difference:
            raise UserError(_other_parameters(difference))
        own["state"] = {
            number: saved[numbers[name]]
            for number, name in enumerate(own_names)
            if numbers[name] in saved
        }
        self.optimizer.load_state_dict(own)
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.steps = state["step"]


def _numbers_by_name(
    state: Mapping[str, Any], own_groups: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
    """Name of every parameter that a checkpoint's optimizer knows → its number there."""
    position = {name: number for number, name in enumerate(state["model"])}
    own = {group["name"]: group["param_names"] for group in own_groups}
    numbers: dict[str, int] = {}
    for index, group in enumerate(state["optimizer"]["param_groups"]):
        names = group.get("param_names")
        if names is None:
            label = group.get("name", str(index))
            names = sorted(own.get(label, []), key=lambda name: position.get(name, len(position)))
            if len(names) != len(group["params"]):
                raise UserError(
                    _other_parameters(
                        f"{len(group['params'])} instead of {len(names)} in group '{label}'"
                    )
                )
        numbers.update(zip(names, group["params"], strict=True))
    return numbers


def _other_parameters(difference: str) -> str:
    return (
        f"The checkpoint to resume trained other parameters than this configuration does: "
        f"{difference}. Resume with the configuration it was made with, or start a new training "
        f"from its weights with --pretrain_model_path."
    )


# --- evaluation ----------------------------------------------------------------------------------


def require_prompts(model: nn.Module, dataset: Dataset) -> None:
    """Refuse a model with prompts on a data set without.

    Raises:
        UserError: they do not go together.
    """
    if model.takes_prompts and not dataset.has_prompts:
        raise UserError(
            f"{type(model).__name__} needs a prompt with every image, and {type(dataset).__name__} "
            f"has none; choose a data set with prompts (setting 'dataset'), or a model without "
            f"(setting 'model')."
        )


class Evaluation:
    """Evaluates a model, after an epoch or alone: metrics, a table and files.

    Args:
        postprocessor: see `engine.evaluate`.
        loader: samples of this process, in evaluation order; none of them on another process.
        prompts: names of the kinds of prompt for a model that takes them, each a variant; the first
            decides which checkpoint is the best.  Other models have the one variant "people".
        output_dir: takes eval.json, predictions_{variant}.json and images/.
        device: where the models are.
        amp_dtype: see `engine.evaluate`.
        save_predictions: write predictions_{variant}.json in COCO's results format.
        num_images: of how many samples to draw prediction and ground truth.
    """

    def __init__(
        self,
        postprocessor: nn.Module,
        loader: DataLoader,
        *,
        prompts: Sequence[str],
        output_dir: Path,
        device: torch.device,
        amp_dtype: torch.dtype | None = None,
        save_predictions: bool = False,
        num_images: int = 0,
    ) -> None:
        self.postprocessor = postprocessor
        self.loader = loader
        self.prompts = tuple(prompts)
        self.output_dir = output_dir
        self.device = device
        self.amp_dtype = amp_dtype
        self.save_predictions = save_predictions
        self.num_images = num_images

    def variants(self, model: nn.Module) -> dict[str, PromptKind | None]:
        """What `model` is evaluated with: a kind of prompt, or None without, by name.

        Raises:
            UserError: the model needs prompts, and there are none.
        """
        if not model.takes_prompts:
            return {PEOPLE: None}
        require_prompts(model, self.loader.dataset)
        if not self.prompts:
            raise UserError("eval_prompts is empty; name the kinds of prompt to evaluate with.")
        return {name: get_kind(name) for name in self.prompts}

    def run(self, model: nn.Module) -> dict[str, dict[str, float]]:
        """Evaluate in all variants, print the table and write the files.

        Returns:
            Metrics by variant, the same on all processes and in eval.json.
        """
        dataset = self.loader.dataset
        evaluator = dataset.make_evaluator()
        variants = {
            name: (evaluator.fresh(keep_predictions=self.save_predictions), kind)
            for name, kind in self.variants(model).items()
        }
        metrics = engine.evaluate(
            model,
            self.postprocessor,
            self.loader,
            variants,
            device=self.device,
            amp_dtype=self.amp_dtype,
            inspect=self._draw if self.num_images > 0 else None,
        )
        if distributed.is_main_process():
            logger.log(RESULT, "%s", format_table(metrics))
            write_json(self.output_dir / "eval.json", metrics)
            if self.save_predictions:
                for name, (evaluator, _) in variants.items():
                    path = self.output_dir / f"predictions_{name}.json"
                    write_json_list(path, evaluator.predictions())
        return metrics

    def _draw(self, batch: engine.EvaluatedBatch) -> None:
        """Draw those of the first `num_images` samples that are in the batch."""
        skeleton = self.loader.dataset.skeleton
        for i, (index, target) in enumerate(zip(batch.indices, batch.targets, strict=True)):
            if index >= self.num_images:
                continue
            prompts, title = batch.prompts, batch.variant
            if prompts is not None and prompts.words(i):
                title = f"{title}: {prompts.words(i)}"
            image = visualize.draw_result(
                batch.samples.tensors[i],
                target,
                batch.results[i],
                skeleton.limbs,
                skeleton.flip_pairs,
                title=title,
                draw_prompt=None if prompts is None else partial(_draw_prompt, prompts, i),
                least_score=DRAWN_SCORE if prompts is None else None,
            )
            name = f"{index:05d}_{target['image_id']}_{batch.variant}.png"
            visualize.save(self.output_dir / "images" / name, image)


def _draw_prompt(prompts: Prompt, index: int, image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Prompt `index` of a batch on an image whose pixels are the batch's times (x, y)."""
    return prompts.scaled(x, y).draw(image, index)


# --- the whole training --------------------------------------------------------------------------


class Trainer:
    """A training from the first or a later epoch to the last.

    Args:
        model: not wrapped; its weights are already those of `resume`.
        criterion: see `engine.train_one_epoch`.
        loader: see `engine.train_one_epoch`.
        optimization: of `model`.
        evaluation: done every `eval_every` epochs (0: never) and after the last.
        folder: takes records and checkpoints.
        prompts: see `engine.train_one_epoch`.
        device: where `model` is.
        seed: see `engine.train_one_epoch`.
        epochs: how many there are in all.
        start_epoch: the first one, 0, 1, ..., unless `resume` knows it.
        resume: a checkpoint of this class to continue after.
        log_every: steps between two lines of progress.
        checkpoint_every: epochs between two numbered copies of the checkpoint; 0: none.
        eval_every: see `evaluation`.
        note: a remark, kept in every record.

    Raises:
        UserError: there is nothing to train, `resume` does not hold a training of the same
            parameters, or the model needs prompts and the data set has none.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        loader: DataLoader,
        optimization: Optimization,
        evaluation: Evaluation,
        folder: RunFolder,
        *,
        prompts: PromptSampler | None,
        device: torch.device,
        seed: int,
        epochs: int,
        start_epoch: int = 0,
        resume: Mapping[str, Any] | None = None,
        log_every: int = 20,
        checkpoint_every: int = 0,
        eval_every: int = 1,
        note: str = "",
    ) -> None:
        if epochs < 1 or (resume is None and not 0 <= start_epoch < epochs):
            raise UserError(
                f"There is nothing to train: {epochs} epochs in all (setting 'epochs'), starting "
                f"with number {start_epoch} (--start_epoch, from 0)."
            )
        require_prompts(model, loader.dataset)
        self.model = model
        self.criterion = criterion
        self.loader = loader
        self.optimization = optimization
        self.evaluation = evaluation
        self.folder = folder
        self.prompts = prompts
        self.device = device
        self.seed = seed
        self.epochs = epochs
        self.log_every = log_every
        self.checkpoint_every = checkpoint_every
        self.eval_every = eval_every
        self.note = note
        self._first_epoch = start_epoch
        if resume is not None:
            self._restore(resume)
        self._best_variant = next(iter(evaluation.variants(model)))
        records = folder.records_before(self._first_epoch)
        self._best = max(map(self._quality, records), default=-math.inf)
        # The earlier run may have ended between saving and evaluating its last epoch.
        self._unfinished: dict[str, Any] | None = None
        if resume is not None and all(r["epoch"] != resume["epoch"] for r in records):
            self._unfinished = dict(resume["record"])

    def run(self) -> None:
        """Train, evaluate and save until the last epoch is done.

        Raises:
            NonFiniteLossError: see `engine.train_one_epoch`; the last checkpoint is untouched.
        """
        if self._first_epoch >= self.epochs:
            logger.info("All %d epochs are done already; raise 'epochs' to go on.", self.epochs)
        try:
            if self._unfinished is not None:
                self._save(self._unfinished)  # perhaps into another folder than the earlier run's
                self._finish(self._unfinished)
            for epoch in range(self._first_epoch, self.epochs):
                record = self._train(epoch)
                self._save(record)
                self._finish(record)
        finally:
            self.folder.close()

    def _train(self, epoch: int) -> dict[str, Any]:
        """One epoch; returns its record for log.txt."""
        start = time.perf_counter()
        try:
            losses = engine.train_one_epoch(
                self.optimization.exchange.model,
                self.criterion,
                self.loader,
                self.optimization,
                device=self.device,
                epoch=epoch,
                seed=self.seed,
                prompts=self.prompts,
                log_every=self.log_every,
                epochs_after=self.epochs - epoch - 1,
            )
        except NonFiniteLossError as error:
            kept = "none was saved"
            if self.folder.has_checkpoint():
                kept = f"{self.folder.last_checkpoint} holds the last good epoch"
            raise NonFiniteLossError(
                f"{error}\nTraining stopped before saving this epoch; {kept}. Try a lower "
                f"learning rate, or full precision if --amp is on."
            ) from error
        record = {
            "epoch": epoch,
            "step": self.optimization.steps,
            "seconds": round(time.perf_counter() - start, 3),
            "lr": self.optimization.rates(),
            "train": losses,
        }
        return {**record, "note": self.note} if self.note else record

    def _save(self, record: dict[str, Any]) -> None:
        """The first half of an epoch's end: its checkpoint is safe."""
        if not distributed.is_main_process():
            return
        self.folder.save(
            {
                "model": self.model.state_dict(),
                **self.optimization.state_dict(),
                "epoch": record["epoch"],
                "record": record,
            }
        )
        done = record["epoch"] + 1
        if self.checkpoint_every > 0 and done % self.checkpoint_every == 0:
            self.folder.keep(f"checkpoint{record['epoch']:04d}.pth")

    def _finish(self, record: dict[str, Any]) -> None:
        """The second half: evaluation, the best checkpoint, the record."""
        done = record["epoch"] + 1
        due = self.eval_every > 0 and done % self.eval_every == 0
        if due or done >= self.epochs:
            record = {**record, "eval": self.evaluation.run(self.model)}
        if distributed.is_main_process():
            if self._quality(record) > self._best:
                self._best = self._quality(record)
                self.folder.keep("checkpoint_best.pth")
            self.folder.append(record)

    def _quality(self, record: Mapping[str, Any]) -> float:
        value = record.get("eval", {}).get(self._best_variant, {}).get(BEST_METRIC)
        return -math.inf if value is None else value

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take over everything but the model's weights from a checkpoint."""
        keys = ("optimizer", "epoch", "step", "record")
        missing = [key for key in keys if key not in state]
        if missing:
            raise UserError(
                f"The checkpoint to resume has no {', '.join(missing)}: it holds weights, not a "
                f"training. Use --pretrain_model_path to start a new training from them."
            )
        self.optimization.load_state_dict(state)
        self._first_epoch = state["epoch"] + 1
