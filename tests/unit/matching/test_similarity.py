"""Cosines pair by pair and as a whole, what is taken as a matrix of directions, and the bound on their rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from verifier import similarities

from saebench.api.errors import SuiteError
from saebench.matching.solve.similarity import Similarity, as_rows


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def made(n: int = 7, m: int = 9, d: int = 5, factors: int = 1, signed: bool = True) -> Similarity:
    pairs = [(rows(n, d + f, 2 * f), rows(m, d + f, 2 * f + 1)) for f in range(factors)]
    for a, b in pairs:
        a[1] = 0
        b[[0, 4]] = 0
    return Similarity([(as_rows(a, "A"), as_rows(b, "B")) for a, b in pairs], signed=signed)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("factors", [1, 2])
def test_pairs_blocks_and_signs_agree(factors: int, signed: bool) -> None:
    found = made(factors=factors, signed=signed)
    expected = similarities(found.factors, signed)
    i, j = (x.ravel() for x in np.indices((7, 9)))
    assert found.exact(i, j).reshape(7, 9) == pytest.approx(expected, abs=1e-15)
    assert found.dense() == pytest.approx(expected, abs=1e-15)
    assert found.transposed().dense() == pytest.approx(expected.T, abs=1e-15)
    assert found.take(np.array([3, 1]), np.array([2, 0, 8])).dense() == pytest.approx(expected[[3, 1]][:, [2, 0, 8]])
    # the largest of the signed products is the mean of the absolute cosines
    assert found.n_signs == (1 if signed else 2**factors)
    p, q = found.unit_rows(0, 0, 7), found.unit_rows(1, 0, 9)
    assert p.shape == (7, found.width)
    products = torch.stack([(p * found.sign(variant)) @ q.T for variant in range(found.n_signs)])
    assert products.amax(0).numpy() == pytest.approx(expected, abs=1e-15)
    left, right = found.nonzero()
    assert left.tolist() == [0, 2, 3, 4, 5, 6]
    assert right.tolist() == [1, 2, 3, 5, 6, 7, 8]


def test_a_latent_is_zero_only_where_all_factors_are() -> None:
    found = made(factors=2)
    found = Similarity([found.factors[0], (torch.ones(7, 3), torch.ones(9, 3))])
    assert [len(side) for side in found.nonzero()] == [7, 9]


def test_many_pairs_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made()
    i, j = (x.ravel() for x in np.indices((7, 9)))
    once = found.exact(i, j)
    monkeypatch.setattr("saebench.matching.solve.similarity._CHUNK_VALUES", 12)
    assert found.exact(i, j).tolist() == once.tolist()


@pytest.mark.parametrize("d", [1, 3, 64, 1000])
def test_the_bound_on_rounding_holds(d: int) -> None:
    A, B = rows(40, d) ** 3, np.exp(3 * rows(40, d, 1))  # entries of very different sizes, sums without cancellation
    wide = [x.astype(np.longdouble) for x in (A, B)]
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no float wider than float64 here")
    units = [x / np.sqrt((x * x).sum(1, keepdims=True)) for x in wide]
    exact = np.asarray(units[0] @ units[1].T)
    found = Similarity([(as_rows(A, "A"), as_rows(B, "B"))])
    i, j = (x.ravel() for x in np.indices((40, 40)))
    for cosines in (found.exact(i, j).reshape(40, 40), found.dense()):
        assert float(np.abs(cosines - exact).max()) <= found.rounding()


def test_what_is_a_matrix_of_directions() -> None:
    base = rows(4, 6)
    single = torch.from_numpy(base).float()
    assert as_rows(single, "A").data_ptr() == single.data_ptr()  # no copy of what may be gigabytes
    assert not as_rows(single.clone().requires_grad_(), "A").requires_grad
    for other, dtype in [
        (single.half(), torch.float32),
        (single.bfloat16(), torch.float32),
        (base.astype(np.float16), torch.float32),
        (base.astype(">f4"), torch.float64),
        (base.astype(np.longdouble), torch.float64),
        (np.round(base).astype(np.int8), torch.float64),
        (base > 0, torch.float64),
        (torch.from_numpy(base > 0), torch.float64),
        (base.tolist(), torch.float64),
        (np.asfortranarray(base), torch.float64),
        (base[::-1, ::-2], torch.float64),
    ]:
        found = as_rows(other, "A")
        assert found.dtype == dtype
        plain = np.asarray(other.double() if isinstance(other, torch.Tensor) else other, dtype=np.float64)
        ratio = found.double().numpy()[plain != 0] / plain[plain != 0]
        assert np.log2(ratio).tolist() == np.round(np.log2(ratio)).tolist()  # changed by powers of two at most
    frozen = base.copy()
    frozen.setflags(write=False)
    assert as_rows(frozen, "A").shape == (4, 6)  # PyTorch would warn of an array that cannot be written


def test_inputs_stay_as_they_are() -> None:
    array, tensor = 1e200 * rows(4, 6), 1e-200 * torch.from_numpy(rows(4, 6))
    before = array.copy(), tensor.clone()
    as_rows(array, "A"), as_rows(tensor, "A")
    assert np.array_equal(array, before[0])
    assert torch.equal(tensor, before[1])


@pytest.mark.parametrize("factor", [5e-324, 1e-310, 1e-200, 1e200, 1.7e308])
def test_no_size_of_a_row_is_too_small_or_too_large(factor: float) -> None:
    found = Similarity([(as_rows(factor * np.eye(3), "A"), as_rows(np.eye(3), "B"))])
    assert found.dense().tolist() == np.eye(3).tolist()
    assert found.exact(np.arange(3), np.arange(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("factor", [1e-45, 1e-38, 3e38])
def test_the_same_in_float32(factor: float) -> None:
    ones = torch.full((2, 4), factor)
    assert Similarity([(as_rows(ones, "A"), as_rows(torch.ones(2, 4), "B"))]).dense() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_what_is_not(kind: str) -> None:
    def of(values: np.ndarray) -> object:
        return torch.from_numpy(values) if kind == "tensor" else values

    with pytest.raises(SuiteError, match=r"A: got shape \[2, 3, 4\], expected a matrix \[latents, width\]"):
        as_rows(of(np.ones((2, 3, 4))), "A")
    with pytest.raises(SuiteError, match=r"A: got values of type .*complex128, expected real numbers"):
        as_rows(of(np.ones((2, 3), complex)), "A")
    for bad in (np.nan, np.inf, -np.inf):
        values = np.ones((5, 3))
        values[[2, 4], 1] = bad
        with pytest.raises(SuiteError, match="W: 2 of 5 rows hold values that are not finite, first row 2"):
            as_rows(of(values), "W")
    with pytest.raises(SuiteError, match=r"A: got values of type .*, expected real numbers"):
        as_rows(np.array([["a", "b"]]), "A")
    with pytest.raises(SuiteError, match="A: got values of type object, expected real numbers"):
        as_rows(np.array([[None, 1.0]]), "A")
