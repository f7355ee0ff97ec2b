#!/usr/bin/env bash
# Runs a command, and again while it exits with 75: a signal stopped it, and it has saved.
#   launch/again.sh python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
# A signal to this script goes to the command, which is then not started again.
set -uo pipefail
stopped=
trap 'stopped=1; kill -TERM "$child" 2>/dev/null' TERM INT
status=75
while [[ $status == 75 && ! $stopped ]]; do
    "$@" &
    child=$!
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do  # a signal ended the wait, not the command
        wait "$child"
        status=$?
    done
done
exit "$status"
