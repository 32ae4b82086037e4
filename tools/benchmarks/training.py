"""Training steps as a checkout does them: its engine, its optimizer, its losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.inputs import TYPES, random_images, random_targets


class NoiseLoader:
    """The same batch of noise, `steps` times, to the engine a loader of an epoch.

    As the project's loader, it has its batches in page-locked memory where there is a GPU. It is
    its own data set and sampler; the engine of older commits asks that for `set_epoch` alone.
    """

    rounds = 1

    def __init__(self, options: dict[str, Any], steps: int) -> None:
        from util.nested_tensor import NestedTensor

        samples, targets = NestedTensor.from_list(random_images(options)), random_targets(options)
        if torch.device(options["device"]).type == "cuda":
            samples = samples.pin_memory()
            targets = [
                {k: v.pin_memory() if isinstance(v, torch.Tensor) else v for k, v in t.items()}
                for t in targets
            ]
        self.batch = samples, targets
        self.steps = steps
        self.sampler = self.batch_sampler = self.dataset = self

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""

    def start(self, epoch: int, first_step: int) -> None:
        """Every epoch is the same and whole."""

    def counts(self, step: int, round_number: int) -> bool:
        """All batches count."""
        return True

    def part(self, round_number: int) -> int:
        """There is one process with one part."""
        return 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
        for _ in range(self.steps):
            yield self.batch


def training(
    options: dict[str, Any],
    model: nn.Module,
    criterion: nn.Module,
    cfg: Any,
    loader: Any,
    probabilities: dict[str, float],
) -> Callable[[int], dict[str, float]]:
    """A function that trains an epoch, given its number, and returns the means of its losses.

    Args:
        options: `device`, `amp`, `compile` and `form`.
        model: of the measured checkout, as `cfg` and `criterion`.
        criterion: its losses.
        cfg: the settings.
        loader: batches of an epoch.
        probabilities: of the kinds of prompt.
    """
    import engine

    if options.get("form") == "plain":
        return _plain_training(options, model, criterion, cfg, loader)
    if hasattr(engine, "Training"):  # before there was a trainer.py
        return _older_training(options, model, criterion, cfg, loader, probabilities)
    from datasets.prompts import PromptSampler
    from models import build_parameter_groups

    try:
        from util.optimization import LearningRateSchedule, Optimization
    except ImportError:  # an older commit
        from trainer import LearningRateSchedule, Optimization

    device = torch.device(options["device"])
    optimization = Optimization(
        model,
        build_parameter_groups(model, cfg),
        weight_decay=cfg.weight_decay,
        schedule=LearningRateSchedule((), cfg.lr_warmup_steps),
        device=device,
        clip_max_norm=cfg.clip_max_norm,
        amp_dtype=TYPES.get(options["amp"]),
    )
    prompts = PromptSampler(probabilities, seed=0)
    backend = options.get("compile")
    wrapped = torch.compile(model, backend=backend) if backend else model

    def epoch(number: int) -> dict[str, float]:
        return engine.train_one_epoch(
            wrapped,
            criterion,
            loader,
            optimization,
            device=device,
            epoch=number,
            seed=0,
            prompts=prompts,
        )

    return epoch


def _older_training(
    options: dict[str, Any],
    model: nn.Module,
    criterion: nn.Module,
    cfg: Any,
    loader: Any,
    probabilities: dict[str, float],
) -> Callable[[int], dict[str, float]]:
    import engine
    from models import build_parameter_groups

    device = torch.device(options["device"])
    optimizer = torch.optim.AdamW(
        build_parameter_groups(model, cfg), lr=cfg.lr, weight_decay=cfg.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=options["amp"] == "float16")
    steps = 0

    def epoch(number: int) -> dict[str, float]:
        nonlocal steps
        steps += len(loader)
        return engine.train_one_epoch(
            model,
            criterion,
            loader,
            optimizer,
            device=device,
            epoch=number,
            first_step=steps - len(loader),
            prompts=engine.PromptSampler(probabilities, seed=0),
            schedule=engine.LearningRateSchedule((), cfg.lr_warmup_steps),
            clip_max_norm=cfg.clip_max_norm,
            amp_dtype=TYPES.get(options["amp"]),
            scaler=scaler,
        )

    return epoch


def _plain_training(
    options: dict[str, Any], model: nn.Module, criterion: nn.Module, cfg: Any, loader: Any
) -> Callable[[int], dict[str, float]]:
    """The plain form, with scribbles; see `benchmarks.plain`."""
    from benchmarks.plain import PlainCriterion, PlainUniPHD, plain_optimizer, published_operator
    from models import build_parameter_groups
    from models.uniphd.prompt_encoder import ScribblePrompt

    device = torch.device(options["device"])
    optimizer = plain_optimizer(build_parameter_groups(model, cfg), cfg.weight_decay)
    plain = PlainUniPHD(model, published_operator(device)).train()
    plain_criterion = PlainCriterion(criterion).train()

    def epoch(number: int) -> dict[str, float]:
        for samples, targets in loader:
            prompts = ScribblePrompt(torch.stack([target["scribble"] for target in targets]))
            moved = [
                {key: v.to(device) if isinstance(v, torch.Tensor) else v for key, v in t.items()}
                for t in targets
            ]
            outputs = plain(samples.to(device), prompts.to(device), moved)
            total = plain_criterion.total(plain_criterion(outputs, moved))
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), cfg.clip_max_norm)
            optimizer.step()
        return plain_criterion.logged

    return epoch
