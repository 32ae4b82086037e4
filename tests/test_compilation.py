"""torch.compile of the layers: the same numbers, the same names."""

import pytest
import torch
from small_models import all_prompts, random_batch, random_targets, small_model

import main
from models.performance.compilation import compile_layers


@pytest.mark.parametrize(
    ("mode", "static", "dynamic"), [("default", False, None), ("reduce-overhead", True, False)]
)
def test_layers_are_compiled_in_place(tmp_path, monkeypatch, mode, static, dynamic):
    model, *_ = small_model(tmp_path)
    names = list(model.state_dict())
    seen = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: seen.append((type(self).__name__, how))
    )
    compile_layers(model, mode, static_shapes=static)
    assert [name for name, _ in seen] == [
        *["SwinBlock"] * 5,
        *["DeformableEncoderLayer"] * 2,
        *["PoseCentricDecoderLayer"] * 3,
        "DynamicMaskHead",
    ]
    assert all(how == {"mode": mode, "dynamic": dynamic} for _, how in seen)
    assert list(model.state_dict()) == names


def test_other_backbones_are_compiled_as_a_whole(tmp_path, monkeypatch):
    model, *_ = small_model(tmp_path, backbone="resnet18", backbone_options=None)
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: seen.append(self))
    compile_layers(model, "default")
    assert seen[-1] is model.backbone.body


@pytest.mark.parametrize(
    ("mode", "sides"), [("off", "[]"), ("max-autotune", "[]"), ("default", "64,128")]
)
def test_the_setting_arrives(tmp_path, monkeypatch, mode, sides):
    seen = []
    monkeypatch.setattr(
        main,
        "compile_layers",
        lambda model, mode, static_shapes: seen.append((mode, static_shapes)),
    )
    monkeypatch.setattr(main.Trainer, "run", lambda trainer: None)
    arguments = ["--output_dir", str(tmp_path), "--device", "cpu"]
    assert main.main([*arguments, "--options", f"compile={mode}", f"pad_sides={sides}"]) == 0
    assert seen == ([] if mode == "off" else [(mode, sides != "[]")])


@pytest.mark.slow
@pytest.mark.parametrize("static", [False, True])
def test_compiled_layers_give_the_same_numbers(tmp_path, static):
    """For two sizes of images, in training and in evaluation, without a break in a graph."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, criterion, _ = small_model(tmp_path, prompt_dropout=0.0, backbone_drop_path=0.0)
    found = []
    for compiled in (False, True):
        if compiled:
            compile_layers(model, "default", static_shapes=static)
        for sizes in (((64, 96), (96, 64)), ((96, 96), (64, 64))):
            prompt = all_prompts(sizes)["scribble"]
            model.zero_grad()
            targets = random_targets(sizes)
            outputs = model.train()(random_batch(sizes), prompt, targets)
            total = criterion.total(criterion(outputs, targets))
            total.backward()
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in model.parameters() if p.grad is not None]
            )
            with torch.inference_mode():
                predicted = model.eval()(random_batch(sizes), prompt)
            masks = predicted["pred_masks"]
            scale = masks.abs().max()
            found.append((total.detach(), norm, predicted["pred_keypoints"], masks / scale))
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 8
    for (total, norm, keypoints, masks), got in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(got[0], total, rtol=1e-4, atol=0)
        torch.testing.assert_close(got[1], norm, rtol=1e-3, atol=0)
        torch.testing.assert_close(got[2], keypoints, rtol=0, atol=1e-4)
        torch.testing.assert_close(got[3], masks, rtol=0, atol=1e-4)
