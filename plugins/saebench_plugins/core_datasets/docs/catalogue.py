"""What the `docs` corpus is made of: a fixed list of distributions, and the parts of the large ones that are read.

The list is run-time requirements of saebench (direct ones and theirs), never whatever else is installed, so that two
machines with the same versions have the same corpus.  The Python standard library is not on it: `requirements.lock`
cannot hold its version.  Changing this list or the extraction changes the corpus: raise `EXTRACTOR_VERSION` with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EXTRACTOR_VERSION = 2


class Source(NamedTuple):
    """One distribution and what is read of it.

    Attributes:
        name: distribution name.
        parts: folders (ending in "/") and files relative to the installation root; empty means all of it.
    """

    name: str
    parts: tuple[str, ...] = ()


def _within(root: str, names: str) -> tuple[str, ...]:
    return tuple(f"{root}/{name}" for name in names.split())


CATALOGUE: tuple[Source, ...] = (
    Source("click"),
    Source("datasets"),
    Source("filelock"),
    Source("fsspec"),
    Source(
        "huggingface_hub",
        _within(
            "huggingface_hub",
            "hf_api.py file_download.py hf_file_system.py repocard.py repocard_data.py hub_mixin.py constants.py "
            "errors.py community.py keras_mixin.py _snapshot_download.py _commit_api.py serialization/ utils/",
        ),
    ),
    Source("jinja2"),
    Source(
        "networkx",
        _within(
            "networkx", "algorithms/ classes/ generators/ linalg/ drawing/ convert.py convert_matrix.py relabel.py"
        ),
    ),
    Source("numpy", _within("numpy", "_core/ fft/ lib/ linalg/ ma/ polynomial/ random/ matrixlib/")),
    Source("packaging"),
    Source(
        "pandas",
        _within(
            "pandas",
            "core/frame.py core/series.py core/generic.py core/base.py core/indexes/ core/reshape/ "
            "core/strings/ errors/ io/parsers/ plotting/_core.py",
        ),
    ),
    Source("pluggy"),
    Source("pydantic"),
    Source("pyyaml"),
    Source("safetensors"),
    Source(
        "scipy",
        _within(
            "scipy",
            "cluster/ fft/ integrate/ interpolate/ linalg/ ndimage/ odr/ optimize/ signal/ spatial/ stats/",
        ),
    ),
    Source("tabulate"),
    Source("tokenizers"),
    Source(
        "torch",
        _within(
            "torch",
            "_torch_docs.py _tensor_docs.py _tensor.py __init__.py functional.py library.py serialization.py hub.py "
            "autograd/ compiler/ distributions/ fft/ linalg/ nn/ optim/ package/ special/ utils/data/ "
            "utils/checkpoint.py distributed/distributed_c10d.py",
        ),
    ),
    Source("tqdm"),
    Source(
        "transformers",
        _within(
            "transformers",
            "generation/ pipelines/ data/ audio_utils.py cache_utils.py configuration_utils.py debug_utils.py "
            "feature_extraction_sequence_utils.py feature_extraction_utils.py image_transforms.py image_utils.py "
            "masking_utils.py modelcard.py modeling_outputs.py modeling_rope_utils.py modeling_utils.py "
            "optimization.py processing_utils.py pytorch_utils.py tokenization_utils_base.py "
            "tokenization_utils_tokenizers.py trainer.py trainer_callback.py trainer_pt_utils.py trainer_utils.py "
            "training_args.py video_utils.py",
        ),
    ),
)
"""Sorted by name; about a million source lines."""

_LEFT_OUT = re.compile(
    r"(?:^|/)(?:tests?|testing|_testing|__pycache__|_?vendor(?:ed)?|externals|third_party|v1|mypy|schema)/"
    r"|(?:^|/)(?:test_[^/]*|[^/]*_test|conftest|_lebedev|_version|testing|mypy)\.py$"
)


def is_read(source: Source, relative: str) -> bool:
    """Tells whether a file is part of the corpus.

    Args:
        source: the catalogue's entry.
        relative: the file's path with "/" between parts, relative to the installation root.
    """
    if not relative.endswith(".py") or relative.startswith((".", "/")) or _LEFT_OUT.search(relative):
        return False
    return not source.parts or any(
        relative.startswith(part) if part.endswith("/") else relative == part for part in source.parts
    )
