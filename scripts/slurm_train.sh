#!/usr/bin/env bash
# The paper's training in a SLURM job, one task per GPU: sbatch scripts/slurm_train.sh [data folder]
# Submitted again, it continues after the last finished epoch.
#SBATCH --job-name=uniphd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=6
#SBATCH --time=2-00:00:00
#SBATCH --signal=TERM@60
#SBATCH --output=uniphd-%j.out
set -euo pipefail
# SLURM runs a copy of this file; the job starts in the folder of `sbatch`, the repository's root.
cd "${SLURM_SUBMIT_DIR:?submit this file with sbatch}"
source scripts/environment.sh

srun "$PYTHON" main.py -c config/uniphd.py --coco_path "${1:-data/RefHuman}" \
    --output_dir outputs/refhuman_swint --resume auto --save_log \
    --swin_pretrain_path "${SWIN_WEIGHTS:-weights/swin_tiny_patch4_window7_224.pth}" \
    --options batch_size=$((16 / SLURM_NTASKS))
