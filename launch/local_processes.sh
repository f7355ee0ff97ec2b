#!/usr/bin/env bash
# N processes on the CPU of this machine as one run: the multi-host code without several hosts.
#   launch/local_processes.sh 2 --config=configs/sr.py:tiny --workdir=runs/tiny
# JAX takes the coordinator's address from a variable of its own, but the number of processes
# and each one's index only from a cluster's; so these are Slurm's.
set -euo pipefail
cd "$(dirname "$0")/.."
n=${1:?first argument: the number of processes}
shift
export CODI_DISTRIBUTED=1 JAX_PLATFORMS=cpu
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-127.0.0.1:12355}
export SLURM_JOB_ID=0 SLURM_STEP_NODELIST=localhost SLURM_NTASKS=$n
trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT  # JAX catches SIGTERM
for ((i = 0; i < n; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i python -m codi_jax.main "$@" &
done
for ((i = 0; i < n; i++)); do
    wait -n  # the first failure ends this script, and the trap the other processes
done
