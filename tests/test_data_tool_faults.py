"""A full disk, Ctrl-C and SIGTERM in the tools that write data: one message, nothing half-written.

A disk is full where a file reaches a length (RLIMIT_FSIZE: no rights are needed for that), or at
a file that is about to take its place; signals come at moments of the same kind.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import write_coco, write_refhuman
from people_files import person, write_people
from test_check_refhuman import fill_boxes

from util import files

FULL = "No space left on device"
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def spoil(content: dict[str, Any], split: str) -> None:
    """A pair with a defect, so that the check has something to leave out."""
    fill_boxes(content)
    content["annotations"][1]["num_keypoints"] = 3


def refhuman(folder: Path) -> tuple[Path, Path]:
    data = write_refhuman(folder, pairs={"train": 6}, change=spoil)
    return data / "RefHuman_train.json", data / "images"


def of_build(folder: Path, output: Path) -> list[Any]:
    file = write_people(folder, [person(i, i // 3, left=5 + 20 * (i % 3)) for i in range(1, 9)])
    line = ["--annotations", file, "--images", folder / "images", "--split", "train"]
    return [*line, "--everybody", "--output", output / "out.json", "--workers", 1]


def of_check(folder: Path, output: Path) -> list[Any]:
    file, images = refhuman(folder)
    line = [file, "--images", images, "--workers", 1]
    return [*line, "--json", output / "report.json", "--fix", output / "fixed.json"]


def of_stats(folder: Path, output: Path) -> list[Any]:
    return [refhuman(folder)[0], "--output", output]


def of_browse(folder: Path, output: Path) -> list[Any]:
    file, images = refhuman(folder)
    return [file, "--images", images, "--output", output, "--copy"]


def of_subset(folder: Path, output: Path) -> list[Any]:
    refhuman(folder)
    return ["--input", folder, "--output", output, "--images", 2, "--max_side", 64]


def of_people_subset(folder: Path, output: Path) -> list[Any]:
    write_coco(folder)
    file = folder / "annotations" / "person_keypoints_val2017.json"
    line = ["--format", "coco", "--input_annotations", file, "--output", output]
    return [*line, "--images", folder / "images" / "val2017", "--max_side", 64]


TOOLS: dict[str, tuple[Callable[[Path, Path], list[Any]], int]] = {
    "build_refhuman": (of_build, 0),
    "check_refhuman": (of_check, 1),  # a defect is found
    "dataset_stats": (of_stats, 0),
    "browse_refhuman": (of_browse, 0),
    "make_subset": (of_subset, 0),
    "make_people_subset": (of_people_subset, 0),
}


class Tool:
    """A tool with its input, and an earlier output."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        arguments, self.fine = TOOLS[name]
        self.name, self.output, self._monkeypatch = name, folder / "output", monkeypatch
        self.output.mkdir()
        self._arguments = list(map(str, arguments(folder / "input", self.output)))
        assert self.run() == self.fine
        self.expected = contents(self.output)
        for path in self.output.rglob("*"):  # an earlier one, that is other
            if path.is_file() and path.suffix in (".json", ".png"):
                path.write_bytes(path.read_bytes() + b" ")
        self.earlier = contents(self.output)

    def run(self) -> int:
        """Exit status, as the shell would get it."""
        module = importlib.import_module(self.name)
        handler = signal.getsignal(signal.SIGTERM)
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [f"{self.name}.py", *self._arguments])
            try:
                return module.main()
            except SystemExit as error:
                return int(error.code or 0)
            finally:
                signal.signal(signal.SIGTERM, handler)

    def kept(self) -> dict[str, bytes]:
        """What is in the output folder, without the parts that a build goes on with."""
        found = contents(self.output)
        assert not [name for name in found if "/." in f"/{name}"], "half-written files"
        return {name: content for name, content in found.items() if ".parts/" not in name}


def contents(folder: Path) -> dict[str, bytes]:
    files_there = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_there}


@pytest.fixture(params=TOOLS)
def tool(request, tmp_path, monkeypatch) -> Tool:
    return Tool(request.param, tmp_path, monkeypatch)


@contextlib.contextmanager
def longest_file(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_any_length(tool, capsys):
    sizes = sorted(len(content) for content in tool.expected.values())
    limits = sorted({100, sizes[0] - 1, sizes[len(sizes) // 2] - 1, sizes[-1] // 2, sizes[-1] - 1})
    capsys.readouterr()
    for limit in limits:
        with longest_file(limit):
            status = tool.run()
        said = capsys.readouterr().err
        assert status == 2 and said.count("error: ") == 1, (limit, said)
        assert "File too large: '" in said and str(tool.output) in said, (limit, said)
        # The report of the check comes after its copy; each is whole.
        if tool.name in ("check_refhuman", "build_refhuman"):
            for name, content in tool.kept().items():
                assert content in (tool.expected[name], tool.earlier[name]), (limit, name)
        else:
            assert tool.kept() == tool.earlier, limit
    assert tool.run() == tool.fine
    assert contents(tool.output) == tool.expected


@pytest.mark.parametrize("fault", [errno.ENOSPC, *SIGNALS])
def test_a_fault_before_any_file_takes_its_place(tool, capsys, monkeypatch, fault):
    moments: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "_reach_disk", lambda path: moments.append(path))
        tool.run()
    written = [moment for moment in moments if Path(moment).is_relative_to(tool.output)]
    restore(tool)
    capsys.readouterr()
    for number in sorted({0, len(written) // 2, len(written) - 1}):
        moments.clear()
        shutil.rmtree(tool.output / "out.json.parts", ignore_errors=True)  # or it would go on

        def fail(path: Path, number: int = number) -> None:
            moments.append(path)
            if len(moments) != number + 1:
                return
            if fault == errno.ENOSPC:
                raise OSError(fault, FULL)
            os.kill(os.getpid(), fault)

        with monkeypatch.context() as patch:
            patch.setattr(files, "_reach_disk", fail)
            status = tool.run()
        said = capsys.readouterr().err
        if fault == errno.ENOSPC:
            assert status == 2 and said.count("error: ") == 1 and f"{FULL}: '" in said
        else:
            assert status == SIGNALS[fault] and "Traceback" not in said
            assert said.strip() == ("Interrupted." if fault == signal.SIGINT else "")
        for name, content in tool.kept().items():
            assert content in (tool.expected[name], tool.earlier[name]), (number, name)
        if tool.name not in ("check_refhuman", "build_refhuman"):
            assert tool.kept() == tool.earlier, number
    assert tool.run() == tool.fine
    assert contents(tool.output) == tool.expected


def restore(tool: Tool) -> None:
    for name, content in tool.earlier.items():
        (tool.output / name).write_bytes(content)
