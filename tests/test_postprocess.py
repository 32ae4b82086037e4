"""Results in original pixels: masks that are made one image after the other, and their memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.uniphd import postprocess
from models.uniphd.postprocess import PostProcess, resize_masks

SEEN = torch.tensor([[40, 60], [48, 30], [48, 64]])  # in a batch of 48 x 64
ORIGINAL = torch.tensor([[80, 121], [48, 30], [20, 25]])  # larger, the same, smaller


def random_outputs(groups=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(3, groups, *shape, generator=generator).to(dtype)

    return {
        "pred_logits": random(2),
        "pred_boxes": random(4).sigmoid(),
        "pred_keypoints": random(17, 2).sigmoid(),
        "pred_masks": random(48, 64),
    }


def plain_masks(logits, seen, original):
    """Crop, bilinear, threshold, as REFERENCE.md has it."""
    logits = logits[None, :, : seen[0], : seen[1]].float()
    resized = F.interpolate(logits, size=tuple(original), mode="bilinear", align_corners=False)
    return resized[0].sigmoid() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_results", [2, 6, 12])
def test_masks_are_those_of_the_chosen_groups(num_results, dtype):
    outputs = random_outputs(dtype=dtype)
    before = outputs["pred_masks"].clone()
    results = PostProcess(num_results)(outputs, ORIGINAL, SEEN)
    assert len(results) == 3
    order = outputs["pred_logits"].float().sigmoid().flatten(1).topk(num_results).indices // 2
    for i, result in enumerate(results):
        expected = plain_masks(outputs["pred_masks"][i], SEEN[i].tolist(), ORIGINAL[i].tolist())
        assert torch.equal(result["masks"], expected[order[i]])
        assert torch.equal(result["masks"], results[i]["masks"])
        assert not result["masks"].requires_grad
    assert torch.equal(outputs["pred_masks"], before)
    with pytest.raises(IndexError):
        results[3]


def test_masks_of_large_images_are_resized_in_pieces(monkeypatch):
    logits = random_outputs()["pred_masks"][0]
    expected = resize_masks(logits, [40, 60], [80, 121])
    sizes = []
    original = postprocess._resize
    monkeypatch.setattr(
        postprocess,
        "_resize",
        lambda values, size: (sizes.append(len(values)), original(values, size))[1],
    )
    for pixels, pieces in ((1, [1] * 6), (4 * 80 * 121, [4, 2])):
        monkeypatch.setattr(postprocess, "_PIXELS_AT_ONCE", pixels)
        assert torch.equal(resize_masks(logits, [40, 60], [80, 121]), expected)
        assert sizes == pieces
        sizes.clear()


def test_only_the_masks_of_one_image_are_there_at_a_time(monkeypatch):
    made = []
    original = postprocess.resize_masks
    monkeypatch.setattr(
        postprocess, "resize_masks", lambda *given: (made.append(1), original(*given))[1]
    )
    results = PostProcess(6)(random_outputs(), ORIGINAL, SEEN)
    assert not made
    for i, result in enumerate(results):
        assert len(made) == i + 1
        assert set(result) == {"scores", "labels", "boxes", "keypoints", "masks", "mask_sums"}
