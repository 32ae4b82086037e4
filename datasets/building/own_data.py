"""Own data: a CSV with a line for every caption of every person, and their images.

Its columns, by the names in the first line, in any order:

| column | what it holds |
|---|---|
| `file_name` | of the image |
| `keypoints` | x y visibility of every keypoint, numbers with spaces (or commas) between |
| `mask` | polygons "x y x y ...", several with ; between; or a PNG of the image's size, by name |
| `box` | x y width height; may be empty or left out: the mask's |
| `caption` | may be empty or left out |
| `person` | optional: lines with the same file name and person are captions of one person |

Without a column `person`, lines are of the same person if all but the caption is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation
from datasets.building.sources import KnownPerson, Survey, plain_name
from datasets.building.texts import read_csv
from datasets.checks import Frame, check_segmentation
from datasets.values import are_numbers
from util.errors import MissingFileError, UserError, shown

_ORIENTATION = 0x0112  # EXIF; from 5 on, height and width change places
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

REQUIRED = ("file_name", "keypoints", "mask")
OPTIONAL = ("box", "caption", "person")


class CsvFile:
    """People of a CSV; see the module. An annotation's id is the number of its person's first line.

    Args:
        path: of the CSV; PNG masks are named from its folder.
        images_folder: of the images; a size is the one in which a viewer shows the image (EXIF).
    """

    def __init__(self, path: Path, images_folder: Path) -> None:
        self.path = path
        self._images_folder = images_folder
        self._annotations: list[dict[str, Any]] = []
        self._captions: list[tuple[int, str]] = []

    def survey(self) -> Survey:
        """See `Source.survey`.

        Raises:
            UserError: a line is broken, or its image or mask cannot be read; naming the line.
        """
        rows = list(read_csv(self.path))
        columns = self._columns(rows[0][1] if rows else [])
        images: dict[str, dict[str, Any]] = {}
        people: dict[tuple[str, ...], dict[str, Any]] = {}
        self._captions = []
        for line, row in rows[1:]:
            where = f"{self.path}: line {line}"
            if len(row) != len(columns):
                raise UserError(
                    f"{where} has {len(row)} cells, the first line {len(columns)}; put cells that "
                    f"hold commas in quotation marks."
                )
            cells = {name: cell.strip() for name, cell in zip(columns, row, strict=True)}
            if not cells["file_name"]:
                raise UserError(f"{where}: 'file_name' is empty; name the image.")
            name = plain_name(cells["file_name"])
            if name not in images:
                images[name] = self._image_entry(name, len(images) + 1, where)
            key = _person_key(cells)
            if key not in people:
                people[key] = self._annotation(cells, images[name], line, where)
            if cells.get("caption"):
                self._captions.append((people[key]["id"], cells["caption"]))
        self._annotations = list(people.values())
        survey = Survey({entry["id"]: entry for entry in images.values()})
        for annotation in self._annotations:
            labelled = sum(visibility > 0 for visibility in annotation["keypoints"][2::3])
            known = KnownPerson(annotation["image_id"], labelled, annotation["area"])
            survey.people[annotation["id"]] = known
        return survey

    def annotations(self) -> Iterator[dict[str, Any]]:
        """See `Source.annotations`; to be called after `survey`."""
        return iter(self._annotations)

    def captions(self) -> list[tuple[int, str]]:
        """See `Source.captions`; to be called after `survey`."""
        return self._captions

    def _columns(self, names: list[str]) -> list[str]:
        names = [name.strip().lower() for name in names]
        missing = [name for name in REQUIRED if name not in names]
        unknown = [name for name in names if name not in (*REQUIRED, *OPTIONAL)]
        if missing or unknown or len(set(names)) < len(names):
            raise UserError(
                f"{self.path}: the first line has to name the columns {', '.join(REQUIRED)} and, "
                f"where there are such, {', '.join(OPTIONAL)}, each once; got {shown(names)}."
            )
        return names

    def _image_entry(self, name: str, number: int, where: str) -> dict[str, Any]:
        path = self._images_folder / name
        if not path.is_file():
            raise MissingFileError(f"{where}: image {path} does not exist; check --images.")
        try:
            with Image.open(path) as image:
                width, height = image.size
                if image.getexif().get(_ORIENTATION, 1) >= 5:
                    width, height = height, width
        except _UNREADABLE as error:
            raise UserError(f"{where}: image {path} cannot be read ({error}).") from error
        return {"id": number, "file_name": name, "height": height, "width": width}

    def _annotation(
        self, cells: dict[str, str], entry: dict[str, Any], line: int, where: str
    ) -> dict[str, Any]:
        annotation: dict[str, Any] = {
            "id": line,
            "image_id": entry["id"],
            "keypoints": _numbers(cells["keypoints"], f"{where}: 'keypoints'"),
            "segmentation": self._mask(cells["mask"], entry, f"{where}: 'mask'"),
        }
        if not annotation["keypoints"] or len(annotation["keypoints"]) % 3:
            got = len(annotation["keypoints"])
            raise UserError(
                f"{where}: 'keypoints' has to hold x, y and visibility of every keypoint, got "
                f"{got} numbers."
            )
        if cells.get("box"):
            annotation["bbox"] = _numbers(cells["box"], f"{where}: 'box'")
        frame = Frame(where, entry["height"], entry["width"])
        annotation["area"] = 0.0
        if annotation["segmentation"]:
            check_segmentation(annotation, frame)
            code = encode_segmentation(
                annotation["segmentation"], frame.height, frame.width, frame.name
            )
            annotation["area"] = float(coco_mask.area(code))
        return annotation

    def _mask(self, cell: str, entry: dict[str, Any], where: str) -> Any:
        """Polygons, or the RLE of a PNG; an empty list where there is none."""
        if not cell.lower().endswith(".png"):
            return [_numbers(part, where) for part in cell.split(";") if part.strip()]
        path = self.path.parent / cell
        if not path.is_file():
            raise MissingFileError(
                f"{where}: {path} does not exist; name it from the CSV's folder."
            )
        try:
            with Image.open(path) as image:
                inside = _inside(image)
        except _UNREADABLE as error:
            raise UserError(f"{where}: {path} cannot be read ({error}).") from error
        if inside.shape != (entry["height"], entry["width"]):
            raise UserError(
                f"{where}: {path} has {inside.shape[1]}x{inside.shape[0]} pixels (width x height), "
                f"its image {entry['width']}x{entry['height']}; save it in the image's size."
            )
        code = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        return {"size": list(inside.shape), "counts": code["counts"].decode("ascii")}


def _person_key(cells: dict[str, str]) -> tuple[str, ...]:
    """What lines about one person have in common."""
    if cells.get("person"):
        return cells["file_name"], cells["person"]
    return tuple(cells[name] for name in sorted(cells) if name != "caption")


def _numbers(cell: str, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in cell.replace(",", " ").split()]
    except ValueError as error:
        raise UserError(f"{where}: expected numbers with spaces between, got {error}.") from error
    if not are_numbers(numbers):
        raise UserError(f"{where}: numbers have to be finite, got {shown(cell)}.")
    return [int(number) if number.is_integer() else number for number in numbers]


def _inside(image: Image.Image) -> np.ndarray:
    """[h, w] bool: pixels that are neither black nor (palette) of colour 0 nor transparent."""
    values = np.asarray(image)
    if values.ndim == 2:
        return values > 0
    channels = len(image.getbands())
    if image.mode in ("RGBA", "LA"):
        return (values[..., : channels - 1] > 0).any(axis=-1) & (values[..., -1] > 0)
    return (values > 0).any(axis=-1)
