"""Work of several processes: in order, and ended at once where the rest is not wanted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from small_models import REPOSITORY

from util.processes import in_order

PROGRAM = """
import signal, sys, time
from pathlib import Path
from util.processes import in_order

def work(number):
    (Path(sys.argv[1]) / str(number)).touch()
    time.sleep(600)

def end(number, frame):
    sys.exit(128 + number)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        list(in_order(work, range(9), 2))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
"""


def test_one_process_is_this_one():
    asked = []
    results = in_order(lambda number: 2 * number, (asked.append(i) or i for i in range(3)), 1)
    assert next(results) == 0 and asked == [0]
    assert list(results) == [2, 4]


def test_little_is_waiting_at_a_time():
    """Whatever the number of tasks: they are asked for as results are taken."""
    asked = []
    results = in_order(abs, (asked.append(i) or -i for i in range(100)), 2)
    assert next(results) == 0 and len(asked) == 6
    assert next(results) == 1 and len(asked) == 7
    results.close()


@pytest.mark.parametrize(("number", "status", "said"), [
    (signal.SIGINT, 130, "Interrupted.\n"),
    (signal.SIGTERM, 143, ""),
])  # fmt: skip
def test_an_interruption_ends_all_at_once(tmp_path, number, status, said):
    """Ctrl-C reaches the whole group of processes, SIGTERM the first of them."""
    (tmp_path / "program.py").write_text(PROGRAM)
    begun = tmp_path / "begun"
    begun.mkdir()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", begun],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(begun.iterdir()) and process.poll() is None:
            time.sleep(0.01)
        # The second process may be at its beginning.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert process.communicate(timeout=120)[1] == said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status


def test_ctrl_c_while_a_tool_imports():
    line = "import _repository; raise KeyboardInterrupt"
    run = subprocess.run(
        [sys.executable, "-c", line], cwd=REPOSITORY / "tools", capture_output=True, text=True
    )
    assert run.returncode == -signal.SIGINT and run.stderr == "Interrupted.\n"
    run = subprocess.run(
        [sys.executable, "-c", "import _repository; 1 / 0"],
        cwd=REPOSITORY / "tools",
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "ZeroDivisionError" in run.stderr
