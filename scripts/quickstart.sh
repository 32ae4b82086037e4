#!/usr/bin/env bash
# From nothing to predictions in one command: makes .venv if needed, installs, trains the tiny
# model on pictures drawn on the spot, evaluates the three prompts, draws predictions.
#   bash scripts/quickstart.sh [output folder]
set -euo pipefail
output="$(realpath -m "${1:-outputs/quickstart}")"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_into_venv requirements.txt

echo "== An untrained model, for comparison =="
"$PYTHON" main.py -c config/uniphd_tiny.py --eval --eval_trigger all \
    --output_dir "$output/untrained"

echo "== Training =="
"$PYTHON" main.py -c config/uniphd_tiny.py --output_dir "$output" --options eval_every=0

echo "== The trained model =="
"$PYTHON" main.py -c config/uniphd_tiny.py --eval --eval_trigger all \
    --resume "$output/checkpoint.pth" --output_dir "$output/evaluation" --save_pictures 8

echo "Model: $output/checkpoint.pth"
echo "Predictions beside the ground truth: $output/evaluation/pictures/"
