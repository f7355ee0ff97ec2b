#!/usr/bin/env bash
# One TPU VM host (v5e-1, v5e-4, v5e-8, v6e-8, ...). Run it on the VM, from anywhere.
#   pip install -U 'jax[tpu]' && pip install -e .        (once)
#   launch/tpu_vm.sh --config=configs/sr.py --workdir=runs/sr
set -euo pipefail
cd "$(dirname "$0")/.."
export JAX_PLATFORMS=tpu
exec launch/again.sh python -m codi_jax.main "$@"
