"""What the folder of a run says about it: its figures, or why there are none yet.

A training counts when the log's last record is of its last epoch and holds an evaluation: other
files, such as eval.json, may be of another epoch, or of a later evaluation of something else.  An
evaluation counts when its last start ended in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tables.published import Run
from util.config import DECLARATIONS, Config
from util.errors import UserError
from util.logging import read_json_lines

ROOT = DECLARATIONS.parents[1]

# The remark (`--note`) of every smoke run; such a run never gets into another table.
SMOKE_NOTE = "smoke run"

# Samples of a step in the paper.
SAMPLES_PER_STEP = 16

# Settings that may differ from the table's: where things are, how they are computed, what is kept.
_FREE = (
    *("coco_path", "num_workers", "batch_size", "accumulation_steps", "eval_batch_size", "compile"),
    *("backbone_pretrained", "text_encoder", "seed", "log_every"),
    *("backbone_checkpointing", "text_encoder_checkpointing", "encoder_checkpointing"),
    *("decoder_checkpointing", "mask_head_checkpointing", "gradient_bucket_mb"),
    *("checkpoint_every", "checkpoint_steps", "checkpoint_minutes", "keep_checkpoints"),
    *("eval_every", "eval_prompts"),
)
_FREE_FOR_EVALUATION = (
    *("epochs", "lr", "lr_backbone", "lr_text_encoder", "lr_adjacency", "lr_drop_epochs"),
    *("lr_warmup_steps", "prompt_probabilities", "text_encoder_pretrained"),
)


@dataclass(frozen=True)
class Outcome:
    """A run as a table sees it.

    Attributes:
        metrics: by kind of prompt, as in eval.json; empty where there are none that count.
        lack: why there are none; empty where there are.
        parameters: of the model; None where the run does not tell.
        remarks: what has to stand beside its figures.
        source: where the figures come from, plain values.
    """

    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    lack: str = ""
    parameters: int | None = None
    remarks: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)


def read_outcome(folder: Path, run: Run, *, smoke: bool) -> Outcome:
    """What a run's folder gives a table.

    Args:
        folder: of a training, or of an evaluation; need not exist.
        run: what it has to be of.
        smoke: the table is of smoke runs, whose settings are not looked at; another one refuses
            them.
    """
    if not folder.is_dir():
        return Outcome(lack="not run")
    try:
        if (folder / "log.txt").is_file() and run.evaluates is None:
            return _read_training(folder, run, smoke=smoke)
        return _read_evaluation(folder, run, smoke=smoke)
    except UserError as error:
        return Outcome(lack=str(error))


def read_statistics(folder: Path) -> Outcome:
    """What tools/dataset_stats.py counted in both files of a data set, together (Table 1).

    Args:
        folder: with statistics.json in train/ and in val/; need not exist.
    """
    totals: dict[str, float] = {}
    files = []
    for split in ("train", "val"):
        path = folder / split / "statistics.json"
        try:
            content = _read_json(path)
        except UserError as error:
            return Outcome(lack=str(error))
        counts = content.get("table_1") if isinstance(content, dict) else None
        if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
            return Outcome(lack=f"{path} is not of tools/dataset_stats.py")
        for name, number in counts.items():
            totals[name] = totals.get(name, 0) + number
        files.append(str(content.get("file")))
    # Images of the two splits are different ones: COCO's train2017 and val2017.
    return Outcome({"": totals}, source={"kind": "statistics", "files": files})


def is_finished(folder: Path, checkpoint: Path | None = None) -> bool:
    """Whether nothing is left to do in a run's folder.

    Args:
        folder: of the run; need not exist.
        checkpoint: the run is an evaluation of this file; None: it is a training.
    """
    try:
        if checkpoint is None:
            return not _lack_of_training(*_training_of(folder))
        entry = _finished_evaluation(folder)
        result = folder / "eval.json"
        weights = entry.get("weights") or {}
        is_same = weights.get("file") == str(checkpoint.resolve())
        return is_same and result.stat().st_mtime >= checkpoint.stat().st_mtime
    except (UserError, FileNotFoundError):
        return False


def finished_training(folder: Path) -> tuple[Config, Mapping[str, Mapping[str, float]]]:
    """Settings of a training, and the figures after its last epoch by kind of prompt.

    Raises:
        UserError: it is not finished, or not a training's folder.
    """
    config, records = _training_of(folder)
    if lack := _lack_of_training(config, records):
        raise UserError(f"{folder}: {lack}")
    return config, records[-1]["eval"]


# --- trainings -----------------------------------------------------------------------------------


def _read_training(folder: Path, run: Run, *, smoke: bool) -> Outcome:
    config, records = _training_of(folder)
    if lack := _lack_of_training(config, records):
        return Outcome(lack=lack)
    last = records[-1]
    entry = _last_entry(folder / "run.json")
    _refuse_smoke(last.get("note"), smoke)
    remarks = [] if smoke else _differences(config, run, _FREE)
    samples = (entry.get("batch") or {}).get("samples_per_step", SAMPLES_PER_STEP)
    if not smoke and samples != SAMPLES_PER_STEP:
        remarks.append(f"{samples} samples a step instead of {SAMPLES_PER_STEP}")
    if not smoke and config.backbone_pretrained is None:
        remarks.append("trained without ImageNet weights")
    source = {
        "kind": "training",
        "epochs": config.epochs,
        "steps": last.get("step", 0),
        "samples_per_step": samples,
        "training_seconds": round(sum(record.get("seconds", 0.0) for record in records), 1),
        "speed": last.get("speed"),
        "seed": config.seed,
        **_origin(folder, entry),
    }
    return Outcome(last["eval"], "", entry.get("parameters"), tuple(remarks), source)


def _training_of(folder: Path) -> tuple[Config, list[dict[str, Any]]]:
    """Settings and the log's records of a training.

    Raises:
        UserError: they are not there, or are something else.
    """
    try:
        config = Config.fromfile(folder / "config.py", base=DECLARATIONS)
        records = read_json_lines(folder / "log.txt")
    except UnicodeDecodeError as error:
        raise UserError(f"{folder / 'log.txt'} is no text") from error
    if not all(isinstance(r, dict) and isinstance(r.get("epoch"), int) for r in records):
        raise UserError(f"{folder / 'log.txt'} is not the log of a training")
    return config, records


def _lack_of_training(config: Config, records: Sequence[Mapping[str, Any]]) -> str:
    """Why a training gives no figures yet; empty: it does."""
    done = records[-1]["epoch"] + 1 if records else 0
    if done < config.epochs:
        return f"{done} of {config.epochs} epochs done"
    if not isinstance(records[-1].get("eval"), dict):
        return "the evaluation after its last epoch is missing"
    return ""


# --- evaluations ---------------------------------------------------------------------------------


def _read_evaluation(folder: Path, run: Run, *, smoke: bool) -> Outcome:
    entry = _finished_evaluation(folder)
    _refuse_smoke(entry.get("note"), smoke)
    metrics = _read_json(folder / "eval.json")
    if not isinstance(metrics, dict) or not all(isinstance(m, dict) for m in metrics.values()):
        raise UserError(f"{folder / 'eval.json'} holds no evaluation")
    remarks = []
    if not smoke:
        config = Config.fromfile(folder / "config_eval.py", base=DECLARATIONS)
        free = (*_FREE, *_FREE_FOR_EVALUATION)
        remarks = _differences(config, run, free)
    weights = entry.get("weights")
    if not weights:
        raise UserError("the evaluation was of an untrained model")
    done, epochs = weights.get("epochs_done"), weights.get("epochs")
    if done is not None and epochs is not None and done < epochs:
        remarks.append(f"the checkpoint is of an unfinished training: {done} of {epochs} epochs")
    source = {"kind": "evaluation", "weights": weights, **_origin(folder, entry)}
    return Outcome(metrics, "", entry.get("parameters"), tuple(remarks), source)


def _finished_evaluation(folder: Path) -> dict[str, Any]:
    """The record of the evaluation that wrote eval.json.

    Raises:
        UserError: there is none, or it did not end in order.
    """
    entry = _last_entry(folder / "run_eval.json")
    if not entry:
        raise UserError("not run")
    if entry.get("exit") != "finished":
        reason = entry.get("exit") or "it goes on, or was killed"
        raise UserError(f"the evaluation has not finished ({reason})")
    return entry


# --- both ----------------------------------------------------------------------------------------


def _refuse_smoke(note: Any, smoke: bool) -> None:
    if not smoke and note == SMOKE_NOTE:
        raise UserError("only a smoke run is there, which must not be compared")


def _differences(config: Config, run: Run, free: Sequence[str]) -> list[str]:
    """How a run's settings differ from those of its table.

    Raises:
        UserError: the data set is another one: such a figure has no place in the table.
    """
    wanted = Config.fromfile(ROOT / run.config)
    wanted.merge_from_dict(run.changes)
    if config.dataset != wanted.dataset:
        raise UserError(f"its data set is {config.dataset} instead of {wanted.dataset}")
    found = []
    for name, value in wanted.to_dict().items():
        actual = config.to_dict()[name]
        # What only synthetic images obey counts there alone.
        if name not in free and actual != value and name != "synthetic":
            found.append(f"{name} = {actual} instead of {value}")
    return found


def _origin(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    versions = entry.get("versions") or {}
    return {
        "folder": str(folder),
        **{name: entry.get(name) for name in ("command", "device", "processes", "start", "end")},
        **{name: versions.get(name) for name in ("commit", "changed", "torch")},
    }


def _last_entry(path: Path) -> dict[str, Any]:
    """Of a run.json; empty where there is none."""
    if not path.is_file():
        return {}
    entries = _read_json(path)
    last = entries[-1] if isinstance(entries, list) and entries else {}
    return last if isinstance(last, dict) else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
