"""Times the whole model: with the compiled operator against pure PyTorch, and a training step.

    python tools/benchmark.py --threads 2

- forward: one image, a scribble, float32.  The two implementations of deformable attention take
  turns within one run, so that a busy machine slows both alike; medians and their ratio.
- training: forward, losses and backward of a batch; seconds and the peak of memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import torch
from torch import Tensor
from tqdm import tqdm

from models import REPOSITORY, build_model
from models.uniphd.ops.functional import ENVIRONMENT_VARIABLE
from models.uniphd.prompt_encoder import ScribblePrompt
from models.uniphd.uniphd import UniPHD
from util.command_line import run_program
from util.config import Config
from util.logging import memory_summary, write_json
from util.nested_tensor import NestedTensor

IMPLEMENTATIONS = ("pytorch", "compiled")
NUM_KEYPOINTS = 17


def random_inputs(
    batch: int, height: int, width: int, device: torch.device
) -> tuple[NestedTensor, ScribblePrompt]:
    """Noise images with a scribble each."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, height, width, generator=generator) for _ in range(batch)]
    points = torch.rand(batch, 12, 2, generator=generator) * torch.tensor([width, height])
    return NestedTensor.from_list(images).to(device), ScribblePrompt(points).to(device)


def random_targets(batch: int, height: int, width: int, device: torch.device) -> list[dict]:
    """One person per image."""
    generator = torch.Generator().manual_seed(1)
    keypoints = torch.rand(batch, 1, NUM_KEYPOINTS, 3, generator=generator).to(device)
    keypoints[..., 2] = 1.0
    return [
        {
            "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.8]], device=device),
            "labels": torch.ones(1, dtype=torch.int64, device=device),
            "keypoints": keypoints[i],
            "area": torch.tensor([0.2], device=device),
            "masks": torch.ones(1, height, width, dtype=torch.bool, device=device),
            "image_id": i,
        }
        for i in range(batch)
    ]


def synchronize(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def time_forward(model: UniPHD, device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of a forward pass with each implementation, in turns, after one round of warm-up."""
    model.eval()
    samples, prompt = random_inputs(1, 480, 640, device)
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in tqdm(range(rounds + 1), desc="forward", unit="round", leave=False):
        for name in IMPLEMENTATIONS:
            os.environ[ENVIRONMENT_VARIABLE] = name
            synchronize(device)
            start = time.perf_counter()
            model(samples, prompt)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    os.environ[ENVIRONMENT_VARIABLE] = "auto"
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratio = statistics.median(
        compiled / plain
        for compiled, plain in zip(seconds["compiled"][1:], seconds["pytorch"][1:], strict=True)
    )
    return {"seconds": medians, "ratio": ratio, "rounds": rounds}


def time_training(
    model: UniPHD, criterion: torch.nn.Module, device: torch.device, batch: int, side: int
) -> dict[str, Any]:
    """Seconds of one forward and backward pass, and the process' peak of memory afterwards."""
    model.train()
    samples, prompt = random_inputs(batch, side, side, device)
    targets = random_targets(batch, side, side, device)
    start = time.perf_counter()
    outputs = model(samples, prompt, targets)
    total: Tensor = criterion.total(criterion(outputs, targets))
    total.backward()
    synchronize(device)
    return {"seconds": time.perf_counter() - start, "peak memory": memory_summary(device)}


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cfg = Config.fromfile(arguments.config_file)
    # Scribbles do not need words: any text encoder will do.
    text_encoder = str(REPOSITORY / "config" / "tiny_text_encoder")
    cfg.merge_from_dict({"text_encoder": text_encoder, "text_encoder_pretrained": False})
    torch.manual_seed(0)
    model, criterion, _ = build_model(cfg)
    model, criterion = model.to(device), criterion.to(device)
    report: dict[str, Any] = {"device": str(device), "threads": torch.get_num_threads()}
    report["forward, 1 x 480 x 640"] = time_forward(model, device, arguments.rounds)
    size = f"{arguments.batch_size} x {arguments.side} x {arguments.side}"
    report[f"training step, {size}"] = time_training(
        model, criterion, device, arguments.batch_size, arguments.side
    )
    for name, value in report.items():
        print(f"{name}: {value}")
    if arguments.output:
        write_json(arguments.output, report)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", "--config_file", default=str(REPOSITORY / "config" / "uniphd.py"))
    parser.add_argument("--device", help="by default cuda where there is one")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--rounds", type=int, default=7, help="of the forward pass")
    parser.add_argument("--batch_size", type=int, default=2, help="of the training step")
    parser.add_argument("--side", type=int, default=640, help="of its images, in pixels")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    return run_program(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
