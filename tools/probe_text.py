"""Does the model read? Text prompts on synthetic images: held out, shuffled, and kind by kind.

    python tools/probe_text.py --checkpoint weights/uniphd_tiny.safetensors --length 600

- seen / held out: captions whose word combinations occur in training, and captions with one that
  never does, of the same kinds of caption.
- several / shuffled: images with two or more people; then each caption is replaced by one of a
  random person of the same image, the right one included. A model that reads falls to chance,
  which is here how often the right one was drawn.
- appearance, action, position, relation, mixed: images with two or more people, by what the
  caption speaks of.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import numpy as np
import torch
from tqdm import tqdm

from datasets import build_dataset
from datasets.evaluation import ReferringEvaluator, format_table
from datasets.sample import collate
from datasets.synthetic import KINDS, SyntheticRefHuman
from models.uniphd.predictor import Predictor
from models.uniphd.prompt_encoder import TextPrompt
from util import checkpoint
from util.command_line import output_file, require_range, run_program
from util.config import Config
from util.errors import UserError
from util.logging import write_json

_SHUFFLE_SEED = 0


def split_by_caption(ground_truth: dict[str, Any]) -> dict[str, set[int]]:
    """Image ids of `seen` and `held out` captions, of kinds that occur among the latter."""
    held_out = [image for image in ground_truth["images"] if image["held_out"]]
    kinds = {image["caption_kind"] for image in held_out}
    seen = [
        image
        for image in ground_truth["images"]
        if not image["held_out"] and image["caption_kind"] in kinds
    ]
    return {"seen": {i["id"] for i in seen}, "held out": {i["id"] for i in held_out}}


def crowded_images(ground_truth: dict[str, Any]) -> set[int]:
    """Image ids of the images with at least two people."""
    count: dict[str, int] = {}
    for person in ground_truth["people"]:
        count[person["file_name"]] = count.get(person["file_name"], 0) + 1
    return {i["id"] for i in ground_truth["images"] if count[i["file_name"]] >= 2}


def split_by_kind(ground_truth: dict[str, Any], ids: set[int]) -> dict[str, set[int]]:
    """Those of the image ids whose captions are of each kind."""
    images = [image for image in ground_truth["images"] if image["id"] in ids]
    return {
        kind: {image["id"] for image in images if image["caption_kind"] == kind} for kind in KINDS
    }


def shuffled_caption(dataset: SyntheticRefHuman, index: int) -> str:
    """A caption of a random describable person of image `index`."""
    generator = np.random.default_rng((_SHUFFLE_SEED, index))
    # 0..59: uniform after the modulo with any number of people up to six.
    _, entry, *_ = dataset.generator.pair(index, turn=int(generator.integers(60)))
    return entry["caption"]


def evaluate_subset(
    ground_truth: dict[str, Any], ids: set[int], results: dict[int, dict]
) -> dict[str, float]:
    """Metrics of the samples in `ids`."""
    subset = {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if image["id"] in ids],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in ids],
    }
    evaluator = ReferringEvaluator(subset)
    evaluator.update(sorted(ids), [results[image_id] for image_id in sorted(ids)])
    evaluator.synchronize()
    return evaluator.summarize()


@torch.inference_mode()
def predict_all(
    predictor: Predictor,
    dataset: SyntheticRefHuman,
    indices: Iterable[int],
    caption_of: Callable[[int, str], str],
) -> dict[int, dict]:
    """Results by image id; `caption_of` takes (index, the sample's caption)."""
    results = {}
    for index in tqdm(indices, unit="image", leave=False):
        sample = dataset[index]
        samples, (target,) = collate([sample], divisor=predictor.divisor)
        prompt = TextPrompt([caption_of(index, target["caption"])])
        outputs = predictor.model(samples.to(predictor.device), prompt)
        sizes = target["orig_size"][None], target["size"][None]
        results[target["image_id"]] = predictor.postprocessor(outputs, *sizes)[0]
        del results[target["image_id"]]["masks"]
    return results


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and report."""
    require_range(1, 10**6, length=arguments.length)
    if arguments.output:
        output_file(arguments.output, "--output", inputs=[Path(arguments.checkpoint)])
    predictor = Predictor.from_checkpoint(arguments.checkpoint, arguments.device)
    settings = checkpoint.load(arguments.checkpoint).get("config")
    cfg = Config.from_stored(settings, arguments.checkpoint)
    if cfg.dataset != "synthetic":
        raise UserError(
            f"{arguments.checkpoint} was trained on {cfg.dataset!r}; only synthetic images know "
            "held-out captions and everybody in the image."
        )
    cfg.merge_from_dict({"synthetic.val_length": arguments.length})
    dataset = build_dataset(cfg, "val")
    ground_truth = dataset.ground_truth()
    crowded = crowded_images(ground_truth)
    indices = [i for i, image in enumerate(ground_truth["images"]) if image["id"] in crowded]
    as_they_are = predict_all(predictor, dataset, range(len(dataset)), lambda _, caption: caption)
    drawn = {index: shuffled_caption(dataset, index) for index in indices}
    shuffled = predict_all(predictor, dataset, indices, lambda index, _: drawn[index])
    subsets = {
        **{name: (ids, as_they_are) for name, ids in split_by_caption(ground_truth).items()},
        "several": (crowded, as_they_are),
        "shuffled": (crowded, shuffled),
        **{kind: (ids, as_they_are) for kind, ids in split_by_kind(ground_truth, crowded).items()},
    }
    report = {
        name: evaluate_subset(ground_truth, ids, results)
        for name, (ids, results) in subsets.items()
    }
    if drawn:
        own = [drawn[index] == ground_truth["images"][index]["caption"] for index in indices]
        report["shuffled"]["identity_chance"] = float(np.mean(own))
    print(format_table(report))
    if arguments.output:
        write_json(arguments.output, report)


def main() -> int:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="trained on the synthetic data set")
    parser.add_argument("--length", type=int, default=600, help="number of images")
    parser.add_argument("--device", help="by default cuda where there is one")
    parser.add_argument("--output", type=Path, help="JSON file of the report")
    arguments = parser.parse_args()
    return run_program(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
