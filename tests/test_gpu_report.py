"""The GPU report goes its whole way on the CPU, whatever happens to one section."""

from __future__ import annotations

import json
import sys
import time

import gpu_report
import pytest
from benchmarks import gpu_sections
from benchmarks.gpu_sections import Context, Outcome, Section
from benchmarks.turns import Entry, Measurement
from launch import ROOT


def run_report(monkeypatch, folder, *arguments):
    """Exit status and report.json."""
    words = ["--device", "cpu", "--smoke", "--output_dir", str(folder), *arguments]
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", *words])
    status = gpu_report.main()
    return status, json.loads((folder / "report.json").read_text())


def test_the_whole_way_on_the_cpu(tmp_path, monkeypatch):
    status, report = run_report(monkeypatch, tmp_path)
    results = {section["name"]: section for section in report["sections"]}
    assert {name: r["status"] for name, r in results.items()} == dict.fromkeys(
        gpu_sections.SECTIONS, "done"
    ), (tmp_path / "report.md").read_text()
    assert status == 0
    text = (tmp_path / "report.md").read_text()
    for words in (
        "| plain | 1.00",
        "| compiled |",
        "PyTorch",
        ">= 2.5 x",
        "![curve](training.png)",
    ):
        assert words in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line[line.index("(") + 1 : -1]).stat().st_size > 1000
    assert len(results["short training"]["data"]["records"]) == 2
    goals = results["goals"]["data"]["goals"]
    assert [goal[1] for goal in goals] == [">= 1.5 x", ">= 2.5 x", ">= 3 x", "<= 0.5 x", ">= 3 x"]


def sections(monkeypatch, **runs):
    monkeypatch.setattr(
        gpu_sections, "SECTIONS", {name: Section(run, 10.0) for name, run in runs.items()}
    )


def test_a_section_that_fails_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(context):
        raise RuntimeError("CUDA error: an illegal memory access")

    def half(context):
        return Outcome("half of it", errors=["the other half"])

    sections(monkeypatch, broken=broken, half=half, good=lambda context: Outcome("fine"))
    status, report = run_report(monkeypatch, tmp_path)
    assert status == 1
    assert [s["status"] for s in report["sections"]] == ["failed", "failed", "done"]
    text = (tmp_path / "report.md").read_text()
    assert "RuntimeError: CUDA error: an illegal memory access" in text
    assert "half of it" in text and "fine" in text


def test_what_does_not_fit_into_the_time_is_left_out(tmp_path, monkeypatch):
    sections(monkeypatch, long=lambda context: pytest.fail("it ran"))
    status, report = run_report(monkeypatch, tmp_path, "--minutes", "0.1")
    assert status == 0 and report["sections"][0]["status"] == "skipped"
    assert "Skipped: the time was used up (--minutes)" in (tmp_path / "report.md").read_text()


def test_no_gpu_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--output_dir", str(tmp_path / "out")])
    assert gpu_report.main() == 2
    assert "PyTorch sees no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def context(folder, device="cuda"):
    return Context(device=device, is_smoke=False, folder=folder, until=time.monotonic() + 1e3)


def measured(variant, seconds, peak=1, **failure):
    entry = Entry(variant, variant, "benchmarks.train", {"amp": "off"}, ROOT)
    return Measurement(entry, {1: seconds} if seconds else {}, 1, peak, **failure)


def test_a_plain_form_that_does_not_fit_is_measured_with_fewer_images(tmp_path, monkeypatch):
    batches = []

    def measure(context, what, variants, most_seconds, batch_size):
        batches.append((batch_size, *variants[:2]))
        if batch_size == gpu_sections.TRAINING_BATCH:
            plain = measured("plain", None, error="OutOfMemoryError", reason="memory")
        else:
            plain = measured("plain", 0.9, peak=100)
        return [plain, measured("float32", 0.4), measured("bfloat16", 0.2, peak=40)]

    monkeypatch.setattr(gpu_sections, "measure", measure)
    found = context(tmp_path)
    outcome = gpu_sections.measure_training(found)
    assert batches == [(16, "plain", "float32"), (4, "plain", "float32")]
    assert not outcome.errors and "does not fit in memory at this batch" in outcome.text
    assert [goal[2:] for goal in found.goals] == [["4.50 x", "yes"], ["0.40 x", "yes"]]


def test_a_variant_that_fails_is_an_error_of_its_section(tmp_path, monkeypatch):
    def measure(context, what, variants, most_seconds, batch_size):
        return [
            measured("plain", 0.1),
            measured("bfloat16", None, error="it broke", reason="error"),
        ]

    monkeypatch.setattr(gpu_sections, "measure", measure)
    found = context(tmp_path)
    outcome = gpu_sections.measure_evaluation(found)
    assert outcome.errors == ["evaluation at batch 24, three prompts an image, bfloat16"]
    assert "`bfloat16` failed: it broke" in outcome.text
    assert found.goals == [
        ["evaluation (bfloat16) against the plain form, images a second", ">= 3 x", "not measured"]
        + ["-"]
    ]
