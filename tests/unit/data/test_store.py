"""The store on disk: round trip, shards, reuse, refusals."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch

import saebench.data.store as store_module
from saebench.api import ActivationBatch, MachineError, SuiteError
from saebench.data.seeds import generator
from saebench.data.store import ActivationStore


def build(folder, key, x, dtype="float32", *, tokens=True, piece=7):
    with ActivationStore.building(
        folder, key, d=x.shape[1], dtype=dtype, expected_rows=len(x), what="vectors"
    ) as writer:
        for start in range(0, len(x), piece):
            part = x[start : start + piece]
            ids = torch.arange(start, start + len(part))
            index = {"token_ids": ids, "positions": ids + 1, "sequence_ids": ids // 3} if tokens else {}
            writer.add(ActivationBatch(part, part, **index))
        writer.extras["windows"] = torch.arange(4)
        writer.documents |= {"b", "a"}
        writer.facts = {"content": writer.content()}
    store = ActivationStore.open(folder, key)
    assert store is not None
    return store


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_bytes", [64, 1 << 20])
def test_round_trip_over_shards(dtype, shard_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", shard_bytes)
    x = torch.randn(50, 4, generator=generator("x"))
    store = build(tmp_path / "s", {"a": 1}, x, dtype)
    stored = x.to(getattr(torch, dtype)).float()
    assert (store.n_rows, store.d, store.dtype) == (50, 4, dtype)
    whole = store.slice(0, 999)
    assert torch.equal(whole.x, stored)
    assert whole.target is whole.x
    assert torch.equal(whole.token_ids, torch.arange(50))
    rows = torch.tensor([49, 0, 13, 13])
    some = store.take(rows)
    assert torch.equal(some.x, stored[rows])
    assert torch.equal(some.positions, rows + 1)
    assert torch.equal(some.sequence_ids, rows // 3)
    assert torch.allclose(store.mean.double(), x.double().mean(0), atol=1e-7)
    assert store.documents == {"a", "b"}
    assert torch.equal(store.extra("windows"), torch.arange(4))


def test_vectors_without_tokens(tmp_path):
    store = build(tmp_path / "s", {}, torch.ones(3, 2), tokens=False)
    assert store.slice(0, 3).token_ids is None


def test_content_does_not_depend_on_the_pieces(tmp_path):
    x = torch.randn(20, 3, generator=generator("x"))
    one, two = build(tmp_path / "a", {}, x, piece=3), build(tmp_path / "b", {}, x, piece=20)
    assert one.vectors == two.vectors == one.facts["content"]
    assert build(tmp_path / "c", {}, x + 1).vectors != one.vectors


def test_reused_only_when_key_and_sizes_fit(tmp_path):
    folder = tmp_path / "s"
    build(folder, {"tokens": 5}, torch.ones(5, 2))
    assert ActivationStore.open(folder, {"tokens": 5}) is not None
    assert ActivationStore.open(folder, {"tokens": 6}) is None
    assert ActivationStore.open(tmp_path / "none", {}) is None
    shard = folder / "x-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert ActivationStore.open(folder, {"tokens": 5}) is None
    build(folder, {"tokens": 5}, torch.ones(5, 2))
    (folder / "manifest.json").write_text("{")
    assert ActivationStore.open(folder, {"tokens": 5}) is None


def test_a_build_that_breaks_leaves_nothing(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        ActivationStore.building(tmp_path / "s", {}, d=2, dtype="float32", expected_rows=1, what="x") as writer,
    ):
        writer.add(ActivationBatch(torch.ones(1, 2), torch.ones(1, 2)))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_made(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 10, 10))
    with pytest.raises(MachineError, match=r"vectors takes .* MB, but only .* free"):
        build(tmp_path / "s", {}, torch.ones(5, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", ["x", "positions"])
def test_a_shard_that_an_earlier_run_left_is_checked_when_first_read(column, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 160)  # 10 rows
    x = torch.randn(30, 4, generator=generator("x"))
    build(tmp_path / "s", {}, x)
    path = tmp_path / "s" / f"{column}-00001.bin"
    data = bytearray(path.read_bytes())
    data[5] ^= 4
    path.write_bytes(bytes(data))
    store = ActivationStore.open(tmp_path / "s", {})
    assert torch.equal(store.slice(0, 10).x, x[:10])
    assert torch.equal(store.take(torch.tensor([25, 3])).x, x[[25, 3]])
    with pytest.raises(
        MachineError, match=rf"{column}-00001.bin: the stored activations are damaged.*Run the same command"
    ):
        store.slice(5, 15)
    assert ActivationStore.open(tmp_path / "s", {}) is None  # set aside: it will be built anew
    build(tmp_path / "s", {}, x)
    assert torch.equal(ActivationStore.open(tmp_path / "s", {}).slice(0, 30).x, x)


def test_a_shard_is_checked_once_and_never_by_who_wrote_it(tmp_path, monkeypatch):
    checked = []
    digest_of = store_module.file_digest
    monkeypatch.setattr(store_module, "file_digest", lambda path: checked.append(path.name) or digest_of(path))
    build(tmp_path / "s", {}, torch.ones(5, 2), tokens=False)
    ActivationStore.open(tmp_path / "s", {}, checked=True).slice(0, 5)
    assert checked == []
    store = ActivationStore.open(tmp_path / "s", {})
    store.slice(0, 5), store.slice(0, 5)
    assert checked == ["x-00000.bin"]


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    x = torch.tensor([[1.0, 65_504.0], [-7e4, 0.0]])
    with pytest.raises(SuiteError, match=r"an activation of 7e\+04 does not fit into float16"):
        build(tmp_path / "s", {}, x, "float16")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(build(tmp_path / "s", {}, x[:1], "float16").slice(0, 1).x, x[:1])
    assert torch.isfinite(build(tmp_path / "b", {}, x, "bfloat16").slice(0, 2).x).all()
