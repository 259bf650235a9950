from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from saebench.artifacts import canonical_json, digest, file_digest, pretty_json


def test_order_does_not_matter_and_content_does() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


def test_digest_by_hand() -> None:
    assert canonical_json({"b": None, "a": "é"}) == '{"a":"é","b":null}'
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert digest({"a": 1}, 8) == hashlib.sha256(b'{"a":1}').hexdigest()[:8]


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("inf")})


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


def test_what_turns_or_hides_text_is_written_out_in_files() -> None:
    value = {"a\u202eb": ["\x7f\x9b\u2028\u200b\ufeff\U000e0041\ud800", "é 漢 😀 \n"]}
    text = pretty_json(value)
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()
    assert "é 漢 😀" in text  # letters of all languages stay readable
    assert digest(json.loads(text)) == digest(value)
