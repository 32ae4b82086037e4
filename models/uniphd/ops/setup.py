"""Builds the package `uniphd_ops`, which holds the compiled libraries (see extension.py).

    python setup.py build install      or, from anywhere,      pip install ./models/uniphd/ops

The CUDA library is built too where the CUDA toolkit is found and PyTorch was built with CUDA; no
GPU is needed.  `TORCH_CUDA_ARCH_LIST` says for which GPUs (by default for this machine's, and where
it has none, for all).  `UNIPHD_BUILD_CUDA=0` leaves CUDA out, `1` insists on it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import site
import sysconfig
from pathlib import Path
from types import ModuleType

from setuptools import setup

FOLDER = Path(__file__).resolve().parent


def import_torch() -> None:
    """Import PyTorch, also inside pip's isolated build, which hides what is installed.

    The libraries fit only the PyTorch that they were built with, so it must be that one.
    """
    try:
        import torch
    except ImportError:
        for folder in [*site.getsitepackages(), site.getusersitepackages()]:
            site.addsitedir(folder)
        try:
            import torch  # noqa: F401
        except ImportError:
            raise SystemExit(
                "uniphd_ops is built against an installed PyTorch and found none; run "
                "`pip install torch`, then this again."
            ) from None


def import_extension():
    """The module extension.py of this folder, which is not installed anywhere."""
    spec = importlib.util.spec_from_file_location("extension", FOLDER / "extension.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_cuda_wanted(extension: ModuleType) -> bool:
    """Whether to build the CUDA library, after `UNIPHD_BUILD_CUDA` and what is installed."""
    import torch

    choice = os.environ.get("UNIPHD_BUILD_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"UNIPHD_BUILD_CUDA must be 0, 1 or auto; got {choice!r}.")
    if choice == "0" or (choice == "auto" and torch.version.cuda is None):
        return False
    try:
        extension.cuda_home()
    except OSError as error:
        if choice == "1":
            raise SystemExit(f"UNIPHD_BUILD_CUDA=1, but {error}") from None
        return False
    return True


def main() -> None:
    """Build what can be built."""
    import_torch()
    extension = import_extension()
    from torch.utils import cpp_extension

    libraries = ["cpu"]
    if is_cuda_wanted(extension):
        libraries.append("cuda")
        cpp_extension.CUDA_HOME = str(extension.cuda_home())
        os.environ["TORCH_CUDA_ARCH_LIST"] = extension.cuda_architectures()
    scripts = sysconfig.get_path("scripts")  # pip's ninja, where no environment is activated
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])

    class BuildLibraries(cpp_extension.BuildExtension):
        """Also leaves a note of the sources beside the libraries, by which they are recognised."""

        def run(self) -> None:
            super().run()
            folder = Path(self.get_ext_fullpath(f"{extension.PACKAGE}._cpu")).parent
            keys = {library: extension.build_key(library) for library in libraries}
            (folder / extension.KEY_FILE).write_text(json.dumps(keys))

    os.chdir(FOLDER)
    kinds = {"cpu": cpp_extension.CppExtension, "cuda": cpp_extension.CUDAExtension}
    setup(
        name="uniphd-ops",
        version="1.0",
        description="Multi-scale deformable attention, compiled for the CPU and for CUDA",
        packages=[extension.PACKAGE],
        package_dir={extension.PACKAGE: "package"},
        ext_modules=[
            kinds[library](
                f"{extension.PACKAGE}._{library}",
                [os.path.relpath(path, FOLDER) for path in extension.sources(library)],
                extra_compile_args={
                    "cxx": extension.compiler_flags(),
                    "nvcc": extension.cuda_compiler_flags(),
                },
                extra_link_args=extension.linker_flags(),
            )
            for library in libraries
        ],
        cmdclass={"build_ext": BuildLibraries},
        zip_safe=False,
    )


if __name__ == "__main__":
    main()
