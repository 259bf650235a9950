from __future__ import annotations

import pytest
import torch

from saebench.api import PluginError, SparseCodes
from saebench.score.group_codes import Allowance, HeldOutCodes


@pytest.fixture
def codes(kit):
    """`codes(sae, n_tokens=.., allowance=..)` -> the codes of an SAE and the source behind them."""

    def make(sae=None, *, n_tokens=128, allowance=None):
        source = kit.Source(n_eval=100)
        opened = []
        found = HeldOutCodes(
            sae or Positive(kit.Identity()), kit.d, lambda: opened.append(1) or source, n_tokens=n_tokens, batch=64,
            label="me", allowance=allowance or Allowance(),
        )  # fmt: skip
        return found, source, opened

    return make


class Positive:
    """Encodes as relu(x); some of its entries are stored zeros."""

    def __init__(self, inner):
        self.inner, self.d_sae, self.calls = inner, inner.d_sae, 0

    def encode(self, x):
        self.calls += 1
        k = x.shape[1]
        latents = torch.arange(k).expand(x.shape[0], k)
        return SparseCodes.from_topk(x.double().clamp(min=0), latents, k)


def dense(batches):
    return torch.cat([codes.to_dense() for codes in batches])


def test_codes_are_those_of_the_tokens_in_order(codes):
    found, source, _ = codes()
    batches = list(found())
    assert [batch.n_rows for batch in batches] == [64, 36]
    assert torch.equal(dense(batches), source.x[:100].clamp(min=0))
    for batch in batches:
        assert batch.values.dtype == torch.float32
        assert batch.latents.dtype == batch.offsets.dtype == torch.int64
        assert bool((batch.values != 0).all())
        assert batch.side == {}


def test_reading_stops_after_so_many_tokens(codes):
    found, source, _ = codes(n_tokens=64)
    assert torch.equal(dense(found()), source.x[:64].clamp(min=0))


def test_nothing_is_opened_before_somebody_reads_and_codes_are_made_once(codes, kit):
    sae = Positive(kit.Identity())
    found, source, opened = codes(sae)
    assert opened == []
    first = list(found())
    again = list(found())
    assert opened == [1]
    assert sae.calls == 2
    assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in zip(first, again, strict=True))
    assert source.asked == ["eval"]


def test_what_does_not_fit_is_made_anew_and_is_the_same(codes, kit):
    sae, allowance = Positive(kit.Identity()), Allowance(free=2_500)
    found, _, opened = codes(sae, allowance=allowance)
    first = list(found())
    assert sum(8 * batch.values.numel() + 4 * (batch.n_rows + 1) for batch in first) > 2_500
    again = list(found())
    assert allowance.free == 2_500  # nothing is kept, all is given back
    assert opened == [1, 1]
    assert sae.calls == 4
    assert torch.equal(dense(first), dense(again))


def test_members_share_the_room(codes, kit):
    one, _, _ = codes()
    size = sum(8 * batch.values.numel() + 4 * (batch.n_rows + 1) for batch in one())
    allowance = Allowance(free=size + 100)
    saes = Positive(kit.Identity()), Positive(kit.Identity())
    first, second = (codes(sae, allowance=allowance)[0] for sae in saes)
    for _ in range(3):
        list(first()), list(second())
    assert [sae.calls for sae in saes] == [2, 6]
    assert allowance.free == 100


def test_a_reading_that_is_left_or_doubled_keeps_nothing_twice(codes, kit):
    allowance = Allowance(free=100_000)
    sae = Positive(kit.Identity())
    found, source, _ = codes(sae, allowance=allowance)
    left = found()
    next(left)
    del left
    assert allowance.free == 100_000
    pairs = list(zip(found(), found(), strict=True))
    assert all(torch.equal(a.to_dense(), b.to_dense()) for a, b in pairs)
    kept = 100_000 - allowance.free
    assert kept == sum(8 * a.values.numel() + 4 * (a.n_rows + 1) for a, _ in pairs)
    calls = sae.calls
    assert torch.equal(dense(found()), source.x[:100].clamp(min=0))
    assert sae.calls == calls


def test_a_breach_of_the_contract_is_named(codes):
    class Broken:
        d_sae = 6

        def encode(self, x):
            raise ValueError("not today")

    found, _, _ = codes(Broken())
    with pytest.raises(PluginError, match="me: encode raised ValueError: not today"):
        next(found())
