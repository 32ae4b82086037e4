"""Find, build and load the compiled libraries of multi-scale deformable attention.

There are two: "cpu" declares the operators `torch.ops.uniphd.ms_deform_attn` and
`..._backward`, with their derivatives, and implements them for the CPU; "cuda" adds the kernels for
NVIDIA GPUs and needs the first.  Both are looked for, in this order,

1. in the installed package `uniphd_ops` (`pip install ./models/uniphd/ops`),
2. in the cache folder `$TORCH_EXTENSIONS_DIR/uniphd_ops` (by default under ~/.cache), and
3. else they are compiled into that folder.

An installed or cached library is used only when its key (a hash of the sources, PyTorch's version
and the compiler's flags) is the one of the sources at hand.  This file imports nothing of the
project, because `setup.py` loads it by its path.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

SOURCE_FOLDER = Path(__file__).resolve().parent / "csrc"
PACKAGE = "uniphd_ops"
KEY_FILE = "keys.json"  # beside the installed libraries: {"cpu": key, "cuda": key}
LIBRARIES = ("cpu", "cuda")
USUAL_ARCHITECTURES = ("7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")


def sources(library: str) -> list[Path]:
    """The files to compile for "cpu" or "cuda"."""
    if library == "cpu":
        return [SOURCE_FOLDER / "library.cpp", *sorted((SOURCE_FOLDER / "cpu").glob("*.cpp"))]
    return sorted(
        path for path in (SOURCE_FOLDER / "cuda").iterdir() if path.suffix in (".cpp", ".cu")
    )


def compiler_flags() -> list[str]:
    """Flags for the C++ compiler.

    None of them names a processor: the kernels are compiled for several instruction sets and the
    widest one that the processor offers is picked at run time, so that a library also works on
    another machine that shares the cache folder.  Vectors wider than the baseline's registers are
    only ever inlined, so a change of how functions would pass them (psabi) has no effect.
    """
    flags = ["-O3", "-ffp-contract=fast", "-Wall", "-Wno-psabi"]
    if sys.platform == "linux":  # PyTorch's threads are OpenMP's there
        flags.append("-fopenmp")
    return flags


def linker_flags() -> list[str]:
    """Flags for the linker."""
    return ["-fopenmp"] if sys.platform == "linux" else []


def cuda_compiler_flags() -> list[str]:
    """Flags for nvcc."""
    return ["-O3", "-lineinfo"]


def cuda_home() -> Path:
    """The folder of the CUDA toolkit.

    Raises:
        OSError: there is none with both compiler and headers.
    """
    from torch.utils import cpp_extension

    # A `nvcc` on the PATH may be a script that calls the one in the toolkit's own folder.
    candidates = [os.environ.get("CUDA_HOME"), cpp_extension.CUDA_HOME, "/usr/local/cuda"]
    for candidate in candidates:
        if candidate:
            folder = Path(candidate)
            if (folder / "bin/nvcc").exists() and (folder / "include/cuda_runtime.h").exists():
                return folder
    raise OSError("found no CUDA toolkit with bin/nvcc and include/cuda_runtime.h; set CUDA_HOME")


def cuda_architectures() -> str:
    """What to compile CUDA kernels for: `TORCH_CUDA_ARCH_LIST`, this machine's GPUs, or all.

    All are the usual ones from 7.0 to 12.0 that the compiler at hand offers.
    """
    chosen = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if chosen:
        return chosen
    if torch.cuda.is_available():
        found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        return ";".join(f"{major}.{minor}" for major, minor in sorted(found))
    command = [str(cuda_home() / "bin" / "nvcc"), "--list-gpu-code"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    offered = [code for code in USUAL_ARCHITECTURES if f"sm_{code.replace('.', '')}" in listed]
    return ";".join(offered) + "+PTX"


def build_key(library: str) -> str:
    """A hash over everything that decides what the compiler makes."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE_FOLDER.rglob("*")):
        unused = {"emulation", "comparison"} | ({"cuda"} if library == "cpu" else set())
        if path.is_file() and path.parent.name not in unused:
            digest.update(path.relative_to(SOURCE_FOLDER).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    settings = [torch.__version__, platform.machine(), sys.platform, compiler_flags()]
    if library == "cuda":
        settings += [torch.version.cuda, cuda_compiler_flags()]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where libraries are compiled to."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache) / "torch_extensions"
    return Path(root) / PACKAGE


def find_installed(library: str) -> Path | None:
    """The library in the installed package; None where there is none or it is of other sources."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(folder.glob(f"_{library}*.so"))
    if not files:
        return None
    keys = json.loads((folder / KEY_FILE).read_text())
    if keys.get(library) != build_key(library):
        logger.warning(
            "The installed %s in %s was built of other sources or for another PyTorch and is not "
            "used; run `pip install ./models/uniphd/ops` again.",
            PACKAGE,
            folder,
        )
        return None
    return files[0]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the operating system releases it when a process dies."""
    try:
        import fcntl
    except ImportError:  # not on this operating system: the last of several builds wins
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_library(library: str, target: Path) -> None:
    """Compile into the file `target`; the compiled library is also loaded.

    Raises:
        RuntimeError: the compiler or ninja is missing or failed.
        OSError: a folder is not writable, or no CUDA toolkit was found.
    """
    from torch.utils import cpp_extension

    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{library}-", dir=target.parent))
    # pip's ninja is not on the PATH where the environment is not activated.
    variables = {
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    }
    if library == "cuda":
        variables["TORCH_CUDA_ARCH_LIST"] = cuda_architectures()
    try:
        with _environment(variables):
            if library == "cuda":
                cpp_extension.CUDA_HOME = str(cuda_home())
            cpp_extension.load(
                name=f"{PACKAGE}_{library}",
                sources=[str(path) for path in sources(library)],
                extra_cflags=compiler_flags(),
                extra_cuda_cflags=cuda_compiler_flags(),
                extra_ldflags=linker_flags(),
                build_directory=str(folder),
                with_cuda=library == "cuda",
                is_python_module=False,
            )
        os.replace(folder / f"{PACKAGE}_{library}.so", target)
    except subprocess.SubprocessError as error:
        raise RuntimeError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables and put the old ones back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_loaded: set[str] = set()


def load(library: str) -> None:
    """Load the library "cpu" or "cuda" into this process; compile it first if need be.

    Raises:
        RuntimeError, OSError: it can be neither found nor compiled.
    """
    if library in _loaded:
        return
    if library == "cuda":
        load("cpu")
    path = find_installed(library)
    if path is not None:
        torch.ops.load_library(str(path))
        _loaded.add(library)
        return
    name = f"{library}-{build_key(library)}"
    if library == "cuda":
        name += "-" + cuda_architectures().replace(";", "_").replace(" ", "_")
    path = cache_folder() / f"{name}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():  # else another process compiled it while this one waited
                logger.info("Compiling multi-scale deformable attention (%s) ...", library)
                began = time.monotonic()
                compile_library(library, path)
                logger.info("Compiled %s in %.0f s.", path, time.monotonic() - began)
                _loaded.add(library)
                return
    torch.ops.load_library(str(path))
    _loaded.add(library)
