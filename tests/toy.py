"""Models of a few weights and data sets of a few numbers, to test the loops around them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from conftest import POSE, person_annotation
from torch import nn

from datasets import build_loader
from datasets.evaluation import ReferringEvaluator
from datasets.prompts import PromptSampler, TextPrompt
from datasets.sample import Sample
from datasets.skeleton import COCO
from trainer import Evaluation, Saving, Trainer
from util import checkpoint, distributed
from util.config import Config
from util.optimization import LearningRateSchedule, Optimization
from util.run_folder import RunFolder
from util.weight_average import WeightAverage

CPU = torch.device("cpu")

HEIGHT, WIDTH = 64, 96


class ToyDataset:
    """People at places that follow from their index; colours that follow from the epoch as well."""

    has_prompts = True
    skeleton = COCO

    def __init__(self, length, training, seed=0):
        self.length, self.training, self.seed = length, training, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # with the workers

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self._epoch.fill_(epoch)

    def image_groups(self):
        """One pair per image."""
        return [[[index]] for index in range(self.length)]

    def box(self, index):
        """(x, y, width, height) in pixels."""
        return 2.0 + 5 * (index % 8), 3.0 + index % 4, 40.0, 54.0 - 2 * (index % 5)

    def __getitem__(self, index):
        generator = np.random.default_rng((self.seed, int(self._epoch), index))
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

    def make_evaluator(self):
        """A new evaluator of the people."""
        return ReferringEvaluator(self.ground_truth(), self.skeleton)

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


class PeopleEvaluator:
    """Counts people and adds up scores: what the loops need of an evaluator, and no more."""

    skeleton = COCO

    def __init__(self):
        self.results = {}

    def fresh(self, *, keep_predictions=False):
        """A new one; predictions are kept anyway."""
        return PeopleEvaluator()

    def update(self, image_ids, results):
        """Take a batch in."""
        for image_id, result in zip(image_ids, results, strict=True):
            self.results[image_id] = result["scores"].tolist()
        return results

    def synchronize(self):
        """Only the main process has anything afterwards."""
        gathered = distributed.all_gather_object(self.results)
        self.results = {}
        for results in gathered if distributed.is_main_process() else []:
            self.results.update(results)

    def summarize(self):
        """The two figures."""
        assert self.results, "of the main process alone"
        scores = [score for image_id in sorted(self.results) for score in self.results[image_id]]
        return {"keypoint_ap": sum(scores) / len(scores), "num_samples": len(self.results)}

    def predictions(self):
        """One record per person."""
        return [{"image_id": i, "score": s} for i, scores in self.results.items() for s in scores]


class ToyPeopleDataset(ToyDataset):
    """Two people in every image, nobody in every fourth; no prompts and no masks."""

    has_prompts = False

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        target = {**sample.target}
        for key in ("masks", "scribble", "caption"):
            del target[key]
        for key in ("boxes", "labels", "keypoints"):
            target[key] = target[key].repeat_interleave(0 if index % 4 == 3 else 2, dim=0)
        return Sample(sample.image, target)

    def make_evaluator(self):
        """See `ToyDataset.make_evaluator`."""
        return PeopleEvaluator()


class ToyModel(nn.Module):
    """A number per image from its colours and the prompt; each prompt kind has its own weights.

    `spoilt_id`: image whose output is NaN in training. `encoded`: how often images were encoded.
    """

    takes_prompts = True

    def __init__(self, spoilt_id=None):
        super().__init__()
        self.colors = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.2)
        self.words = nn.Linear(1, 4)
        self.points = nn.Linear(2, 4)
        self.out = nn.Linear(4, 1)
        self.spoilt_id = spoilt_id
        self.encoded = 0

    def prompt_parameters(self):
        """Of words and of points."""
        return [*self.words.parameters(), *self.points.parameters()]

    def encode_image(self, samples):
        """Mean colours [B, 3]."""
        self.encoded += 1
        return samples.tensors.mean((2, 3))

    def forward(self, samples, prompts=None, targets=None, features=None):
        colors = self.colors(self.encode_image(samples) if features is None else features)
        if isinstance(prompts, TextPrompt):
            lengths = [[len(caption) / 10] for caption in prompts.captions]
            hidden = self.words(torch.tensor(lengths))
            center = None
        else:
            hidden = self.points(prompts.points.mean(1) / 50)
            center = prompts.points.mean(1)
        value = self.out(self.dropout((colors + hidden).tanh()))[:, 0]
        if targets is not None and self.spoilt_id is not None:
            bad = torch.tensor([target["image_id"] == self.spoilt_id for target in targets])
            value = torch.where(bad, float("nan"), value)
        return {"value": value, "center": center}


class ToyPeopleModel(nn.Module):
    """A number per image from its colours alone.

    `called`: how often it was.
    """

    takes_prompts = False

    def __init__(self):
        super().__init__()
        self.colors = nn.Linear(3, 1)
        self.called = 0

    def encode_image(self, samples):
        """Mean colours [B, 3]."""
        return samples.tensors.mean((2, 3))

    def forward(self, samples, prompts=None, targets=None, features=None):
        assert prompts is None
        self.called += 1
        value = self.colors(self.encode_image(samples) if features is None else features)[:, 0]
        return {"value": value, "center": None}


class ToyCriterion(nn.Module):
    """Squared distance to a number that the image's id decides."""

    def forward(self, outputs, targets, num_people):
        wanted = torch.tensor([target["image_id"] / 10 for target in targets])
        return {
            "loss_square": ((outputs["value"] - wanted) ** 2).sum() / num_people,
            "loss_size": outputs["value"].abs().sum() / num_people,
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


def toy_loader(
    length,
    training,
    batch_size,
    rank=0,
    world_size=1,
    dataset=ToyDataset,
    accumulation_steps=1,
    num_workers=0,
):
    """The project's loader over a toy data set."""
    cfg = SimpleNamespace(
        seed=3,
        batch_size=batch_size,
        eval_batch_size=batch_size,
        num_workers=num_workers,
        pad_divisor=16,
        prompts_per_image=1,
        share_image_features=False,
        accumulation_steps=accumulation_steps,
        pad_sides=[],
    )
    return build_loader(cfg, dataset(length, training), rank, world_size)


def toy_evaluation(
    output_dir,
    length=5,
    prompts=("scribble",),
    batch_size=2,
    processes=(0, 1),
    dataset=ToyDataset,
    **files,
):
    """An evaluation of any toy model."""
    loader = toy_loader(length, False, batch_size, *processes, dataset=dataset)
    return Evaluation(
        ToyPostProcess(), loader, prompts=prompts, output_dir=output_dir, device=CPU, **files
    )


def toy_optimization(model, warmup_steps=5, clip_max_norm=0.5, amp_dtype=None, exchange=None):
    """Two groups of parameters with everything switched on."""
    parameters = list(model.parameters())
    return Optimization(
        model,
        [
            {"name": "first", "params": parameters[:1], "lr": 0.05},
            {"name": "rest", "params": parameters[1:], "lr": 0.05},
        ],
        weight_decay=0.01,
        schedule=LearningRateSchedule(drop_epochs=(2,), warmup_steps=warmup_steps),
        device=CPU,
        clip_max_norm=clip_max_norm,
        amp_dtype=amp_dtype,
        exchange=exchange,
    )


ALL_KINDS = {"text": 0.5, "scribble": 0.25, "point": 0.25}


def make_toy_trainer(
    output_dir,
    epochs,
    model=None,
    *,
    resume=None,
    overwrite=False,
    trackers=(),
    probabilities=ALL_KINDS,
    length=9,
    batch_size=2,
    processes=(0, 1),
    dataset=ToyDataset,
    eval_prompts=("scribble",),
    optimization=None,
    accumulation_steps=1,
    ema_decay=0.0,
    keep_checkpoints=2,
    log_every=2,
    note="",
    start_epoch=0,
    num_workers=0,
    **saving,
):
    """A trainer of a toy model.

    `saving` are the arguments of `Saving`, `optimization` those of `toy_optimization`; `resume` is
    a checkpoint, or the path of one.
    """
    torch.manual_seed(0)
    model = model or ToyModel()
    state = checkpoint.load(resume) if isinstance(resume, Path) else resume
    if state is not None and not isinstance(resume, Path):
        resume = output_dir / "checkpoint.pth"
    if state is not None:
        model.load_state_dict(state["model"])
    folder = RunFolder(
        output_dir,
        Config({"seed": 7}),
        resumes=resume,
        overwrite=overwrite,
        trackers=trackers,
        keep_checkpoints=keep_checkpoints,
    )
    return Trainer(
        model,
        ToyCriterion(),
        toy_loader(
            length,
            True,
            batch_size,
            *processes,
            dataset=dataset,
            accumulation_steps=accumulation_steps,
            num_workers=num_workers,
        ),
        toy_optimization(model, **(optimization or {})),
        toy_evaluation(output_dir, prompts=eval_prompts, processes=processes, dataset=dataset),
        folder,
        prompts=PromptSampler(probabilities, seed=7) if model.takes_prompts else None,
        device=CPU,
        seed=7,
        epochs=epochs,
        start_epoch=start_epoch,
        resume=state,
        saving=Saving(**{"every": 2, "eval_every": 1, **saving}),
        average=WeightAverage(model, ema_decay) if ema_decay > 0 else None,
        log_every=log_every,
        note=note,
    )


def run_toy_training(output_dir, epochs, model=None, **settings):
    """Train a toy model; returns its trainer."""
    trainer = make_toy_trainer(output_dir, epochs, model, **settings)
    trainer.run()
    return trainer


def train_without_dropout(output_dir, processes, rounds=1, length=8):
    """Train with 4 samples per step in all, by a (rank, world size); returns all weights [n]."""
    torch.manual_seed(1)
    model = ToyModel()
    model.dropout.p = 0.0
    run_toy_training(
        output_dir,
        3,
        model,
        probabilities=ALL_KINDS,
        length=length,
        batch_size=4 // (processes[1] * rounds),
        processes=processes,
        accumulation_steps=rounds,
    )
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def evaluate_toy(output_dir, batch_size, processes=(0, 1)):
    """Metrics of an untrained model on 7 samples, by prompt kind."""
    torch.manual_seed(5)
    evaluation = toy_evaluation(
        output_dir,
        length=7,
        prompts=("scribble", "point", "text"),
        processes=processes,
        batch_size=batch_size,
    )
    return evaluation.run(ToyModel())
