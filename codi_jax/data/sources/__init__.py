"""Where images come from: random-access sources.

A source has `__len__` and `__getitem__(i) -> {"image": uint8 [H, W, 3] RGB, "text": str,
"name": str}`; "text" is the caption, "" where there is none; `columns` describes what else an
element may hold. Sources are pickled into worker processes, so they hold paths rather than
open files or decoded images.
"""

from codi_jax.data.sources.array_record import ArrayRecordSource, write_array_record
from codi_jax.data.sources.base import Element, Source
from codi_jax.data.sources.caching import CachedSource, cached
from codi_jax.data.sources.folder import FolderSource
from codi_jax.data.sources.named import NamedSource, check_source, make_source
from codi_jax.data.sources.parquet import ParquetSource
from codi_jax.data.sources.record import pack_record
from codi_jax.data.sources.skimage import SkimageSource
from codi_jax.data.sources.skipping import SkippingSource
from codi_jax.data.sources.tfds import TfdsSource
from codi_jax.data.sources.webdataset import WebDatasetSource

__all__ = [
    "ArrayRecordSource",
    "CachedSource",
    "Element",
    "FolderSource",
    "NamedSource",
    "ParquetSource",
    "SkimageSource",
    "SkippingSource",
    "Source",
    "TfdsSource",
    "WebDatasetSource",
    "cached",
    "check_source",
    "make_source",
    "pack_record",
    "write_array_record",
]
