"""Checkpoint files: tensors and plain values, written whole, read without unpickling objects.

The one exception is `argparse.Namespace` (plain settings), which the published file carries along.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from util.errors import MissingFileError, UserError
from util.files import written_whole


class DamagedFileError(UserError):
    """A file that is not as it was written."""


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Content of a `.pth` or `.safetensors` file on the CPU, without unpickling objects.

    Raises:
        MissingFileError: no such file.
        DamagedFileError: truncated, or changed since it was written.
        UserError: not a dictionary of tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such checkpoint file; check the path.")
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise DamagedFileError(
                f"{path}: truncated or not a safetensors file ({error})."
            ) from error
        return {**{key: _parsed(text) for key, text in metadata.items()}, "model": state}
    _check_sums(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage as RuntimeError, OSError, EOFError, ...
        found = re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", str(error))
        if found:
            raise UserError(
                f"{path}: holds objects other than tensors and plain values ({found.group(1)}), "
                "which are not unpickled because they could run code. Re-save its 'model' entry "
                "alone where you trust it."
            ) from error
        raise DamagedFileError(
            f"{path}: cannot be read as a checkpoint: it is truncated or not a PyTorch file "
            f"({type(error).__name__}). Copy it again, or check the path."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dictionary, found {type(content).__name__}.")
    return content


def save(path: str | os.PathLike, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: an existing file stays whole until the new one is complete.

    Args:
        path: `.pth`, or `.safetensors` for weights to be handed on: then `model` is stored as
            tensors and every other entry as JSON text in the file's metadata.
        payload: tensors and plain values only.

    Raises:
        TypeError: an entry is neither.
        UserError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    _check_plain(payload, where="checkpoint")
    try:
        with written_whole(path) as temporary:
            if path.suffix == ".safetensors":
                metadata = {key: json.dumps(v) for key, v in payload.items() if key != "model"}
                state = {name: value.contiguous() for name, value in payload["model"].items()}
                safetensors.torch.save_file(state, temporary, metadata=metadata)
                os.chmod(temporary, 0o644)  # safetensors makes it private
            else:
                # To a file of ours: PyTorch's own does not say what went wrong.
                with open(temporary, "wb") as file:
                    torch.save(payload, file)
    except OSError as error:
        raise UserError(
            f"{path}: the checkpoint cannot be written: {error.strerror or error}. Free or name "
            f"another place; what was there before is untouched."
        ) from error


def _check_sums(path: Path) -> None:
    """Compare a `.pth` file with the checksums inside it.

    PyTorch writes its files as zip archives, which hold the CRC-32 of every part, but does not look
    at them when it reads.

    Raises:
        DamagedFileError: they differ.
    """
    try:
        if not zipfile.is_zipfile(path):
            return  # a format of old versions of PyTorch, or no checkpoint at all
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            # What says that it is a folder, PyTorch takes for one and does not read.
            folders = (entry.filename for entry in archive.infolist() if entry.external_attr & 0x10)
            damaged = damaged or next(folders, None)
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        ValueError,
        RuntimeError,
        EOFError,
        OSError,
    ) as error:
        damaged = str(error)
    if damaged is not None:
        raise DamagedFileError(
            f"{path}: the checkpoint is damaged ({damaged}): its bytes are not those that were "
            f"written. Copy it again, or use an earlier one (a training's --resume auto does)."
        )


def _parsed(text: str) -> Any:
    """A metadata entry of a safetensors file: JSON in ours, anything in others' files."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, thousands of digits, or of brackets
        return text


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif value is not None and not isinstance(value, Tensor | bool | int | float | str):
        raise TypeError(
            f"{where} is a {type(value).__name__}; checkpoints hold tensors and plain values only."
        )
