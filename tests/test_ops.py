"""Multi-scale deformable attention: the compiled operator on the CPU, the formula, the layer."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.uniphd.ops import extension, functional, ms_deform_attn, ms_deform_attn_pytorch
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from models.uniphd.ops.random_inputs import random_inputs

TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


@pytest.fixture(scope="module")
def compiled():
    """The compiled operator; every test that needs it fails with the compiler's words."""
    extension.load("cpu")
    return torch.ops.uniphd.ms_deform_attn


def precise(inputs: list[Tensor]) -> list[Tensor]:
    return [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]


def with_gradients(function, inputs: list[Tensor], incoming: Tensor) -> list[Tensor]:
    value, shapes, starts, locations, weights = inputs
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    output = function(leaves[0], shapes, starts, leaves[1], leaves[2])
    gradients = torch.autograd.grad(output, leaves, incoming.to(output.dtype))
    return [output.detach(), *gradients]


def assert_agrees(function, inputs: list[Tensor]) -> None:
    """Output and gradients of `function` against the formula in float64."""
    value, _, _, locations, weights = inputs
    batch, _, heads, channels = value.shape
    generator = torch.Generator().manual_seed(3)
    incoming = torch.randn(batch, locations.shape[1], heads * channels, generator=generator)
    incoming = incoming.to(value.dtype)
    found = with_gradients(function, inputs, incoming)
    expected = with_gradients(ms_deform_attn_pytorch, precise(inputs), incoming.double())
    types = [value.dtype, value.dtype, locations.dtype, weights.dtype]
    for name, a, b, dtype in zip(
        ("output", "value", "locations", "weights"), found, expected, types, strict=True
    ):
        assert a.dtype == dtype, name
        assert a.shape == b.shape, name
        difference = (a.double() - b).abs().max() / b.abs().max().clamp(min=1e-9)
        assert difference <= TOLERANCES[value.dtype], f"{name}: {difference:.1e}"


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 37, 48, 64, 100, 256])
def test_compiled_agrees_with_formula(compiled, channels, dtype):
    """Every width of vector and every remainder of the channel loop, in every type."""
    assert_agrees(compiled, random_inputs(2, [(5, 7), (3, 2), (1, 1)], 5, 3, 4, channels, dtype))


@pytest.mark.parametrize("points", [1, 3, 8, 70])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_any_number_of_levels_and_points(compiled, levels, points):
    """70 points exceed what the backward pass handles together."""
    shapes = [(1, 1), (4, 3), (1, 6), (7, 1), (2, 2)][:levels]
    assert_agrees(compiled, random_inputs(2, shapes, 3, 2, points, 8))


@pytest.mark.parametrize("instructions", ["default", "avx2"])
def test_other_instruction_sets(compiled, instructions, tmp_path):
    """The kernels that processors without AVX-512 use give the same."""
    cases = [
        random_inputs(2, [(5, 7), (3, 2)], 5, 3, 4, channels, dtype)
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
        for channels in (1, 3, 8, 24, 32, 37, 64)
    ]
    incoming = [torch.ones(2, 5, 3 * inputs[0].shape[-1]).to(inputs[0].dtype) for inputs in cases]
    torch.save([cases, incoming], tmp_path / "cases.pt")
    script = f"""
import sys, torch
sys.path[:0] = {sys.path!r}
from models.uniphd.ops import extension
extension.load("cpu")
ops = torch.ops.uniphd
results = [
    [ops.ms_deform_attn(*inputs), *ops.ms_deform_attn_backward(gradient, *inputs)]
    for inputs, gradient in zip(*torch.load("cases.pt"))
]
torch.save(results, "results.pt")
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": instructions, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    results = torch.load(tmp_path / "results.pt")
    for inputs, gradient, result in zip(cases, incoming, results, strict=True):
        expected = with_gradients(ms_deform_attn_pytorch, precise(inputs), gradient.double())
        for a, b in zip(result, expected, strict=True):
            difference = (a.double() - b).abs().max() / b.abs().max()
            assert difference <= TOLERANCES[inputs[0].dtype], f"{inputs[0].shape}, {a.dtype}"


def test_fuzzed_shapes(compiled):
    """Sizes nobody thought of; each case names its seed."""
    for seed in range(60):
        draw = random.Random(seed)
        shapes = [
            (draw.randint(1, 9), draw.randint(1, 9)) for _ in range(draw.choice([1, 2, 3, 4, 5]))
        ]
        inputs = random_inputs(
            draw.randint(1, 3),
            shapes,
            draw.randint(1, 40),
            draw.randint(1, 9),
            draw.randint(1, 8),
            draw.randint(1, 70),
            draw.choice([torch.float32, torch.float64, torch.bfloat16]),
            seed=seed,
        )
        try:
            assert_agrees(compiled, inputs)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def test_gradients_agree_with_finite_differences(compiled):
    value, shapes, starts, locations, weights = random_inputs(
        2, [(3, 4), (2, 2)], 3, 2, 2, 9, torch.float64
    )
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    torch.autograd.gradcheck(
        lambda value, locations, weights: compiled(value, shapes, starts, locations, weights),
        leaves,
        fast_mode=True,
    )
    small = random_inputs(1, [(2, 3)], 2, 1, 2, 3, torch.float64)
    leaves = [small[i].requires_grad_() for i in (0, 3, 4)]
    torch.autograd.gradcheck(
        lambda value, locations, weights: compiled(value, *small[1:3], locations, weights), leaves
    )


@pytest.mark.parametrize("function", [ms_deform_attn, ms_deform_attn_pytorch])
def test_hand_derived_values(function):
    """A 2 x 2 map of 1, 2, 3, 4: pixel centres, the middle, half outside, and a weighted sum."""
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    shapes, starts = torch.tensor([[2, 2]]), torch.tensor([0])
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.0, 0.25]])
    each = function(value, shapes, starts, points.view(1, 5, 1, 1, 1, 2), torch.ones(1, 5, 1, 1, 1))
    torch.testing.assert_close(each.flatten(), torch.tensor([1.0, 2.0, 3.0, 2.5, 0.5]))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0])
    together = function(
        value, shapes, starts, points.view(1, 1, 1, 1, 5, 2), weights.view(1, 1, 1, 1, 5)
    )
    torch.testing.assert_close(together.flatten(), torch.tensor([0.1 + 0.4 + 0.9 + 1.0]))


@pytest.mark.parametrize("function", [ms_deform_attn, ms_deform_attn_pytorch])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_outside_and_nan_are_zero(function, dtype):
    """Neither the output nor a gradient sees them, and no memory outside of value is read."""
    places = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 1e9, -7.0, 2.0, -0.51, 1.51]
    value, shapes, starts, _, _ = random_inputs(1, [(1, 1)], 1, 2, 1, 16, dtype)
    grid = torch.tensor([[x, 0.5] for x in places] + [[0.5, y] for y in places], dtype=dtype)
    locations = grid.view(1, -1, 1, 1, 1, 2).expand(-1, -1, 2, -1, -1, -1).contiguous()
    weights = torch.ones(locations.shape[:-1], dtype=dtype)
    incoming = torch.ones(1, len(grid), 32, dtype=dtype)
    for result in with_gradients(function, [value, shapes, starts, locations, weights], incoming):
        assert not result.any()
    # One bad point does not spoil the good ones.
    inputs = random_inputs(1, [(4, 5), (2, 2)], 6, 2, 4, 8, dtype)
    good = function(*inputs[:4], inputs[4].index_fill(4, torch.tensor([1]), 0.0))
    inputs[3][..., 1, :] = float("nan")
    torch.testing.assert_close(function(*inputs), good)


def test_result_is_independent_of_threads(compiled):
    """Bit by bit, forward and backward: no sum's order depends on who computes it."""
    inputs = random_inputs(2, [(9, 8), (4, 5), (2, 2)], 101, 4, 4, 24)
    incoming = torch.randn(2, 101, 96, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            results.append(with_gradients(compiled, inputs, incoming))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_non_contiguous_inputs(compiled):
    inputs = random_inputs(2, [(4, 5), (2, 3)], 7, 2, 4, 16)
    expected = compiled(*inputs)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in inputs]
    assert not strided[0].is_contiguous()
    assert torch.equal(compiled(*strided), expected)
    wide = torch.zeros(2, 26, 2, 40)
    wide[..., 3:19] = inputs[0]
    assert torch.equal(compiled(wide[..., 3:19], *inputs[1:]), expected)
    # A gradient that is expanded, as that of a sum.
    value = inputs[0].requires_grad_()
    ms_deform_attn(*inputs).sum().backward()
    gradient = torch.autograd.grad(
        compiled(*inputs), value, torch.ones_like(expected).contiguous()
    )[0]
    assert torch.equal(value.grad, gradient)


@pytest.mark.parametrize("function", [ms_deform_attn, ms_deform_attn_pytorch])
@pytest.mark.parametrize("empty", ["batch", "queries", "points"])
def test_empty_inputs(function, empty):
    sizes = {"batch": 2, "queries": 3, "points": 4, empty: 0}
    inputs = random_inputs(sizes["batch"], [(2, 3)], sizes["queries"], 2, sizes["points"], 8)
    incoming = torch.ones(sizes["batch"], sizes["queries"], 16)
    for result in with_gradients(function, inputs, incoming):
        assert not result.any()


WRONG = {
    "rank of value": ({0: lambda v: v[0]}, "sizes|expected value"),
    "heads differ": ({0: lambda v: v[:, :, :1]}, "sizes"),
    "batch differs": ({3: lambda x: x[:1]}, "sizes"),
    "no (x, y)": ({3: lambda x: x[..., :1]}, "sizes"),
    "levels differ": ({1: lambda s: s[:1]}, "sizes"),
    "starts differ": ({2: lambda s: s[:1]}, "sizes"),
    "weights' points differ": ({4: lambda w: w[..., :1]}, "sizes"),
    "areas exceed value": ({0: lambda v: v[:, :-1]}, "pixels together|areas must add up"),
    "areas fall short of value": ({0: lambda v: torch.cat([v, v], 1)}, "pixels together"),
    "huge level": ({1: lambda s: s * 2**40}, "areas|pixels"),
    "empty level": ({1: lambda s: s * torch.tensor([[0, 1], [1, 1]])}, "at least 1"),
    "negative level": ({1: lambda s: -s}, "at least 1"),
    "wrong start": ({2: lambda s: s + 1}, r"level_start_index\[0\]"),
    "float shapes": ({1: lambda s: s.float()}, "int64"),
    "int32 starts": ({2: lambda s: s.int()}, "int64"),
    "integer value": ({0: lambda v: v.long()}, "floating|must be float"),
    "locations too precise": ({3: lambda x: x.double()}, "shorter floating type"),
    "integer weights": ({4: lambda w: w.long()}, "shorter floating type"),
}


@pytest.mark.parametrize("function", [ms_deform_attn, ms_deform_attn_pytorch])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_inputs_are_refused(function, case):
    changes, message = WRONG[case]
    inputs = random_inputs(2, [(4, 5), (2, 3)], 3, 2, 4, 8)
    for index, change in changes.items():
        inputs[index] = change(inputs[index])
    with pytest.raises(ValueError, match=message):
        function(*inputs)


def test_wrong_gradient_is_refused(compiled):
    inputs = random_inputs(1, [(2, 3)], 3, 2, 4, 8)
    with pytest.raises(ValueError, match="grad_output"):
        torch.ops.uniphd.ms_deform_attn_backward(torch.ones(1, 3, 15), *inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operator_is_registered_properly(compiled, dtype):
    """PyTorch's own check of schema, fake tensors, autograd registration and AOT dispatch."""
    inputs = random_inputs(2, [(4, 5), (2, 3)], 3, 2, 4, 8, dtype)
    for index in (0, 3, 4):
        inputs[index].requires_grad_()
    torch.library.opcheck(compiled, inputs)
    detached = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(
        torch.ops.uniphd.ms_deform_attn_backward, [torch.ones(2, 3, 16, dtype=dtype), *detached]
    )


def test_second_derivative_is_refused(compiled):
    inputs = random_inputs(1, [(2, 3)], 3, 2, 4, 8)
    value = inputs[0].requires_grad_()
    incoming = torch.ones(1, 3, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(compiled(*inputs), value, incoming, create_graph=True)
    with pytest.raises(NotImplementedError, match="UNIPHD_MS_DEFORM_ATTN=pytorch"):
        gradient.sum().backward()


def layer_and_inputs() -> tuple[MSDeformAttn, list[Tensor]]:
    torch.manual_seed(0)
    layer = MSDeformAttn(embed_dim=32, num_levels=2, num_heads=4, num_points=3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    mask = torch.zeros(2, 26, dtype=torch.bool)
    mask[1, 15:20] = True
    shapes, starts = torch.tensor([[4, 5], [2, 3]]), torch.tensor([0, 20])
    references = torch.rand(2, 7, 2, 2)
    return layer, [torch.randn(2, 7, 32), references, torch.randn(2, 26, 32), shapes, starts, mask]


def written_out(layer: MSDeformAttn, query, references, value, shapes, starts, mask) -> Tensor:
    """The layer with one loop per axis (Deformable DETR, Eq. 3)."""
    heads, width = layer.num_heads, query.shape[-1] // layer.num_heads
    values = layer.value_proj(value).masked_fill(mask[..., None], 0.0)
    offsets, scores = layer.sampling_offsets(query), layer.attention_weights(query)
    output = torch.zeros(*query.shape[:2], heads * width, dtype=query.dtype)
    for b in range(query.shape[0]):
        for q in range(query.shape[1]):
            for m in range(heads):
                offset = offsets[b, q].view(heads, layer.num_levels, layer.num_points, 2)[m]
                weight = scores[b, q].view(heads, -1)[m].softmax(0).view(offset.shape[:2])
                for level, (h, w) in enumerate(shapes.tolist()):
                    for point in range(layer.num_points):
                        size = torch.tensor([w, h], dtype=query.dtype)
                        place = references[b, q, level] + offset[level, point] / size
                        x, y = (place * size - 0.5).tolist()
                        for i in (int(x // 1), int(x // 1) + 1):
                            for j in (int(y // 1), int(y // 1) + 1):
                                if 0 <= i < w and 0 <= j < h:
                                    share = (1 - abs(x - i)) * (1 - abs(y - j))
                                    pixel = values[b, int(starts[level]) + j * w + i]
                                    output[b, q, m * width : (m + 1) * width] += (
                                        weight[level, point]
                                        * share
                                        * pixel[m * width : (m + 1) * width]
                                    )
    return layer.output_proj(output)


def test_layer_agrees_with_loops():
    """Offsets are (x, y) pixels of their level, weights sum to one, padding counts as zero."""
    layer, inputs = layer_and_inputs()
    layer = layer.double()
    inputs = precise(inputs)
    with torch.no_grad():
        torch.testing.assert_close(layer(*inputs), written_out(layer, *inputs))


@pytest.mark.parametrize("choice", ["compiled", "pytorch"])
def test_layer_trains_under_autocast(monkeypatch, choice):
    """Positions stay in float32: bfloat16 would move points of a wide map by whole pixels."""
    monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, choice)
    layer, inputs = layer_and_inputs()
    expected = layer(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(*inputs)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.05)
    output.float().square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_layer_compiles_and_exports(compiled, monkeypatch):
    """One graph without breaks, with derivatives; and an export with a free number of queries."""
    monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "compiled")
    layer, inputs = layer_and_inputs()
    expected = layer(*inputs)
    expected.sum().backward()
    gradients = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    output = torch.compile(layer, backend="aot_eager", fullgraph=True)(*inputs)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)

    queries = torch.export.Dim("queries", min=2, max=100)
    dynamic = ({1: queries}, {1: queries}, None, None, None, None)
    exported = torch.export.export(layer, tuple(inputs), dynamic_shapes=dynamic).module()
    fewer = [inputs[0][:, :4], inputs[1][:, :4], *inputs[2:]]
    torch.testing.assert_close(exported(*fewer), layer(*fewer))


def test_environment_forces_a_choice(compiled, monkeypatch):
    inputs = random_inputs(1, [(2, 3)], 3, 2, 4, 8)
    used = []
    monkeypatch.setattr(
        functional, "ms_deform_attn_pytorch", lambda *inputs: used.append(1) or inputs[0]
    )
    monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "compiled")
    ms_deform_attn(*inputs)
    assert not used
    monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "pytorch")
    ms_deform_attn(*inputs)
    assert used
    monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "fast")
    with pytest.raises(ValueError, match="auto, compiled, pytorch; got 'fast'"):
        ms_deform_attn(*inputs)


def test_without_a_compiler(monkeypatch, caplog):
    """One warning that says what to do, then the formula; an error where compiled is asked for."""

    def fail(library: str) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(extension, "load", fail)
    functional._choose.cache_clear()
    try:
        inputs = random_inputs(1, [(2, 3)], 3, 2, 4, 8)
        monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "auto")
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                torch.testing.assert_close(ms_deform_attn(*inputs), ms_deform_attn_pytorch(*inputs))
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 1
        assert "pip install" in messages[0] and "no compiler here" in messages[0]
        monkeypatch.setenv(functional.ENVIRONMENT_VARIABLE, "compiled")
        with pytest.raises(RuntimeError, match="no compiler here"):
            ms_deform_attn(*inputs)
    finally:
        functional._choose.cache_clear()


def test_key_follows_the_sources(tmp_path, monkeypatch):
    """A changed source is compiled anew; sources of the other library don't matter."""
    before = extension.build_key("cpu")
    assert extension.build_key("cpu") == before
    for path in extension.SOURCE_FOLDER.rglob("*.*"):
        copy = tmp_path / path.relative_to(extension.SOURCE_FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(extension, "SOURCE_FOLDER", tmp_path)
    assert extension.build_key("cpu") == before
    with next((tmp_path / "cuda").iterdir()).open("a") as file:
        file.write("\n")
    assert extension.build_key("cpu") == before
    with (tmp_path / "cpu" / "kernels.h").open("a") as file:
        file.write("\n")
    assert extension.build_key("cpu") != before


def test_cached_library_is_not_compiled_again(compiled, monkeypatch):
    def fail(library: str, target) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(extension, "_loaded", set())
    monkeypatch.setattr(extension, "compile_library", fail)
    extension.load("cpu")


WITHOUT_LIBRARIES = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))  # as python itself does
sys.modules.update(dict.fromkeys([LIBRARIES]))  # what is None there cannot be imported
runpy.run_path(sys.argv[1], run_name="imported")
"""


def test_the_operator_needs_torch_alone():
    """`python models/uniphd/ops/test.py` on a machine with PyTorch and nothing else of ours."""
    libraries = "addict cv2 datasets numpy PIL pycocotools safetensors scipy termcolor timm"
    libraries += " torchvision transformers yapf"
    program = WITHOUT_LIBRARIES.replace("LIBRARIES", ", ".join(map(repr, libraries.split())))
    script = Path(__file__).parents[1] / "models" / "uniphd" / "ops" / "test.py"
    result = subprocess.run(
        [sys.executable, "-c", program, str(script)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
