"""Cases to match: random, crowded, degenerate ones that hypothesis puts together, and decoders that were trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from saebench.matching.solve.edges import Edges

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """What to match, and how; shown by hypothesis where it fails."""

    n: int
    m: int
    d: int
    kind: str
    tie: float
    zeros: float
    duplicates: float
    signed: bool
    n_factors: int
    dtype: str
    seed: int
    scaled: bool = False
    factors: list[tuple[Any, Any]] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.n_factors):
            A, B = self._sides(rng)
            dtype = DTYPES[self.dtype]
            self.factors.append((torch.from_numpy(A).to(dtype), torch.from_numpy(B).to(dtype)))

    def _sides(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        n, m, d = self.n, self.m, self.d
        A, B = rng.standard_normal((n, d)), rng.standard_normal((m, d))
        if self.kind == "planted":
            B = A[rng.permutation(max(n, m))[:m] % n] + 0.3 * B
        elif self.kind == "clusters":
            centres = rng.standard_normal((3, d))
            A, B = centres[rng.integers(0, 3, n)] + 0.1 * A, centres[rng.integers(0, 3, m)] + 0.1 * B
        elif self.kind == "cone":
            A, B = 0.1 * A + 1, 0.1 * B + 1
        elif self.kind == "opposite":
            A, B = 0.3 * A + 1, -(0.3 * B + 1)
        elif self.kind == "grid":
            A, B = np.round(A), np.round(B)
        elif self.kind == "same":
            B = A[np.arange(m) % n]
        for rows in (A, B):
            copies = np.flatnonzero(rng.random(len(rows)) < self.duplicates)
            rows[copies] = rows[rng.integers(0, len(rows), len(copies))]
            rows += self.tie * rng.standard_normal(rows.shape)
            rows[rng.random(len(rows)) < self.zeros] = 0
            if self.scaled:
                rows *= np.exp(rng.uniform(-20, 20, (len(rows), 1)))
        return A, B


@st.composite
def cases(draw: st.DrawFn, largest: int = 40) -> Case:
    """Sizes to `largest`; half of them rectangular, all kinds of trouble."""
    sizes = st.one_of(
        st.integers(1, min(8, largest)), st.integers(1, largest), st.integers(max(1, largest // 2), largest)
    )
    n = draw(sizes)
    return Case(
        n=n,
        m=draw(st.one_of(st.just(n), sizes)),
        d=draw(st.sampled_from([1, 2, 3, 8, 32])),
        kind=draw(st.sampled_from(["random", "planted", "clusters", "cone", "opposite", "grid", "same"])),
        tie=draw(st.sampled_from([0, 0, 1e-6, 1e-8, 1e-10, 1e-12])),
        zeros=draw(st.sampled_from([0, 0, 0.05, 0.5, 1])),
        duplicates=draw(st.sampled_from([0, 0, 0.3, 0.95])),
        signed=draw(st.booleans()),
        n_factors=draw(st.sampled_from([1, 1, 2])),
        dtype=draw(st.sampled_from(["float32", "float64", "float64", "bfloat16"])),
        seed=draw(st.integers(0, 2**32 - 1)),
        scaled=draw(st.booleans()),
    )


@lru_cache(maxsize=8)
def trained(d_sae: int, d_in: int, seed: int, steps: int = 120, k: int = 2) -> tuple[Tensor, Tensor]:
    """`(W_enc, W_dec)`, `[d_sae, d_in]` float32, of a TopK SAE on sums of a few of `d_sae` directions."""
    truth = torch.nn.functional.normalize(_gaussian(d_sae, d_in, seed=0), dim=1)
    generator = torch.Generator().manual_seed(1 + seed)
    W_enc = (torch.randn(d_sae, d_in, generator=generator) / d_in**0.5).requires_grad_()
    W_dec = W_enc.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([W_enc, W_dec], lr=0.01)
    for _ in range(steps):
        chosen = torch.randint(0, d_sae, (256, k), generator=generator)
        weights = 0.5 + torch.rand(256, k, generator=generator)
        x = torch.einsum("bk,bkd->bd", weights, truth[chosen])
        values, latents = (x @ W_enc.T).relu().topk(k, dim=1)
        loss = (torch.einsum("bk,bkd->bd", values, W_dec[latents]) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W_enc.detach(), W_dec.detach()


def _gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


NO_PAIR = -1000.0


def graph(
    rng: np.random.Generator, n: int, m: int, density: float, values: np.ndarray | None = None
) -> tuple[Edges, np.ndarray]:
    """A random sparse graph that holds an assignment of all rows, and its values as a matrix with NO_PAIR elsewhere."""
    mask = rng.random((n, m)) < density
    mask[np.arange(n), rng.permutation(m)[:n]] = True
    mask[np.arange(n), np.arange(n)] = True
    c = np.where(mask, rng.uniform(-1, 1, (n, m)) if values is None else values, NO_PAIR)
    rows, columns = np.nonzero(mask)
    return Edges.of(n, m, rows, columns, lambda i, j: c[i, j]), c


def crowd(n: int, m: int, d: int, eps: float, sizes: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random rows, of which so many on each side are within about `eps` of one and the same."""
    rng = np.random.default_rng(seed)
    A, B, centre = rng.standard_normal((n, d)), rng.standard_normal((m, d)), rng.standard_normal(d)
    for rows, size in zip((A, B), sizes, strict=True):
        rows[:size] = centre + eps * rows[:size]
    return A, B
