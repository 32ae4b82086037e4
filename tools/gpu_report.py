"""One command of under ten minutes for anybody with a GPU: everything that is to be known of it.

    python tools/gpu_report.py

It builds the operator, runs the tests that need a GPU, measures the operator against the published
design and PyTorch, the whole model's latency and throughput, a training step and evaluation with
and without each option, and trains for a moment.  The folder that it writes (outputs/gpu_report) is
ready to be attached to a bug report: report.md, report.json, plots, and what the programs printed.

A section that fails is in the report with its error, and the others go on; the exit status is 1
then. What does not fit into `--minutes` is left out, and the report says so.

`--device cpu --smoke` goes the whole way with a tiny model on the CPU, in under a minute.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import torch
from benchmarks import gpu_sections
from benchmarks.gpu_sections import Context, Section, SkippedError

from util.command_line import output_folder, run_program
from util.devices import find_device
from util.errors import UserError
from util.files import written_whole
from util.logging import write_json

logger = logging.getLogger("gpu_report")


def run_section(name: str, section: Section, context: Context) -> dict[str, Any]:
    """A section's part of the report.

    Returns:
        `name`, `status` ("done", "failed" or "skipped"), `seconds`, `text` (Markdown) and `data`.
    """
    began = time.monotonic()
    result: dict[str, Any] = {"name": name, "status": "done", "text": "", "data": {}}
    try:
        if context.seconds_left() < section.least_seconds:
            raise SkippedError("the time was used up (--minutes)")
        outcome = section.run(context)
        result |= {"text": outcome.text, "data": outcome.data}
        if outcome.errors:
            result["status"] = "failed"
    except SkippedError as reason:
        result |= {"status": "skipped", "text": f"Skipped: {reason}."}
    except Exception as error:  # one section is not to keep the others from running
        logger.exception("%s failed", name)
        result |= {"status": "failed", "text": f"**Failed**: {type(error).__name__}: {error}"}
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def render(head: str, sections: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    parts = ["# GPU report", head, "| section | result | seconds |\n|---|---|---|"]
    parts[-1] += "".join(f"\n| {s['name']} | {s['status']} | {s['seconds']} |" for s in sections)
    for section in sections:
        parts += [f"## {section['name']}", section["text"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def run(arguments: argparse.Namespace) -> int:
    """Go through the sections; the exit status."""
    if not 0 < arguments.minutes < math.inf:
        raise UserError(f"--minutes has to be a number above 0; got {arguments.minutes}.")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            "PyTorch sees no GPU here. On a machine with one, does `nvidia-smi` find it, "
            "and is torch.version.cuda set? Without, --device cpu --smoke shows that it would run."
        )
    find_device(arguments.device)
    folder = output_folder(arguments.output_dir, "--output_dir").resolve()
    context = Context(
        device=arguments.device,
        is_smoke=arguments.smoke,
        folder=folder,
        until=time.monotonic() + 60 * arguments.minutes,
    )
    sections: list[dict[str, Any]] = []
    head = gpu_sections.head(context)
    for name, section in gpu_sections.SECTIONS.items():
        print(f"{name} ({context.seconds_left():.0f} s left) ...", flush=True)
        sections.append(run_section(name, section, context))
        print(f"{name}: {sections[-1]['status']}", flush=True)
        # Whatever happens later, what is known so far is there.
        write_json(folder / "report.json", {"head": head, "sections": sections})
        with written_whole(folder / "report.md") as temporary:
            temporary.write_text(render(head, sections), encoding="utf-8")
    print(f"\n{(folder / 'report.md').read_text()}\nIn {folder}: report.md, report.json, plots.")
    return int(any(section["status"] == "failed" for section in sections))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --smoke")
    parser.add_argument("--smoke", action="store_true", help="everything tiny, to see that it runs")
    parser.add_argument("--minutes", type=float, default=10, help="sections begin until then")
    parser.add_argument("--output_dir", default="outputs/gpu_report")
    arguments = parser.parse_args()
    status = 0

    def program() -> None:
        nonlocal status
        status = run(arguments)

    return run_program(program) or status


if __name__ == "__main__":
    sys.exit(main())
