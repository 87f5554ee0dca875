#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One batch over several nodes: sbatch scripts/slurm/batch_mpi.sh RECIPE.yaml
# Start it again with the same words after a time limit or a lost node: finished archives are checked and kept.
#SBATCH --job-name=hbae
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
recipe=${1:?usage: sbatch batch_mpi.sh RECIPE.yaml}

# Worker processes of each rank; every computation inside runs on one thread.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# A step of srun counts as one command, so that a rank that dies ends the others too. MPICH wants HBAE_SRUN_MPI=pmi2.
exec srun --mpi="${HBAE_SRUN_MPI:-pmix}" --kill-on-bad-exit=1 --cpu-bind=cores hbae batch "$recipe"
