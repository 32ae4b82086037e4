#!/usr/bin/env bash
# Table 5: which results of a multi-person model count for the referred person. Group Pose is
# trained on COCO and evaluated on RefHuman val, with all selections in one pass.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 5 "$@"
needs refhuman coco_to_train
train grouppose config/grouppose_refhuman.py --dataset_file coco --coco_path "$coco" \
    --options select_results=[]
evaluate grouppose_on_refhuman grouppose config/grouppose_refhuman.py
table
