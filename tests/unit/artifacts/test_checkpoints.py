from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saebench.api import SuiteError
from saebench.artifacts import has_checkpoint, read_arrays, read_checkpoint, save_arrays, save_checkpoint

TENSORS = {"W_dec": torch.arange(6.0).reshape(2, 3).T, "b": torch.zeros(2)}


def test_round_trip_keeps_bits_also_of_strided_and_shared_tensors(tmp_path: Path) -> None:
    shared = torch.ones(3)
    save_checkpoint(tmp_path / "c", {**TENSORS, "x": shared, "y": shared}, {"cell_id": "abc"})
    tensors, meta = read_checkpoint(tmp_path / "c")
    assert meta["cell_id"] == "abc"
    assert torch.equal(tensors["W_dec"], TENSORS["W_dec"])
    assert torch.equal(tensors["y"], shared)
    assert has_checkpoint(tmp_path / "c", "abc")
    assert not has_checkpoint(tmp_path / "c", "other")


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, TENSORS, {"cell_id": "abc"})
    for file in ("sae.safetensors", "sae.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_damage_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSORS, {"cell_id": "abc"})
    path = tmp_path / "c" / "sae.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert not has_checkpoint(tmp_path / "c")
    with pytest.raises(SuiteError, match="missing or damaged"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not readable as JSON"), ('{"schema_version": 99}', "schema_version is 99")]
)
def test_meta_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sae.json").write_text(text)
    with pytest.raises(SuiteError, match=words):
        read_checkpoint(tmp_path)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path / "nothing")
    with pytest.raises(SuiteError, match="no checkpoint stands here"):
        read_checkpoint(tmp_path / "nothing")


def test_arrays(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.safetensors", {"density": torch.tensor([0.0, 0.5])})
    assert torch.equal(read_arrays(tmp_path / "a.safetensors")["density"], torch.tensor([0.0, 0.5]))
    assert read_arrays(tmp_path / "none.safetensors") == {}
