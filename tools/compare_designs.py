"""Does the method matter?  Designs of the decoder against each other, at equal budgets.

    python tools/compare_designs.py --output outputs/designs

trains every design (Tables 7, 8 and 10 of the paper) with every seed on the task of
config/designs.py, `--jobs` trainings at a time with one thread each, and writes designs.md,
designs.json and designs.png: every run, means, standard deviations, the difference from UniPHD's
own design, and how many seeds would tell the two apart.  Designs that share a seed see the same
images in the same order.  A finished training is not run again, an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import matplotlib
from tables.outcomes import finished_training, is_finished

from util.command_line import output_folder, require_range, run_program
from util.config import DECLARATIONS, Config, OptionsAction
from util.errors import UserError, shown
from util.files import written_whole
from util.logging import write_json

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]

BASE = "UniPHD"
# Settings of every design on top of those of the task.
DESIGNS: dict[str, dict[str, object]] = {
    BASE: {},
    "self-attention": {"within_type": "self"},
    "no global dependency": {"within_type": "none"},
    "no query initialisation": {"query_init": "learned"},
    "5 groups": {"num_groups": 5},
    "10 groups": {"num_groups": 10},
}
METRICS = {"keypoint_ap": "keypoint AP", "mask_ap": "mask AP", "identity_accuracy": "right person"}

# Normal quantiles: a two-sided test at 5 %, which finds the difference 4 times in 5.
_TEST_QUANTILES = 1.96 + 0.84


def folder_of(output: Path, design: str, seed: int) -> Path:
    """Where a design's training with a seed lies."""
    return output / "runs" / f"{design.replace(' ', '_')}_seed{seed}"


def settings_of(
    config: Path, options: Mapping[str, Any], design: str, seed: int, prompt: str
) -> Config:
    """The settings of a training.

    Args:
        config: file of the task.
        options: replace some of its settings.
        design: in `DESIGNS`.
        seed: of the training.
        prompt: that is to be evaluated.

    Raises:
        UserError: they cannot be.
    """
    cfg = Config.fromfile(config, base=DECLARATIONS)
    cfg.merge_from_dict({**options, **DESIGNS[design], "seed": seed})
    cfg.check()
    if prompt not in cfg.eval_prompts:
        raise UserError(
            f"--prompt {shown(prompt)}: the task evaluates {', '.join(cfg.eval_prompts)} "
            f"(eval_prompts)."
        )
    return cfg


def train_all(
    folders: Mapping[tuple[str, int], Path],
    settings: Mapping[tuple[str, int], Config],
    jobs: int,
) -> None:
    """Run the trainings that are not finished, some at a time.

    An interruption ends those that run in order; they go on with the same command.

    Args:
        folders: by design and seed.
        settings: likewise.
        jobs: trainings at a time.

    Raises:
        UserError: a training ended by itself; the others end in order first.
    """
    waiting = [key for key, folder in folders.items() if not is_finished(folder)]
    running: dict[tuple[str, int], subprocess.Popen] = {}
    done = len(folders) - len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key = waiting.pop(0)
                print(f"{key[0]}, seed {key[1]}: {folders[key]}", flush=True)
                running[key] = _start(folders[key], settings[key])
            time.sleep(0.5)
            for key in [key for key, process in running.items() if process.poll() is not None]:
                status = running.pop(key).returncode
                if status:
                    raise UserError(
                        f"The training of '{key[0]}' with seed {key[1]} ended with status "
                        f"{status}; see {folders[key]}/screen.txt. The same command goes on."
                    )
                done += 1
                print(f"{done} of {len(folders)} trainings are finished.", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(folder: Path, settings: Config) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings.py"
    settings.dump(file)
    command = [sys.executable, "main.py", "--device", "cpu", "-c", str(file)]
    with open(folder / "screen.txt", "ab") as screen:
        return subprocess.Popen(
            [*command, "--output_dir", str(folder), "--resume", "auto"],
            cwd=ROOT,
            stdout=screen,
            stderr=screen,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def read_runs(
    folders: Mapping[tuple[str, int], Path], prompt: str
) -> dict[str, dict[int, dict[str, float]]]:
    """Figures in percent by design, seed and metric, of the last epochs' evaluations.

    Raises:
        UserError: a training is not finished, or was not evaluated with this prompt, or its
            settings are those of another task than the first one's.
    """
    figures: dict[str, dict[int, dict[str, float]]] = {}
    task: dict[str, Any] | None = None
    for (design, seed), folder in folders.items():
        config, metrics = finished_training(folder)
        own = {"seed", *(key for changes in DESIGNS.values() for key in changes)}
        settings = {key: value for key, value in config.to_dict().items() if key not in own}
        if task is not None and settings != task:
            changed = [key for key in settings if settings[key] != task[key]]
            raise UserError(
                f"{folder} was trained with another {changed[0]} than the first design; remove it, "
                f"or give another --output."
            )
        task = settings
        if prompt not in metrics:
            raise UserError(f"{folder} was not evaluated with '{prompt}'; see eval_prompts.")
        chosen = {name: 100 * metrics[prompt][name] for name in METRICS}
        figures.setdefault(design, {})[seed] = chosen
    return figures


def summarize(figures: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Means, spreads and comparisons by design and metric.

    Returns:
        For every design and metric `runs` by seed, `mean`, `deviation` (of the runs, with n - 1;
        None of a single one), and for all but UniPHD's design `difference` of the means, its
        standard `error`, and `seeds_needed`: how many of each design would show a difference as
        large, at 5 % and in 4 of 5 cases (None: no spread to judge by, or no difference).
    """
    summary: dict[str, Any] = {}
    for design, runs in figures.items():
        summary[design] = {}
        for metric in METRICS:
            values = [run[metric] for run in runs.values()]
            entry = {
                "runs": {str(seed): run[metric] for seed, run in runs.items()},
                "mean": statistics.fmean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
            if design != BASE:
                entry |= _compare(entry, summary[BASE][metric])
            summary[design][metric] = entry
    return summary


def _compare(entry: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float | None]:
    difference = entry["mean"] - base["mean"]
    if entry["deviation"] is None or base["deviation"] is None:
        return {"difference": difference, "error": None, "seeds_needed": None}
    variance = entry["deviation"] ** 2 + base["deviation"] ** 2
    error = math.sqrt(variance / len(entry["runs"]))
    needed = None
    if difference and variance:
        needed = max(2, math.ceil(variance * (_TEST_QUANTILES / difference) ** 2))
    return {"difference": difference, "error": error, "seeds_needed": needed}


def markdown(summary: Mapping[str, Any], prompt: str) -> str:
    """The summary as a table."""
    lines = [
        f"Prompt: {prompt}. Mean ± standard deviation of the runs (every run), difference from "
        f"{BASE}'s design ± its standard error, and the seeds per design that would show a "
        f"difference as large (5 %, 4 times in 5).",
        "",
        f"| design | {' | '.join(f'{title} | difference | seeds' for title in METRICS.values())} |",
        f"|---|{'---|---|---|' * len(METRICS)}",
    ]
    for design, metrics in summary.items():
        cells = []
        for entry in metrics.values():
            runs = ", ".join(f"{value:.1f}" for value in entry["runs"].values())
            spread = "" if entry["deviation"] is None else f" ± {entry['deviation']:.1f}"
            cells.append(f"{entry['mean']:.1f}{spread} ({runs})")
            difference, error = entry.get("difference"), entry.get("error")
            cells.append("" if difference is None else f"{difference:+.1f}")
            cells[-1] += "" if error is None else f" ± {error:.1f}"
            needed = entry.get("seeds_needed")
            cells.append("" if needed is None else str(needed))
        lines.append(f"| {design} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(summary: Mapping[str, Any], prompt: str, file: Path) -> None:
    """Every run as a dot, every mean as a bar: a panel for each metric."""
    figure, axes = plt.subplots(
        1, len(METRICS), figsize=(4.4 * len(METRICS), 1 + 0.45 * len(summary)),
        sharey=True, layout="constrained",
    )  # fmt: skip
    names = list(summary)
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        for place, design in enumerate(names):
            entry = summary[design][metric]
            values = list(entry["runs"].values())
            axis.plot(values, [place] * len(values), "o", color="C0", alpha=0.6)
            axis.plot(2 * [entry["mean"]], [place - 0.3, place + 0.3], color="C3", linewidth=2)
        axis.axvline(summary[BASE][metric]["mean"], color="0.7", linewidth=1, zorder=0)
        axis.set_yticks(range(len(names)), names)
        axis.set_title(f"{title}, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.suptitle(f"Designs on crowds of synthetic people, {prompt}: runs and means")
    with written_whole(file) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/designs"), help="folder")
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "designs.py", help="task")
    parser.add_argument(
        "--options", nargs="+", action=OptionsAction, default={}, metavar="KEY=VALUE",
        help="change settings of the task",
    )  # fmt: skip
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompt", default="scribble", help="whose figures are compared")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    return parser


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()

    def run() -> None:
        require_range(1, 1000, jobs=arguments.jobs)
        if BASE not in arguments.designs:
            raise UserError(f"--designs: '{BASE}' has to be among them, the others' measure.")
        output = arguments.output.resolve()
        seeds = sorted(set(arguments.seeds))
        # Seed after seed: what is finished early is a whole comparison.
        folders = {
            (design, seed): folder_of(output, design, seed)
            for seed in seeds
            for design in DESIGNS
            if design in arguments.designs
        }
        settings = {
            key: settings_of(arguments.config, arguments.options, *key, arguments.prompt)
            for key in folders
        }
        output_folder(output, "--output")
        train_all(folders, settings, arguments.jobs)
        summary = summarize(read_runs(folders, arguments.prompt))
        text = markdown(summary, arguments.prompt)
        write_json(output / "designs.json", summary)
        with written_whole(output / "designs.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        plot(summary, arguments.prompt, output / "designs.png")
        print(text)
        print(output / "designs.png")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
