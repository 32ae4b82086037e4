"""Normalisation of whole batches: torchvision's numbers, wherever the batch is."""

from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from util import normalization
from util.images import IMAGENET_MEAN, IMAGENET_STD
from util.nested_tensor import NestedTensor
from util.normalization import normalize_batch, normalize_images


def random_bytes(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def expected_of(images):
    return F.normalize(F.to_dtype(images, scale=True), IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
    "images",
    [
        random_bytes(3, 20, 31),
        random_bytes(20, 31, 3).permute(2, 0, 1),  # as decoders leave it
        random_bytes(2, 3, 20, 31)[..., :17],
        torch.arange(256, dtype=torch.uint8).expand(3, 2, 256),
    ],
)
def test_images_are_normalised_as_torchvision_does(images):
    normalized = normalize_images(images)
    assert normalized.dtype == torch.float32 and normalized.is_contiguous()
    assert torch.equal(normalized, expected_of(images))
    assert torch.equal(normalization._arithmetic(images), normalized)  # what a GPU does


def batch_of_bytes():
    """Two images of different sizes, three samples."""
    batch = NestedTensor.from_list([random_bytes(3, 20, 31), random_bytes(3, 24, 17)])
    return replace(batch, image_of_sample=torch.tensor([0, 0, 1]))


def check_batch(device):
    batch = batch_of_bytes().to(device)
    normalized = normalize_batch(batch)
    assert normalized.tensors.device.type == device and normalized.tensors.dtype == torch.float32
    inside = ~batch.mask[:, None].expand(-1, 3, -1, -1)
    values, expected = normalized.tensors[inside], expected_of(batch.tensors)[inside]
    torch.testing.assert_close(values, expected, rtol=0, atol=0 if device == "cpu" else 1e-6)
    assert normalized.tensors[~inside].eq(0).all()
    assert torch.equal(normalized.mask, batch.mask)
    assert normalized.image_of_sample.tolist() == [0, 0, 1]
    assert normalize_batch(normalized) is normalized  # floats are normalised already


def test_batches_are_normalised_and_their_padding_stays_zero():
    check_batch("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_normalised_on_the_gpu_too():
    check_batch("cuda")
