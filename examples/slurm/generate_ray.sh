#!/usr/bin/env bash
# A labelled data set by a Ray cluster on the nodes of one Slurm job:
#
#   sbatch examples/slurm/generate_ray.sh runs/kitti_simple --num_scenes 1000000 --output /shared/streets
#
# The words after the script are those of `ms2 generate`. The folder of --output has to be on a disk that all nodes share.
# Blocks of a node that dies are made by the others.
#SBATCH --job-name=ms2-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
set -euo pipefail

port=${RAY_PORT:-6379} cores=${SLURM_CPUS_PER_TASK:-1}
head=$(hostname)
export RAY_ADDRESS="$head:$port" OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

# Other users of the nodes may not use this cluster: srun hands the job's own token to all tasks.
RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')}
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
ray start --head --port="$port" --num-cpus="$cores" --include-dashboard=false --block >/dev/null &
trap 'kill $(jobs -p) 2>/dev/null' EXIT
until (: >"/dev/tcp/$head/$port") 2>/dev/null; do sleep 1; done

# Ray on each of the other nodes until the job ends; where one dies, --kill-on-bad-exit=0 keeps the others.
others=$((SLURM_NNODES - 1))
if ((others > 0)); then
    srun --nodes="$others" --ntasks="$others" --relative=1 --kill-on-bad-exit=0 \
        ray start --address="$RAY_ADDRESS" --num-cpus="$cores" --block >/dev/null &
fi
ms2 generate "$@" --executor ray
