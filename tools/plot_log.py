"""Draw the learning curves of a training: losses, learning rates and metrics per prompt.

    python tools/plot_log.py outputs/quickstart

reads `log.txt` (one JSON line per epoch) and writes `curves.png` beside it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from util.command_line import output_file, run_program
from util.errors import MissingFileError, UserError, shown
from util.logging import read_json_lines

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


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a `log.txt`, or of the one in a folder.

    Raises:
        MissingFileError: there is none.
        UserError: it holds no finished epoch.
    """
    file = path / "log.txt" if path.is_dir() else path
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; give the output folder of a training.")
    try:
        records = read_json_lines(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not the log.txt of a training: it is no text.") from error
    if not records:
        raise UserError(f"{file} holds no finished epoch yet.")
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
    panels = 2 + len(shown)
    columns = min(4, panels)
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), layout="constrained", squeeze=False
    )
    flat = list(axes.flat)
    plot_losses(flat[0], records)
    plot_rates(flat[1], records)
    for axis, key in zip(flat[2:], shown, strict=False):
        plot_metric(axis, evaluated, key)
    for axis in flat[panels:]:
        axis.set_visible(False)
    for axis in flat[:panels]:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=110)
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
        points = [(r["step"], r["eval"][kind][key]) for r in records if key in r["eval"][kind]]
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, ".-", label=kind)
    if key == "identity_accuracy":
        chance = next(iter(records[-1]["eval"].values()))["identity_chance"]
        axis.axhline(chance, color="grey", linestyle="--", label="chance")
    axis.set_ylim(0, 1)
    axis.set_title(METRICS[key])
    axis.legend(fontsize=7)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", type=Path, help="output folder of a training, or its log.txt")
    parser.add_argument("--output", type=Path, help="PNG file; default: curves.png beside the log")
    arguments = parser.parse_args()
    folder = arguments.log if arguments.log.is_dir() else arguments.log.parent
    output = arguments.output or folder / "curves.png"

    def run() -> None:
        output_file(output, "--output", (".png",), inputs=[arguments.log])
        plot(read_log(arguments.log), output)
        print(output)

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
