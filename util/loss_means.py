"""Losses of an epoch: means over steps and processes, and an end to those that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from util import distributed
from util.logging import Averages

# What a process may wish for: to save a checkpoint, and to save one and end.
SAVE, STOP = "wish_save", "wish_stop"
WISHES = (SAVE, STOP)


class NonFiniteLossError(RuntimeError):
    """A loss or gradient became NaN or infinite; raised by every process at the same step."""


class LossMeans:
    """Means of the losses over an epoch's steps, and over the steps since the last report.

    The losses of a step are looked at one step later, so that the GPU never waits for the CPU.
    Wishes of single processes travel with them: what any of them wants, all hear of at the same
    step.

    Args:
        epoch: its number, for an error.
        state: `state_dict` of the epoch's earlier steps.

    Attributes:
        wishes: of this process, sent with the next step's losses.
        latest_loss: of the last step that was looked at; None: there was none yet.
    """

    def __init__(self, epoch: int, state: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._all, self._since_report = Averages(), Averages()
        if state is not None:
            self._all.load_state_dict(state)
        self._on_the_way: _StepLosses | None = None
        self.wishes: frozenset[str] = frozenset()
        self.latest_loss: float | None = None
        self._kinds: set[str] = set()  # names of the losses by kind of prompt
        self._granted: set[str] = set()

    def add(
        self, step: int, kind: str | None, image_ids: list[int], values: Mapping[str, Tensor]
    ) -> None:
        """Send the numbers of a step on their way, and look at those of the step before.

        Args:
            step: 0, 1, ... of the epoch.
            kind: of prompt; their `loss` also counts as `loss_{kind}`. None without prompts.
            image_ids: of this process' samples.
            values: numbers [] on the device, `loss` among them.

        Raises:
            NonFiniteLossError: one of the step before is NaN or infinite; on all processes at once.
        """
        self._take()
        where = f"epoch {self._epoch}, iteration {step}" + (f", {kind} prompts" if kind else "")
        values = dict(values)
        device = values["loss"].device
        for wish in WISHES:
            values[wish] = torch.full((), float(wish in self.wishes), device=device)
        self._on_the_way = _StepLosses(where, kind, image_ids, values)

    def recent(self) -> dict[str, float]:
        """Means over the steps since the last call; as `add`."""
        self._take()
        means, self._since_report = self._since_report.means(), Averages()
        return means

    def in_words(self, means: Mapping[str, float]) -> str:
        """The losses of the last layer, whose names do not end in a number, without kinds."""
        shown = [
            f"{name.removeprefix('loss_')} {value:.4f}"
            for name, value in means.items()
            if name.startswith("loss_")
            and name not in self._kinds
            and name.rpartition("_")[2] != "enc"
            and not name.rpartition("_")[2].isdigit()
        ]
        return "  ".join([f"loss {means['loss']:.4f}", *shown])

    def of_epoch(self) -> dict[str, float]:
        """Means over all steps so far."""
        self._take()
        return self._all.means()

    def take_granted(self) -> set[str]:
        """What any process wished for, of the steps looked at since the last call."""
        granted, self._granted = self._granted, set()
        return granted

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, plain values; to be called on all processes."""
        self._take()
        return self._all.state_dict()

    def _take(self) -> None:
        if self._on_the_way is None:
            return
        values = self._on_the_way.receive()
        self._granted |= {wish for wish in WISHES if values.pop(wish) > 0}
        if self._on_the_way.kind is not None:
            name = f"loss_{self._on_the_way.kind}"
            values[name] = values["loss"]
            self._kinds.add(name)
        self._all.update(values)
        self._since_report.update(values)
        self.latest_loss = values["loss"]
        self._on_the_way = None


class _StepLosses:
    """The numbers of a step, averaged over processes, on their way to the CPU.

    Args:
        where: epoch, iteration and kind of prompt, for an error.
        kind: of prompt.
        image_ids: of this process' samples, for an error.
        values: numbers [] on the device.
    """

    def __init__(
        self, where: str, kind: str | None, image_ids: list[int], values: Mapping[str, Tensor]
    ) -> None:
        self.kind, self.names = kind, list(values)
        self._where, self._image_ids = where, image_ids
        self._own = torch.stack([value.detach().float().reshape(()) for value in values.values()])
        self._mean = distributed.reduce_mean(self._own)
        self._arrived = None
        if self._mean.is_cuda:
            self._mean = self._mean.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def receive(self) -> dict[str, float]:
        """Wait for the numbers.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite, here or on another process.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        means = dict(zip(self.names, self._mean.tolist(), strict=True))
        if all(math.isfinite(value) for value in means.values()):
            return means
        own = dict(zip(self.names, self._own.tolist(), strict=True))
        own = {name: value for name, value in own.items() if name not in WISHES}
        lines = [f"Non-finite loss in {self._where}."]
        gathered = distributed.all_gather_object((self._image_ids, own))
        for rank, (image_ids, values) in enumerate(gathered):
            ids = ", ".join(map(str, image_ids))
            terms = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
            lines.append(f"  process {rank}: image ids {ids}: {terms}")
        raise NonFiniteLossError("\n".join(lines))
