#!/usr/bin/env bash
# The paper's training in a SLURM job, one task per GPU: sbatch scripts/slurm_train.sh [data folder]
# Two minutes before the time limit the training saves, and the job goes back into the queue and on
# from there, as often as it takes; so it does after a preemption.  The paper's batch of 16 stays
# whatever the number of tasks.
#SBATCH --job-name=uniphd
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=6
#SBATCH --time=2-00:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=uniphd-%j.out
set -euo pipefail
# SLURM runs a copy of this file; the job starts in the folder of `sbatch`, the repository's root.
cd "${SLURM_SUBMIT_DIR:?submit this file with sbatch}"
source scripts/environment.sh

# When one task has ended, the others get a minute.
status=0
srun --wait=60 "$PYTHON" main.py -c config/uniphd.py --coco_path "${1:-data/RefHuman}" \
    --output_dir outputs/refhuman_swint --resume auto --save_log \
    --swin_pretrain_path "${SWIN_WEIGHTS:-weights/swin_tiny_patch4_window7_224.pth}" \
    --options batch_size=$((16 / SLURM_NTASKS)) || status=$?

# 128 + SIGUSR1: saved and ended in order, because the time is up.
if [ "$status" -eq 138 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
