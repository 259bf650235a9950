"""Lines of text files in bounded memory, whatever their encoding, their line ends, and what calls itself a text
file."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saebench.api import SuiteError, is_blank

MAX_CHARACTERS = 1 << 24
"""Of one line or document: far over any text that is one document, and its tokens still fit into memory."""
MAX_INVALID = 0.01
"""Share of characters that are not UTF-8 from which on a file is in another encoding, not damaged."""
EXPANSION, EXPANDED_BYTES = 200, 1 << 28
"""A packed file that unpacks to more than both, as a multiple of its size and in bytes, is no text."""
MAX_EMPTY = 1_000_000
"""Lines, or rows, without text in a row: no corpus has so many, and they would be read for minutes."""
CHECK_LINES = 4096
"""Lines between two checks of what is read."""

_INVALID = re.compile("[\0\udcff]")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\xfd7zX": "an xz file",
    b"PK\x03\x04": "a zip file",
    b"PAR1\x15": "a parquet file",
}
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)

codecs.register_error("saebench-invalid", lambda error: ("\udcff", getattr(error, "end", 0)))


def check_plain(path: Path, shown: str) -> None:
    """Refuses what is not a plain file: a pipe would be waited for, a device never ends.

    Raises:
        SuiteError: It is not a plain file, or cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SuiteError(f"{shown}: cannot be opened ({error.strerror}). Give a file that exists.") from error
    if not stat.S_ISREG(mode):
        kind = next((word for is_kind, word in _KINDS if is_kind(mode)), "something else")
        raise SuiteError(
            f"{shown}: found {kind}, expected a plain file, as it is read several times. Write a copy first."
        )


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What the file system refuses, and a file that changes while the block reads it, in one line.

    Raises:
        SuiteError: Either.
    """
    check_plain(file, str(file))
    try:
        before = signature(file)
        yield
        if signature(file) != before:
            raise SuiteError(f"{file}: the file changed while it was read. Run again when nothing writes to it.")
    except PermissionError as error:
        raise SuiteError(f"{file}: may not be read (permission denied).") from error
    except OSError as error:
        raise SuiteError(f"{file}: cannot be read ({error.strerror or error}). Copy it again.") from error


def signature(path: Path) -> tuple[int, int, int]:
    """Changes whenever the file does: inode, bytes, time of the last change in nanoseconds."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def too_long(place: str, what: str) -> SuiteError:
    """For text that is not cut into documents."""
    return SuiteError(
        f"{place}: the {what} has over {MAX_CHARACTERS:,} characters. Cut the text into documents (a txt: by blank "
        "lines)."
    )


def too_empty(place: str, what: str) -> SuiteError:
    """For what holds next to no text."""
    return SuiteError(f"{place}: the {MAX_EMPTY:,} {what} before hold no text. Take them out of the file.")


def read_lines(file: Path, *, packed: bool) -> Iterator[str]:
    """Lines without their ends (LF, CR LF or CR). A BOM names another encoding than UTF-8; each invalid sequence comes
    as U+DCFF.

    Raises:
        SuiteError: It is no plain file, cannot be read or unpacked, is not UTF-8, changes meanwhile, or has a line
            without end.
    """
    with reading(file):
        try:
            with gzip.open(file, "rb") if packed else file.open("rb") as stream:
                check = _Check(file)
                # a decoder's own newline translation knows all three line ends; `splitlines` would part at U+2028 as
                # well
                text = io.TextIOWrapper(stream, _encoding(file, packed), "saebench-invalid", newline=None)
                while line := text.readline(MAX_CHARACTERS + 2):
                    check.add(line)
                    if packed and check.number % CHECK_LINES == 0:
                        check.expansion(stream.tell())
                    yield line.removesuffix("\n")
                check.invalid()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SuiteError(f"{file}: cannot be unpacked ({error}). Copy or compress it again.") from error


def _encoding(file: Path, packed: bool) -> str:
    with gzip.open(file, "rb") if packed else file.open("rb") as stream:
        head = stream.read(5)
    for mark, kind in _PACKED.items():
        if head.startswith(mark):
            raise SuiteError(
                f"{file}: found {kind}{' inside of gzip' if packed else ''}, expected text. Unpack it; of packed "
                "files, jsonl.gz and parquet are read under these endings."
            )
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8-sig")


class _Check:
    """Checks lines while they are read."""

    def __init__(self, file: Path) -> None:
        self.file, self.number = file, 0
        self._characters = self._invalid = self._zeros = self._first = self._blank = 0

    def add(self, line: str) -> None:
        self.number += 1
        self._characters += len(line)
        if len(line) > MAX_CHARACTERS:
            raise too_long(f"{self.file}:{self.number}", "line")
        self._blank = self._blank + 1 if is_blank(line) else 0
        if self._blank > MAX_EMPTY:
            raise too_empty(f"{self.file}:{self.number}", "lines")
        if n := line.count("\0") if line.isascii() else len(_INVALID.findall(line)):
            self._first = self._first or self.number
            self._invalid += n
            self._zeros += line.count("\0")
            if self._characters > MAX_CHARACTERS // 16:
                self.invalid()

    def invalid(self) -> None:
        if self._invalid > MAX_INVALID * self._characters:
            raise SuiteError(
                f"{self.file}:{self._first}: the file is not UTF-8: {self._invalid:,} of its first "
                f"{self._characters:,} characters are none. "
                "Convert it, for example with `iconv -f "
                f"{'UTF-16LE' if self._zeros > self._characters // 3 else 'LATIN1'} -t UTF-8`."
            )

    def expansion(self, unpacked: int) -> None:
        packed = self.file.stat().st_size
        if unpacked > max(EXPANDED_BYTES, EXPANSION * packed):
            raise SuiteError(
                f"{self.file}: its {packed:,} bytes unpack to over {unpacked:,}: that is no text. Compress the text "
                "itself again."
            )
