#!/usr/bin/env bash
# Table 10: 5, 10 and 20 groups.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 10 "$@"
needs refhuman
run uniphd    config/uniphd.py
run groups_5  config/ablation/groups_5.py
run groups_10 config/ablation/groups_10.py
table
