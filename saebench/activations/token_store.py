"""Token windows: made while they are read, or stored on disk so that a live source can begin anywhere.

FOLDER/windows.bin      `[n_windows, T]` little-endian int32
FOLDER/counts.bin       `[n_windows]` int32: rows (tokens that are not special) of each
FOLDER/documents.txt    digests of the documents read
FOLDER/manifest.json    key, sizes, facts, digest of every file
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saebench import console
from saebench.activations.manifests import prove_files, read_manifest, write_manifest
from saebench.api.errors import SuiteError
from saebench.artifacts import atomic_folder, digest_of

if TYPE_CHECKING:
    from saebench.lm.model import LanguageModel

TOKENS_VERSION = 3
"""Goes up whenever the files of a token store change; an older store is made anew."""
WINDOWS, COUNTS, DOCUMENTS = "windows.bin", "counts.bin", "documents.txt"


class Windows:
    """Token sequences `[T]` of one split of a dataset, made while they are read. Read them once.

    Attributes:
        documents: Number by digest of every document read so far, or of every generated sequence.
        n_rows: Non-special tokens read so far.
        content: SHA-256 of all ids so far.
        manifest: The dataset's own facts; complete when all windows were read.
    """

    def __init__(
        self,
        opened: Any,
        windows: Iterator[tuple[Tensor, Tensor]],
        lm: LanguageModel,
        n_tokens: int,
        documents: dict[str, int],
        empty: str,
    ) -> None:
        self.documents = documents
        self.n_rows = 0
        self._opened, self._windows, self._lm, self._n_tokens, self._empty = opened, windows, lm, n_tokens, empty
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[Tensor]:
        return (window for window, _ in self.numbered())

    def numbered(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each window with the numbers `[T]` of the documents that its tokens are from."""
        for window, numbers in self._windows:
            n = int((~self._lm.special_mask(window)).sum())
            if n == 0:
                continue
            self._hash.update(_bytes(window))
            self.n_rows += n
            yield window, numbers
            if self.n_rows >= self._n_tokens:
                break
        if self.n_rows == 0:
            raise SuiteError(
                f"{self._empty} ({len(self.documents)} documents found). "
                "Give it more text, or lower the model's context."
            )

    @property
    def content(self) -> str:
        """SHA-256 of all ids so far."""
        return self._hash.hexdigest()

    @property
    def manifest(self) -> dict[str, Any]:
        """The dataset's own facts."""
        return dict(self._opened.manifest())


def _bytes(window: Tensor) -> bytes:
    return window.to(torch.int32).numpy().astype("<i4", copy=False).tobytes()


class TokenStore:
    """The token windows of one training stream, on disk. The place of each activation is known before any forward.

    Attributes:
        n_rows: Activations that come of it: its non-special tokens, at most as many as were asked for.
        n_windows, length: Its size.
        starts: `[n_windows + 1]` int64: row at which each window begins.
        facts: What its builder wrote down, `content` (SHA-256 of all ids) among it.
    """

    proven = True
    """Its files are read only after their digests were checked (a store of rows checks its rows later)."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.n_rows: int = manifest["n_rows"]
        self.n_windows: int = manifest["n_windows"]
        self.length: int = manifest["length"]
        self.facts: dict[str, Any] = manifest["facts"]
        counts = np.fromfile(folder / COUNTS, dtype="<i4")
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._ids = torch.from_file(
            str(folder / WINDOWS), shared=False, size=self.n_windows * self.length, dtype=torch.int32
        ).view(self.n_windows, self.length)

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, Any], *, checked: bool = False) -> TokenStore | None:
        """The store in `folder` that was built for `key`; None where there is none.

        `checked`: its files were proven before, so the manifest alone is read.

        Raises:
            Damaged: A file of it is missing, or was changed after it was written.
            MachineError: The machine refuses to read it.
        """
        manifest = read_manifest(folder, key, {"tokens_version": TOKENS_VERSION})
        if manifest is None:
            return None
        if not checked:
            prove_files(folder, manifest, (WINDOWS, COUNTS, DOCUMENTS))
        return cls(folder, manifest)

    @staticmethod
    def build(
        folder: Path,
        key: Mapping[str, Any],
        windows: Windows,
        n_tokens: int,
        facts: Callable[[], Mapping[str, Any]],
        *,
        label: str,
    ) -> None:
        """Reads all windows into `folder`, which is complete or does not exist. `facts` is called after the last one.

        Raises:
            SuiteError: There is no window.
            MachineError: The disk refuses.
        """
        counts: list[int] = []
        length = 0
        with (
            atomic_folder(folder) as temporary,
            (temporary / WINDOWS).open("wb") as file,
            console.phase("reading", label, total=n_tokens, unit="tok") as bar,
        ):
            before = 0
            for window in windows:
                file.write(_bytes(window))
                counts.append(windows.n_rows - before)
                bar.update(counts[-1])
                before, length = windows.n_rows, len(window)
            file.close()
            (temporary / COUNTS).write_bytes(np.array(counts, dtype="<i4").tobytes())
            write_documents(temporary, windows.documents)
            files = {name: digest_of(temporary / name) for name in (WINDOWS, COUNTS, DOCUMENTS)}
            write_manifest(
                temporary, key, files,
                {
                    "tokens_version": TOKENS_VERSION, "n_rows": min(windows.n_rows, n_tokens), "n_windows": len(counts),
                    "length": length, "facts": {**facts(), "content": windows.content, "manifest": windows.manifest},
                },
            )  # fmt: skip

    def windows(self, start: int, stop: int) -> Tensor:
        """`[stop - start, T]` int64 ids."""
        return self._ids[start:stop].long()

    @property
    def documents(self) -> frozenset[str]:
        """Digests of the documents (or generated sequences) it was made of."""
        return read_documents(self.folder)


def write_documents(folder: Path, documents: Iterable[str]) -> None:
    """One digest a line, in order."""
    (folder / DOCUMENTS).write_text("".join(f"{line}\n" for line in sorted(documents)), encoding="ascii")


def read_documents(folder: Path) -> frozenset[str]:
    """What `write_documents` wrote."""
    return frozenset((folder / DOCUMENTS).read_text(encoding="ascii").split())
