"""What people are called: files of the RefCOCO family, CSV and JSON of (annotation id, caption)."""

from __future__ import annotations

import csv
import pickle
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from datasets.annotations import read_annotation_file
from datasets.values import is_integer
from util.errors import MissingFileError, UserError, shown

# In a folder that has several, the split that most publications use comes first.
REFS_FILES = ("refs(unc).p", "refs(umd).p", "refs(google).p")

# What pickle raises for files that are broken.
_BROKEN_PICKLE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError),
    *(LookupError, OverflowError, MemoryError, AssertionError, struct.error),
)


@dataclass(frozen=True)
class Reference:
    """A person of a RefCOCO file, and how people referred to it.

    Attributes:
        annotation_id, image_id, category_id: COCO's.
        split: of the file: train, val, test, testA or testB.
        sentences: at least one, as they are in the file, in small letters.
    """

    annotation_id: int
    image_id: int
    category_id: int
    split: str
    sentences: tuple[str, ...]


def cleaned_caption(text: str) -> str:
    """A caption on one line: composed characters, single spaces, no control characters.

    Raises:
        ValueError: it holds half a character, or nothing is left of it; the message says which.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("with half a character") from error
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    text = "".join(c for c in text if unicodedata.category(c) != "Cc").strip()
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise ValueError("empty")
    return text


# --- RefCOCO, RefCOCO+, RefCOCOg -----------------------------------------------------------------


class _PlainUnpickler(pickle._Unpickler):
    """Lists, dicts, texts and numbers only: nothing that a pickle could call.

    Python's own implementation, not the one in C: that takes memory as a file tells it to, for
    memo numbers and lengths that its content does not bear out.
    """

    # Protocol 5's bytes that can be changed: memory as the file tells, and Python 2 knows no such.
    dispatch = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's strings
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(
            f"{self._path} wants to run {module}.{name}, which a file of references never does; it "
            f"was not run. Fetch the file from its authors."
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UserError(
            f"{self._path} asks for the outside object {shown(pid)}, which a file of references "
            f"never does. Fetch the file from its authors."
        )


def find_refs_file(path: Path) -> Path:
    """The file of references that is meant: `path` itself, or the first of REFS_FILES in it.

    Raises:
        MissingFileError: there is none.
    """
    if path.is_file():
        return path
    for name in REFS_FILES:
        if (path / name).is_file():
            return path / name
    raise MissingFileError(
        f"--refs {path}: expected a folder with one of {', '.join(REFS_FILES)}, such as refcoco, "
        f"refcoco+ or refcocog, or one of these files."
    )


def read_refs(path: Path) -> Iterator[Reference]:
    """The references of a file of the RefCOCO family, in its order.

    The file is a list pickled by Python 2 or 3 (any protocol); nothing in it is run.

    Args:
        path: of the file.

    Raises:
        UserError: it holds anything but plain data, is broken, or is not such a list.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, path).load()
    except UserError:
        raise
    except _BROKEN_PICKLE as error:
        raise UserError(
            f"{path} cannot be read as a pickled list of references ({error}); fetch it again."
        ) from error
    if not isinstance(content, list):
        raise UserError(f"{path}: expected a pickled list of references, got {shown(content)}.")
    for number, entry in enumerate(content):
        yield _reference(entry, f"{path}: entry {number}")


def _reference(entry: Any, where: str) -> Reference:
    if not isinstance(entry, dict):
        raise UserError(f"{where} has to be a dict, got {shown(entry)}.")
    for key in ("ann_id", "image_id", "category_id"):
        if not is_integer(entry.get(key)):
            raise UserError(f"{where}: {key!r} has to be an integer, got {shown(entry.get(key))}.")
    if not isinstance(entry.get("split"), str):
        raise UserError(f"{where}: 'split' has to be a text, got {shown(entry.get('split'))}.")
    sentences = entry.get("sentences")
    entries = sentences if isinstance(sentences, list) else [None]
    texts = [s.get("sent") if isinstance(s, dict) else None for s in entries]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{where}: 'sentences' has to be a list of dicts with a text 'sent', got "
            f"{shown(sentences)}."
        )
    return Reference(
        entry["ann_id"], entry["image_id"], entry["category_id"], entry["split"], tuple(texts)
    )


# --- captions ------------------------------------------------------------------------------------


def read_captions(path: Path) -> list[tuple[int, str]]:
    """(annotation id, caption) of a CSV or JSON file, in its order.

    A CSV has two columns, with or without a line of names above. JSON is a list of pairs, or an
    object: annotation id -> caption or list of captions.

    Args:
        path: ends in .csv or .json.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is neither, or an entry is no pair; the message names line or entry.
    """
    if path.suffix.lower() == ".json":
        return _json_captions(read_annotation_file(path, "captions"), path)
    if path.suffix.lower() != ".csv":
        raise UserError(f"--captions {path}: expected a name that ends in .csv or .json.")
    rows = list(read_csv(path))
    if rows and not _as_id(rows[0][1][0] if rows[0][1] else "")[0]:
        rows = rows[1:]  # names of the columns
    pairs = []
    for line, row in rows:
        is_id, number = _as_id(row[0])
        if len(row) != 2 or not is_id:
            raise UserError(
                f"{path}: line {line}: expected an annotation id and a caption, got {shown(row)}; "
                f"put a caption that holds commas in quotation marks."
            )
        pairs.append((number, row[1]))
    return pairs


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells) of every row of a CSV in UTF-8 that is not empty.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not a CSV in UTF-8.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; check the path.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV in UTF-8 ({error}); save it as such.") from error


def _json_captions(content: Any, path: Path) -> list[tuple[int, str]]:
    entries: Iterable[Any]
    if isinstance(content, dict):
        entries = [
            (key, caption)
            for key, captions in content.items()
            for caption in (captions if isinstance(captions, list) else [captions])
        ]
    elif isinstance(content, list):
        entries = content
    else:
        raise UserError(f"{path}: expected a list or an object of captions, got {shown(content)}.")
    pairs = []
    for number, entry in enumerate(entries):
        fits = isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], str)
        is_id, annotation_id = _as_id(entry[0]) if fits else (False, 0)
        if not is_id:
            raise UserError(
                f"{path}: entry {number}: expected [annotation id, caption], got {shown(entry)}."
            )
        pairs.append((annotation_id, entry[1]))
    return pairs


def _as_id(value: Any) -> tuple[bool, int]:
    """Whether a value is an annotation id or the text of one, and the id."""
    if isinstance(value, str):
        digits = value.strip()
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 18:
            return False, 0
        value = int(digits)
    return is_integer(value), value
