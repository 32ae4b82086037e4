"""Hand weights on: from a training's checkpoint to a small file, or to the published layout.

    python tools/export_checkpoint.py outputs/tiny/checkpoint.pth tiny.safetensors --half
    python tools/export_checkpoint.py outputs/mine/checkpoint.pth uniphd.pth --published

The optimizer's state stays behind.  A `.safetensors` file keeps the settings in its metadata.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import torch

from util import checkpoint
from util.checkpoint_content import check_weights
from util.command_line import output_file, run_program
from util.config import Config
from util.errors import UserError


def export(source: Path, output: Path, half: bool, published: bool, average: bool = False) -> None:
    """Write the weights of `source`.

    Args:
        source: any checkpoint that `util.checkpoint.load` reads.
        output: `.pth` or `.safetensors`.
        half: store floating-point numbers in 16 bits.
        published: under the published names, without settings.
        average: the averaged weights (setting 'ema_decay') in place of the last ones.

    Raises:
        UserError: `source` cannot be read, has no settings or no good ones, no averaged weights, or
            does not fit into 16 bits; `output` cannot be written or is `source`.
    """
    output_file(output, "output", (".pth", ".safetensors"), inputs=[source])
    payload = checkpoint.load(source)
    config: dict[str, Any] = {}
    if "config" in payload:
        # Nothing odd is handed on, and nothing is missing that came later.
        config = Config.from_stored(payload["config"], source).to_dict()
    elif not published:
        raise UserError(
            f"{source} holds no settings, which a checkpoint of ours needs; choose --published."
        )
    state = payload["model"]
    if average:
        if payload.get("average") is None:
            raise UserError(
                f"{source} holds no averaged weights: its training was without (ema_decay=0); "
                f"leave out --average."
            )
        state = payload["average"]["model"]
        check_weights(state, f"{source}: averaged weights")
    if half:
        state = {
            name: value.to(torch.float16) if value.is_floating_point() else value
            for name, value in state.items()
        }
        check_weights(state, f"{source} in 16 bits")  # whose largest number is 65504
    if published:
        model = payload.get("published") or config.get("model", "uniphd")
        names = checkpoint.to_reference(state, model)
        # Copies: safetensors does not store one tensor under two names, as the heads have them.
        checkpoint.save(output, {"model": {name: value.clone() for name, value in names.items()}})
        return
    checkpoint.save(output, {"model": state, "config": config})


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="a checkpoint")
    parser.add_argument("output", type=Path, help=".pth or .safetensors")
    parser.add_argument("--half", action="store_true", help="16 bits per number")
    parser.add_argument("--published", action="store_true", help="the published names")
    parser.add_argument("--average", action="store_true", help="the averaged weights")
    arguments = parser.parse_args()

    def run() -> None:
        export(
            arguments.source,
            arguments.output,
            arguments.half,
            arguments.published,
            arguments.average,
        )
        print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
