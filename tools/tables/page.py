"""The page of all tables: docs/results.md, whose text stays and whose tables are put in anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables.comparison import markdown
from tables.published import TABLES
from util.errors import MissingFileError, UserError
from util.files import written_whole

BEGIN, END = "<!-- tables: python tools/table.py page -->", "<!-- end of tables -->"


def read_tables(folders: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """Of every table the record in the first of these folders that has it (table07/table.json).

    Raises:
        MissingFileError: there is none at all.
        UserError: one is not a table's record.
    """
    found: dict[int, dict[str, Any]] = {}
    for folder in folders:
        for number in TABLES:
            path = folder / f"table{number:02d}" / "table.json"
            if number not in found and path.is_file():
                found[number] = _read(path, number)
    if not found:
        names = ", ".join(map(str, folders))
        raise MissingFileError(
            f"{names}: no table01/table.json ... table11/table.json; make them with "
            f"scripts/tables/table*.sh."
        )
    return found


def _read(path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["table"] != number:
            raise UserError(f"{path} is of table {record['table']}.")
        markdown(record)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is not what tools/table.py writes ({type(error).__name__}: {error}); make "
            f"the table again."
        ) from error
    return record


def write_page(records: dict[int, dict[str, Any]], output: Path) -> None:
    """Put the tables between the page's two marks, for those that were there.

    Raises:
        MissingFileError: there is no such page.
        UserError: it lacks the marks.
    """
    if not output.is_file():
        raise MissingFileError(f"{output} does not exist; name the page with the marks {BEGIN}.")
    try:
        before, rest = output.read_text(encoding="utf-8").split(BEGIN)
        _, after = rest.split(END)
    except ValueError as error:
        raise UserError(
            f"{output}: expected the lines '{BEGIN}' and '{END}' once each, between which the "
            f"tables go."
        ) from error
    parts = [BEGIN]
    for number in TABLES:
        if number in records:
            parts.append(markdown(records[number], level=3).rstrip())
        else:
            parts.append(f"### Table {number}: {TABLES[number].title}\n\nNot run yet.")
    with written_whole(output) as temporary:
        temporary.write_text(before + "\n\n".join([*parts, END]) + after, encoding="utf-8")
