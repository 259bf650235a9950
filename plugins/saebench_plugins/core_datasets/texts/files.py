"""Text documents in files: txt, jsonl, jsonl.gz, parquet, or a folder of them. Errors name file and line. Loads no
torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from saebench.api import Document, SuiteError, file_manifest, is_blank, located
from saebench_plugins.core_datasets.plugin import ActivationsOptions, LocalOptions
from saebench_plugins.core_datasets.texts.cleaning import Counts, cut_at_markers
from saebench_plugins.core_datasets.texts.lines import (
    MAX_CHARACTERS,
    MAX_EMPTY,
    check_plain,
    read_lines,
    reading,
    signature,
    too_empty,
    too_long,
)

ENDINGS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
BATCH_BYTES = 1 << 26
"""Of a parquet column read at once, about."""
LARGE_GROUP, LARGE_ROW, GROUP_EXPANSION = 1 << 28, 1 << 16, 12
"""A parquet row group of more bytes, in rows of more bytes (both unpacked), that unpacks to more times its size, has a
row that is no document: text shrinks to a third. Only a page that is read would tell how long its
rows are."""
_ALLOWED = "txt, jsonl, jsonl.gz and parquet files, or a folder of them"


class ColumnProblem(SuiteError):
    """The column with the text is not there, or holds no text."""


def text_files(path: str) -> tuple[list[Path], Path]:
    """The files that are read, in name order, and the folder their names are relative to.

    Raises:
        SuiteError: Nothing there, or nothing that can be read.
    """
    root = located(path)
    if root.is_dir():
        files = sorted(
            child
            for child in root.iterdir()
            if child.name.lower().endswith(ENDINGS) and not child.name.startswith(".") and not child.is_dir()
        )
        if not files:
            found = sorted(child.name for child in root.iterdir())
            shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "") if found else "nothing"
            raise SuiteError(
                f"{path}: the folder holds none of {', '.join(ENDINGS)}; found {shown}. Allowed: {_ALLOWED}."
            )
        for file in files:
            check_plain(file, str(file))
        return files, root
    if not root.exists():
        parent = root.parent
        siblings = [child.name for child in parent.iterdir()] if parent.is_dir() else []
        near = difflib.get_close_matches(root.name, siblings, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(str(parent / name) for name in near)}?" if near else ""
        missing = "" if parent.is_dir() else f" (its folder {parent} does not exist either)"
        raise SuiteError(
            f"{path}: no such file or folder{missing}.{hint} Paths are relative to the folder the command is run in."
        )
    if not root.name.lower().endswith(ENDINGS):
        raise SuiteError(f"{path}: the ending '{root.suffix}' is not known. Allowed: {_ALLOWED}.")
    check_plain(root, path)
    return [root], root.parent


def manifest(path: str) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file (of any file, when `path` is one)."""
    root = located(path)
    files, folder = ([root], root.parent) if root.is_file() else text_files(path)
    return file_manifest(files, folder)


def recipe(options: LocalOptions | ActivationsOptions) -> dict[str, Any]:
    """What decides the content: the files."""
    return {"files": manifest(options.path)}


def empty_message(path: str) -> str:
    """For a corpus without a single document."""
    return f"{path}: the corpus is empty: no document with any text in it. Give files with text."


def read_documents(path: str, text_column: str, counts: Counts | None = None) -> Iterator[Document]:
    """Documents in file and line order; those without any text are passed over.

    Characters that are none (lone surrogates, NUL, invalid UTF-8) come as U+FFFD. `counts` tells what was found. One
    document is in memory at a time.

    Raises:
        SuiteError: A file cannot be read as what it is called, the text column is missing, or a document does not end.
    """
    counts = counts if counts is not None else Counts()
    for file in text_files(path)[0]:
        yield from read_file(file, text_column, counts)


def read_file(file: Path, text_column: str, counts: Counts) -> Iterator[Document]:
    """Documents of one file."""
    name = file.name.lower()
    if name.endswith(".txt"):
        pairs = _text(file, counts)
    elif name.endswith(".parquet"):
        pairs = _parquet(file, text_column)
    else:
        pairs = _json_lines(file, text_column)
    empty = 0
    for place, text in pairs:
        if len(text) > MAX_CHARACTERS:
            raise too_long(place, "document")
        if not is_blank(text):
            empty = 0
            yield Document(counts.clean(text), place)
        else:
            counts.empty += 1
            empty += 1
            if empty > MAX_EMPTY:
                raise too_empty(place, "rows")


def _text(file: Path, counts: Counts) -> Iterator[tuple[str, str]]:
    """Documents of a txt: parted by markers if it has any, else by blank lines."""
    check_plain(file, str(file))
    marked = _is_marked(file, signature(file))
    block: list[str] = []
    start, size = 1, 0
    for number, line in enumerate(read_lines(file, packed=False), 1):
        first, text, last = cut_at_markers(line) if marked else (False, line, False)
        counts.markers += first or last
        blank = is_blank(text)
        if block and (first or (blank and not marked)):
            yield f"{file}:{start}", "\n".join(block)
            block = []
        if not blank or (marked and block):
            if not block:
                start, size = number, 0
            block.append(text)
            size += len(text) + 1
            if size > MAX_CHARACTERS:
                raise too_long(f"{file}:{start}", "document")
        if block and last:
            yield f"{file}:{start}", "\n".join(block)
            block = []
    if block:
        yield f"{file}:{start}", "\n".join(block)


@lru_cache(maxsize=1024)
def _is_marked(file: Path, _signature: tuple[int, int, int]) -> bool:
    """True when a line of the txt begins or ends with a marker."""
    with reading(file), file.open("rb") as stream:
        if not any(b"<" in piece or b"[" in piece for piece in iter(partial(stream.read, 1 << 20), b"")):
            return False  # as most text: no need to look at its lines
    return any(first or last for first, _, last in map(cut_at_markers, read_lines(file, packed=False)))


def _json_lines(file: Path, text_column: str) -> Iterator[tuple[str, str]]:
    key = json.dumps(text_column, ensure_ascii=False)

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if sum(name == text_column for name, _ in pairs) > 1:
            raise ValueError(f"an object has the key {key} twice")
        return dict(pairs)

    for number, line in enumerate(read_lines(file, packed=file.name.lower().endswith(".gz")), 1):
        if is_blank(line):
            continue
        place = f"{file}:{number}"
        try:
            # a raw NUL or tab in a text is the text's matter
            row = json.loads(
                line.lstrip("\ufeff"), strict=False, object_pairs_hook=hook if line.count(key) > 1 else None
            )
        except (ValueError, RecursionError) as error:
            raise SuiteError(
                f"{place}: the line is not sound JSON ({str(error)[:160]}). Every line must be one object such as "
                f'{{"{text_column}": "..."}}.'
            ) from error
        if not isinstance(row, dict):
            raise SuiteError(
                f"{place}: found {type(row).__name__}, expected one JSON object a line such as "
                f'{{"{text_column}": "..."}}.'
            )
        if text_column not in row:
            raise ColumnProblem(missing_column(place, text_column, row))
        yield place, _as_text(row[text_column], place, text_column)


def _parquet(file: Path, text_column: str) -> Iterator[tuple[str, str]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    with reading(file):
        try:
            with ParquetFile(file) as table:
                if text_column not in table.schema_arrow.names:
                    raise ColumnProblem(missing_column(str(file), text_column, table.schema_arrow.names))
                if table.schema_arrow.names.count(text_column) > 1:
                    raise ColumnProblem(
                        f"{file}: there are several columns '{text_column}'. Rename all but the one that holds the "
                        "text."
                    )
                for group in range(table.num_row_groups):
                    a_row = _bytes_of_a_row(table, group, text_column)
                    if a_row is None:
                        raise too_long(f"{file} row {number + 1}, or one behind it", "text")
                    size = max(1, min(1024, BATCH_BYTES // max(1, a_row)))
                    for batch in table.iter_batches(batch_size=size, row_groups=[group], columns=[text_column]):
                        for value in _values(batch.column(0), f"{file} row {number + 1}"):
                            number += 1
                            yield f"{file} row {number}", _as_text(value, f"{file} row {number}", text_column)
        except (ArrowException, OSError, ValueError) as error:
            raise SuiteError(
                f"{file}: cannot be read as parquet after row {number} ({' '.join(str(error).split())[:160]}). Write "
                "it again."
            ) from error


def _bytes_of_a_row(table: Any, number: int, name: str) -> int | None:
    """Bytes of a text in a row group, on average and unpacked; None where they are too many.

    Column metadata are read only where rows are large: where they are damaged, pyarrow ends the process. Reading the
        column itself does not.
    """
    group = table.metadata.row_group(number)
    n_rows = max(1, group.num_rows)
    a_row: int = group.total_byte_size // n_rows
    if 0 < a_row <= LARGE_ROW:  # 0: the writer did not say
        return a_row
    mine = [k for k in range(len(table.schema)) if table.schema.column(k).path.split(".")[0] == name]
    columns = [group.column(k) for k in mine]
    packed = sum(column.total_compressed_size for column in columns)
    unpacked = sum(column.total_uncompressed_size for column in columns)
    a_row = unpacked // n_rows
    if a_row > MAX_CHARACTERS or (unpacked > LARGE_GROUP and a_row > LARGE_ROW and unpacked > GROUP_EXPANSION * packed):
        return None
    return a_row


def _values(column: Any, place: str) -> list[Any]:
    """Python values of a column; invalid UTF-8 comes as lone surrogates."""
    import pyarrow
    import pyarrow.compute as compute

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)):
        return list(column.to_pylist())
    if column.nbytes > MAX_CHARACTERS and (compute.max(compute.binary_length(column)).as_py() or 0) > MAX_CHARACTERS:
        raise too_long(place, "text of a row")
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raw = column.cast(pyarrow.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "saebench-invalid") for value in raw]


def missing_column(place: str, text_column: str, columns: Iterable[str]) -> str:
    """Message that lists the columns there are."""
    names = list(columns)
    near = difflib.get_close_matches(text_column, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(name[:80] for name in names[:20]) + (", ..." if len(names) > 20 else "")
    return (
        f"{place}: no text column '{text_column}'; found columns {shown or 'none'}.{hint} Set `text_column:` to the "
        "one that holds the text."
    )


def _as_text(value: Any, place: str, text_column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ColumnProblem(
            f"{place}: column '{text_column}' holds {type(value).__name__}, expected text. Set `text_column:` to the "
            "one that holds the text."
        )
    return value
