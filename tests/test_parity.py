"""The numbers of the published model, from a folder beside the project."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from small_models import REPOSITORY, SHARED

from models import build_model
from models.uniphd.matcher import Matching
from models.uniphd.prompt_encoder import PointPrompt, ScribblePrompt, TextPrompt
from util import checkpoint
from util.config import Config
from util.nested_tensor import NestedTensor

PARITY = SHARED / "parity"
SIZES = [(192, 256), (224, 160)]

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason=f"the published model's numbers are not here ({PARITY})"
)


@pytest.fixture(scope="module")
def parity():
    specification = importlib.util.spec_from_file_location("parity", PARITY / "parity.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names():
    return json.loads((PARITY / "uniphd_state_dict.json").read_text())


@pytest.fixture(scope="module")
def built(parity, names):
    cfg = Config.fromfile(REPOSITORY / "config" / "uniphd.py")
    cfg.merge_from_dict({"text_encoder": str(PARITY / "roberta"), "text_encoder_pretrained": False})
    model, criterion, postprocessor = build_model(cfg)
    published = checkpoint.to_reference(model.state_dict())
    filled = {
        name: torch.from_numpy(parity.fill(name, shape))
        if published[name].is_floating_point()
        else published[name]
        for name, shape in names.items()
    }
    checkpoint.load_weights(model, checkpoint.from_reference(filled))
    return model.eval(), criterion, postprocessor


@pytest.fixture(scope="module")
def outputs(built, parity):
    arrays, generator = parity.images(SIZES)
    captions, scribbles = parity.prompts(SIZES, generator)
    samples = NestedTensor.from_list([torch.from_numpy(array) for array in arrays])
    scribbles = torch.from_numpy(np.stack(scribbles))
    prompts = {
        "text": TextPrompt(captions),
        "scribble": ScribblePrompt(scribbles),
        "point": PointPrompt(scribbles[:, 5:6]),
    }
    with torch.inference_mode():
        return {kind: built[0](samples, prompt) for kind, prompt in prompts.items()}


def test_parameter_count(built):
    assert sum(parameter.numel() for parameter in built[0].parameters()) == 184_031_828


def test_parameter_count_with_the_decoder_of_group_pose():
    """Uni-GroupPose of Table 2."""
    cfg = Config.fromfile(REPOSITORY / "config" / "uniphd.py")
    text_encoder = {"text_encoder": str(PARITY / "roberta"), "text_encoder_pretrained": False}
    cfg.merge_from_dict({**text_encoder, "decoder": "grouppose"})
    model, *_ = build_model(cfg)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 1) == 177.7


def test_names_are_a_bijection(built, names):
    own = built[0].state_dict()
    published = checkpoint.to_reference(own)
    assert {name: list(value.shape) for name, value in published.items()} == names
    back = checkpoint.from_reference(published)
    assert list(back) and {name: value.data_ptr() for name, value in back.items()} == {
        name: value.data_ptr() for name, value in own.items()
    }


@pytest.mark.parametrize("kind", ["text", "scribble", "point"])
def test_forward(outputs, kind):
    expected = np.load(PARITY / "uniphd_forward.npz")
    got = outputs[kind]
    first = got["aux_outputs"][0]
    confidence = torch.ones(2, 20, 17).sigmoid()

    def with_confidence(keypoints):
        return torch.cat([keypoints.flatten(2), confidence], dim=-1)

    arrays = {
        "pred_logits": got["pred_logits"],
        "pred_keypoints": with_confidence(got["pred_keypoints"]),
        "pred_keypoints_visi": got["pred_keypoints_visi"],
        "pred_boxes": got["pred_boxes"],
        "layer0_keypoints": with_confidence(first["pred_keypoints"]),
        "layer0_logits": first["pred_logits"],
        "encoder_logits": got["encoder_outputs"]["pred_logits"],
        "encoder_keypoints": got["encoder_outputs"]["pred_keypoints"].flatten(2),
        "pred_masks_8": got["pred_masks"][:, :, ::8, ::8],
        "pred_masks_low_4": got["pred_masks_low"][:, :, ::4, ::4],
    }
    checked = {name for name in expected.files if name.startswith(f"{kind}/")}
    assert checked == {f"{kind}/{name}" for name in arrays}
    for name, array in arrays.items():
        tolerance = 5e-3 if "mask" in name else 1e-4
        np.testing.assert_allclose(
            array.numpy(), expected[f"{kind}/{name}"], rtol=0, atol=tolerance, err_msg=name
        )


def test_losses(built, outputs, parity):
    targets = []
    for target in parity.targets(SIZES):
        flat = torch.from_numpy(target.pop("keypoints"))
        target = {name: torch.from_numpy(value) for name, value in target.items()}
        keypoints = torch.cat([flat[:, :34].unflatten(1, (17, 2)), flat[:, 34:, None]], dim=-1)
        targets.append({**target, "keypoints": keypoints})
    found = built[0].matcher(outputs["point"], targets)
    groups = found.groups.clone()
    groups[-2] = torch.tensor([[3], [11]])
    matching = Matching(groups, found.matched)
    # Masks are of the matched groups, in the order of the people.
    masks = {
        name: outputs["point"][name].take_along_dim(groups[-2][..., None, None], dim=1)
        for name in ("pred_masks", "pred_masks_low")
    }
    losses = built[1]({**outputs["point"], **masks, "matching": matching}, targets)
    expected = json.loads((PARITY / "uniphd_losses.json").read_text())
    assert len(expected) == 10
    assert {name: losses[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)


# --- Group Pose ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group_pose(parity):
    """The model with the reference's weights, and the reference's names."""
    names = json.loads((PARITY / "grouppose_state_dict.json").read_text())
    cfg = Config.fromfile(REPOSITORY / "config" / "grouppose.py")
    cfg.merge_from_dict({"backbone": "swin_T_224_1k"})
    model, *_ = build_model(cfg)
    published = checkpoint.to_reference(model.state_dict(), model="grouppose")
    filled = {
        name: torch.from_numpy(parity.fill(name, shape))
        if published[name].is_floating_point()
        else published[name]
        for name, shape in names.items()
    }
    checkpoint.load_weights(model, checkpoint.from_reference(filled, model="grouppose"))
    return model.eval(), names


def test_group_pose_parameters(group_pose):
    model, names = group_pose
    assert sum(parameter.numel() for parameter in model.parameters()) == 49_861_430
    own = model.state_dict()
    published = checkpoint.to_reference(own, model="grouppose")
    assert {name: list(value.shape) for name, value in published.items()} == names
    back = checkpoint.from_reference(published, model="grouppose")
    assert {name: value.data_ptr() for name, value in back.items()} == {
        name: value.data_ptr() for name, value in own.items()
    }


def test_group_pose_forward(group_pose, parity):
    arrays, _ = parity.images(SIZES)
    samples = NestedTensor.from_list([torch.from_numpy(array) for array in arrays], divisor=1)
    with torch.inference_mode():
        got = group_pose[0](samples)
    expected = np.load(PARITY / "grouppose_forward.npz")
    confidence = torch.ones(2, 100, 17).sigmoid()
    proposals = got["encoder_outputs"]
    found = {
        "pred_logits": got["pred_logits"],
        "pred_keypoints": torch.cat([got["pred_keypoints"].flatten(2), confidence], dim=-1),
        "encoder_logits": proposals["pred_logits"],
        "encoder_keypoints": proposals["pred_keypoints"].flatten(2),
    }
    assert set(found) == set(expected.files)
    for name, array in found.items():
        np.testing.assert_allclose(array.numpy(), expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_published_files_are_told_apart(names, group_pose):
    assert checkpoint.recognise(names) == "uniphd"
    assert checkpoint.recognise(group_pose[1]) == "grouppose"
