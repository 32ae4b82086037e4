"""What run.json tells about every start in a folder."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from launch import run_python
from toy import CPU

from util import run_record
from util.config import Config
from util.errors import MissingFileError, UserError
from util.loss_means import NonFiniteLossError
from util.run_record import RunRecord, changed_settings, project_version, weights_facts
from util.stopping import RunStoppedError


def entries(path):
    return json.loads(path.read_text())


def test_every_start_adds_an_entry(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    monkeypatch.setattr(sys, "orig_argv", ["python", "main.py", "--note", "two words"])
    for number in range(3):
        with RunRecord(path, {"note": f"start {number}"}, CPU) as record:
            record.update(batch={"samples_per_step": 8})
            running = entries(path)[-1]
    assert (running["end"], running["exit"], running["seconds"]) == (None, None, None)
    assert running["batch"] == {"samples_per_step": 8}
    assert [entry["note"] for entry in entries(path)] == ["start 0", "start 1", "start 2"]
    last = entries(path)[-1]
    assert (last["exit"], last["processes"]) == ("finished", 1)
    assert last["command"] == "python main.py --note 'two words'"
    assert last["device"].startswith("cpu (") and last["host"] and last["working_directory"]
    assert last["versions"]["torch"] == torch.__version__
    assert last["versions"]["numpy"] == np.__version__
    assert last["versions"]["python"] == sys.version.split()[0]
    assert {"cuda", "torchvision", "commit", "changed"} <= last["versions"].keys()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunStoppedError("Ended within epoch 3 by SIGTERM: saved", 15), "Ended within epoch 3 by"),
        (KeyboardInterrupt(), "SIGINT"),
        (SystemExit(143), "SIGTERM"),
        (SystemExit(7), "exit status 7"),
        (UserError("mend this"), "mend this"),
        (MissingFileError("a.jpg is gone"), "a.jpg is gone"),
        (NonFiniteLossError("Non-finite loss in epoch 2."), "Non-finite loss in epoch 2."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_the_reason_of_the_end(tmp_path, error, reason):
    path = tmp_path / "run.json"
    with pytest.raises(type(error)), RunRecord(path, {}, CPU):
        raise error
    (entry,) = entries(path)
    assert entry["exit"].startswith(reason) and entry["end"] is not None


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from util.run_record import RunRecord

with RunRecord(Path(sys.argv[1]), {}, torch.device("cpu")):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_has_no_end(tmp_path):
    path = tmp_path / "run.json"
    (result,) = run_python(["-c", KILLED, path])
    assert result.returncode == -9
    with RunRecord(path, {}, CPU):
        pass
    assert [entry["exit"] for entry in entries(path)] == [None, "finished"]


def test_a_record_that_cannot_be_written_ends_nothing(tmp_path, log_lines, monkeypatch):
    path = tmp_path / "run.json"

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="the cause"), RunRecord(path, {}, CPU):
        monkeypatch.setattr(run_record, "write_json", full)
        raise UserError("the cause")
    assert log_lines == [f"{path} cannot be written: [Errno 28] No space left on device"]


@pytest.mark.parametrize("content", ["[{", "\x00", "3", '["a", null]'])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with RunRecord(path, {}, CPU):
        pass
    assert entries(path)[-1]["exit"] == "finished"
    assert len(entries(path)) == {"[{": 1, "\x00": 1, "3": 2, '["a", null]': 3}[content]


# --- versions and settings -----------------------------------------------------------------------


def test_the_commit_and_whether_it_was_changed(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setattr(run_record, "_ROOT", folder)
    unknown = {"commit": "unknown", "changed": "unknown"}
    assert project_version() == unknown  # no repository

    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (folder / "main.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    assert project_version() == unknown  # one of something else
    monkeypatch.setattr(run_record, "_ROOT", tmp_path)
    commit = git("rev-parse", "HEAD")
    assert project_version() == {"commit": commit, "changed": False}
    (folder / "main.py").write_text("2\n")
    assert project_version() == {"commit": commit, "changed": True}
    monkeypatch.setenv("PATH", str(folder))
    assert project_version() == unknown  # no git


def test_changed_settings_are_named(tmp_path):
    config = Config.fromfile(run_record._ROOT / "config" / "uniphd.py")
    assert changed_settings(config.to_dict(), config, tmp_path) == []
    before = config.to_dict()
    before |= {"lr": 0.5, "lr_drop_epochs": [3], "loss_weights": {"mask": 0.0}}
    del before["log_every"]  # of a version that did not have it
    assert changed_settings(before, config, tmp_path) == [
        "loss_weights.mask: 0.0 -> 2.0",
        "lr: 0.5 -> 0.0001",
        "lr_drop_epochs: [3] -> [18]",
    ]
    assert changed_settings(None, config, tmp_path) == []
    (told,) = changed_settings({"no_such": 1}, config, tmp_path)
    assert told.startswith("those of the checkpoint cannot be read (")


def test_an_entry_says_which_weights_were_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert weights_facts(None, None) is None
    content = {"model": {}, "epoch": 2, "config": {"epochs": 20}}
    expected = {"file": str(tmp_path / "a.pth"), "epochs_done": 3, "epochs": 20}
    assert weights_facts("a.pth", content) == expected
    published = weights_facts("/b/c.pth", {"model": {}})
    assert published == {"file": "/b/c.pth", "epochs_done": None, "epochs": None}
    assert weights_facts("auto", content)["file"] == "auto"
