#!/usr/bin/env bash
# A labelled data set by many Slurm tasks, each of which generates every n-th block of images:
#
#   sbatch --array=0-7 examples/slurm/generate_ranks.sh runs/kitti_simple --num_scenes 1000000 --output /shared/streets
#
# The words after the script are those of `ms2 generate`. The folder of --output has to be on a disk that all nodes share.
# Without --array the job's own tasks share the set. Submitted again, it makes what is missing.
#SBATCH --job-name=ms2-generate
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

# A task finds its own number, and how many there are, in the variables that torchrun sets too.
# shellcheck disable=SC2016 # expanded by the tasks
rank_of_task='
export RANK=$(((${SLURM_ARRAY_TASK_ID:-0} - ${SLURM_ARRAY_TASK_MIN:-0}) * SLURM_NTASKS + SLURM_PROCID))
export WORLD_SIZE=$((${SLURM_ARRAY_TASK_COUNT:-1} * SLURM_NTASKS))
export LOCAL_RANK=$SLURM_LOCALID OMP_NUM_THREADS=1
exec ms2 generate "$@" --workers "${SLURM_CPUS_PER_TASK:-1}"
'
srun bash -c "$rank_of_task" ms2-generate "$@"
