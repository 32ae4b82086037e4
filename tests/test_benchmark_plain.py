"""The plain form that benchmarks compare with gives the model's numbers, and its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from benchmarks.plain import PlainCriterion, PlainUniPHD, plain_optimizer, published_operator
from small_models import all_prompts, random_batch, random_targets, small_model

from models import build_parameter_groups
from models.uniphd.ops import MSDeformAttn
from util.nested_tensor import NestedTensor


@pytest.fixture(autouse=True)
def float64(monkeypatch):
    """What the code makes is float64, and where it leaves a short format float64 stays."""

    def at_least_float32(tensor):
        return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)

    monkeypatch.setattr(torch.Tensor, "float", at_least_float32)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def precise(value):
    """Everything of a floating type in float64."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    return (
        {key: precise(inner) for key, inner in value.items()} if isinstance(value, dict) else value
    )


def both_forms(folder):
    """(model, criterion) and the plain form's, in float64, with the same weights."""
    model, criterion, _ = small_model(folder, prompt_dropout=0.0, backbone_drop_path=0.0)
    model, criterion = model.double(), criterion.double()
    plain = PlainUniPHD(copy.deepcopy(model), published_operator(torch.device("cpu")))
    return (model, criterion), (plain, PlainCriterion(criterion))


def inputs(kind):
    samples = random_batch()
    samples = NestedTensor(samples.tensors.double(), samples.mask)
    prompts = all_prompts()[kind]
    if kind != "text":
        prompts = type(prompts)(prompts.points.double())
    return samples, prompts, [precise(target) for target in random_targets()]


@pytest.mark.parametrize("kind", ["text", "scribble"])
def test_a_step_has_the_plain_forms_losses_and_gradients(tmp_path, kind):
    samples, prompts, targets = inputs(kind)
    losses, gradients = [], []
    for model, criterion in both_forms(tmp_path):
        torch.manual_seed(1)  # RoBERTa's dropout
        values = criterion(model(samples, prompts=prompts, targets=targets), targets)
        criterion.total(values).backward()
        losses.append(values)
        names = {name.replace("model.", "", 1): p for name, p in model.named_parameters()}
        gradients.append(
            {
                name.replace("mask_head.head.", "mask_head."): p.grad
                for name, p in names.items()
                if p.grad is not None
            }
        )
    assert losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name], rtol=1e-9, atol=1e-9)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(gradient / scale, other / scale, rtol=0, atol=1e-9, msg=name)


def test_predictions_are_the_plain_forms(tmp_path):
    (model, _), (plain, _) = both_forms(tmp_path)
    samples, prompts, _ = inputs("scribble")
    assert not any(isinstance(module, MSDeformAttn) for module in plain.modules())
    with torch.no_grad():
        found, expected = model.eval()(samples, prompts), plain.eval()(samples, prompts)
    for key in ("pred_logits", "pred_keypoints", "pred_boxes", "pred_masks", "pred_masks_low"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-9)


def test_the_host_reads_every_loss_and_every_tensor_has_its_group(tmp_path):
    _, (plain, criterion) = both_forms(tmp_path)
    samples, prompts, targets = inputs("scribble")
    losses = criterion(plain(samples, prompts, targets), targets)
    assert criterion.logged == {name: float(value.detach()) for name, value in losses.items()}
    model, *_ = small_model(tmp_path)
    cfg = type("cfg", (), dict(lr=1e-4, lr_backbone=1e-5, lr_text_encoder=1e-5, lr_adjacency=1e-4))
    optimizer = plain_optimizer(build_parameter_groups(model, cfg), weight_decay=0.1)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(optimizer.param_groups) == len(trained)
