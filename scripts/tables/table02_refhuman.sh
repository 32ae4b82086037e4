#!/usr/bin/env bash
# Table 2: the three models on RefHuman val, with text, points and scribbles.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 2 "$@"
needs refhuman
run uniphd        config/uniphd.py
run uni_edpose    config/uni_edpose.py
run uni_grouppose config/uni_grouppose.py
table
