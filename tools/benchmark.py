"""Measures the project's steps: every variant in turns within one run, ratios first.

    python tools/benchmark.py --threads 2
    python tools/benchmark.py --what forward,train --against 647b47f --markdown table.md

- Each variant is a process of its own; in every round each has its turn, in an order that
  alternates, so that a busy machine slows all of them alike.  Ratios are those of the rounds.
- The floor is what the products of a step need at the rate that this machine reached in the same
  run (tools/benchmarks/counting.py), or the time of what nothing can do without.
- `--against` measures an older commit in the same run.

tools/benchmarks/ holds the steps; a variant is a line of options there.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import torch
from benchmarks import checkouts, figures, plan
from benchmarks.turns import Entry, Turns, available_bytes, worker

from models import REPOSITORY
from util.command_line import output_file, require_range, run_program
from util.config import OptionsAction
from util.devices import find_device
from util.errors import UserError
from util.files import written_whole
from util.logging import write_json

WHATS = (
    "forward",
    "train",
    "epoch",
    "data",
    "eval",
    "predict",
    "saving",
    "inference",
    "operator",
    "synthetic",
    "loading",
)


def parse_names(text: str) -> list[str]:
    """A comma list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def build_parser() -> argparse.ArgumentParser:
    """The command line; options that are not given are those of the step's module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_argument_group("what")
    what.add_argument(
        "--what", type=parse_names, default=["forward"], help=f"some of {', '.join(WHATS)}"
    )
    what.add_argument(
        "--variants", type=parse_names, default=[], help="some of the steps' variants"
    )
    what.add_argument("--against", metavar="COMMIT", help="measure it too, in the same run")
    what.add_argument("-c", "--config_file", help="settings; by default the step's")
    what.add_argument(
        "--options", nargs="+", action=OptionsAction, default={}, metavar="KEY=VALUE",
        help="change settings",
    )  # fmt: skip
    what.add_argument("--side", type=int, nargs="+", help="pixels: a square's, or height and width")
    what.add_argument("--batch_size", type=int)
    what.add_argument("--amp", choices=("off", "bfloat16", "float16"), help="of the variants that "
                      "leave it open")  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--device", help="by default cuda where there is one")
    how.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    how.add_argument("--rounds", type=int, default=7, help="of every variant")
    how.add_argument("--warmup", type=int, default=1, help="rounds before them")
    how.add_argument("--seconds", type=float, default=0, help="of all rounds of a step; 0: no end")
    how.add_argument("--memory", type=float, help="GiB for all workers; by default what is free")
    out = parser.add_argument_group("output")
    out.add_argument("--output", type=Path, help="JSON file of all figures")
    out.add_argument("--markdown", type=Path, help="the tables")
    return parser


def common_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says about the options of all steps.

    Raises:
        UserError: no such step or file, or a number out of its range.
    """
    for name in arguments.what:
        if name not in WHATS:
            raise UserError(f"--what: unknown step '{name}'; expected some of {', '.join(WHATS)}.")
    if arguments.rounds < 1 or arguments.warmup < 0 or arguments.threads < 0:
        raise UserError("--rounds has to be at least 1, --warmup and --threads at least 0.")
    require_range(1, 10**5, batch_size=arguments.batch_size)
    for name in ("seconds", "memory"):
        if not 0 <= (getattr(arguments, name) or 0) < math.inf:
            raise UserError(f"--{name} has to be a number of at least 0.")
    for name in ("output", "markdown"):
        if getattr(arguments, name):
            output_file(getattr(arguments, name), f"--{name}")
    device = find_device(arguments.device)
    options: dict[str, Any] = {"device": str(device), "threads": arguments.threads}
    if arguments.config_file:
        path = Path(arguments.config_file).resolve()
        if not path.is_file():
            raise UserError(f"--config_file: there is no {path}.")
        # A file of ours is taken from each checkout; another is the same for all.
        is_ours = path.is_relative_to(REPOSITORY)
        options["config_file"] = str(path.relative_to(REPOSITORY) if is_ours else path)
    if arguments.side:
        if len(arguments.side) > 2 or min(arguments.side) < 1:
            raise UserError("--side takes one number of pixels, or height and width.")
        options |= {"height": arguments.side[0], "width": arguments.side[-1]}
    given = {"batch_size": arguments.batch_size, "amp": arguments.amp}
    options |= {name: value for name, value in given.items() if value is not None}
    if arguments.options:
        options["settings"] = arguments.options
    return options


def chosen_variants(arguments: argparse.Namespace, what: str) -> list[str]:
    """The asked-for variants that a step has; all of them where none are asked for.

    Raises:
        UserError: a variant that none of the steps has.
    """
    known = {name for other in arguments.what for name in plan.load(other).VARIANTS}
    unknown = [name for name in arguments.variants if name not in known]
    if unknown:
        raise UserError(
            f"--variants: unknown '{unknown[0]}'; expected some of {', '.join(sorted(known))}."
        )
    return [name for name in arguments.variants if name in plan.load(what).VARIANTS]


def measure_rates(options: dict[str, Any]) -> dict[str, Any]:
    """`benchmarks.machine.measure` in a process of its own."""
    entry = Entry("machine", "", "", options, REPOSITORY)
    with worker(entry) as process:
        return process.ask("rates", options=dict(options))


def measure_step(
    what: str,
    arguments: argparse.Namespace,
    options: dict[str, Any],
    rates: dict[str, Any],
    older: tuple[str, Path] | None,
) -> list[dict[str, Any]]:
    """`figures.record` of every variant of a step."""
    chosen = plan.entries(what, options, REPOSITORY, chosen_variants(arguments, what), older)
    if not chosen:
        raise UserError(f"--variants: nothing to measure for '{what}' on {options['device']}.")
    memory = rates.get("memory_bytes", available_bytes())
    turns = Turns(
        chosen,
        rounds=arguments.rounds,
        warmup=arguments.warmup,
        seconds=arguments.seconds,
        memory_bytes=2**30 * arguments.memory if arguments.memory else memory,
        count=plan.counted(what, chosen),
        rates=rates,
    )
    measurements = turns.measure()
    return [
        figures.record(measurement, measurements, floor)
        for measurement, floor in zip(measurements, plan.floors(what, measurements), strict=True)
    ]


def describe(options: dict[str, Any], rates: dict[str, Any], older: str | None) -> dict[str, Any]:
    """Where and what was measured."""
    return {
        "commit": checkouts.describe(REPOSITORY),
        "against": older,
        "processor": processor_name(),
        "device": options["device"],
        "threads": options["threads"] or torch.get_num_threads(),
        "torch": torch.__version__,
        "rates": rates,
        "command": f"python tools/benchmark.py {shlex.join(sys.argv[1:])}".strip(),
    }


def processor_name() -> str:
    """Of the CPU, as the system calls it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def render(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    where = report["machine"]
    rates = where["rates"]
    speeds = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates["flops"].items()
    )
    against = f" against {where['against']}" if where["against"] else ""
    parts = [
        f"`{where['command']}`",
        f"Commit {where['commit']}{against}; {where['processor']}, {where['device']}, "
        f"{where['threads']} threads, PyTorch {where['torch']}. Measured in this run: products "
        f"{speeds}; memory {rates['bytes'] / 1e9:.1f} GB/s.",
    ]
    rows: list[str] = []
    for what, step in report["steps"].items():
        parts.append(f"### {what}")
        parts.append(figures.table(step["variants"], step["unit"]))
        if where["against"]:
            rows += figures.summary(what, step["variants"], step["unit"], where["against"])
    if rows:
        parts += ["### Before and now", "\n".join([*figures.summary_head(where["against"]), *rows])]
    return "\n\n".join(parts) + "\n"


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write."""
    options = common_options(arguments)
    for what in arguments.what:
        chosen_variants(arguments, what)  # a wrong name is told before anything is measured
    with contextlib.ExitStack() as stack:
        older = None
        if arguments.against:
            folder = stack.enter_context(checkouts.checkout(REPOSITORY, arguments.against))
            older = (arguments.against, folder)
        rates = measure_rates(options)
        steps = {}
        for what in arguments.what:
            variants = measure_step(what, arguments, options, rates, older)
            steps[what] = {"unit": plan.load(what).UNIT, "variants": variants}
    report = {"machine": describe(options, rates, arguments.against), "steps": steps}
    text = render(report)
    print(text, end="")
    if arguments.output:
        write_json(arguments.output, report)
    if arguments.markdown:
        with written_whole(arguments.markdown) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    return run_program(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
