"""Encoders and tokens that are hard to choose latents for, and what is right for them in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

KINDS = ("normal", "constant", "zero rows", "duplicates", "cancelling", "integers", "negative", "wide", "denormals")
BIASES = ("none", "zero", "small", "large", "negative")


def matrix(kind: str, rows: int, d: int, scale: float, generator: torch.Generator) -> Tensor:
    """`[rows, d]` float32 of one kind.

    Scales outside float32 become zeros, denormals or the largest numbers that squares allow.
    """
    x = torch.randn(rows, d, generator=generator)
    if kind == "constant":
        x = x[:, :1].expand(rows, d).clone()
    elif kind == "zero rows":
        x[torch.rand(rows, generator=generator) < 0.5] = 0
    elif kind == "duplicates":
        x = x[torch.randint(0, max(1, rows // 3), (rows,), generator=generator)]
    elif kind == "cancelling":  # sums far smaller than their terms
        x[:, 1::2] = -x[:, : d - d % 2 : 2] * (1 + 1e-6 * x[:, 1::2])
    elif kind == "integers":
        x = x.mul(2).round()
    elif kind == "negative":
        x = -x.abs()
    elif kind == "wide":
        x = x * 10 ** (6 * torch.rand(rows, d, generator=generator) - 3)
    elif kind == "denormals":
        x = x * 1e-39
        x[:, :1] = 1e-30
    return (x.double() * scale).float() if kind != "integers" else x


def case(x_kind: str, W_kind: str, bias: str, seed: int, rows: int, d: int, n: int, scales: tuple[float, float]) -> Any:
    generator = torch.Generator().manual_seed(seed)
    x, W = matrix(x_kind, rows, d, scales[0], generator), matrix(W_kind, n, d, scales[1], generator)
    b: Tensor | None = torch.zeros(n)
    if bias == "none":
        b = None
    elif bias != "zero":
        size = {"small": 0.1, "large": 1e4, "negative": -5.0}[bias]
        noise = torch.randn(n, generator=generator)
        typical = float((x.double() @ W.double().T).abs().mean())
        b = (size * typical * (noise.abs() if bias == "negative" else noise)).float()
        if W_kind == "integers" and x_kind == "integers":
            b = b.round()
    return SimpleNamespace(x=x, W=W, b=b, exact=exact(x, W, b))


def exact(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """`[B, n]` float64; equal rows of W give equal entries, wherever they stand."""
    v = torch.stack([(row.double() * W.double()).sum(1) for row in x]) if len(x) else x.new_zeros(0, len(W)).double()
    return v if b is None else v + b.double()


def assert_chosen(made: Any, k: int, latents: Tensor) -> None:
    """`latents [B, k]` are the k largest exact entries of each row, ties to the lowest, up to float64's rounding."""
    v, n = made.exact, made.exact.shape[1]
    assert latents.shape == (len(v), k)
    assert bool((latents.diff(dim=1) > 0).all()), "ascending, each once"
    assert not latents.numel() or (int(latents.min()) >= 0 and int(latents.max()) < n)
    chosen = torch.zeros(v.shape, dtype=torch.bool).scatter_(1, latents, True)
    size = made.x.double().abs() @ made.W.double().abs().T + (0 if made.b is None else made.b.double().abs())
    slack = 1e-14 * made.x.shape[1] * size.amax(1)
    low, high = v.masked_fill(~chosen, torch.inf).amin(1), v.masked_fill(chosen, -torch.inf).amax(1)
    assert bool((low >= high - slack).all()), low - high
    # of equal latents the earlier ones go first
    rows = made.W if made.b is None else torch.cat([made.W, made.b.unsqueeze(1)], 1)
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    earlier = torch.tril(group.unsqueeze(0) == group.unsqueeze(1), -1)
    assert not bool((chosen.unsqueeze(2) & earlier & ~chosen.unsqueeze(1)).any()), "a tie went to the higher index"


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """x, W, b and their exact product, over scales from denormals to where norms overflow."""
    exponents = draw(st.tuples(st.integers(-42, 30), st.integers(-42, 30)).filter(lambda e: sum(e) < 33))
    plain = draw(st.booleans())
    scales = (1.0, 1.0) if plain else (10.0 ** exponents[0], 10.0 ** exponents[1])
    n = draw(st.one_of(st.integers(2, 70), st.sampled_from([64, 96, 97, 256, 520])))
    return case(
        draw(st.sampled_from(KINDS)),
        draw(st.sampled_from(KINDS)),
        draw(st.sampled_from(BIASES)),
        draw(st.integers(0, 10**6)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 40)),
        n,
        scales,
    )


def opposed(seed: int) -> tuple[Tensor, Tensor]:
    """x `[1, 514]` and W `[2, 514]`: rounding takes a whole E from one latent for the other, so that bfloat16 has them
    in the wrong order by 1.5 E."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(512, generator=generator)
    lost = y - y.bfloat16().float()
    aim = (lost / lost.norm()).bfloat16().float()
    along, off = float((y.bfloat16().float() * aim).sum()), float(lost.norm())
    # so that bfloat16 sees 1 and 1 - 1.5 E; the exact ones have -E and +E on top
    halves = torch.tensor([[1.0 + along], [1.0 - along - 1.5 * off]])
    high = halves.bfloat16().float()
    W = torch.cat([torch.stack([-aim, aim]), high, (halves - high).bfloat16().float()], 1)
    return torch.cat([y, torch.ones(2)]).unsqueeze(0), W


@st.composite
def ks(draw: st.DrawFn, n: int) -> int:
    return draw(st.one_of(st.sampled_from([1, n - 1, n]), st.integers(1, n)))


@pytest.fixture(scope="session")
def hard() -> Any:
    """The strategies and oracles above."""
    return SimpleNamespace(case=case, cases=cases, ks=ks, exact=exact, assert_chosen=assert_chosen, opposed=opposed)
