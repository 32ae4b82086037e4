"""The project's logger: what reaches the screen and the file, and from which process."""

from __future__ import annotations

import json
import logging
import math

import pytest
from launch import run_python

from util.files import written_whole
from util.logging import (
    append_json_line,
    read_json_lines,
    setup,
    write_json,
    write_json_lines,
    write_json_list,
)


@pytest.fixture(autouse=True)
def loggers():
    """Takes away what `setup` has added."""
    yield
    for name in ("uniphd", "models"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def test_messages_of_the_operator_reach_screen_and_file(tmp_path, capsys):
    for _ in range(2):  # twice: no line is doubled
        setup(tmp_path / "info.txt")
    logging.getLogger("models.uniphd.ops.extension").info("Compiling ...")
    logging.getLogger("models.uniphd.ops.functional").warning("pure PyTorch is slow")
    logging.getLogger("uniphd").info("training")
    lines = ["Compiling ...", "pure PyTorch is slow", "training"]
    assert capsys.readouterr().out.splitlines() == lines
    written = (tmp_path / "info.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in written] == lines


PROGRAM = """
import logging, sys
from util import distributed
from util.logging import setup

distributed.initialize("cpu")
setup(sys.argv[1])
rank = distributed.rank()
logging.getLogger("uniphd").info(f"progress {rank}")
logging.getLogger("uniphd").warning(f"warning {rank}")
logging.getLogger("models.uniphd.ops.functional").info(f"compiled kernels {rank}")
logging.getLogger("models.uniphd.ops.functional").warning(f"slow path {rank}")
if rank == 1:
    logging.getLogger("models.uniphd.ops.extension").info("Compiling")
distributed.shutdown()
"""


def test_other_processes_tell_only_what_is_new(tmp_path):
    main, other = run_python(["-c", PROGRAM, tmp_path / "info.txt"], processes=2)
    assert main.returncode == other.returncode == 0, other.stderr
    told = ["progress 0", "warning 0", "compiled kernels 0", "slow path 0"]
    assert main.stdout.splitlines() == told
    assert other.stdout.splitlines() == ["warning 1", "Compiling"]
    assert len((tmp_path / "info.txt").read_text().splitlines()) == len(told)


def test_json_files_are_whole_and_hold_no_nan(tmp_path):
    path = tmp_path / "new" / "values.json"
    write_json(path, {"a": [1, math.nan], "b": (math.inf,)})
    assert json.loads(path.read_text()) == {"a": [1, None], "b": [None]}
    lines = tmp_path / "log.txt"
    assert read_json_lines(lines) == []
    write_json_lines(lines, [{"epoch": 0}, {"epoch": 1, "loss": math.nan}])
    append_json_line(lines, {"epoch": 2})
    assert read_json_lines(lines) == [{"epoch": 0}, {"epoch": 1, "loss": None}, {"epoch": 2}]
    before = lines.read_text()
    with pytest.raises(TypeError):
        write_json_lines(lines, [{"epoch": 0}, object()])
    with pytest.raises(KeyboardInterrupt), written_whole(lines) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert lines.read_text() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.txt", "new"]


def test_a_json_list_is_written_one_by_one(tmp_path):
    path = tmp_path / "list.json"
    for values in ([], [{"a": 1}], [{"a": [1, math.nan]}, {"b": math.inf}, "c"]):
        write_json_list(path, iter(values))
        write_json(tmp_path / "whole.json", values, indent=None)
        assert path.read_text() == (tmp_path / "whole.json").read_text()

    def broken():
        yield 1
        raise KeyError("lost")

    with pytest.raises(KeyError):
        write_json_list(path, broken())
    assert path.read_text() == (tmp_path / "whole.json").read_text()
