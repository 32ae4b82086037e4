#!/usr/bin/env bash
# Table 6: without the pose head, without the mask head.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 6 "$@"
needs refhuman
run uniphd       config/uniphd.py
run no_pose_head config/ablation/no_pose_head.py
run no_mask_head config/ablation/no_mask_head.py
table
