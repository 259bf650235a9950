"""What a dataset plugin made once and reads again: files that hold their own digest, and how long they took."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from saebench.api.errors import Damaged, PluginError
from saebench.artifacts import opened, write_bytes

_DIGITS = 64


class PluginCache:
    """A folder of such files.

    Each begins with a line: a SHA-256 over its owner, its name and what follows, then the seconds that it took to make.

    Args:
        folder: Their folder.
        owner: Whose they are (a recipe digest): a file of another owner is not used.
        say: Prints one line where a file was damaged and is made again.

    Attributes:
        kept_s: Seconds that it once took to make what was found.
    """

    def __init__(self, folder: Path, owner: str, say: Callable[[str], None]) -> None:
        self._folder, self._owner, self._say = folder, owner, say
        self.kept_s = 0.0

    def __call__(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See `saebench.api.DatasetContext.keep`."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise PluginError(
                f"keep({name!r}): a file below the dataset's own folder is allowed, such as 'part/0.bin'."
            )
        path = self._folder / relative
        if os.path.lexists(path):
            try:
                return self._read(path, name)
            except Damaged as error:
                self._say(f"{error.found}. It is made again")
        started = time.perf_counter()
        content = make()
        body = f" {time.perf_counter() - started:.6f}\n".encode() + content
        write_bytes(path, self._seal(name, body) + body)
        return content

    def _read(self, path: Path, name: str) -> bytes:
        with opened(path) as file:
            data = file.read()
        body = data[_DIGITS:]
        if not data.startswith(self._seal(name, body)):
            raise Damaged(f"{path}: damaged (its sha256 is not the one that it begins with)")
        seconds, _, content = body.partition(b"\n")
        self.kept_s += float(seconds)
        return content

    def _seal(self, name: str, body: bytes) -> bytes:
        made = hashlib.sha256(f"{self._owner}/{name}\n".encode())
        made.update(body)
        return made.hexdigest().encode()
