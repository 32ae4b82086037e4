#!/usr/bin/env bash
# Table 8: without query initialisation.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 8 "$@"
needs refhuman
run uniphd                  config/uniphd.py
run no_query_initialisation config/ablation/no_query_initialisation.py
table
