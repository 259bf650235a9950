"""The store on disk: round trip, shards, reuse, refusals."""

from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch

import saebench.activations.store as store_module
from saebench.activations.store import ActivationStore
from saebench.api import ActivationBatch, MachineError, SuiteError
from saebench.api.errors import Damaged
from saebench.base.random import generator


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
    assert whole.document_ids is None
    assert torch.equal(some.clusters, some.sequence_ids)
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


def test_reused_only_when_key_and_version_fit(tmp_path, monkeypatch):
    folder = tmp_path / "s"
    build(folder, {"tokens": 5}, torch.ones(5, 2))
    assert ActivationStore.open(folder, {"tokens": 5}) is not None
    assert ActivationStore.open(tmp_path / "none", {}) is None
    with pytest.raises(Damaged, match="it is the manifest of other data"):
        ActivationStore.open(folder, {"tokens": 6})
    found = f"version is {store_module.STORE_VERSION}; this saebench reads 99"
    monkeypatch.setattr(store_module, "STORE_VERSION", 99)
    with pytest.raises(Damaged, match=found):
        ActivationStore.open(folder, {"tokens": 5})


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


FILES = [
    "manifest.json",
    "documents.txt",
    "extras.safetensors",
    "x-00001.bin",
    "positions-00000.bin",
    "token_ids-00002.bin",
    "sequence_ids-00001.bin",
]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", FILES)
def test_every_file_is_proven_when_the_store_is_opened(name, harm, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 160)  # 10 rows
    x = torch.randn(30, 4, generator=generator("x"))
    build(tmp_path / "s", {}, x)
    harm(tmp_path / "s" / name)
    with pytest.raises(Damaged, match=rf"{name}: (damaged|missing)"):
        ActivationStore.open(tmp_path / "s", {})
    assert torch.equal(build(tmp_path / "s", {}, x).slice(0, 30).x, x)


def test_two_shards_in_each_others_place_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 160)
    build(tmp_path / "s", {}, torch.randn(30, 4, generator=generator("x")))
    one, two = tmp_path / "s" / "x-00000.bin", tmp_path / "s" / "x-00001.bin"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    with pytest.raises(Damaged, match=r"x-00000\.bin: damaged"):
        ActivationStore.open(tmp_path / "s", {})


def test_rows_that_nobody_reads_are_not_checked_and_others_once(tmp_path, monkeypatch):
    checked = []
    prove_files = store_module.prove_files
    monkeypatch.setattr(
        store_module,
        "prove_files",
        lambda folder, manifest, names: checked.extend(names) or prove_files(folder, manifest, names),
    )  # fmt: skip
    build(tmp_path / "s", {}, torch.ones(5, 2), tokens=False)
    del checked[:]
    ActivationStore.open(tmp_path / "s", {}, checked=True).slice(0, 5)
    assert checked == []
    flip(tmp_path / "s" / "x-00000.bin")
    store = ActivationStore.open(tmp_path / "s", {}, rows=False)
    assert sorted(checked) == ["documents.txt", "extras.safetensors"]
    with pytest.raises(Damaged, match=r"x-00000\.bin: damaged"):
        store.slice(0, 5)
    flip(tmp_path / "s" / "x-00000.bin")
    del checked[:]
    store = ActivationStore.open(tmp_path / "s", {}, rows=False)
    store.slice(0, 5), store.slice(0, 5)
    assert checked.count("x-00000.bin") == 1


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    x = torch.tensor([[1.0, 65_504.0], [-7e4, 0.0]])
    with pytest.raises(SuiteError, match=r"an activation of 7e\+04 does not fit into float16"):
        build(tmp_path / "s", {}, x, "float16")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(build(tmp_path / "s", {}, x[:1], "float16").slice(0, 1).x, x[:1])
    assert torch.isfinite(build(tmp_path / "b", {}, x, "bfloat16").slice(0, 2).x).all()
