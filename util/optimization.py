"""What changes the weights: AdamW, its schedule, clipping and mixed precision."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from util.errors import UserError
from util.gradient_exchange import GradientExchange


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
        self._is_within_step = False

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        enabled = self.amp_dtype is not None
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=enabled)

    def part(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and `backward` of one of a step's parts: the last exchanges gradients."""
        return contextlib.nullcontext() if is_last else self.exchange.paused()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` [] to that of the step's other parts."""
        if not self._is_within_step:
            self.optimizer.zero_grad(set_to_none=True)
            self._is_within_step = True
        self.scaler.scale(loss).backward()

    def step(self, epoch: int) -> dict[str, Tensor]:
        """One step down the gradient, at the rates of epoch `epoch` (0, 1, ...).

        Returns:
            `grad_norm` [] before clipping; absent with a scaler.
        """
        factor = self.schedule.factor(epoch, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.exchange.finish()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.clip_max_norm, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        self._is_within_step = False
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
