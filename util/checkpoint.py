"""Checkpoints: reading, writing, and the published names.

Our files hold tensors and plain values only and are written atomically.  Reading never unpickles
objects; the one exception is `argparse.Namespace` (plain settings), which the published file
carries along.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from util.errors import MissingFileError, UserError
from util.files import written_whole

# Published name -> ours; "*" stands for a layer number and is the same on both sides.
_UNIPHD_NAMES = (
    ("backbone.0.", "backbone.body."),
    ("text_encoder.text_backbone.", "prompt_encoder.text_backbone."),
    ("text_proj.fc.", "prompt_encoder.word_projection.0."),
    ("text_proj.layer_norm.", "prompt_encoder.word_projection.1."),
    ("sentence_proj.fc.", "prompt_encoder.sentence_projection.0."),
    ("sentence_proj.layer_norm.", "prompt_encoder.sentence_projection.1."),
    ("prompt_proj.fc.", "prompt_encoder.pixel_projection.0."),
    ("prompt_proj.layer_norm.", "prompt_encoder.pixel_projection.1."),
    ("glob_prompt_proj.fc.", "prompt_encoder.pixel_summary_projection.0."),
    ("glob_prompt_proj.layer_norm.", "prompt_encoder.pixel_summary_projection.1."),
    ("fusion_module.multihead_attn.", "fusion.text_attention."),
    ("fusion_module.multihead_attn2.", "fusion.positional_attention."),
    ("input_proj.*.", "input_projection.levels.*."),
    ("transformer.level_embed", "encoder.level_embedding"),
    ("transformer.encoder.layers.*.self_attn.", "encoder.layers.*.self_attention."),
    ("transformer.encoder.layers.*.norm1.", "encoder.layers.*.norm."),
    ("transformer.encoder.layers.*.linear1.", "encoder.layers.*.feed_forward.linear1."),
    ("transformer.encoder.layers.*.linear2.", "encoder.layers.*.feed_forward.linear2."),
    ("transformer.encoder.layers.*.norm2.", "encoder.layers.*.feed_forward.norm."),
    ("transformer.enc_output.", "query_init.memory_projection."),
    ("transformer.enc_output_norm.", "query_init.memory_norm."),
    ("transformer.enc_out_class_embed.", "query_init.class_head."),
    ("transformer.enc_pose_embed.", "query_init.keypoint_head."),
    ("transformer.keypoint_embedding.", "query_init.keypoint_embedding."),
    ("transformer.decoder.half_pose_ref_point_head.", "decoder.position_mlp."),
    ("transformer.decoder.layers.*.across_attn.", "decoder.layers.*.across_attention."),
    ("transformer.decoder.layers.*.across_norm.", "decoder.layers.*.across_norm."),
    ("transformer.decoder.layers.*.cross_attn.", "decoder.layers.*.cross_attention."),
    ("transformer.decoder.layers.*.norm1.", "decoder.layers.*.cross_norm."),
    ("transformer.decoder.layers.*.linear1.", "decoder.layers.*.cross_feed_forward.linear1."),
    ("transformer.decoder.layers.*.linear2.", "decoder.layers.*.cross_feed_forward.linear2."),
    ("transformer.decoder.layers.*.norm2.", "decoder.layers.*.cross_feed_forward.norm."),
    (
        "transformer.decoder.layers.*.adjacent_matrix",
        "decoder.layers.*.within_attention.adjacency",
    ),
    ("transformer.decoder.layers.*.within_attn.", "decoder.layers.*.within_attention.attention."),
    ("transformer.decoder.layers.*.within_norm.", "decoder.layers.*.within_norm."),
    ("transformer.decoder.layers.*.linear1_.", "decoder.layers.*.within_feed_forward.linear1."),
    ("transformer.decoder.layers.*.linear2_.", "decoder.layers.*.within_feed_forward.linear2."),
    ("transformer.decoder.layers.*.norm2_.", "decoder.layers.*.within_feed_forward.norm."),
    ("class_embed.*.", "heads.class_heads.*."),
    ("bbox_embed.*.", "heads.box_heads.*."),
    ("pose_embed.*.", "heads.keypoint_heads.*."),
    ("pose_visi_embed.*.", "heads.visibility_heads.*."),
    ("controller.", "mask_head.controller."),
    ("mask_refine.conv1_1div8.", "mask_head.refine_c3.conv1."),
    ("mask_refine.conv2_1div8.", "mask_head.refine_c3.conv2."),
    ("mask_refine.conv1_1div4.", "mask_head.refine_c2.conv1."),
    ("mask_refine.conv2_1div4.", "mask_head.refine_c2.conv2."),
)
_NAMES = {"uniphd": _UNIPHD_NAMES}
# The published decoder holds the heads a second time under its own name.
_DOUBLED_PREFIX = "transformer.decoder."
_DOUBLED_HEADS = ("class_embed.", "bbox_embed.", "pose_embed.")
# Kept by older versions of `transformers`, derived from nothing but the sequence length.
_OBSOLETE = ("text_encoder.text_backbone.embeddings.position_ids",)


def from_reference(
    state_dict: Mapping[str, Tensor], model: Literal["uniphd"] = "uniphd"
) -> dict[str, Tensor]:
    """Published parameter names → ours.

    Raises:
        UserError: a name that the published model does not have, or doubled heads that differ.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        if name in _OBSOLETE:
            continue
        single = _fold(name)
        own = _rename(single, _rules(model))
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
    state_dict: Mapping[str, Tensor], model: Literal["uniphd"] = "uniphd"
) -> dict[str, Tensor]:
    """Our parameter names → the published ones, the doubled heads included.

    Raises:
        UserError: a name that our model does not have.
    """
    rules = tuple((own, published) for published, own in _rules(model))
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
        raise UserError(_listing("names that our model does not have", unknown))
    return converted


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint: ours, the published one, or either saved under `module.` prefixes.

    Returns:
        A dict whose `model` entry has our names; our own files add everything that a resumed run
        needs (`optimizer`, `epoch`, `config`, ...).

    Raises:
        MissingFileError: no such file.
        UserError: not a checkpoint, truncated, or of another model.
    """
    payload = read_file(path)
    state = payload.get("model", payload)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{path}: not a checkpoint of this project. Expected a 'model' entry with named "
            f"tensors; found {sorted(map(str, payload))[:8]}."
        )
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if not state:
        raise UserError(f"{path}: the checkpoint has no parameters.")
    if any(name.startswith(("transformer.", "backbone.0.")) for name in state):
        try:
            return {"model": from_reference(state)}
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    extras = {key: value for key, value in payload.items() if key != "model"}
    return {**(extras if "model" in payload else {}), "model": state}


def read_file(path: str | os.PathLike) -> dict[str, Any]:
    """Content of a `.pth` or `.safetensors` file on the CPU, without unpickling objects.

    Raises:
        MissingFileError: no such file.
        UserError: truncated, or not a dictionary of tensors and plain values.
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
            raise UserError(f"{path}: truncated or not a safetensors file ({error}).") from error
        return {"model": state, **{key: json.loads(text) for key, text in metadata.items()}}
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
        raise UserError(
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
    """
    _check_plain(payload, where="checkpoint")
    with written_whole(path) as temporary:
        if temporary.suffix == ".safetensors":
            metadata = {key: json.dumps(value) for key, value in payload.items() if key != "model"}
            state = {name: value.contiguous() for name, value in payload["model"].items()}
            safetensors.torch.save_file(state, temporary, metadata=metadata)
            temporary.chmod(0o644)  # safetensors makes it private
        else:
            torch.save(payload, temporary)


def load_weights(
    model: nn.Module, state_dict: Mapping[str, Tensor], ignore: Iterable[str] = ()
) -> None:
    """Fill a model, refusing anything that does not fit.

    Args:
        state_dict: our names; floating-point entries are converted to the model's dtype.
        ignore: parts of names; entries whose name contains one of them are left as they are.

    Raises:
        UserError: lists missing, unexpected and wrongly shaped entries.
    """
    ignore = tuple(ignore)

    def counts(name: str) -> bool:
        return not any(part in name for part in ignore)

    own = {name: value for name, value in model.state_dict().items() if counts(name)}
    given = {name: value for name, value in state_dict.items() if counts(name)}
    problems = [f"missing: {name}" for name in own if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in own]
    problems += [
        f"{name}: shape {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    if problems:
        raise UserError(
            _listing("entries that do not fit the model", problems)
            + "\nUse the configuration that the checkpoint was made with, or name parts of these "
            "entries in --finetune_ignore to leave them at their initial values."
        )
    model.load_state_dict(given, strict=False)


def _rules(model: str) -> tuple[tuple[str, str], ...]:
    if model not in _NAMES:
        raise ValueError(f"Unknown model {model!r}; expected one of {', '.join(_NAMES)}.")
    return _NAMES[model]


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
