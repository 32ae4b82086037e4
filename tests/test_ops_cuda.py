"""The CUDA kernels of deformable attention: emulated on the CPU, compiled, and on a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils import cpp_extension

from models.uniphd.ops import extension, ms_deform_attn, ms_deform_attn_pytorch
from models.uniphd.ops.random_inputs import random_inputs

TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
SHAPES = [
    # (levels' heights and widths, points): more samples than a chunk, fewer, and one
    ([(5, 6), (3, 3), (1, 1), (2, 1)], 5),
    ([(4, 3)], 3),
    ([(1, 1)], 1),
]


def run_compiler(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"


def spoil(locations: Tensor) -> None:
    """Make some points NaN, and some lie far outside."""
    flat = locations.view(-1)
    flat[::17] = float("nan")
    flat[5::19] = 1e30
    flat[7::23] = -1e30


def assert_close(name: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    difference = (found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-9)
    assert difference <= TOLERANCES[dtype], f"{name}: {difference:.1e}"


def formula_with_gradients(inputs: list[Tensor], incoming: Tensor) -> list[Tensor]:
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    leaves = [exact[index].requires_grad_() for index in (0, 3, 4)]
    output = ms_deform_attn_pytorch(*exact)
    return [output.detach(), *torch.autograd.grad(output, leaves, incoming.double())]


# ------------------------------------------------------------------------ emulated on the CPU


@pytest.fixture(scope="module", params=["older", "900"])
def emulated(request, tmp_path_factory):
    """The kernels' sources compiled for the CPU, as for GPUs before and from capability 9.0 on."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip(f"no C++ compiler ({compiler})")
    name = f"uniphd_emulation_{request.param}"
    library = tmp_path_factory.mktemp("emulation") / f"{name}.so"
    defines = [f"-DUNIPHD_EMULATION={name}"]
    if request.param != "older":
        defines.append(f"-DUNIPHD_EMULATION_ARCHITECTURE={request.param}")
    csrc = extension.SOURCE_FOLDER
    folders = [csrc / "emulation", csrc / "cuda", *cpp_extension.include_paths()]
    torch_libraries = Path(torch.__file__).parent / "lib"
    run_compiler(
        [
            *(compiler, "-std=c++20", "-O0", "-fPIC", "-shared", "-x", "c++", *defines),
            *(f"-I{folder}" for folder in folders),
            *(str(csrc / "emulation" / "operators.cpp"), "-o", str(library)),
            *(f"-L{torch_libraries}", "-lc10", "-ltorch_cpu"),
        ]
    )
    torch.ops.load_library(str(library))
    return getattr(torch.ops, name)


@pytest.mark.slow
def test_emulated_kernels_agree_with_formula(emulated):
    """Every group size, vector width and remainder, in both orders of the lanes."""
    for dtype, widths in {
        torch.float32: (8, 16, 24, 32, 48, 64, 128, 256, 1, 5, 37),
        torch.bfloat16: (8, 16, 32, 48, 128, 256, 512, 12),
        torch.float16: (32, 7),
        torch.float64: (2, 8, 32, 100, 3),
    }.items():
        for channels in widths:
            for shapes, points in SHAPES:
                inputs = random_inputs(2, shapes, 3, 3, points, channels, dtype)
                spoil(inputs[3])
                incoming = torch.randn(2, 3, 3 * channels).to(dtype)
                expected = formula_with_gradients(inputs, incoming)
                for descending in (False, True):
                    case = f"{dtype}, {channels} channels, {points} points, {descending}"
                    output = emulated.forward(*inputs, descending)
                    assert_close(f"output, {case}", output, expected[0], dtype)
                    found = emulated.backward(incoming, *inputs, descending)
                    for name, gradient, exact in zip(
                        ("value", "locations", "weights"), found, expected[1:], strict=True
                    ):
                        # All of them are added up and returned in float32 or float64.
                        precise = torch.promote_types(dtype, torch.float32)
                        assert_close(f"{name}, {case}", gradient, exact, precise)


@pytest.mark.slow
def test_emulated_kernels_report_wrong_levels(emulated):
    """... and read nothing outside of value because of them."""
    inputs = random_inputs(1, [(4, 5), (2, 3)], 3, 2, 4, 8)
    for index, wrong in (
        (1, torch.tensor([[4, 5], [2, 4]])),
        (1, torch.tensor([[4, 5], [2, 2]])),
        (1, torch.tensor([[2**40, 5], [2, 3]])),
        (1, torch.tensor([[-4, -5], [2, 3]])),
        (2, torch.tensor([0, 19])),
        (2, torch.tensor([-20, 20])),
    ):
        changed = [*inputs]
        changed[index] = wrong
        with pytest.raises(RuntimeError, match="assertions failed on the device"):
            emulated.forward(*changed, False)


# --------------------------------------------------------------------------------- compiled


@pytest.mark.slow
def test_cuda_sources_compile(tmp_path):
    """nvcc accepts the kernels, and the C++ compiler what calls them (nothing is run)."""
    try:
        home = extension.cuda_home()
    except OSError as error:
        pytest.skip(str(error))
    if torch.version.cuda is None:
        pytest.skip("this PyTorch was built without CUDA")
    architecture = os.environ.get("TORCH_CUDA_ARCH_LIST", "9.0").split(";")[0].split("+")[0]
    code = architecture.replace(".", "")
    without = [  # PyTorch's flags for nvcc
        "-D__CUDA_NO_HALF_OPERATORS__",
        "-D__CUDA_NO_HALF_CONVERSIONS__",
        "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
        "-D__CUDA_NO_HALF2_OPERATORS__",
    ]
    for source in extension.sources("cuda"):
        target = str(tmp_path / f"{source.name}.o")
        if source.suffix == ".cu":
            target_gpu = f"arch=compute_{code},code=sm_{code}"
            run_compiler(
                [
                    *(str(home / "bin" / "nvcc"), "-std=c++20", *without),
                    *("-Xcompiler", "-fPIC", "-gencode", target_gpu),
                    *("-c", str(source), "-o", target),
                ]
            )
        else:
            folders = [*cpp_extension.include_paths(), home / "include"]
            run_compiler(
                [
                    *(os.environ.get("CXX", "c++"), "-std=c++20", "-fPIC"),
                    *(f"-I{folder}" for folder in folders),
                    *("-c", str(source), "-o", target),
                ]
            )


# ---------------------------------------------------------------------------------- on a GPU

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def cuda_operator():
    extension.load("cuda")
    return torch.ops.uniphd.ms_deform_attn


def gradients_on_gpu(function, inputs: list[Tensor], incoming: Tensor) -> list[Tensor]:
    leaves = [inputs[index].detach().clone().requires_grad_() for index in (0, 3, 4)]
    output = function(leaves[0], inputs[1], inputs[2], leaves[1], leaves[2])
    return [output.detach(), *torch.autograd.grad(output, leaves, incoming)]


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 37, 48, 64, 128, 256, 320])
def test_gpu_agrees_with_formula(cuda_operator, channels, dtype):
    for shapes, points in SHAPES:
        inputs = random_inputs(2, shapes, 300, 3, points, channels, dtype, "cuda")
        spoil(inputs[3])
        incoming = torch.randn(2, 300, 3 * channels, device="cuda").to(dtype)
        found = gradients_on_gpu(cuda_operator, inputs, incoming)
        expected = formula_with_gradients(inputs, incoming)
        for name, a, b in zip(
            ("output", "value", "locations", "weights"), found, expected, strict=True
        ):
            assert_close(f"{name}, {len(shapes)} levels", a, b, dtype)


@gpu
@needs_gpu
def test_gpu_at_the_encoders_size(cuda_operator):
    """Gradients within 1e-4 of float64 where thousands of additions meet in one pixel."""
    levels = [(60, 80), (30, 40), (15, 20), (8, 10)]
    inputs = random_inputs(2, levels, 6380, 8, 4, 32, device="cuda")
    incoming = torch.randn(2, 6380, 256, device="cuda")
    found = gradients_on_gpu(cuda_operator, inputs, incoming)
    expected = formula_with_gradients(inputs, incoming)
    for a, b in zip(found, expected, strict=True):
        assert (a.double() - b).abs().max() <= 1e-4 * b.abs().max()


@gpu
@needs_gpu
def test_gpu_gradients_agree_with_finite_differences(cuda_operator):
    inputs = random_inputs(2, [(3, 4), (2, 2)], 3, 2, 2, 8, torch.float64, "cuda")
    leaves = [inputs[index].requires_grad_() for index in (0, 3, 4)]
    torch.autograd.gradcheck(
        lambda value, locations, weights: cuda_operator(value, *inputs[1:3], locations, weights),
        leaves,
        nondet_tol=1e-12,
    )


@gpu
@needs_gpu
def test_gpu_misaligned_and_strided_inputs(cuda_operator):
    """Vectors need aligned memory; a value that starts anywhere is right all the same."""
    inputs = random_inputs(1, [(4, 5), (2, 3)], 7, 2, 4, 16, device="cuda")
    expected = cuda_operator(*inputs)
    memory = torch.zeros(inputs[0].numel() + 1, device="cuda")
    shifted = memory[1:].view_as(inputs[0]).copy_(inputs[0])
    torch.testing.assert_close(cuda_operator(shifted, *inputs[1:]), expected)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in inputs]
    torch.testing.assert_close(cuda_operator(*strided), expected)


@gpu
@needs_gpu
def test_gpu_runs_on_the_current_stream(cuda_operator):
    """The kernel waits for what the stream did before: its inputs are written there."""
    inputs = random_inputs(2, [(60, 80), (30, 40)], 4000, 8, 4, 32, device="cuda")
    expected = cuda_operator(*inputs)
    late = torch.zeros_like(inputs[0])
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)
        late.copy_(inputs[0])
        output = cuda_operator(late, *inputs[1:])
        torch.cuda.current_stream().synchronize()
    torch.testing.assert_close(output, expected)


@gpu
@needs_gpu
def test_gpu_registration_and_autocast(cuda_operator):
    inputs = random_inputs(2, [(4, 5), (2, 3)], 3, 2, 4, 8, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = (inputs[0].flatten(2) @ torch.eye(16, device="cuda")).view_as(inputs[0])
        assert value.dtype == torch.bfloat16
        output = ms_deform_attn(value, *inputs[1:])
    torch.testing.assert_close(output.float(), cuda_operator(*inputs), atol=0.05, rtol=0.05)
    for index in (0, 3, 4):
        inputs[index].requires_grad_()
    torch.library.opcheck(cuda_operator, inputs)


@gpu
@needs_gpu
def test_gpu_refuses_wrong_inputs(cuda_operator):
    inputs = random_inputs(2, [(4, 5), (2, 3)], 3, 2, 4, 8, device="cuda")
    with pytest.raises(ValueError, match="sizes"):
        cuda_operator(inputs[0][:, :, :1], *inputs[1:])
    with pytest.raises(ValueError, match="all tensors must be on"):
        cuda_operator(inputs[0], inputs[1].cpu(), *inputs[2:])
    empty = random_inputs(2, [(4, 5)], 0, 2, 4, 8, device="cuda")
    assert cuda_operator(*empty).shape == (2, 0, 16)
