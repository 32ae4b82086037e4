"""Plots of the GPU report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen needed
from matplotlib import pyplot as plt

from util.files import written_whole


def bars(path: Path, records: Sequence[Mapping[str, Any]], title: str) -> None:
    """Units a second of every variant that was measured, with the spread of the rounds.

    Args:
        path: of the image.
        records: of `benchmarks.figures.record`.
        title: above it.
    """
    measured = [record for record in records if record["seconds"]]
    speeds = [1 / record["seconds"]["median"] for record in measured]
    below = [s - 1 / r["seconds"]["most"] for s, r in zip(speeds, measured, strict=True)]
    above = [1 / r["seconds"]["least"] - s for s, r in zip(speeds, measured, strict=True)]
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(measured) + 1.2))
    axes.barh([record["variant"] for record in measured], speeds, xerr=[below, above])
    axes.invert_yaxis()
    axes.set_title(title)
    _save(figure, path)


def curve(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Loss of every epoch, and keypoint AP where it was evaluated.

    Args:
        path: of the image.
        records: of a training's log.txt.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    left.plot([r["epoch"] + 1 for r in records], [r["train"]["loss"] for r in records], marker="o")
    left.set(title="training loss", xlabel="epoch")
    evaluated = [record for record in records if "eval" in record]
    for kind in evaluated[0]["eval"] if evaluated else ():
        values = [record["eval"][kind]["keypoint_ap"] for record in evaluated]
        right.plot([r["epoch"] + 1 for r in evaluated], values, marker="o", label=kind)
    if evaluated:
        right.legend()
    right.set(title="keypoint AP", xlabel="epoch")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=90)
    plt.close(figure)
