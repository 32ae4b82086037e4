"""How programs end: messages for what the user can mend, tracebacks for everything else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from launch import ROOT
from outcomes import printed_by

from util.command_line import run_program
from util.config import ConfigError
from util.errors import MissingFileError, UserError

TOOLS = sorted(path for path in (ROOT / "tools").glob("*.py") if not path.stem.startswith("_"))


class Broken(torch.utils.data.Dataset):
    """Raises when a sample is read."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


def failing(error, num_workers=0):
    """A program that reads a data set whose sample cannot be read."""

    def program():
        for _ in torch.utils.data.DataLoader(Broken(error), num_workers=num_workers):
            pass

    return program


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    "error",
    [
        UserError("Image id 3: no caption.\nAdd one."),
        MissingFileError("image.jpg does not exist."),
        ConfigError("Unknown setting 'lrs'."),
        FileNotFoundError(2, "No such file or directory", "image.jpg"),
    ],
)
def test_what_the_user_can_mend_is_one_message(capsys, error, num_workers):
    assert run_program(failing(error, num_workers)) == 2
    printed = capsys.readouterr().err
    assert printed == f"error: {error}\n(UNIPHD_TRACEBACK=1 shows where it was raised.)\n"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_other_errors_keep_their_traceback(num_workers):
    # An internal mismatch, as `zip(strict=True)` reports it, is nobody's wrong setting.
    mismatch = ValueError("zip() argument 2 is shorter than argument 1")
    with pytest.raises(ValueError, match="zip"):
        run_program(failing(mismatch, num_workers))


# --- colours -------------------------------------------------------------------------------------

PROGRAM = """
import logging, sys
from util.command_line import run_program
from util.errors import UserError
from util.logging import RESULT, setup

logger = setup(sys.argv[1])

def program():
    logger.info("plain")
    logger.log(RESULT, "a table")
    logger.warning("careful")
    logger.error("broken")
    raise UserError("mend this")

sys.exit(run_program(program))
"""


def output_of(log_file, terminal, **environment):
    """What `PROGRAM` prints (stdout and stderr) to a terminal, or to a pipe."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment}
    for name in ("NO_COLOR", "FORCE_COLOR", "ANSI_COLORS_DISABLED"):
        if name not in environment:
            variables.pop(name, None)
    command = [sys.executable, "-c", PROGRAM, str(log_file)]
    return printed_by(command, variables, terminal).replace("\r\n", "\n")


def test_a_terminal_shows_results_warnings_and_errors_in_colour(tmp_path):
    printed = output_of(tmp_path / "info.txt", terminal=True)
    assert "plain\n" in printed
    for color, text in (
        (32, "a table"),
        (33, "careful"),
        (31, "broken"),
        (31, "error: mend this"),
    ):
        assert f"\x1b[{color}m{text}\x1b[0m" in printed
    assert "\x1b" not in (tmp_path / "info.txt").read_text()
    assert "careful" in (tmp_path / "info.txt").read_text()


@pytest.mark.parametrize(
    ("terminal", "environment"),
    [(True, {"NO_COLOR": "1"}), (False, {"FORCE_COLOR": "1"})],
)
def test_no_colours_in_pipes_or_where_they_are_not_wanted(tmp_path, terminal, environment):
    printed = output_of(tmp_path / "info.txt", terminal, **environment)
    assert "\x1b" not in printed
    assert re.findall("a table|careful|broken|error: mend this", printed) == [
        "a table",
        "careful",
        "broken",
        "error: mend this",
    ]


# --- tools ---------------------------------------------------------------------------------------


def test_every_program_finds_the_project_in_the_same_way():
    programs = [
        *TOOLS,
        *((ROOT / "models" / "uniphd" / "ops" / n) for n in ("test.py", "benchmark.py")),
    ]
    for path in programs:
        text = path.read_text()
        assert "\nimport _repository " in text and "sys.path" not in text, path


def test_a_tool_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "plot_log.py"), "nothing"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and "error: nothing does not exist" in result.stderr
