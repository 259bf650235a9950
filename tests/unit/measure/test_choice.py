from __future__ import annotations

import pytest

from saebench.api import SuiteError
from saebench.measure.backends import choice
from saebench.nn.kernels import backends

ALL = frozenset({"bf16", "onednn", "mkl-narrow"})


@pytest.fixture
def features(monkeypatch):
    monkeypatch.delenv(backends.VARIABLE, raising=False)

    def have(*names):
        monkeypatch.setattr(backends, "cpu_features", lambda: frozenset(names))

    have(*ALL)
    return have


@pytest.mark.parametrize(
    ("found", "auto", "why", "measured"),
    [
        (ALL, "bf16-screen", "units for bfloat16", ("bf16-screen", "onednn", "plain")),
        ({"onednn", "mkl-narrow"}, "onednn", "AVX-512 unused", ("onednn", "plain")),
        ({"onednn"}, "plain", "no units for bfloat16", ("onednn", "plain")),
        (set(), "plain", "built without oneDNN", ("plain",)),
    ],
)
def test_the_choice_follows_the_features(features, found, auto, why, measured):
    features(*found)
    chosen = choice.choice("cpu")
    assert (chosen.auto, chosen.in_use, chosen.measured) == (auto, auto, measured)
    assert why in chosen.why
    assert set(chosen.left_out) == set(backends.BACKENDS) - set(measured)


def test_on_cuda_only_plain_runs(features):
    chosen = choice.choice("cuda")
    assert (chosen.auto, chosen.measured) == ("plain", ("plain",))
    assert "CPU only" in chosen.left_out["onednn"]


def test_a_back_end_that_cannot_be_measured_is_refused(features, monkeypatch):
    assert choice.choice("cpu", ["plain"]).measured == ("plain",)
    with pytest.raises(SuiteError, match=r"--backend fast: .*Use one of bf16-screen, onednn, plain"):
        choice.choice("cpu", ["fast"])
    features("onednn")
    with pytest.raises(SuiteError, match=r"avx512_bf16.*can run here: onednn, plain"):
        choice.choice("cpu", ["bf16-screen"])
    monkeypatch.setenv(backends.VARIABLE, "odd")
    with pytest.raises(SuiteError, match="SAEBENCH_BACKEND='odd'"):
        choice.choice("cpu")


def test_forced_holds_inside_the_block_only(features, monkeypatch):
    with choice.forced("plain", "cpu"):
        assert backends.current() == "plain"
    with choice.forced(None, "cpu"):
        assert backends.current() == "bf16-screen"
    with pytest.raises(SuiteError, match="--backend odd"), choice.forced("odd", "cpu"):
        pass
    monkeypatch.setenv(backends.VARIABLE, "odd")
    with pytest.raises(SuiteError, match="SAEBENCH_BACKEND"), choice.forced(None, "cpu"):
        pass
