"""Reading, writing and converting checkpoints."""

from __future__ import annotations

import argparse
import errno
import os

import pytest
import torch
from small_models import random_batch, small_model

from models.uniphd.prompt_encoder import PointPrompt
from util import checkpoint
from util.errors import UserError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("checkpoint"))


def predict(model):
    with torch.inference_mode():
        prompt = PointPrompt(torch.full((2, 1, 2), 20.0))
        return model.eval()(random_batch(), prompt)["pred_keypoints"]


def test_reference_round_trip(built):
    own = built[0].state_dict()
    published = checkpoint.to_reference(own)
    assert "transformer.decoder.pose_embed.2.layers.0.weight" in published
    assert "backbone.0.layers.2.blocks.1.attn.qkv.weight" in published
    back = checkpoint.from_reference(published)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


def test_published_file_loads(built, tmp_path):
    """The published layout: `model` entry, an argparse.Namespace, an entry of older libraries."""
    model = built[0]
    state = checkpoint.to_reference(model.state_dict())
    state["text_encoder.text_backbone.embeddings.position_ids"] = torch.arange(32)[None]
    path = tmp_path / "published.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4, note="x")}, path)
    expected = predict(model)
    other, *_ = small_model(tmp_path, prompt_dropout=0.0)
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    checkpoint.load_weights(other, checkpoint.load(path)["model"])
    assert torch.equal(predict(other), expected)


def test_module_prefix(built, tmp_path):
    state = {f"module.{name}": value for name, value in built[0].state_dict().items()}
    torch.save({"model": state}, tmp_path / "ddp.pth")
    assert checkpoint.load(tmp_path / "ddp.pth")["model"].keys() == built[0].state_dict().keys()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_own_files_keep_everything(built, tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    payload = {"model": built[0].state_dict(), "epoch": 3, "config": {"lr": 1e-4, "a": [1, None]}}
    checkpoint.save(path, payload)
    loaded = checkpoint.load(path)
    assert loaded["epoch"] == 3 and loaded["config"] == payload["config"]
    assert all(torch.equal(loaded["model"][n], v) for n, v in payload["model"].items())
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    checkpoint.save(path, {"model": {"a": torch.ones(2)}})

    def full_disk(payload, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"last.pth: the checkpoint cannot be written: No space"):
        checkpoint.save(path, {"model": {"a": torch.zeros(2)}})
    assert torch.equal(checkpoint.load(path)["model"]["a"], torch.ones(2))
    assert os.listdir(tmp_path) == ["last.pth"]


def test_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint\['args'\]\['x'\] is a Namespace"):
        checkpoint.save(tmp_path / "a.pth", {"args": {"x": argparse.Namespace()}})
    assert os.listdir(tmp_path) == []


class Malicious:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return os.mkdir, ("this must not exist",)


def test_damaged_and_foreign_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such checkpoint"):
        checkpoint.load("absent.pth")
    torch.save({"model": {"a": torch.ones(2000)}}, "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:500])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("cut.pth", "cut.safetensors", "text.pth"):
        with pytest.raises(ValueError, match=rf"{name}: .*truncated"):
            checkpoint.load(name)
    torch.save({"model": {"a": Malicious()}}, "evil.pth")
    with pytest.raises(ValueError, match="objects other than tensors"):
        checkpoint.load("evil.pth")
    assert not (tmp_path / "this must not exist").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(ValueError, match="expected a dictionary, found list"):
        checkpoint.load("list.pth")
    torch.save({"epoch": 1, "weights": {}}, "foreign.pth")
    with pytest.raises(ValueError, match="'model' entry .* found \\['epoch', 'weights'\\]"):
        checkpoint.load("foreign.pth")
    torch.save({"model": {"transformer.unknown.weight": torch.ones(1)}}, "other.pth")
    with pytest.raises(ValueError, match=r"(?s)other\.pth: .*transformer\.unknown\.weight"):
        checkpoint.load("other.pth")


def test_doubled_heads_must_agree(built):
    published = checkpoint.to_reference(built[0].state_dict())
    name = "transformer.decoder.class_embed.1.bias"
    published[name] = published[name] + 1
    with pytest.raises(ValueError, match=r"two different values of 'class_embed\.1\.bias'"):
        checkpoint.from_reference(published)


def test_mismatches_are_listed_and_can_be_ignored(built):
    model = built[0]
    state = dict(model.state_dict())
    del state["encoder.level_embedding"]
    state["extra.weight"] = torch.ones(1)
    state["heads.class_heads.0.bias"] = torch.ones(7)
    with pytest.raises(ValueError) as error:
        checkpoint.load_weights(model, state)
    for line in (
        "3 entries that do not fit",
        "missing: encoder.level_embedding",
        "unexpected: extra.weight",
        "heads.class_heads.0.bias: shape (7,), expected (2,)",
        "--finetune_ignore",
    ):
        assert line in str(error.value)
    before = model.heads.class_heads[0].bias.clone()
    checkpoint.load_weights(model, state, ignore=["class_heads.0", "level_embedding", "extra"])
    assert torch.equal(model.heads.class_heads[0].bias, before)
