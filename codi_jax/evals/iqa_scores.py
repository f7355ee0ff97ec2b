"""Scores of images by pyiqa, read from the CSV files that its command line writes.

MUSIQ, MANIQA, CLIPIQA, TOPIQ and many more are networks of PyTorch, which are not here.
``inference_iqa.py -m METRIC -t FOLDER --save_file FILE`` of IQA-PyTorch writes one line for each
image, its file name and its score, without a header and without the metric's name; so the name
is given beside the file. Which way is better is pyiqa's own word (``lower_better`` of the
configurations of version 0.1.16).
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

from codi_jax.data.regular_files import read_regular
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.scoring import OwnMeasures
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.typing import UserError

_LOWER = (
    "afine_all", "afine_all_scale", "afine_fr", "afine_nr", "brisque", "brisque_matlab",
    "deepdc", "ilniqe", "lpips", "lpips+", "lpips-vgg", "lpips-vgg+", "mad", "msswd",
    "niqe_matlab", "nlpd", "pi", "pieapp", "piqe", "stlpips", "stlpips-vgg",
)  # fmt: skip
_HIGHER = (
    "ahiq", "arniqa", "arniqa-clive", "arniqa-csiq", "arniqa-flive", "arniqa-kadid",
    "arniqa-live", "arniqa-spaq", "arniqa-tid", "ckdn", "clipiqa", "clipiqa+",
    "clipiqa+_rn50_512", "clipiqa+_vitL14_512", "clipscore", "cnniqa", "compare2score",
    "cw_ssim", "dbcnn", "dmm", "entropy", "fgresq", "fgresq_pair", "fsim", "hyperiqa",
    "laion_aes", "liqe", "liqe_mix", "maclip", "maniqa", "maniqa-kadid", "maniqa-pipal",
    "metaiqa", "musiq", "musiq-ava", "musiq-paq2piq", "musiq-spaq", "nima", "nima-koniq",
    "nima-spaq", "nima-vgg16-ava", "nrqm", "paq2piq", "psnry", "qalign", "qalign_4bit",
    "qalign_8bit", "qrealign", "qrealign-lite", "qrealign-mini", "qrealign-pro", "qualiclip",
    "qualiclip+", "qualiclip+-clive", "qualiclip+-flive", "qualiclip+-spaq", "ssimc",
    "topiq_fr", "topiq_fr-pipal", "topiq_iaa", "topiq_iaa_res50", "topiq_nr", "topiq_nr-face",
    "topiq_nr-face-v1", "topiq_nr-flive", "topiq_nr-spaq", "topiq_nr_swin-face", "tres",
    "tres-flive", "unique", "uranker", "vif", "vsi", "wadiqam_fr", "wadiqam_nr",
)  # fmt: skip
#: pyiqa's metrics of single images, by name -> whether higher is better.
HIGHER_IS_BETTER = {**dict.fromkeys(_LOWER, False), **dict.fromkeys(_HIGHER, True)}
_DIRECTIONS = {"higher": True, "lower": False}
_MOST_BYTES = 2**26


@dataclasses.dataclass(frozen=True, kw_only=True)
class IqaFile:
    """One metric's scores of a folder.

    Attributes:
        name: of the metric.
        higher_is_better: its direction.
        path: of the CSV file.
    """

    name: str
    higher_is_better: bool
    path: Path

    def scores(self, images: ImageFiles) -> list[float]:
        """The score of each image, matched by file name.

        Raises:
            UserError: a file that cannot be read as such scores; an image without a score, or
                a score without an image.
        """
        rows, folder, wanted = _read(self.path), images.root, {*images.names}
        again = (
            f"Compute it on that very folder: python inference_iqa.py -m {self.name} -t {folder} "
            f"--save_file {self.path}"
        )
        missing = sorted(wanted - rows.keys())
        if missing:
            raise UserError(
                f"{self.path} has no score by {self.name} for {missing[0]} ({len(missing)} of the "
                f"{len(images)} images of {folder} have none). {again}"
            )
        unknown = sorted(rows.keys() - wanted)
        if unknown:
            raise UserError(
                f"{self.path} has a score by {self.name} for {unknown[0]}, which is not in "
                f"{folder} ({len(unknown)} of its {len(rows)} names are not). {again}"
            )
        return [rows[name] for name in images.names]


def iqa_files(entries: Sequence[str]) -> tuple[IqaFile, ...]:
    """What the user names: METRIC=FILE each, or METRIC:higher=FILE, METRIC:lower=FILE.

    Raises:
        UserError: an entry of another form; a metric whose direction is not known and not said,
            or said wrongly; a name that is given twice, or to a metric that is computed here.
    """
    files: dict[str, IqaFile] = {}
    for entry in entries:
        key, equals, path = entry.partition("=")
        name, colon, direction = key.partition(":")
        if not equals or not name or not path or (colon and direction not in _DIRECTIONS):
            raise UserError(
                f"--iqa_csv={entry}: give METRIC=FILE with pyiqa's name of the metric, such as "
                "musiq=musiq.csv, or METRIC:higher=FILE or METRIC:lower=FILE."
            )
        if name in METRICS:
            raise UserError(
                f"--iqa_csv={entry}: {name} is computed here, by --metrics {name}. To read "
                f"pyiqa's beside it, call it pyiqa_{name} and say which way is better: "
                f"pyiqa_{name}:{'higher' if METRICS[name].higher_is_better else 'lower'}={path}"
            )
        if name in files:
            raise UserError(f"--iqa_csv: {name} is given twice; give each metric one file.")
        known, said = HIGHER_IS_BETTER.get(name), _DIRECTIONS.get(direction)
        if known is None and said is None:
            raise UserError(
                f"--iqa_csv={entry}: {name} is no metric of pyiqa 0.1.16 that gives each image a "
                f"score. Check the name, or say which way is better: {name}:higher={path} or "
                f"{name}:lower={path}"
            )
        if known is not None and said not in (None, known):
            raise UserError(
                f"--iqa_csv={entry}: in pyiqa {'higher' if known else 'lower'} {name} is better; "
                f"give {name}={path}"
            )
        better = said if known is None else known
        files[name] = IqaFile(
            name=name, higher_is_better=bool(better), path=Path(path).expanduser()
        )
    return tuple(files.values())


def read_measures(files: Sequence[IqaFile], images: ImageFiles) -> OwnMeasures:
    """The files' scores as measures of those images, and of no others.

    Raises:
        UserError: as :meth:`IqaFile.scores`.
    """
    scores = {file.name: file.scores(images) for file in files}
    return OwnMeasures(
        measure=lambda _: scores,
        directions={file.name: file.higher_is_better for file in files},
        per_image=True,
        convention="read from a file that pyiqa wrote, not computed here",
    )


def _read(path: Path) -> dict[str, float]:
    """The scores by file name."""
    try:
        text = read_regular(path, str(path), _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no UTF-8 text ({error}); save it as UTF-8.") from error
    rows: dict[str, float] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if not row:  # on Windows pyiqa ends lines twice
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != 2:
                raise UserError(
                    f"{where} has {len(row)} cells; expected a file name and a score, as "
                    "inference_iqa.py --save_file writes them."
                )
            name, score = row
            if name in rows:
                raise UserError(f"{where}: a second score for {name}; remove one of the lines.")
            rows[name] = _number(score, where)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: no CSV ({error}).") from error
    return rows


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{where}: the score is {text!r}, no finite number; expected lines of a file name and "
            "a score, without a header. Compute it again, or leave the metric out."
        )
    return value
