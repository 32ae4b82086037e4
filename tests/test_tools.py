"""The small programs beside the project: subsets and learning curves."""

from __future__ import annotations

import json
import sys

import contact_sheet
import export_checkpoint
import make_subset
import numpy as np
import plot_log
import probe_text
import pytest
import torch
from PIL import Image
from small_models import REPOSITORY, small_model

from datasets.refhuman import RefHuman
from datasets.synthetic import SyntheticRefHuman
from datasets.transforms import EvaluationTransform
from util import checkpoint
from util.config import DECLARATIONS, Config


def test_subset(refhuman_folder, tmp_path):
    source = refhuman_folder(pairs={"train": 6})
    output = tmp_path / "subset"
    assert make_subset.make_subset(source, output, "train", 2, 2, max_side=48) == 4
    before = json.loads((source / "RefHuman_train.json").read_text())
    after = json.loads((output / "RefHuman_train.json").read_text())
    assert after == json.loads((output / "RefHuman_val.json").read_text())
    assert len({image["file_name"] for image in after["images"]}) == 2
    originals = {image["id"]: image for image in before["images"]}
    people = {a["image_id"]: a for a in before["annotations"]}
    for image, annotation in zip(after["images"], after["annotations"], strict=True):
        original, person = originals[image["id"]], people[image["id"]]
        with Image.open(output / "images" / image["file_name"]) as file:
            assert file.size == (image["width"], image["height"])
        assert max(file.size) == 48
        x_scale = image["width"] / original["width"]
        y_scale = image["height"] / original["height"]
        assert annotation["area"] == pytest.approx(person["area"] * x_scale * y_scale)
        keypoints = np.reshape(annotation["keypoints"], (-1, 3))
        expected = np.reshape(person["keypoints"], (-1, 3)) * [x_scale, y_scale, 1]
        np.testing.assert_allclose(keypoints, expected, atol=0.01)
    data = RefHuman(
        output / "images",
        output / "RefHuman_train.json",
        EvaluationTransform(48),
        training=True,
    )
    assert len(data) == 4 and data[0].target["masks"].any()
    assert sorted(map(len, data.image_groups())) == [2, 2]


def test_images_of_one_name_in_two_folders_stay_two(refhuman_folder, tmp_path):
    def change(content, split):
        for number, image in enumerate(content["images"]):
            image["file_name"] = f"{'ab'[number // 2 % 2]}/one.jpg"

    source = refhuman_folder(pairs={"train": 4}, change=change)
    images = source / "images"
    for number, name in enumerate("ab"):
        (images / name).mkdir()
        (images / f"train_{number:03d}.jpg").rename(images / name / "one.jpg")
    output = tmp_path / "subset"
    make_subset.make_subset(source, output, "train", 2, 2, max_side=48)
    assert {path.name for path in (output / "images").iterdir()} == {"one.png", "one_2.png"}
    after = json.loads((output / "RefHuman_train.json").read_text())["images"]
    assert sorted(image["file_name"] for image in after) == ["one.png"] * 2 + ["one_2.png"] * 2


def test_subset_needs_enough_images(refhuman_folder, tmp_path, monkeypatch, capsys):
    source = refhuman_folder(pairs={"train": 1})
    arguments = ["make_subset.py", "--input", str(source), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    assert make_subset.main() == 2
    assert "Only 0 images have at least 2 people" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def record(epoch):
    metrics = {"keypoint_ap": 0.1 * epoch, "identity_accuracy": 0.5, "identity_chance": 0.4}
    return {
        "epoch": epoch,
        "step": 10 * (epoch + 1),
        "lr": {"rest": 1e-4},
        "train": {"loss_ce": 1.0 / (epoch + 1), "loss_dice": 0.5},
        **({"eval": {"text": metrics, "point": metrics}} if epoch % 2 else {}),
    }


def test_curves(tmp_path, monkeypatch, capsys):
    lines = "\n".join(json.dumps(record(epoch)) for epoch in range(4))
    (tmp_path / "log.txt").write_text(lines + '\n{"epoch": 4, "tr')  # cut off while writing
    monkeypatch.setattr(sys, "argv", ["plot_log.py", str(tmp_path)])
    assert plot_log.main() == 0
    with Image.open(tmp_path / "curves.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
    monkeypatch.setattr(sys, "argv", ["plot_log.py", str(tmp_path / "nowhere" / "log.txt")])
    assert plot_log.main() == 2
    assert "does not exist; give the output folder" in capsys.readouterr().err


def write_run(folder, epochs, average=False):
    """An output folder with a log."""
    records = [record(epoch) for epoch in range(epochs)]
    for one in records:
        if average and "eval" in one:
            better = {
                **one["eval"]["text"],
                "keypoint_ap": one["eval"]["text"]["keypoint_ap"] + 0.5,
            }
            one["eval_average"] = {"text": better, "point": better}
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (folder / "log.txt").write_text(lines + '{"epoch": 4, "tr')  # one more is being written
    return folder


def curves_of(monkeypatch, *arguments):
    """What plot_log.py draws: {panel: {label: (steps, values)}}."""
    panels = {}

    def look(figure, *_, **__):
        for axis in figure.axes:
            if axis.get_visible():
                lines = {line.get_label(): line for line in axis.get_lines()}
                panels[axis.get_title()] = {
                    label: (list(line.get_xdata()), list(line.get_ydata()))
                    for label, line in lines.items()
                }

    monkeypatch.setattr(sys, "argv", ["plot_log.py", *map(str, arguments)])
    with monkeypatch.context() as patch:
        patch.setattr(
            plot_log.plt.Figure,
            "savefig",
            lambda figure, path, **_: (look(figure), path.write_bytes(b"")),
        )
        assert plot_log.main() == 0
    return panels


def test_curves_of_several_trainings(tmp_path, monkeypatch, capsys):
    first = write_run(tmp_path / "runs" / "first", 4)
    second = write_run(tmp_path / "runs" / "second", 6, average=True)
    started = write_run(tmp_path / "runs" / "started", 0)
    panels = curves_of(monkeypatch, first, second / "log.txt", started)
    assert (
        f"Left out: {started / 'log.txt'} holds no finished epoch yet." in capsys.readouterr().err
    )
    assert list(panels) == [
        "largest learning rate",
        "loss_ce",
        "loss_dice",
        "keypoint AP, text",
        "keypoint AP, point",
        "right person (images with several), text",
        "right person (images with several), point",
    ]
    assert list(panels["loss_ce"]) == ["first", "second"]
    assert panels["loss_ce"]["first"] == ([10, 20, 30, 40], [1, 1 / 2, 1 / 3, 1 / 4])
    assert panels["keypoint AP, text"] == {
        "first": ([20, 40], pytest.approx([0.1, 0.3])),
        "second": ([20, 40, 60], pytest.approx([0.1, 0.3, 0.5])),
        "second, averaged weights": ([20, 40, 60], pytest.approx([0.6, 0.8, 1.0])),
    }
    figures = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert list(figures) == ["first", "second"]
    assert (figures["second"]["epoch"], figures["second"]["step"]) == (5, 60)
    assert figures["first"]["train"]["loss_ce"] == 0.25
    assert figures["first"]["evaluated"] == {"epoch": 3, "step": 40}
    assert figures["second"]["eval_average"]["point"]["keypoint_ap"] == 1.0
    # The training that has an average alone, and folders of the same name.
    alone = curves_of(monkeypatch, second)
    assert alone["keypoint AP"]["text, averaged weights"] == (
        [20, 40, 60],
        pytest.approx([0.6, 0.8, 1]),
    )
    other = write_run(tmp_path / "others" / "first", 2)
    panels = curves_of(monkeypatch, first, other, "--output", tmp_path / "out.png")
    assert list(panels["loss_ce"]) == [str(first), str(other)]
    assert (tmp_path / "out.png").is_file() and (tmp_path / "out.json").is_file()


def test_several_trainings_of_which_none_can_be_shown(tmp_path, monkeypatch, capsys):
    started = [write_run(tmp_path / name, 0) for name in "ab"]
    other = tmp_path / "c.txt"
    other.write_text("[]\n")
    for logs, message in (
        (started, "None of the trainings has a finished epoch yet"),
        ([*started, other], "c.txt is not the log.txt of a training"),
        ([*started, tmp_path / "nowhere"], "nowhere does not exist; give the output folder"),
    ):
        monkeypatch.setattr(sys, "argv", ["plot_log.py", *map(str, logs)])
        assert plot_log.main() == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "comparison.png").exists()


def test_contact_sheet_of_images(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        Image.new("RGB", (80, 40), color).save(folder / f"{i}.png")
    sheet = tmp_path / "sheet.png"
    arguments = ["--output", str(sheet), "--side", "20", "--columns", "2"]
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *arguments, "--images", str(folder)])
    contact_sheet.main()
    with Image.open(sheet) as image:
        assert image.size == (2 * 40 + 4, 2 * 20 + 4)
        centers = [image.getpixel(place) for place in ((20, 10), (64, 10), (20, 34))]
    assert centers == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *arguments, "--images", "nowhere"])
    with pytest.raises(FileNotFoundError, match="--images has to be a folder"):
        contact_sheet.main()
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", *arguments, "--images", empty])
    with pytest.raises(ValueError, match="empty: nothing to draw from image 0 on"):
        contact_sheet.main()


def test_export(tmp_path, monkeypatch, capsys):
    model, *_ = small_model(tmp_path)
    source = tmp_path / "checkpoint.pth"
    config = {"lr": 3e-4}
    checkpoint.save(source, {"model": model.state_dict(), "config": config, "epoch": 3})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export_checkpoint.py", *map(str, arguments)])
        return export_checkpoint.main()

    assert run(source, tmp_path / "half.safetensors", "--half") == 0
    half = checkpoint.load(tmp_path / "half.safetensors")
    # Settings that came later have today's values, so that loading has nothing to fill in.
    today = Config.fromfile(DECLARATIONS).to_dict()
    assert half["config"] == {**today, **config} and "epoch" not in half
    name = "heads.class_heads.0.weight"
    assert half["model"][name].dtype == torch.float16
    torch.testing.assert_close(
        half["model"][name].float(), model.state_dict()[name], atol=1e-3, rtol=1e-3
    )
    checkpoint.load_weights(model, half["model"])
    assert model.heads.class_heads[0].weight.dtype == torch.float32
    assert run(source, tmp_path / "average.pth", "--average") == 2
    assert "holds no averaged weights" in capsys.readouterr().err
    averaged = {key: torch.full_like(value, 2) for key, value in model.state_dict().items()}
    state = {**checkpoint.load(source), "average": {"steps": 5, "model": averaged}}
    checkpoint.save(tmp_path / "both.pth", state)
    assert run(tmp_path / "both.pth", tmp_path / "average.pth", "--average") == 0
    assert bool((checkpoint.load(tmp_path / "average.pth")["model"][name] == 2).all())
    assert run(source, tmp_path / "published.pth", "--published") == 0
    published = torch.load(tmp_path / "published.pth", weights_only=True)["model"]
    assert "transformer.decoder.class_embed.0.weight" in published
    assert run(source, tmp_path / "published.safetensors", "--published") == 0
    again = checkpoint.read_file(tmp_path / "published.safetensors")["model"]
    assert again.keys() == published.keys()
    assert all(torch.equal(value, published[name]) for name, value in again.items())
    assert run(tmp_path / "published.pth", tmp_path / "x.pth") == 2
    assert "holds no settings" in capsys.readouterr().err


def test_probe_tells_captions_that_mean_the_person_from_shuffled_ones(
    tmp_path, monkeypatch, capsys
):
    output = tmp_path / "report.json"
    arguments = ["probe_text.py", "--length", "24", "--device", "cpu", "--output", str(output)]
    checkpoint_file = REPOSITORY / "weights" / "uniphd_tiny.safetensors"
    monkeypatch.setattr(sys, "argv", [*arguments, "--checkpoint", str(checkpoint_file)])
    assert probe_text.main() == 0
    report = json.loads(output.read_text())
    assert "shuffled" in capsys.readouterr().out
    several = report["several"]
    assert several["num_samples"] == report["shuffled"]["num_samples"]
    kinds = [report[kind]["num_samples"] for kind in probe_text.KINDS]
    assert several["num_samples"] == sum(kinds) and min(kinds[:3]) > 0
    assert several["identity_accuracy"] > report["shuffled"]["identity_accuracy"] + 0.1
    assert several["identity_chance"] != report["shuffled"]["identity_chance"] < 0.8


def test_probe_shuffles_among_the_people_of_the_image():
    dataset = SyntheticRefHuman(
        EvaluationTransform(96),
        training=False,
        length=6,
        image_size=(96, 96),
        num_people=(3, 3),
        difficulty=0.0,
    )
    others = 0
    for index, image in enumerate(dataset.ground_truth()["images"]):
        captions = {dataset.generator.pair(index, turn)[1]["caption"] for turn in range(3)}
        shuffled = probe_text.shuffled_caption(dataset, index)
        assert shuffled in captions and shuffled == probe_text.shuffled_caption(dataset, index)
        others += shuffled != image["caption"]
    assert others >= 2
