#!/bin/bash
# Map scenes, one shard per task of an array.
#
#   sbatch --array 1-16 slurm/predict.sh vineseg_drone --ckpt_path best --data.predict_paths 'scenes/*.tif'
#
# The first argument is the configuration, the others are options of `predict`. Number the array from 1. A scene is
# mapped by one task; a task that was stopped resumes within the scene when it is started again.
#SBATCH --job-name=predict
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail
config=$1
shift
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# one process per task of the array; the shard divides the scenes
python -m torchgeo_msssl predict --config "$config" "$@" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --trainer.devices 1
