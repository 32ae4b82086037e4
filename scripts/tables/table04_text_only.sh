#!/usr/bin/env bash
# Table 4: UniPHD trained with text alone.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 4 "$@"
needs refhuman
run text_only config/ablation/text_only.py
table
