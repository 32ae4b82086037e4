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
    config = {"lr": 1e-4}
    checkpoint.save(source, {"model": model.state_dict(), "config": config, "epoch": 3})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export_checkpoint.py", *map(str, arguments)])
        return export_checkpoint.main()

    assert run(source, tmp_path / "half.safetensors", "--half") == 0
    half = checkpoint.load(tmp_path / "half.safetensors")
    assert half["config"] == config and "epoch" not in half
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
