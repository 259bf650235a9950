"""The embedded corpus `docs`: English prose from the docstrings of a fixed set of installed distributions.

Nothing is shipped and nothing is imported: files are found through distribution metadata, parsed with `ast` in two
worker processes, cleaned to prose, freed of near-duplicates and split into train and held-out by document hash.  The
result depends on the versions of the distributions alone, not on file order, locale or number of processes.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from saebench.api import is_held_out
from saebench_plugins.core_datasets.docs import extract as docs_extract
from saebench_plugins.core_datasets.docs.catalogue import CATALOGUE, EXTRACTOR_VERSION, Source, is_read

SHINGLE_WORDS = 5
MAX_SHARED = 0.4
"""A document is a near-duplicate if more than this share of its word 5-grams is in documents kept before it."""

_WORKERS = 2
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class DocsCorpus:
    """The documents of both splits, each in the order of their sha256, and what they were made from.

    Attributes:
        train: four documents in five.
        held_out: one document in five.
        manifest: `extractor`, `distributions` (name, version, files, lines, documents), `missing` (names),
            `documents` and `bytes` by split, and `digest` ("sha256:...") over all documents of both splits.
    """

    train: list[str]
    held_out: list[str]
    manifest: dict[str, Any]


def build_docs(keep: Callable[[str, Callable[[], bytes]], bytes] | None = None) -> DocsCorpus:
    """Builds the corpus from what is installed, or reads what was kept of an earlier call.

    Args:
        keep: `DatasetContext.keep`; one file for each set of versions. None builds afresh.

    Returns:
        the corpus; distributions that are not installed are named in its manifest under `missing`.

    Raises:
        RuntimeError: a worker process failed.
    """
    versions = {source.name: installed_version(source) for source in CATALOGUE}
    if keep is None:
        return _build(versions)
    return _unpacked(keep(f"docs-{_cache_key(versions)}.jsonl.gz", lambda: _packed(_build(versions))))


def without_near_duplicates(documents: Iterable[str]) -> list[str]:
    """Drops documents most of whose text is in another one.

    Documents are taken longest first (ties by hash), and one is kept unless more than `MAX_SHARED` of its word 5-grams
    are in the documents kept before it.  So a short text quoted in a long one goes as well as a reworded copy, and
    the outcome does not depend on the order of the input.

    Args:
        documents: texts, repeats allowed.

    Returns:
        the kept documents in the order of their sha256.
    """
    named = ((_sha256(text), text) for text in set(documents))
    ordered = sorted(named, key=lambda pair: (-len(pair[1]), pair[0]))
    vocabulary: dict[str, int] = {}
    seen: set[int] = set()
    kept: list[tuple[str, str]] = []
    for digest, text in ordered:
        words = [vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(text.lower())]
        shingles = _shingles(words)
        if sum(map(seen.__contains__, shingles)) <= MAX_SHARED * len(shingles):
            seen |= shingles
            kept.append((digest, text))
    return [text for _, text in sorted(kept)]


def _shingles(words: Sequence[int]) -> set[int]:
    """Hashes of the word 5-grams; a hash of a tuple of small integers is the same in every process."""
    if len(words) < SHINGLE_WORDS:
        return {hash(tuple(words))}
    return set(map(hash, zip(*(islice(words, start, None) for start in range(SHINGLE_WORDS)), strict=False)))


# --- building ---------------------------------------------------------------------------------------------------------


def installed_version(source: Source) -> str | None:
    """Version of a distribution on this machine, or None where it is not installed.

    Without what it says of its build (`2.13.0+cpu`): all builds of a version hold the same docstrings, so that cells on
        them have equal ids.
    """
    try:
        return importlib.metadata.version(source.name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _files(source: Source) -> list[Path]:
    """The files that are read of one source, sorted by their path relative to the installation root."""
    distribution = importlib.metadata.distribution(source.name)
    found = {entry.as_posix(): Path(str(distribution.locate_file(entry))) for entry in distribution.files or []}
    return [found[relative] for relative in sorted(found) if is_read(source, relative)]


def _build(versions: dict[str, str | None]) -> DocsCorpus:
    present = [source for source in CATALOGUE if versions[source.name] is not None]
    jobs = [(source.name, path) for source in present for path in _files(source)]
    extracted = _extract([path for _, path in jobs])
    rows = {source.name: [0, 0, 0] for source in present}
    documents: list[str] = []
    for (name, _), (lines, found) in zip(jobs, extracted, strict=True):
        rows[name][0] += 1
        rows[name][1] += lines
        rows[name][2] += len(found)
        documents.extend(found)
    kept = without_near_duplicates(documents)
    train = [text for text in kept if not is_held_out(text)]
    held_out = [text for text in kept if is_held_out(text)]
    manifest: dict[str, Any] = {
        "extractor": EXTRACTOR_VERSION,
        "distributions": [
            {"name": name, "version": versions[name], "files": files, "lines": lines, "documents": count}
            for name, (files, lines, count) in rows.items()
        ],
        "missing": [name for name, version in versions.items() if version is None],
        "documents": {"found": len(documents), "train": len(train), "held_out": len(held_out)},
        "bytes": {"train": _bytes(train), "held_out": _bytes(held_out)},
        "digest": _digest(train, held_out),
    }
    return DocsCorpus(train, held_out, manifest)


def _extract(paths: Sequence[Path]) -> list[tuple[int, list[str]]]:
    """Number of lines and documents of each file, in the order of `paths`, by `_WORKERS` processes."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", docs_extract.__file__]
    results: list[tuple[int, list[str]]] = [(0, [])] * len(paths)
    shares = [range(start, len(paths), _WORKERS) for start in range(_WORKERS)]
    with tempfile.TemporaryDirectory(prefix="saebench-docs-") as folder:
        workers: list[tuple[subprocess.Popen[bytes], Path, range]] = []
        try:  # an interrupt leaves no worker behind
            for number, share in enumerate(shares):
                asked, answered = Path(folder, f"{number}.txt"), Path(folder, f"{number}.jsonl")
                asked.write_text("".join(f"{paths[index]}\n" for index in share), encoding="utf-8")
                with asked.open("rb") as stdin, answered.open("wb") as stdout:
                    workers.append((subprocess.Popen(command, stdin=stdin, stdout=stdout), answered, share))
            for process, _, _ in workers:
                if process.wait() != 0:
                    raise RuntimeError(f"docs: the docstring worker ended with status {process.returncode}")
        finally:
            for process, _, _ in workers:
                process.kill()
                process.wait()
        for _, answered, share in workers:
            with answered.open(encoding="utf-8") as lines:
                for index, line in zip(share, lines, strict=True):
                    count, documents = json.loads(line)
                    results[index] = (count, documents)
    return results


def _bytes(documents: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in documents)


def _sha256(text: str) -> str:
    """Of the text to the letter; a document's identity (`document_digest`) knows less."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(train: Sequence[str], held_out: Sequence[str]) -> str:
    digests = sorted(_sha256(text) for documents in (train, held_out) for text in documents)
    return "sha256:" + hashlib.sha256("\n".join(digests).encode()).hexdigest()


# --- cache ------------------------------------------------------------------------------------------------------------


def _cache_key(versions: dict[str, str | None]) -> str:
    content = json.dumps([EXTRACTOR_VERSION, CATALOGUE, versions], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _packed(corpus: DocsCorpus) -> bytes:
    lines = [json.dumps(corpus.manifest), *(json.dumps({"text": text}) for text in corpus.train + corpus.held_out)]
    return gzip.compress("".join(line + "\n" for line in lines).encode(), compresslevel=5, mtime=0)


def _unpacked(content: bytes) -> DocsCorpus:
    manifest, *documents = (json.loads(line) for line in gzip.decompress(content).splitlines())
    texts = [document["text"] for document in documents]
    train = [text for text in texts if not is_held_out(text)]
    return DocsCorpus(train, [text for text in texts if is_held_out(text)], manifest)
