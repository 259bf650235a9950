"""Token windows on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_toys import Cohort, Use, sources

from saebench.api import SuiteError
from saebench.data.opening import Meter
from saebench.data.windows import TokenStore


@pytest.fixture
def built(tmp_path, model):
    """A token store, the windows it was made of, and the room."""
    room = sources(tmp_path)

    def windows(n_tokens=400):
        return room.windows(Use("toy"), model, "train", n_tokens, 0, Meter())

    TokenStore.build(
        tmp_path / "t", {"a": 1}, windows(), room.model(model), 400, lambda: {"more": 2}, label="x", progress=False
    )
    return TokenStore.open(tmp_path / "t", {"a": 1}), windows(), room.model(model)


def test_round_trip(built):
    store, windows, lm = built
    ids = torch.stack(list(windows))
    assert torch.equal(store.windows(0, store.n_windows), ids)
    assert torch.equal(store.windows(2, 4), ids[2:4])
    assert store.windows(0, 1).dtype == torch.int64
    counts = (~lm.special_mask(ids)).sum(1)
    assert np.diff(store.starts).tolist() == counts.tolist()
    assert store.n_rows == 400 <= store.starts[-1]
    assert store.facts["content"] == windows.content
    assert store.facts["more"] == 2
    assert store.documents == windows.documents


def test_damage_and_other_keys_are_seen(built, tmp_path):
    assert TokenStore.open(tmp_path / "t", {"a": 2}) is None
    assert TokenStore.open(tmp_path / "none", {"a": 1}) is None
    path = tmp_path / "t" / "windows.bin"
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(bytes(data))
    assert TokenStore.open(tmp_path / "t", {"a": 1}) is None
    data[17] ^= 1
    path.write_bytes(bytes(data))
    assert TokenStore.open(tmp_path / "t", {"a": 1}) is not None
    (tmp_path / "t" / "counts.bin").write_bytes(b"\0\0\0\0")
    assert TokenStore.open(tmp_path / "t", {"a": 1}) is None


def test_a_short_corpus_says_how_many_rows_there_are(tmp_path, model):
    source = sources(tmp_path).training(Cohort(Use("toy"), model, tokens=10**6))
    assert 900 < source.n_tokens < 3000


def test_no_window_at_all_is_refused_and_leaves_nothing(tmp_path, model):
    with pytest.raises(SuiteError, match="does not fill one window"):
        sources(tmp_path).training(Cohort(Use("toy", options={"n": 1}), model))
    assert not list((tmp_path / "activations").glob("*"))
