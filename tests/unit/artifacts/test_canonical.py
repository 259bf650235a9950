from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from saebench.artifacts import canonical_json, digest, file_digest


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
