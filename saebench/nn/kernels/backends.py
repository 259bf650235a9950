"""Which numerics an encoder product runs on.

Chosen by the features of the CPU and the shape, never by a race, so that equal machines give equal bits.

`bf16-screen`  a bfloat16 product bounds every pre-activation; what may matter is computed again in float32
`onednn`       the float32 product of oneDNN, which uses wider vectors than MKL does on some processors
`plain`        torch's own product
All three give the same selected latents (see `saebench.nn.kernels.select`); values may differ in the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from saebench.api.errors import SuiteError

BACKENDS = ("bf16-screen", "onednn", "plain")
VARIABLE = "SAEBENCH_BACKEND"
_forced: str | None = None


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """What the choice depends on.

    `bf16`: the CPU has units for bfloat16 products. `onednn`: it is built in. `mkl-narrow`: MKL leaves AVX-512 unused.
    """
    found = set()
    if onednn_available():
        found.add("onednn")
        flags = _flags()
        if bf16_units():
            found.add("bf16")
        if "avx512f" in flags and "GenuineIntel" not in flags:
            found.add("mkl-narrow")
    return frozenset(found)


def bf16_units() -> tuple[str, ...]:
    """What the CPU has for bfloat16 products, by the names that Linux gives them."""
    return tuple(sorted(_flags() & {"amx_bf16", "avx512_bf16", "bf16"}))


def _flags() -> frozenset[str]:
    """Instruction sets and maker of the first CPU that Linux lists; elsewhere nothing, which means `plain`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found: set[str] = set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("vendor_id", "flags", "Features"):
            found |= set(value.split())
        if name.strip() in ("flags", "Features"):
            break
    return frozenset(found)


def best(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """The back end that fits this machine."""
    if torch.device(device).type != "cpu" or dtype != torch.float32:
        return "plain"
    features = cpu_features()
    if "bf16" in features:
        return "bf16-screen"
    return "onednn" if "mkl-narrow" in features else "plain"


def current(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """The back end in use: the forced one (`force`, or SAEBENCH_BACKEND) where it can run, else the best.

    Raises:
        SuiteError: The forced name is unknown.
    """
    name = _forced or os.environ.get(VARIABLE) or None
    if name is None:
        return best(device, dtype)
    if name not in BACKENDS:
        raise SuiteError(f"{VARIABLE}={name!r} is no back end. Use one of {', '.join(BACKENDS)}.")
    return name if torch.device(device).type == "cpu" and dtype == torch.float32 else "plain"


@contextmanager
def force(name: str | None) -> Iterator[None]:
    """Uses one back end inside the block; None leaves the choice as it is.

    Raises:
        SuiteError: Unknown name.
    """
    global _forced
    if name is not None and name not in BACKENDS:
        raise SuiteError(f"got back end {name!r}. Use one of {', '.join(BACKENDS)}.")
    before, _forced = _forced, name if name is not None else _forced
    try:
        yield
    finally:
        _forced = before


def onednn_available() -> bool:
    """Whether torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def product(x: Tensor, W: Tensor, b: Tensor | None, backend: str, out: Tensor | None = None) -> Tensor:
    """`x @ W.T + b` in x's dtype: `[B, d]`, `[n, d]`, `[n]` to `[B, n]`, on oneDNN where the back end says so."""
    if backend == "onednn" and onednn_available():
        fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if fused is not None:  # the same product without copies into oneDNN's own layouts
            made: Tensor = fused(x, W, b, "none", [], "")
            return made
        return functional.linear(x.to_mkldnn(), W.to_mkldnn(), b.to_mkldnn() if b is not None else None).to_dense()
    if b is None:
        return torch.mm(x, W.T, out=out) if out is not None else torch.mm(x, W.T)
    return torch.addmm(b, x, W.T, out=out) if out is not None else torch.addmm(b, x, W.T)
