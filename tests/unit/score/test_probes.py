"""What a sample of a stream tells of an SAE; whole runs with cheats are in tests/adversaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import PluginError, SparseCodes
from saebench.score.canonical import canonical
from saebench.score.probes import PIECES, ROWS, Findings, Sample, denser, disagreement, try_sample

N, D, WIDTH, K = 200, 12, 40, 5
DRAWS = torch.Generator().manual_seed(0)
W = torch.nn.functional.normalize(torch.randn(WIDTH, D, generator=DRAWS), dim=1)
X = torch.randn(N, D, generator=DRAWS)


def topk(x: Tensor) -> SparseCodes:
    return canonical(SparseCodes.from_topk(*(x @ W.T).topk(K, dim=1), WIDTH), {}, "it")


def threshold(x: Tensor) -> SparseCodes:
    pre = x @ W.T
    return SparseCodes.from_dense(torch.where(pre > 0.7, pre, 0.0))


def linear(codes: SparseCodes) -> Tensor:
    return codes.to_dense() @ W + 3


def tried(
    encode: Callable[[Tensor], SparseCodes],
    decode: Callable[[SparseCodes], Tensor] = linear,
    *,
    scored: SparseCodes | None = None,
    x_hat: Tensor | None = None,
    coupled: bool = False,
    **sae: Any,
) -> Findings:
    sample, findings = Sample("eval"), Findings()
    codes = encode(X) if scored is None else scored
    sample.take(X, codes, decode(codes) if x_hat is None else x_hat)
    module = SimpleNamespace(**{"W_dec": W, **sae})
    try_sample(sample, encode, decode, findings, decoder=module, label="it", may_be_coupled=coupled)
    return findings


@pytest.mark.parametrize("encode", [topk, threshold])
def test_an_honest_sae_is_linear_and_uncoupled(encode: Callable[[Tensor], SparseCodes]) -> None:
    found = tried(encode)
    assert found.coupled is None
    assert found.details()["decode_linear"] is True
    assert found.deviation is not None
    assert found.deviation < 1e-5


def test_codes_that_depend_on_the_batch() -> None:
    def encode(x: Tensor) -> SparseCodes:
        return topk(x if len(x) < 100 else x - x.mean(0) - 0.5)

    with pytest.raises(PluginError, match=r"it: on stream eval codes depend on the batch: \d+% of the entries differ"):
        tried(encode)
    found = tried(encode, coupled=True)
    assert "in batches of" in found.details()["batch_coupled"]


def test_a_reconstruction_that_depends_on_more_than_codes() -> None:
    with pytest.raises(PluginError, match="100% of the tokens are reconstructed otherwise from the same codes"):
        tried(topk, x_hat=X)


def test_a_bent_decoder_is_told_and_a_jumping_one_is_refused() -> None:
    def bent(codes: SparseCodes) -> Tensor:
        return (codes.to_dense() @ W).tanh()

    def digits(codes: SparseCodes) -> Tensor:
        return linear(replace(codes, values=(codes.values * 1000) % 1))

    assert tried(topk, bent).details()["decode_linear"] is False
    with pytest.raises(PluginError, match="reads digits, or looks codes up"):
        tried(topk, digits)


def test_side_values_may_scale_and_not_point() -> None:
    def encode(x: Tensor) -> SparseCodes:
        place = (X[None] - x[:, None]).norm(dim=2).argmin(1)
        return replace(topk(x), side={"side": place.float()})

    def scaled(codes: SparseCodes) -> Tensor:
        return linear(codes) * (codes.side["side"][:, None] + 1)

    def points(codes: SparseCodes) -> Tensor:
        return X[codes.side["side"].round().long().clamp(0, N - 1)]

    assert tried(encode, scaled).details()["decode_linear"] is True
    with pytest.raises(PluginError, match=r"side values \(side\) move by 0.4%"):
        tried(encode, points)


def test_directions_are_those_that_decode_writes() -> None:
    assert tried(topk, W_dec=3 * W).coupled is None  # their length is theirs
    with pytest.raises(PluginError, match="decoder_directions are not what decode writes: latent"):
        tried(topk, W_dec=W.flip(0))


def test_disagreement_by_hand() -> None:
    def row(**values: float) -> SparseCodes:
        z = torch.zeros(1, 5)
        for name, value in values.items():
            z[0, int(name[1])] = value
        return SparseCodes.from_dense(z)

    ours = row(l0=4.0, l1=2.0, l2=1.0)
    assert disagreement(ours, ours) == 0
    assert disagreement(ours, row(l0=4.001, l1=2.0, l2=1.0)) == 0  # a thousandth of 4 is 0.004
    assert disagreement(ours, row(l0=4.01, l1=2.0, l2=1.0)) == 1 / 3
    assert disagreement(ours, row(l0=4.0, l1=2.0, l3=1.001)) == 0  # the k-th place was tied
    assert disagreement(ours, row(l0=4.0, l1=2.0, l3=1.5)) == 2 / 4
    assert disagreement(ours, row(l0=4.0)) == 2 / 3
    assert disagreement(row(), row()) == 0


def test_streams_that_begin_alike_are_as_dense() -> None:
    base = torch.full((1000,), 20)
    denser(base, base[:300], "it")
    denser(base, base[:300] + (torch.arange(300) % 2), "it")  # 2.5 % more
    denser(base, base - 5, "it")
    with pytest.raises(PluginError, match="L0 is 22 on stream loss and 20 on stream eval, on the same 300 tokens"):
        denser(base, base[:300] + 2, "it")


def test_a_sample_is_small_and_of_the_whole_stream() -> None:
    sample = Sample("eval")
    for number in range(40):
        x = torch.full((100, D), float(number))
        sample.take(x, topk(x), None)
    x, codes, x_hat = sample.together()
    assert (len(x), codes.n_rows, x_hat) == (PIECES * ROWS, PIECES * ROWS, None)
    assert x[:, 0].unique().numel() == PIECES
    assert x[:, 0].max() > PIECES  # not only its first batches
    torch.testing.assert_close(codes.to_dense(), topk(x).to_dense())


def test_nothing_to_try() -> None:
    findings = Findings()
    try_sample(Sample("eval"), topk, linear, findings, decoder=None, label="it", may_be_coupled=False)
    empty = Sample("eval")
    empty.take(X[:0], topk(X[:0]), None)
    assert empty.pieces == []
    assert findings.details() == {"l0_streams": {}}
    silent = tried(lambda x: SparseCodes.from_dense(torch.zeros(len(x), WIDTH)))
    assert silent.details()["decode_linear"] is True
