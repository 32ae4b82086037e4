"""Gradients of two processes: averaged once for every kind of prompt, left out if unused."""

import json

import pytest
import torch
from launch import ROOT, run_python
from toy import ToyModel, toy_optimization

from util.gradient_exchange import GradientExchange

TWO_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]  # the toys
import json
import torch
import torch.distributed as dist
from datasets.prompts import PointPrompt, TextPrompt
from toy import ToyModel
from util import distributed
from util.gradient_exchange import GradientExchange
from util.nested_tensor import NestedTensor

distributed.initialize("cpu")
rank = distributed.rank()
reduced = []
original = dist.all_reduce
dist.all_reduce = lambda *a, **options: (reduced.append(1), original(*a, **options))[1]

def step(model, kind, rank):
    generator = torch.Generator().manual_seed(rank)
    images = NestedTensor.from_list([torch.randn(3, 16, 16, generator=generator)])
    points = 50 * torch.rand(1, 1, 2, generator=generator)
    prompts = TextPrompt(["x" * (3 + rank)]) if kind == "text" else PointPrompt(points)
    model(images, prompts=prompts)["value"].sum().backward()

def gradients(model):
    return {{n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}}

def means(model, kind):
    both = []
    for other in (0, 1):
        model.zero_grad()
        step(model, kind, other)
        both.append(gradients(model))
    return {{n: None if g is None else (g + both[1][n]) / 2 for n, g in both[0].items()}}

report = {{}}
for name, settings in {{
    "default": {{}},
    "small pieces": {{"bucket_mb": 1e-5}},
    "bfloat16": {{"bfloat16": True}},
    "looked for": {{"find_unused_parameters": True}},
}}.items():
    torch.manual_seed(rank)  # other weights on every process: the exchange makes them the same
    model = ToyModel()
    model.dropout.p = 0.0
    exchange = GradientExchange(model, **settings)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
    assert all(other == weights for other in distributed.all_gather_object(weights)), name
    reference = ToyModel()
    reference.load_state_dict(model.state_dict())
    reference.dropout.p = 0.0
    for kind in ("text", "point", "text"):
        model.zero_grad()
        step(exchange.model, kind, rank)
        reduced.clear()
        exchange.finish()
        got = gradients(model)
        for key, expected in means(reference, kind).items():
            if expected is None:
                assert got[key] is None, (name, kind, key)
                continue
            tolerance = 2e-2 if settings.get("bfloat16") else 1e-6
            torch.testing.assert_close(got[key], expected, rtol=tolerance, atol=tolerance)
            rounded = torch.equal(got[key], got[key].bfloat16().float())
            assert rounded or not settings.get("bfloat16"), (name, kind, key)
    report[name] = {{
        "own": len(reduced), "bytes": exchange.model._get_ddp_logging_data()["bucket_cap_bytes"]
    }}
print(json.dumps(report))
distributed.shutdown()
"""


@pytest.fixture(scope="module")
def report():
    results = run_python(["-c", TWO_PROCESSES], processes=2)
    for result in results:
        assert result.returncode == 0, result.stderr
    return json.loads(results[0].stdout.splitlines()[-1])


def test_two_processes_average_in_pieces_of_the_asked_for_size(report):
    """In the last step, with words: their weight and bias travel after the backward pass."""
    assert report["default"] == {"own": 1, "bytes": 25 * 2**20}
    assert report["small pieces"] == {"own": 2, "bytes": 10}
    assert report["bfloat16"]["own"] == 1
    assert report["looked for"]["own"] == 0


def test_a_process_alone_exchanges_nothing():
    model = ToyModel()
    exchange = GradientExchange(model)
    assert exchange.model is model
    model.words.weight.grad = torch.ones(4, 1)
    exchange.finish()
    assert torch.equal(model.words.weight.grad, torch.ones(4, 1))


def test_a_step_finishes_the_exchange_before_it_uses_the_gradient():
    model = ToyModel()

    class Halving(GradientExchange):
        def finish(self):
            for parameter in model.parameters():
                parameter.grad.mul_(0.5)

    numbers = []
    for exchange in (GradientExchange(model), Halving(model)):
        optimization = toy_optimization(model, exchange=exchange)
        optimization.backward(sum(p.sum() for p in model.parameters()))
        numbers.append(optimization.step(0))
    assert numbers[1]["grad_norm"] == pytest.approx(0.5 * numbers[0]["grad_norm"].item())
