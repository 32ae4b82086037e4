"""UniPHD with Swin-T on RefHuman: the recipe of the paper (Appendix A.2).

Every setting of the project is declared here once, with the values it takes; other files name this
one as their `_base_` and change what they need.  Change single values on the command line with
`--options key=value`.
"""

from util.setting_types import (
    Anything,
    Flag,
    ListOf,
    Number,
    OneOf,
    OrFlag,
    OrNone,
    OrRange,
    Table,
    Text,
    Whole,
)

# --- model -----------------------------------------------------------------------------------
# By name, looked up in models/__init__.py.
model: Text() = "uniphd"
# Keypoint names, flip pairs and sigmas, by name in datasets/skeleton.py.
skeleton: Text() = "coco"
# swin_{T_224_1k,{B,L}_{224,384}_22k}, resnet{50,101} (torchvision's), or a timm name.
backbone: Text() = "swin_T_224_1k"
# Overrides of the named Swin (None: no more of them): embed_dim, depths, num_heads, window_size.
backbone_options: Table(others=Anything(), takes_new=True) = {}
# ImageNet file (Swin: or its folder; torchvision's ResNets: or "imagenet" to fetch it); unused with
# a full checkpoint.
backbone_pretrained: OrNone(Text()) = None
backbone_drop_path: Number(least=0, most=0.99) = 0.2
# Recompute activations in the backward pass, part by part: less memory, more time.
backbone_checkpointing: Flag() = False
text_encoder_checkpointing: Flag() = False
encoder_checkpointing: Flag() = False
decoder_checkpointing: Flag() = False
mask_head_checkpointing: Flag() = False
# Constant BatchNorm, as in DETR; False to train it from scratch.
backbone_freeze_norm: Flag() = True
text_encoder: Text() = "roberta-base"  # Hugging Face name, or a local folder
# False: architecture from the folder's config.json, no weights.
text_encoder_pretrained: Flag() = True
freeze_text_encoder: Flag() = False
hidden_dim: Whole(least=32, most=4096) = 256
num_heads: Whole(least=1, most=256) = 8
feedforward_dim: Whole(least=1, most=65536) = 2048
encoder_layers: Whole(least=1, most=64) = 6
encoder_points: Whole(least=1, most=64) = 4
decoder_layers: Whole(least=1, most=64) = 6
decoder_points: Whole(least=1, most=64) = 4
dropout: Number(least=0, most=0.99) = 0.0  # encoder and decoder
prompt_dropout: Number(least=0, most=0.99) = 0.1  # projections of the prompt features
num_groups: Whole(least=1, most=10000) = 20
# Best results kept per image; None: as many as groups.
num_results: OrNone(Whole(least=1, most=20000)) = None
# UniPHD's decoder; with Group Pose's layer (Uni-GroupPose, Table 2); ED-Pose's (Uni-ED-Pose).
decoder: OneOf("pose_centric", "grouppose", "edpose") = "pose_centric"
# Of the edpose decoder: its first layers, which look for people alone, and their queries, of which
# the best num_groups go on (None: as many).
human_layers: Whole(least=1, most=63) = 2
num_human_queries: OrNone(Whole(least=1, most=10000)) = None
# Attention inside a group: "graph" (Eq. 4), "self" (no learned adjacency), or "none".
within_type: OneOf("graph", "self", "none") = "graph"
# Where groups begin: at the encoder's best proposals with the prompt as query ("prompt"), or at
# learned references with learned queries.
query_init: OneOf("prompt", "learned") = "prompt"
# False: the decoder predicts boxes (and masks) only.
pose_head: Flag() = True
mask_head: Flag() = True
# torch.compile of Swin's blocks, encoder and decoder layers and the mask head, when they first run.
compile: OneOf("off", "default", "reduce-overhead", "max-autotune") = "off"

# --- losses (Appendix A.1) ---------------------------------------------------------------------
match_costs: Table(others=Number(least=0)) = dict(
    ce=2.0, bbox=5.0, giou=2.0, keypoints=10.0, oks=4.0
)
loss_weights: Table(others=Number(least=0)) = dict(
    ce=2.0,
    bbox=5.0,
    giou=2.0,
    keypoints=10.0,
    oks=4.0,
    keypoints_visi=4.0,
    mask=2.0,
    dice=5.0,
    mask_low=2.0,
    dice_low=5.0,
)
focal_alpha: Number(least=0, most=1) = 0.25
focal_gamma: Number(least=0, most=100) = 2.0

# --- data --------------------------------------------------------------------------------------
# refhuman, coco, coco_prompted and crowdpose read coco_path; synthetic draws images on the spot.
dataset: Text() = "refhuman"
coco_path: Text() = "data/RefHuman"
pad_divisor: Whole(least=1, most=1024) = 16
# Batches are padded to the smallest of these heights and widths that fits: few shapes for
# torch.compile and cuDNN, more padding. Empty: to the next multiple of pad_divisor.
pad_sides: ListOf(Whole(least=8, most=8192)) = []
eval_max_side: Whole(least=32, most=8192) = 640
# A number: shorter side; the longer one is then at most eval_max_side.
eval_short_side: OrNone(Whole(least=32, most=8192)) = None
train_short_sides: ListOf(Whole(least=32, most=8192), least=1) = [
    360, 392, 416, 480, 512, 544, 576, 608, 640
]  # fmt: skip
train_max_side: Whole(least=32, most=8192) = 640
# Resize before the random crop.
crop_short_sides: ListOf(Whole(least=32, most=8192), least=1) = [400, 500, 600]
# Sides of the random crop.
crop_range: ListOf(Whole(least=32, most=8192), length=2, ascending=True) = [384, 600]
flip_probability: Number(least=0, most=1) = 0.5
augment: Flag() = True  # False: evaluation's resize in training too (synthetic images: as drawn)
# False: cropped-out keypoints move to the border, as published.
drop_cropped_keypoints: Flag() = False
# In training, a JPEG of twice the needed size or more is decoded at 1/2, 1/4 or 1/8: faster, pixels
# differ slightly.
draft_decoding: Flag() = True
# Training pairs of an image that follow each other in the random order.
prompts_per_image: Whole(least=1, most=1000) = 1
# Pairs of an image that are in one training batch with the same pixels: one backbone pass.
share_image_features: Flag() = False
num_workers: Whole(least=0, most=1024) = 4
# Only for dataset = "synthetic"; see datasets/synthetic.
_lengths = dict(train_length=Whole(least=1), val_length=Whole(least=1))
_scene = dict(
    image_size=ListOf(OrRange(Whole(least=48, most=8192)), length=2),
    num_people=ListOf(Whole(least=1, most=14), length=2, ascending=True),
    difficulty=Number(least=0, most=1),
    caption_kinds=OrNone(ListOf(Text(), least=1)),
    min_area=Number(least=0, most=1),
)
_stage = Table(dict(until_epoch=Whole(least=1), **_scene), required=("until_epoch",))
_share = Table(dict(share=Number(least=0, most=1), **_scene), required=("share",))
_changes = dict(curriculum=ListOf(_stage), mixture=ListOf(_share))
synthetic: Table(dict(**_lengths, **_scene, **_changes)) = dict(
    train_length=2000,  # images per epoch, new ones in every epoch
    val_length=200,
    image_size=[192, 192],  # height, width
    num_people=[1, 6],
    difficulty=1.0,  # 0: clean images and plain captions; 1: everything
    caption_kinds=None,
    min_area=0.02,  # of the image; smaller people are not referred to
    curriculum=[],  # easier images in the first epochs
    mixture=[],  # shares of other images in all epochs
)

# --- training (Appendix A.2) ---------------------------------------------------------------------
# By kind of prompt, also of kinds that a program registers (datasets/prompts.py checks the names).
prompt_probabilities: Table(others=Number(least=0), takes_new=True) = dict(
    text=0.5, scribble=0.25, point=0.25
)
batch_size: Whole(least=1, most=100000) = 4  # per process; 4 processes in the paper
# Batches of every process that make up one step, as if they were one.
accumulation_steps: Whole(least=1, most=100000) = 1
epochs: Whole(least=1) = 20
lr: Number(above=0) = 1e-4
lr_backbone: Number(least=0) = 1e-5
lr_text_encoder: Number(least=0) = 1e-5
lr_adjacency: Number(least=0) = 1e-4
lr_drop_epochs: ListOf(Whole(least=1)) = [18]  # x 0.1 after these epochs
lr_warmup_steps: Whole(least=0) = 0  # linear, from 0
weight_decay: Number(least=0) = 1e-4
clip_max_norm: Number(least=0) = 0.1  # 0: gradients stay as they are
# Mixed precision: False, a format, or True: bfloat16 where the device has it, else float16.
amp: OrFlag(OneOf("bfloat16", "float16")) = False
# Between processes: MiB of the pieces in which gradients travel, and whether in bfloat16.
gradient_bucket_mb: Number(above=0, most=4096) = 25.0
gradient_bfloat16: Flag() = False
# Share of the averaged weights (EMA) that stays at every step, e.g. 0.9998; 0: no average.
ema_decay: Number(least=0, most=0.999999) = 0.0
seed: Whole(least=0, most=2**63 - 1) = 42
checkpoint_every: Whole(least=0) = 1  # epochs between two numbered copies; 0: none
# Every epoch's end is saved anyway; within an epoch: every so many steps, or minutes; 0: not.
checkpoint_steps: Whole(least=0) = 0
checkpoint_minutes: Number(least=0) = 10.0
keep_checkpoints: Whole(least=1, most=1000) = 2  # of the newest
eval_every: Whole(least=0) = 1  # epochs; 0: only after the last
# Prompts of evaluations; none for a model that takes none.
eval_prompts: ListOf(Text()) = ["text", "scribble", "point"]
# For a model without prompts on pairs: which of its results count for the referred person, each a
# column of the evaluation: none, l1, iou@T, intersection@T (datasets/evaluation/selection.py).
select_results: ListOf(OrNone(Text())) = []
eval_batch_size: OrNone(Whole(least=1, most=100000)) = None  # per process; None: batch_size
log_every: Whole(least=1) = 20  # steps

# --- demands and names -------------------------------------------------------------------------
_conditions_ = {
    "hidden_dim must be a multiple of num_heads": "hidden_dim % num_heads == 0",
    "hidden_dim must be a multiple of 32": "hidden_dim % 32 == 0",
    "with a mask_head, pad_divisor must be a multiple of 8": (
        "not mask_head or pad_divisor % 8 == 0"
    ),
    "num_results must be at most 2 * num_groups": "(num_results or 1) <= 2 * num_groups",
    "only the pose_centric decoder has a within_type": (
        "within_type == 'graph' or decoder == 'pose_centric'"
    ),
    "without a pose_head, keypoint queries need a within_type": (
        "pose_head or within_type != 'none'"
    ),
    "only model uniphd has pose_head = False, query_init = 'learned' or decoder = 'edpose'": (
        "model == 'uniphd' or (pose_head and query_init == 'prompt' and decoder != 'edpose')"
    ),
    "decoder edpose has pose_head = True and query_init = 'prompt'": (
        "decoder != 'edpose' or (pose_head and query_init == 'prompt')"
    ),
    "decoder edpose needs more decoder_layers than human_layers": (
        "decoder != 'edpose' or decoder_layers > human_layers"
    ),
    "num_human_queries must be at least num_groups": (
        "(num_human_queries or num_groups) >= num_groups"
    ),
    "prompt_probabilities must not be all zero": (
        "model == 'grouppose' or max([0, *prompt_probabilities.values()]) > 0"
    ),
    "encoder and decoder must have less than about 1e9 parameters": (
        "(encoder_layers + decoder_layers) * hidden_dim * (10 * hidden_dim + 2 * feedforward_dim"
        " + 12 * num_heads * max(encoder_points, decoder_points)) < 1e9"
    ),
    "eval_prompts must name a kind of prompt": "model == 'grouppose' or len(eval_prompts) > 0",
    "select_results needs a model without prompts (model=grouppose) and pairs of an image and a "
    "person (dataset=refhuman, or synthetic)": (
        "not select_results or (model == 'grouppose' and dataset in ('refhuman', 'synthetic'))"
    ),
    "synthetic people have COCO's skeleton": "dataset != 'synthetic' or skeleton == 'coco'",
}
# Names of the published code (lr_drop, num_body_points) and of earlier versions of this one.
_aliases_ = dict(
    lr_drop="lr_drop_epochs",
    num_body_points=("skeleton", {17: "coco", 14: "crowdpose"}),
    prompts_per_picture="prompts_per_image",
    eval_triggers="eval_prompts",
)
_retired_ = dict(mask_dim=16)
