#!/usr/bin/env bash
# Table 9: trained on all of COCO train2017 (the training of Table 3), evaluated on RefHuman val.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 9 "$@"
needs refhuman coco_to_train
train uniphd_coco config/uniphd_coco.py --coco_path "$coco"
evaluate uniphd_coco_on_refhuman uniphd_coco config/uniphd_coco.py --dataset_file refhuman
table
