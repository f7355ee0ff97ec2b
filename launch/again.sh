#!/usr/bin/env bash
# Runs a command, and again while it exits with 75: a signal stopped it, and it has saved.
#   launch/again.sh python -m codi_jax.main --config=configs/sr.py --workdir=runs/sr
# A signal to this script goes to the command, which is then not started again.
set -uo pipefail
stopped= told= child=
trap 'stopped+=1; kill -TERM "$child" 2>/dev/null && told=1' TERM INT
status=75
while [[ $status == 75 && ! $stopped ]]; do
    "$@" &
    child=$!
    if [[ $stopped && ! $told ]]; then kill -TERM "$child"; fi  # the signal came before it did
    was=unknown
    while [[ $was != "$stopped" ]]; do  # a signal ends the wait, not the command
        was=$stopped
        wait "$child"
        status=$?
    done
done
exit "$status"
