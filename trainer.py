"""A run: what surrounds the two loops of `engine.py`.

`Evaluation` turns an evaluation into a table and files; `Trainer` goes through the epochs, with an
`Optimization` that changes the weights, and leaves records and checkpoints in a `RunFolder`.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import engine
from datasets.evaluation import Selection, format_table
from datasets.prompts import Prompt, PromptKind, PromptSampler, get_kind
from util import distributed, visualize
from util.errors import UserError
from util.logging import LOGGER_NAME, RESULT, write_json, write_json_list
from util.loss_means import SAVE, STOP, LossMeans, NonFiniteLossError
from util.optimization import Optimization
from util.progress import EpochProgress
from util.run_folder import RunFolder
from util.stopping import RunStoppedError, StopSignals
from util.weight_average import WeightAverage

logger = logging.getLogger(LOGGER_NAME)

# For each, the checkpoint of the epoch with the highest value under the first variant.
BEST_METRICS = {
    "keypoint_ap": "checkpoint_best.pth",
    "mask_ap": "checkpoint_best_mask.pth",
}

# The one variant of a model without prompts, and from which score on its people are drawn.
PEOPLE = "people"
DRAWN_SCORE = 0.3

# In a training, drawings of so many samples, the same ones every time, go to its trackers.
SHOWN_SAMPLES = 4

# Takes a name and an image [h, w, 3] uint8 RGB.
Show = Callable[[str, np.ndarray], None]


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
        selections: for a model without prompts, on samples of one referred person each, which of
            its results count: each is a variant instead of "people".
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
        selections: Sequence[Selection] = (),
        output_dir: Path,
        device: torch.device,
        amp_dtype: torch.dtype | None = None,
        save_predictions: bool = False,
        num_images: int = 0,
    ) -> None:
        self.postprocessor = postprocessor
        self.loader = loader
        self.prompts = tuple(prompts)
        self.selections = {selection.name: selection for selection in selections}
        self.output_dir = output_dir
        self.device = device
        self.amp_dtype = amp_dtype
        self.save_predictions = save_predictions
        self.num_images = num_images

    def variants(self, model: nn.Module) -> dict[str, PromptKind | None]:
        """What `model` is evaluated with: a kind of prompt, or None without, by name.

        Raises:
            UserError: the model needs prompts, and there are none.
            ValueError: it takes prompts, which say who is meant, and there are selections too.
        """
        if not model.takes_prompts:
            return dict.fromkeys(self.selections or [PEOPLE])
        if self.selections:
            raise ValueError(f"{type(model).__name__} takes prompts; selections are for others.")
        require_prompts(model, self.loader.dataset)
        if not self.prompts:
            raise UserError("eval_prompts is empty; name the kinds of prompt to evaluate with.")
        return {name: get_kind(name) for name in self.prompts}

    def run(
        self,
        model: nn.Module,
        after_batch: Callable[[], None] | None = None,
        *,
        suffix: str = "",
        show: Show | None = None,
    ) -> dict[str, dict[str, float]]:
        """Evaluate in all variants, print the table and write the files.

        Args:
            model: see `engine.evaluate`.
            after_batch: see `engine.evaluate`.
            suffix: of the files' names.
            show: called on the main process with drawings of the first `SHOWN_SAMPLES` samples in
                every variant; None on all processes or on none.

        Returns:
            Metrics by variant, the same on all processes and in eval.json.
        """
        dataset = self.loader.dataset
        evaluator = dataset.make_evaluator()
        variants = {}
        for name, kind in self.variants(model).items():
            fresh = evaluator.fresh(keep_predictions=self.save_predictions)
            if name in self.selections:
                fresh = fresh.selecting(self.selections[name])
            variants[name] = (fresh, kind)
        drawings: list[tuple[str, np.ndarray]] = []
        metrics = engine.evaluate(
            model,
            self.postprocessor,
            self.loader,
            variants,
            device=self.device,
            amp_dtype=self.amp_dtype,
            inspect=partial(self._draw, suffix, None if show is None else drawings),
            after_batch=after_batch,
        )
        if distributed.is_main_process():
            logger.log(RESULT, "%s", format_table(metrics))
            write_json(self.output_dir / f"eval{suffix}.json", metrics)
            if self.save_predictions:
                for name, (evaluator, _) in variants.items():
                    path = self.output_dir / f"predictions_{name}{suffix}.json"
                    write_json_list(path, evaluator.predictions())
        if show is not None:
            # The first samples may be other processes'.
            others = distributed.gather_in_pieces(drawings)
            gathered = sorted((*drawings, *others), key=itemgetter(0))
            for name, image in gathered if distributed.is_main_process() else ():
                show(name, image)
        return metrics

    def _draw(
        self,
        suffix: str,
        drawings: list[tuple[str, np.ndarray]] | None,
        batch: engine.EvaluatedBatch,
    ) -> None:
        """Draw those of the batch that are among the first samples, and those of `images/`.

        Args:
            suffix: of the files' names.
            drawings: what is to be shown is added to it, with its name; None: nothing is.
            batch: to look at.
        """
        skeleton = self.loader.dataset.skeleton
        num_shown = 0 if drawings is None else SHOWN_SAMPLES
        for i, (index, target) in enumerate(zip(batch.indices, batch.targets, strict=True)):
            if index >= max(self.num_images, num_shown):
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
            name = f"{index:05d}_{target['image_id']}"
            if index < self.num_images:
                file = f"{name}_{batch.variant}{suffix}.png"
                visualize.save(self.output_dir / "images" / file, image)
            if index < num_shown:
                drawings.append((f"{batch.variant}{suffix}/{name}", image))


def _draw_prompt(prompts: Prompt, index: int, image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Prompt `index` of a batch on an image whose pixels are the batch's times (x, y)."""
    return prompts.scaled(x, y).draw(image, index)


# --- the whole training --------------------------------------------------------------------------


@dataclass(frozen=True)
class Saving:
    """When checkpoints are saved and evaluations done, beside the end of every epoch.

    Attributes:
        steps: save within an epoch every so many steps; 0: not by steps.
        minutes: save when so many minutes have passed since the last time; 0: not by time.
        every: epochs between two numbered copies of the checkpoint, which stay; 0: none.
        eval_every: epochs between two evaluations; 0: only after the last.
    """

    steps: int = 0
    minutes: float = 0.0
    every: int = 0
    eval_every: int = 1


class Trainer:
    """A training from its first or any later step to its last.

    Args:
        model: not wrapped; its weights are already those of `resume`.
        criterion: see `engine.train_one_epoch`.
        loader: see `engine.train_one_epoch`.
        optimization: of `model`.
        evaluation: done every `saving.eval_every` epochs and after the last.
        folder: takes records and checkpoints.
        prompts: see `engine.train_one_epoch`.
        device: where `model` is.
        seed: see `engine.train_one_epoch`.
        epochs: how many there are in all.
        start_epoch: the first one, 0, 1, ..., unless `resume` knows it.
        resume: a checkpoint of this class to continue after, which
            `util.checkpoint_content.check_training` has looked through.
        saving: when to save and to evaluate.
        average: of the weights, evaluated and saved beside them; None: there is none.
        log_every: steps between two lines of progress.
        note: a remark, kept in every record.

    Raises:
        UserError: there is nothing to train, `resume` trained other parameters or was saved within
            an epoch of other batches, or the model needs prompts and the data set has none.
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
        saving: Saving = Saving(),
        average: WeightAverage | None = None,
        log_every: int = 20,
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
        self.saving = saving
        self.average = average
        self.log_every = log_every
        self.note = note
        self._first_epoch = start_epoch
        self._within: Mapping[str, Any] | None = None  # of the epoch that `resume` ended in
        self._record: dict[str, Any] | None = None  # of the last finished epoch
        if resume is not None:
            self._restore(resume)
        self.folder.trackers.go_on_after(optimization.steps)
        self._best_variant = next(iter(evaluation.variants(model)))
        records = folder.records_before(self._first_epoch)
        self._best = {
            metric: max((self._quality(record, metric) for record in records), default=-math.inf)
            for metric in BEST_METRICS
        }
        # The earlier run may have ended between saving and evaluating its last epoch, or have had
        # another folder.
        logged = {record["epoch"] for record in records}
        self._is_logged = self._record is None or self._record["epoch"] in logged
        self._signals = StopSignals()
        self._means = LossMeans(self._first_epoch)
        self._started = self._saved_at = time.monotonic()
        self._has_asked = False  # for a checkpoint, because it is time

    def run(self) -> None:
        """Train, evaluate and save until the last epoch is done.

        Raises:
            NonFiniteLossError: see `engine.train_one_epoch`; the last checkpoint is untouched.
            RunStoppedError: a signal asked for an end; everything is saved.
        """
        if self._first_epoch >= self.epochs:
            logger.info("All %d epochs are done already; raise 'epochs' to go on.", self.epochs)
        else:
            sizes = self.loader.batch_sampler.sizes()
            logger.info(
                "Steps of %d samples: %d batch(es) of %d, on %d process(es) in %d round(s); "
                "learning rates are as set, not scaled by it. Steps done: %d",
                sizes["samples_per_step"],
                sizes["batches"],
                sizes["batch_size"],
                sizes["processes"],
                sizes["rounds"],
                self.optimization.steps,
            )
        with self._signals:
            try:
                if not self._is_logged and self._within is None:
                    self._save()  # perhaps into another folder than the earlier run's
                    self._finish()
                elif not self._is_logged and distributed.is_main_process():
                    self.folder.append(self._record)
                for epoch in range(self._first_epoch, self.epochs):
                    self._record = self._train(epoch)
                    self._save()
                    self._stop_between()
                    self._finish()
            finally:
                self.folder.close()

    def _train(self, epoch: int) -> dict[str, Any]:
        """One epoch, or the rest of it; returns its record for log.txt."""
        within = self._within or {"step": 0, "seconds": 0.0, "means": None}
        self._within = None
        self._started = time.monotonic() - within["seconds"]
        self._means = LossMeans(epoch, within["means"])
        progress = self._progress(epoch, within["step"])
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
                means=self._means,
                first_step=within["step"],
                data_ready=progress.data_ready,
                after_step=partial(self._after_step, epoch, progress),
            )
        except NonFiniteLossError as error:
            kept = "none was saved"
            if self.folder.has_checkpoint():
                kept = f"{self.folder.last_checkpoint} holds the last good state"
            raise NonFiniteLossError(
                f"{error}\nTraining stopped before saving it; {kept}. Try a lower learning rate, "
                f"or full precision if --amp is on."
            ) from error
        record = {
            "epoch": epoch,
            "step": self.optimization.steps,
            "seconds": round(time.monotonic() - self._started, 3),
            "speed": progress.speed(),
            "lr": self.optimization.rates(),
            "train": losses,
        }
        return {**record, "note": self.note} if self.note else record

    def _progress(self, epoch: int, first_step: int) -> EpochProgress:
        batches = self.loader.batch_sampler
        return EpochProgress(
            epoch,
            self.epochs,
            batches.steps,
            first_step,
            log_every=self.log_every,
            means=self._means,
            rates=self.optimization.rates,
            images=batches.samples,
            device=self.device,
            track=lambda values: self.folder.trackers.scalars(values, self.optimization.steps),
        )

    def _after_step(self, epoch: int, progress: EpochProgress, done: int) -> None:
        """What follows on a step, of which the epoch has had `done`: perhaps a checkpoint."""
        progress.step_done()
        if self.average is not None:
            self.average.update()
        self.folder.check()
        granted = self._means.take_granted()
        passed = (time.monotonic() - self._saved_at) / 60
        is_time = 0 < self.saving.minutes <= passed and distributed.is_main_process()
        wishes = {SAVE: is_time and not self._has_asked, STOP: self._signals.received is not None}
        self._has_asked |= is_time
        self._means.wishes = frozenset(name for name, wished in wishes.items() if wished)
        if done == self.loader.batch_sampler.steps:
            return  # the end of the epoch saves, too
        is_due = self.saving.steps > 0 and done % self.saving.steps == 0
        if is_due or granted:
            within = {
                "epoch": epoch,
                "step": done,
                "seconds": round(time.monotonic() - self._started, 3),
                "means": self._means.state_dict(),
            }
            self._save(within)
        if STOP in granted:
            self._wait_for_all()
            self._stop(f"within epoch {epoch}, after {done} of its steps")

    def _stop_between(self) -> None:
        """End after an epoch that is saved, if any process is asked to."""
        wished = torch.tensor(float(self._signals.received is not None))
        if distributed.reduce_sum(wished) > 0:
            self._wait_for_all()
            self._stop(f"after epoch {self._record['epoch']}, before its evaluation")

    def _wait_for_all(self) -> None:
        """Until the checkpoint is safe: launchers kill the others when one process has ended."""
        self.folder.wait()
        distributed.broadcast_object(None)

    def _stop_at_once(self) -> None:
        """End in an evaluation: it comes after its epoch is saved, and is done again."""
        if self._signals.received is not None:
            self._stop(f"in the evaluation after epoch {self._record['epoch']}")

    def _stop(self, when: str) -> NoReturn:
        number = self._signals.received or signal.SIGTERM
        raise RunStoppedError(
            f"Ended {when} by {signal.Signals(number).name}: all of it is saved in "
            f"{self.folder.last_checkpoint}. Go on with the same command and --resume auto.",
            number,
        )

    def _save(self, within: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint: of the last finished epoch, or within the one after it."""
        self._saved_at, self._has_asked = time.monotonic(), False
        if not distributed.is_main_process():
            return
        epoch = -1 if self._record is None else self._record["epoch"]
        names = []
        if within is None and self.saving.every > 0 and (epoch + 1) % self.saving.every == 0:
            names = [f"checkpoint{epoch:04d}.pth"]
        batches = self.loader.batch_sampler
        state = {
            "model": self.model.state_dict(),
            **self.optimization.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "epoch": epoch,
            "record": self._record,
            "within": within,
            "batches": batches.state_dict(),
        }
        self.folder.save(state, self.optimization.steps, *names)

    def _finish(self) -> None:
        """The second half of an epoch's end: evaluation, the best checkpoints, the record."""
        record = self._record
        done = record["epoch"] + 1
        self.folder.wait()  # the evaluation may be ended at once
        due = self.saving.eval_every > 0 and done % self.saving.eval_every == 0
        if due or done >= self.epochs:
            show = None
            if self.folder.trackers.names:
                show = partial(self.folder.trackers.image, step=record["step"])
            record["eval"] = self.evaluation.run(self.model, self._stop_at_once, show=show)
            if self.average is not None:
                logger.info("With averaged weights:")
                record["eval_average"] = self.evaluation.run(
                    self.average.model, self._stop_at_once, suffix="_average", show=show
                )
        if distributed.is_main_process():
            for metric, name in BEST_METRICS.items():
                if self._quality(record, metric) > self._best[metric]:
                    self._best[metric] = self._quality(record, metric)
                    self.folder.keep(name)
            self.folder.append(record)

    def _quality(self, record: Mapping[str, Any], metric: str) -> float:
        results = record.get("eval_average") or record.get("eval", {})
        value = results.get(self._best_variant, {}).get(metric)
        return -math.inf if value is None else value

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take over everything but the model's weights from a checkpoint."""
        self.optimization.load_state_dict(state)
        if self.average is not None:
            self.average.load_state_dict(state.get("average"))
        self._first_epoch = state["epoch"] + 1
        self._record = None if state["record"] is None else dict(state["record"])
        self._within = state.get("within")
        if self._within is not None:
            self._first_epoch = self._within["epoch"]
        if state.get("batches") is not None:
            self.loader.batch_sampler.load_state_dict(
                state["batches"], within_epoch=self._within is not None
            )
