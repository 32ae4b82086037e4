"""Checkpoints: what is in them, and the published names; `util.checkpoint_files` has the files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from util.checkpoint_content import check_weights
from util.checkpoint_files import read_file
from util.checkpoint_files import save as save
from util.errors import UserError, shown

# The published decoder holds the heads a second time under its own name.
_DOUBLED_PREFIX = "transformer.decoder."
_DOUBLED_HEADS = ("class_embed.", "bbox_embed.", "pose_embed.")


def from_reference(
    state_dict: Mapping[str, Tensor], model: Literal["uniphd", "grouppose"] = "uniphd"
) -> dict[str, Tensor]:
    """Published parameter names → ours.

    Args:
        state_dict: of the published model, whole or in part.
        model: whose names they are.

    Raises:
        UserError: a name that the published model does not have, or doubled heads that differ.
    """
    names = _published_names(model)
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        if name in names.OBSOLETE:
            continue
        single = _fold(name)
        own = _rename(single, names.RULES)
        if own is None:
            unknown.append(name)
        elif own in converted and not torch.equal(converted[own], value):
            raise UserError(
                f"The checkpoint holds two different values of {single!r}, one of them as "
                f"{_DOUBLED_PREFIX}{single!r}; the published model has one."
            )
        else:
            converted[own] = value
    if unknown:
        raise UserError(_listing("names that the published model does not have", unknown))
    return converted


def to_reference(
    state_dict: Mapping[str, Tensor], model: Literal["uniphd", "grouppose"] = "uniphd"
) -> dict[str, Tensor]:
    """Our parameter names → the published ones, the doubled heads included.

    Args:
        state_dict: of our model, whole or in part.
        model: which one it is.

    Raises:
        UserError: a name that the published model has no counterpart of, as other decoders have.
    """
    rules = tuple((own, published) for published, own in _published_names(model).RULES)
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        published = _rename(name, rules)
        if published is None:
            unknown.append(name)
            continue
        converted[published] = value
        if published.startswith(_DOUBLED_HEADS):
            converted[_DOUBLED_PREFIX + published] = value
    if unknown:
        raise UserError(_listing("names that the published model has no counterpart of", unknown))
    return converted


def recognise(names: Iterable[str]) -> str | None:
    """Whose published names these are: the model that has most of them; None: nobody's."""
    folded = [_fold(name) for name in names]
    known = {
        model: sum(_rename(name, _published_names(model).RULES) is not None for name in folded)
        for model in _models()
    }
    best = max(known, key=lambda model: known[model])
    return best if known[best] > 0 else None


def load(path: str | os.PathLike, model: str | None = None) -> dict[str, Any]:
    """Read a checkpoint: ours, a published one, or either saved under `module.` prefixes.

    Args:
        path: of the file.
        model: the model that it has to be of ("uniphd", "grouppose"); None: any.

    Returns:
        A dict whose `model` entry has our names; our own files add everything that a resumed run
        needs (`optimizer`, `epoch`, `config`, ...), published ones `published`: the model's name.

    Raises:
        MissingFileError: no such file.
        UserError: not a checkpoint, truncated, of another model, or with weights that are no
            numbers (`util.checkpoint_content`).
    """
    payload = read_file(path)
    state = payload.get("model", payload)
    check_weights(state, path)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if any(name.startswith(("transformer.", "backbone.0.")) for name in state):
        found = recognise(state) or "uniphd"
        try:
            content = {"model": from_reference(state, found), "published": found}
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
    else:
        extras = {k: value for k, value in payload.items() if k not in ("model", "published")}
        content = {**(extras if "model" in payload else {}), "model": _present_names(state)}
        settings = content.get("config") or {}
        if not isinstance(settings, Mapping):
            raise UserError(
                f"{path}: the settings inside ('config') have to be a dictionary; got "
                f"{shown(settings)}. Save the file again, or its 'model' entry alone."
            )
        found = settings.get("model", model)
    if model is not None and found != model:
        named = f" (config/{found}.py)" if found in tuple(_models()) else ""
        raise UserError(
            f"{path}: a checkpoint of the model {shown(found)}, but the configuration builds "
            f"'{model}'; use the configuration of that model{named}, or another checkpoint."
        )
    return content


def load_weights(
    model: nn.Module, state_dict: Mapping[str, Tensor], ignore: Iterable[str] = ()
) -> None:
    """Fill a model, refusing anything that does not fit.

    Args:
        state_dict: our names; floating-point entries are converted to the model's dtype.
        ignore: parts of names; entries whose name contains one of them are left as they are.

    Raises:
        UserError: lists missing and unexpected entries, and those of another shape or kind; or a
            part to ignore is in no name.
    """
    ignore = tuple(ignore)

    def counts(name: str) -> bool:
        return not any(part in name for part in ignore)

    state = model.state_dict()
    for part in ignore:
        if not any(part in name for name in (*state, *state_dict)):
            raise UserError(
                f"--finetune_ignore {shown(part)}: neither the model nor the checkpoint has an "
                f"entry with it in its name; the model's are like {', '.join(list(state)[-3:])}."
            )
    own = {name: value for name, value in state.items() if counts(name)}
    given = {name: value for name, value in state_dict.items() if counts(name)}
    problems = [f"missing: {name}" for name in own if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in own]
    problems += [
        f"{name}: shape {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    problems += [
        f"{name}: {given[name].dtype}, expected {value.dtype}"
        for name, value in own.items()
        if name in given and given[name].is_floating_point() != value.is_floating_point()
    ]
    if problems:
        raise UserError(
            _listing("entries that do not fit the model", problems)
            + "\nUse the configuration that the checkpoint was made with, or name parts of these "
            "entries in --finetune_ignore to leave them at their initial values."
        )
    model.load_state_dict(given, strict=False)


def _models() -> Mapping[str, str]:
    """The models' packages by name.

    The tables of names lie beside the models and are only looked up when a checkpoint is converted.
    """
    return import_module("models").MODELS


def _published_names(model: str) -> ModuleType:
    """The table of names that lies beside the model."""
    if not isinstance(model, str) or model not in _models():
        raise UserError(f"Unknown model {shown(model)}; expected one of {', '.join(_models())}.")
    return import_module(f"{_models()[model]}.published_names")


def _present_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of our own under their present names, which a few of them did not always have."""
    former = [rule for model in _models() for rule in _published_names(model).FORMER]
    return {_rename(name, former) or name: value for name, value in state.items()}


def _fold(name: str) -> str:
    """The published name of a head without the decoder's prefix."""
    single = name.removeprefix(_DOUBLED_PREFIX)
    return single if single.startswith(_DOUBLED_HEADS) else name


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str | None:
    for old, new in rules:
        pattern = re.escape(old).replace(r"\*", r"(\d+)")
        match = re.match(pattern, name)
        if match:
            start = new.replace("*", match.group(1)) if "*" in new else new
            return start + name[match.end() :]
    return None


def _listing(what: str, entries: list[str], most: int = 20) -> str:
    shown = "".join(f"\n  {entry}" for entry in entries[:most])
    rest = f"\n  ... and {len(entries) - most} more" if len(entries) > most else ""
    return f"The checkpoint has {len(entries)} {what}:{shown}{rest}"
