"""One image and one prompt: the referred person's keypoints and mask.

    python predict.py --checkpoint outputs/checkpoint.pth --image street.jpg \
        --text "the woman on the left" --output woman.png

Writes the image with the person drawn in, and woman.json with the numbers.  Coordinates are
(x, y) in pixels of the image as a viewer shows it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasets.prompts import PROMPT_KINDS
from datasets.skeleton import COCO
from models.uniphd.predictor import DEFAULT_CHECKPOINT, Prediction, Predictor, one_prompt
from util import visualize
from util.command_line import output_file, run_program
from util.config import DECLARATIONS, Config, OptionsAction
from util.errors import UserError
from util.images import load_image
from util.logging import write_json


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Find the person that a prompt refers to.")
    parser.add_argument(
        "--checkpoint",
        default=str(DEFAULT_CHECKPOINT),
        help="a trained model, ours or published; default: the tiny model of this repository",
    )
    parser.add_argument("--image", required=True, help="image file")
    prompt = parser.add_mutually_exclusive_group(required=True)
    for kind in PROMPT_KINDS.values():
        prompt.add_argument(f"--{kind.name}", type=kind.parse, metavar=kind.metavar, help=kind.help)
    parser.add_argument(
        "--output", default="prediction.png", help="image to write; numbers go to a .json beside"
    )
    parser.add_argument("--device", help="cuda or cpu; by default cuda where there is one")
    parser.add_argument(
        "-c", "--config_file", help="settings, where the checkpoint does not hold its own"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action=OptionsAction,
        default={},
        metavar="KEY=VALUE",
        help="change settings of --config_file",
    )
    return parser


def to_json(prediction: Prediction, image: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a prediction: box, and what the model makes of keypoints by name, and mask as
    COCO run-length code.

    Args:
        prediction: what was found.
        image: the file's name.
        prompt: its value by its kind.
    """
    record = {
        "image": image,
        "prompt": prompt,
        "score": prediction.score,
        "box": prediction.box.tolist(),
    }
    if prediction.keypoints is not None:
        record["keypoints"] = dict(zip(COCO.names, prediction.keypoints.tolist(), strict=True))
    if prediction.mask is not None:
        code = coco_mask.encode(np.asfortranarray(prediction.mask, dtype=np.uint8))
        record["mask"] = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
    return record


def run(arguments: argparse.Namespace) -> None:
    """Predict, and write image and numbers."""
    output = output_file(
        arguments.output, "--output", (".png", ".jpg", ".jpeg"), inputs=[Path(arguments.image)]
    )
    numbers = output_file(output.with_suffix(".json"), "--output", inputs=[Path(arguments.image)])
    if arguments.options and not arguments.config_file:
        raise UserError("--options change the settings of --config_file; name one.")
    config = None
    if arguments.config_file:
        config = Config.fromfile(arguments.config_file, base=DECLARATIONS)
        config.merge_from_dict(arguments.options)
        config.check()

    image = load_image(arguments.image)
    predictor = Predictor.from_checkpoint(arguments.checkpoint, arguments.device, config)
    predictor.set_image(image)
    name, value = one_prompt({name: getattr(arguments, name) for name in PROMPT_KINDS})
    prediction = predictor.predict(**{name: value})

    prompts = PROMPT_KINDS[name].from_user(value, *image.shape[:2])
    drawn = visualize.comparison(
        image,
        [visualize.Person(prediction.keypoints, prediction.mask, prediction.box)],
        truth=None,
        limbs=COCO.limbs,
        flip_pairs=COCO.flip_pairs,
        words=f"{prompts.words(0)} (score {prediction.score:.2f})".strip(),
        draw_prompt=lambda canvas, scale: prompts.scaled(scale, scale).draw(canvas, 0),
    )
    visualize.save(output, drawn)
    record = to_json(prediction, str(arguments.image), {name: value})
    write_json(numbers, record)
    if prediction.keypoints is None:
        print("No keypoints: the model has no pose head (its setting pose_head is False).")
    print(f"score {prediction.score:.3f}: {output}, {numbers}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    return run_program(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
