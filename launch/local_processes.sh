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
stopped=
trap 'stopped=1; kill -TERM $(jobs -p) 2>/dev/null || true' TERM INT  # they save together
status=0
for ((i = 0; i < n; i++)); do
    rc=0
    wait -n || rc=$?
    if ((rc > 128)) && [[ $stopped ]]; then  # the signal ended the wait, not a process
        stopped=
        i=$((i - 1))
    elif ((rc == 75)); then
        status=75  # all of them exit so
    elif ((rc != 0)); then
        exit "$rc"  # the first failure ends this script, and the trap the other processes
    fi
done
exit "$status"
