"""Writes an HTML page to look through a RefHuman file, with or without what a model found.

    python tools/browse_refhuman.py data/RefHuman/RefHuman_val.json --images data/RefHuman/images \
        --output outputs/browse
    python main.py --eval --save_predictions ...     # writes predictions_text.json
    python tools/browse_refhuman.py FILE --images FOLDER --predictions predictions_text.json ...

Open `index.html` of the output folder in a browser; it needs neither a server nor a network.
Images are linked, not copied, unless `--copy` is given: then the folder can be moved or sent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import numpy as np
from browse.images import STATES, copy_images, link_prefix, look_at_images, quoted
from browse.pairs import (
    VERDICTS,
    file_columns,
    judge,
    pair_columns,
    people_to_draw,
    read_pairs,
    results_to_draw,
)
from browse.predictions import read_best

from datasets.skeleton import SKELETONS, Skeleton, get_skeleton
from util import visualize
from util.command_line import output_folder, run_program
from util.errors import UserError
from util.files import written_together, written_whole

_SOURCES = Path(__file__).resolve().parent / "browse"
_PAGE = "index.html"
_PARTS = "browse_files"  # the folder beside the page with all that belongs to it
_MARK = b'content="tools/browse_refhuman.py"'  # of our own pages
_SCRIPTS = ("page.css", "drawing.js", "filters.js", "page.js")
_PIECE = 100  # people or results in a file that the page loads when they are scrolled to


def make_page(
    file: Path,
    images: Path,
    output: Path,
    predictions: Path | None = None,
    *,
    copy: bool = False,
    skeleton: Skeleton = SKELETONS["coco"],
) -> dict[str, Any]:
    """Write the page; it is there when everything that it needs is.

    Args:
        file: in RefHuman's form.
        images: folder of its images.
        output: folder to write into, made if needed.
        predictions: results of the file's pairs, in COCO's format.
        copy: copy the images beside the page instead of linking to them.
        skeleton: keypoint definition.

    Returns:
        The index, as the page gets it.

    Raises:
        MissingFileError: a file or folder is missing. Single images may be missing.
        UserError: a file is broken, or the images cannot be linked to.
    """
    parts = output_folder(output, "--output") / _PARTS
    _require_own(output, parts, [p for p in (file, images, predictions) if p is not None])
    pairs, evaluator = read_pairs(file, skeleton)
    entries, image_numbers = file_columns(pairs)
    states, turns = look_at_images(images, entries)
    people, person_numbers = people_to_draw(pairs)
    columns = {"image": image_numbers, "person": person_numbers}
    columns |= pair_columns(pairs, evaluator)
    pieces = {"people": people}
    if predictions is not None:
        sizes = {image["id"]: (image["height"], image["width"]) for image, _ in pairs}
        best = read_best(predictions, sizes, skeleton)
        if not best:
            raise UserError(f"{predictions} holds no results; evaluate with --save_predictions.")
        columns |= judge(pairs, best, evaluator)
        pieces["results"] = results_to_draw(pairs, best)
    prefix = "images/" if copy else link_prefix(images, output)
    index = {
        "title": file.name,
        "predictions": None if predictions is None else predictions.name,
        "piece": _PIECE,
        "verdicts": VERDICTS,
        "states": STATES,
        "skeleton": _skeleton_to_draw(skeleton),
        "colors": _colors(),
        "images": {
            "prefix": f"{_PARTS}/{prefix}" if copy else prefix,
            "link": [quoted(entry["file_name"]) for entry in entries],
            "name": [entry["file_name"] for entry in entries],
            "width": [entry["width"] for entry in entries],
            "height": [entry["height"] for entry in entries],
            "state": states,
            "turn": turns,
        },
        "pairs": columns,
    }
    there = [
        name
        for name, state in zip(index["images"]["name"], states, strict=True)
        if STATES[state] != "missing"
    ]
    with written_together(output) as unfinished:
        if copy:
            copy_images(images, there, unfinished / _PARTS / "images")
        _write_page(unfinished, index, pieces)
        # While parts of two pages lie side by side there is none.
        (output / _PAGE).unlink(missing_ok=True)
        shutil.rmtree(parts, ignore_errors=True)
    return index


def _write_page(
    folder: Path, index: Mapping[str, Any], pieces: Mapping[str, Sequence[Any]]
) -> None:
    """Write the page and all that it loads but images; the page itself comes last."""
    for kind, values in pieces.items():
        _write_pieces(folder / _PARTS, kind, values)
    _write(folder / _PARTS / "index.js", f"const INDEX = {_compact(index)};\n")
    for name in _SCRIPTS:
        _write(folder / _PARTS / name, (_SOURCES / name).read_text(encoding="utf-8"))
    _write(folder / _PAGE, (_SOURCES / "page.html").read_text(encoding="utf-8"))


def _require_own(output: Path, parts: Path, inputs: Sequence[Path]) -> None:
    """Raises UserError where writing would replace what is not an earlier page."""
    page = output / _PAGE
    if page.is_file() and _MARK not in page.read_bytes():
        raise UserError(
            f"--output {output}: its {_PAGE} is of something else; name another folder."
        )
    for path in inputs:
        if path.resolve().is_relative_to(parts.resolve()):
            raise UserError(f"--output {output}: would overwrite the input {path}; name another.")


def _skeleton_to_draw(skeleton: Skeleton) -> dict[str, Any]:
    """Limbs, and on which side of the person a keypoint is: "left", "right" or "center"."""
    sides = ["center"] * skeleton.num_keypoints
    for left, right in skeleton.flip_pairs:
        sides[left], sides[right] = "left", "right"
    return {"names": skeleton.names, "limbs": skeleton.limbs, "sides": sides}


def _colors() -> dict[str, str]:
    """The colours of util/visualize.py as CSS has them."""
    colors = {
        "left": visualize.LEFT_COLOR,
        "right": visualize.RIGHT_COLOR,
        "center": visualize.CENTER_COLOR,
        "mask": visualize.MASK_COLOR,
        "box": visualize.BOX_COLOR,
        "prompt": visualize.PROMPT_COLOR,
    }
    return {name: f"rgb({r}, {g}, {b})" for name, (r, g, b) in colors.items()}


def _write_pieces(folder: Path, kind: str, values: Sequence[Any]) -> None:
    for number, start in enumerate(range(0, len(values), _PIECE)):
        piece = _compact(values[start : start + _PIECE])
        _write(folder / f"{kind}_{number:05d}.js", f'receive("{kind}", {number}, {piece});\n')


def _compact(value: Any) -> str:
    """JSON of pure ASCII, as a script may hold it whatever the captions say."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _summary(index: dict[str, Any]) -> str:
    """What is on the page, in words."""
    pairs, images = index["pairs"], index["images"]
    lines = [
        f"{len(pairs['id'])} pairs of {len(set(pairs['person']))} people in "
        f"{len(images['link'])} images"
    ]
    states = Counter(STATES[state] for state in images["state"])
    lines += [f"{states[state]} images: {state}" for state in STATES[1:] if states[state]]
    if index["predictions"] is not None:
        verdicts = Counter(VERDICTS[verdict] for verdict in pairs["verdict"])
        lines.append(", ".join(f"{name}: {verdicts[name]}" for name in VERDICTS))
        scored = [oks for oks in pairs["oks"] if oks is not None]
        lines.append(f"mean OKS {np.mean(scored):.3f} of {len(scored)}" if scored else "no OKS")
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="in RefHuman's form")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="predictions_*.json of main.py --eval --save_predictions on this file",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the page into")
    parser.add_argument(
        "--copy", action="store_true", help="copy the images beside the page; default: link them"
    )
    parser.add_argument("--skeleton", choices=SKELETONS, default="coco")
    arguments = parser.parse_args()

    def run() -> None:
        index = make_page(
            arguments.file,
            arguments.images,
            arguments.output,
            arguments.predictions,
            copy=arguments.copy,
            skeleton=get_skeleton(arguments.skeleton),
        )
        print(_summary(index))
        print(f"Open {arguments.output / _PAGE} in a browser.")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
