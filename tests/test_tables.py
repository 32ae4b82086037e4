"""The paper's tables: published figures, and ours beside them from hand-made run folders."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
import table as table_program
from launch import ROOT
from tables import comparison, page
from tables.outcomes import SMOKE_NOTE, Outcome, is_finished, read_outcome, read_statistics
from tables.published import RUNS, STATISTICS, TABLES, find_table
from tables.smoke import smoke_config

from util.config import DECLARATIONS, Config
from util.errors import UserError
from util.logging import write_json

SCRIPTS = sorted((ROOT / "scripts" / "tables").glob("table*.sh"))

METRICS = {
    "text": {"keypoint_ap": 0.671, "mask_ap": 0.6201, "pckh": 0.79, "oiou": 0.75},
    "scribble": {"keypoint_ap": 0.7449, "mask_ap": 0.7, "pckh": 0.904, "oiou": 0.857},
    "point": {"keypoint_ap": 0.735, "mask_ap": 0.689, "pckh": 0.887, "oiou": 0.831},
}


def write_training(folder, config="config/uniphd.py", done=None, metrics=METRICS, **changes):
    """A training's folder; `done` epochs of it are in the log, the last one evaluated."""
    folder.mkdir(parents=True)
    cfg = Config.fromfile(ROOT / config)
    cfg.merge_from_dict({"backbone_pretrained": "swin.pth", **changes})
    cfg.dump(folder / "config.py")
    note = changes.get("note", "")
    records = [
        {"epoch": epoch, "step": 10 * (epoch + 1), "seconds": 2.0, "lr": {}, "train": {}}
        for epoch in range(cfg.epochs if done is None else done)
    ]
    if records and done is None and metrics is not None:
        records[-1]["eval"] = metrics
    (folder / "log.txt").write_text("".join(json.dumps(r) + "\n" for r in records))
    entry = {
        "command": "python main.py",
        "exit": "finished",
        "note": note,
        "parameters": 184031828,
        "batch": {"samples_per_step": 16},
        "device": "cuda:0 (NVIDIA)",
        "processes": 4,
        "versions": {"commit": "abc", "changed": False, "torch": "2"},
    }
    write_json(folder / "run.json", [{"exit": "SIGTERM"}, entry])
    return folder


def write_evaluation(folder, config="config/uniphd.py", metrics=METRICS, weights=None, **entry):
    """An evaluation's folder."""
    folder.mkdir(parents=True)
    Config.fromfile(ROOT / config).dump(folder / "config_eval.py")
    write_json(folder / "eval.json", metrics)
    weights = {"file": "/a/b.pth", "epochs_done": 20, "epochs": 20, **(weights or {})}
    entry = {"exit": "finished", "weights": weights, "parameters": 184031828, **entry}
    write_json(folder / "run_eval.json", [entry])
    return folder


def outcome(folder, name="uniphd", smoke=False):
    return read_outcome(folder, RUNS[name], smoke=smoke)


def run_table(monkeypatch, capsys, *arguments):
    """Status and what was printed, of tools/table.py."""
    monkeypatch.setattr(sys, "argv", ["table.py", *map(str, arguments)])
    status = table_program.main()
    return status, capsys.readouterr()


# --- what was published --------------------------------------------------------------------------


def test_published_figures_fit_together():
    full = TABLES[6].rows[-1].published
    assert full == (66.7, 62.2, 74.7, 70.0)
    for number in (6, 7, 8, 10, 11):
        rows = [row for row in TABLES[number].rows if row.run == "uniphd"]
        assert [row.published for row in rows] == [full], number
        # The full model is the best one, or the ablation is a larger model.
        if number != 11:
            for row in TABLES[number].rows:
                pairs = zip(row.published, full, strict=True)
                assert all(ours <= best for ours, best in pairs if ours is not None)
    of_uniphd = {row.variant: row.published for row in TABLES[2].rows if row.run == "uniphd"}
    assert (of_uniphd["text"][0], of_uniphd["text"][3]) == full[:2]
    assert (of_uniphd["scribble"][0], of_uniphd["scribble"][3]) == full[2:]
    # The selection of Table 2's quoted Group Pose is the last one of Table 5.
    quoted = next(row for row in TABLES[2].rows if row.labels[0] == "Group Pose Swin-T")
    assert quoted.run is None and quoted.published[0] == TABLES[5].rows[-1].published[0] == 72.0
    # Parts are at most as many as the whole, and the whole at most as many as its parts.
    *parts, whole, _ = (row.published for row in TABLES[1].rows)
    for column in range(3):
        assert max(p[column] for p in parts) <= whole[column] <= sum(p[column] for p in parts)


def test_every_table_is_complete():
    assert list(TABLES) == list(range(1, 12))
    for table in TABLES.values():
        for row in table.rows:
            assert len(row.labels) == len(table.heads)
            assert len(row.published) == len(table.columns)
            assert row.run is None or row.run in RUNS or row.run == STATISTICS
            for column in table.columns:
                is_count = table.number == 1 or column.metric == "parameters"
                assert row.run is None or row.variant or column.variant or is_count
    with pytest.raises(UserError, match="1 to 11; got 12"):
        find_table(12)


def test_the_scripts_run_what_their_tables_need():
    assert len(SCRIPTS) == 11
    for script, table in zip(SCRIPTS, TABLES.values(), strict=True):
        text = script.read_text().replace("\\\n", " ")
        assert script.name.startswith(f"table{table.number:02d}_")
        assert f"begin {table.number} " in text and text.endswith("\ntable\n")
        runs = dict(re.findall(r"^(?:run|train) (\S+) +(\S+)", text, re.M))
        assert list(runs) == table.trainings()
        assert sorted(re.findall(r"^run (\S+)", text, re.M)) == sorted(
            name for name in table.runs() if name in RUNS and RUNS[name].evaluates is None
        )
        evaluations = re.findall(r"^evaluate (\S+) (\S+) (\S+)", text, re.M)
        assert {name: run for name, run, _ in evaluations} == {
            name: RUNS[name].evaluates
            for name in table.runs()
            if name in RUNS and RUNS[name].evaluates
        }
        for name, config in (*runs.items(), *((name, config) for name, _, config in evaluations)):
            assert config == RUNS[name].config


# --- one run -------------------------------------------------------------------------------------


def test_a_finished_training(tmp_path):
    found = outcome(write_training(tmp_path / "uniphd"))
    assert (found.lack, found.remarks, found.metrics) == ("", (), METRICS)
    assert found.parameters == 184031828
    source = found.source
    assert (source["kind"], source["epochs"], source["steps"]) == ("training", 20, 200)
    assert (source["training_seconds"], source["commit"], source["seed"]) == (40.0, "abc", 42)
    assert is_finished(tmp_path / "uniphd")


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ({"done": 12}, "12 of 20 epochs done"),
        ({"done": 0}, "0 of 20 epochs done"),
        ({"metrics": None}, "the evaluation after its last epoch is missing"),
    ],
)
def test_an_unfinished_training_gives_no_figure(tmp_path, changes, lack):
    folder = write_training(tmp_path / "uniphd", **changes)
    write_json(folder / "eval.json", METRICS)  # of an earlier epoch
    found = outcome(folder)
    assert (found.lack, found.metrics) == (lack, {})
    assert not is_finished(folder)


def test_what_is_not_there_or_broken_gives_no_figure(tmp_path):
    assert outcome(tmp_path / "nothing").lack == "not run"
    assert not is_finished(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert outcome(tmp_path / "empty").lack == "not run"
    folder = write_training(tmp_path / "uniphd")
    (folder / "log.txt").write_text("3\n")
    assert "is not the log of a training" in outcome(folder).lack
    (folder / "log.txt").write_bytes(b"\xff\xfe")
    assert "is no text" in outcome(folder).lack
    (folder / "config.py").write_text("lr = = 3")
    assert "SyntaxError" in outcome(folder).lack
    (folder / "config.py").unlink()
    assert "does not exist" in outcome(folder).lack
    assert not is_finished(folder)
    broken = write_evaluation(tmp_path / "evaluation")
    (broken / "eval.json").write_text("{")
    assert "cannot be read" in outcome(broken).lack
    write_json(broken / "eval.json", [1])
    assert "holds no evaluation" in outcome(broken).lack


def test_a_log_that_was_cut_off_is_unfinished(tmp_path):
    folder = write_training(tmp_path / "uniphd")
    text = (folder / "log.txt").read_text()
    (folder / "log.txt").write_text(text[:-40])
    assert outcome(folder).lack == "19 of 20 epochs done"


def test_other_settings_stand_beside_the_figure(tmp_path):
    free = {"batch_size": 2, "num_workers": 0, "coco_path": "/data", "seed": 3}
    assert outcome(write_training(tmp_path / "a", **free)).remarks == ()
    found = outcome(write_training(tmp_path / "b", epochs=2, **{"loss_weights.dice": 1.0}))
    assert any("epochs = 2 instead of 20" in remark for remark in found.remarks)
    assert any(remark.startswith("loss_weights") for remark in found.remarks)
    found = outcome(write_training(tmp_path / "c", backbone_pretrained=None))
    assert found.remarks == ("trained without ImageNet weights",)
    folder = write_training(tmp_path / "d")
    write_json(folder / "run.json", [{"batch": {"samples_per_step": 32}}])
    assert outcome(folder).remarks == ("32 samples a step instead of 16",)
    # The same settings are another table's.
    found = outcome(write_training(tmp_path / "e", "config/uniphd_coco.py"))
    assert found.lack == "its data set is coco_prompted instead of refhuman"


def test_smoke_runs_stay_among_themselves(tmp_path):
    folder = write_training(tmp_path / "uniphd", epochs=2)
    lines = (folder / "log.txt").read_text().splitlines()
    lines[-1] = json.dumps({**json.loads(lines[-1]), "note": SMOKE_NOTE})
    (folder / "log.txt").write_text("\n".join(lines))
    assert "must not be compared" in outcome(folder).lack
    assert outcome(folder, smoke=True).metrics == METRICS
    folder = write_evaluation(tmp_path / "evaluation", note=SMOKE_NOTE)
    assert "must not be compared" in outcome(folder).lack
    assert outcome(folder, smoke=True).metrics == METRICS


def test_an_evaluation_of_a_checkpoint(tmp_path):
    found = outcome(write_evaluation(tmp_path / "a"))
    assert found.remarks == ()
    line = comparison.origin(found.source)
    assert line == "evaluation of a/b.pth, 20 of 20 epochs"
    found = outcome(write_evaluation(tmp_path / "b", weights={"epochs_done": 3}))
    assert found.remarks == ("the checkpoint is of an unfinished training: 3 of 20 epochs",)
    published = write_evaluation(tmp_path / "c", weights={"epochs_done": None, "epochs": None})
    assert outcome(published).remarks == () and outcome(published).metrics == METRICS
    assert outcome(write_evaluation(tmp_path / "d", exit=None)).lack == (
        "the evaluation has not finished (it goes on, or was killed)"
    )
    found = outcome(write_evaluation(tmp_path / "e", exit="SIGTERM"))
    assert found.lack == "the evaluation has not finished (SIGTERM)"
    folder = write_evaluation(tmp_path / "f")
    write_json(folder / "run_eval.json", [{"exit": "finished", "weights": None}])
    assert outcome(folder).lack == "the evaluation was of an untrained model"


def test_an_evaluation_is_done_again_for_another_checkpoint(tmp_path):
    checkpoint = tmp_path / "checkpoint.pth"
    checkpoint.write_text("")
    folder = write_evaluation(tmp_path / "a", weights={"file": str(checkpoint)})
    assert is_finished(folder, checkpoint)
    other = tmp_path / "other.pth"
    other.write_text("")
    assert not is_finished(folder, other)
    later = (folder / "eval.json").stat().st_mtime + 10
    os.utime(checkpoint, (later, later))  # it was trained on
    assert not is_finished(folder, checkpoint)
    assert not is_finished(folder, tmp_path / "gone.pth")


def test_statistics_of_both_files_together(tmp_path):
    for split, factor in (("train", 100), ("val", 1)):
        counts = {"images": 2 * factor, "instances": 3 * factor, "expressions": 4 * factor}
        (tmp_path / split).mkdir()
        write_json(tmp_path / split / "statistics.json", {"table_1": counts, "file": split})
    assert read_statistics(tmp_path).metrics == {
        "": {"images": 202, "instances": 303, "expressions": 404}
    }
    (tmp_path / "val" / "statistics.json").write_text("[]")
    assert "is not of tools/dataset_stats.py" in read_statistics(tmp_path).lack
    (tmp_path / "val" / "statistics.json").unlink()
    assert "val/statistics.json is missing" in read_statistics(tmp_path).lack


# --- a whole table -------------------------------------------------------------------------------


def test_a_table_with_ours_quoted_and_missing_rows(tmp_path, monkeypatch, capsys):
    runs, output = tmp_path / "runs", tmp_path / "table02"
    write_training(runs / "uniphd")
    write_training(runs / "uni_grouppose", done=7, decoder="grouppose")
    status, printed = run_table(monkeypatch, capsys, 2, "--runs", runs, "--output", output)
    assert status == 1  # something is missing
    text = (output / "table.md").read_text()
    assert text in printed.out and "SMOKE" not in text
    lines = text.splitlines()
    row = lines.index("| UniPHD | text | published | 66.7 | 79.0 | 75.0 | 62.2 | 184.0 |")
    assert lines[row + 1] == "|  |  | ours | 67.1 | 79.0 | 75.0 | 62.0 | 184.0 |"
    assert lines[row + 2] == "|  |  | difference | +0.4 | +0.0 | +0.0 | −0.2 | +0.0 |"
    assert "| Group Pose Swin-T | true box | quoted | 72.0 | – | – | – | – |" in lines
    assert "| RefHCM (published later) | text | quoted | 66.8 | – | – | – | 500.0 |" in lines
    assert "- `uni_grouppose`: 7 of 20 epochs done" in lines
    assert "- `uni_edpose`: not run" in lines
    assert "- `uniphd`: 20 epochs, 200 steps, 4 × cuda:0 (NVIDIA), commit abc" in lines
    row = lines.index("| Uni-ED-Pose | text | published | 65.3 | 78.3 | 74.5 | 61.5 | 175.7 |")
    assert lines[row + 1] == "|  |  | ours | missing | missing | missing | missing | missing |"
    record = json.loads((output / "table.json").read_text())
    assert (record["table"], record["smoke"], record["warning"]) == (2, False, None)
    assert record["runs"]["uniphd"]["commit"] == "abc" and "commit" in record["made_with"]
    by_label = {tuple(row["labels"]): row for row in record["rows"]}
    cell = by_label["UniPHD", "scribble"]["cells"]["pose AP"]
    assert cell == {"published": 74.7, "ours": 74.5, "difference": -0.2}
    assert by_label["UniPHD", "point"]["status"] == "done"
    assert by_label["Uni-GroupPose", "point"]["status"] == "missing"
    assert by_label["ED-Pose Swin-L", "true box"]["status"] == "quoted"
    assert {lack["run"] for lack in record["missing"]} == {"uni_grouppose", "uni_edpose"}
    assert (output / "table.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in output.iterdir()) == ["table.json", "table.md", "table.png"]


def test_a_table_whose_runs_are_all_there(tmp_path, monkeypatch, capsys):
    runs = tmp_path / "runs"
    write_training(runs / "uniphd")
    write_training(runs / "groups_5", num_groups=5)
    elsewhere = write_training(tmp_path / "mine", num_groups=10, epochs=4)
    arguments = ("--runs", runs, "--output", tmp_path, "--run", f"groups_10={elsewhere}")
    status, _ = run_table(monkeypatch, capsys, 10, *arguments)
    assert status == 0
    text = (tmp_path / "table.md").read_text()
    assert "Missing" not in text and "Quoted" not in text
    assert "|  | ours¹ | 67.1 | 62.0 | 74.5 | 70.0 |" in text
    assert "¹ groups_10: epochs = 4 instead of 20." in text


def test_a_smoke_table_says_so_everywhere(tmp_path, monkeypatch, capsys):
    folder = write_training(tmp_path / "runs" / "uniphd", epochs=1)
    status, printed = run_table(
        monkeypatch, capsys, 8, "--runs", folder.parent, "--output", tmp_path, "--smoke"
    )
    assert status == 1
    assert printed.out.startswith("# Table 8: Where queries start – SMOKE RUN")
    assert "must not be compared" in printed.out
    assert "| ours (smoke) | 67.1 |" in printed.out and "| difference (smoke) |" in printed.out
    record = json.loads((tmp_path / "table.json").read_text())
    assert record["smoke"] and "must not be compared" in record["warning"]


def test_an_evaluation_without_a_prompt_lacks_its_column(tmp_path, monkeypatch, capsys):
    metrics = {"text": {**METRICS["text"], "mask_ap": -1}}
    folder = write_training(tmp_path / "uniphd", metrics=metrics)
    run_table(monkeypatch, capsys, 8, "--runs", folder.parent, "--output", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "|  | ours | 67.1 | missing | missing | missing |" in text
    assert (
        "- `uniphd`: full: its evaluation has no text mask AP, scribble pose AP, scribble mask AP"
        in text
    )


def test_a_table_stays_whole_when_the_disk_is_full(tmp_path, monkeypatch, capsys):
    folder = write_training(tmp_path / "runs" / "uniphd")
    arguments = (8, "--runs", folder.parent, "--output", tmp_path / "out")
    run_table(monkeypatch, capsys, *arguments)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    status, printed = run_table(monkeypatch, capsys, *arguments)
    assert status == 2 and "No space left on device" in printed.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


# --- checkpoints that are given ------------------------------------------------------------------


def test_checkpoints_by_order_and_by_name(tmp_path, monkeypatch, capsys):
    files = [tmp_path / name for name in ("a.pth", "b.pth")]
    for file in files:
        file.write_text("")
    arguments = ("given", 2, files[0], f"uni_edpose={files[1]}")
    status, printed = run_table(monkeypatch, capsys, *arguments)
    assert status == 0
    # The first without a name is UniPHD's, as long as UniPHD is in the table.
    assert printed.out.split() == [f"uniphd={files[0]}", f"uni_edpose={files[1]}"]
    assert TABLES[11].trainings()[0] == "uniphd"
    assert TABLES[9].trainings() == ["uniphd_coco"]
    assert TABLES[5].trainings() == ["grouppose"]


# --- smoke size ----------------------------------------------------------------------------------


def test_smoke_size_keeps_what_a_configuration_changes():
    small = smoke_config(ROOT / "config" / "uniphd.py").to_dict()
    assert small == Config.fromfile(ROOT / "config" / "smoke.py", DECLARATIONS).to_dict()
    paper = Config.fromfile(DECLARATIONS).to_dict()
    for name, run in RUNS.items():
        config = Config.fromfile(ROOT / run.config, DECLARATIONS).to_dict()
        own = {key for key in config if config[key] != paper[key]}
        changed = smoke_config(ROOT / run.config).to_dict()
        assert name == "uniphd" or changed != small, name
        if run.config.startswith("config/ablation/"):
            assert {key for key in small if changed[key] != small[key]} == own, name
    groups = [
        smoke_config(ROOT / "config" / "ablation" / f"groups_{n}.py").num_groups for n in (5, 10)
    ]
    assert groups == [small["num_groups"] // 4, small["num_groups"] // 2]
    wide = smoke_config(ROOT / "config" / "ablation" / "hidden_dim_384.py")
    assert wide.hidden_dim == small["hidden_dim"] * 3 // 2


# --- the page ------------------------------------------------------------------------------------


def test_the_page_takes_full_tables_before_smoke_ones(tmp_path, monkeypatch, capsys):
    runs = write_training(tmp_path / "runs" / "uniphd").parent
    full, smoke = tmp_path / "full", tmp_path / "smoke"
    run_table(monkeypatch, capsys, 8, "--runs", runs, "--output", full / "table08")
    for number in (8, 10):
        output = smoke / f"table{number:02d}"
        run_table(monkeypatch, capsys, number, "--runs", runs, "--output", output, "--smoke")
    results = tmp_path / "results.md"
    results.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n")
    for _ in range(2):  # the second time changes nothing
        status, _ = run_table(
            monkeypatch, capsys, "page", "--tables", full, smoke, "--output", results
        )
        assert status == 0
        text = results.read_text()
        assert text.startswith(f"before\n\n{page.BEGIN}\n\n### Table 1")
        assert text.endswith(f"{page.END}\n\nafter\n")
        assert "old" not in text
        assert "### Table 8: Where queries start\n" in text
        assert "### Table 10: Groups of queries – SMOKE RUN\n" in text
        assert "### Table 9" in text and text.count("Not run yet.") == 9


def test_a_record_that_lacks_something_is_refused(tmp_path):
    folder = tmp_path / "table08"
    folder.mkdir()
    write_json(folder / "table.json", {"table": 8})
    with pytest.raises(UserError, match="is not what tools/table.py writes"):
        page.read_tables([tmp_path])
    write_json(folder / "table.json", {"table": 9})
    with pytest.raises(UserError, match="is of table 9"):
        page.read_tables([tmp_path])


def test_quoted_rows_are_not_missing():
    nothing = {name: Outcome(lack="not run") for name in TABLES[2].runs()}
    record = comparison.compare(TABLES[2], nothing, smoke=False)
    assert {row["status"] for row in record["rows"]} == {"missing", "quoted"}
    assert len(record["missing"]) == 3
