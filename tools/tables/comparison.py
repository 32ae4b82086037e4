"""A published table with our figures beside it: as a record for JSON, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables.outcomes import Outcome
from tables.published import Column, PublishedTable, Row
from util.files import written_whole
from util.logging import write_json
from util.run_record import project_version

SMOKE_WARNING = (
    "SMOKE RUN: tiny models, a few steps on a few synthetic images. It shows that the path works; "
    "its figures mean nothing and must not be compared with anything."
)
# The status of a row.
QUOTED, DONE, MISSING = "quoted", "done", "missing"
_MARKS = "¹²³⁴⁵⁶⁷⁸⁹"


def compare(
    table: PublishedTable, outcomes: Mapping[str, Outcome], *, smoke: bool
) -> dict[str, Any]:
    """The table as plain values.

    Args:
        table: of the paper.
        outcomes: of all its runs, by name.
        smoke: they are smoke runs.

    Returns:
        `table`, `title`, `smoke`, `warning` (of a smoke table), `heads`, `columns` (name and
        decimals), `rows`, `missing` (run and reason), `notes`, `runs` (where each run's figures
        come from) and `made_with` (the project's commit). A row has `labels`, `run`, `status`
        ("quoted", "done", "missing"), `remark`, `lacking` (columns without a figure of ours) and
        `cells`: by column `published`, `ours` and `difference` (ours - published), in the published
        unit; None where there is none.
    """
    rows = [_row(table, row, outcomes) for row in table.rows]
    missing = [
        {"run": name, "reason": outcomes[name].lack} for name in table.runs() if outcomes[name].lack
    ]
    for row in rows:
        if row["lacking"] and not outcomes[row["run"]].lack:
            reason = f"{label(row)}: its evaluation has no {', '.join(row['lacking'])}"
            missing.append({"run": row["run"], "reason": reason})
    return {
        "table": table.number,
        "title": table.title,
        "smoke": smoke,
        "warning": SMOKE_WARNING if smoke else None,
        "heads": list(table.heads),
        "columns": [{"name": c.name, "decimals": c.decimals} for c in table.columns],
        "rows": rows,
        "missing": missing,
        "notes": list(table.notes),
        "runs": {
            name: {**outcomes[name].source, "remarks": list(outcomes[name].remarks)}
            for name in table.runs()
            if not outcomes[name].lack
        },
        "made_with": project_version(),
    }


def _row(table: PublishedTable, row: Row, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    outcome = Outcome() if row.run is None else outcomes[row.run]
    cells, lacking = {}, []
    for column, published in zip(table.columns, row.published, strict=True):
        ours = None
        if row.run is not None and published is not None:
            ours = _figure(column, row, outcome)
            if ours is None:
                lacking.append(column.name)
        difference = None if ours is None else round(ours - published, column.decimals)
        cells[column.name] = {"published": published, "ours": ours, "difference": difference}
    has_ours = any(cell["ours"] is not None for cell in cells.values())
    return {
        "labels": list(row.labels),
        "run": row.run,
        "status": QUOTED if row.run is None else DONE if has_ours else MISSING,
        "remark": row.remark,
        "lacking": lacking,
        "cells": cells,
    }


def _figure(column: Column, row: Row, outcome: Outcome) -> float | None:
    """Ours, in the published unit and as exact as that; None: there is none."""
    if outcome.lack:
        return None
    if column.metric == "parameters":
        value = outcome.parameters
    else:
        value = outcome.metrics.get(column.variant or row.variant or "", {}).get(column.metric)
    # -1: there was nothing to judge.
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        return None
    return round(value * column.factor, column.decimals)


# --- Markdown ------------------------------------------------------------------------------------


def markdown(record: Mapping[str, Any], level: int = 1) -> str:
    """What `compare` returned as Markdown, under a heading of this level.

    A row has a line for the published figures, one for ours and one for the difference; a quoted
    one has the first alone.
    """
    marks = _marks(record)
    heads = [*record["heads"], "", *(column["name"] for column in record["columns"])]
    lines = [
        _line(heads),
        "|" + "---|" * (len(record["heads"]) + 1) + "--:|" * len(record["columns"]),
    ]
    for row in record["rows"]:
        lines += _lines(record, row, marks.get(row["run"], ""))
    return "\n".join([*_head(record, level), *lines, "", *_foot(record, marks)]).rstrip() + "\n"


def _lines(record: Mapping[str, Any], row: Mapping[str, Any], mark: str) -> list[str]:
    """A row's lines; `mark` points at a remark on our figures."""
    smoke = " (smoke)" if record["smoke"] else ""
    labels = [row["labels"][0] + (f" ({row['remark']})" if row["remark"] else "")]
    labels += row["labels"][1:]
    if row["status"] == QUOTED:
        return [_line([*labels, "quoted", *_figures(record, row, "published")])]
    lines = [_line([*labels, "published", *_figures(record, row, "published")])]
    blank = [""] * len(labels)
    ours = [f"ours{smoke}{mark}", *_figures(record, row, "ours")]
    lines.append(_line([*blank, *ours]))
    if row["status"] == DONE:
        differences = _figures(record, row, "difference", sign="+")
        lines.append(_line([*blank, f"difference{smoke}", *differences]))
    return lines


def _figures(
    record: Mapping[str, Any], row: Mapping[str, Any], kind: str, sign: str = ""
) -> list[str]:
    """A row's published figures, ours or the differences, as text."""
    found = []
    for column in record["columns"]:
        value = row["cells"][column["name"]][kind]
        if value is not None:
            found.append(f"{value:{sign},.{column['decimals']}f}".replace("-", "−"))
        else:
            found.append("missing" if kind == "ours" and column["name"] in row["lacking"] else "–")
    return found


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(record: Mapping[str, Any], level: int) -> list[str]:
    smoke = " – SMOKE RUN" if record["smoke"] else ""
    head = [f"{'#' * level} Table {record['table']}: {record['title']}{smoke}", ""]
    return [*head, f"**{record['warning']}**", ""] if record["warning"] else head


def _foot(record: Mapping[str, Any], marks: Mapping[str, str]) -> list[str]:
    """Remarks on our figures, what is missing, notes, and where ours come from."""
    foot = [
        f"{marks[name]} {name}: {'; '.join(source['remarks'])}.\n"
        for name, source in record["runs"].items()
        if name in marks
    ]
    if record["missing"]:
        foot.append("Missing:\n")
        foot += [f"- `{lack['run']}`: {lack['reason']}" for lack in record["missing"]]
        foot.append("")
    if any(row["status"] == QUOTED for row in record["rows"]):
        foot.append("Quoted: published by others or by the paper, nothing was trained for it.\n")
    foot += [f"{note}\n" for note in record["notes"]]
    if record["runs"]:
        foot.append("Where ours come from:\n")
        foot += [f"- `{name}`: {origin(source)}" for name, source in record["runs"].items()]
    return foot


def origin(source: Mapping[str, Any]) -> str:
    """Where a run's figures come from, on one line."""
    if source["kind"] == "statistics":
        return ", ".join(Path(file).name for file in source["files"])
    if source["kind"] == "training":
        facts = [f"{source['epochs']} epochs, {source['steps']:,} steps"]
    else:
        weights = source["weights"]
        file = Path(weights["file"])
        facts = [f"evaluation of {file.parent.name}/{file.name}"]
        if weights["epochs"] is not None:
            facts.append(f"{weights['epochs_done']} of {weights['epochs']} epochs")
    if source["device"]:
        facts.append(f"{source['processes']} × {source['device']}")
    if source["commit"]:
        changed = " with changes" if source["changed"] is True else ""
        facts.append(f"commit {source['commit'][:10]}{changed}")
    return ", ".join(facts)


def _marks(record: Mapping[str, Any]) -> dict[str, str]:
    """A mark for every run with a remark, by its name."""
    remarked = [name for name, source in record["runs"].items() if source["remarks"]]
    return {
        name: "".join(_MARKS[int(digit) - 1] if digit != "0" else "⁰" for digit in str(number))
        for number, name in enumerate(remarked, start=1)
    }


def label(row: Mapping[str, Any]) -> str:
    """A row's name on one line."""
    return ", ".join(row["labels"])


def write(record: Mapping[str, Any], text: str, folder: Path) -> None:
    """Write table.md beside table.json; both are whole or as they were."""
    with written_whole(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(folder / "table.json", record)
