"""Which results of a multi-person model count for one person: rules, figures, the whole way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from conftest import write_refhuman
from launch import ROOT, run_python
from small_models import SMALL
from toy import (
    CPU,
    ToyDataset,
    ToyModel,
    ToyPeopleModel,
    ToyPostProcess,
    toy_evaluation,
    toy_loader,
)

import engine
import main
from datasets.evaluation import ReferringEvaluator, Selection, parse_selections
from models import build_model
from util import checkpoint
from util.config import Config
from util.errors import UserError

TABLE_5 = ["none", "l1", "iou@0.3", "intersection@0.5", "intersection@0.3"]

# --- the rules -----------------------------------------------------------------------------------

TRUE_BOX = (10, 20, 40, 50)  # x, y, width, height: (10, 20) to (50, 70), 2000 square pixels

# Corners of a result's box; its intersection with the true box, union, L1 distance by hand.
BOXES = {
    "upper part": ((10, 20, 50, 40), 800, 2000, 30),  # IoU 0.4, share 0.4
    "around": ((0, 10, 60, 80), 2000, 4200, 40),  # IoU 0.476, share 1
    "right part": ((40, 20, 50, 70), 500, 2000, 30),  # IoU 0.25, share 0.25
    "corner": ((30, 45, 130, 145), 500, 11500, 20 + 25 + 80 + 75),  # IoU 0.04, share 0.25
    "beside": ((50, 20, 90, 70), 0, 4000, 80),  # touches the edge
    "everything": ((0, 0, 200, 200), 2000, 40000, 310),  # IoU 0.05, share 1
    "a point": ((30, 45, 30, 45), 0, 2000, 20 + 25 + 20 + 25),  # in the middle
    "a line": ((10, 45, 50, 45), 0, 2000, 25 + 25),  # across it
}
NAMES = list(BOXES)


def pose_in(left, top, right, bottom):
    """[17, 3]: two keypoints in opposite corners of a box, the others inside."""
    pose = np.full((17, 3), 0.7)
    pose[:, 0] = np.linspace(left, right, 17)
    pose[:, 1] = np.linspace(bottom, top, 17)
    return pose


def chosen(text, names=NAMES, scores=None, true_box=TRUE_BOX):
    poses = np.array([pose_in(*BOXES[name][0]) for name in names]).reshape(-1, 17, 3)
    scores = np.linspace(0.9, 0.1, len(names)) if scores is None else np.array(scores)
    places = Selection.parse(text).choose(poses, scores, np.array(true_box, dtype=np.float64))
    assert places.dtype == np.int64
    return [names[place] for place in places]


def test_the_figures_by_hand_are_right():
    """Of BOXES: by counting pixels."""
    x, y, width, height = TRUE_BOX
    true = np.zeros((200, 200), dtype=bool)
    true[y : y + height, x : x + width] = True
    for name, ((left, top, right, bottom), intersection, union, distance) in BOXES.items():
        found = np.zeros_like(true)
        found[top:bottom, left:right] = True
        assert ((found & true).sum(), (found | true).sum()) == (intersection, union), name
        edges = np.abs(np.subtract((left, top, right, bottom), (x, y, x + width, y + height)))
        assert edges.sum() == distance, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", NAMES),
        (None, NAMES),
        ("iou@0.3", ["upper part", "around"]),
        ("iou@0.25", ["upper part", "around", "right part"]),
        ("iou@0.4", ["upper part", "around"]),  # the first exactly
        ("iou@0.41", ["around"]),
        ("iou@0.5", []),
        ("iou@1", []),
        ("intersection@0.5", ["around", "everything"]),
        ("intersection@0.4", ["upper part", "around", "everything"]),  # the first exactly
        ("intersection@0.3", ["upper part", "around", "everything"]),
        ("intersection@0.25", ["upper part", "around", "right part", "corner", "everything"]),
        ("intersection@1", ["around", "everything"]),
        ("l1", ["upper part"]),
    ],
)
def test_worked_examples(text, expected):
    assert chosen(text) == expected
    # Each is judged by itself: the order that comes is the order that goes, whatever the scores.
    backwards = NAMES[::-1]
    if text != "l1":
        assert chosen(text, backwards) == expected[::-1]
        assert chosen(text, scores=np.linspace(0.1, 0.9, len(NAMES))) == expected


def test_of_equally_near_results_the_highest_score_decides_then_the_order():
    near = ["right part", "upper part", "around"]  # 30, 30, 40
    assert chosen("l1", near, [0.5, 0.4, 0.9]) == ["right part"]
    assert chosen("l1", near, [0.4, 0.5, 0.9]) == ["upper part"]
    assert chosen("l1", near, [0.5, 0.5, 0.9]) == ["right part"]
    assert chosen("l1", near[::-1], [0.9, 0.5, 0.5]) == ["upper part"]
    # However far it is: l1 leaves one wherever there is one.
    assert chosen("l1", ["everything"]) == ["everything"]
    assert chosen("l1", ["a line", "a point"]) == ["a line"]


@pytest.mark.parametrize("text", TABLE_5)
def test_nobody_to_choose_from(text):
    assert chosen(text, []) == []


def test_a_true_box_without_an_area_is_nobodys():
    for box in ((10, 20, 0, 50), (10, 20, 40, 0), (10, 20, 0, 0)):
        assert chosen("iou@0.0001", true_box=box) == chosen("intersection@0.0001", true_box=box)
        assert chosen("iou@0.0001", true_box=box) == []
        assert len(chosen("l1", true_box=box)) == 1 and chosen("none", true_box=box) == NAMES


def test_who_has_the_overlap_has_the_intersection():
    """A union is never smaller than the true box: iou@T chooses some of intersection@T's."""
    generator = np.random.default_rng(0)
    poses = generator.uniform(0, 100, (300, 17, 3))
    poses[:, :, :2] = poses[:, :1, :2] + poses[:, :, :2] * generator.uniform(0, 1, (300, 1, 1))
    box, scores = np.array([30.0, 30.0, 80.0, 60.0]), np.zeros(300)
    for threshold in (0.1, 0.3, 0.5):
        fewer = Selection("iou", threshold).choose(poses, scores, box)
        more = Selection("intersection", threshold).choose(poses, scores, box)
        assert set(fewer) < set(more) and len(fewer) > 0


# --- names ---------------------------------------------------------------------------------------


def test_names():
    assert [s.name for s in parse_selections([None, *TABLE_5[1:]])] == TABLE_5
    assert (
        Selection.parse("iou@.50") == Selection("iou", 0.5) and Selection.parse("l1").name == "l1"
    )
    assert Selection.parse(Selection.parse("iou@1e-1").name) == Selection("iou", 0.1)
    assert parse_selections([]) == ()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["L1"], "Unknown rule 'L1' in select_results; expected none, l1, iou@T or .* 'l1'"),
        (["intersect@0.3"], "Did you mean 'intersection'"),
        (["iou:0.3"], "with a threshold T, such as intersection@0.3. Did you mean 'iou'"),
        ([""], "Unknown rule ''"),
        (["l1@0.3"], "'l1' has no threshold; got 'l1@0.3'. Write 'l1'"),
        (["none@"], "'none' has no threshold"),
        (["iou"], "'iou' needs a threshold above 0 and at most 1, such as iou@0.3; got 'iou'"),
        (["intersection@"], "'intersection' needs a threshold"),
        (["iou@0"], "above 0 and at most 1"),  # everything
        (["iou@30"], "above 0 and at most 1"),  # nothing: percent
        (["iou@nan"], "above 0 and at most 1"),
        (["iou@half"], "above 0 and at most 1"),
        (["l1", "iou@0.3", "iou@0.30"], "names 'iou@0.3' twice"),
        ([None, "none"], "names 'none' twice"),
    ],
)
def test_names_that_are_none(texts, message):
    with pytest.raises(UserError, match=message):
        parse_selections(texts)


# --- what is judged ------------------------------------------------------------------------------

HEIGHT, WIDTH = 400, 500


def truth_of(*people):
    """A pair for each (box, pose [17, 3]): an image of its own, the mask its box."""
    images, annotations = [], []
    for number, (box, pose) in enumerate(people, start=1):
        x, y, width, height = box
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": number, "file_name": f"{number}.jpg", **size})
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "bbox": list(box),
                "area": float(width * height),
                "segmentation": [corners],
                "keypoints": pose.ravel().tolist(),
            }
        )
    return {"images": images, "annotations": annotations}


def results_of(*poses, labels=None, **more):
    """Results (score, pose [17, 3])."""
    found = np.array([pose for _, pose in poses]).reshape(-1, 17, 3)
    return {
        "scores": torch.tensor([float(score) for score, _ in poses]),
        "labels": torch.tensor([1] * len(poses) if labels is None else labels),
        "keypoints": torch.from_numpy(found).float(),
        **more,
    }


def summaries(truth, results, texts=TABLE_5):
    evaluator = ReferringEvaluator(truth)
    figures = {}
    for text in texts:
        selecting = evaluator.selecting(Selection.parse(text))
        selecting.update(list(results), list(results.values()))
        figures[text] = selecting.summarize()
    return figures


def visible(pose, keypoints=slice(None)):
    labelled = np.zeros_like(pose)
    labelled[keypoints] = pose[keypoints]
    labelled[keypoints, 2] = 2
    return labelled


def table_5_by_hand():
    """Six people for whom every rule of Table 5 is better than the one before, and why.

    All poses are quite right or quite wrong, the right ones have the score 0.9, and in every image
    two other people are found with scores above it.
    """
    true_box = (100, 100, 100, 100)
    others = [(0.99, pose_in(300, 20, 380, 120)), (0.98, pose_in(300, 200, 380, 300))]
    inside = pose_in(110, 110, 190, 190)  # share and IoU 0.64, L1 distance 40
    # A bad pose of low score whose box is nearer: L1 distance 20
    bad = pose_in(105, 105, 195, 195)[::-1]
    # Two people of whom the head alone is in the image's frame or labelled: the pose goes on below.
    tall = pose_in(110, 110, 160, 390)  # inside 50 x 90: share 0.45, IoU 4500 / 19500
    taller = pose_in(110, 110, 180, 390)  # inside 70 x 90: share 0.63, IoU 6300 / 23300
    heads = [np.flatnonzero(pose[:, 1] < 200) for pose in (tall, taller)]
    people = [
        (true_box, visible(inside)),
        *[(true_box, visible(inside))] * 3,
        (true_box, visible(taller, heads[1])),
        (true_box, visible(tall, heads[0])),
    ]
    found = [[(0.9, inside)], *[[(0.9, inside), (0.2, bad)]] * 3, [(0.9, taller)], [(0.9, tall)]]
    results = {number: results_of(*others, *own) for number, own in enumerate(found, start=1)}
    return truth_of(*people), results


def test_the_order_of_table_5_by_hand():
    figures = summaries(*table_5_by_hand())
    average_precisions = {text: summary["keypoint_ap"] for text, summary in figures.items()}
    # none: all six are found, after twelve others: 6 of 18 at best. l1: three of six, the bad poses
    # after them. iou@0.3: four, for the tall ones do not overlap enough. intersection: five, six.
    # Recalls 0, 0.01, ... 1: up to 3/6 there are 51, up to 4/6 67, up to 5/6 84.
    expected = [6 / 18, 51 / 101, 67 / 101, 84 / 101, 1]
    assert list(average_precisions) == TABLE_5
    assert list(average_precisions.values()) == pytest.approx(expected)
    # And the highest-scoring result of those that are left:
    assert [figures[text]["found"] for text in TABLE_5] == pytest.approx(
        [0, 3 / 6, 4 / 6, 5 / 6, 1]
    )


def test_a_crowd_and_a_perfect_model_turn_the_order_round():
    """Where nobody is missed, it decides who else is let in: by score before the right poses."""
    true_box = (100, 100, 100, 100)
    others = [(0.99, pose_in(300, 20, 380, 120)), (0.98, pose_in(300, 200, 380, 300))]
    inside = pose_in(110, 110, 190, 190)  # L1 distance 40, nearer than all neighbours
    neighbours = [
        [],
        [pose_in(100, 90, 200, 150)],  # share 0.5, IoU 5000 / 11000
        [pose_in(100, 0, 160, 400)],  # share 0.6, IoU 6000 / 28000
        [pose_in(165, 0, 200, 400)],  # share 0.35, IoU 3500 / 20500
    ]
    results = {
        number: results_of(*others, *((0.95, pose[::-1]) for pose in near), (0.9, inside))
        for number, near in enumerate(neighbours, start=1)
    }
    figures = summaries(truth_of(*[(true_box, visible(inside))] * 4), results)
    # All four are found every time, after none, one, two or three others, and all eleven.
    expected = {"none": 4 / 15, "l1": 1, "iou@0.3": 4 / 5, "intersection@0.5": 4 / 6}
    expected["intersection@0.3"] = 4 / 7
    assert {text: figures[text]["keypoint_ap"] for text in TABLE_5} == pytest.approx(expected)


def test_results_that_are_no_people_are_never_chosen():
    pose = pose_in(110, 110, 190, 190)
    truth = truth_of(((100, 100, 100, 100), visible(pose)))
    # The nearest and best is of the other class, the same group's other result.
    result = results_of((0.9, pose), (0.5, pose), (0.4, pose_in(0, 0, 90, 90)), labels=[0, 1, 1])
    for text in ("l1", "iou@0.3"):
        evaluator = ReferringEvaluator(truth, keep_predictions=True)
        selecting = evaluator.selecting(Selection.parse(text))
        (counted,) = selecting.update([1], [result])
        assert counted["scores"].tolist() == [0.5] and counted["labels"].tolist() == [1]
        assert [record["score"] for record in selecting.predictions()] == [0.5]
        assert selecting.summarize()["keypoint_ap"] == pytest.approx(1)


def test_choosing_comes_before_the_twenty_best_count():
    pose = pose_in(110, 110, 190, 190)
    truth = truth_of(((100, 100, 100, 100), visible(pose)))
    crowd = [(0.9, pose_in(300, 20, 380, 120))] * 120
    figures = summaries(truth, {1: results_of(*crowd, (0.1, pose))}, ["none", "iou@0.3"])
    assert [figures[text]["keypoint_ap"] for text in figures] == [0, pytest.approx(1)]


def test_what_counts_keeps_its_order_and_its_values():
    poses = [pose_in(*BOXES[name][0]) for name in NAMES]
    truth = truth_of((TRUE_BOX, visible(pose_in(10, 20, 50, 70))))
    scores = [0.5, 0.7, 0.1, 0.9, 0.2, 0.5, 0.3, 0.4]
    boxes = torch.arange(32.0).reshape(8, 4)
    masks = torch.zeros(8, HEIGHT, WIDTH, dtype=torch.bool)
    masks[5, :7] = True
    result = results_of(*zip(scores, poses, strict=True), boxes=boxes, masks=masks)
    evaluator = ReferringEvaluator(truth)
    (counted,) = evaluator.selecting(Selection("intersection", 0.3)).update([1], [result])
    places = [NAMES.index(name) for name in ("upper part", "around", "everything")]
    assert set(counted) == set(result)
    for name, values in result.items():
        assert torch.equal(counted[name], values[places]), name
    results = [result]
    assert evaluator.update([1], results) is results  # without a selection nothing is copied
    (everything,) = evaluator.selecting(Selection("none")).update([1], results)
    assert all(torch.equal(everything[name], values) for name, values in result.items())


def test_an_evaluator_and_its_selections_share_nothing_but_the_truth():
    truth, results = table_5_by_hand()
    evaluator = ReferringEvaluator(truth)
    first, second = (evaluator.selecting(Selection.parse(text)) for text in ("none", "l1"))
    for one in (evaluator, first, second):
        one.update(list(results), list(results.values()))
    assert evaluator.summarize() == first.summarize() != second.summarize()
    # What is made of one that selects selects; `fresh` alone decides nothing.
    again = second.fresh()
    again.update(list(results), list(results.values()))
    assert again.summarize() == second.summarize()


@pytest.mark.parametrize("only", [False, True], ids=["of one person", "of all people"])
def test_no_results_in_every_metric(only):
    pose = pose_in(110, 110, 190, 190)
    pose[3, :2], pose[4, :2] = (120, 120), (130, 120)  # ears: a head of 10 pixels
    count = 1 if only else 2
    truth = truth_of(*[((100, 100, 100, 100), visible(pose))] * count)
    for image in truth["images"]:
        image["file_name"] = "both.jpg"
    for number, annotation in enumerate(truth["annotations"]):
        annotation["person_id"] = number
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 100:200, 100:200] = True
    more = {"boxes": torch.tensor([[100.0, 100, 200, 200]]), "masks": mask}
    more["mask_sums"] = torch.ones(1)
    far = results_of((0.9, pose_in(300, 20, 380, 120)), **more)
    results = {1: far} if only else {1: far, 2: results_of((0.8, pose), **more)}
    evaluator = ReferringEvaluator(truth, keep_predictions=True)
    selecting = evaluator.selecting(Selection("iou", 0.3))
    counted = selecting.update(list(results), list(results.values()))
    assert [len(result["scores"]) for result in counted] == [0, 1][:count]
    summary = selecting.summarize()
    share = 0 if only else 1 / 2
    for name in ("pckh", "miou", "precision@0.5", "precision@0.9", "found", "oiou"):
        assert summary[name] == pytest.approx(share), name
    for kind in ("keypoint", "box", "mask"):
        for name in ("ap", "ap50", "ap75", "apl"):
            assert summary[f"{kind}_{name}"] == pytest.approx(0 if only else 51 / 101), name
        assert summary[f"{kind}_apm"] == -1
    # Two people of one pose: a tie decides for nobody.
    assert summary["identity_accuracy"] == (-1 if only else 0)
    assert summary["num_samples"] == count
    assert len(list(selecting.predictions())) == count - 1
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize(("key", "value"), [("keypoints", math.nan), ("scores", math.inf)])
def test_results_that_are_not_finite_are_refused_chosen_or_not(key, value):
    pose = pose_in(110, 110, 190, 190)
    truth = truth_of(((100, 100, 100, 100), visible(pose)))
    result = results_of((0.9, pose), (0.1, pose_in(300, 20, 380, 120)))
    result[key].view(-1)[-1] = value
    for text in TABLE_5:
        selecting = ReferringEvaluator(truth).selecting(Selection.parse(text))
        with pytest.raises(UserError, match=f"not finite numbers: {key} of image ids 1"):
            selecting.update([1], [result])


# --- the loop, and a run -------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_all_selections_are_of_one_forward_pass():
    loader = toy_loader(5, False, 2)
    evaluator = loader.dataset.make_evaluator()
    variants = {text: (evaluator.selecting(Selection.parse(text)), None) for text in TABLE_5}
    torch.manual_seed(5)
    model, seen = ToyPeopleModel(), []
    metrics = engine.evaluate(
        model, ToyPostProcess(), loader, variants, device=CPU, inspect=seen.append
    )
    assert model.called == 3
    assert list(metrics) == TABLE_5
    assert [batch.variant for batch in seen] == TABLE_5 * 3
    counts = [[len(result["scores"]) for result in batch.results] for batch in seen[:2]]
    assert counts == [[2, 2], [1, 1]]


EVALUATION = {"length": 7, "prompts": (), "selections": parse_selections(TABLE_5)}


def evaluate_people(output_dir, **more):
    """Metrics of an untrained model on 7 samples, under every rule."""
    torch.manual_seed(5)
    return toy_evaluation(output_dir, **EVALUATION, **more).run(ToyPeopleModel())


TWO_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from pathlib import Path
from test_selection import evaluate_people
from util import distributed
distributed.initialize("cpu")
processes = distributed.rank(), distributed.world_size()
metrics = evaluate_people(Path(sys.argv[1]), processes=processes, save_predictions=True)
assert all(other == metrics for other in distributed.all_gather_object(metrics))
distributed.shutdown()
"""


@pytest.mark.usefixtures("one_thread")
def test_two_processes_choose_as_one(tmp_path):
    alone = evaluate_people(tmp_path, batch_size=3, save_predictions=True, num_images=1)
    assert list(alone) == TABLE_5
    assert 0.02 < alone["l1"]["keypoint_ap"] < 1
    assert len({alone[text]["miou"] for text in TABLE_5}) == 3  # not trivially equal
    images = {text: tmp_path / "images" / f"00000_1_{text}.png" for text in TABLE_5}
    assert set((tmp_path / "images").iterdir()) == set(images.values())
    assert images["none"].read_bytes() != images["l1"].read_bytes()
    together = tmp_path / "together"
    together.mkdir()
    for result in run_python(["-c", TWO_PROCESSES, together], processes=2):
        assert result.returncode == 0, result.stderr
    assert json.loads((together / "eval.json").read_text()) == alone
    for text in TABLE_5:
        name = f"predictions_{text}.json"
        assert json.loads((together / name).read_text()) == json.loads(
            (tmp_path / name).read_text()
        )


def test_a_model_with_prompts_has_no_selections(tmp_path):
    evaluation = toy_evaluation(tmp_path, dataset=ToyDataset, selections=[Selection("l1")])
    with pytest.raises(ValueError, match="ToyModel takes prompts"):
        evaluation.run(ToyModel())


# --- the command line ----------------------------------------------------------------------------

REFHUMAN = ["-c", str(ROOT / "config" / "grouppose_refhuman.py"), "--device", "cpu"]
OPTIONS = [
    *(f"{name}={value}" for name, value in SMALL.items() if isinstance(value, int)),
    *("eval_max_side=64", "num_results=8", "eval_batch_size=3", "num_workers=0"),
    *("backbone_options.embed_dim=16", "backbone_options.depths=1,1,1,1"),
    *("backbone_options.num_heads=1,2,4,8", "backbone_options.window_size=4"),
]


def write_checkpoint(path):
    """A Group Pose whose random keypoints are spread over the image."""
    cfg = main.read_config(main.build_parser().parse_args([*REFHUMAN, "--options", *OPTIONS]))
    torch.manual_seed(0)
    model, *_ = build_model(cfg)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter.shape[-1] ** 0.5)
    checkpoint.save(path, {"model": model.state_dict(), "config": cfg.to_dict()})
    return path


def by_hand(records, truth, text):
    """The records that a rule leaves of `none`'s, by another way: box by box."""
    rule, _, threshold = text.partition("@")
    boxes = {annotation["image_id"]: annotation["bbox"] for annotation in truth["annotations"]}
    kept, nearest = [], {}
    for record in records:
        x, y, width, height = boxes[record["image_id"]]
        columns, rows = record["keypoints"][0::3], record["keypoints"][1::3]
        left, top, right, bottom = min(columns), min(rows), max(columns), max(rows)
        w = max(0, min(right, x + width) - max(left, x))
        h = max(0, min(bottom, y + height) - max(top, y))
        union = width * height + (right - left) * (bottom - top) - w * h
        distance = abs(left - x) + abs(top - y) + abs(right - x - width) + abs(bottom - y - height)
        shares = {"none": 1, "iou": w * h / union, "intersection": w * h / (width * height)}
        if rule == "l1":
            best = nearest.get(record["image_id"], (math.inf, None))
            if distance < best[0]:
                nearest[record["image_id"]] = (distance, record)
        elif shares[rule] >= float(threshold or 0):
            kept.append(record)
    return [record for _, record in nearest.values()] or kept


def test_group_pose_is_judged_on_pairs_without_a_prompt(tmp_path):
    def without_prompts(content, split):
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            del image["caption"], annotation["scribble"]

    folder = write_refhuman(tmp_path / "data", change=without_prompts)
    weights = write_checkpoint(tmp_path / "weights.pth")
    common = [*REFHUMAN, "--coco_path", str(folder), "--eval", "--resume", str(weights)]
    own = ["--output_dir", str(tmp_path / "all"), "--save_predictions", "--options", *OPTIONS]
    assert main.main([*common, *own]) == 0
    metrics = json.loads((tmp_path / "all" / "eval.json").read_text())
    assert list(metrics) == TABLE_5
    for summary in metrics.values():
        assert {"keypoint_ap", "keypoint_apm", "keypoint_apl"} <= set(summary)
        assert summary["num_samples"] == 5
    truth = json.loads((folder / "RefHuman_val.json").read_text())
    predictions = {
        text: json.loads((tmp_path / "all" / f"predictions_{text}.json").read_text())
        for text in TABLE_5
    }
    assert len(predictions["none"]) > 5
    for text in TABLE_5:
        assert predictions[text] == by_hand(predictions["none"], truth, text), text
    assert len(predictions["l1"]) == 5

    # One alone is that column, and not the others.
    own = ["--output_dir", str(tmp_path / "one"), "--save_predictions", "--options", *OPTIONS]
    assert main.main([*common, *own, "select_results=intersection@0.01"]) == 0
    assert list(json.loads((tmp_path / "one" / "eval.json").read_text())) == ["intersection@0.01"]
    some = json.loads((tmp_path / "one" / "predictions_intersection@0.01.json").read_text())
    assert some == by_hand(predictions["none"], truth, "intersection@0.01")
    assert 0 < len(some) < len(predictions["none"])

    own = ["--output_dir", str(tmp_path / "plain"), "--options", *OPTIONS, "select_results=[]"]
    assert main.main([*common, *own]) == 0
    plain = json.loads((tmp_path / "plain" / "eval.json").read_text())
    assert plain == {"people": metrics["none"]}


def test_wrong_selections_end_with_one_message_before_anything_is_read(tmp_path, capsys):
    common = [*REFHUMAN, "--coco_path", "/nowhere", "--output_dir", str(tmp_path), "--options"]
    for text, message in {
        "iou": "'iou' needs a threshold",
        "l1,l1": "names 'l1' twice",
        "nearest": "Unknown rule 'nearest'",
    }.items():
        assert main.main([*common, f"select_results={text}"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("error: ") == 1


def test_the_configuration_of_the_tables():
    cfg = Config.fromfile(ROOT / "config" / "grouppose_refhuman.py")
    cfg.check()
    assert [s.name for s in parse_selections(cfg.select_results)] == TABLE_5
    published = Config.fromfile(ROOT / "config" / "grouppose.py")
    changed = {name for name in published if published[name] != cfg[name]}
    sizes = {"train_short_sides", "train_max_side", "eval_short_side", "eval_max_side"}
    assert changed == {"backbone", "dataset", "coco_path", "select_results", *sizes}
    ours = Config.fromfile(ROOT / "config" / "uniphd.py")  # the sizes of UniPHD, with which it is
    assert all(cfg[name] == ours[name] for name in sizes)  # compared
    # On the command line none is None; without a selection it is trained on COCO.
    arguments = [*REFHUMAN, "--dataset_file", "coco", "--options", "select_results=[]"]
    assert main.read_config(main.build_parser().parse_args(arguments)).dataset == "coco"
    arguments = [*REFHUMAN, "--options", "select_results=none,l1"]
    cfg = main.read_config(main.build_parser().parse_args(arguments))
    assert [s.name for s in parse_selections(cfg.select_results)] == ["none", "l1"]
