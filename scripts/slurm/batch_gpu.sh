#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One batch with a model on GPUs, several ranks to each: sbatch scripts/slurm/batch_gpu.sh RECIPE.yaml
# The recipe says "device: cuda": rank n of a node then takes GPU n modulo the GPUs that it sees.
#SBATCH --job-name=hbae-gpu
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
recipe=${1:?usage: sbatch batch_gpu.sh RECIPE.yaml}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# All ranks of a node see all its GPUs (no --gpus-per-task): hbae deals them out. PE= gives each rank its own cores.
exec mpirun -n "$SLURM_NTASKS" --map-by "ppr:${SLURM_NTASKS_PER_NODE}:node:PE=${SLURM_CPUS_PER_TASK}" --bind-to core \
    hbae batch "$recipe"
