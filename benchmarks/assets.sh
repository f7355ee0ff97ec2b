#!/usr/bin/env bash
# Makes all that is shipped in codi_jax/assets: the autoencoder, the prior on it, the demo.
#
#   benchmarks/assets.sh PHOTOS HELD_OUT RUNS [--config.KEY=VALUE ...]
#
# PHOTOS and HELD_OUT are folders, RUNS is where the training runs go. What was stopped goes on,
# and what is done is skipped. RUNS/assets then holds `prior` and `demo` in float16, to be looked at,
# scored (`python -m codi_jax.evaluate --checkpoint RUNS/assets/demo --source HELD_OUT`) and copied.
# Further flags go to every run. TINY=1 takes small random networks and a few steps: for the tests.
set -euo pipefail
usage="usage: benchmarks/assets.sh PHOTOS HELD_OUT RUNS [--config.KEY=VALUE ...]"
photos=${1:?$usage} held_out=${2:?$usage} runs=${3:?$usage}
shift 3
common=(--config.data.source="$photos" --config.data.eval_source="$held_out" "$@")
variant=${TINY:+:tiny} demo=demo small=()
if [ -n "${TINY:-}" ]; then
    common+=(--config.batch_size=8 --config.tensorboard=False)
    demo=tiny
    small=(--config.model.unet.in_channels=4 --config.model.unet.out_channels=4)
fi

train() { # NAME CONFIG [FLAGS]: one run, unless its results are there
    local name=$1 config=$2
    shift 2
    [ -e "$runs/$name/results.json" ] && { echo "$name: done"; return; }
    python -m codi_jax.main --config="$config" --workdir="$runs/$name" "${common[@]}" "$@"
}

train autoencoder "configs/autoencoder.py$variant"
train prior "configs/prior.py$variant" --config.model.pretrained="$runs/autoencoder/model" "${small[@]}"
train demo "configs/sr.py:$demo" --config.model.pretrained="$runs/prior/model"
last=demo
if [ -z "${TINY:-}" ]; then # on with more clean photos, then with LPIPS beside d_x
    more=(--config.optim.warmup_steps=50 --config.optim.learning_rate=6e-4)
    train demo2 configs/sr.py:demo --config.model.pretrained="$runs/demo/model" --config.seed=1 \
        --config.steps=1300 --config.data.clean_share=0.7 "${more[@]}"
    last=demo3
    # Its networks are fetched once.
    [ -e "$runs/$last/results.json" ] || python -m benchmarks.lpips_weights
    train "$last" configs/sr.py:demo --config.model.pretrained="$runs/demo2/model" --config.seed=5 \
        --config.steps=2000 --config.data.clean_share=0.35 --config.optim.learning_rate=3e-4 \
        --config.loss.lpips_weight=0.5
fi
export_to() { # RUN NAME
    [ -e "$runs/assets/$2/model_index.json" ] ||
        python -m codi_jax.convert export "$runs/$1" "$runs/assets/$2" --dtype=float16
}
export_to prior prior
export_to "$last" demo
