#!/usr/bin/env bash
# Evaluates a checkpoint (ours or the published one) on RefHuman's validation pairs.
#   bash scripts/eval_coco_swint.sh CHECKPOINT [RefHuman folder] [GPUs] [trigger] [flags of main.py]
# GPUs: 0 runs on the CPU.  trigger: text, point, scribble, or all.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
checkpoint="$(realpath -m "$1")"
data="$(realpath -m "${2:-data/RefHuman}")"
gpus="${3:-1}"
trigger="${4:-all}"
shift "$(($# < 4 ? $# : 4))"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

command=("$PYTHON" main.py --device cpu)
if [ "$gpus" -gt 0 ]; then
    command=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$gpus" main.py)
fi
exec "${command[@]}" -c config/uniphd.py --coco_path "$data" --eval --eval_trigger "$trigger" \
    --resume "$checkpoint" --output_dir outputs/eval_coco_swint "$@"
