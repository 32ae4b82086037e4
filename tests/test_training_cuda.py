"""Training steps on a GPU: the host never waits for it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_models import all_prompts, random_batch, random_targets, small_model

import engine
from models import build_parameter_groups
from util.optimization import LearningRateSchedule, Optimization

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

STEPS = 6


class StrictLoader:
    """Batches in page-locked memory; only in the first step and the last may the host wait.

    The first warms up, the last is logged.
    """

    def __init__(self):
        self.dataset = SimpleNamespace(set_epoch=lambda epoch: None)
        self.batch_sampler = SimpleNamespace(
            start=lambda epoch, first_step: None,
            steps=STEPS,
            rounds=1,
            counts=lambda step, number: True,
            part=lambda number: number,
        )

    def __len__(self):
        return STEPS

    def __iter__(self):
        try:
            for step in range(STEPS):
                targets = [
                    {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in t.items()}
                    for t in random_targets()
                ]
                batch = random_batch()
                as_bytes = (64 * batch.tensors + 128).clamp(0, 255).byte()  # as loaders yield them
                batch = replace(batch, tensors=as_bytes).pin_memory()
                strict = 0 < step < STEPS - 1
                torch.cuda.set_sync_debug_mode("error" if strict else "default")
                yield batch, targets
        finally:
            torch.cuda.set_sync_debug_mode("default")


class OneKind:
    """Draws the same prompts in every step."""

    def __init__(self, kind):
        self._kind = kind

    def kind(self, epoch, step):
        return self._kind

    def draw(self, kind, targets, epoch):
        return all_prompts()[kind]


@pytest.mark.parametrize("kind", ["text", "scribble", "point"])
@pytest.mark.parametrize("amp_dtype", [None, torch.bfloat16, torch.float16])
def test_the_host_never_waits_in_a_training_step(tmp_path, kind, amp_dtype):
    device = torch.device("cuda", torch.cuda.current_device())
    model, criterion, _ = small_model(tmp_path, dropout=0.1)
    model, criterion = model.to(device), criterion.to(device)
    cfg = SimpleNamespace(lr=1e-4, lr_backbone=1e-4, lr_text_encoder=1e-4, lr_adjacency=1e-4)
    optimization = Optimization(
        model,
        build_parameter_groups(model, cfg),
        weight_decay=1e-4,
        schedule=LearningRateSchedule(),
        device=device,
        clip_max_norm=0.1,
        amp_dtype=amp_dtype,
    )
    losses = engine.train_one_epoch(
        model,
        criterion,
        StrictLoader(),
        optimization,
        device=device,
        epoch=0,
        seed=0,
        prompts=OneKind(kind),
    )
    assert optimization.steps == STEPS
    assert losses["loss"] > 0
