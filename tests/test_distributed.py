"""Exchanges between processes, alone and with two, and the launchers' environments."""

import pytest
import torch
from launch import run_python

from util import distributed

TWO_PROCESSES = """
import torch
from util import distributed as d
device = d.initialize("cpu")
assert (d.world_size(), device.type) == (2, "cpu")
given = torch.tensor([1.0, 5.0]) * (d.rank() + 1)
mean = d.reduce_mean(given)
assert mean.tolist() == [1.5, 7.5], mean
assert given.tolist() == [1.0 * (d.rank() + 1), 5.0 * (d.rank() + 1)]  # not changed in place
assert d.all_gather_object({"rank": d.rank()}) == [{"rank": 0}, {"rank": 1}]
assert d.broadcast_object(f"from {d.rank()}") == "from 0"
for counts in ((0, 0), (3, 0), (0, 3), (5, 2)):
    own = ({"rank": d.rank(), "piece": i} for i in range(counts[d.rank()]))
    expected = [{"rank": 1, "piece": i} for i in range(counts[1])] if d.is_main_process() else []
    assert list(d.gather_in_pieces(own)) == expected
nan = d.reduce_mean(torch.tensor(float("nan") if d.rank() else 1.0))
assert nan.isnan()
assert d.is_main_process() == (d.rank() == 0)
d.shutdown()
assert not d.is_distributed()
print("fine")
"""


def test_two_processes_exchange_values():
    for result in run_python(["-c", TWO_PROCESSES], processes=2):
        assert result.returncode == 0, result.stderr
        assert result.stdout.endswith("fine\n")  # older versions of Gloo print a line


def test_a_process_alone():
    assert distributed.initialize("cpu") == torch.device("cpu")
    assert not distributed.is_distributed()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    assert distributed.reduce_mean(tensor).tolist() == [1.0, 2.0]
    assert not distributed.reduce_mean(tensor).requires_grad
    assert distributed.all_gather_object("a") == ["a"]
    assert list(distributed.gather_in_pieces(iter("abc"))) == []
    assert distributed.broadcast_object("a") == "a"
    distributed.shutdown()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_gpu_is_a_clear_error():
    with pytest.raises(ValueError, match="sees no CUDA device.*--device cpu"):
        distributed.initialize("cuda")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu3", "gpu3"),
        ("gpu3,gpu4", "gpu3"),
        ("gpu[003-005,009],login", "gpu003"),
        ("rack-a[7,9]-ib", "rack-a7-ib"),
        ("", ""),
    ],
)
def test_first_node_of_slurm_notation(nodes, first):
    assert distributed._first_node(nodes) == first


def test_slurm_step_becomes_torchrun_variables():
    environment = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NODELIST": "gpu[2-3]",
        "SLURM_JOB_ID": "123456",
    }
    distributed._translate_slurm(environment)
    assert environment["RANK"] == "5"
    assert environment["LOCAL_RANK"] == "1"
    assert environment["WORLD_SIZE"] == "8"
    assert environment["MASTER_ADDR"] == "gpu2"
    assert environment["MASTER_PORT"] == "23456"


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},  # the shell of an sbatch job, no srun
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # srun with one task
        {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "RANK": "7"},  # torchrun inside srun
        {},
    ],
)
def test_what_is_not_a_group_of_slurm_tasks_stays_as_it_is(environment):
    before = dict(environment)
    distributed._translate_slurm(environment)
    assert environment == before
