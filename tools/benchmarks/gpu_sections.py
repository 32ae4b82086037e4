"""The sections of `tools/gpu_report.py`, in the order in which they run."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import checkouts, figures, gpu_plots, plan
from benchmarks.turns import Entry, Measurement, Turns, available_bytes, worker
from models import REPOSITORY
from util.logging import read_json_lines

TRAINING_BATCH, EVALUATION_BATCH = 16, 24
SMALLER_BATCH = 4  # of the plain form where the usual one does not fit
LAST_LINES = 15


class SkippedError(Exception):
    """The section cannot run here; the message says why."""


@dataclass
class Context:
    """What sections know.

    Attributes:
        device: where to measure.
        is_smoke: whether everything is to be tiny.
        folder: of the report.
        until: `time.monotonic()` at which the report has to be done.
        rates: of `benchmarks.machine.measure`, once they are known.
        goals: lines of the table of goals.
    """

    device: str
    is_smoke: bool
    folder: Path
    until: float
    rates: dict[str, Any] | None = None
    goals: list[list[str]] = field(default_factory=list)

    def seconds_left(self) -> float:
        """Until the report has to be done."""
        return self.until - time.monotonic()

    @property
    def is_gpu(self) -> bool:
        """Whether a GPU is measured."""
        return self.device.startswith("cuda")


@dataclass
class Outcome:
    """What a section found: Markdown, plain values, and what went wrong."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A section: what to run, and how many seconds have to be left for it."""

    run: Callable[[Context], Outcome]
    least_seconds: float = 5.0


def head(context: Context) -> str:
    """Versions and hardware, as far as they are known before anything runs."""
    driver = "none"
    if shutil.which("nvidia-smi"):
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ]
        driver = subprocess.run(query, capture_output=True, text=True).stdout.strip() or "unknown"
    lines = {
        "commit": checkouts.describe(REPOSITORY),
        "device": context.device + (" (smoke: everything tiny)" if context.is_smoke else ""),
        "GPU, driver, memory": driver.replace("\n", "; "),
        "PyTorch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "Python": f"{platform.python_version()}, {platform.platform()}",
        "command": f"python tools/gpu_report.py {' '.join(sys.argv[1:])}".strip(),
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


# --- programs ------------------------------------------------------------------------------------


def run_command(
    context: Context, name: str, command: Sequence[str], most_seconds: float
) -> tuple[int | None, str]:
    """Run a program of the repository; what it prints goes to {name}.txt of the report.

    Returns:
        Its exit status, None if it took too long; and the last lines that it printed.
    """
    path = context.folder / f"{name}.txt"
    with path.open("w") as printed:
        try:
            status: int | None = subprocess.run(
                [sys.executable, *command],
                cwd=REPOSITORY,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=max(1.0, min(most_seconds, context.seconds_left())),
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
    lines = path.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return status, "```\n" + "\n".join(lines) + "\n```"


def build(context: Context) -> Outcome:
    """Compile the operator and check it; on a GPU compile the published design as well."""
    began = time.monotonic()
    status, last = run_command(context, "build", ["models/uniphd/ops/test.py"], 240)
    errors = [] if status == 0 else ["build"]
    text = f"Built (or found) and checked, status {status}:\n\n{last}"
    if context.is_gpu:
        code = "from models.uniphd.ops.comparison import load_plain; load_plain()"
        status, last = run_command(context, "build_published", ["-c", code], 120)
        errors += [] if status == 0 else ["build of the published design"]
        text += f"\n\nThe published design, status {status}:\n\n{last}"
    return Outcome(text, {"seconds": time.monotonic() - began}, errors)


def run_tests(context: Context) -> Outcome:
    """`pytest -m gpu`."""
    where = "tests/test_ops_cuda.py" if context.is_smoke else "tests"
    command = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", where]
    status, last = run_command(context, "tests", command, 120)
    said = "took too long" if status is None else f"exit status {status}"
    return Outcome(f"`pytest -m gpu`: {said}\n\n{last}", errors=[] if status == 0 else ["tests"])


def train_shortly(context: Context) -> Outcome:
    """The quickstart's training, and its curve."""
    folder = context.folder / "training"
    options = ["seed=0"]
    if context.is_smoke:
        options = ["epochs=2", "eval_every=1", "synthetic.train_length=16", "num_workers=0"]
        options += ["synthetic.val_length=4", "batch_size=8", "synthetic.image_size=[64,64]"]
    command = ["main.py", "-c", "config/uniphd_quickstart.py", "--output_dir", str(folder)]
    command += ["--device", context.device, "--overwrite", "--options", *options]
    shutil.rmtree(folder, ignore_errors=True)
    status, last = run_command(context, "training", command, 120)
    for path in folder.glob("*.pth"):
        path.unlink()  # too large for a report
    records = read_json_lines(folder / "log.txt")
    if status is None and records:
        said = f"Stopped when its time was up, after {len(records)} epochs."
    elif status == 0 and records:
        said = f"{len(records)} epochs."
    else:
        return Outcome(f"**Failed** (status {status}):\n\n{last}", errors=["training"])
    losses = [record["train"]["loss"] for record in records]
    gpu_plots.curve(context.folder / "training.png", records)
    seconds = sum(record["seconds"] for record in records)
    text = (
        f"{said} Quickstart configuration, {seconds:.0f} s in all; loss {losses[0]:.2f} at first, "
        f"{losses[-1]:.2f} in the end.\n\n![curve](training.png)\n\n{last}"
    )
    is_short = context.is_smoke or len(losses) < 3
    errors = [] if is_short or losses[-1] < losses[0] else ["the loss did not fall"]
    return Outcome(text, {"records": records}, errors)


# --- measurements --------------------------------------------------------------------------------


def rates(context: Context) -> Outcome:
    """What the machine can do."""
    options = {"device": context.device, "threads": 0}
    with worker(Entry("machine", "", "", options, REPOSITORY)) as process:
        context.rates = process.ask("rates", context.until, options=options)
    return Outcome(f"```json\n{json.dumps(context.rates, indent=2)}\n```", context.rates)


def measure(
    context: Context,
    what: str,
    variants: Sequence[str],
    most_seconds: float,
    **options: Any,
) -> list[Measurement]:
    """Measure variants of a step in turns; those that fail have an error."""
    common = {"device": context.device, "threads": 0, **options}
    if context.is_smoke and what != "operator":
        common |= {"config_file": "config/uniphd_tiny.py", "height": 64, "width": 64}
        common["batch_size"] = 2
    entries = plan.entries(what, common, REPOSITORY, variants)
    memory = 0.9 * (context.rates or {}).get("memory_bytes", available_bytes())
    return Turns(
        entries,
        rounds=1 if context.is_smoke else 7,
        warmup=0 if context.is_smoke else 2,
        seconds=most_seconds / 3,
        memory_bytes=memory,
        keeps_going=True,
        count=plan.counted(what, entries) if context.rates else (),
        rates=context.rates,
        until=min(context.until, time.monotonic() + most_seconds),
        start_seconds=most_seconds / 3,  # a compilation that never ends costs the others nothing
    ).measure()


def report(
    context: Context, what: str, measurements: Sequence[Measurement], title: str
) -> tuple[str, dict[str, Any], list[str]]:
    """Table and plot of measurements: Markdown, plain values, errors.

    What lacked memory or time is in the table, and no error.
    """
    records = [
        figures.record(measurement, measurements, floor)
        for measurement, floor in zip(measurements, plan.floors(what, measurements), strict=True)
    ]
    unit = plan.load(what).UNIT
    name = title.replace(" ", "_").replace(",", "")
    text = f"### {title}\n\n{figures.table(records, unit)}"
    if any(record["seconds"] for record in records):
        gpu_plots.bars(context.folder / f"{name}.png", records, f"{title}: {unit}s a second")
        text += f"\n\n![{title}]({name}.png)"
    errors = [
        f"{title}, {measurement.entry.name}"
        for measurement in measurements
        if measurement.reason == "error"
    ]
    return text, {title: records}, errors


def add_goal(
    context: Context,
    name: str,
    wanted: str,
    found: float | None,
    reached: Callable[[float], bool],
) -> None:
    """Add a line to the table of goals; `found` is None where nothing was measured."""
    if found is None:
        context.goals.append([name, wanted, "not measured", "-"])
        return
    context.goals.append([name, wanted, f"{found:.2f} x", "yes" if reached(found) else "no"])


def speedup(measurements: Sequence[Measurement], fast: str, slow: str) -> float | None:
    """How many times faster a variant is; None where one of the two was not measured."""
    by_name = {measurement.entry.variant: measurement for measurement in measurements}
    if fast not in by_name or slow not in by_name:
        return None
    found = figures.ratio(by_name[fast], by_name[slow])
    return None if found is None else 1 / found.median


def memory_share(measurements: Sequence[Measurement], small: str, large: str) -> float | None:
    """Peak memory of a variant as a share of another's; None where one was not measured."""
    peaks = {m.entry.variant: m.peak_bytes for m in measurements if m.rounds}
    if not peaks.get(small) or not peaks.get(large):
        return None
    return peaks[small] / peaks[large]


def measure_operator(context: Context) -> Outcome:
    """The operator against the published design and PyTorch's formula."""
    variants = ["formula", "published", "compiled"]
    variants += ["formula-bfloat16", "published-bfloat16", "compiled-bfloat16"]
    options: dict[str, Any] = {"batch_size": 4}
    if context.is_smoke:
        variants, options = ["formula", "compiled"], {"batch_size": 1, "shape": "decoder"}
    found = measure(context, "operator", variants, 90, **options)
    text, data, errors = report(context, "operator", found, "operator, forward and backward")
    for suffix, least in (("", 1.5), ("-bfloat16", 2.5)):
        name = f"operator{suffix.replace('-', ', ')} against the published design"
        value = speedup(found, f"compiled{suffix}", f"published{suffix}")
        add_goal(context, name, f">= {least} x", value, lambda x, least=least: x >= least)
    return Outcome(text, data, errors)


def measure_forward(context: Context) -> Outcome:
    """Latency of one image and throughput of a batch."""
    variants = ["compiled", "tf32", "compiled-bfloat16", "torch-compile-bfloat16"]
    if context.is_smoke:
        variants = ["compiled"]
    outcome = Outcome("")
    for batch, title in ((1, "latency"), (TRAINING_BATCH, "throughput")):
        if context.is_smoke and batch > 1:
            break
        found = measure(context, "forward", variants, 70, batch_size=batch)
        text, data, errors = report(context, "forward", found, f"{title} at batch {batch}")
        outcome.text += text + "\n\n"
        outcome.data |= data
        outcome.errors += errors
    return outcome


def measure_training(context: Context) -> Outcome:
    """A training step with and without each option, against the plain form."""
    variants = ["plain", "float32", "tf32", "bfloat16", "float16", "checkpointing"]
    variants += ["torch-compile-bfloat16"]
    if context.is_smoke:
        variants = ["plain", "float32"]
    found = measure(context, "train", variants, 130, batch_size=TRAINING_BATCH)
    title = f"training step at batch {TRAINING_BATCH}"
    text, data, errors = report(context, "train", found, title)
    if found[0].reason == "memory":
        text += (
            "\n\nThe plain form does not fit in memory at this batch; a smaller one instead.\n\n"
        )
        few = ["plain", "float32", "bfloat16"]
        found = measure(context, "train", few, 60, batch_size=SMALLER_BATCH)
        title = f"training step at batch {SMALLER_BATCH}"
        more, more_data, more_errors = report(context, "train", found, title)
        text, data, errors = text + more, {**data, **more_data}, errors + more_errors
    fast = "float32" if context.is_smoke else "bfloat16"
    add_goal(
        context,
        f"training ({fast}) against the plain form, images a second",
        ">= 3 x",
        speedup(found, fast, "plain"),
        lambda x: x >= 3,
    )
    add_goal(
        context,
        f"training ({fast}) against the plain form, memory",
        "<= 0.5 x",
        memory_share(found, fast, "plain"),
        lambda x: x <= 0.5,
    )
    return Outcome(text, data, errors)


def measure_evaluation(context: Context) -> Outcome:
    """Evaluation's share on the device, against the plain form."""
    variants = ["plain", "float32", "tf32", "bfloat16"]
    if context.is_smoke:
        variants = ["plain", "bfloat16"]
    found = measure(context, "inference", variants, 80, batch_size=EVALUATION_BATCH)
    title = f"evaluation at batch {EVALUATION_BATCH}, three prompts an image"
    text, data, errors = report(context, "inference", found, title)
    add_goal(
        context,
        "evaluation (bfloat16) against the plain form, images a second",
        ">= 3 x",
        speedup(found, "bfloat16", "plain"),
        lambda x: x >= 3,
    )
    return Outcome(text, data, errors)


def goals(context: Context) -> Outcome:
    """What was hoped for, and what was found."""
    rows = [["goal", "wanted", "found", "reached"], ["---"] * 4, *context.goals]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if not context.is_gpu or context.is_smoke:
        text += "\n\nThe goals are those of a GPU and the full-size model: here they say nothing."
    return Outcome(text, {"goals": context.goals})


SECTIONS: Mapping[str, Section] = {
    "build": Section(build),
    "machine": Section(rates),
    "operator": Section(measure_operator, 30),
    "tests": Section(run_tests, 20),
    "training step": Section(measure_training, 30),
    "evaluation": Section(measure_evaluation, 30),
    "forward": Section(measure_forward, 30),
    "short training": Section(train_shortly, 20),
    "goals": Section(goals, -1e9),
}
