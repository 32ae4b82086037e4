"""scripts/slurm_train.sh with an `srun` and an `scontrol` that only say what they were asked."""

from __future__ import annotations

import os
import subprocess

import pytest
from launch import ROOT


@pytest.mark.parametrize(
    ("ended", "requeued", "status"),
    [
        (0, False, 0),
        (128 + 10, True, 0),  # saved because of SIGUSR1: the time is up
        (2, False, 2),
    ],
)
def test_a_job_goes_back_into_the_queue_when_its_time_is_up(tmp_path, ended, requeued, status):
    calls = tmp_path / "calls"
    for name, result in (("srun", ended), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{calls}"\nexit {result}\n')
        program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "42",
        "SLURM_NTASKS": "8",
    }
    script = [str(ROOT / "scripts" / "slurm_train.sh"), "some data"]
    process = subprocess.run(["bash", *script], env=environment, capture_output=True, text=True)
    assert process.returncode == status, process.stderr
    told = calls.read_text()
    assert "--coco_path some data" in told and "--resume auto" in told
    assert "batch_size=2" in told  # the paper's 16 in all
    assert ("scontrol requeue 42" in told) == requeued
