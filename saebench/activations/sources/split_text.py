"""A text dataset, split into train and held-out by the harness: no plugin decides which document is which."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from saebench.api.datasets import Document
from saebench.api.errors import PluginError, SuiteError
from saebench.api.splits import Split, split_of


class SplitText:
    """What a plugin of kind `text` opened, split by split (`saebench.api.SplitDataset`).

    Args:
        opened: See `saebench.api.TextDataset`.
        name: As the suite calls it; for errors.

    Raises:
        PluginError: It cannot be asked for documents.
    """

    def __init__(self, opened: Any, name: str) -> None:
        self._opened, self._name = opened, name
        try:
            signature = inspect.signature(getattr(opened, "documents", None))  # type: ignore[arg-type]
            self._asks = "split" in signature.parameters
            signature.bind(**({"split": "train"} if self._asks else {}))
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"dataset '{name}': what its plugin opens ({type(opened).__name__}) cannot be asked for documents. "
                "Give it a method documents(), or documents(split)."
            ) from error

    def documents(self, split: Split) -> Iterator[Document]:
        """Documents of one part, in the plugin's order.

        Raises:
            PluginError: The plugin gave something else.
            SuiteError: There is none.
        """
        read = found = 0
        for document in self._opened.documents(split=split) if self._asks else self._opened.documents():
            if not isinstance(document, Document):
                raise PluginError(
                    f"dataset '{self._name}': documents() must give saebench.api.Document, "
                    f"got {type(document).__name__}"
                )
            read += 1
            if split_of(document.digest) == split:
                found += 1
                yield document
        if not found:
            none = "its only document does not fall" if read == 1 else f"none of its {read:,} documents falls"
            raise SuiteError(
                f"dataset '{self._name}': {none} into the {split} part "
                "(one in five is held out, by the hash of its text). "
                "Give more different documents."
            )

    def manifest(self) -> Mapping[str, Any]:
        """The plugin's facts."""
        facts: Mapping[str, Any] = self._opened.manifest()
        return facts
