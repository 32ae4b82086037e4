"""The house: which way imports run, and that no room grows out of hand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from launch import ROOT

SOURCES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.py", "config/*.py", "datasets/**/*.py", "models/**/*.py", "tools/**/*.py",
                    "util/*.py")
    for path in ROOT.glob(pattern)
)  # fmt: skip

# From the top to the bottom; a room imports from its own level and from those below.
LEVELS = (
    ("main", "predict", "tools"),
    ("trainer",),
    ("engine",),
    ("models", "datasets"),
    ("util",),
)

# All that models may know of the data: the skeleton's numbers and the kinds of prompt.
DATASETS_FOR_MODELS = {"datasets.skeleton", "datasets.prompts"}

# A table of flags may be as long as there are flags.
LONG_FUNCTIONS = {("main.py", "build_parser")}


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def level(name: str) -> int | None:
    return next((i for i, rooms in enumerate(LEVELS) if name in rooms), None)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_run_downwards(path):
    room = path.parts[0].removesuffix(".py")
    for name in imported(parse(path)):
        other = level(name.partition(".")[0])
        if level(room) is None or other is None:
            continue
        assert other >= level(room), f"{path} imports {name}"
        if room == "models" and name.startswith("datasets"):
            assert name in DATASETS_FOR_MODELS, f"{path} imports {name}"
        assert not (room == "datasets" and name.startswith("models")), f"{path} imports {name}"


def test_nothing_is_too_long_and_everything_is_typed():
    for path in SOURCES:
        assert (ROOT / path).read_text(encoding="utf-8").count("\n") <= 600, path
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.FunctionDef):
                continue
            where = f"{path}: {node.name}"
            if (str(path), node.name) not in LONG_FUNCTIONS:
                assert node.end_lineno - node.lineno < 80, where
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
            for argument in every:
                if argument.arg not in ("self", "cls"):
                    assert argument.annotation is not None, f"{where}({argument.arg})"
