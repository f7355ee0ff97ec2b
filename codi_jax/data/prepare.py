"""From any source to ArrayRecord shards: parallel, resumable, the same bytes every time.

Two passes over ranges of images. The first decodes all and notes sizes and hashes; then it is
known which images stay. The second writes one shard a range. A range that is done leaves a file
in `.work`, which is written whole or not at all: a run that was killed goes on from there. All
that is kept of an image is its hash, its state and its size: some 20 bytes.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from codi_jax.data import prepare_units
from codi_jax.data.beam_pool import BeamPool
from codi_jax.data.depth import DepthEstimator
from codi_jax.data.duplicates import near_duplicates
from codi_jax.data.pool import Pool
from codi_jax.data.prepare_units import Encode, PrepareConfig
from codi_jax.data.sources import Source, write_array_record
from codi_jax.data.sources.array_record import array_record_module
from codi_jax.data.sources.skipping import too_many
from codi_jax.typing import UserError

REPORT = "report.json"
#: The content of that file, or of a part of it.
Report = dict[str, Any]
_WORK = ".work"
_NAMED = 1000  # corrupt images that the report names


def prepare(
    source: Source,
    output: str | os.PathLike[str],
    config: PrepareConfig,
    *,
    label: str,
    workers: int = 0,
    beam: str = "",
    max_corrupt: int | None = None,
    encode: Encode | None = None,
) -> Report:
    """Writes the shards and `report.json`; goes on where an earlier call was killed.

    Args:
        source: must not change between a killed call and the next.
        output: a folder that is empty, or of the same preparation.
        config: what is made of the images.
        label: what the user called the source; the same call has the same.
        workers: processes; 0 works in this one.
        beam: options of an Apache Beam pipeline that works instead; see `beam_pool`.
        max_corrupt: stop when more images are corrupt; None: any number is left out.
        encode: makes the columns that `config.latents` and `config.embeddings` name.

    Returns:
        The report, as in the file.

    Raises:
        UserError: a folder in other use, too many corrupt images (all named), or none that stays.
    """
    output, work = Path(output), Path(output) / _WORK
    identity = {"source": label, "images": len(source), **dataclasses.asdict(config)}
    done = _claim(output, work, identity)
    if done is not None:
        return done
    # What is absent should not be found after the first pass.
    array_record_module(f"the preparation of {label}")
    if config.depth:
        DepthEstimator(config.depth)
    units = _units(len(source), config.shard_images)
    for leftover in work.glob("tmp*"):  # of a killed process
        shutil.rmtree(leftover)
    work = work.absolute()  # other processes may run elsewhere
    job = _Job(source=source, work=work, config=config, encode=encode)
    with BeamPool(job, beam, work) if beam else Pool(job, workers) as pool:
        _run(pool, "scan", _scan_unit, work, [(unit,) for unit in units])
        small, hashes, corrupt = _gather(work, units, len(source))
        if max_corrupt is not None and len(corrupt) > max_corrupt:
            raise too_many(list(corrupt.values()), max_corrupt)
        stays, counts = _select(small, hashes, corrupt, config)
        if not stays.any():
            raise UserError(f"no image of {label} stays: {counts}; see min_size and crop.")
        del hashes, small
        tasks = [(unit, stays[unit.start : unit.stop]) for unit in units]
        _run(pool, "write", _write_unit, work, tasks)
    report = _report(work, units, identity, counts, corrupt)
    _write_json(output / REPORT, report, work)
    shutil.rmtree(work)
    return report


def _units(images: int, size: int) -> list[range]:
    """The indices of each shard."""
    return [range(start, min(start + size, images)) for start in range(0, images, size)]


def _claim(output: Path, work: Path, identity: Report) -> Report | None:
    """Takes the folder for this preparation; the report, if it is complete already."""
    report, config = output / REPORT, work / "config.json"
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error}); choose another.") from error
    if report.is_file():
        shutil.rmtree(work)
        done = json.loads(report.read_text())
        if done["config"] != identity:
            raise UserError(f"{output} holds another preparation (see {REPORT}); choose another.")
        return done
    if config.is_file():
        if json.loads(config.read_text()) != identity:
            raise UserError(
                f"{output} holds an unfinished preparation of {config.read_text().strip()}; "
                "give the same options to finish it, or choose another folder."
            )
    elif any(entry != work for entry in output.iterdir()):
        shutil.rmtree(work)
        raise UserError(f"{output} is not empty; choose another folder.")
    else:
        _write_json(config, identity, work)
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    """What the processes hold."""

    source: Source
    work: Path
    config: PrepareConfig
    encode: Encode | None


def _run(
    pool: Pool | BeamPool,
    stage: str,
    function: Callable[..., None],
    work: Path,
    tasks: Sequence[tuple[range, *tuple[object, ...]]],
) -> None:
    """Does the tasks (unit, ...) whose result is not there yet, with a progress bar."""
    missing = [task for task in tasks if not _result(work, stage, task[0]).is_file()]
    done = sum(len(task[0]) for task in tasks) - sum(len(task[0]) for task in missing)
    with tqdm(total=tasks[-1][0].stop, initial=done, unit="image", desc=stage) as bar:
        for unit, *_ in pool.run(function, missing):
            bar.update(len(unit))


def _scan_unit(job: _Job, unit: range) -> None:
    found = prepare_units.scan(job.source, unit, job.config)
    with tempfile.TemporaryDirectory(dir=job.work) as folder:
        temporary = Path(folder) / "scan.npz"
        np.savez(
            temporary,
            hash=found["hash"],
            small=found["small"],
            corrupt=np.array(json.dumps(found["corrupt"])),
        )
        os.replace(temporary, _result(job.work, "scan", unit))


def _write_unit(job: _Job, unit: range, stays: np.ndarray) -> None:
    indices = [index for index, stay in zip(unit, stays, strict=True) if stay]
    target = _shard(job.work, unit)
    sizes: list[tuple[int, int]] = []

    def remember() -> Iterator[bytes]:
        for record, size in prepare_units.records(job.source, indices, job.config, job.encode):
            sizes.append(size)
            yield record

    if indices:
        with tempfile.TemporaryDirectory(dir=job.work) as folder:
            temporary = Path(folder) / target.name
            write_array_record(temporary, remember())
            os.replace(temporary, target)
    result = {"sizes": sizes, "bytes": target.stat().st_size if indices else 0}
    _write_json(_result(job.work, "write", unit), result, job.work)


def _result(work: Path, stage: str, unit: range) -> Path:
    return work / f"{stage}-{unit.start:09d}"


def _shard(work: Path, unit: range) -> Path:
    return work.parent / f"images-{unit.start:09d}.array_record"


def _write_json(path: Path, value: object, work: Path) -> None:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        temporary = Path(folder) / path.name
        temporary.write_text(json.dumps(value, indent=1) + "\n")
        os.replace(temporary, path)


def _gather(
    work: Path, units: list[range], count: int
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """small bool [N], hashes uint64 [N], and the corrupt ones."""
    small, hashes = np.zeros(count, bool), np.zeros(count, np.uint64)
    corrupt: dict[int, str] = {}
    for unit in units:
        with np.load(_result(work, "scan", unit)) as found:
            small[unit.start : unit.stop] = found["small"]
            hashes[unit.start : unit.stop] = found["hash"]
            corrupt |= {int(i): text for i, text in json.loads(str(found["corrupt"])).items()}
    return small, hashes, corrupt


def _select(
    small: np.ndarray, hashes: np.ndarray, corrupt: dict[int, str], config: PrepareConfig
) -> tuple[np.ndarray, dict[str, int]]:
    """stays bool [N], and why the others do not."""
    stays = ~small
    stays[list(corrupt)] = False
    counts = {"corrupt": len(corrupt), "too_small": int(small.sum())}
    counts["near_duplicates"] = 0
    if config.near_duplicates >= 0:
        # Only among those that stay: a thumbnail must not drive its large original out.
        left = np.flatnonzero(stays)
        duplicate = left[near_duplicates(hashes[left], config.near_duplicates)]
        stays[duplicate] = False
        counts["near_duplicates"] = len(duplicate)
    counts["stay"] = int(stays.sum())
    return stays, counts


def _report(
    work: Path,
    units: list[range],
    identity: Report,
    counts: dict[str, int],
    corrupt: dict[int, str],
) -> Report:
    sizes, total, shards = [], 0, 0
    for unit in units:
        result = json.loads(_result(work, "write", unit).read_text())
        sizes.append(np.array(result["sizes"], np.int32).reshape(-1, 2))
        total += result["bytes"]
        shards += bool(result["sizes"])
    size = np.concatenate(sizes)
    spread = {
        name: {"min": int(v.min()), "median": float(np.median(v)), "max": int(v.max())}
        for name, v in (("height", size[:, 0]), ("width", size[:, 1]))
    }
    return {
        "config": identity,
        "images": {"source": identity["images"], **counts},
        "records": len(size),
        "shards": shards,
        "bytes": total,
        "size": spread,
        "corrupt": [corrupt[index] for index in sorted(corrupt)][:_NAMED],
    }
