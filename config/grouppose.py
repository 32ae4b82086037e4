"""Group Pose on COCO keypoints: everybody in an image, no prompts, no masks (ICCV 2023).

CrowdPose as published:
`--dataset_file crowdpose --options num_body_points=14 epochs=80 lr_drop=70`.
"""

_base_ = "uniphd.py"

# --- model ---------------------------------------------------------------------------------------
model = "grouppose"
backbone = "resnet50"
num_groups = 100
num_results = 50
mask_head = False

# --- data ----------------------------------------------------------------------------------------
dataset = "coco"
coco_path = "data/coco"
pad_divisor = 1
train_short_sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
train_max_side = 1333
eval_short_side = 800
eval_max_side = 1333

# --- evaluation ----------------------------------------------------------------------------------
eval_prompts = []

# --- training ------------------------------------------------------------------------------------
epochs = 60
lr_drop_epochs = [50]
checkpoint_every = 10
