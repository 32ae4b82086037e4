"""Group Pose with Swin-T at 640 pixels, judged on RefHuman's pairs (Tables 2 and 5).

    python main.py -c config/grouppose_refhuman.py --coco_path data/RefHuman --eval \
        --resume grouppose_swint_640.pth --output_dir outputs/grouppose_refhuman

Everybody in an image is found, one person is asked for: every rule that chooses whose results count
is a column, all of one pass over the images.  It is trained on COCO, at the same sizes:

    python main.py -c config/grouppose_refhuman.py --dataset_file coco --coco_path data/coco \
        --swin_pretrain_path weights/ --output_dir outputs/grouppose_640 --options select_results=[]
"""

_base_ = "grouppose.py"

# --- model ---------------------------------------------------------------------------------------
backbone = "swin_T_224_1k"

# --- data: UniPHD's sizes ------------------------------------------------------------------------
dataset = "refhuman"
coco_path = "data/RefHuman"
train_short_sides = [360, 392, 416, 480, 512, 544, 576, 608, 640]
train_max_side = 640
eval_short_side = None
eval_max_side = 640

# --- evaluation: the rows of Table 5, the last one Table 2's --------------------------------------
select_results = ["none", "l1", "iou@0.3", "intersection@0.5", "intersection@0.3"]
