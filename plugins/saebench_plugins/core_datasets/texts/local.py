"""Dataset `local`: somebody's own text files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saebench.api import DatasetContext, Document, SuiteError
from saebench_plugins.core_datasets.plugin import LocalOptions
from saebench_plugins.core_datasets.texts import files, survey
from saebench_plugins.core_datasets.texts.cleaning import Counts


class LocalText:
    """Documents of files."""

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._manifest = {
            "files": files.manifest(options.path),
            "text_column": options.text_column,
            "survey": survey.survey(options.path, options.text_column).facts(),
        }

    def documents(self) -> Iterator[Document]:
        """All, in file order."""
        counts = Counts()
        yield from files.read_documents(self._options.path, self._options.text_column, counts)
        if not counts.documents:
            raise SuiteError(files.empty_message(self._options.path))

    def manifest(self) -> Mapping[str, Any]:
        """Files with sizes and digests, and what the first part of the text is like."""
        return self._manifest


def open_local(options: LocalOptions, _context: DatasetContext) -> LocalText:
    """Opens the files."""
    return LocalText(options)
