"""A table of metrics for people to read."""

from __future__ import annotations

from collections.abc import Mapping

from datasets.evaluation.referring import FOUND_THRESHOLD, PCKH_THRESHOLD, PRECISION_THRESHOLDS

# Names of known metrics, in the order of the table; others follow under their own names.
_NAMES = {
    **{
        f"{kind}_{key}": f"{kind} {name}"
        for kind in ("keypoint", "box", "mask")
        for key, name in (
            ("ap", "AP"),
            ("ap50", "AP50"),
            ("ap75", "AP75"),
            ("apm", "AP medium"),
            ("apl", "AP large"),
            ("ar", "AR"),
            ("ap_easy", "AP easy images"),
            ("ap_medium", "AP medium images"),
            ("ap_hard", "AP hard images"),
        )
    },
    "pckh": f"PCKh@{PCKH_THRESHOLD}",
    "oiou": "overall IoU",
    "miou": "mean IoU",
    **{f"precision@{t}": f"precision@{t}" for t in PRECISION_THRESHOLDS},
    "found": f"best pose OKS >= {FOUND_THRESHOLD}",
    "identity_accuracy": "right person",
    "identity_chance": "right person by chance",
}
_COUNT_NAMES = {"num_samples": "samples", "identity_count": "... with several people"}


def format_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """One table for several variants, e.g. kinds of prompt.

    Args:
        metrics: variant -> summary of `Evaluator.summarize`.

    Returns:
        Lines without a trailing newline: a row per metric that any summary has, fractions in
        percent ("-" where there is no value), then the counts (integers); a column per variant.
    """
    present = {name: value for summary in metrics.values() for name, value in summary.items()}
    is_count = {name: isinstance(value, int) for name, value in present.items()}
    names = _NAMES | {name: name for name in present if name not in _NAMES | _COUNT_NAMES}
    rows = [["metric, %", *metrics]]
    for key, name in names.items():
        if key in present and not is_count[key]:
            values = [summary.get(key, -1.0) for summary in metrics.values()]
            rows.append([name, *(f"{100 * v:.2f}" if v >= 0 else "-" for v in values)])
    for key, name in (names | _COUNT_NAMES).items():
        if key in present and is_count[key]:
            rows.append([name, *(str(summary.get(key, "-")) for summary in metrics.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
