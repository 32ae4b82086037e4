"""UniPHD with Swin-T on RefHuman: the recipe of the paper (Appendix A.2).

Every setting of the project is listed here once; other files name this one as their `_base_` and
change what they need.  Change single values on the command line with `--options key=value`.
"""

# --- model -----------------------------------------------------------------------------------
model = "uniphd"
skeleton = "coco"  # keypoint names, flip pairs and sigmas: datasets/skeleton.py
backbone = "swin_T_224_1k"  # swin_{T_224_1k,{B,L}_{224,384}_22k}, resnet{50,101}, or a timm name
backbone_options = {}  # overrides of the named Swin: embed_dim, depths, num_heads, window_size, ...
backbone_pretrained = None  # ImageNet file (Swin: or its folder); unused with a full checkpoint
backbone_drop_path = 0.2
backbone_checkpointing = False  # recompute activations in the backward pass: less memory
backbone_freeze_norm = True  # constant BatchNorm, as in DETR; False to train it from scratch
text_encoder = "roberta-base"  # Hugging Face name, or a local folder
text_encoder_pretrained = True  # False: architecture from the folder's config.json, no weights
freeze_text_encoder = False
hidden_dim = 256
num_heads = 8
feedforward_dim = 2048
encoder_layers = 6
encoder_points = 4
encoder_checkpointing = False  # recompute encoder activations in the backward pass: less memory
decoder_layers = 6
decoder_points = 4
dropout = 0.0  # encoder and decoder
prompt_dropout = 0.1  # projections of the prompt features
num_groups = 20
num_results = None  # best results kept per image; None: as many as groups
decoder = "pose_centric"  # or "grouppose": Group Pose's layer in UniPHD (Uni-GroupPose, Table 2)
within_type = "graph"  # attention inside a group: "graph" (Eq. 4), or "self" (no learned adjacency)
mask_head = True

# --- losses (Appendix A.1) ---------------------------------------------------------------------
match_costs = dict(ce=2.0, bbox=5.0, giou=2.0, keypoints=10.0, oks=4.0)
loss_weights = dict(
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
focal_alpha = 0.25
focal_gamma = 2.0

# --- data --------------------------------------------------------------------------------------
dataset = "refhuman"  # "refhuman" reads coco_path; "synthetic" draws images on the spot
coco_path = "data/RefHuman"
pad_divisor = 16
eval_max_side = 640
eval_short_side = None  # a number: shorter side; the longer is then at most eval_max_side
train_short_sides = [360, 392, 416, 480, 512, 544, 576, 608, 640]
train_max_side = 640
crop_short_sides = [400, 500, 600]  # resize before the random crop
crop_range = [384, 600]  # sides of the random crop
flip_probability = 0.5
augment = True  # False: evaluation's resize in training too (synthetic images: as drawn)
drop_cropped_keypoints = False  # False: cropped-out keypoints move to the border, as published
prompts_per_image = 1  # training pairs of an image that follow each other in the random order
num_workers = 4
synthetic = dict(  # only for dataset = "synthetic"; see datasets/synthetic.py
    train_length=2000,  # images per epoch, new ones in every epoch
    val_length=200,
    image_size=[192, 192],  # height, width
    num_people=[1, 6],
    difficulty=1.0,  # 0: clean images and plain captions; 1: everything
    caption_kinds=None,
    min_area=0.02,  # of the image; smaller people are not referred to
    curriculum=[],
)

# --- training (Appendix A.2) ---------------------------------------------------------------------
prompt_probabilities = dict(text=0.5, scribble=0.25, point=0.25)
batch_size = 4  # per process; 4 processes in the paper
epochs = 20
lr = 1e-4
lr_backbone = 1e-5
lr_text_encoder = 1e-5
lr_adjacency = 1e-4
lr_drop_epochs = [18]  # x 0.1 after these epochs
lr_warmup_steps = 0  # linear, from 0
weight_decay = 1e-4
clip_max_norm = 0.1
amp = False
seed = 42
checkpoint_every = 1  # epochs
eval_every = 1  # epochs; 0: only after the last
eval_prompts = ["text", "scribble", "point"]  # prompts of the evaluation after an epoch
eval_batch_size = 4
log_every = 20  # steps
