#!/usr/bin/env bash
# A TPU slice of several hosts. Run it on your own machine; gcloud starts one process per host.
# Every host has this repository in ~/codi_jax, installed as in tpu_vm.sh, and sees the data and
# the workdir at the same path (Filestore, or a bucket mounted with gcsfuse; not a gs:// URL).
#   TPU_NAME=my-pod ZONE=us-central2-b launch/tpu_pod.sh --config=configs/sr.py \
#       --workdir=/mnt/shared/runs/sr
set -euo pipefail
: "${TPU_NAME:?set TPU_NAME to the name of the TPU VM}" "${ZONE:?set ZONE to its zone}"
exec gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all --command="
cd ~/codi_jax && JAX_PLATFORMS=tpu CODI_DISTRIBUTED=1 launch/again.sh python -m codi_jax.main ${*@Q}"
