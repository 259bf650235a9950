from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts import (
    RunFolder,
    has_checkpoint,
    prove_checkpoint,
    read_arrays,
    read_checkpoint,
    save_arrays,
    save_checkpoint,
)

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
    assert not has_checkpoint(tmp_path / "c", "abc")
    with pytest.raises(Damaged, match=r"sae\.safetensors: damaged"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(("found", "put"), [("0.25", "0.35"), ('"k": 4', '"k": 5'), ("topk", "topj")])
def test_a_changed_meta_is_found(tmp_path: Path, found: str, put: str) -> None:
    save_checkpoint(
        tmp_path / "c", TENSORS, {"cell_id": "abc", "architecture": "topk", "config": {"k": 4}, "input_scale": 0.25}
    )
    path = tmp_path / "c" / "sae.json"
    path.write_text(path.read_text().replace(found, put))
    with pytest.raises(Damaged, match="meta_sha256"):
        read_checkpoint(tmp_path / "c")


def test_a_checkpoint_in_another_cells_folder_is_found(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).checkpoint("1" * 64)
    save_checkpoint(folder, TENSORS, {"cell_id": "2" * 64})
    assert not has_checkpoint(folder, "1" * 64)
    with pytest.raises(Damaged, match=r"it is the checkpoint of cell 2{16}, not of 1{16}"):
        read_checkpoint(folder)
    with pytest.raises(Damaged, match=r"not of 1{16}"):
        prove_checkpoint(folder, "1" * 64)
    folder.rename(tmp_path / "copied")  # by itself a folder may have any name
    assert read_checkpoint(tmp_path / "copied")[1]["cell_id"] == "2" * 64


@pytest.mark.parametrize(
    ("text", "words"), [("{", "not readable as JSON"), ('{"schema_version": 99}', "schema_version is 99")]
)
def test_meta_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sae.json").write_text(text)
    with pytest.raises(SuiteError, match=words):
        read_checkpoint(tmp_path)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert not prove_checkpoint(tmp_path / "nothing", "abc")
    (tmp_path / "nothing").mkdir()
    assert not prove_checkpoint(tmp_path / "nothing", "abc")
    with pytest.raises(SuiteError, match="no checkpoint is here"):
        read_checkpoint(tmp_path / "nothing")


def test_arrays(tmp_path: Path) -> None:
    sha256 = save_arrays(tmp_path / "a.safetensors", {"density": torch.tensor([0.0, 0.5])})
    other = save_arrays(tmp_path / "b.safetensors", {"density": torch.tensor([0.0, 0.6])})
    assert torch.equal(read_arrays(tmp_path / "a.safetensors", sha256)["density"], torch.tensor([0.0, 0.5]))
    assert read_arrays(tmp_path / "a.safetensors", None) == {}
    with pytest.raises(Damaged, match="damaged"):
        read_arrays(tmp_path / "a.safetensors", other)
    with pytest.raises(Damaged, match="missing"):
        read_arrays(tmp_path / "none.safetensors", sha256)
