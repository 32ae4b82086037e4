"""A table as bars: published figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from tables.comparison import QUOTED, label
from util.files import written_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_HEIGHT = 0.38  # of a bar, in rows
_COLORS = {"published": "0.55", "quoted": "0.8", "ours": "C0"}


def draw(record: Mapping[str, Any], output: Path) -> None:
    """Draw what `comparison.compare` returned into a PNG file: a panel for every column."""
    panels = record["columns"]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    height = 1.1 + 0.42 * len(record["rows"])
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns, height * rows + 0.8), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, column in zip(axes.flat, panels, strict=False):
        _draw_column(axis, record, column)
    title = f"Table {record['table']}: {record['title']}"
    if record["smoke"]:
        title += "\nSMOKE RUN: ours means nothing and must not be compared"
    figure.suptitle(title, color="C3" if record["smoke"] else "black")
    names = ("published", "quoted", "ours")
    handles = [plt.Rectangle((0, 0), 1, 1, color=_COLORS[name]) for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    with written_whole(output) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _draw_column(axis: Axes, record: Mapping[str, Any], column: Mapping[str, Any]) -> None:
    """One column: for every row that has it a bar of the published figure, below it one of ours."""
    rows = [row for row in record["rows"] if row["cells"][column["name"]]["published"] is not None]
    for place, row in enumerate(rows):
        cell = row["cells"][column["name"]]
        quoted = row["status"] == QUOTED
        bars = [("published", "quoted" if quoted else "published", place - _HEIGHT / 2)]
        bars += [] if quoted else [("ours", "ours", place + _HEIGHT / 2)]
        for kind, color, height in bars:
            value = cell[kind]
            if value is None:
                continue
            axis.barh(height, value, _HEIGHT, color=_COLORS[color])
            text = f"{value:,.{column['decimals']}f}"
            axis.annotate(text, (value, height), (2, 0), textcoords="offset points", va="center",
                          fontsize=7)  # fmt: skip
    axis.set_yticks(range(len(rows)), map(label, rows), fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.margins(x=0.15)
    axis.set_title(column["name"])
    axis.grid(axis="x", alpha=0.3)
