"""Time from the command to its first step: with an empty cache of compiled programs, and again.

    python -m benchmarks.first_step --output first_step.json
    python -m benchmarks.first_step --config configs/canny.py

Both starts have a workdir of their own, and share a cache folder that is new. Printed are seconds
by the clock, which need a machine that is idle, and seconds of processor time, and the ratio of the
second start to the first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def first_step(config: str, workdir: Path, cache: Path) -> dict[str, float]:
    """Start the run, end it after its first step, and say what it took until then."""
    kept = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "codi_jax.main", f"--config={config}"),
            *(f"--workdir={workdir}", "--config.log_every=1"),
        ],
        env={**kept, "XDG_CACHE_HOME": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("step 1/"):
            break
    else:
        sys.exit("the run has ended without a step:\n" + "".join(said))
    seconds = time.monotonic() - begin
    process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"seconds": seconds, "processor_seconds": usage.ru_utime + usage.ru_stime}


def main() -> None:
    """Print both starts and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/sr.py")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        starts = {
            name: first_step(args.config, root / name, root / "cache") for name in ("cold", "warm")
        }
    print("| start | seconds | processor seconds |\n|---|---|---|")
    for name, took in starts.items():
        print(f"| {name} | {took['seconds']:.1f} | {took['processor_seconds']:.1f} |")
    ratio = {key: starts["warm"][key] / starts["cold"][key] for key in starts["warm"]}
    print(f"| ratio | {ratio['seconds']:.2f} | {ratio['processor_seconds']:.2f} |")
    if args.output is not None:
        args.output.write_text(json.dumps({**starts, "ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
