"""Backbones: the published Swins, torchvision's ResNet, and what timm offers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from small_models import REPOSITORY, SHARED, random_batch, small_config, write_roberta
from torch import nn

from models import build_model
from models.backbones.build import build_backbone
from models.backbones.swin import SWIN_VARIANTS, build_swin
from util.errors import UserError
from util.nested_tensor import NestedTensor

STRIDES = (4, 8, 16, 32)
SMALL_SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
# Not a multiple of 32, and not even one of 16 (Group Pose pads to the batch's maximum only).
ODD_SIZES = ((112, 144), (75, 98))


def build(name, **changes):
    settings = dict(
        options={}, pretrained=None, drop_path=0.0, use_checkpointing=False, freeze_norm=True
    )
    return build_backbone(name=name, **{**settings, **changes})


def batch_of(size):
    """One image in a batch of exactly its size, and a smaller one."""
    generator = torch.Generator().manual_seed(1)
    smaller = (size[0] - 20, size[1] - 33)
    images = [torch.randn(3, *shape, generator=generator) for shape in (size, smaller)]
    return NestedTensor.from_list(images, divisor=1)


def check_maps(backbone, first_level=2):
    """Maps of the announced width and of ceil(side / stride), masks of the same size, gradients."""
    strides = STRIDES[first_level - 2 :]
    backbone.train()
    for height, width in ODD_SIZES:
        features = backbone(batch_of((height, width)))
        assert [tuple(f.tensors.shape) for f in features] == [
            (2, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(backbone.num_channels, strides, strict=True)
        ]
        for feature in features:
            assert feature.mask.shape == (2, *feature.tensors.shape[-2:])
            assert not feature.mask[0].any() and feature.mask[1].any()
    backbone.zero_grad()
    sum((f.tensors * torch.randn_like(f.tensors)).mean() for f in features).backward()
    # Distributed training stops where a trained parameter has none.
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained
    assert [name for name, p in trained.items() if p.grad is None] == []


def is_batch_norm(module):
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


# --- Swin ----------------------------------------------------------------------------------------


def test_swin_equals_timm():
    """Where nothing needs padding our Swin computes what timm's does, in all four stages.

    (timm rolls before it pads, the Swin authors after.)
    """
    ours = build_swin("swin_T_224_1k", {}, drop_path=0.0, use_checkpointing=False).eval()
    theirs = build("swin_tiny_patch4_window7_224").body.eval()
    generator = torch.Generator().manual_seed(0)
    state = {}
    own = ours.state_dict()
    for name in theirs.network.state_dict():
        # timm merges before a stage, the Swin authors after the one before.
        mapped = name.replace("layers_", "layers.")
        if "downsample" in mapped:
            stage = int(mapped.split(".")[1])
            mapped = mapped.replace(f"layers.{stage}", f"layers.{stage - 1}")
        value = own[mapped]
        if value.is_floating_point():
            value = torch.randn(value.shape, generator=generator) * 0.05 + (value.dim() == 1)
            own[mapped] = value
        state[name] = value
    for i in range(4):  # the published backbone norms its outputs, timm's does not
        own[f"norm{i}.weight"] = torch.ones_like(own[f"norm{i}.weight"])
        own[f"norm{i}.bias"] = torch.zeros_like(own[f"norm{i}.bias"])
    theirs.network.load_state_dict(state)
    ours.load_state_dict(own)
    image = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.inference_mode():
        for got, expected in zip(ours(image), theirs(image), strict=True):
            normed = F.layer_norm(expected.permute(0, 2, 3, 1), expected.shape[1:2])
            torch.testing.assert_close(got, normed.permute(0, 3, 1, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "width", "blocks", "window"),
    [
        ("swin_T_224_1k", 96, 6, 7),
        ("swin_B_224_22k", 128, 18, 7),
        ("swin_B_384_22k", 128, 18, 12),
        ("swin_L_224_22k", 192, 18, 7),
        ("swin_L_384_22k", 192, 18, 12),
    ],
)
def test_the_five_published_swins(name, width, blocks, window):
    with torch.device("meta"):  # shapes without memory
        swin = build_swin(name, {}, drop_path=0.2, use_checkpointing=False)
        outputs = swin(torch.empty(1, 3, 64, 96))
    assert [tuple(output.shape) for output in outputs] == [
        (1, width * 2**i, 16 // 2**i, 24 // 2**i) for i in range(4)
    ]
    assert [len(stage.blocks) for stage in swin.layers] == [2, 2, blocks, 2]
    attention = swin.layers[0].blocks[0].attn
    assert attention.relative_position_bias_table.shape == ((2 * window - 1) ** 2, width // 32)
    assert swin.layers[3].blocks[1].drop_path.p == pytest.approx(0.2)
    assert isinstance(swin.layers[0].blocks[0].drop_path, nn.Identity)


def test_stochastic_depth_draws_what_timms_does():
    """The same random stream as before, so that trainings can be repeated."""
    swin = build_swin("swin_T_224_1k", SMALL_SWIN, drop_path=0.5, use_checkpointing=False)
    ours = swin.layers[3].blocks[0].drop_path.train()
    theirs = timm.layers.DropPath(ours.p).train()
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(6, 3, 4, 5, dtype=dtype)
        torch.manual_seed(2)
        expected = theirs(x), torch.rand(1)
        torch.manual_seed(2)
        assert torch.equal(ours(x), expected[0]) and torch.equal(torch.rand(1), expected[1])


@pytest.mark.parametrize("name", ["swin_T_224_1k", "resnet50", "mobilenetv3_small_050"])
def test_without_c2(name):
    options = SMALL_SWIN if name.startswith("swin") else {}
    every = build(name, options=options)
    backbone = build(name, options=options, first_level=3)
    assert backbone.num_channels == every.num_channels[1:]
    check_maps(backbone, first_level=3)
    backbone.load_state_dict(every.state_dict(), strict=False)
    batch = random_batch()
    with torch.inference_mode():
        got, expected = backbone.eval()(batch), every.eval()(batch)[1:]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.tensors, b.tensors)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared parity files")
@pytest.mark.parametrize(("model", "first_level"), [("uniphd", 2), ("grouppose", 3)])
def test_published_names(model, first_level):
    listed = json.loads((SHARED / "parity" / f"{model}_state_dict.json").read_text())
    published = {name: shape for name, shape in listed.items() if name.startswith("backbone.0.")}
    with torch.device("meta"):
        backbone = build("swin_T_224_1k", first_level=first_level)
    own = {name: list(value.shape) for name, value in backbone.state_dict().items()}
    assert {name.replace("backbone.0.", "body."): s for name, s in published.items()} == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 3}, "a setting that Swin does not know: windows; it knows embed_dim"),
        ({"depths": 2}, r"backbone_options\.depths must be four whole numbers > 0"),
        ({"depths": [2, 2, 2]}, r"depths must be four .* got \[2, 2, 2\]"),
        ({"num_heads": [1, 2, 4, 0]}, r"num_heads must be four"),
        ({"num_heads": [5, 6, 12, 24]}, "stage 1 of width 96 cannot have 5 heads"),
        ({"embed_dim": 2.5}, r"embed_dim must be a whole number > 0, at most 4096; got 2\.5"),
        ({"window_size": 0}, "window_size must be a whole number > 0"),
        ({"mlp_ratio": "4"}, "mlp_ratio must be a number > 0, at most 16; got '4'"),
    ],
)
def test_swin_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        build("swin_T_224_1k", options=options)


def write_swin_file(path):
    """A file with the Swin authors' names: a final `norm`, a classifier, size-bound tables."""
    model = build_swin("swin_T_224_1k", SMALL_SWIN, drop_path=0.0, use_checkpointing=False)
    state = {
        name: torch.full_like(value, 0.5)
        for name, value in model.state_dict().items()
        if not name.startswith("norm")
    }
    state["layers.2.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    state |= {"norm.weight": torch.ones(128), "head.weight": torch.ones(1000, 128)}
    torch.save({"model": state}, path)
    return state


def test_imagenet_file_of_the_swin_authors(tmp_path):
    path = tmp_path / "swin.pth"
    state = write_swin_file(path)
    backbone = build("swin_T_224_1k", options=SMALL_SWIN, pretrained=str(path))
    assert (backbone.body.layers[2].blocks[1].attn.qkv.weight == 0.5).all()
    assert (backbone.body.norm2.weight == 1).all()
    index = backbone.body.layers[0].blocks[0].attn.relative_position_index
    assert index.dtype == torch.int64 and index.max() == 168
    with pytest.raises(UserError, match=r"(?s)swin\.pth: .*shape \(16,\), expected \(24,\)"):
        larger = SMALL_SWIN | {"embed_dim": 24}
        build("swin_T_224_1k", options=larger, pretrained=str(path))
    del state["patch_embed.proj.bias"]
    state["layers.0.extra"] = torch.zeros(1)
    torch.save({"model": state}, path)
    with pytest.raises(UserError, match=r"(?s)swin\.pth: .*missing: patch_embed\.proj\.bias.*unex"):
        build("swin_T_224_1k", options=SMALL_SWIN, pretrained=str(path))
    with pytest.raises(FileNotFoundError, match="no such checkpoint file"):
        build("swin_T_224_1k", options=SMALL_SWIN, pretrained=str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("swin_T_224_1k", "swin_tiny_patch4_window7_224.pth"),
        ("swin_B_224_22k", "swin_base_patch4_window7_224_22k.pth"),
        ("swin_B_384_22k", "swin_base_patch4_window12_384.pth"),
        ("swin_B_384_22k", "swin_base_patch4_window12_384_22k.pth"),
        ("swin_L_224_22k", "swin_large_patch4_window7_224_22k.pth"),
        ("swin_L_384_22k", "swin_large_patch4_window12_384_22k.pth"),
    ],
)
def test_folder_of_imagenet_files(tmp_path, name, file):
    options = SMALL_SWIN | {"window_size": 7}
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: .*{SWIN_VARIANTS[name].files[0]}"):
        build(name, options=options, pretrained=str(tmp_path))
    write_swin_file(tmp_path / file)
    backbone = build(name, options=options, pretrained=str(tmp_path))
    assert (backbone.body.patch_embed.proj.weight == 0.5).all()


# --- torchvision's ResNet ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    """(path of a torchvision file, the network it was saved from)."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    for module in network.modules():
        if is_batch_norm(module):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path_factory.mktemp("resnet") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return str(path), network.eval()


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_resnet50_is_torchvisions(resnet_file, freeze_norm):
    path, network = resnet_file
    backbone = build("resnet50", pretrained=path, freeze_norm=freeze_norm).eval()
    assert backbone.num_channels == (256, 512, 1024, 2048)
    expected = {f"body.{name}" for name in network.state_dict() if not name.startswith("fc.")}
    if freeze_norm:
        expected = {name for name in expected if not name.endswith("num_batches_tracked")}
    assert set(backbone.state_dict()) == expected
    batch = random_batch()
    with torch.inference_mode():
        x = network.maxpool(network.relu(network.bn1(network.conv1(batch.tensors))))
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        for got, layer in zip(backbone(batch), layers, strict=True):
            x = layer(x)
            torch.testing.assert_close(got.tensors, x, atol=1e-4, rtol=1e-4)


def test_resnet50_fetches_torchvisions_weights(resnet_file, monkeypatch):
    path, network = resnet_file
    asked = []

    def fetch(url, **arguments):
        asked.append(url)
        return torch.load(path, weights_only=True)

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    backbone = build("resnet50", pretrained="imagenet")
    assert torch.equal(backbone.body.layer4[2].conv3.weight, network.layer4[2].conv3.weight)
    assert "resnet50" in asked[0]

    def no_network(url, **arguments):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match="cannot be fetched .*not known.*--swin_pretrain_path"):
        build("resnet50", pretrained="imagenet")


def test_resnet50_trains_what_detr_trains():
    backbone = build("resnet50")
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    stages = {name.split(".")[1] for name in trained}
    assert stages == {"layer2", "layer3", "layer4"}
    assert all("conv" in name or "downsample.0" in name for name in trained)
    check_maps(backbone)


def test_torchvision_file_that_does_not_fit(tmp_path, resnet_file):
    path, network = resnet_file
    with pytest.raises(UserError, match=r"(?s)resnet50\.pth: .*missing: layer3\.6\.conv1"):
        build("resnet101", pretrained=path)
    state = network.state_dict()
    torch.save({**state, "extra.weight": torch.zeros(1)}, tmp_path / "extra.pth")
    with pytest.raises(UserError, match=r"(?s)extra\.pth: .*unexpected: extra\.weight"):
        build("resnet50", pretrained=str(tmp_path / "extra.pth"))
    with pytest.raises(UserError, match="is a folder; expected the file"):
        build("resnet50", pretrained=str(tmp_path))
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: expected named tensors.*epoch"):
        build("resnet50", pretrained=str(tmp_path / "other.pth"))


# --- timm ----------------------------------------------------------------------------------------

# One small network of each way in which timm gets at the maps, and of each thing that was mended.
QUICK = [
    "resnet18",
    "convnext_atto",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "densenet121",
    "hrnet_w18_small",
    "swin_tiny_patch4_window7_224",
    "pvt_v2_b0",
]
# The other families, small variants.
FAMILIES = [
    "resnet50.a1_in1k",
    "dla34",
    "xception41",
    "resnext50_32x4d",
    "resnetv2_50",
    "resnet50_gn",
    "resnest14d",
    "convnextv2_atto",
    "regnety_002",
    "efficientnet_b0",
    "efficientnetv2_rw_t",
    "mobilenetv4_conv_small",
    "vgg11_bn",
    "vgg16",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "edgenext_xx_small",
    "poolformerv2_s12",
    "caformer_s18",
    "twins_svt_small",
    "twins_pcpvt_small",
    "focalnet_tiny_srf",
    "nfnet_f0",
    "eca_nfnet_l0",
    "cspdarknet53",
    "darknet53",
    "rexnet_100",
    "fastvit_t8",
    "hieradet_small",
    "repvit_m0_9",
    "davit_tiny",
    "vovnet39a",
    "ghostnet_100",
    "tresnet_m",
    "tiny_vit_5m_224",
    "efficientvit_b0",
    "hgnet_tiny",
    "mambaout_femto",
    "swiftformer_xs",
    "rdnet_tiny",
]
SIZE = "cannot take images of every size"
REFUSED_QUICK = {
    "vit_tiny_patch16_224": "has maps at strides",
    "levit_128": "does not offer feature maps",
    "coatnet_nano_rw_224": SIZE,
    "mobilevitv2_050": "makes maps of",
}
REFUSED = {
    "vit_base_patch16_224": "has maps at strides",
    "maxvit_tiny_tf_224": SIZE,
    "maxvit_rmlp_pico_rw_256": SIZE,
    "mvitv2_tiny": SIZE,
    "hiera_tiny_224": SIZE,
    "gcvit_xxtiny": SIZE,
    "efficientformer_l1": SIZE,
    "efficientformerv2_s0": SIZE,
    "coat_tiny": SIZE,
    "inception_v3": SIZE,
    "nest_tiny": "does not offer feature maps",
    "selecsls42": "has maps at strides",
    "nextvit_small": "set backbone_freeze_norm=False",
}


@pytest.mark.parametrize("name", QUICK)
def test_timm_backbones(name):
    check_maps(build(name, drop_path=0.1))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_timm_families(name):
    check_maps(build(name, drop_path=0.1))


@pytest.mark.parametrize("name", REFUSED_QUICK)
def test_timm_networks_that_cannot_be(name):
    with pytest.raises(UserError, match=REFUSED_QUICK[name]):
        build(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_timm_families_that_cannot_be(name):
    with pytest.raises(UserError, match=REFUSED[name]):
        build(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK + FAMILIES)
def test_file_of_every_family(tmp_path, name):
    check_timm_file(tmp_path, name)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "densenet121"])
def test_timm_file(tmp_path, name):
    check_timm_file(tmp_path, name)


def check_timm_file(folder, name):
    """The file of the whole network fills all that the backbone keeps of it."""
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False)
    path = folder / "whole.pth"
    torch.save(whole.state_dict(), path)
    backbone = build(name, pretrained=str(path))
    values = list(whole.state_dict().values())
    for key, value in backbone.state_dict().items():
        same = any(v.shape == value.shape and torch.equal(v, value) for v in values)
        assert same, key


def test_timm_file_that_does_not_fit(tmp_path):
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    build("resnet18", pretrained=str(path))
    for change, message in (
        ({"extra.weight": torch.zeros(1)}, "unexpected: extra.weight"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight: shape \(64, 3, 3, 3\)"),
        ({"conv1.weight": None}, r"missing: conv1\.weight"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save(changed, path)
        with pytest.raises(UserError, match=rf"(?s)resnet18\.pth: .*{message}"):
            build("resnet18", pretrained=str(path))


def test_unknown_names():
    with pytest.raises(UserError, match=r"Unknown backbone 'resnet51'.*swin_T_224_1k"):
        build("resnet51")
    with pytest.raises(UserError, match=r"Unknown backbone 'convnext_x'.*similar: convnext"):
        build("convnext_x")


# --- settings of all backbones -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "resnet50"])
def test_frozen_norms_are_constants(name):
    backbone = build(name, freeze_norm=True).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    check_maps(backbone)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not any(is_batch_norm(module) for module in backbone.modules())
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    statistics = {n.removesuffix("running_var") for n in before if n.endswith("running_var")}
    assert len(statistics) > 10
    assert not any(norm + "weight" in trained or norm + "bias" in trained for norm in statistics)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "resnet50"])
def test_free_norms_train(name):
    backbone = build(name, freeze_norm=False).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    check_maps(backbone)
    after = backbone.state_dict()
    moved = [not torch.equal(after[k], before[k]) for k in before if k.endswith("running_var")]
    assert len(moved) > 10 and all(moved)
    norms = [m for m in backbone.modules() if is_batch_norm(m)]
    assert any(m.weight.grad is not None and m.weight.requires_grad for m in norms)


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_the_setting_arrives(tmp_path, freeze_norm):
    cfg = small_config(
        write_roberta(tmp_path / "r"),
        backbone="mobilenetv3_small_050",
        backbone_options={},
        backbone_freeze_norm=freeze_norm,
    )
    body = build_model(cfg)[0].backbone.body
    assert any(is_batch_norm(module) for module in body.modules()) != freeze_norm


def test_norms_are_frozen_unless_asked_for(tmp_path):
    assert small_config(write_roberta(tmp_path / "r")).backbone_freeze_norm is True


@pytest.mark.parametrize(
    ("name", "drop_path", "warnings"),
    [
        ("densenet121", 0.2, 1),
        ("resnet50", 0.2, 1),
        ("densenet121", 0.0, 0),
        ("resnet18", 0.2, 0),
        ("swin_T_224_1k", 0.2, 0),
    ],
)
def test_stochastic_depth_where_there_is_none(caplog, name, drop_path, warnings):
    with caplog.at_level(logging.INFO):
        backbone = build(name, drop_path=drop_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warnings
    assert all(f"backbone_drop_path=0.2 has no effect: the backbone {name}" in m for m in messages)
    rates = [getattr(m, "drop_prob", getattr(m, "p", 0)) for m in backbone.modules()]
    assert max(rates) == (0 if warnings else pytest.approx(drop_path))


@pytest.mark.parametrize(
    "name",
    [
        "swin_T_224_1k",
        "resnet50",
        "resnet18",
        "convnext_atto",
        pytest.param("hieradet_small", marks=pytest.mark.slow),
    ],
)
def test_checkpointing_changes_nothing_but_memory(name):
    options = SMALL_SWIN if name == "swin_T_224_1k" else {}
    gradients, forwards = [], []
    for on in (False, True):
        torch.manual_seed(0)
        backbone = build(name, options=options, use_checkpointing=on).train()
        calls = []
        for module in backbone.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        features = backbone(random_batch(sizes=((64, 96),)))
        once = len(calls)
        sum(f.tensors.square().mean() for f in features).backward()
        forwards.append((len(calls) - once) / once)
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.requires_grad})
    assert forwards[0] == 0 and forwards[1] > 0.5
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hrnet_w18_small", {}, "set backbone_checkpointing=False"),
        pytest.param("vgg11", {}, "set backbone_checkpointing=False", marks=pytest.mark.slow),
        ("resnet18", {"freeze_norm": False}, "move the BatchNorm statistics of 'resnet18' twice"),
        ("resnet50", {"freeze_norm": False}, "move the BatchNorm statistics of 'resnet50' twice"),
    ],
)
def test_checkpointing_that_cannot_be(name, changes, message):
    with pytest.raises(UserError, match=message):
        build(name, use_checkpointing=True, **changes)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_options_are_swins(name):
    with pytest.raises(UserError, match=r"apply to Swin only.*--options backbone_options=None"):
        build(name, options=SMALL_SWIN)


def test_a_swin_does_not_import_timm():
    code = (
        "import sys; from models.backbones.build import build_backbone; "
        "build_backbone(name='swin_T_224_1k', options={}, pretrained=None, drop_path=0.2, "
        "use_checkpointing=False, freeze_norm=True); assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
