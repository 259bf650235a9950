from __future__ import annotations

import os
from pathlib import Path

from saebench.api import file_manifest


def test_names_that_are_no_text_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_bytes(b"ab")
    (row,) = file_manifest([path], tmp_path)
    assert (row["name"], row["bytes"]) == (r"caf\udce9.txt", 2)
