"""Samples of one image share a single backbone pass: the same numbers, half of the work."""

import dataclasses

import pytest
import torch
from small_models import CAPTIONS, SMALL, random_images, random_targets, small_model

from datasets import build_dataset, build_loader
from datasets.prompts import ScribblePrompt, TextPrompt
from datasets.sample import Sample, collate
from models import build_model
from util.config import DECLARATIONS, Config

# Two images of two samples each, one of a single sample: which image is whose.
IMAGE_OF_SAMPLE = [0, 0, 1, 2, 2]
SIZES = [(64, 96), (96, 64), (96, 80)]


def samples_of_images():
    images = random_images(SIZES)
    targets = random_targets([SIZES[i] for i in IMAGE_OF_SAMPLE])
    pairs = zip(IMAGE_OF_SAMPLE, targets, strict=True)
    return [Sample(images[i].clone(), target) for i, target in pairs]


def prompts_of(kind):
    if kind == "text":
        return TextPrompt([CAPTIONS[i % 2] for i in range(len(IMAGE_OF_SAMPLE))])
    generator = torch.Generator().manual_seed(4)
    points = 60 * torch.rand(len(IMAGE_OF_SAMPLE), 12, 2, generator=generator, dtype=torch.float64)
    return ScribblePrompt(points)


def in_float64(samples):
    return dataclasses.replace(samples, tensors=samples.tensors.double())


def test_a_batch_holds_every_image_once():
    samples = samples_of_images()
    apart, targets = collate(samples)
    shared, same_targets = collate(samples, share_images=True)
    assert all(a is b for a, b in zip(targets, same_targets, strict=True))
    assert apart.image_of_sample is None
    assert shared.image_of_sample.tolist() == IMAGE_OF_SAMPLE
    assert shared.tensors.shape == (3, 3, 96, 96)
    (spread,) = shared.for_samples([shared])
    assert torch.equal(spread.tensors, apart.tensors) and torch.equal(spread.mask, apart.mask)
    assert torch.equal(shared.sizes, apart.sizes)
    assert torch.equal(shared.to("cpu").image_of_sample, shared.image_of_sample)
    assert shared.to("meta").image_of_sample.is_meta


def test_only_the_same_pixels_of_neighbours_are_shared():
    samples = samples_of_images()
    changed = samples[1].image.clone()
    changed[2, -1, -1] += 1e-3
    samples[1] = Sample(changed, samples[1].target)
    batch, _ = collate([*samples, samples[0]], share_images=True)
    assert batch.image_of_sample.tolist() == [0, 1, 2, 3, 3, 4]
    batch, _ = collate(samples[:3], share_images=True)
    assert batch.image_of_sample is None


@pytest.mark.parametrize("kind", ["text", "scribble"])
def test_outputs_and_gradients_are_those_of_images_of_their_own(tmp_path, kind):
    model, *_ = small_model(tmp_path, prompt_dropout=0.0, backbone_drop_path=0.0)
    model = model.double().train()
    model.prompt_encoder.eval()  # RoBERTa has dropout of its own
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].mask)))
    found = []
    for share in (False, True):
        batch, targets = collate(samples_of_images(), share_images=share)
        model.zero_grad()
        outputs = model(in_float64(batch), prompts_of(kind), targets)
        values = [outputs[key] for key in ("pred_logits", "pred_keypoints", "pred_masks")]
        # Another weight for every sample, so that none stands for its neighbour.
        weights = torch.linspace(1, 2, len(IMAGE_OF_SAMPLE), dtype=torch.float64)
        sum((value.sin().flatten(1).mean(1) * weights).sum() for value in values).backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((values, gradients))
    assert seen == [5, 3]
    (values, gradients), (shared_values, shared_gradients) = found
    for value, shared in zip(values, shared_values, strict=True):
        torch.testing.assert_close(shared, value, rtol=1e-9, atol=1e-9)
    assert gradients.keys() == shared_gradients.keys()
    assert gradients["backbone.body.patch_embed.proj.weight"].abs().sum() > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-8, atol=1e-10)


def tiny_loader(**changes):
    cfg = Config.fromfile(DECLARATIONS.parent / "uniphd_tiny.py")
    small = dict(train_length=8, val_length=8, image_size=[64, 64], curriculum=[])
    settings = {"batch_size": 4, "eval_batch_size": 4, "num_workers": 0, **changes}
    cfg.merge_from_dict({**{f"synthetic.{name}": v for name, v in small.items()}, **settings})
    return {split: build_loader(cfg, build_dataset(cfg, split)) for split in ("train", "val")}


def test_the_tiny_training_shares_and_its_samples_are_the_same():
    apart, shared = (tiny_loader(share_image_features=share) for share in (False, True))
    default = next(iter(tiny_loader()["train"]))[0]
    assert default.image_of_sample.tolist() == [0, 0, 1, 1]
    for (whole, targets), (batch, same) in zip(apart["train"], shared["train"], strict=True):
        assert whole.image_of_sample is None and batch.image_of_sample.tolist() == [0, 0, 1, 1]
        (spread,) = batch.for_samples([batch])
        assert torch.equal(spread.tensors, whole.tensors) and torch.equal(spread.mask, whole.mask)
        for target, other in zip(targets, same, strict=True):
            assert (target["image_id"], target["caption"]) == (other["image_id"], other["caption"])
    assert next(iter(shared["val"]))[0].image_of_sample is None


def test_batches_of_the_loader_have_the_asked_for_sizes():
    shapes = {s: next(iter(b))[0].mask.shape[1:] for s, b in tiny_loader(pad_sides=[80]).items()}
    assert shapes == {"train": (80, 80), "val": (128, 128)}


def test_a_model_without_prompts_takes_shared_images():
    cfg = Config.fromfile(DECLARATIONS.parent / "grouppose.py")
    cfg.merge_from_dict({**SMALL, "num_results": 5, "backbone": "swin_T_224_1k"})
    cfg.backbone_drop_path = 0.0
    model = build_model(cfg)[0].train()
    batch, targets = collate(samples_of_images(), share_images=True)
    outputs = model(batch, targets=targets)
    whole = model(collate(samples_of_images())[0], targets=targets)
    torch.testing.assert_close(outputs["pred_keypoints"], whole["pred_keypoints"])
