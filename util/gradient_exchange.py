"""Several processes: how their gradients become one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from util import distributed


class GradientExchange:
    """Averages the gradients over the processes; of a process that runs alone, it does nothing.

    What every step uses is averaged by DDP while the backward pass runs.  What only some kinds of
    prompt use has no gradient in the other steps, and stays as it is then: weights of a kind that
    is not drawn neither decay nor move.  All processes draw the same kind (`PromptSampler`), so
    that nothing has to be looked for: these gradients are averaged where there are any, after the
    backward pass, and RoBERTa's do not travel in steps without words.

    Args:
        model: not wrapped, on its device.  One that takes prompts names in `prompt_parameters()`
            what only some kinds use.
        bucket_mb: size in MiB of the pieces in which gradients travel.
        bfloat16: they travel in bfloat16: half as much, and rounded.
        find_unused_parameters: let DDP average everything and look in every step for parameters
            without gradient: for models that have others than they name.

    Attributes:
        model: to be called in training; `model` itself, or wrapped in DDP.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        bucket_mb: float = 25.0,
        bfloat16: bool = False,
        find_unused_parameters: bool = False,
    ) -> None:
        self.model = model
        self._afterwards: list[nn.Parameter] = []
        self._bucket_bytes = bucket_mb * 2**20
        self._bfloat16 = bfloat16
        if distributed.world_size() == 1:
            return
        if model.takes_prompts and not find_unused_parameters:
            own = set(model.prompt_parameters())
            named = [(name, p) for name, p in model.named_parameters() if p in own]
            self._afterwards = [parameter for _, parameter in named if parameter.requires_grad]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                model, [name for name, _ in named]
            )
            for _, parameter in named:  # DDP sees to the others
                dist.broadcast(parameter.detach(), src=0)
        device = next(model.parameters()).device
        self.model = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters and model.takes_prompts,
            bucket_cap_mb=bucket_mb,
            gradient_as_bucket_view=True,
        )
        if bfloat16:
            self.model.register_comm_hook(None, bf16_compress_hook)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward passes after which others add to the same gradients."""
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def finish(self) -> None:
        """Average what the backward pass has left to be done; to be called after it."""
        gradients = [p.grad for p in self._afterwards if p.grad is not None]
        travelling = []
        for bucket in self._buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            flat /= distributed.world_size()
            if self._bfloat16:
                flat = flat.bfloat16()
            travelling.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in travelling:
            work.wait()
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, mean in zip(bucket, flat.split(sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def _buckets(self, gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The gradients in pieces, each as small as it can be from `bucket_mb` on, but the last."""
        bucket, filled = [], 0
        for gradient in gradients:
            bucket.append(gradient)
            filled += gradient.nbytes
            if filled >= self._bucket_bytes:
                yield bucket
                bucket, filled = [], 0
        if bucket:
            yield bucket
