#!/usr/bin/env bash
# The paper's training (Appendix A.2): Swin-T on RefHuman, 16 images per step in all.
#   bash scripts/train_refhuman_swint.sh [RefHuman folder] [GPUs] [further flags of main.py]
# Started again, it continues after the last finished epoch.
set -euo pipefail
data="$(realpath -m "${1:-data/RefHuman}")"
gpus="${2:-4}"
shift "$(($# < 2 ? $# : 2))"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if ! [[ "$gpus" =~ ^(1|2|4|8|16)$ ]]; then
    echo "error: 16 images per step do not divide among '$gpus' GPUs; use 1, 2, 4, 8 or 16." >&2
    exit 2
fi

exec "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$gpus" main.py \
    -c config/uniphd.py --coco_path "$data" --output_dir outputs/refhuman_swint --resume auto \
    --swin_pretrain_path "${SWIN_WEIGHTS:-weights/swin_tiny_patch4_window7_224.pth}" \
    --options batch_size=$((16 / gpus)) "$@"
