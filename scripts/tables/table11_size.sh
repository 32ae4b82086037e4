#!/usr/bin/env bash
# Table 11: more encoder layers, wider.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 11 "$@"
needs refhuman
run uniphd              config/uniphd.py
run encoder_layers_more config/ablation/encoder_layers_more.py
run hidden_dim_384      config/ablation/hidden_dim_384.py
table
