#!/usr/bin/env bash
# Table 3: COCO val2017, trained on train2017 with points and scribbles drawn for everybody.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 3 "$@"
needs coco
run uniphd_coco config/uniphd_coco.py --coco_path "$coco"
table
