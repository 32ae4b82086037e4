"""From seconds by round to figures and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.turns import Measurement


@dataclass(frozen=True)
class Ratio:
    """Time of a variant as a share of another one's.

    Attributes:
        median: over the rounds that both had.
        least, most: of these rounds.
        paired: False where they had no round together: the quotient of their medians.
    """

    median: float
    least: float
    most: float
    paired: bool


def ratio(measurement: Measurement, reference: Measurement) -> Ratio | None:
    """The ratio of two variants; None where one of them was not measured."""
    if not measurement.rounds or not reference.rounds:
        return None
    shared = measurement.rounds.keys() & reference.rounds.keys()
    if not shared:
        value = median(measurement) / median(reference)
        return Ratio(value, value, value, paired=False)
    values = [measurement.rounds[number] / reference.rounds[number] for number in shared]
    return Ratio(statistics.median(values), min(values), max(values), paired=True)


def median(measurement: Measurement) -> float:
    """Median seconds per unit."""
    return statistics.median(measurement.rounds.values())


def twin(measurement: Measurement, measurements: Sequence[Measurement]) -> Measurement | None:
    """The older commit's measurement of the same variant; None where there is none."""
    entry = measurement.entry
    for other in measurements:
        if other.entry.is_older and not entry.is_older and other.entry.variant == entry.variant:
            return other
    return None


def record(
    measurement: Measurement, measurements: Sequence[Measurement], floor_seconds: float | None
) -> dict[str, Any]:
    """All figures of a variant as plain values, for JSON; seconds are per unit."""
    values = list(measurement.rounds.values())
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    before = twin(measurement, measurements)
    return {
        "variant": measurement.entry.name,
        "options": dict(measurement.entry.options),
        "error": measurement.error,
        "rounds": values,
        "units_per_round": measurement.units,
        "seconds": {
            "median": median(measurement),
            "least": min(values),
            "most": max(values),
            "quartiles": [quartiles[0], quartiles[2]],
        }
        if values
        else None,
        "ratio": _plain(ratio(measurement, measurements[0])),
        "ratio_to_older": None if before is None else _plain(ratio(measurement, before)),
        "peak_bytes": measurement.peak_bytes,
        "floor_seconds": floor_seconds,
    }


def _plain(value: Ratio | None) -> dict[str, Any] | None:
    return None if value is None else dict(vars(value))


def table(records: Sequence[Mapping[str, Any]], unit: str) -> str:
    """A Markdown table of `record`s, ratios first."""
    with_older = any(record["ratio_to_older"] for record in records)
    head = ["variant", f"ratio to {records[0]['variant']}"]
    head += ["ratio to the older"] if with_older else []
    head += [f"time per {unit}", "quartiles", f"{unit}s/s", "peak MiB", "floor", "of the floor"]
    lines = [_row(head), _row(["---"] * len(head))]
    failed = []
    for item in records:
        if item["error"]:
            failed.append(f"`{item['variant']}` failed: {item['error']}")
        if not item["seconds"]:
            lines.append(_row([item["variant"], "failed"] + ["-"] * (len(head) - 2)))
            continue
        middle = item["seconds"]["median"]
        cells = [item["variant"], _shown_ratio(item["ratio"])]
        cells += [_shown_ratio(item["ratio_to_older"])] if with_older else []
        cells += [
            seconds(middle),
            " to ".join(seconds(value) for value in item["seconds"]["quartiles"]),
            f"{1 / middle:.3g}",
            f"{item['peak_bytes'] / 2**20:.0f}",
            "none" if item["floor_seconds"] is None else seconds(item["floor_seconds"]),
            "-" if not item["floor_seconds"] else f"{middle / item['floor_seconds']:.1f} x",
        ]
        lines.append(_row(cells))
    return "\n".join([*lines, *(f"\n{text}" for text in failed)])


def summary(what: str, records: Sequence[Mapping[str, Any]], unit: str, older: str) -> list[str]:
    """Rows of docs/performance.md: step, before, now, ratio, floor and distance from it."""
    before = {item["variant"]: item for item in records}
    rows = []
    for item in records:
        past = before.get(f"{older}: {item['variant']}")
        if past is None or not item["seconds"] or not past["seconds"]:
            continue
        middle, floor = item["seconds"]["median"], item["floor_seconds"]
        cells = [
            f"{what}, {item['variant']} (per {unit})",
            seconds(past["seconds"]["median"]),
            seconds(middle),
            _shown_ratio(item["ratio_to_older"]),
            "none" if floor is None else seconds(floor),
            "-" if not floor else f"{middle / floor:.1f} x",
        ]
        rows.append(_row(cells))
    return rows


def summary_head(older: str) -> list[str]:
    """Head of the rows of `summary`."""
    head = ["step", older, "now", "ratio", "floor", "of the floor"]
    return [_row(head), _row(["---"] * len(head))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown_ratio(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    if not value["paired"]:
        return f"{value['median']:.2f} (not in turns)"
    return f"{value['median']:.2f} ({value['least']:.2f} to {value['most']:.2f})"


def seconds(value: float) -> str:
    """A time with a unit that suits it."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
