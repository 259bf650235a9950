"""Text documents in files: txt, jsonl, jsonl.gz, parquet, or a folder of them. Errors name file, line or offset. Loads no torch."""

from __future__ import annotations

import difflib
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from saebench.api import Document, Problem, SuiteError, file_manifest

ENDINGS = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
_ALLOWED = "txt, jsonl, jsonl.gz and parquet files, or a folder of them"


def text_files(path: str) -> tuple[list[Path], Path]:
    """The files that are read, in name order, and the folder their names are relative to.

    Raises:
        SuiteError: Nothing there, or nothing that can be read.
    """
    root = Path(path).expanduser()
    if root.is_dir():
        files = sorted(
            child
            for child in root.iterdir()
            if child.is_file() and child.name.lower().endswith(ENDINGS) and not child.name.startswith(".")
        )
        if not files:
            found = sorted(child.name for child in root.iterdir())
            shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "") if found else "nothing"
            raise SuiteError(
                f"{path}: the folder holds none of {', '.join(ENDINGS)}; found {shown}. Allowed: {_ALLOWED}."
            )
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
    return [root], root.parent


def manifest(path: str) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file (of any file, when `path` is one)."""
    root = Path(path).expanduser()
    files, folder = ([root], root.parent) if root.is_file() else text_files(path)
    return file_manifest(files, folder)


def problems(path: str, text_column: str) -> Sequence[Problem]:
    """What can be told without reading everything: the path, and the first document of each file."""
    try:
        files, _ = text_files(path)
        first = [document for file in files for document in islice(read_file(file, text_column), 1)]
    except SuiteError as error:
        return [Problem("text_column" if "column" in str(error) else "path", str(error))]
    return [] if first else [Problem("path", empty_message(path))]


def empty_message(path: str) -> str:
    """For a corpus without a single document."""
    return f"{path}: the corpus is empty: no document with any text in it. Give files with text."


def read_documents(path: str, text_column: str) -> Iterator[Document]:
    """Documents in file and line order; those without any text are passed over.

    Raises:
        SuiteError: A file cannot be read as what it is called, or the text column is missing.
    """
    for file in text_files(path)[0]:
        yield from read_file(file, text_column)


def read_file(file: Path, text_column: str) -> Iterator[Document]:
    """Documents of one file."""
    name = file.name.lower()
    if name.endswith(".txt"):
        pairs = _paragraphs(file)
    elif name.endswith(".parquet"):
        pairs = _parquet(file, text_column)
    else:
        pairs = _json_lines(file, text_column)
    for place, text in pairs:
        if text.strip():
            yield Document(text, place)


def _lines(file: Path, *, compressed: bool) -> Iterator[str]:
    """Lines without their ends."""
    offset = 0
    try:
        with gzip.open(file, "rb") if compressed else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise SuiteError(
                        f"{file}:{number}: byte {offset + error.start} (0x{line[error.start]:02x}) is not UTF-8. Convert the file, for example with `iconv -t UTF-8`."
                    ) from error
                offset += len(line)
                yield text.rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SuiteError(f"{file}: cannot be unpacked ({error}). Copy or compress it again.") from error
    except PermissionError as error:
        raise SuiteError(f"{file}: may not be read (permission denied).") from error


def _paragraphs(file: Path) -> Iterator[tuple[str, str]]:
    block: list[str] = []
    start = 1
    for number, line in enumerate(_lines(file, compressed=False), 1):
        if line.strip():
            if not block:
                start = number
            block.append(line)
        elif block:
            yield f"{file}:{start}", "\n".join(block)
            block = []
    if block:
        yield f"{file}:{start}", "\n".join(block)


def _json_lines(file: Path, text_column: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(file, compressed=file.name.lower().endswith(".gz")), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SuiteError(
                f'{place}: the line is not JSON ({error}). Every line must be one object such as {{"{text_column}": "..."}}.'
            ) from error
        if not isinstance(row, dict):
            raise SuiteError(
                f'{place}: found {type(row).__name__}, expected one JSON object a line such as {{"{text_column}": "..."}}.'
            )
        if text_column not in row:
            raise SuiteError(missing_column(place, text_column, row))
        yield place, _as_text(row[text_column], place, text_column)


def _parquet(file: Path, text_column: str) -> Iterator[tuple[str, str]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as table:
            if text_column not in table.schema_arrow.names:
                raise SuiteError(missing_column(str(file), text_column, table.schema_arrow.names))
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=[text_column]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    yield f"{file} row {number}", _as_text(value, f"{file} row {number}", text_column)
    except (ArrowException, OSError) as error:
        raise SuiteError(
            f"{file}: cannot be read as parquet ({' '.join(str(error).split())[:160]}). Write it again."
        ) from error


def missing_column(place: str, text_column: str, columns: Iterable[str]) -> str:
    """Message that lists the columns there are."""
    names = list(columns)
    near = difflib.get_close_matches(text_column, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{place}: no text column '{text_column}'; found columns {', '.join(names) or 'none'}.{hint} Set `text_column:` to the one that holds the text."


def _as_text(value: Any, place: str, text_column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SuiteError(
            f"{place}: column '{text_column}' holds {type(value).__name__}, expected text. Set `text_column:` to the one that holds the text."
        )
    return value
