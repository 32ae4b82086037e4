"""Averaged weights (EMA): a slower copy of the model, often the better one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from util.errors import UserError


class WeightAverage:
    """Exponential moving average of a model's weights; buffers are the model's own.

    Args:
        model: not wrapped, on its device.
        decay: share of the average that stays at every step, 0 < decay < 1.

    Attributes:
        model: a copy with the averaged weights, to be evaluated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._source = model
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._averaged.requires_grad_(False)
        self.model: nn.Module = self._averaged.module

    def update(self) -> None:
        """Take a step's weights in; the first ones are taken as they are."""
        self._averaged.update_parameters(self._source)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Entries of the averaged model under its own names, and how many steps are in them."""
        return {"steps": int(self._averaged.n_averaged), "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor | int] | None) -> None:
        """Continue.

        Raises:
            UserError: the checkpoint has no averaged weights.
        """
        if state is None:
            raise UserError(
                "The checkpoint to resume has no averaged weights: its training was without. "
                "Resume with ema_decay=0, or start a new training from its weights with "
                "--pretrain_model_path."
            )
        self.model.load_state_dict(state["model"])
        self._averaged.n_averaged.fill_(state["steps"])
