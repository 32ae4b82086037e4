"""What the paper published, table by table, and which of our runs gives the same figure.

Figures are as printed in *Referring Human Pose and Mask Estimation in the Wild* (NeurIPS 2024):
Swin-T, longer side 640 pixels, percent unless a column says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from util.errors import UserError, shown


@dataclass(frozen=True)
class Run:
    """A training, or an evaluation of one.

    Attributes:
        config: its file of settings, from the repository's root.
        evaluates: the training whose checkpoint it evaluates; None: it is a training.
        changes: settings that it has beside those of the file.
    """

    config: str
    evaluates: str | None = None
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A figure of every row.

    Attributes:
        name: heading.
        metric: name in an evaluation's metrics, or "parameters", or a count of a data set.
        variant: kind of prompt of the evaluation; None: the row says it.
        factor: from our unit to the published one.
        decimals: that are printed.
    """

    name: str
    metric: str
    variant: str | None = None
    factor: float = 100.0
    decimals: int = 1


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        labels: who or what it is, one for each of the table's heads.
        published: a figure for each column; None: there is none.
        run: name of the run that gives ours; None: the figures are quoted, nothing is trained.
        variant: kind of prompt, where the columns do not say it.
        remark: that a reader needs.
    """

    labels: tuple[str, ...]
    published: tuple[float | None, ...]
    run: str | None = None
    variant: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A table of the paper.

    Attributes:
        number: in the paper.
        title: what it is about.
        heads: headings of the rows' labels.
        columns: figures of every row.
        rows: from top to bottom.
        notes: that stand below it.
    """

    number: int
    title: str
    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def runs(self) -> list[str]:
        """Names of the runs that its figures come from."""
        return list(dict.fromkeys(row.run for row in self.rows if row.run is not None))

    def trainings(self) -> list[str]:
        """Names of the trainings behind these runs, UniPHD's first.

        A checkpoint may be given for each, in this order.
        """
        known = (name for name in self.runs() if name in RUNS)
        names = dict.fromkeys(RUNS[name].evaluates or name for name in known)
        return sorted(names, key=lambda name: name != "uniphd")


def find_table(number: int) -> PublishedTable:
    """The paper's table of this number.

    Raises:
        UserError: there is none.
    """
    if number not in TABLES:
        raise UserError(f"The paper's tables are 1 to {max(TABLES)}; got {shown(number)}.")
    return TABLES[number]


# --- runs ----------------------------------------------------------------------------------------

# Both files of RefHuman, counted by tools/dataset_stats.py.
STATISTICS = "refhuman_statistics"

_ABLATIONS = (
    *("no_pose_head", "no_mask_head", "no_global_dependency", "self_attention"),
    *("no_query_initialisation", "groups_5", "groups_10", "encoder_layers_more"),
    *("hidden_dim_384", "text_only"),
)

RUNS: Mapping[str, Run] = MappingProxyType(
    {
        "uniphd": Run("config/uniphd.py"),
        "uni_grouppose": Run("config/uni_grouppose.py"),
        "uni_edpose": Run("config/uni_edpose.py"),
        "uniphd_coco": Run("config/uniphd_coco.py"),
        "uniphd_coco_on_refhuman": Run(
            "config/uniphd_coco.py", evaluates="uniphd_coco", changes={"dataset": "refhuman"}
        ),
        "grouppose": Run(
            "config/grouppose_refhuman.py", changes={"dataset": "coco", "select_results": []}
        ),
        "grouppose_on_refhuman": Run("config/grouppose_refhuman.py", evaluates="grouppose"),
        **{name: Run(f"config/ablation/{name}.py") for name in _ABLATIONS},
    }
)

# --- tables --------------------------------------------------------------------------------------

_ABLATION_COLUMNS = (
    Column("text pose AP", "keypoint_ap", "text"),
    Column("text mask AP", "mask_ap", "text"),
    Column("scribble pose AP", "keypoint_ap", "scribble"),
    Column("scribble mask AP", "mask_ap", "scribble"),
)
_FULL = (66.7, 62.2, 74.7, 70.0)


def _prompted(
    name: str, run: str, parameters: float, figures: Mapping[str, tuple[float, ...]]
) -> tuple[Row, ...]:
    """Table 2's rows of a method: a line for each kind of prompt."""
    return tuple(
        Row((name, prompt), (*values, parameters), run, prompt)
        for prompt, values in figures.items()
    )


def _ablation(number: int, title: str, head: str, *rows: Row, note: str = "") -> PublishedTable:
    notes = (note,) if note else ()
    return PublishedTable(number, title, (head,), _ABLATION_COLUMNS, rows, notes)


_TABLE_2_ROWS = (
    *_prompted(
        "Uni-ED-Pose",
        "uni_edpose",
        175.7,
        {
            "text": (65.3, 78.3, 74.5, 61.5),
            "point": (71.9, 88.9, 82.8, 67.7),
            "scribble": (72.9, 89.6, 84.9, 69.2),
        },
    ),
    *_prompted(
        "Uni-GroupPose",
        "uni_grouppose",
        177.7,
        {
            "text": (65.0, 78.0, 74.7, 61.4),
            "point": (71.5, 88.5, 82.2, 67.6),
            "scribble": (73.0, 89.3, 85.6, 69.0),
        },
    ),
    *_prompted(
        "UniPHD",
        "uniphd",
        184.0,
        {
            "text": (66.7, 79.0, 75.0, 62.2),
            "point": (73.5, 88.7, 83.1, 68.9),
            "scribble": (74.7, 90.4, 85.7, 70.0),
        },
    ),
    *(
        Row((name, "true box"), (figure, None, None, None, None))
        for name, figure in (
            ("Group Pose Swin-T", 72.0),
            ("Group Pose Swin-L", 73.4),
            ("ED-Pose Swin-L", 72.8),
        )
    ),
    Row(("RefHCM", "text"), (66.8, None, None, None, 500.0), remark="published later"),
)

_TABLES = (
    PublishedTable(
        1,
        "Statistics of the data sets",
        ("data set",),
        tuple(
            Column(name, name, factor=1.0, decimals=0)
            for name in ("images", "instances", "expressions")
        ),
        (
            Row(("RefCOCO",), (9209, 22819, 65550)),
            Row(("RefCOCO+",), (9209, 22804, 66463)),
            Row(("RefCOCOg",), (9141, 16435, 32299)),
            Row(("RefCOCO/+/g",), (13468, 29470, 149278)),
            Row(("RefHuman",), (21634, 50210, 170017), STATISTICS),
        ),
        ("Ours are those of RefHuman_train.json and RefHuman_val.json together.",),
    ),
    PublishedTable(
        2,
        "RefHuman val",
        ("method", "prompt"),
        (
            Column("pose AP", "keypoint_ap"),
            Column("PCKh@0.5", "pckh"),
            Column("oIoU", "oiou"),
            Column("mask AP", "mask_ap"),
            Column("parameters (M)", "parameters", factor=1e-6),
        ),
        _TABLE_2_ROWS,
        (
            "True box: a multi-person model, of whose results those count that cover at least 30 % "
            "of the ground-truth box (Table 5).",
            "RefHCM is called zero-shot by its authors.",
            "The paper's UniPHD does 35.3 images/s with scribbles on an RTX 3090 at batch 24; "
            "tools/gpu_report.py measures this machine's.",
        ),
    ),
    PublishedTable(
        3,
        "COCO val2017, the results of all people of an image together",
        ("method", "prompt"),
        tuple(
            Column(name, f"keypoint_{name.lower()}")
            for name in ("AP", "AP50", "AP75", "APM", "APL")
        ),
        (
            Row(("Group Pose Swin-T, 640 pixels", "none"), (68.5, 88.9, 75.4, 60.5, 79.9)),
            Row(("UniPHD", "point"), (73.5, 93.7, 81.1, 68.0, 81.8), "uniphd_coco", "point"),
            Row(("UniPHD", "scribble"), (73.9, 93.9, 81.9, 68.5, 82.2), "uniphd_coco", "scribble"),
        ),
        (
            "The paper does not say whether a prompt gives all its groups or the best one; ours "
            "gives all (setting num_results=1 keeps the best).",
        ),
    ),
    PublishedTable(
        4,
        "Text prompts alone, RefHuman val",
        ("method",),
        (Column("text oIoU", "oiou", "text"),),
        (Row(("UniPHD, trained with text alone",), (76.3,), "text_only"),),
    ),
    PublishedTable(
        5,
        "Which results of Group Pose (Swin-T) count on RefHuman val",
        ("selection",),
        tuple(Column(name, f"keypoint_{name.lower()}") for name in ("AP", "APM", "APL")),
        tuple(
            Row((label,), figures, "grouppose_on_refhuman", variant)
            for label, variant, figures in (
                ("none", "none", (33.5, 30.3, 36.8)),
                ("L1 distance of the boxes", "l1", (47.4, 45.9, 48.8)),
                ("IoU of at least 0.3", "iou@0.3", (69.1, 65.8, 72.3)),
                ("intersection of at least 0.5", "intersection@0.5", (70.9, 68.7, 73.1)),
                ("intersection of at least 0.3", "intersection@0.3", (72.0, 73.6, 72.7)),
            )
        ),
        ("The intersection is over the area of the ground-truth box.",),
    ),
    _ablation(
        6,
        "The two heads",
        "model",
        Row(("without the pose head",), (None, 61.8, None, 68.7), "no_pose_head"),
        Row(("without the mask head",), (63.3, None, 72.7, None), "no_mask_head"),
        Row(("full",), _FULL, "uniphd"),
    ),
    _ablation(
        7,
        "Attention inside a group",
        "model",
        Row(("no global dependency",), (53.6, 54.4, 63.5, 65.8), "no_global_dependency"),
        Row(("plain self-attention",), (64.9, 61.1, 73.8, 69.4), "self_attention"),
        Row(("graph attention (full)",), _FULL, "uniphd"),
    ),
    _ablation(
        8,
        "Where queries start",
        "model",
        Row(("no query initialisation",), (65.5, 61.0, 74.0, 69.6), "no_query_initialisation"),
        Row(("full",), _FULL, "uniphd"),
    ),
    PublishedTable(
        9,
        "Trained on all of COCO train2017 with generated prompts, RefHuman val",
        ("method", "prompt"),
        (
            Column("pose AP", "keypoint_ap"),
            Column("PCKh@0.5", "pckh"),
            Column("oIoU", "oiou"),
            Column("mask AP", "mask_ap"),
        ),
        (
            Row(("UniPHD", "point"), (81.0, 94.3, 88.3, 72.3), "uniphd_coco_on_refhuman", "point"),
            Row(
                ("UniPHD", "scribble"),
                (81.2, 94.9, 89.4, 73.2),
                "uniphd_coco_on_refhuman",
                "scribble",
            ),
        ),
    ),
    _ablation(
        10,
        "Groups of queries",
        "groups",
        Row(("5",), (62.6, 60.1, 72.1, 69.1), "groups_5"),
        Row(("10",), (64.4, 61.4, 72.4, 69.5), "groups_10"),
        Row(("20 (full)",), _FULL, "uniphd"),
    ),
    _ablation(
        11,
        "Larger models",
        "model",
        Row(("full",), _FULL, "uniphd"),
        Row(("more encoder layers",), (66.3, 62.0, 74.9, 70.4), "encoder_layers_more"),
        Row(("D = 384",), (66.6, 62.8, 74.5, 70.2), "hidden_dim_384"),
        note="The paper does not say how many encoder layers are more.",
    ),
)

TABLES: Mapping[int, PublishedTable] = MappingProxyType({t.number: t for t in _TABLES})
