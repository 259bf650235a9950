"""Token windows on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_toys import Cohort, Use, sources

from saebench.activations.sources.context import Meter
from saebench.activations.sources.token_windows import token_windows
from saebench.activations.token_store import TokenStore
from saebench.api import SuiteError
from saebench.api.errors import Damaged


@pytest.fixture
def built(tmp_path, model):
    """A token store, the windows it was made of, and the data."""
    data = sources(tmp_path)

    def windows(n_tokens=400):
        return token_windows(data.context, Use("toy"), model, "train", n_tokens, 0, Meter())

    TokenStore.build(tmp_path / "t", {"a": 1}, windows(), 400, lambda: {"more": 2}, label="x")
    return TokenStore.open(tmp_path / "t", {"a": 1}), windows(), data.context.model(model)


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
    assert store.documents == windows.documents.keys()


@pytest.mark.parametrize("name", ["manifest.json", "windows.bin", "counts.bin", "documents.txt"])
def test_damage_is_seen(built, name, tmp_path):
    path = tmp_path / "t" / name
    whole = path.read_bytes()
    data = bytearray(whole)
    data[17] ^= 1
    for harmed in (bytes(data), whole[:-3], b""):
        path.write_bytes(harmed)
        with pytest.raises(Damaged, match=f"{name}: damaged"):
            TokenStore.open(tmp_path / "t", {"a": 1})
    path.unlink()
    with pytest.raises(Damaged, match=f"{name}: missing"):
        TokenStore.open(tmp_path / "t", {"a": 1})
    path.write_bytes(whole)
    assert TokenStore.open(tmp_path / "t", {"a": 1}) is not None


def test_other_keys_are_seen(built, tmp_path):
    assert TokenStore.open(tmp_path / "none", {"a": 1}) is None
    with pytest.raises(Damaged, match="it is the manifest of other data"):
        TokenStore.open(tmp_path / "t", {"a": 2})


def test_a_short_corpus_says_how_many_rows_there_are(tmp_path, model):
    source = sources(tmp_path).training(Cohort(Use("toy"), model, tokens=10**6))
    assert 900 < source.n_tokens < 3000


def test_no_window_at_all_is_refused_and_leaves_nothing(tmp_path, model):
    with pytest.raises(SuiteError, match="does not fill one window"):
        sources(tmp_path).training(Cohort(Use("toy", options={"n": 2}), model))
    assert not list((tmp_path / "activations").glob("*"))
