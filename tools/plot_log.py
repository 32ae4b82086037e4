"""Draw the learning curves of one training, or of several to compare them.

    python tools/plot_log.py outputs/quickstart
    python tools/plot_log.py outputs/first outputs/second --output comparison.png

reads `log.txt` (one JSON line per epoch, also of a training that still runs).  Of one training,
`curves.png` beside it shows losses, learning rates and metrics per prompt.  Of several,
`comparison.png` in the folder above the first has a curve for each training in every panel, and the
JSON file of the same name their last figures.  Metrics of averaged weights are dotted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from util.command_line import output_file, run_program
from util.errors import MissingFileError, UserError, shown
from util.files import written_whole
from util.logging import read_json_lines, write_json

LOSSES = (
    "loss_ce",
    "loss_bbox",
    "loss_giou",
    "loss_keypoints",
    "loss_oks",
    "loss_keypoints_visi",
    "loss_mask",
    "loss_dice",
)
METRICS = {
    "keypoint_ap": "keypoint AP",
    "mask_ap": "mask AP",
    "pckh": "PCKh@0.5",
    "oiou": "overall IoU",
    "identity_accuracy": "right person (images with several)",
}


class NoEpochError(UserError):
    """A training without a finished epoch."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a `log.txt`, or of the one in a folder.

    Raises:
        MissingFileError: there is none.
        NoEpochError: it holds no finished epoch.
        UserError: it is something else.
    """
    file = path / "log.txt" if path.is_dir() else path
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; give the output folder of a training.")
    try:
        records = read_json_lines(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not the log.txt of a training: it is no text.") from error
    if not records:
        raise NoEpochError(f"{file} holds no finished epoch yet.")
    for record in records:
        if not isinstance(record, dict) or not {"step", "lr", "train"} <= record.keys():
            raise UserError(
                f"{file} is not the log.txt of a training: expected 'step', 'lr' and 'train' in "
                f"every line; got {shown(record)}."
            )
    return records


def plot(records: list[dict[str, Any]], output: Path) -> None:
    """Draw the curves of the records into a PNG file."""
    evaluated = [record for record in records if record.get("eval")]
    shown = [key for key in METRICS if any(key in m for r in evaluated for m in r["eval"].values())]
    panels = [partial(plot_losses, records=records), partial(plot_rates, records=records)]
    panels += [partial(plot_metric, records=evaluated, key=key) for key in shown]
    draw(panels, output)


def plot_several(runs: dict[str, list[dict[str, Any]]], output: Path) -> None:
    """Draw the curves of several trainings, records by name, into a PNG file.

    A panel for the learning rate, for every loss, and for every metric of every kind of prompt.
    """
    every = [record for records in runs.values() for record in records]
    panels = [partial(compare, runs=runs, key=("lr",), title="largest learning rate")]
    for name in ("loss", *LOSSES):
        if any(name in record["train"] for record in every):
            panels.append(partial(compare, runs=runs, key=("train", name), title=name))
    results = [record["eval"] for record in every if record.get("eval")]
    for metric, title in METRICS.items():
        for kind in dict.fromkeys(kind for result in results for kind in result):
            if any(metric in result.get(kind, {}) for result in results):
                key = ("eval", kind, metric)
                panels.append(partial(compare, runs=runs, key=key, title=f"{title}, {kind}"))
    draw(panels, output)


def draw(panels: list[Callable[[Axes], None]], output: Path) -> None:
    """Let each panel draw on axes of its own; write the PNG file."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    # An image that is being looked at is whole.
    with written_whole(output) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def plot_losses(axis: Axes, records: list[dict[str, Any]]) -> None:
    """Unweighted losses of the last decoder layer, on a logarithmic scale."""
    steps = [record["step"] for record in records]
    for name in LOSSES:
        if name in records[0]["train"]:
            values = [record["train"].get(name) for record in records]
            axis.plot(steps, values, ".-", label=name.removeprefix("loss_"))
    axis.set_yscale("log")
    axis.set_title("training losses")
    axis.legend(fontsize=7)


def plot_rates(axis: Axes, records: list[dict[str, Any]]) -> None:
    """Learning rate of every parameter group."""
    steps = [record["step"] for record in records]
    for group in records[0]["lr"]:
        axis.plot(steps, [record["lr"].get(group) for record in records], ".-", label=group)
    axis.set_yscale("log")
    axis.set_title("learning rates")
    axis.legend(fontsize=7)


def plot_metric(axis: Axes, records: list[dict[str, Any]], key: str) -> None:
    """One metric for every prompt kind; where chance is known it is dashed."""
    for kind in records[-1]["eval"]:
        steps, values = points(records, ("eval", kind, key))
        line = axis.plot(steps, values, ".-", label=kind)[0]
        steps, values = points(records, ("eval_average", kind, key))
        if steps:
            label = f"{kind}, averaged weights"
            axis.plot(steps, values, ".:", color=line.get_color(), label=label)
    if key == "identity_accuracy":
        chance = next(iter(records[-1]["eval"].values()))["identity_chance"]
        axis.axhline(chance, color="grey", linestyle="--", label="chance")
    axis.set_ylim(0, 1)
    axis.set_title(METRICS[key])
    axis.legend(fontsize=7)


def compare(
    axis: Axes, runs: dict[str, list[dict[str, Any]]], key: tuple[str, ...], title: str
) -> None:
    """One number of every training, each in a colour of its own; see `points` for `key`."""
    for number, (name, records) in enumerate(runs.items()):
        color = f"C{number % 10}"
        # The same colour means the same training in all panels, also where it has no points.
        axis.plot(*points(records, key), ".-", color=color, label=name)
        steps, values = (
            points(records, ("eval_average", *key[1:])) if key[0] == "eval" else ([], [])
        )
        if steps:
            axis.plot(steps, values, ".:", color=color, label=f"{name}, averaged weights")
    if key[0] == "eval":
        axis.set_ylim(0, 1)
    else:
        axis.set_yscale("log")
    axis.set_title(title)
    axis.legend(fontsize=7)


def points(records: list[dict[str, Any]], key: tuple[str, ...]) -> tuple[list[int], list[float]]:
    """Steps, and values of what `key` leads to in the records that have it.

    Of learning rates, ("lr",), it is the largest.
    """
    found = []
    for record in records:
        value: Any = record
        for name in key:
            value = (value or {}).get(name)
        if isinstance(value, dict):
            value = max(value.values(), default=None)
        if value is not None:
            found.append((record["step"], value))
    return [step for step, _ in found], [value for _, value in found]


def last_figures(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a training: how far it is, its last losses, and its last metrics with their epoch."""
    last = records[-1]
    evaluated = next((record for record in reversed(records) if record.get("eval")), {})
    return {
        "epoch": last["epoch"],
        "step": last["step"],
        "seconds": round(sum(record.get("seconds", 0.0) for record in records), 3),
        "train": last["train"],
        "evaluated": {key: evaluated[key] for key in ("epoch", "step") if key in evaluated},
        "eval": evaluated.get("eval", {}),
        "eval_average": evaluated.get("eval_average", {}),
    }


def read_several(logs: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Records by the folders' names, or by the paths where names are the same.

    Trainings without a finished epoch are left out, with a message.

    Raises:
        MissingFileError: there is no log in one of them.
        NoEpochError: none has a finished epoch.
        UserError: one is something else.
    """
    folders = [(log if log.is_dir() else log.parent).resolve() for log in logs]
    names = [folder.name for folder in folders]
    runs = {}
    for log, folder, name in zip(logs, folders, names, strict=True):
        try:
            records = read_log(log)
        except NoEpochError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        runs[name if names.count(name) == 1 else str(folder)] = records
    if not runs:
        raise NoEpochError("None of the trainings has a finished epoch yet.")
    return runs


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "log", type=Path, nargs="+", help="output folders of trainings, or their log.txt"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="PNG file; default: curves.png beside the log, or comparison.png above the first",
    )
    arguments = parser.parse_args()
    log = arguments.log[0]
    folder = log if log.is_dir() else log.parent
    if len(arguments.log) == 1:
        output = arguments.output or folder / "curves.png"
    else:
        output = arguments.output or folder.resolve().parent / "comparison.png"

    def run() -> None:
        output_file(output, "--output", (".png",), inputs=arguments.log)
        if len(arguments.log) == 1:
            plot(read_log(log), output)
        else:
            runs = read_several(arguments.log)
            plot_several(runs, output)
            figures = {name: last_figures(records) for name, records in runs.items()}
            write_json(output.with_suffix(".json"), figures)
        print(output)

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
