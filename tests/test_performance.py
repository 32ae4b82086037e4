"""What makes the models faster on a CPU does not change what they compute."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.backbones.swin import make_shift_mask
from models.performance.attention import attend
from models.performance.gelu import linear_of_gelu
from models.performance.linear import Linear
from models.uniphd.mask_head import unfold_pixels

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}
packs = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def plain(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return F.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 0, 8), (2, 3, 4, 8)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_computes_what_the_plain_one_does(activation, shape, bias):
    torch.manual_seed(0)
    layer = Linear(8, 6, bias=bias)
    x = torch.randn(shape)
    expected = ACTIVATIONS[activation](plain(layer, x))
    with torch.no_grad():
        torch.testing.assert_close(layer(x, activation), expected)
        turned = x[None].transpose(0, -2)  # not contiguous
        torch.testing.assert_close(layer(turned, activation), expected[None].transpose(0, -2))
    torch.testing.assert_close(layer(x, activation).detach(), expected)


@packs
def test_a_packed_layer_computes_in_the_type_of_autocast():
    torch.manual_seed(0)
    layer = Linear(64, 32)
    x = torch.randn(5, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = layer(x, "relu")
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), F.relu(plain(layer, x)), atol=0.02, rtol=0.02)
    with torch.no_grad():  # the same layer afterwards, in full precision again
        assert layer(x).dtype == torch.float32
        torch.testing.assert_close(layer(x), plain(layer, x))


def step_of_fused_adamw(layer: Linear) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    for parameter in layer.parameters():  # from elsewhere: no forward pass of this layer
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


CHANGES = {
    "fused AdamW": step_of_fused_adamw,
    "written through .data": lambda layer: layer.weight.data.mul_(2),
    "another bias": lambda layer: layer.bias.data.add_(1),
    "another tensor": lambda layer: setattr(layer.weight, "data", torch.ones(6, 8)),
    "loaded": lambda layer: layer.load_state_dict(Linear(8, 6).state_dict()),
}


@packs
@pytest.mark.parametrize("change", CHANGES)
def test_new_weights_are_noticed(change):
    """The packed copy would go on with the old ones: a wrong figure without a word."""
    torch.manual_seed(0)
    layer = Linear(8, 6).eval()
    x = torch.randn(4, 8)
    with torch.no_grad():
        before = layer(x)
        assert layer._packed is not None
    CHANGES[change](layer)
    with torch.no_grad():
        after = layer(x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, plain(layer, x))


@packs
def test_the_packed_copy_is_used_and_made_once():
    layer = Linear(8, 6).eval()
    x = torch.randn(4, 8)
    with torch.inference_mode():
        layer(x)
        packed = layer._packed
        assert packed is not None
        layer(x)
        assert layer._packed is packed


@packs
def test_the_packed_copy_ends_with_evaluation_and_travels_nowhere():
    layer = Linear(8, 6).eval()
    x = torch.randn(4, 8)
    with torch.no_grad():
        layer(x)
    assert sorted(layer.state_dict()) == ["bias", "weight"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._packed is None
        with torch.no_grad():
            torch.testing.assert_close(twin(x), layer(x))
    assert layer.train()._packed is None
    with torch.no_grad():
        layer(x)
    layer(x).sum().backward()
    assert layer._packed is None


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 70, 4)], ids=["short", "long"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_attention_and_its_gradients_are_those_of_pytorch(shape, with_bias):
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = None
    if with_bias:
        bias = torch.randn(3, shape[2], shape[2], dtype=torch.float64, requires_grad=True)
    inputs = [*tensors, *([bias] if with_bias else [])]
    results = []
    for way in (attend, F.scaled_dot_product_attention):
        result = way(*tensors, bias)
        results.append([result, *torch.autograd.grad(result.square().sum(), inputs)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_short_attention_in_bfloat16_training_stays_close():
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, 18, 8, requires_grad=True) for _ in range(3)]
    expected = F.scaled_dot_product_attention(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(*(tensor.bfloat16() for tensor in tensors))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.03, rtol=0.03)


def test_gelu_and_linear_have_the_gradients_of_the_two_alone():
    torch.manual_seed(0)
    layer = Linear(6, 5).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, *_: linear_of_gelu(x, layer), (x, layer.weight, layer.bias)
    )
    torch.testing.assert_close(linear_of_gelu(x, layer), F.linear(F.gelu(x), *layer.parameters()))
    layer.weight.requires_grad_(False)  # a frozen layer
    linear_of_gelu(x, layer).sum().backward()
    assert x.grad is not None and layer.bias.grad is not None and layer.weight.grad is None


def test_gelu_and_linear_in_bfloat16_train_float32_weights():
    torch.manual_seed(0)
    layer = Linear(32, 16)
    x = torch.randn(4, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = linear_of_gelu(x, layer)
    assert got.dtype == torch.bfloat16
    got.float().square().sum().backward()
    expected = torch.autograd.grad(
        F.linear(F.gelu(x), layer.weight, layer.bias).square().sum(), (x, layer.weight, layer.bias)
    )
    for grad, reference in zip((x.grad, layer.weight.grad, layer.bias.grad), expected, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, reference, atol=0.15, rtol=0.05)


def test_gelu_and_linear_keep_one_tensor_for_the_backward_pass():
    layer = Linear(64, 8)
    x = torch.randn(100, 64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear_of_gelu(x, layer)
    assert [tuple(t.shape) for t in kept] == [(100, 64), (8, 64)]


def test_windows_apart_have_weights_of_zero_exactly():
    """Weights like exp(-100) are denormal: matrix products with them take a hundred times long."""
    weights = make_shift_mask(9, 12, 4, torch.device("cpu")).exp()
    assert set(weights.unique().tolist()) == {0.0, 1.0}


def test_pixels_unfold_as_in_a_pixel_shuffle():
    masks = torch.randn(3, 16, 5, 7).contiguous(memory_format=torch.channels_last)
    assert torch.equal(unfold_pixels(masks), F.pixel_shuffle(masks, 4)[:, 0])


MEMORY_PROGRAM = """
import resource
import torch
from models.performance.memory import keep_freed_memory

kept = keep_freed_memory()

def new_pages(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

first, again, smaller = new_pages(256), new_pages(256), new_pages(230)
start = resident()
for megabytes in range(20, 200, 7):  # sizes that no block fits
    new_pages(megabytes)
grown = resident() - start
held = [torch.arange(2**19) for _ in range(5)]
del held[1:4]
held += [torch.zeros(2**19, dtype=torch.int64) for _ in range(5)]
whole = torch.equal(held[0], torch.arange(2**19)) and all(not t.any() for t in held[2:])
print(kept, first, again, smaller, grown, whole)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="counts pages as Linux does")
def test_freed_memory_is_taken_again_and_bounded():
    printed = subprocess.run(
        [sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True
    )
    kept, first, again, smaller, grown, whole = printed.stdout.split()
    if kept == "False":
        pytest.skip("the compiled library cannot be built here")
    # Pages of 4 KiB: a tensor of 256 MiB has 65,536.
    assert int(first) > 60000
    assert int(again) < 1000 and int(smaller) < 1000
    assert int(grown) < 100  # MiB: a quarter of 256, and some
    assert whole == "True"


def test_models_are_made_of_layers_that_pack():
    """A plain `nn.Linear` in a hot place would be slow without anybody noticing."""
    from models.layers.mlp import MLP, FeedForward

    for module in (MLP(8, 8, 4, 3), FeedForward(8, 16, 0.0)):
        linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
        assert linears and all(isinstance(m, Linear) for m in linears)
