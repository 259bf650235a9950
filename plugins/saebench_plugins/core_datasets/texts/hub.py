"""Dataset `hub`: any text dataset in the hub's layout, streamed through the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from saebench.api import DatasetContext, Document, Findings, SuiteError, is_blank
from saebench_plugins.core_datasets.plugin import HubOptions
from saebench_plugins.core_datasets.texts.cleaning import Counts
from saebench_plugins.core_datasets.texts.files import missing_column
from saebench_plugins.core_datasets.texts.lines import MAX_CHARACTERS, too_long
from saebench_plugins.core_datasets.texts.presets import local_folder, recipe, resolved
from saebench_plugins.core_datasets.texts.survey import survey_documents


class HubText:
    """Documents of one hub split; train and held-out are made inside it."""

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self._source = resolved(options)
        self._rows = self._load()
        self.counts = Counts()

    def _load(self) -> Any:
        import datasets

        folder = local_folder(self._options)
        bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(
                str(folder) if folder else self._source.id,
                self._source.config,
                split=self._options.split,
                revision=None if folder else self._options.revision,
                streaming=self._options.streaming,
            )
        except Exception as error:
            raise self._failed(error) from error
        finally:
            if not bars:
                datasets.enable_progress_bars()

    def _failed(self, error: Exception) -> SuiteError:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
        if local_folder(self._options):
            return SuiteError(
                f"hub dataset '{self._source.id}': the folder cannot be read as a dataset with split "
                f"'{self._options.split}' ({line}). "
                "It must hold jsonl or parquet files in the hub's layout, such as data/train-00000-of-00001.parquet."
            )
        return SuiteError(
            f"hub dataset '{self._source.id}': cannot be opened ({line}). Without a network, run `hf download "
            f"{self._source.id} --repo-type dataset --local-dir FOLDER` "
            "on a connected machine, bring the folder here, and write `id: FOLDER`; for a gated dataset accept its "
            "terms and run `hf auth login` first."
        )

    def _texts(self) -> Iterator[tuple[int, str]]:
        rows = iter(self._rows)
        if self._options.max_documents is not None:
            rows = islice(rows, self._options.max_documents)
        number = 0
        while True:
            try:
                row = next(rows, None)
            except Exception as error:
                raise self._failed(error) from error
            if row is None:
                return
            if self._source.text_column not in row:
                raise SuiteError(
                    missing_column(f"hub dataset '{self._source.id}' row {number}", self._source.text_column, row)
                )
            yield (
                number,
                as_text(
                    row[self._source.text_column],
                    f"hub dataset '{self._source.id}' row {number}, column '{self._source.text_column}'",
                ),
            )
            number += 1

    def documents(self) -> Iterator[Document]:
        """All, in the order of the source; rows without text are passed over, characters that are none are replaced."""
        self.counts = Counts()
        return self._documents(self.counts)

    def _documents(self, counts: Counts) -> Iterator[Document]:
        for number, text in self._texts():
            place = f"hub dataset '{self._source.id}' row {number}"
            if len(text) > MAX_CHARACTERS:
                raise too_long(place, "document")
            if not is_blank(text):
                yield Document(counts.clean(text), place)
            else:
                counts.empty += 1

    def manifest(self) -> Mapping[str, Any]:
        """Source, revision and split, and what was found in the rows that were read."""
        return {**recipe(self._options), "split": self._options.split, "read": self.counts.to_json()}


def as_text(value: Any, place: str) -> str:
    """A row's text. A conversation (a list of turns with role and content) becomes `role: content` paragraphs."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        turns = []
        for turn in value:
            if isinstance(turn, str):
                turns.append(turn)
            elif isinstance(turn, dict) and ("content" in turn or "value" in turn):
                role = turn.get("role", turn.get("from"))
                said = turn.get("content", turn.get("value")) or ""
                if not isinstance(said, str):
                    break
                turns.append(f"{role}: {said}" if role else said)
            else:
                break
        else:
            return "\n\n".join(turns)
    raise SuiteError(
        f"{place}: holds {type(value).__name__}, expected text or a conversation. Set `text_column:` to the one that "
        "holds the text."
    )


def findings(options: HubOptions) -> Findings:
    """The first rows of a local folder. What is on the hub is not read before the run."""
    if local_folder(options) is None:
        return Findings()
    text = HubText(options)
    return survey_documents(text.documents(), text.counts).findings(f"hub dataset '{resolved(options).id}'")


def open_hub(options: HubOptions, _context: DatasetContext) -> HubText:
    """Opens the dataset; reads nothing but its layout yet."""
    return HubText(options)
