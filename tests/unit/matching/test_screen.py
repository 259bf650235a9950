"""Products in low precision: no pair that can matter is left out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matching_cases import Case, cases
from verifier import similarities

from saebench.matching.solve import screen as module
from saebench.matching.solve.screen import Screen
from saebench.matching.solve.similarity import Similarity, as_rows

TYPES = [torch.bfloat16, torch.float32]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, the last ones narrow, at the sizes of a test."""
    monkeypatch.setattr(module, "TILE", (16, 24))
    monkeypatch.setattr(module, "_ROUND_ROWS", 20)


def of(case: Case) -> Similarity:
    return Similarity([(as_rows(a, "A"), as_rows(b, "B")) for a, b in case.factors], signed=case.signed)


def pairs(found: Iterator[tuple[np.ndarray, np.ndarray]], n: int, m: int) -> np.ndarray:
    """`[n, m]` bool."""
    mask = np.zeros((n, m), dtype=bool)
    for rows, columns in found:
        mask[rows, columns] = True
    return mask


PRICES = st.sampled_from(["none", "tiny", "usual", "huge", "negative", "mixed", "tight", "uneven"])


def prices(kind: str, c: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n, m = c.shape
    u, v = rng.random(n), rng.random(m)
    sizes = {"none": 0.0, "tiny": 1e-30, "usual": 0.5, "huge": 1e4, "negative": -3.0}
    if kind in sizes:
        return sizes[kind] * u, sizes[kind] * v
    if kind == "mixed":  # large ones that cancel
        return 1000 + 0.1 * u, -1000 + 0.1 * v
    if kind == "tight":  # every row has a pair at r = 0 and nothing above
        v = rng.uniform(-1, 1, m)
        return (c - v).max(1), v
    return np.where(rng.random(n) < 0.1, 1e3, 0.2 * u), np.where(rng.random(m) < 0.1, -1e3, 0.2 * v)


@pytest.mark.parametrize("dtype", TYPES)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cases(60), PRICES, st.sampled_from([0.0, 1e-9, 0.01, 0.5]), st.integers(0, 2**20))
def test_every_pair_above_the_margin_is_possible(
    dtype: torch.dtype, case: Case, kind: str, margin: float, seed: int
) -> None:
    similarity = of(case)
    screen = Screen(similarity, dtype)
    c = similarities(case.factors, case.signed)
    rng = np.random.default_rng(seed)
    u, v = prices(kind, c, rng)
    reduced = c - u[:, None] - v
    # margins that just let one pair in, too
    borders = -rng.choice(reduced.ravel(), 3)
    for limit in [margin, *(borders[borders > 0] * (1 + 1e-12))]:
        found = pairs(screen.possible(u, v, float(limit)), *c.shape)
        rounding = 1e-13 * (1 + np.abs(u).max() + np.abs(v).max())
        assert not (~found & (reduced > -limit + rounding)).any()
    rows, columns = (np.flatnonzero(rng.random(size) < 0.5) for size in c.shape)
    if len(rows) and len(columns):
        part = pairs(screen.possible(u, v, margin, rows, columns), *c.shape)
        inside = np.zeros(c.shape, dtype=bool)
        inside[np.ix_(rows, columns)] = True
        assert not (part & ~inside).any()
        assert not (~part & inside & (reduced > -margin + rounding)).any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("d", [1, 7, 64, 700])
def test_the_error_of_a_product_is_within_its_bound(dtype: torch.dtype, d: int) -> None:
    """The two docstring inequalities themselves, on rows whose roundings all point one way."""
    rng = np.random.default_rng(d)
    worst = 2.0 ** rng.integers(-3, 1, (40, d)) * (1 + 2.0**-8 - 2.0**-20)  # half a unit of bfloat16 up, or nearly
    for A in (worst, worst * rng.choice([-1, 1], (40, d)), rng.standard_normal((40, d))):
        similarity = Similarity([(as_rows(A, "A"), as_rows(A[::-1].copy(), "B"))])
        screen = Screen(similarity, dtype)
        exact = similarity.dense()
        error = screen.error(np.zeros(1), np.zeros(1))
        share = 2.0**-8 / (1 - 2.0**-8) if dtype == torch.bfloat16 else 0.0
        for i, j, z in screen.products():
            product = z.view(dtype).double().numpy()
            difference = np.abs(product - exact[i.numpy()][:, j.numpy()])
            assert (difference <= error + share * np.abs(product)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_comparisons_of_bits_are_those_of_floats(dtype: torch.dtype) -> None:
    """The plain twins: `z >= cut`, on every bfloat16 that there is, and on float32 around each cut."""
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    z = every[every.isfinite()].to(dtype)
    bits = z.view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-23
    for cut in (0.0, 1e-30, 0.003, 0.25, 0.7001, 1.0, 3.0):
        below = module.bits_below(torch.tensor([cut]), dtype)
        found = module.reach(bits, below)
        assert not (~found & (z.double() >= max(cut, 2e-38))).any()
        assert not (found & (z.double() < cut * (1 - 3 * step))).any()
    for cut in (-1e-30, -0.003, -0.25, -0.7001, -1.0, -3.0):
        limit = module.unsigned_limit(cut, dtype)
        found = torch.from_numpy(bits.numpy().view(limit.dtype) <= limit)
        assert not (~found & (z.double() >= cut)).any()
        assert not (found & (z.double() < cut * (1 + 3 * step))).any()


@pytest.mark.parametrize("dtype", TYPES)
def test_few_pairs_are_possible_at_the_best_prices(dtype: torch.dtype) -> None:
    """Or it would prove nothing worth the while."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((200, 64)), rng.standard_normal((200, 64))
    c = similarities([(A, B)])
    similarity = Similarity([(as_rows(A, "A"), as_rows(B, "B"))])
    u = np.sort(c, 1)[:, -2]
    found = pairs(Screen(similarity, dtype).possible(u, np.zeros(200), 0.01), 200, 200)
    assert found.sum() < (1.5 if dtype == torch.bfloat16 else 1.01) * (c - u[:, None] > -0.01).sum()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("signed", [True, False])
def test_the_strongest_are_those_of_rows_and_of_columns(dtype: torch.dtype, signed: bool) -> None:
    rng = np.random.default_rng(1)
    n, m, per_row = 300, 400, 8
    A, B = rng.standard_normal((n, 16)), rng.standard_normal((m, 16))
    similarity = Similarity([(as_rows(A, "A"), as_rows(B, "B"))], signed=signed)
    found = pairs(Screen(similarity, dtype).strongest(per_row), n, m)
    c = similarities([(A, B)], signed)
    top_of_row = np.argsort(-c, 1)[:, : per_row // 2]
    top_of_column = np.argsort(-c, 0)[: per_row // 2]
    assert found[np.arange(n)[:, None], top_of_row].mean() > 0.95
    assert found[top_of_column, np.arange(m)].mean() > 0.95
    assert found.sum() < 3 * per_row * (n + m)
    assert found.any(1).all()
    assert found.any(0).all()


def test_strongest_of_a_crowd_are_a_sample() -> None:
    """All pairs are equal: not all of them are candidates."""
    ones = torch.ones(400, 8)
    found = pairs(Screen(Similarity([(ones, ones)])).strongest(1), 400, 400)
    assert 0 < found.sum() <= 16 * 400 * (400 // 24 + 1)


def test_strongest_of_nothing_positive_is_nothing() -> None:
    ones = torch.ones(40, 8)
    assert not pairs(Screen(Similarity([(ones, -ones)])).strongest(4), 40, 40).any()


def test_a_pass_may_be_ended_between_tiles() -> None:
    class Enough(Exception):
        pass

    shares: list[float] = []

    def on_tile(share: float) -> None:
        shares.append(share)
        if len(shares) == 5:
            raise Enough

    ones = torch.ones(40, 8)
    screen = Screen(Similarity([(ones, ones)]), on_tile=on_tile)
    with pytest.raises(Enough):
        list(screen.products())
    screen.on_tile = shares.append
    shares.clear()
    list(screen.products())
    assert sum(shares) == pytest.approx(1)


@pytest.mark.gpu
@pytest.mark.parametrize("signed", [True, False])
def test_on_a_gpu_nothing_is_left_out_either(signed: bool) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((100, 33)), rng.standard_normal((90, 33))
    c = similarities([(A, B)], signed)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = (
        "tf32"  # what users often set: its products are too coarse for the bound
    )
    try:
        screen = Screen(Similarity([(as_rows(A, "A", "cuda"), as_rows(B, "B", "cuda"))], signed=signed))
        for kind in ("none", "usual", "huge", "negative", "mixed", "tight", "uneven"):
            u, v = prices(kind, c, rng)
            found = pairs(screen.possible(u, v, 0.01), *c.shape)
            assert not (~found & (c - u[:, None] - v > -0.01 + 1e-10)).any()
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert pairs(screen.strongest(4), 100, 90).any(1).all()
