#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Many batches, one a task, without MPI: sbatch --array=1-12 scripts/slurm/batch_array.sh RECIPES/*.yaml
# Every recipe has an output folder of its own: two batches on one folder refuse each other.
#SBATCH --job-name=hbae-array
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
recipes=("$@")
task=${SLURM_ARRAY_TASK_ID:?submit with --array=1-N}
if ((task < 1 || task > ${#recipes[@]})); then
    echo "task $task has no recipe: ${#recipes[@]} were given" >&2
    exit 2
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
exec hbae batch "${recipes[task - 1]}"
