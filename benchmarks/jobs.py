"""A run in processes of its own, to be hit: how it is started, watched and cleared away.

Linux only: whatever belongs to a run is found in /proc, by a variable of its environment.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: In the environment of a run, and so of whatever it starts.
TOKEN = "CODI_FAULTS_RUN"
STEPS = 32
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "log_every": 1,
    "checkpoint.every": 8,
    "eval.every": STEPS,
    "eval.steps": "(1,)",
    "eval.count": 1,
}
#: Seconds after its end in which no process of a run may be left.
LEFT = 5.0


class Job:
    """The processes of one run, started.

    Args:
        workdir: of the run.
        processes: several make one run by jax.distributed on this machine.
        settings: keys of the config and their values; by default those of the fault tests.
        config: its path.
        name: of the files beside the workdir that have what they say; by default the workdir's.
    """

    def __init__(
        self,
        workdir: Path,
        processes: int = 1,
        settings: dict[str, Any] | None = None,
        config: str = "tests/smallest.py:finetune",
        name: str = "",
    ) -> None:
        self.workdir, self.token = workdir, uuid.uuid4().hex
        self._logs = [
            workdir.with_name(f"{name or workdir.name}.{i}.log") for i in range(processes)
        ]
        flags = [f"--config.{key}={value}" for key, value in (settings or SETTINGS).items()]
        command = [
            *(sys.executable, "-m", "codi_jax.main", f"--config={config}"),
            *(f"--workdir={workdir}", f"--config.mesh.data={processes}", *flags),
        ]
        shared = {**os.environ, "JAX_PLATFORMS": "cpu", TOKEN: self.token}
        if processes > 1:
            shared |= several(processes)
        self.processes = []
        for i, log in enumerate(self._logs):
            own = {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} if processes > 1 else {}
            with open(log, "w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env={**shared, **own}, stdout=file, stderr=file
                    )
                )

    def said(self, index: int = 0) -> str:
        """What a process has said so far."""
        return self._logs[index].read_text(errors="replace")

    def joined(self) -> bool:
        """Whether several processes have found one another."""
        return all("[Gloo]" in self.said(i) for i in range(len(self.processes)))

    def kill_worker(self, index: int) -> None:
        """Kill what a process forked to do its work, which it watches."""
        parent = self.processes[index].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    def running(self) -> bool:
        """Whether every process that was started is alive."""
        return all(process.poll() is None for process in self.processes)

    def until(self, condition: Callable[[], bool], timeout: float = 3600) -> bool:
        """Wait for a condition; False where the run ended before, or the time."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            if not self.running():
                return False
            time.sleep(0.001)
        return False

    def wait(self, timeout: float = 3600) -> list[int]:
        """The exit codes; what has not ended by then is killed, and its code is -9."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            try:
                process.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        return [process.wait() for process in self.processes]

    def family(self) -> dict[int, str]:
        """All living processes of the run: data workers, helpers, whoever started them."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.token in (folder / "environ").read_text():
                    line = (folder / "cmdline").read_text().replace("\0", " ").strip()
                    found[int(folder.name)] = line
            except (OSError, UnicodeDecodeError):
                continue  # it has ended, or is another user's
        return found

    def left(self, seconds: float = LEFT) -> dict[int, str]:
        """The processes that live on so long after the run."""
        deadline = time.monotonic() + seconds
        while (family := self.family()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return family

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait(10)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def several(processes: int) -> dict[str, str]:
    """Variables by which processes on this machine find one another, as in launch/."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        # One device in each, also where the tests have eight.
        "XLA_FLAGS": re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags),
        "CODI_DISTRIBUTED": "1",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "SLURM_JOB_ID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(processes),
    }
