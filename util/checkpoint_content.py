"""Checks of what a checkpoint holds, when it is read and before anything is built from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from util.errors import UserError, shown

# What weights and the buffers beside them are stored as; others (complex, 8 bits or fewer) no.
_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
# What a training needs to go on, beside its weights.
_TRAINING = ("optimizer", "epoch", "step", "record")
# What AdamW keeps of every parameter that it has changed.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def check_weights(state: Any, path: str | os.PathLike) -> None:
    """Refuse what cannot be the weights of a model.

    Args:
        state: a checkpoint's weights by name.
        path: of the checkpoint, for the message.

    Raises:
        UserError: not tensors by name, none at all, a tensor of an odd kind, or numbers that are
            not finite.
    """
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        found = sorted(map(str, state))[:8] if isinstance(state, Mapping) else shown(state)
        raise UserError(
            f"{path}: not a checkpoint of this project. Expected a 'model' entry with named "
            f"tensors; found {shown(found)}."
        )
    if not state:
        raise UserError(f"{path}: the checkpoint has no parameters.")
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(
                f"{path}: the names of weights must be text; got {shown(name)}. This is not a "
                "model's state_dict."
            )
        _check_tensor(value, f"{path}: {shown(name)}")


def check_training(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Refuse a checkpoint that no training can go on from.

    Args:
        content: what `util.checkpoint.load` returns.
        path: of the checkpoint, for the message.

    Raises:
        UserError: an entry is missing, of another kind, or damaged.
    """
    missing = [key for key in _TRAINING if key not in content]
    if missing:
        raise UserError(
            f"{path}: the checkpoint to resume has no {', '.join(missing)}: it holds weights, not "
            "a training. Use --pretrain_model_path to start a new training from them."
        )
    for key, least in (("epoch", -1), ("step", 0)):
        _require(
            type(content[key]) is int and content[key] >= least, path, key, "a number", content
        )
    has_record = content["record"] is not None  # of the last finished epoch, if there was one
    _require((content["epoch"] >= 0) == has_record, path, "epoch", "that of its record", content)
    for key in ("record", "within", "average", "batches", "scaler"):
        fits = content.get(key) is None or isinstance(content[key], Mapping)
        _require(fits, path, key, "a dictionary", content)
    _require(
        has_record or content.get("within") is not None, path, "within", "a dictionary", content
    )
    _check_progress(content, path)
    optimizer = content["optimizer"]
    if not isinstance(optimizer, Mapping) or not {"state", "param_groups"} <= optimizer.keys():
        raise _damaged(path, "its optimizer has to hold 'state' and 'param_groups'", optimizer)
    numbers = _parameter_names(optimizer["param_groups"], content["model"], path)
    state = optimizer["state"]
    if not isinstance(state, Mapping) or not set(state) <= numbers.keys():
        raise _damaged(
            path, "its optimizer's 'state' has to belong to the parameters of its groups", state
        )
    if content["step"] > 0 and numbers and not state:
        raise _damaged(path, f"its optimizer's state of {content['step']} steps is empty", state)
    for number, entry in state.items():
        name = numbers[number] or f"parameter {number}"
        if not isinstance(entry, Mapping) or not all(
            isinstance(entry.get(key), Tensor) for key in _MOMENTS
        ):
            raise _damaged(
                path, f"its optimizer has to hold {', '.join(_MOMENTS)} of {name}", entry
            )
        shape = content["model"][name].shape if numbers[number] else entry["exp_avg"].shape
        for key, value in entry.items():
            if not isinstance(value, Tensor):
                continue
            _check_tensor(value, f"{path}: the optimizer's {key} of {name}")
            if value.shape != (() if key == "step" else shape):
                raise _damaged(
                    path,
                    f"the optimizer's {key} of {name} has to be of the shape of the parameter, "
                    f"{tuple(shape)}",
                    tuple(value.shape),
                )


def _check_progress(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """What `trainer.Trainer` saves of an epoch's part, of the batches and of averaged weights."""
    whole = {
        "within": ("epoch", "step"),
        "batches": ("batch_size", "parts", "accumulation_steps"),
        "average": ("steps",),
    }
    for key, names in whole.items():
        entry = content.get(key) or {}
        for name in names if entry else ():
            least = 1 if key == "batches" else 0
            fits = type(entry.get(name)) is int and entry[name] >= least
            _require(fits, path, key, f"a dictionary with a number '{name}'", content)
    within = content.get("within")
    if within is not None:
        means = within.get("means")
        fits = isinstance(means, Mapping) and all(
            isinstance(means.get(part), Mapping)
            and all(isinstance(value, int | float) for value in means[part].values())
            for part in ("sums", "counts")
        )
        fits = fits and isinstance(within.get("seconds"), int | float)
        _require(fits, path, "within", "a dictionary with 'seconds' and 'means'", content)
    if content.get("average") is not None:
        check_weights(
            content["average"].get("model"),
            f"{path}: the checkpoint to resume: its averaged weights",
        )


def _parameter_names(
    groups: Any, weights: Mapping[str, Tensor], path: str | os.PathLike
) -> dict[int, str | None]:
    """The name of every parameter of an optimizer by its number; older files do not have names."""
    names: dict[int, str | None] = {}
    if not isinstance(groups, Sequence) or not groups:
        raise _damaged(path, "its optimizer's 'param_groups' has to be a list of groups", groups)
    for group in groups:
        numbers = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            raise _damaged(path, "every group of its optimizer has to list its 'params'", group)
        own = group.get("param_names", [None] * len(numbers))
        if not isinstance(own, list) or len(own) != len(numbers):
            raise _damaged(
                path,
                f"a group of its optimizer has to name each of its {len(numbers)} parameters",
                own,
            )
        for number, name in zip(numbers, own, strict=True):
            if number in names:
                raise _damaged(path, "its optimizer's groups name a parameter twice", number)
            if name is not None and (type(name) is not str or name not in weights):
                raise _damaged(path, "its optimizer trains parameters that its model lacks", name)
            names[number] = name
    return names


def _check_tensor(value: Tensor, name: str) -> None:
    """Refuse a tensor that is not dense, or with numbers that are not finite.

    Raises:
        UserError: it is; the message begins with `name`.
    """
    kind = f"{str(value.dtype).removeprefix('torch.')}, {value.layout}, on {value.device.type}"
    if value.dtype not in _DTYPES or value.layout != torch.strided or value.device.type != "cpu":
        raise UserError(
            f"{name} cannot be used: expected ordinary numbers of 16, 32 or 64 bits; got {kind}. "
            "Convert it, e.g. with .float(), and save it again."
        )
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(
            f"{name} claims to be of shape {tuple(value.shape)}, but the file holds only "
            f"{value.untyped_storage().nbytes()} bytes of it; save a copy (.clone())."
        )
    if not value.is_floating_point() or not value.numel():
        return
    # One pass without a copy: both ends are NaN where there is one.
    if not all(end.isfinite() for end in value.detach().aminmax()):
        bad = int((~value.isfinite()).sum())
        raise UserError(
            f"{name} has {bad} of {value.numel()} values that are not finite (NaN or infinite): "
            "the training that wrote it had diverged, or the file is damaged. Use an earlier "
            "checkpoint."
        )


def _require(
    holds: bool, path: str | os.PathLike, key: str, expected: str, content: Mapping[str, Any]
) -> None:
    if not holds:
        raise _damaged(path, f"its '{key}' has to be {expected}", content.get(key))


def _damaged(path: str | os.PathLike, expected: str, found: Any) -> UserError:
    return UserError(
        f"{path}: the checkpoint to resume is damaged: {expected}; got {shown(found)}. Resume from "
        "an earlier one, or start a new training from its weights with --pretrain_model_path."
    )
