"""The first part of a text corpus, read before anything is spent on it: both parts there, characters that are none,
near-duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from saebench.api import Document, Findings, Overlap, Problem, Split, SuiteError, overlap, split_of
from saebench_plugins.core_datasets.plugin import LocalOptions
from saebench_plugins.core_datasets.texts import files
from saebench_plugins.core_datasets.texts.cleaning import Counts
from saebench_plugins.core_datasets.texts.lines import signature

MAX_CHARACTERS, MAX_DOCUMENTS = 1 << 24, 1 << 18
"""What is read at most."""
SAMPLE = 1 << 16
"""Characters of it that are kept."""
REMARKABLE_COPIES = 0.01
"""Share of copies from which on a person is told."""


@dataclass
class Survey:
    """What the first documents are like.

    Attributes:
        counts: Of what was read.
        whole: True when that is everything.
        parts: Documents of each part.
        copies: Documents that are equal to an earlier one when folded.
        characters: Of each part, of what was read.
        sample: Some of the text.
        n_bytes: Of all its files; None where these are packed or unknown, and do not tell how much text they hold.
        overlap: Near-duplicates between the parts.
    """

    counts: Counts
    whole: bool = True
    parts: dict[Split, int] = field(default_factory=lambda: {"train": 0, "held-out": 0})
    characters: dict[Split, int] = field(default_factory=lambda: {"train": 0, "held-out": 0})
    sample: str = ""
    n_bytes: int | None = None
    copies: int = 0
    overlap: Overlap | None = None

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {
            "whole": self.whole,
            "copies": self.copies,
            **self.counts.to_json(),
            "overlap": self.overlap.to_json() if self.overlap else None,
        }

    def remarks(self, path: str) -> list[str]:
        """What a person should know."""
        read = path if self.whole else f"{path} (its first {self.counts.documents:,} documents)"
        remark = self.overlap.remark(read) if self.overlap else None
        copies = (
            f"{read}: {self.copies:,} of {self.counts.documents:,} documents are copies of others (case, Unicode form, "
            "blanks, quotes and dashes apart). They fall into one part."
            if self.copies > REMARKABLE_COPIES * self.counts.documents
            else None
        )
        return [*self.counts.remarks(read), *filter(None, (copies, remark))]

    def findings(self, path: str) -> Findings:
        """For the plan. A part is empty where all was read and nothing fell into it."""
        empty = {part: empty_part(path, part, self.counts) for part, n in self.parts.items() if self.whole and not n}
        return Findings(tuple(self.remarks(path)), empty, characters=self._characters(), sample=self.sample)

    def _characters(self) -> dict[Split, int]:
        """Of each part; of a corpus that was not read whole at most its bytes, in the shares that were read."""
        if self.whole:
            return dict(self.characters)
        read = sum(self.characters.values())
        return {} if self.n_bytes is None else {part: n * self.n_bytes // read for part, n in self.characters.items()}


def empty_part(path: str, part: Split, counts: Counts) -> str:
    """For a corpus of which no document falls into a part."""
    marked = (
        " Documents contain the text of a special token: put it on a line of its own, and it parts them."
        if counts.special_token_documents
        else ""
    )
    cut = "; a txt is cut into documents at blank lines" if path.lower().endswith(".txt") else ""
    n = counts.documents
    return (
        f"{path}: {'its only document does not fall' if n == 1 else f'none of its {n:,} documents falls'} into the "
        f"{part} part "
        f"(one in five is held out, by the hash of its text).{marked} Give more different documents{cut}."
    )


def survey_documents(documents: Iterable[Document], counts: Counts) -> Survey:
    """Reads at most `MAX_CHARACTERS` and `MAX_DOCUMENTS`."""
    survey = Survey(counts)
    read: dict[Split, list[Document]] = {"train": [], "held-out": []}
    seen: set[str] = set()
    for document in documents:
        survey.copies += document.digest in seen
        seen.add(document.digest)
        part = split_of(document.digest)
        survey.parts[part] += 1
        survey.characters[part] += len(document.text)
        survey.sample += document.text[: SAMPLE - len(survey.sample)]
        read[part].append(document)
        if counts.characters > MAX_CHARACTERS or counts.documents >= MAX_DOCUMENTS:
            survey.whole = False
            break
    if all(read.values()):
        survey.overlap = overlap(read["train"], read["held-out"])
    return survey


def survey(path: str, text_column: str) -> Survey:
    """Of files; remembered until one of them changes.

    Raises:
        SuiteError: A file cannot be read.
    """
    found = files.text_files(path)[0]
    return _survey(path, text_column, tuple((file, *signature(file)) for file in found))


def problems(options: LocalOptions) -> Sequence[Problem]:
    """What the first part of the files shows to be wrong."""
    try:
        found = survey(options.path, options.text_column)
    except SuiteError as error:
        return [Problem("text_column" if isinstance(error, files.ColumnProblem) else "path", str(error), data=True)]
    return [] if found.counts.documents else [Problem("path", files.empty_message(options.path), data=True)]


def findings(options: LocalOptions) -> Findings:
    """For the plan, of files."""
    return survey(options.path, options.text_column).findings(options.path)


@lru_cache(maxsize=64)
def _survey(path: str, text_column: str, signatures: tuple[tuple[Path, int, int, int], ...]) -> Survey:
    counts = Counts()
    found = survey_documents(files.read_documents(path, text_column, counts), counts)
    if not any(file.name.lower().endswith((".gz", ".parquet")) for file, *_ in signatures):
        found.n_bytes = sum(size for _, _, size, _ in signatures)
    return found
