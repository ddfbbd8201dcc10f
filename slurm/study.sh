#!/bin/bash
# Run a study, one cell per task of an array.
#
#   python -m torchgeo_msssl study --config study_vines --dry_run           # lists the cells with their numbers
#   sbatch --array 0-29 slurm/study.sh study_vines
#   python -m torchgeo_msssl study --config study_vines                     # when all have ended: report and page
#
# The first argument is the configuration, the others are options of `study`. Cells that are complete are skipped, so
# that the same array resumes a study. Cells that need the same pretraining wait for the one that runs it.
#SBATCH --job-name=study
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail
config=$1
shift
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# no srun: each cell is a process of its own, which must not take part in a job step
python -m torchgeo_msssl study --config "$config" "$@" --index "$SLURM_ARRAY_TASK_ID"
