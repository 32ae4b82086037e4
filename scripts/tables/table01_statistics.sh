#!/usr/bin/env bash
# Table 1: images, instances and expressions of RefHuman.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

begin 1 "$@"
needs refhuman
count train
count val
table
