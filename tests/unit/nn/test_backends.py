"""Which numerics a machine gets, and how to ask for others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from saebench.api import SuiteError
from saebench.nn.kernels import backends

pytestmark = pytest.mark.cpu("back ends are about the processor")


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(backends.VARIABLE, raising=False)
    backends.cpu_features.cache_clear()
    yield
    backends.cpu_features.cache_clear()


@pytest.mark.parametrize(
    ("flags", "onednn", "expected"),
    [
        ({"AuthenticAMD", "avx512f", "avx512_bf16"}, True, "bf16-screen"),
        ({"GenuineIntel", "avx512f", "amx_bf16"}, True, "bf16-screen"),
        ({"bf16"}, True, "bf16-screen"),
        ({"AuthenticAMD", "avx512f"}, True, "onednn"),
        ({"GenuineIntel", "avx512f"}, True, "plain"),
        ({"AuthenticAMD", "avx2"}, True, "plain"),
        ({"AuthenticAMD", "avx512f", "avx512_bf16"}, False, "plain"),
        (set(), True, "plain"),
    ],
)
def test_the_machine_decides(monkeypatch: pytest.MonkeyPatch, flags: set[str], onednn: bool, expected: str) -> None:
    monkeypatch.setattr(backends, "_flags", lambda: frozenset(flags))
    monkeypatch.setattr(backends, "onednn_available", lambda: onednn)
    assert backends.best() == backends.current() == expected
    assert backends.current("cpu", torch.float64) == "plain"
    assert backends.current("cuda") == "plain"


def test_flags_are_words_of_the_first_cpu() -> None:
    flags = backends._flags()
    assert all(" " not in flag for flag in flags)
    assert backends.current() in backends.BACKENDS


def test_a_variable_forces_and_a_block_forces_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backends.VARIABLE, "onednn")
    assert backends.current() == "onednn"
    with backends.force("bf16-screen"):
        assert backends.current() == "bf16-screen"
        assert backends.current("cuda") == "plain"
        with backends.force(None):
            assert backends.current() == "bf16-screen"
        with pytest.raises(RuntimeError, match="inside"), backends.force("plain"):
            raise RuntimeError("inside")
        assert backends.current() == "bf16-screen"
    assert backends.current() == "onednn"


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(SuiteError, match=r"got back end 'fast'\. Use one of bf16-screen, onednn, plain"),
        backends.force("fast"),
    ):
        pass
    monkeypatch.setenv(backends.VARIABLE, "fast")
    with pytest.raises(SuiteError, match="SAEBENCH_BACKEND='fast' is no back end"):
        backends.current()


@pytest.mark.parametrize("name", backends.BACKENDS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_products_are_float32_products(monkeypatch: pytest.MonkeyPatch, name: str, biased: bool, fused: bool) -> None:
    if not fused:  # a torch without the operator goes the longer way
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(7, 33, generator=generator), torch.randn(20, 33, generator=generator)
    b = torch.randn(20, generator=generator) if biased else None
    exact = x.double() @ W.double().T + (0 if b is None else b.double())
    made = backends.product(x, W, b, name)
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-5)
    out = torch.empty(7, 20)
    again = backends.product(x, W, b, name, out)
    torch.testing.assert_close(again.double(), exact, rtol=1e-5, atol=1e-5)
    assert name == "onednn" or again.data_ptr() == out.data_ptr()
