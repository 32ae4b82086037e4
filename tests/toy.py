"""A model of a few weights and a data set of a few numbers, to test the loops around them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from conftest import POSE, person_annotation
from torch import nn

import engine
from datasets import build_loader
from datasets.sample import Sample
from models.uniphd.prompt_encoder import TextPrompt

HEIGHT, WIDTH = 64, 96


class ToyDataset:
    """People at places that follow from their index; colours that follow from the epoch as well."""

    def __init__(self, length, training, seed=0):
        self.length, self.training, self.seed, self.epoch = length, training, seed, 0

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self.epoch = epoch

    def image_groups(self):
        """One pair per image."""
        return [[[index]] for index in range(self.length)]

    def box(self, index):
        """(x, y, width, height) in pixels."""
        return 2.0 + 5 * (index % 8), 3.0 + index % 4, 40.0, 54.0 - 2 * (index % 5)

    def __getitem__(self, index):
        generator = np.random.default_rng((self.seed, self.epoch, index))
        image = torch.from_numpy(generator.normal(size=(3, HEIGHT, WIDTH)).astype(np.float32))
        x, y, width, height = self.box(index)
        annotation = person_annotation((x, y, width, height), index + 1, index)
        keypoints = torch.ones(1, 17, 3)
        keypoints[0, :, :2] = torch.from_numpy(
            (POSE * (width, height) + (x, y)) / (WIDTH, HEIGHT)
        ).float()
        mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
        mask[0, int(y) : int(y + height), int(x) : int(x + width)] = True
        target = {
            "boxes": torch.tensor(
                [
                    [
                        (x + width / 2) / WIDTH,
                        (y + height / 2) / HEIGHT,
                        width / WIDTH,
                        height / HEIGHT,
                    ]
                ]
            ),
            "labels": torch.ones(1, dtype=torch.int64),
            "keypoints": keypoints,
            "masks": mask,
            "scribble": torch.tensor(annotation["scribble"]).float().reshape(5, 12, 2)[0],
            "caption": "x" * (index + 1),
            "image_id": index + 1,
            "size": torch.tensor([HEIGHT, WIDTH]),
            "orig_size": torch.tensor([HEIGHT, WIDTH]),
        }
        return Sample(image, target)

    def ground_truth(self):
        """COCO-style dict."""
        return {
            "images": [
                {"id": i + 1, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH}
                for i in range(self.length)
            ],
            "annotations": [person_annotation(self.box(i), i + 1, i) for i in range(self.length)],
            "categories": [{"id": 1, "name": "person"}],
        }


class ToyModel(nn.Module):
    """A number per image from its colours and the prompt; each prompt kind has its own weights.

    `spoilt_id`: image whose output is NaN in training.
    """

    def __init__(self, spoilt_id=None):
        super().__init__()
        self.colors = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.2)
        self.words = nn.Linear(1, 4)
        self.points = nn.Linear(2, 4)
        self.out = nn.Linear(4, 1)
        self.spoilt_id = spoilt_id

    def backbone(self, samples):
        """Mean colours [B, 3]."""
        return samples.tensors.mean((2, 3))

    def forward(self, samples, prompt, targets=None, features=None):
        colors = self.colors(self.backbone(samples) if features is None else features)
        if isinstance(prompt, TextPrompt):
            lengths = [[len(caption) / 10] for caption in prompt.captions]
            hidden = self.words(torch.tensor(lengths))
            center = None
        else:
            hidden = self.points(prompt.points.mean(1) / 50)
            center = prompt.points.mean(1)
        value = self.out(self.dropout((colors + hidden).tanh()))[:, 0]
        if targets is not None and self.spoilt_id is not None:
            bad = torch.tensor([target["image_id"] == self.spoilt_id for target in targets])
            value = torch.where(bad, float("nan"), value)
        return {"value": value, "center": center}


class ToyCriterion(nn.Module):
    """Squared distance to a number that the image's id decides."""

    def forward(self, outputs, targets):
        wanted = torch.tensor([target["image_id"] / 10 for target in targets])
        return {
            "loss_square": ((outputs["value"] - wanted) ** 2).mean(),
            "loss_size": outputs["value"].abs().mean(),
        }

    def total(self, losses):
        return losses["loss_square"] + 0.1 * losses["loss_size"]


class ToyPostProcess(nn.Module):
    """Two people per image: one about the prompt's place, one elsewhere."""

    def forward(self, outputs, target_sizes, image_sizes):
        results = []
        for i, value in enumerate(outputs["value"]):
            center = (
                torch.tensor([40.0, 30.0]) if outputs["center"] is None else outputs["center"][i]
            )
            shift = value.clamp(-2, 2)
            size = torch.tensor([40.0, 50.0])
            corners = torch.stack([center - size / 2 + shift, center + 5 * shift])
            pose = torch.from_numpy(POSE).float()
            keypoints = torch.ones(2, 17, 3)
            keypoints[:, :, :2] = pose * size + corners[:, None]
            masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
            for mask, (x, y) in zip(masks, corners.clamp(min=0).int().tolist(), strict=True):
                mask[y : y + 50, x : x + 40] = True
            results.append(
                {
                    "scores": torch.stack([value.sigmoid(), torch.tensor(0.3)]),
                    "labels": torch.ones(2, dtype=torch.int64),
                    "boxes": torch.cat([corners, corners + size], dim=1),
                    "keypoints": keypoints,
                    "masks": masks,
                }
            )
        return results


def toy_loader(length, training, batch_size, rank=0, world_size=1):
    """The project's loader over a `ToyDataset`."""
    cfg = SimpleNamespace(
        seed=3,
        batch_size=batch_size,
        eval_batch_size=batch_size,
        num_workers=0,
        pad_divisor=16,
        prompts_per_image=1,
    )
    return build_loader(cfg, ToyDataset(length, training), rank, world_size)


def toy_evaluation(length=5, kinds=("scribble",), rank=0, world_size=1, batch_size=2):
    """What `engine.train` evaluates with."""
    loader = toy_loader(length, False, batch_size, rank, world_size)
    return engine.Evaluation(loader, loader.dataset.ground_truth(), kinds)


def toy_settings(epochs, **changes):
    """Settings of a short training with everything switched on."""
    values = {
        "epochs": epochs,
        "prompts": engine.PromptSampler({"text": 0.5, "scribble": 0.25, "point": 0.25}, seed=7),
        "schedule": engine.LearningRateSchedule(drop_epochs=(2,), warmup_steps=5),
        "clip_max_norm": 0.5,
        "amp": False,
        "log_every": 2,
        "checkpoint_every": 2,
        "eval_every": 1,
        **changes,
    }
    return engine.Training(**values)


def run_toy_training(
    output_dir, settings, model=None, resume=None, length=9, batch_size=2, processes=(0, 1)
):
    """Train a toy model; returns it with its optimizer."""
    torch.manual_seed(0)
    model = model or ToyModel()
    if resume is not None:
        model.load_state_dict(resume["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    engine.train(
        model,
        ToyCriterion(),
        ToyPostProcess(),
        optimizer,
        toy_loader(length, True, batch_size, *processes),
        toy_evaluation(rank=processes[0], world_size=processes[1]),
        settings,
        device=torch.device("cpu"),
        output_dir=output_dir,
        config={"seed": 7},
        resume=resume,
    )
    return model, optimizer


def train_without_dropout(output_dir, processes):
    """Train with 4 samples per step in all, by a (rank, world size); returns all weights [n]."""
    torch.manual_seed(1)
    model = ToyModel()
    model.dropout.p = 0.0
    prompts = engine.PromptSampler({"text": 0.5, "scribble": 0.5}, seed=7)
    model, _ = run_toy_training(
        output_dir,
        toy_settings(3, prompts=prompts),
        model=model,
        length=8,
        batch_size=4 // processes[1],
        processes=processes,
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def evaluate_toy(output_dir, batch_size, processes=(0, 1)):
    """Metrics of an untrained model on 7 samples, by prompt kind."""
    torch.manual_seed(5)
    evaluation = toy_evaluation(
        length=7,
        kinds=("scribble", "point", "text"),
        rank=processes[0],
        world_size=processes[1],
        batch_size=batch_size,
    )
    device = torch.device("cpu")
    return engine.evaluate_all(ToyModel(), ToyPostProcess(), evaluation, device, output_dir)
