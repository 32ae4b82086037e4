#!/usr/bin/env bash
# Table 7: attention inside a group: none of it global, plain self-attention, graph attention.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 7 "$@"
needs refhuman
run uniphd               config/uniphd.py
run no_global_dependency config/ablation/no_global_dependency.py
run self_attention       config/ablation/self_attention.py
table
