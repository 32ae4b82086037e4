"""Times every implementation at the model's shapes: `python benchmark.py [--threads 2]`.

The shapes are the encoder's and the decoder's for an image of 480 x 640 pixels.  The
implementations take turns within one run, so that a busy machine slows all of them down alike;
what is printed are medians, and ratios to pure PyTorch.  On a GPU, a plain form of the published
kernel (csrc/comparison/plain.cu) takes part.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import statistics
import sys
import time
from pathlib import Path

import _repository  # noqa: F401  # makes the project's modules importable
import torch
from torch import Tensor

from models.uniphd.ops import extension, ms_deform_attn_pytorch
from models.uniphd.ops.comparison import Implementation, load_plain
from models.uniphd.ops.random_inputs import QUERIES, model_inputs

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def time_once(function: Implementation, inputs: list[Tensor], backward: bool) -> float:
    """Milliseconds of one forward, or one forward and backward."""
    is_cuda = inputs[0].is_cuda
    if is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    output = function(*inputs)
    if backward:
        torch.autograd.grad(output, [inputs[0], inputs[3], inputs[4]], output.detach())
    if is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def peak_memory(function: Implementation, inputs: list[Tensor]) -> str:
    """MiB that forward and backward take beyond the inputs, at most; "-" where nobody counts."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        time_once(function, inputs, backward=True)
        return f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"
    if not sys.platform.startswith("linux"):
        return "-"
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts no longer
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far := the current
    before = resident_kib("VmRSS")
    time_once(function, inputs, backward=True)
    return f"{(resident_kib('VmHWM') - before) / 2**10:.0f}"


def resident_kib(field: str) -> int:
    """This process' memory: now (VmRSS), or at the highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def measure(
    implementations: dict[str, Implementation], inputs: list[Tensor], rounds: int
) -> list[str]:
    """Table rows: name, forward and forward + backward in ms with ratios, memory in MiB."""
    for tensor in (inputs[0], inputs[3], inputs[4]):
        tensor.requires_grad_()
    times = {(name, backward): [] for name in implementations for backward in (False, True)}
    memory = {name: peak_memory(function, inputs) for name, function in implementations.items()}
    for _ in range(rounds):
        for name, function in implementations.items():
            for backward in (False, True):
                time_once(function, inputs, backward)  # bring its data into the caches
                times[name, backward].append(time_once(function, inputs, backward))
    medians = {key: statistics.median(values) for key, values in times.items()}
    rows = []
    for name in implementations:
        cells = [name]
        for backward in (False, True):
            ratio = medians["pytorch", backward] / medians[name, backward]
            cells.append(f"{medians[name, backward]:.2f} ms ({ratio:.1f} x)")
        rows.append(" | ".join([*cells, memory[name]]))
    return rows


def main() -> None:
    """Measure on the GPU where there is one, else on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--batch", type=int, help="images; by default 1 on the CPU, 4 on a GPU")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every implementation")
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"], choices=TYPES)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    batch = arguments.batch or (4 if device.type == "cuda" else 1)

    extension.load(device.type)
    implementations: dict[str, Implementation] = {"pytorch": ms_deform_attn_pytorch}
    if device.type == "cuda":
        implementations["plain"] = load_plain()
    implementations["compiled"] = torch.ops.uniphd.ms_deform_attn
    where = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.threads} threads"
    )
    print(f"PyTorch {torch.__version__}, {device.type} ({where}), batch {batch}")
    print("shape | type | implementation | forward | forward + backward | MiB")
    for shape in QUERIES:
        for name in arguments.types:
            inputs = model_inputs(shape, batch, TYPES[name], str(device))
            for row in measure(implementations, inputs, arguments.rounds):
                print(f"{shape} | {name} | {row}", flush=True)


if __name__ == "__main__":
    main()
