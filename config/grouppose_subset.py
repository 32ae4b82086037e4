"""Learn a few images of COCO by heart, all people of each: the proof that the real path learns.

    python tools/make_people_subset.py --format coco --images IMAGES --output data/coco_subset \
        --max_side 128 \
        --input_annotations person_keypoints_train2017.json person_keypoints_val2017.json
    python main.py -c config/grouppose_subset.py --output_dir outputs/grouppose_subset

trains and evaluates on the same images. CrowdPose's form: `--format crowdpose` there, and here
`--dataset_file crowdpose --coco_path data/crowdpose_subset --options num_body_points=14`.
"""

_base_ = "grouppose.py"

# --- model: 2.8 M parameters ---------------------------------------------------------------------
backbone = "swin_T_224_1k"
backbone_options = dict(embed_dim=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=4)
backbone_drop_path = 0.0
hidden_dim = 128
num_heads = 4
feedforward_dim = 256
encoder_layers = 2
decoder_layers = 2
num_groups = 14  # the fullest image has 13 people
num_results = 14

# --- data ----------------------------------------------------------------------------------------
coco_path = "data/coco_subset"
augment = False
eval_short_side = None
eval_max_side = 128
pad_divisor = 16
num_workers = 0

# --- training ------------------------------------------------------------------------------------
batch_size = 8
eval_batch_size = 8
epochs = 750
lr = 5e-4
lr_backbone = 5e-4
lr_drop_epochs = [600, 710]
lr_warmup_steps = 100
amp = True
eval_every = 100
checkpoint_every = 0
log_every = 70
