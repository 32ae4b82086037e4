"""Make a table of the paper from finished runs: published figures, ours, the difference.

    python tools/table.py 2 --runs outputs/tables/runs --output outputs/tables/table02

looks for the table's runs by their names (`uniphd`, `uni_grouppose`, ...; `--run NAME=FOLDER`
names one that lies elsewhere), writes table.md, table.json and table.png, and prints the first.  A
run that is not there or not finished is a row without figures, listed below the table; the status
is 1 then.

    python tools/table.py page --tables outputs/tables outputs/tables/smoke --output docs/results.md

puts all tables into a page.  The other commands are what scripts/tables/ is made of.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import _repository  # noqa: F401  # makes the project's modules importable
from tables.outcomes import is_finished, read_outcome, read_statistics
from tables.published import RUNS, STATISTICS, TABLES, find_table

from util.command_line import output_file, output_folder, run_program
from util.errors import MissingFileError, UserError


def make(arguments: argparse.Namespace) -> int:
    """A table from its runs; 1 if something is missing."""
    from tables.bars import draw
    from tables.comparison import compare, markdown, write

    table = find_table(arguments.number)
    if not arguments.runs.is_dir() and not arguments.run:
        raise MissingFileError(
            f"--runs {arguments.runs}: there is no such folder; give the one that holds the "
            f"folders of the runs, or --run NAME=FOLDER."
        )
    folders = {name: arguments.runs / name for name in table.runs()}
    folders |= named(arguments.run, table.runs(), "--run")
    output = output_folder(arguments.output, "--output")
    outcomes = {
        name: read_statistics(folder)
        if name == STATISTICS
        else read_outcome(folder, RUNS[name], smoke=arguments.smoke)
        for name, folder in folders.items()
    }
    record = compare(table, outcomes, smoke=arguments.smoke)
    text = markdown(record)
    draw(record, output / "table.png")
    write(record, text, output)
    print(text)
    print(output / "table.md")
    return 1 if record["missing"] else 0


def named(texts: list[str], names: list[str], option: str) -> dict[str, Path]:
    """NAME=PATH of a command line as paths by name.

    Raises:
        UserError: a name is not one of `names`, or comes twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path or name not in names:
            raise UserError(f"{option} {text}: expected NAME=PATH, NAME one of {', '.join(names)}.")
        if name in found:
            raise UserError(f"{option}: {name} is named twice.")
        found[name] = Path(path)
    return found


def print_given(arguments: argparse.Namespace) -> int:
    """Which training each checkpoint is given for, as NAME=FILE on a line each."""
    names = find_table(arguments.number).trainings()
    if not names:
        raise UserError(f"Table {arguments.number} needs no checkpoint.")
    known = [text for text in arguments.files if text.partition("=")[0] in names]
    given = named(known, names, "--checkpoint")
    free = [name for name in names if name not in given]
    unnamed = [text for text in arguments.files if text not in known]
    if len(unnamed) > len(free):
        raise UserError(
            f"--checkpoint: {len(arguments.files)} files for table {arguments.number}, which has "
            f"{', '.join(names)}; name them NAME=FILE."
        )
    given |= {name: Path(text) for name, text in zip(free, unnamed, strict=False)}
    for name, file in given.items():
        if not file.is_file():
            raise MissingFileError(f"--checkpoint {file}: no such file (for {name}).")
    print("\n".join(f"{name}={given[name].resolve()}" for name in names if name in given))
    return 0


def tell_finished(arguments: argparse.Namespace) -> int:
    """0 if nothing is left to do in a run's folder, else 1."""
    return 0 if is_finished(arguments.folder, arguments.checkpoint) else 1


def write_smoke_config(arguments: argparse.Namespace) -> int:
    """A configuration at smoke size, as a file."""
    from tables.smoke import smoke_config

    file = output_file(arguments.output, "--output", (".py",), inputs=[arguments.config])
    smoke_config(arguments.config).dump(file)
    return 0


def write_smoke_coco(arguments: argparse.Namespace) -> int:
    """The people of a synthetic RefHuman folder in COCO's form."""
    from tables.smoke import write_coco

    write_coco(arguments.refhuman, output_folder(arguments.output, "--output"))
    return 0


def update_page(arguments: argparse.Namespace) -> int:
    """All tables into a page."""
    from tables.page import read_tables, write_page

    write_page(read_tables(arguments.tables), arguments.output)
    print(arguments.output)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="WHAT", help="see below")
    for number, table in TABLES.items():
        one = commands.add_parser(str(number), help=table.title)
        one.add_argument("--runs", type=Path, required=True, help="folder of the runs' folders")
        one.add_argument("--output", type=Path, required=True, help="folder of the table")
        one.add_argument(
            "--run", nargs="+", action="extend", default=[], metavar="NAME=FOLDER",
            help="a run that lies elsewhere",
        )  # fmt: skip
        one.add_argument("--smoke", action="store_true", help="the runs are smoke runs")
        one.set_defaults(do=make, number=number)
    page = commands.add_parser("page", help="all tables into a page")
    page.add_argument(
        "--tables", type=Path, nargs="+", required=True, metavar="FOLDER",
        help="folders with table01/ ... table11/; the first that has a table counts",
    )  # fmt: skip
    page.add_argument("--output", type=Path, required=True, help="the page, which exists")
    page.set_defaults(do=update_page)
    given = commands.add_parser("given", help="which training each checkpoint is given for")
    given.add_argument("number", type=int, help="of the table")
    given.add_argument("files", nargs="+", metavar="[NAME=]FILE")
    given.set_defaults(do=print_given)
    finished = commands.add_parser("finished", help="status 0 if a run is finished, else 1")
    finished.add_argument("folder", type=Path)
    finished.add_argument("--checkpoint", type=Path, help="the run is an evaluation of this file")
    finished.set_defaults(do=tell_finished)
    smoke = commands.add_parser("smoke_config", help="a configuration at smoke size")
    smoke.add_argument("config", type=Path)
    smoke.add_argument("--output", type=Path, required=True, help="Python file")
    smoke.set_defaults(do=write_smoke_config)
    coco = commands.add_parser("smoke_coco", help="synthetic RefHuman files in COCO's form")
    coco.add_argument("refhuman", type=Path)
    coco.add_argument("--output", type=Path, required=True, help="folder")
    coco.set_defaults(do=write_smoke_coco)
    return parser


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    status = [0]

    def run() -> None:
        status[0] = arguments.do(arguments)

    return run_program(run) or status[0]


if __name__ == "__main__":
    sys.exit(main())
