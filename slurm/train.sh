#!/bin/bash
# Train on one or several nodes; one process per GPU.
#
#   sbatch --nodes 2 --gpus-per-node 4 --ntasks-per-node 4 slurm/train.sh fastsiam_s2 --data.paths 'scenes/*.tif'
#
# The first argument is the configuration (a file, or a name that `configs` lists), the others are options of `fit`.
# Lightning takes ranks and addresses from Slurm. Two minutes before the time limit, or before another job takes the
# nodes, Slurm sends SIGUSR1: Lightning then saves a checkpoint, puts the job back into the queue, and resumes from that
# checkpoint when the job starts again.
#SBATCH --job-name=train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail
config=$1
shift

# checkpoints of this job alone; without a folder of its own a job would resume from those of another one
root=runs/requeue/$SLURM_JOB_ID
mkdir -p "$root"
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# the run folder is named after the job, so that a restarted job writes into the same one
srun python -m torchgeo_msssl fit --config "$config" "$@" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.strategy ddp \
    --trainer.default_root_dir "$root" \
    --trainer.logger.version "job_$SLURM_JOB_ID"
