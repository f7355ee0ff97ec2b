#!/usr/bin/env bash
# All that a GPU is needed for, in one command of at most 8 minutes (LIMIT seconds):
#
#     OUT=figures benchmarks/accelerator.sh
#
# our training step and sampler beside PyTorch's (eager, torch.compile), the full CoDi step, the MFU
# at larger batches, and sampling in 4 and in 50 steps. All programs are compiled side by side first
# and kept in a cache; the timings follow one at a time. Each figure is printed as it comes, and the
# tables of what was finished last. SIZES, BATCHES, ROUNDS and COMPILE= make it smaller; to try it
# without a GPU:
#
#     SIZES=tiny BATCHES=4 ROUNDS=1 COMPILE= LIMIT=3000 benchmarks/accelerator.sh
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-$(mktemp -d)}
SIZES=${SIZES-"embedded sd21"}
BATCHES=${BATCHES-"16 32"}
ROUNDS=${ROUNDS:-9}
COMPILE=${COMPILE---compile}
PY=${PY:-python3}
end=$(($(date +%s) + ${LIMIT:-480}))
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONPATH=${PYTHONPATH:-.}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$OUT/compiled}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$OUT/inductor}

# at_most NAME COMMAND...: as long as there is time; its lines have the name before them.
at_most() {
  local name=$1 left=$((end - $(date +%s)))
  shift
  if [ "$left" -lt 5 ]; then echo "$name: no time left"; return 1; fi
  timeout "$left" "$@" 2>&1 | sed "s/^/$name: /"
  local status=${PIPESTATUS[0]}
  [ "$status" = 0 ] || echo "$name: ended with status $status"
  return "$status"
}

work() {  # ROUNDS, and "&" to run side by side
  local rounds=$1 aside=$2 size batch
  for size in $SIZES; do
    run "step-$size" "$aside" benchmarks.step --size "$size" --rounds "$rounds" --codi $COMPILE
    run "sampling-$size" "$aside" benchmarks.sampling --size "$size" --rounds "$rounds" \
      --steps 4 50 $COMPILE
  done
  for batch in $BATCHES; do
    run "step-$batch" "$aside" benchmarks.step --size "${SIZES##* }" --batch "$batch" \
      --rounds "$rounds"
  done
}

run() {  # NAME ASIDE MODULE FLAGS...
  local name=$1 aside=$2
  shift 2
  if [ "$aside" = "&" ]; then
    at_most "compile $name" "$PY" -m "$@" &
  else
    at_most "$name" "$PY" -m "$@" --output "$OUT/$name.json" || failed=1
  fi
}

failed=0
work 0 "&"
wait
work "$ROUNDS" ""
echo
tables=("$OUT"/*.json)
[ -e "${tables[0]}" ] && "$PY" -m benchmarks.contest "${tables[@]}" | tee "$OUT/tables.md"
exit "$failed"
