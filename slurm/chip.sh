#!/bin/bash
# Cut scenes into chips, one shard per task of an array, then write the manifest.
#
#   job=$(sbatch --parsable --array 1-16 slurm/chip.sh 'scenes/*.tif' --output chips --chip_size 256)
#   sbatch --dependency "afterok:$job" slurm/chip.sh 'scenes/*.tif' --output chips --chip_size 256
#
# The arguments are those of `chip`, the same for both. Give patterns in quotes, and number the array from 1. A task that
# was stopped resumes when it is started again. The second job cuts what is missing and writes the manifest.
# `rasterize` and, with --merge in the second job, `statistics` are divided in the same way.
#SBATCH --job-name=chip
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail
shard=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    shard=(--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi
python -m torchgeo_msssl chip "$@" "${shard[@]}" --num_workers "${SLURM_CPUS_PER_TASK:-1}"
