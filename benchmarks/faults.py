"""Runs that are killed and stopped, many times: does each end like one that never was?

    python -m benchmarks.faults --out faults
    python -m benchmarks.faults --out faults2 --processes 2

A run of the smallest networks is started, hit by a signal and started again until it ends; then the
next run begins. The moments are drawn with a seed: during the start, at a step, while a checkpoint
is being written, while the model is. Of several processes a random one is killed; the
others get nothing and must end by themselves. Each line says where the run was hit, the exit
codes, how long the processes took to end, and what was wrong; the last lines count. The models
that came out must have the bytes of one that a run made without any fault.
What was done stands in OUT/faults.json, and the same command goes on from there. Linux only: the
processes of a run are found in /proc.
A fault takes about twenty seconds of processor time for each process.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.jobs import LEFT, SETTINGS, STEPS, Job
from codi_jax.typing import INTERRUPTED

#: Where a run is hit, drawn with these weights.
MOMENTS = {"start": 3, "step": 5, "save": 7, "export": 5}
COUNTS = {"SIGKILL": 20, "SIGTERM": 20, "SIGINT": 5}
#: Seconds in which the others of a killed process end.
OTHERS = 30.0
#: Seconds in which a run stops or ends that was asked to stop: a start may have to be awaited.
STOPPED = 120.0


def digest(workdir: Path) -> str:
    """Of every file of the model that a run made, names and bytes."""
    total = hashlib.sha256()
    for file in sorted((workdir / "model").rglob("*")):
        if file.is_file():
            total.update(f"{file.relative_to(workdir)}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written: until then its name is longer than its number."""
    try:
        names = os.listdir(workdir / "checkpoints")
    except OSError:
        return False
    return any(not name.isdigit() and not name.endswith(".damaged") for name in names)


def moment(job: Job, kind: str, draw: random.Random, start: float) -> bool:
    """Wait until the job is at the moment; False if it ended before."""
    # A process that never came is waited for, five minutes. And what a killed run was writing lies
    # there until the next one has begun.
    if len(job.processes) > 1 and not job.until(job.joined):
        return False
    if kind == "start":
        time.sleep(draw.uniform(0, start))
        return job.running()
    if kind == "step":
        step = draw.randrange(1, STEPS)
        return job.until(lambda: last_step(job) >= step)
    if kind == "export":
        return job.until((job.workdir / ".model.tmp").exists)
    for _ in range(draw.randrange(0, 3)):
        if not job.until(lambda: saving(job.workdir)):
            return False
        if not job.until(lambda: not saving(job.workdir)):
            return False
    return job.until(lambda: saving(job.workdir))


def last_step(job: Job) -> int:
    """The last step that the job has told."""
    return max(map(int, re.findall(r"step (\d+)/", job.said())), default=0)


@dataclasses.dataclass
class Fault:
    """One signal, and what came of it.

    Attributes:
        victims: indices of the processes that it was sent to.
        codes: exit codes of all.
        seconds: until all had ended.
        family: number of the run's processes when it was sent.
        wrong: what was not as it should be.
    """

    signal: str
    moment: str
    victims: list[int]
    codes: list[int]
    seconds: float
    family: int
    wrong: list[str]


def hit(job: Job, name: str, victims: list[int], kind: str, inner: bool = False) -> Fault:
    """Send the signal, and look at how the job ends; with ``inner`` to what does the work."""
    number, family = signal.Signals[name], len(job.family())
    silent = [index for index in victims if not job.said(index)]
    begin = time.monotonic()
    for index in victims:
        if inner:
            job.kill_worker(index)
        else:
            job.processes[index].send_signal(number)
    # Small steps are fast: some are done before all processes have agreed where to stop. And a run
    # that goes on from its last step has none left.
    over = kind == "export" or last_step(job) >= STEPS - 6
    over |= (job.workdir / "checkpoints" / str(STEPS)).exists()
    codes = job.wait(300)
    seconds = time.monotonic() - begin
    wrong = []
    for index, code in enumerate(codes):
        said = job.said(index)
        # Python itself starts without handlers: until then a signal has its own effect. What a
        # killed run was saving lies there until then, and looks as if it were being saved.
        early = {-number} if index in victims and (kind == "start" or index in silent) else set()
        allowed = {-9} if number == signal.SIGKILL and index in victims else {INTERRUPTED} | early
        if code not in allowed and not (code == 0 and over):
            wrong.append(f"process {index} exits with {code}")
        if "Traceback" in said or "Check failure" in said:
            wrong.append(f"process {index} shows a traceback")
    if number == signal.SIGKILL and len(codes) > len(victims) and seconds > OTHERS:
        wrong.append(f"the others end after {seconds:.0f} s")
    if seconds > STOPPED:
        wrong.append(f"it ends after {seconds:.0f} s")
    if left := job.left():
        wrong.append(f"left after {LEFT:.0f} s: {left}")
    return Fault(name, kind, victims, codes, round(seconds, 1), family, wrong)


def main() -> None:
    """Print a line for each fault and the counts; exit with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, made if need be")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", default="0/1", help="0/2 and 1/2: each does half of the faults")
    args = parser.parse_args()
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "faults.json"
    done = json.loads(path.read_text()) if path.exists() else {"faults": [], "models": []}
    if "whole" not in done:
        begin = time.monotonic()
        with Job(out / "whole", args.processes) as job:
            assert job.until(lambda: "step 1/" in job.said()), job.said()
            done["start"] = time.monotonic() - begin
            assert set(job.wait()) == {0}, job.said()
        done["whole"] = digest(out / "whole")
    plan = random.Random(args.seed)
    names = [name for name, count in COUNTS.items() for _ in range(count)]
    plan.shuffle(names)
    kinds = plan.choices(list(MOMENTS), list(MOMENTS.values()), k=len(names))
    share, shares = (int(number) for number in args.share.split("/"))
    names, kinds = names[share::shares], kinds[share::shares]
    while len(done["faults"]) < len(names):
        index = len(done["faults"])
        draw = random.Random(f"{args.seed} {index} {len(done['models'])}")
        workdir = out / f"run_{len(done['models'])}"
        # Every third fault finds two data workers in each process.
        settings = {**SETTINGS, "data.num_workers": 2 if index % 3 == 0 else 0}
        with Job(workdir, args.processes, settings) as job:
            if moment(job, kinds[index], draw, done["start"]):
                everyone = list(range(args.processes))
                all_of_them = names[index] != "SIGKILL" and draw.random() < 0.5
                victims = everyone if all_of_them else [draw.choice(everyone)]
                # The one that was started only watches the one that works, if there are several.
                inner = args.processes > 1 and names[index] == "SIGKILL" and draw.random() < 0.7
                fault = hit(job, names[index], victims, kinds[index], inner)
                done["faults"].append(dataclasses.asdict(fault))
                print(index, dataclasses.asdict(fault), flush=True)
                if fault.wrong:
                    for i in everyone:
                        print(job.said(i)[-3000:], flush=True)
            codes = job.wait()
        if set(codes) == {0}:  # the run came to its end: the next begins anew
            done["models"].append(digest(workdir) == done["whole"])
            print(f"{workdir.name}: the same bytes: {done['models'][-1]}", flush=True)
            shutil.rmtree(workdir)
        path.write_text(json.dumps(done, indent=1))
    # The last run goes on to its end.
    with Job(out / f"run_{len(done['models'])}", args.processes) as job:
        assert set(job.wait()) == {0}, job.said()
    done["models"].append(digest(job.workdir) == done["whole"])
    path.write_text(json.dumps(done, indent=1))
    sys.exit(report(done))


def report(done: dict[str, Any]) -> int:
    """Print the table; 1 if anything was wrong."""
    faults = [Fault(**fault) for fault in done["faults"]]
    print("| signal | " + " | ".join(MOMENTS) + " | wrong |\n" + "|---" * 6 + "|")
    for name in COUNTS:
        of_it = [fault for fault in faults if fault.signal == name]
        cells = [str(sum(fault.moment == kind for fault in of_it)) for kind in MOMENTS]
        print(f"| {name} | {' | '.join(cells)} | {sum(bool(f.wrong) for f in of_it)} |")
    same = sum(done["models"])
    print(f"models with the same bytes: {same} of {len(done['models'])}")
    print(f"longest time to the end of all processes: {max(f.seconds for f in faults):.1f} s")
    return int(same < len(done["models"]) or any(fault.wrong for fault in faults))


if __name__ == "__main__":
    main()
