"""Dataset `local`: somebody's own text files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saebench.api import DatasetContext, Document, Split, SuiteError, split_of
from saebench_plugins.core_datasets import files
from saebench_plugins.core_datasets.plugin import LocalOptions


class LocalText:
    """Documents of files, split by document hash."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._manifest = {"files": files.manifest(options.path), "text_column": options.text_column}

    def documents(self, split: Split) -> Iterator[Document]:
        """One part, in file order."""
        found = {"train": 0, "held-out": 0}
        for document in files.read_documents(self._options.path, self._options.text_column):
            part = split_of(document.digest)
            found[part] += 1
            if part == split:
                yield document
        if not sum(found.values()):
            raise SuiteError(files.empty_message(self._options.path))
        if not found[split]:
            raise SuiteError(
                f"{self._options.path}: none of its {sum(found.values())} documents falls into the {split} part (one in five is held out, by hash). "
                "Give more documents; a txt is cut into documents at blank lines."
            )

    def manifest(self) -> Mapping[str, Any]:
        """Files with sizes and digests."""
        return self._manifest


def open_local(options: LocalOptions, _context: DatasetContext) -> LocalText:
    """Opens the files."""
    return LocalText(options)
