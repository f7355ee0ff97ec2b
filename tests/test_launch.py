"""The scripts in launch/ run for real, with the cluster's programs replaced by small ones."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from codi_jax.typing import INTERRUPTED

LAUNCH = Path(__file__).parents[1] / "launch"
#: In place of Python: what it was called with, and the next exit code of a list.
PYTHON = """#!/usr/bin/env bash
echo "$JAX_PLATFORMS $CODI_DISTRIBUTED $*" >> "$CALLS"
code=$(head -n1 "$CODES")
sed -i 1d "$CODES"
exit "${code:-0}"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH, for programs of a cluster; CALLS and CODES as above."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("CODES", str(tmp_path / "codes"))
    for name in ("JAX_PLATFORMS", "CODI_DISTRIBUTED"):
        monkeypatch.delenv(name, raising=False)
    write(folder / "python", PYTHON)
    return folder


def write(path: Path, program: str) -> None:
    path.write_text(program)
    path.chmod(0o755)


def launch(tools: Path, script: str, *arguments: str, codes: tuple[int, ...]) -> tuple[int, Any]:
    """The script's exit code, and what was called, in lines."""
    (tools.parent / "codes").write_text("".join(f"{code}\n" for code in codes))
    done = subprocess.run([LAUNCH / script, *arguments], cwd=tools.parent, timeout=60, check=False)
    return done.returncode, (tools.parent / "calls").read_text().splitlines()


def test_every_script_is_sound_bash() -> None:
    for script in (*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK) or script.suffix == ".sbatch", script
        assert "set -" in script.read_text(), f"{script}: errors would be passed over"


@pytest.mark.parametrize(
    ("codes", "status", "times"),
    [((0,), 0, 1), ((75, 75, 0), 0, 3), ((75, 2), 2, 2), ((137,), 137, 1)],
)
def test_a_tpu_vm_starts_again_upon_75_alone(
    codes: tuple[int, ...], status: int, times: int, tools: Path
) -> None:
    found, calls = launch(tools, "tpu_vm.sh", "--config=a b", codes=codes)
    assert found == status
    assert calls == ["tpu  -m codi_jax.main --config=a b"] * times


def test_a_signal_to_again_reaches_the_command_and_is_its_end(tools: Path) -> None:
    write(tools / "python", "#!/usr/bin/env bash\ntrap 'exit 75' TERM\necho up\nsleep 5 &\nwait\n")
    for _ in range(20):  # the signal may come before the script knows of its command
        process = again()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == INTERRUPTED


def test_again_waits_for_a_command_that_needs_two_signals(tools: Path) -> None:
    loop = "while ((n < 2)); do sleep .05; done"
    write(tools / "python", f"#!/usr/bin/env bash\nn=0\ntrap 'n=$((n+1))' TERM\necho up\n{loop}\n")
    process = again()
    for _ in range(2):
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    assert process.wait(30) == 0


def again() -> subprocess.Popen[str]:
    """`again.sh` with a command that is up."""
    process = subprocess.Popen([LAUNCH / "again.sh", "python"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_every_host_of_a_tpu_pod_runs_the_command(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TPU_NAME", "my-pod")
    monkeypatch.setenv("ZONE", "us-central2-b")
    monkeypatch.setenv("HOME", str(tools.parent))
    (tools.parent / "codi_jax").symlink_to(LAUNCH.parent)
    write(
        tools / "gcloud",
        '#!/usr/bin/env bash\necho "${*:1:7}" >> "$CALLS"\nexec bash -c "${@: -1:1}"\n'.replace(
            '"${@: -1:1}"', '"$(printf %s "${@: -1:1}" | sed s/^--command=//)"'
        ),
    )
    found, calls = launch(tools, "tpu_pod.sh", "--config=a b", codes=(75, 0))
    assert found == 0
    assert calls == [
        "compute tpus tpu-vm ssh my-pod --zone=us-central2-b --worker=all",
        *["tpu 1 -m codi_jax.main --config=a b"] * 2,
    ]


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (2, False), (INTERRUPTED, True), (137, False)]
)
def test_slurm_requeues_upon_75_alone(
    code: int, requeued: bool, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(tools.parent))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    # srun's own flags end where the command begins.
    write(tools / "srun", '#!/usr/bin/env bash\nwhile [[ $1 == -* ]]; do shift; done\nexec "$@"\n')
    write(tools / "scontrol", '#!/usr/bin/env bash\necho "$*" >> "$CALLS"\n')
    (tools.parent / "codes").write_text(f"{code}\n")
    script = LAUNCH / "slurm.sbatch"
    done = subprocess.run(["bash", script, "--config=a b"], timeout=60, check=False)
    assert done.returncode == code
    calls = (tools.parent / "calls").read_text().splitlines()
    assert calls[0] == " 1 -m codi_jax.main --config=a b"
    assert calls[1:] == ["requeue 17"] * requeued


def test_local_processes_end_together(tools: Path) -> None:
    found, calls = launch(tools, "local_processes.sh", "2", "--config=a b", codes=(75, 75))
    assert found == INTERRUPTED and calls == ["cpu 1 -m codi_jax.main --config=a b"] * 2
    write(tools / "python", "#!/usr/bin/env bash\n[[ $SLURM_PROCID == 1 ]] && exit 2\nsleep 60\n")
    begin = time.monotonic()
    assert launch(tools, "local_processes.sh", "2", codes=())[0] == 2
    assert time.monotonic() - begin < 30


def test_kubernetes_starts_again_upon_75_and_fails_upon_2() -> None:
    documents = list(yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()))
    kinds = {document["kind"]: document for document in documents}
    assert {"ServiceAccount", "Role", "RoleBinding", "Service", "Job"} == set(kinds)
    job = kinds["Job"]["spec"]
    actions = {
        rule["action"]: rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"]
    }
    assert actions == {"Ignore": [INTERRUPTED], "FailJob": [2]}
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which a podFailurePolicy asks for
    assert pod["terminationGracePeriodSeconds"] >= 60  # time to save
    assert job["completions"] == job["parallelism"] > 1
    (container,) = pod["containers"]
    assert {"name": "CODI_DISTRIBUTED", "value": "1"} in container["env"]
    assert container["command"] == ["python", "-m", "codi_jax.main"]
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    account = pod["serviceAccountName"]
    assert account == kinds["ServiceAccount"]["metadata"]["name"]
    assert kinds["RoleBinding"]["subjects"][0]["name"] == account
    assert pod["subdomain"] == kinds["Service"]["metadata"]["name"]
