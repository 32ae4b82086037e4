#!/usr/bin/env bash
# From nothing to predictions in one command, within ten minutes on two cores: makes .venv if needed,
# installs, evaluates the trained tiny model that comes with the repository, trains one from scratch.
#   bash scripts/quickstart.sh [output folder]
set -euo pipefail
output="$(realpath -m "${1:-outputs/quickstart}")"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_into_venv requirements.txt
trained=weights/uniphd_tiny.safetensors

echo
echo "== The trained tiny model on images it has never seen: a sentence, a scribble or a click =="
"$PYTHON" main.py -c config/uniphd_tiny.py --eval --eval_trigger all --resume "$trained" \
    --output_dir "$output/trained" --save_images 8
"$PYTHON" tools/contact_sheet.py --images "$output/trained/images" --side 200 --rows 8 \
    --output "$output/trained.png"

echo
echo "== A new one, on easier images: before training =="
"$PYTHON" main.py -c config/uniphd_quickstart.py --eval --eval_trigger all \
    --output_dir "$output/untrained"

echo
echo "== Training, about four minutes =="
"$PYTHON" main.py -c config/uniphd_quickstart.py --output_dir "$output" --save_images 8 \
    --resume auto
"$PYTHON" tools/plot_log.py "$output"
"$PYTHON" tools/contact_sheet.py --images "$output/images" --side 200 --rows 8 \
    --output "$output/new.png"

echo
echo "Predictions of the trained model, beside the truth:  $output/trained.png"
echo "Those of the new one:                                $output/new.png"
echo "Its learning curves:                                 $output/curves.png"
